//! Writes whose data goes to the store as it comes.

use super::*;
use memory::{Buffer, Class};
use scsi::fence::{FenceId, FenceRequest};
use wire::{TaskManagementFunction, TaskManagementRequest, TaskManagementResponse};

const CLASSES: [Class; 3] = [Class::Small, Class::Medium, Class::Large];

fn ram() -> Rig {
    Rig::new(Kind::Ram { bytes: 8 << 20, preallocate: true })
}

/// Bytes of which no two blocks are alike.
fn pattern(length: usize, seed: u32) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(seed * 77) >> 11) as u8 | 1).collect()
}

impl Rig {
    /// What the medium holds.
    pub(super) fn medium(&mut self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.core.units[0].queue.read_now(at, &mut bytes).expect("memory").unwrap();
        bytes
    }

    pub(super) fn available(&mut self) -> [u32; 3] {
        CLASSES.map(|class| self.core.reactor().pool().available(class))
    }

    /// All buffers of a class that can be had.
    pub(super) fn take_all(&mut self, class: Class) -> Vec<Buffer> {
        std::iter::from_fn(|| self.core.reactor().pool().take(class)).collect()
    }

    pub(super) fn r2t(&mut self) -> ReadyToTransfer {
        ReadyToTransfer::parse(&self.pdus(1)[0]).unwrap()
    }

    /// One PDU of the answer to an R2T: `range` of the transfer's data.
    fn piece(&mut self, r2t: &ReadyToTransfer, data_sn: u32, range: std::ops::Range<usize>, data: &[u8]) {
        let end = (r2t.buffer_offset + r2t.desired_data_transfer_length) as usize;
        let mut header = [0; BHS_LEN];
        DataOut {
            final_bit: range.end == end,
            data_segment_length: range.len() as u32,
            lun: 0,
            initiator_task_tag: r2t.initiator_task_tag,
            target_transfer_tag: r2t.target_transfer_tag,
            exp_stat_sn: 1,
            data_sn,
            buffer_offset: range.start as u32,
        }
        .emit(&mut header);
        self.peer.write(&header);
        self.peer.write(&data[range.clone()]);
        self.peer.write(&[0; 3][..wire::padding(range.len())]);
    }

    /// Answers R2Ts, in PDUs of `step` bytes, until the status comes; `look` after each PDU has been used up.
    fn pour(&mut self, data: &[u8], step: usize, look: impl FnMut(&mut Rig, usize)) -> u8 {
        let first = self.pdus(1)[0];
        self.pour_on(first, data, step, look)
    }

    /// The same from a PDU on that has come already.
    fn pour_on(
        &mut self,
        mut pdu: [u8; BHS_LEN],
        data: &[u8],
        step: usize,
        mut look: impl FnMut(&mut Rig, usize),
    ) -> u8 {
        loop {
            let Ok(r2t) = ReadyToTransfer::parse(&pdu) else { return ScsiResponse::parse(&pdu).unwrap().status };
            let (mut at, mut data_sn) = (r2t.buffer_offset as usize, 0);
            let end = at + r2t.desired_data_transfer_length as usize;
            while at < end {
                let range = at..(at + step).min(end);
                at = range.end;
                self.piece(&r2t, data_sn, range, data);
                data_sn += 1;
                if at < end {
                    for _ in 0..3 {
                        self.core.turn().unwrap();
                    }
                    look(self, at);
                }
            }
            pdu = self.pdus(1)[0];
        }
    }

    pub(super) fn fence(&mut self, range: std::ops::Range<u64>) -> FenceId {
        let id = FenceId { core: 1, serial: 1 };
        assert!(self.core.units[0].gate.hold(FenceRequest { id, range: Some(range) }, std::iter::empty()));
        id
    }

    pub(super) fn release(&mut self, id: FenceId) {
        self.core.units[0].gate.released(id);
        self.core.retry_unit(0);
    }
}

#[test]
fn a_large_write_takes_no_large_buffer_and_leaves_none() {
    for step in [512, 1000, 4096, 65_532, 256 << 10] {
        let mut rig = ram();
        let (before, data) = (rig.available(), pattern(1 << 20, 1));
        rig.command(TaskAttribute::Simple, &access(0x2a, 1 << 20), 1 << 20, &data[..3000]);
        let mut held = 0;
        let status = rig.pour(&data, step, |rig, _| held = held.max(before[2] - rig.available()[2]));
        assert_eq!(status, 0);
        assert!(held <= 1, "{held}: the one that it is received into");
        assert!(rig.medium(0, 1 << 20) == data, "in PDUs of {step}");
        assert_eq!(rig.medium(1 << 20, 512), [0; 512]);
        assert_eq!(rig.available(), before);
    }
}

#[test]
fn a_large_write_to_memory_that_is_not_there_has_buffers_before_it_is_asked_for() {
    for step in [1000, 65_532] {
        let mut rig = Rig::new(Kind::Ram { bytes: 8 << 20, preallocate: false });
        let (before, data) = (rig.available(), pattern(1 << 20, 9));
        // Half of it has memory.
        let mut cdb = access(0x2a, 1 << 20);
        cdb[3..6].copy_from_slice(&(3_u32 << 10).to_be_bytes()[1..]);
        rig.command(TaskAttribute::Simple, &cdb, 512, &data[..512]);
        assert_eq!(rig.statuses(1), [(1, 0)]);
        // What others have in the way can't have it refused: it waits.
        let taken = rig.take_all(Class::Large);
        rig.command(TaskAttribute::Simple, &cdb, 1 << 20, &[]);
        rig.turns();
        assert_eq!(rig.peer.unread(), 0, "no buffer, no R2T");
        drop(taken);
        assert_eq!(rig.pour(&data, step, |_, _| ()), 0);
        assert!(rig.medium(3 << 19, 1 << 20) == data, "in PDUs of {step}");
        assert_eq!(rig.available(), before);
        // Now it flows.
        let _taken = rig.take_all(Class::Large);
        rig.command(TaskAttribute::Simple, &cdb, 1 << 20, &[]);
        assert_eq!(rig.pour(&data, step, |_, _| ()), 0);
    }
}

#[test]
fn a_write_goes_on_though_no_large_buffer_can_be_had() {
    let mut rig = ram();
    let data = pattern(600 << 10, 2);
    let _taken = rig.take_all(Class::Large);
    rig.command(TaskAttribute::Simple, &access(0x2a, 600 << 10), 600 << 10, &[]);
    assert_eq!(rig.pour(&data, 9_000, |_, _| ()), 0);
    assert!(rig.medium(0, 600 << 10) == data);
}

#[test]
fn nobody_sees_a_part_of_a_block() {
    let mut rig = ram();
    let (length, step) = (20 << 10, 700);
    let (old, new) = (pattern(length, 3), pattern(length, 4));
    for data in [&old, &new] {
        rig.command(TaskAttribute::Simple, &access(0x2a, length as u32), length as u32, &[]);
        assert_eq!(
            rig.pour(data, step, |rig, came| {
                rig.read(&access(0x28, length as u32), length as u32);
                let answer = rig.bytes(BHS_LEN + length);
                for (nth, block) in answer[BHS_LEN..].chunks(BLOCK as usize).enumerate() {
                    let range = nth * BLOCK as usize..(nth + 1) * BLOCK as usize;
                    let expected: &[u8] = if range.end <= came {
                        &data[range]
                    } else if std::ptr::eq(data, &old) {
                        &[0; BLOCK as usize]
                    } else {
                        &old[range]
                    };
                    assert!(block == expected, "block {nth}, {came} bytes have come");
                }
            }),
            0
        );
        assert!(rig.medium(0, length) == *data);
    }
}

#[test]
fn what_was_written_before_an_abort_is_whole_blocks_and_nothing_comes_later() {
    let mut rig = ram();
    let (before, data) = (rig.available(), pattern(256 << 10, 5));
    rig.command(TaskAttribute::Simple, &access(0x2a, 256 << 10), 256 << 10, &[]);
    let r2t = rig.r2t();
    rig.piece(&r2t, 0, 0..100_000, &data);
    rig.turns();
    let mut header = [0; BHS_LEN];
    TaskManagementRequest {
        immediate: true,
        function: TaskManagementFunction::AbortTask,
        data_segment_length: 0,
        lun: 0,
        initiator_task_tag: 999,
        referenced_task_tag: r2t.initiator_task_tag,
        cmd_sn: rig.cmd_sn,
        exp_stat_sn: 1,
        ref_cmd_sn: rig.cmd_sn - 1,
        exp_data_sn: 0,
    }
    .emit(&mut header);
    rig.peer.write(&header);
    let response = TaskManagementResponse::parse(&rig.pdus(1)[0]).unwrap();
    assert_eq!(response.response, wire::TaskManagementResult::Complete);
    assert_eq!(rig.available(), before);
    // The initiator had sent more already.
    rig.piece(&r2t, 1, 100_000..(256 << 10), &data);
    rig.turns();
    let whole = 100_000 / BLOCK as usize * BLOCK as usize;
    let mut expected = data[..whole].to_vec();
    expected.resize(256 << 10, 0);
    assert!(rig.medium(0, 256 << 10) == expected);
    assert_eq!(rig.available(), before);
}

#[test]
fn data_that_comes_under_a_fence_is_kept_until_it_ends() {
    for step in [1000, 64 << 10] {
        let mut rig = ram();
        let (before, data) = (rig.available(), pattern(512 << 10, 6));
        rig.command(TaskAttribute::Simple, &access(0x2a, 512 << 10), 512 << 10, &[]);
        let mut fence = None;
        let end = rig.pour(&data, step, |rig, came| {
            if came == 128_000 || came == 128 << 10 {
                fence = Some(rig.fence(0..200 << 10));
            } else if fence.is_some() && came < 250_000 {
                let written = came.min(if step == 1000 { 128_000 } else { 128 << 10 }) / 512 * 512;
                let found = rig.medium(0, 256 << 10);
                assert!(found[..written] == data[..written], "{came}");
                assert!(found[written..].iter().all(|byte| *byte == 0), "under the fence, {came}");
            } else if came > 250_000
                && let Some(fence) = fence.take()
            {
                rig.release(fence);
            }
        });
        assert_eq!((end, fence), (0, None));
        assert!(rig.medium(0, 512 << 10) == data);
        assert_eq!(rig.available(), before);
    }
}

#[test]
fn a_window_that_fills_under_a_fence_is_written_after_it() {
    let mut rig = ram();
    let data = pattern(64 << 10, 7);
    let fence = rig.fence(1000..1001);
    rig.command(TaskAttribute::Simple, &access(0x2a, 64 << 10), 64 << 10, &data[..5000]);
    let r2t = rig.r2t();
    rig.piece(&r2t, 0, 5000..64 << 10, &data);
    rig.turns();
    assert_eq!(rig.peer.unread(), 0, "no status");
    assert!(rig.medium(0, 64 << 10).iter().all(|byte| *byte == 0));
    rig.release(fence);
    assert_eq!(rig.statuses(1), [(1, 0)]);
    assert!(rig.medium(0, 64 << 10) == data);
}

#[test]
fn data_without_a_place_under_a_fence_is_refused_truthfully_and_may_come_again() {
    // TASK SET FULL says that nothing was done; else it is an aborted command.
    for (from, refusal) in [(0, 0x28), (100_000, 0x02)] {
        let mut rig = ram();
        let data = pattern(512 << 10, 8);
        rig.command(TaskAttribute::Simple, &access(0x2a, 512 << 10), 512 << 10, &[]);
        let r2t = rig.pdus(1)[0];
        let (mut taken, mut fence) = (Vec::new(), None);
        let mut close = |rig: &mut Rig, came| {
            if came == from {
                taken = rig.take_all(Class::Large);
                fence = Some(rig.fence(0..1 << 20));
            }
        };
        close(&mut rig, 0);
        assert_eq!(rig.pour_on(r2t, &data, 100_000, close), refusal, "{from}");
        let written = from / BLOCK as usize * BLOCK as usize;
        let found = rig.medium(0, 512 << 10);
        assert!(found[..written] == data[..written] && found[written..].iter().all(|byte| *byte == 0));
        drop(taken);
        rig.release(fence.unwrap());
        rig.command(TaskAttribute::Simple, &access(0x2a, 512 << 10), 512 << 10, &[]);
        assert_eq!(rig.pour(&data, 100_000, |_, _| ()), 0);
        assert!(rig.medium(0, 512 << 10) == data);
    }
}

#[test]
fn a_window_of_a_write_that_has_failed_is_not_written_any_more() {
    let mut rig = ram();
    let (before, data) = (rig.available(), pattern(512 << 10, 13));
    rig.command(TaskAttribute::Simple, &access(0x2a, 512 << 10), 512 << 10, &[]);
    let r2t = rig.r2t();
    assert_eq!((r2t.buffer_offset, r2t.desired_data_transfer_length), (0, 256 << 10));
    let fence = rig.fence(0..1 << 20);
    // Enough for the first window, which is filled, and waits for the end of the fence.
    let mut taken = rig.take_all(Class::Large);
    taken.truncate(taken.len() - 2);
    rig.piece(&r2t, 0, 0..256 << 10, &data);
    let r2t = rig.r2t();
    rig.piece(&r2t, 0, (256 << 10)..(300 << 10), &data);
    rig.turns();
    rig.release(fence);
    rig.turns();
    assert!(rig.medium(0, 512 << 10).iter().all(|byte| *byte == 0));
    rig.piece(&r2t, 1, (300 << 10)..(512 << 10), &data);
    assert_eq!(rig.statuses(1), [(1, 0x28)]);
    assert!(rig.medium(0, 512 << 10).iter().all(|byte| *byte == 0));
    drop(taken);
    assert_eq!(rig.available(), before);
}

#[test]
fn data_that_came_before_its_command_could_start_comes_first() {
    for immediate in [0, 1, 3000, 4096, 60_001] {
        let mut rig = ram();
        let (first, second) = (pattern(4096, 9), pattern(512 << 10, 10));
        rig.command(TaskAttribute::Simple, &access(0x2a, 4096), 4096, &[]);
        let r2t = rig.r2t();
        rig.command(TaskAttribute::Ordered, &access(0x2a, 512 << 10), 512 << 10, &second[..immediate]);
        rig.peer.write(&[0; 3][..wire::padding(immediate)]);
        rig.turns();
        rig.piece(&r2t, 0, 0..4096, &first);
        let pdus = rig.pdus(2);
        assert_eq!(ScsiResponse::parse(&pdus[0]).unwrap().status, 0);
        assert_eq!(rig.pour_on(pdus[1], &second, 10_000, |_, _| ()), 0);
        assert!(rig.medium(0, 512 << 10) == second, "{immediate} bytes came early");
    }
}

#[test]
fn two_writes_that_come_in_turns_do_not_mix() {
    let mut rig = ram();
    let (one, two) = (pattern(256 << 10, 11), pattern(256 << 10, 12));
    rig.command(TaskAttribute::Simple, &access(0x2a, 256 << 10), 256 << 10, &[]);
    let mut behind = access(0x2a, 256 << 10);
    behind[4] = 2;
    behind[5] = 0;
    rig.command(TaskAttribute::Simple, &behind, 256 << 10, &[]);
    let r2ts: Vec<_> = rig.pdus(2).iter().map(|pdu| ReadyToTransfer::parse(pdu).unwrap()).collect();
    let (mut at, mut data_sn) = (0, 0);
    while at < 256 << 10 {
        let range = at..(at + 7001).min(256 << 10);
        at = range.end;
        rig.piece(&r2ts[0], data_sn, range.clone(), &one);
        rig.piece(&r2ts[1], data_sn, range, &two);
        data_sn += 1;
        if data_sn % 3 == 0 {
            rig.turns();
        }
    }
    assert_eq!(rig.statuses(2), [(1, 0), (2, 0)]);
    assert!(rig.medium(0, 256 << 10) == one && rig.medium(512 * 512, 256 << 10) == two);
}
