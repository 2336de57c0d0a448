//! No bytes from a target make the initiator panic, or send without end.

mod common;

use common::encode;
use initiator::{Advance, Command, Connection, Limits, LoggedIn, Login, LoginOptions, Transfer, cdb};
use negotiation::Parameters;
use proptest::prelude::*;
use rand::SeedableRng;

fn connection(parameters: Parameters) -> Connection<Transfer> {
    let limits = Limits { tasks: 4, requests: 4, ..Limits::default() };
    Connection::new(&LoggedIn::assumed(parameters, 1, 64, 1), limits)
}

/// A header that is likely to get far: a target's opcode, a tag that may be known, small numbers.
fn header() -> impl Strategy<Value = [u8; 48]> {
    let opcode = prop::sample::select(vec![0x20u8, 0x21, 0x22, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3f, 0x23, 0x00]);
    let flags = prop::sample::select(vec![0x80u8, 0x00, 0x81, 0x82, 0x40, 0x90]);
    let number = || prop::sample::select(vec![0u32, 1, 2, 3, 4, 512, 1024, u32::MAX]);
    let words = prop::collection::vec(number(), 10);
    (opcode, flags, any::<[u8; 2]>(), 0u8..2, 0u32..40, words).prop_map(|(opcode, flags, bytes, ahs, length, words)| {
        let mut header = [0; 48];
        header[0] = opcode;
        header[1] = flags;
        header[2] = bytes[0] % 2;
        header[3] = bytes[1] % 3;
        header[4] = ahs;
        header[5..8].copy_from_slice(&length.to_be_bytes()[1..]);
        for (index, word) in words.iter().enumerate() {
            header[8 + index * 4..][..4].copy_from_slice(&word.to_be_bytes());
        }
        header
    })
}

fn drive(connection: &mut Connection<Transfer>, bytes: &[u8], piece: usize) -> usize {
    let mut out = Vec::new();
    for chunk in bytes.chunks(piece.max(1)) {
        let mut input = chunk;
        loop {
            match connection.advance(&mut input, &mut out) {
                Advance::Idle | Advance::Close(_) => break,
                Advance::Event(_) => {}
                Advance::Payload { .. } => {
                    if connection.take_payload(&mut input).is_empty() {
                        break;
                    }
                }
            }
        }
    }
    out.len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_connection_survives_any_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        piece in 1usize..100,
        header_digest: bool,
    ) {
        let mut connection = connection(Parameters { header_digest, ..Parameters::default() });
        drive(&mut connection, &bytes, piece);
    }

    #[test]
    fn a_connection_survives_any_sequence_of_plausible_pdus(
        headers in prop::collection::vec(header(), 1..30),
        piece in 1usize..200,
        in_order: bool,
    ) {
        let parameters = Parameters {
            data_pdu_in_order: in_order,
            data_sequence_in_order: in_order,
            max_outstanding_r2t: 3,
            immediate_data: false,
            ..Parameters::default()
        };
        let mut connection = connection(parameters);
        let mut out = Vec::new();
        let read = Command::read(cdb::read_10(0, 2), 1024);
        let write = Command::write(cdb::write_10(0, 2), 1024);
        connection.submit(&read, Transfer::default(), &mut out).unwrap();
        connection.submit(&write, Transfer::sending(vec![7; 1024]), &mut out).unwrap();
        connection.text(b"SendTargets=\0", &mut out).unwrap();
        connection.ping(&[], &mut out).unwrap();
        let mut bytes = Vec::new();
        for mut header in headers {
            // The right StatSN, or little would be reached.
            header[24..28].copy_from_slice(&connection.exp_stat_sn().to_be_bytes());
            bytes.clear();
            bytes.extend(header);
            let length = usize::from(header[7]);
            bytes.resize(48 + usize::from(header[4]) * 4 + wire::padded(length), 1);
            let sent = drive(&mut connection, &bytes, piece);
            prop_assert!(sent <= 1024 + 48 * 3);
        }
    }

    #[test]
    fn a_login_survives_any_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        text in "([A-Z][A-Za-z_]{0,12}=[A-Za-z0-9,]{0,8}\\x00){0,4}",
        flags: u8,
    ) {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let mut out = Vec::new();
        for plausible in [false, true] {
            let mut login = Login::new(LoginOptions::normal("iqn.a", "iqn.b"));
            login.start(&mut out).unwrap();
            let mut bytes = bytes.clone();
            if plausible {
                let pdu = wire::LoginResponse {
                    transit: flags & 1 != 0,
                    continue_bit: flags & 3 == 2,
                    current_stage: wire::Stage::from_code(flags >> 2 & 1),
                    next_stage: wire::Stage::from_code(flags >> 3 & 3),
                    version_max: 0,
                    version_active: 0,
                    data_segment_length: 0,
                    isid: wire::Isid([0x80, 0, 0, 0, 0, 1]),
                    tsih: 1,
                    initiator_task_tag: 0,
                    stat_sn: 0,
                    exp_cmd_sn: 1,
                    max_cmd_sn: 1,
                    status: wire::LoginStatus::Success,
                };
                bytes = encode(pdu, text.as_bytes(), &Parameters::default());
            }
            let mut input = &bytes[..];
            let _ = login.advance(&mut input, &mut rng, &mut out);
            let _ = login.advance(&mut input, &mut rng, &mut out);
        }
    }
}
