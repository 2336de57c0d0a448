//! Initiators whose TCP is not as one would wish.

use initiator::{Command, Transfer, cdb};
use ringlun_tests::{Seen, Target, wait};
use std::{io::Write, time::Instant};
use wire::BHS_LEN;

/// Each of them would take 40 ms if the acknowledgement of its header were delayed: together three times as long as anything
/// may take.
const WRITES: u64 = 2250;

#[test]
fn writes_in_two_pieces_do_not_wait_for_delayed_acknowledgements_though_nagle_is_on() {
    let target = Target::start("[[volume]]\nname = \"disk\"\nstore = { kind = \"ram\", size = \"16MiB\" }\n");
    let mut client = target.client("disk");
    client.stream().set_nodelay(false).expect("an option of TCP");
    let start = Instant::now();
    for at in 0..WRITES {
        let data = vec![at as u8; 4096];
        let command = Command::write(cdb::write_16(at * 8, 8), data.len() as u32).to_lun(client.lun);
        let (connection, out) = client.raw();
        let handle = connection.submit(&command, Transfer::sending(data), out).expect("the window is open");
        let pdu = std::mem::take(out);
        assert_eq!(pdu.len(), BHS_LEN + 4096, "the data goes with the command");
        for piece in [&pdu[..BHS_LEN], &pdu[BHS_LEN..]] {
            client.stream().write_all(piece).expect("the connection");
        }
        let ended = client.wait(|seen| match seen {
            Seen::Done(of, done) if *of == handle => Some(done.clone()),
            _ => None,
        });
        ended.expect("the connection").good();
        assert!(start.elapsed() < wait::SOON, "only {at} writes within {:?}", wait::SOON);
    }
    assert_eq!(client.read((WRITES - 1) * 8, 8, 512), vec![(WRITES - 1) as u8; 4096]);
    client.log_out().expect("a logout");
    target.end();
}
