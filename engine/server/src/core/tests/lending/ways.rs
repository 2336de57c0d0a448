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

impl Reader {
    /// EXTENDED COPY of what lies first of the first unit to the second one.
    fn copy(&mut self) {
        let mut list = vec![1, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0, 0];
        for unit in &self.rig.core.units {
            let mut cscd = [0; 32];
            (cscd[0], cscd[30]) = (0xe4, (BLOCK >> 8) as u8);
            cscd[4..8].copy_from_slice(&[1, 3, 0, 8]);
            cscd[8..16].copy_from_slice(&unit.logical().identity().naa_bytes());
            list.extend(cscd);
        }
        let mut segment = [0; 28];
        (segment[0], segment[3], segment[7], segment[11]) = (2, 24, 1, (LENT / BLOCK) as u8);
        list.extend(segment);
        let mut cdb = [0; 16];
        (cdb[0], cdb[13]) = (0x83, list.len() as u8);
        self.rig.lun = 0;
        self.rig.command(TaskAttribute::Simple, &cdb, list.len() as u32, &list);
        self.rig.peer.write(&wire::digest::to_wire(wire::crc32c(&list)));
    }
}

#[test]
fn a_copy_waits_for_what_is_lent_of_its_target_alone() {
    // What is read first and what then, and whether the copy has to wait for the first, and for the second.
    for (luns, waits) in [
        (&[][..], [false; 2]),
        (&[0], [false; 2]),
        (&[1], [true, false]),
        (&[1, 0], [true, false]),
        (&[0, 1], [true; 2]),
    ] {
        let mut reader = Reader::of(0, vec![ram(), ram()]);
        reader.write(0, LENT, 7);
        assert_eq!(reader.pdus().len(), 1);
        let mut stat_sn = Vec::new();
        for lun in luns {
            reader.rig.lun = *lun;
            reader.read(0);
            stat_sn.push(reader.pdus()[0].stat_sn());
        }
        let lent = |reader: &Reader| reader.lends_of(0) + reader.lends_of(1);
        assert_eq!(lent(&reader), luns.len());
        reader.copy();
        let mut pdus = reader.pdus();
        let ping = pdus[0].is_ping();
        assert_eq!((pdus.len(), ping.is_some()), (1, waits[0]), "{luns:?}");
        for (nth, has) in stat_sn.iter().enumerate().take_while(|(nth, _)| waits[*nth]) {
            assert_eq!(reader.medium_of(1, 0), 0, "{luns:?} {nth}");
            reader.rig.has = has + 1;
            reader.answer(ping.unwrap());
            assert_eq!(lent(&reader), luns.len() - nth - 1);
            pdus = reader.pdus();
        }
        assert_eq!(reader.medium_of(1, 0), 7, "{luns:?}");
        assert_eq!(ScsiResponse::parse(&pdus[0].header).unwrap().status, 0, "{luns:?}");
    }
}

#[test]
fn what_is_cut_off_and_comes_back_is_zeroed_when_its_readers_have_it() {
    for answers in [true, false] {
        let mut reader = Reader::new();
        reader.write(LENT, LENT, 7);
        assert_eq!(reader.pdus().len(), 1);
        reader.rig.peer.set_window(100);
        reader.read(LENT);
        reader.turns();
        assert_eq!(reader.lends(), 1);
        let (store, region) = (reader.rig.stores[0].clone(), reader.region(0));
        store.resize(LENT.into());
        std::thread::scope(|scope| {
            let measuring = scope.spawn(|| store.measure(&ram()).unwrap());
            while region.may_hold() {
                std::thread::yield_now();
            }
            if answers {
                reader.rig.peer.set_window(4 << 20);
                let pdus = reader.pdus();
                assert_eq!((pdus.len(), pdus[0].byte(), reader.lends()), (1, 7, 1));
                reader.rig.has = pdus[0].stat_sn() + 1;
                reader.rig.command(TaskAttribute::Simple, &[0; 6], 0, &[]);
                assert_eq!(reader.pdus().len(), 1);
            }
            while reader.lends() > 0 {
                reader.rig.core.turn().unwrap();
            }
            store.resize(measuring.join().unwrap());
        });
        assert_eq!(reader.medium(LENT), 0);
    }
}
