//! Immediate, unsolicited and solicited data, and what is wrong with it.

use super::harness::*;
use crate::Event;
use negotiation::Parameters;
use wire::{RejectReason, ResponsePdu, ScsiCommand};

#[test]
fn immediate_data_belongs_to_its_command() {
    let mut target = Target::new();
    let log = target.send(|h| write(0, 1000).emit(h), &pattern(0, 1000));
    let task = target.session.find(&target.tasks, 0).unwrap();
    let command = Event::Command { task, cdb: [0; 16], immediate: 1000, held: false, unsolicited: false };
    assert_eq!(log, [Log::Event(command), payload(task, 0, 1000), data(task, 0, 1000, true)]);
    assert!(!target.tasks.get(task).unwrap().expects_data());
}

#[test]
fn unsolicited_data_follows_immediate_data() {
    let mut target = Target::new();
    let command = ScsiCommand { final_bit: false, ..write(0, 1536) };
    let task = target.command(command, &pattern(0, 512));
    assert!(target.tasks.get(task).unwrap().unsolicited_open());
    let log = target.send(|h| unsolicited(0, 0, 512, false).emit(h), &pattern(512, 512));
    assert_eq!(log, [payload(task, 512, 512), data(task, 512, 512, false)]);
    let log = target.send(|h| unsolicited(0, 1, 1024, true).emit(h), &pattern(1024, 512));
    assert_eq!(log, [payload(task, 1024, 512), data(task, 1024, 512, true)]);
    let entry = target.tasks.get(task).unwrap();
    assert!(!entry.unsolicited_open());
    assert_eq!(entry.unsolicited_bytes(), 1536);
}

#[test]
fn unsolicited_data_of_two_commands_may_be_mixed() {
    let mut target = Target::new();
    let first = target.command(ScsiCommand { final_bit: false, ..write(0, 512) }, &[]);
    let second = target.command(ScsiCommand { final_bit: false, ..write(1, 512) }, &[]);
    let log = target.send(|h| unsolicited(0, 0, 0, false).emit(h), &pattern(0, 256));
    assert_eq!(log[1], data(first, 0, 256, false));
    let log = target.send(|h| unsolicited(1, 0, 0, true).emit(h), &pattern(0, 512));
    assert_eq!(log[1], data(second, 0, 512, true));
    let log = target.send(|h| unsolicited(0, 1, 256, true).emit(h), &pattern(256, 256));
    assert_eq!(log[1], data(first, 256, 256, true));
}

#[test]
fn several_r2ts_are_answered_with_their_tags() {
    let mut target = Target::new();
    let task = target.command(write(0, 4096), &[]);
    let first = target.r2t(task, 0, 2048);
    let second = target.r2t(task, 2048, 2048);
    assert_ne!(first, second);
    let entry = target.tasks.get(task).unwrap();
    assert!(!target.connection.may_solicit(entry));
    assert!(!target.solicit(task, 0, 512));
    let log = target.send(|h| solicited(0, first, 0, 0, false).emit(h), &pattern(0, 1024));
    assert_eq!(log, [payload(task, 0, 1024), data(task, 0, 1024, false)]);
    let log = target.send(|h| solicited(0, first, 1, 1024, true).emit(h), &pattern(1024, 1024));
    assert_eq!(log, [payload(task, 1024, 1024), data(task, 1024, 1024, true)]);
    assert_eq!(target.tasks.get(task).unwrap().outstanding_r2ts(), 1);
    let log = target.send(|h| solicited(0, second, 0, 2048, true).emit(h), &pattern(2048, 2048));
    assert_eq!(log, [payload(task, 2048, 2048), data(task, 2048, 2048, true)]);
    assert!(!target.tasks.get(task).unwrap().expects_data());
    target.respond(task, GOOD, 4096, &[]);
    let ResponsePdu::ScsiResponse(response) = target.reply().0 else { panic!() };
    assert_eq!((response.exp_data_sn, response.residual_count), (0, 0));
}

#[test]
fn r2ts_are_numbered_and_show_the_next_stat_sn_without_using_it() {
    let mut target = Target::new();
    let task = target.command(write(0, 4096), &[]);
    assert!(target.solicit(task, 512, 1024));
    assert!(target.solicit(task, 1536, 100));
    let replies = target.replies();
    for (n, (reply, _)) in replies.iter().enumerate() {
        let ResponsePdu::ReadyToTransfer(r2t) = reply else { panic!() };
        assert_eq!((r2t.r2t_sn, r2t.stat_sn, r2t.lun), (n as u32, FIRST_STAT_SN, LUN));
    }
    let ResponsePdu::ReadyToTransfer(r2t) = &replies[0].0 else { panic!() };
    assert_eq!((r2t.buffer_offset, r2t.desired_data_transfer_length), (512, 1024));
    assert_eq!(target.connection.stat_sn(), FIRST_STAT_SN);
}

#[test]
fn impossible_r2ts_are_not_sent() {
    let mut target = Target::new();
    let task = target.command(write(0, 4096), &[]);
    for (offset, length) in [(0, 0), (0, 2049), (4000, 97), (u32::MAX, 2)] {
        assert!(!target.solicit(task, offset, length), "{offset} {length}");
    }
    target.respond(task, GOOD, 0, &[]);
    target.replies();
    assert!(!target.solicit(task, 0, 512));
    assert_eq!(target.replies(), []);
}

#[test]
fn unsolicited_data_that_is_not_allowed_fails_the_task_after_it_has_ended() {
    let mut target = Target::with(Parameters { initial_r2t: true, ..parameters() });
    let task = target.command(ScsiCommand { final_bit: false, ..write(0, 1024) }, &[]);
    assert!(!target.solicit(task, 0, 512));
    let log = target.send(|h| unsolicited(0, 0, 0, false).emit(h), &pattern(0, 100));
    assert_eq!(log, [dropped(0, 100)]);
    let log = target.send(|h| unsolicited(0, 1, 100, true).emit(h), &pattern(100, 100));
    assert_eq!(log, [dropped(100, 100), data_error(task, 0x0c, 0x0c)]);
    // Once.
    let log = target.send(|h| unsolicited(0, 2, 200, true).emit(h), &pattern(200, 4));
    assert_eq!(log.len(), 1);
    assert_eq!(target.replies(), []);
}

#[test]
fn immediate_data_that_is_not_allowed_fails_the_task() {
    let mut target = Target::with(Parameters { immediate_data: false, ..parameters() });
    let log = target.send(|h| write(0, 1024).emit(h), &pattern(0, 100));
    let task = target.session.find(&target.tasks, 0).unwrap();
    assert!(matches!(log[0], Log::Event(Event::Command { immediate: 0, .. })));
    assert_eq!(log[1..], [dropped(0, 100), data_error(task, 0x0c, 0x0c)]);
}

#[test]
fn data_that_nobody_announced_fails_the_task() {
    let mut target = Target::new();
    let task = target.command(write(0, 1024), &[]);
    let log = target.send(|h| unsolicited(0, 0, 0, true).emit(h), &pattern(0, 10));
    assert_eq!(log, [dropped(0, 10), data_error(task, 0x0c, 0x0c)]);
}

#[test]
fn more_than_the_first_burst_fails_the_task() {
    let mut target = Target::new();
    let log = target.send(|h| write(0, 4096).emit(h), &pattern(0, 1540));
    let task = target.session.find(&target.tasks, 0).unwrap();
    assert_eq!(log[1..], [dropped(0, 1540), data_error(task, 0x0c, 0x0d)]);
    let task = target.command(ScsiCommand { final_bit: false, ..write(1, 4096) }, &pattern(0, 1000));
    let log = target.send(|h| unsolicited(1, 0, 1000, true).emit(h), &pattern(1000, 600));
    assert_eq!(log, [dropped(1000, 600), data_error(task, 0x0c, 0x0d)]);
}

#[test]
fn more_than_the_expected_length_fails_the_task() {
    let mut target = Target::new();
    let log = target.send(|h| write(0, 100).emit(h), &pattern(0, 104));
    let task = target.session.find(&target.tasks, 0).unwrap();
    assert_eq!(log[2], data_error(task, 0x0c, 0x0d));
}

#[test]
fn a_first_burst_that_ends_early_fails_the_task() {
    let mut target = Target::new();
    let task = target.command(ScsiCommand { final_bit: false, ..write(0, 4096) }, &[]);
    let log = target.send(|h| unsolicited(0, 0, 0, true).emit(h), &pattern(0, 512));
    assert_eq!(log[1], data_error(task, 0x0c, 0x0d));
}

#[test]
fn gaps_and_wrong_numbers_in_a_sequence_fail_the_task() {
    for (data_sn, offset) in [(1, 0), (0, 4)] {
        let mut target = Target::new();
        let task = target.command(write(0, 2048), &[]);
        let tag = target.r2t(task, 0, 2048);
        let log = target.send(|h| solicited(0, tag, data_sn, offset, true).emit(h), &pattern(offset as usize, 1024));
        assert_eq!(log, [dropped(offset, 1024), data_error(task, 0x47, 0x05)]);
    }
}

#[test]
fn bursts_of_the_wrong_length_fail_the_task() {
    // Too short, too long, and whole without F.
    for (length, final_bit) in [(1000, true), (1100, true), (1024, false)] {
        let mut target = Target::new();
        let task = target.command(write(0, 2048), &[]);
        let tag = target.r2t(task, 0, 1024);
        let log = target.send(|h| solicited(0, tag, 0, 0, final_bit).emit(h), &pattern(0, length));
        assert_eq!(log[1], data_error(task, 0x0c, 0x0d), "{length} {final_bit}");
    }
}

#[test]
fn a_failed_task_waits_for_its_other_bursts() {
    let mut target = Target::new();
    let task = target.command(write(0, 4096), &[]);
    let first = target.r2t(task, 0, 1024);
    let second = target.r2t(task, 1024, 1024);
    let log = target.send(|h| solicited(0, first, 9, 0, true).emit(h), &pattern(0, 1024));
    assert_eq!(log, [dropped(0, 1024)]);
    assert!(target.tasks.get(task).unwrap().expects_data());
    assert!(!target.solicit(task, 2048, 100));
    let log = target.send(|h| solicited(0, second, 0, 1024, true).emit(h), &pattern(1024, 1024));
    assert_eq!(log, [dropped(1024, 1024), data_error(task, 0x47, 0x05)]);
}

#[test]
fn data_for_a_task_that_is_gone_is_dropped() {
    let mut target = Target::new();
    let task = target.command(ScsiCommand { final_bit: false, ..write(0, 4096) }, &[]);
    let tag = target.r2t(task, 1536, 1024);
    target.connection.retire(&mut target.session, &mut target.tasks, task).unwrap();
    let log = target.send(|h| solicited(0, tag, 0, 1536, true).emit(h), &pattern(1536, 1024));
    assert_eq!(log, [dropped(0, 1024)].map(|_| Log::Payload { task: None, offset: 0, bytes: pattern(1536, 1024) }));
    let log = target.send(|h| unsolicited(0, 0, 0, true).emit(h), &pattern(0, 5));
    assert_eq!(log, [dropped(0, 5)]);
    assert_eq!(target.replies(), []);
    // The slot's next task does not take it either.
    let next = target.command(write(1, 4096), &[]);
    assert_eq!(next.index, task.index);
    let other = target.r2t(next, 0, 1024);
    assert_ne!(other, tag);
    let log = target.send(|h| solicited(0, tag, 0, 0, true).emit(h), &pattern(0, 1024));
    assert_eq!(log, [dropped(0, 1024)]);
    assert_eq!(target.replies(), []);
}

#[test]
fn a_task_that_is_retired_amid_its_payload_gets_no_more() {
    let mut target = Target::new();
    let bytes = pdu(|h| write(0, 1000).emit(h), &pattern(0, 1000), &target.parameters);
    let log = target.feed(&bytes[..548]);
    let task = target.session.find(&target.tasks, 0).unwrap();
    assert_eq!(log[1], payload(task, 0, 500));
    target.connection.retire(&mut target.session, &mut target.tasks, task).unwrap();
    assert_eq!(target.feed(&bytes[548..]), [dropped(500, 500)]);
    target.command(plain(1), &[]);
}

#[test]
fn a_wrong_transfer_tag_is_rejected_and_harms_nobody() {
    let mut target = Target::new();
    let task = target.command(write(0, 1024), &[]);
    let tag = target.r2t(task, 0, 1024);
    let log = target.send(|h| solicited(0, tag ^ 0x10_0000, 0, 0, true).emit(h), &pattern(0, 1024));
    assert_eq!(log, [dropped(0, 1024)]);
    assert_eq!(target.rejected(), RejectReason::ProtocolError);
    let log = target.send(|h| solicited(0, tag, 0, 0, true).emit(h), &pattern(0, 1024));
    assert_eq!(log[1], data(task, 0, 1024, true));
}

#[test]
fn data_with_a_command_that_does_not_write_is_rejected() {
    let mut target = Target::new();
    assert_eq!(target.send(|h| read(0, 512).emit(h), &pattern(0, 8)), [dropped(0, 8)]);
    assert_eq!(target.rejected(), RejectReason::ProtocolError);
    assert_eq!(target.session.exp_cmd_sn(), FIRST_CMD_SN + 1);
}

fn with_digests() -> Target {
    Target::with(Parameters { header_digest: true, data_digest: true, ..parameters() })
}

#[test]
fn right_data_digests_pass_whatever_the_pieces() {
    for cut in [52, 53, 100, 152, 153, 156, 158] {
        let mut target = with_digests();
        let bytes = pdu(|h| write(0, 103).emit(h), &pattern(0, 103), &target.parameters);
        assert_eq!(bytes.len(), 160);
        let mut log = Vec::new();
        target.feed_into(&bytes[..cut], &mut log, |_, _| {});
        target.feed_into(&bytes[cut..], &mut log, |_, _| {});
        let task = target.session.find(&target.tasks, 0).unwrap();
        assert_eq!(log[1..], [payload(task, 0, 103), data(task, 0, 103, true)], "cut at {cut}");
    }
}

#[test]
fn a_wrong_data_digest_is_rejected_and_fails_the_task() {
    // In the data, in the padding, in the digest.
    for at in [60, 155, 157] {
        let mut target = with_digests();
        let mut bytes = pdu(|h| write(0, 103).emit(h), &pattern(0, 103), &target.parameters);
        bytes[at] ^= 0x80;
        let log = target.feed(&bytes);
        let task = target.session.find(&target.tasks, 0).unwrap();
        assert_eq!(log[2..], [data_error(task, 0x47, 0x05)]);
        let (ResponsePdu::Reject(reject), data) = target.reply() else { panic!() };
        assert_eq!(reject.reason, RejectReason::DataDigestError);
        assert_eq!(data, bytes[..48]);
    }
}

#[test]
fn a_wrong_digest_amid_a_burst_fails_the_task_at_its_end() {
    let mut target = with_digests();
    let task = target.command(write(0, 2048), &[]);
    let tag = target.r2t(task, 0, 2048);
    let mut bytes = pdu(|h| solicited(0, tag, 0, 0, false).emit(h), &pattern(0, 1024), &target.parameters);
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(target.feed(&bytes), [payload(task, 0, 1024)]);
    assert_eq!(target.rejected(), RejectReason::DataDigestError);
    let log = target.send(|h| solicited(0, tag, 1, 1024, true).emit(h), &pattern(1024, 1024));
    assert_eq!(log, [dropped(1024, 1024), data_error(task, 0x47, 0x05)]);
    assert_eq!(target.replies(), []);
}

#[test]
fn payload_beyond_what_was_announced_is_ignored() {
    let mut target = Target::new();
    let bytes = pdu(|h| write(0, 8).emit(h), &pattern(0, 8), &target.parameters);
    target.feed(&bytes[..48]);
    target.connection.payload(&[0; 100]);
    let task = target.session.find(&target.tasks, 0).unwrap();
    assert_eq!(target.feed(&[]), [data(task, 0, 8, true)]);
    target.connection.payload(&[0; 100]);
    target.command(plain(1), &[]);
}
