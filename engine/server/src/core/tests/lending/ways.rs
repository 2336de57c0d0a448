//! Several readers, and other ways to write than WRITE.

use super::*;

#[test]
fn what_one_reader_has_another_one_may_not_have() {
    for ends in [false, true] {
        let mut reader = Reader::new();
        let mut another = reader.another(10);
        reader.read(0);
        assert_eq!(reader.pdus().len(), 1);
        reader.swap(&mut another);
        reader.read(LENT);
        let pdus = reader.pdus();
        assert_eq!((pdus.len(), reader.lends()), (1, 2));
        if ends {
            reader.rig.peer.close();
        } else {
            reader.rig.has = pdus[0].stat_sn() + 1;
            reader.rig.command(TaskAttribute::Simple, &[0; 6], 0, &[]);
        }
        reader.turns();
        assert_eq!(reader.lends(), 1);
        assert!(reader.rig.core.loans.has(0, &(0..1)));
    }
}

#[test]
fn whatever_writes_waits_for_what_is_lent() {
    let mut unmap = [0; 24];
    (unmap[1], unmap[3], unmap[19]) = (22, 16, 8);
    let commands: [(&[u8], &[u8], u8); 3] = [
        // WRITE SAME (10), the same that unmaps, UNMAP.
        (&[0x41, 0, 0, 0, 0, 0, 0, 0, 8, 0], &[9; BLOCK as usize], 9),
        (&[0x41, 8, 0, 0, 0, 0, 0, 0, 8, 0], &[0; BLOCK as usize], 0),
        (&[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], &unmap, 0),
    ];
    for (cdb, data, becomes) in commands {
        let mut reader = Reader::new();
        reader.write(0, LENT, 7);
        reader.read(0);
        assert_eq!((reader.pdus().len(), reader.lends()), (2, 1));
        reader.rig.command(TaskAttribute::Simple, cdb, data.len() as u32, data);
        reader.rig.peer.write(&wire::digest::to_wire(wire::crc32c(data)));
        let ping = reader.pdus()[0].is_ping().expect("a ping");
        assert_eq!((reader.medium(0), reader.lends()), (7, 1), "{cdb:x?}");
        reader.rig.has = 4;
        reader.answer(ping);
        assert_eq!((reader.medium(0), reader.lends()), (becomes, 0), "{cdb:x?}");
        let pdus = reader.pdus();
        assert_eq!(ScsiResponse::parse(&pdus[0].header).unwrap().status, 0, "{cdb:x?}");
    }
}

#[test]
fn large_writes_to_what_is_lent_are_not_refused_however_few_buffers_there_are() {
    const MANY: u32 = 16;
    const LARGE: u32 = 256 << 10;
    for at in [0, 2 * LENT] {
        let mut reader = Reader::new();
        let mut writer = reader.another_with(1, false);
        reader.read(at);
        assert_eq!((reader.pdus().len(), reader.lends()), (1, 1));
        reader.swap(&mut writer);
        for _ in 0..MANY {
            reader.rig.command(TaskAttribute::Simple, &access_at(0x2a, 0, LARGE), LARGE, &[]);
        }
        let mut ended = 0;
        while ended < MANY {
            for header in reader.rig.pdus(1) {
                if let Ok(r2t) = ReadyToTransfer::parse(&header) {
                    let data = vec![5; r2t.desired_data_transfer_length as usize];
                    reader.rig.data_out(r2t.initiator_task_tag, r2t.target_transfer_tag, r2t.buffer_offset, &data);
                } else {
                    let response = ScsiResponse::parse(&header).unwrap();
                    assert_eq!((response.status, reader.medium(at)), (0, 5));
                    ended += 1;
                }
            }
        }
    }
}

#[test]
fn acknowledgements_go_round() {
    let mut reader = Reader::new();
    let mut another = reader.another(u32::MAX - 3);
    reader.swap(&mut another);
    for stat_sn in [u32::MAX - 2, u32::MAX - 1, u32::MAX, 0, 1] {
        reader.read(0);
        let pdus = reader.pdus();
        assert_eq!((pdus[0].stat_sn(), reader.lends()), (stat_sn, 1), "what was lent before has come back");
        reader.rig.has = stat_sn.wrapping_add(1);
    }
}
