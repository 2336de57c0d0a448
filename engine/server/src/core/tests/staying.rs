//! Receives that stay while small commands come, and make room for others; and those that take much.

use super::*;
use crate::core::Receiving;
use memory::Class;

const TEST_UNIT_READY: [u8; 6] = [0; 6];

impl Rig {
    /// Small commands, until a receive stays.
    fn calm(&mut self) {
        for _ in 0..100 {
            self.command(TaskAttribute::Simple, &TEST_UNIT_READY, 0, &[]);
            let tag = self.cmd_sn - 2;
            assert_eq!(self.statuses(1), [(tag, 0)]);
            if self.stays() {
                return;
            }
        }
        panic!("no receive stays");
    }

    fn stays(&mut self) -> bool {
        matches!(self.link().1.receiving, Receiving::Staying { ends: false, .. })
    }
}

fn rig() -> Rig {
    Rig::new(Kind::Ram { bytes: 8 << 20, preallocate: true })
}

#[test]
fn large_data_has_it_end_and_comes_to_its_place_directly() {
    // WRITE(10) flows, WRITE AND VERIFY(10) goes through windows.
    for (opcode, wanted) in [(0x2a, "Large"), (0x2e, "Into")] {
        let mut rig = rig();
        let data: Vec<u8> = (0..1 << 20).map(|n: u32| (n / 56) as u8).collect();
        let mut directly = 0;
        for _ in 0..3 {
            rig.calm();
            rig.command(TaskAttribute::Simple, &access(opcode, 1 << 20), 1 << 20, &[]);
            let mut pdu = rig.pdus(1)[0];
            while let Ok(r2t) = ReadyToTransfer::parse(&pdu) {
                let range = r2t.buffer_offset as usize..(r2t.buffer_offset + r2t.desired_data_transfer_length) as usize;
                let mut header = [0; BHS_LEN];
                DataOut {
                    final_bit: true,
                    data_segment_length: range.len() as u32,
                    lun: 0,
                    initiator_task_tag: r2t.initiator_task_tag,
                    target_transfer_tag: r2t.target_transfer_tag,
                    exp_stat_sn: 1,
                    data_sn: 0,
                    buffer_offset: r2t.buffer_offset,
                }
                .emit(&mut header);
                rig.peer.write(&header);
                for piece in data[range].chunks(32 << 10) {
                    rig.peer.write(piece);
                    for _ in 0..4 {
                        rig.core.turn().unwrap();
                        directly += u32::from(format!("{:?}", rig.link().1.receiving).starts_with(wanted));
                        assert!(rig.link().1.operations <= 2, "a receive and a send");
                    }
                }
                pdu = rig.pdus(1)[0];
            }
            assert_eq!(ScsiResponse::parse(&pdu).unwrap().status, 0);
            let mut medium = vec![0; 1 << 20];
            rig.core.units[0].queue.read_now(0, &mut medium).expect("memory").unwrap();
            assert!(medium == data);
        }
        assert!(directly > 20, "{directly} of {wanted}");
    }
}

#[test]
fn a_link_that_does_not_read_its_answers_is_not_read_any_more() {
    let mut rig = rig();
    rig.calm();
    rig.hold(4 << 20);
    assert!(rig.link().1.is_flooded());
    // What comes while it is being stopped is answered; from then on nothing is taken from the socket.
    rig.command(TaskAttribute::Simple, &TEST_UNIT_READY, 0, &[]);
    assert_eq!(rig.statuses(1).len(), 1);
    rig.turns();
    assert_eq!((rig.link().1.receiving, rig.link().1.operations), (Receiving::Idle, 0));
    let first = rig.cmd_sn - 1;
    (0..5).for_each(|_| rig.command(TaskAttribute::Simple, &TEST_UNIT_READY, 0, &[]));
    rig.turns();
    assert_eq!(rig.peer.unread(), 0);
    rig.free(4 << 20);
    assert_eq!(rig.statuses(5), (first..first + 5).map(|tag| (tag, 0)).collect::<Vec<_>>());
    rig.calm();
}

#[test]
fn more_than_a_buffer_holds_ends_it_so_that_others_find_buffers() {
    let mut rig = rig();
    rig.calm();
    let first = rig.cmd_sn - 1;
    for n in 0..40 {
        rig.command(TaskAttribute::Simple, &access(0x2a, 4096), 4096, &[n; 4096]);
    }
    let mut ended = false;
    let mut statuses = Vec::new();
    while statuses.len() < 40 {
        statuses.extend(rig.statuses(1));
        ended |= !rig.stays();
    }
    assert!(ended);
    assert_eq!(statuses, (first..first + 40).map(|tag| (tag, 0)).collect::<Vec<_>>());
    rig.calm();
}

#[test]
fn a_session_whose_receive_stays_ends_like_any_other() {
    for gentle in [true, false] {
        let mut rig = rig();
        rig.calm();
        let key = rig.link().0;
        if gentle {
            rig.core.close_gently(key, CloseReason::Logout);
        } else {
            rig.core.cut(key, CloseReason::Silent);
        }
        rig.command(TaskAttribute::Simple, &TEST_UNIT_READY, 0, &[]);
        rig.turns();
        assert_eq!((rig.core.sessions(), rig.core.reactor().in_flight()), (0, 0));
        assert!(rig.peer.is_at_end());
    }
    // And so when the peer goes.
    let mut rig = rig();
    rig.calm();
    rig.peer.close();
    rig.turns();
    assert_eq!((rig.core.sessions(), rig.core.reactor().in_flight()), (0, 0));
}

#[test]
fn behind_a_full_buffer_much_is_received_at_once() {
    // A buffer of the usual size holds none of them whole.
    const LENGTH: u32 = 64 << 10;
    const COUNT: u32 = 48;
    for (digests, scarce) in [(false, false), (true, false), (true, true)] {
        let mut rig = Rig::with(Kind::Ram { bytes: 8 << 20, preallocate: true }, digests, None);
        // A quarter of them.
        let mut taken = if scarce { rig.take_all(Class::Large) } else { Vec::new() };
        taken.truncate(2);
        let first = rig.cmd_sn - 1;
        let data: Vec<u8> = (0..LENGTH * COUNT).map(|n| (n / 999) as u8).collect();
        for (data, n) in data.chunks(LENGTH as usize).zip(0..) {
            let mut cdb = access(0x2a, LENGTH);
            cdb[2..6].copy_from_slice(&(n * LENGTH / BLOCK).to_be_bytes());
            rig.command(TaskAttribute::Simple, &cdb, LENGTH, data);
            if digests {
                rig.peer.write(&wire::digest::to_wire(wire::crc32c(data)));
            }
        }
        let (mut turns, mut large, mut answers) = (0, 0, Vec::new());
        while answers.len() < COUNT as usize * BHS_LEN {
            rig.core.turn().unwrap();
            answers.extend(rig.peer.read(1 << 20));
            turns += 1;
            large += u32::from(matches!(rig.link().1.receiving, Receiving::Large(_)));
        }
        for (answer, tag) in answers.chunks(BHS_LEN).zip(first..) {
            let response = ScsiResponse::parse(answer.first_chunk().unwrap()).unwrap();
            assert_eq!((response.initiator_task_tag, response.status), (tag, 0));
        }
        assert_eq!(rig.medium(0, data.len()), data);
        // Three of them are at most 256 KiB.
        let least = COUNT / 3;
        match scarce {
            false => assert!(large >= least - 1 && turns <= 2 * least + 4, "{large} of {turns}, {digests}"),
            true => assert_eq!(large, 0),
        }
        drop(taken);
        // With what comes in ones, it is as before.
        rig.calm();
    }
}

#[test]
fn large_pdus_come_to_their_places_directly_one_behind_the_other() {
    // Each of them ends in the middle of a buffer of the usual size.
    const LENGTH: u32 = 256 << 10;
    const COUNT: u32 = 6;
    for digests in [false, true] {
        // Through windows.
        let mut rig = Rig::with(Kind::Ram { bytes: 8 << 20, preallocate: false }, digests, None);
        let first = rig.cmd_sn - 1;
        (0..COUNT).for_each(|_| rig.command(TaskAttribute::Simple, &access(0x2e, LENGTH), LENGTH, &[]));
        let data = |tag: u32| -> Vec<u8> { (0..LENGTH).map(|n| ((n + tag) / 999) as u8).collect() };
        let (mut receives, mut heads, mut statuses) = (Vec::new(), 0, Vec::new());
        while statuses.len() < COUNT as usize {
            // The R2Ts that have come are answered together.
            for pdu in rig.pdus(1) {
                match ReadyToTransfer::parse(&pdu) {
                    Ok(r2t) => {
                        let data = data(r2t.initiator_task_tag);
                        rig.data_out(r2t.initiator_task_tag, r2t.target_transfer_tag, 0, &data);
                        if digests {
                            rig.peer.write(&wire::digest::to_wire(wire::crc32c(&data)));
                        }
                    }
                    Err(_) => statuses.push(ScsiResponse::parse(&pdu).unwrap()),
                }
            }
            for _ in 0..40 {
                rig.core.turn().unwrap();
                let receiving = rig.link().1.receiving;
                match receiving {
                    Receiving::Into(direct) if !receives.contains(&direct) => receives.push(direct),
                    Receiving::Large(_) => panic!("a large receive"),
                    _ => {}
                }
                heads += u32::from(matches!(receiving, Receiving::Head(_)));
            }
        }
        statuses.sort_by_key(|response| response.initiator_task_tag);
        for (response, tag) in statuses.iter().zip(first..) {
            assert_eq!((response.initiator_task_tag, response.status), (tag, 0));
        }
        assert!(receives.len() >= COUNT as usize && heads > 0, "{receives:?}, {heads} heads");
        // Which of them is last, nobody knows.
        let written = rig.medium(0, LENGTH as usize);
        assert!((first..first + COUNT).any(|tag| written == data(tag)));
        // Small commands are received as ever.
        rig.calm();
    }
}

#[test]
fn what_came_behind_the_data_of_a_task_that_is_gone_is_not_lost() {
    const LENGTH: u32 = 256 << 10;
    let mut rig = rig();
    rig.command(TaskAttribute::Simple, &access(0x2e, LENGTH), LENGTH, &[]);
    let r2t = ReadyToTransfer::parse(&rig.pdus(1)[0]).unwrap();
    // The data comes in two parts, and a command right behind it.
    let mut header = [0; BHS_LEN];
    DataOut {
        final_bit: true,
        data_segment_length: LENGTH,
        lun: 0,
        initiator_task_tag: r2t.initiator_task_tag,
        target_transfer_tag: r2t.target_transfer_tag,
        exp_stat_sn: 1,
        data_sn: 0,
        buffer_offset: 0,
    }
    .emit(&mut header);
    rig.peer.write(&header);
    rig.peer.write(&[7; LENGTH as usize / 2]);
    rig.turns();
    let (_, link) = rig.link();
    let Receiving::Into(direct) = link.receiving else { panic!("{:?}", link.receiving) };
    rig.core.kill(direct.task);
    rig.peer.write(&[7; LENGTH as usize / 2]);
    rig.command(TaskAttribute::Simple, &TEST_UNIT_READY, 0, &[]);
    let tag = rig.cmd_sn - 2;
    assert_eq!(rig.statuses(1), [(tag, 0)]);
    rig.turns();
    assert_eq!(rig.core.tasks.len(), 0);
}

#[test]
fn a_session_that_has_a_large_buffer_waiting_gives_it_back_when_it_ends() {
    const LENGTH: u32 = 64 << 10;
    for ending in 0..4 {
        let mut rig = rig();
        let before = rig.available();
        // Of its data nothing comes yet.
        let mut header = [0; BHS_LEN];
        ScsiCommand {
            write: true,
            data_segment_length: LENGTH,
            lun: 0,
            expected_data_transfer_length: LENGTH,
            ..plain(rig.cmd_sn - 1, rig.cmd_sn, &access(0x2a, LENGTH))
        }
        .emit(&mut header);
        rig.cmd_sn += 1;
        rig.peer.write(&header);
        rig.turns();
        assert!(matches!(rig.link().1.receiving, Receiving::Large(_)));
        let key = rig.link().0;
        match ending {
            0 => rig.core.close_gently(key, CloseReason::Logout),
            1 => rig.core.cut(key, CloseReason::Silent),
            2 => rig.peer.close(),
            // Or goes on.
            _ => {
                rig.peer.write(&[7; LENGTH as usize]);
                assert_eq!(rig.statuses(1), [(rig.cmd_sn - 2, 0)]);
                rig.calm();
            }
        }
        if ending < 2 {
            rig.peer.write(&[7; LENGTH as usize]);
        }
        if ending < 3 {
            rig.turns();
            assert_eq!((rig.core.sessions(), rig.core.reactor().in_flight()), (0, 0));
        }
        assert_eq!(rig.available(), before);
    }
}

#[test]
fn a_session_that_rests_has_no_large_buffer_waiting() {
    // With the 31 behind it exactly as long as a buffer of the usual size.
    const LENGTH: u32 = 125 * BLOCK;
    let mut rig = rig();
    for _ in 0..3 {
        rig.command(TaskAttribute::Simple, &access(0x2a, LENGTH), LENGTH, &[7; LENGTH as usize]);
        (0..31).for_each(|_| rig.command(TaskAttribute::Simple, &TEST_UNIT_READY, 0, &[]));
        assert_eq!(rig.statuses(32).len(), 32);
        assert!(!matches!(rig.link().1.receiving, Receiving::Large(_)));
    }
}
