//! Data-In, SCSI Response, residuals.

use super::harness::*;
use crate::{DataIn, Finish, TaskKey};
use negotiation::Parameters;
use wire::ResponsePdu;

/// Sends the whole of a read as the server would.
fn send(target: &mut Target, key: TaskKey, mut available: u32, finish: Option<Finish>) -> Vec<DataIn> {
    let mut shapes = Vec::new();
    while available != 0 {
        let mut header = [0; 52];
        let task = target.tasks.get_mut(key).unwrap();
        let offset = task.data_in_offset();
        let shape = target.connection.data_in(&mut target.session, task, available, finish, &mut header);
        if shape.header == 0 {
            break;
        }
        let bytes = pattern(offset as usize, shape.payload as usize);
        let mut trailer = [0; 8];
        let tail = target.connection.data_trailer(&bytes, &mut trailer);
        target.sink.extend_from_slice(&header[..shape.header]);
        target.sink.extend_from_slice(&bytes);
        target.sink.extend_from_slice(&trailer[..tail]);
        available -= shape.payload;
        shapes.push(shape);
    }
    shapes
}

fn data_ins(target: &mut Target) -> Vec<wire::DataIn> {
    let mut offset = 0;
    target
        .replies()
        .into_iter()
        .map(|(reply, data)| match reply {
            ResponsePdu::DataIn(data_in) => {
                assert_eq!(data_in.buffer_offset as usize, offset);
                assert_eq!(data, pattern(offset, data.len()));
                offset += data.len();
                data_in
            }
            other => panic!("not a Data-In: {other:?}"),
        })
        .collect()
}

#[test]
fn data_in_is_cut_by_segment_and_burst_with_the_status_in_the_last() {
    let mut target = Target::new();
    let task = target.command(read(0, 5000), &[]);
    let shapes = send(&mut target, task, 5000, Some(Finish { status: GOOD, transfer: 5000 }));
    assert_eq!(shapes.iter().map(|s| s.payload).collect::<Vec<_>>(), [1024, 1024, 1024, 1024, 904]);
    assert_eq!(shapes.iter().map(|s| s.finished).collect::<Vec<_>>(), [false, false, false, false, true]);
    let pdus = data_ins(&mut target);
    assert_eq!(pdus.iter().map(|p| p.final_bit).collect::<Vec<_>>(), [false, true, false, true, true]);
    assert_eq!(pdus.iter().map(|p| p.data_sn).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert!(pdus.iter().all(|p| p.target_transfer_tag == u32::MAX && p.initiator_task_tag == 0));
    let last = pdus[4];
    assert!(last.status_present && !last.residual_overflow && !last.residual_underflow);
    assert_eq!((last.status, last.stat_sn, last.residual_count), (GOOD, FIRST_STAT_SN, 0));
    assert_eq!(last.max_cmd_sn, FIRST_CMD_SN + WINDOW);
    assert_eq!(target.connection.stat_sn(), FIRST_STAT_SN + 1);
    assert!(target.connection.retire(&mut target.session, &mut target.tasks, task).is_some());
}

#[test]
fn bursts_and_segments_that_do_not_divide_each_other_are_cut_right() {
    let parameters = Parameters { peer_max_recv_data_segment_length: 1000, max_burst_length: 2048, ..parameters() };
    let mut target = Target::with(parameters);
    let task = target.command(read(0, 4096), &[]);
    let shapes = send(&mut target, task, 4096, Some(Finish { status: GOOD, transfer: 4096 }));
    assert_eq!(shapes.iter().map(|s| s.payload).collect::<Vec<_>>(), [1000, 1000, 48, 1000, 1000, 48]);
    let pdus = data_ins(&mut target);
    assert_eq!(pdus.iter().map(|p| p.final_bit).collect::<Vec<_>>(), [false, false, true, false, false, true]);
}

#[test]
fn digests_and_padding_follow_the_payload() {
    let parameters = Parameters { header_digest: true, data_digest: true, ..parameters() };
    let mut target = Target::with(parameters);
    let task = target.command(read(0, 1027), &[]);
    send(&mut target, task, 1027, Some(Finish { status: GOOD, transfer: 1027 }));
    assert_eq!(data_ins(&mut target).len(), 2);
}

#[test]
fn a_transfer_in_windows_ends_its_sequence_at_its_end_alone() {
    let mut target = Target::new();
    let task = target.command(read(0, 1500), &[]);
    send(&mut target, task, 700, None);
    send(&mut target, task, 800, None);
    let pdus = data_ins(&mut target);
    assert_eq!(pdus.iter().map(|p| p.final_bit).collect::<Vec<_>>(), [false, true]);
    assert!(pdus.iter().all(|p| !p.status_present));
    target.respond(task, GOOD, 1500, &[]);
    let ResponsePdu::ScsiResponse(response) = target.reply().0 else { panic!() };
    assert_eq!(response.exp_data_sn, 2);
    assert_eq!(response.residual_count, 0);
}

#[test]
fn a_short_read_shows_an_underflow() {
    let mut target = Target::new();
    let task = target.command(read(0, 1000), &[]);
    let shapes = send(&mut target, task, 36, Some(Finish { status: GOOD, transfer: 36 }));
    assert!(shapes[0].finished);
    let pdu = data_ins(&mut target)[0];
    assert!(pdu.residual_underflow && !pdu.residual_overflow && pdu.final_bit);
    assert_eq!(pdu.residual_count, 964);
}

#[test]
fn a_read_longer_than_expected_is_cut_and_shows_an_overflow() {
    let mut target = Target::new();
    let task = target.command(read(0, 512), &[]);
    let shapes = send(&mut target, task, 1024, Some(Finish { status: GOOD, transfer: 1024 }));
    assert_eq!(shapes.len(), 1);
    assert!(shapes[0].finished);
    let pdu = data_ins(&mut target)[0];
    assert_eq!(pdu.data_segment_length, 512);
    assert!(pdu.residual_overflow && !pdu.residual_underflow);
    assert_eq!(pdu.residual_count, 512);
}

#[test]
fn a_status_with_sense_takes_a_response_of_its_own() {
    let mut target = Target::new();
    let task = target.command(read(0, 1024), &[]);
    let shapes = send(&mut target, task, 512, Some(Finish { status: CHECK_CONDITION, transfer: 512 }));
    assert_eq!(shapes, [DataIn { header: 48, payload: 512, finished: false }]);
    assert!(data_ins(&mut target)[0].final_bit);
    target.respond(task, CHECK_CONDITION, 512, &[0x70, 0, 3, 0, 0]);
    let (ResponsePdu::ScsiResponse(response), data) = target.reply() else { panic!() };
    assert_eq!(data, [0, 5, 0x70, 0, 3, 0, 0]);
    assert_eq!(response.status, CHECK_CONDITION);
    assert!(response.residual_underflow);
    assert_eq!(response.residual_count, 512);
    assert_eq!(response.exp_data_sn, 1);
    assert_eq!(response.stat_sn, FIRST_STAT_SN);
}

#[test]
fn with_nothing_to_send_there_is_no_data_in() {
    let mut target = Target::new();
    let task = target.command(plain(0), &[]);
    let finish = Some(Finish { status: GOOD, transfer: 8 });
    assert!(send(&mut target, task, 8, finish).is_empty());
    target.respond(task, GOOD, 8, &[]);
    let ResponsePdu::ScsiResponse(response) = target.reply().0 else { panic!() };
    assert!(response.residual_overflow);
    assert_eq!(response.residual_count, 8);
}

#[test]
fn a_status_is_sent_once() {
    let mut target = Target::new();
    let key = target.command(plain(0), &[]);
    let finish = Finish { status: GOOD, transfer: 0 };
    for _ in 0..2 {
        let task = target.tasks.get_mut(key).unwrap();
        target.connection.response(&mut target.session, task, finish, &[], &mut target.sink);
    }
    assert_eq!(target.replies().len(), 1);
    assert_eq!(target.session.max_cmd_sn(), FIRST_CMD_SN + WINDOW);
}

#[test]
fn residuals_of_a_bidirectional_command_are_in_both_places() {
    let mut target = Target::new();
    let mut command = write(0, 100);
    command.read = true;
    let bytes = pdu_with_ahs(|h| command.emit(h), &[0, 5, 2, 0, 0, 0, 2, 0], &[], &target.parameters);
    target.feed(&bytes);
    let task = target.session.find(&target.tasks, 0).unwrap();
    target.respond(task, CHECK_CONDITION, 0, &[1]);
    let ResponsePdu::ScsiResponse(response) = target.reply().0 else { panic!() };
    assert!(response.residual_underflow && response.bidi_read_underflow);
    assert_eq!((response.residual_count, response.bidi_read_residual_count), (100, 512));
}
