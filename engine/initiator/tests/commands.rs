//! SCSI commands against a hand-written target: data both ways, status, the command window.

mod common;

use common::Scripted;
use initiator::{Command, Event, Limits, Residual, SubmitError, Transfer, cdb, lun};
use negotiation::Parameters;
use wire::{DataIn, ReadyToTransfer, RequestPdu, ScsiCommand, ScsiResponse, ScsiResponseCode, TaskAttribute};

fn parameters() -> Parameters {
    Parameters {
        max_recv_data_segment_length: 4096,
        peer_max_recv_data_segment_length: 1024,
        max_burst_length: 4096,
        first_burst_length: 2048,
        ..Parameters::default()
    }
}

fn data_in(tag: u32) -> DataIn {
    DataIn { final_bit: false, status_present: false, exp_cmd_sn: 101, max_cmd_sn: 108, ..DataIn::whole(tag, 0) }
}

fn response(tag: u32) -> ScsiResponse {
    ScsiResponse {
        bidi_read_overflow: false,
        bidi_read_underflow: false,
        residual_overflow: false,
        residual_underflow: false,
        response: ScsiResponseCode::CommandCompleted,
        status: 0,
        data_segment_length: 0,
        status_qualifier: 0,
        initiator_task_tag: tag,
        snack_tag: 0,
        stat_sn: 500,
        exp_cmd_sn: 101,
        max_cmd_sn: 108,
        exp_data_sn: 0,
        bidi_read_residual_count: 0,
        residual_count: 0,
    }
}

fn r2t(tag: u32, r2t_sn: u32, offset: u32, length: u32) -> ReadyToTransfer {
    ReadyToTransfer {
        lun: 0,
        initiator_task_tag: tag,
        target_transfer_tag: 0x70 + r2t_sn,
        stat_sn: 500,
        exp_cmd_sn: 101,
        max_cmd_sn: 108,
        r2t_sn,
        buffer_offset: offset,
        desired_data_transfer_length: length,
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 256) as u8).collect()
}

fn read(scripted: &mut Scripted, length: u32) -> u32 {
    let command = Command::read(cdb::read_10(0, 1), length);
    let handle = scripted.connection.submit(&command, Transfer::default(), &mut scripted.out).unwrap();
    scripted.sent();
    handle.initiator_task_tag()
}

/// Offset, F bit and data.
type Segment = (u32, bool, Vec<u8>);

/// Submits a write; gives its tag and what was sent: the command, and each data segment with its F bit and offset.
fn write(scripted: &mut Scripted, data: &[u8]) -> (u32, ScsiCommand, Vec<Segment>) {
    let command = Command::write(cdb::write_10(0, 1), data.len() as u32);
    let transfer = Transfer::sending(data.to_vec());
    let tag = scripted.connection.submit(&command, transfer, &mut scripted.out).unwrap().initiator_task_tag();
    let mut sent = scripted.sent();
    let (command, immediate) = sent.remove(0);
    let command = expect!(command, RequestPdu::ScsiCommand);
    let mut segments = Vec::new();
    if !immediate.is_empty() {
        segments.push((0, command.final_bit, immediate));
    }
    segments.extend(data_out(sent, tag, wire::RESERVED_TAG));
    (tag, command, segments)
}

/// Offset, F bit and data of Data-Out PDUs that belong to one sequence.
fn data_out(sent: Vec<(RequestPdu, Vec<u8>)>, tag: u32, ttt: u32) -> Vec<Segment> {
    sent.into_iter()
        .enumerate()
        .map(|(index, (pdu, data))| {
            let pdu = expect!(pdu, RequestPdu::DataOut);
            assert_eq!((pdu.initiator_task_tag, pdu.target_transfer_tag), (tag, ttt));
            assert_eq!(pdu.data_sn, index as u32);
            (pdu.buffer_offset, pdu.final_bit, data)
        })
        .collect()
}

#[test]
fn a_command_says_what_was_asked() {
    let mut scripted = Scripted::new(parameters());
    let mut command = Command::read(cdb::read_10(7, 8), 4096).to_lun(lun(3));
    command.attribute = TaskAttribute::Ordered;
    scripted.connection.submit(&command, Transfer::default(), &mut scripted.out).unwrap();
    let (sent, data) = scripted.sent_one();
    let sent = expect!(sent, RequestPdu::ScsiCommand);
    assert!(data.is_empty());
    assert!(sent.read && !sent.write && sent.final_bit && !sent.immediate);
    assert_eq!(sent.lun, 0x0003_0000_0000_0000);
    assert_eq!(sent.attribute, TaskAttribute::Ordered);
    assert_eq!(sent.expected_data_transfer_length, 4096);
    assert_eq!((sent.cmd_sn, sent.exp_stat_sn), (100, 500));
    assert_eq!(sent.cdb, cdb::read_10(7, 8));
}

#[test]
fn data_in_lands_at_its_offset_and_brings_the_status() {
    for digest in [false, true] {
        let mut scripted = Scripted::new(Parameters { header_digest: digest, data_digest: digest, ..parameters() });
        let data = bytes(4090);
        let tag = read(&mut scripted, 5000);
        let first = scripted.pdu(data_in(tag), &data[..2048]);
        let second = DataIn {
            final_bit: true,
            status_present: true,
            stat_sn: 500,
            data_sn: 1,
            buffer_offset: 2048,
            residual_underflow: true,
            residual_count: 910,
            ..data_in(tag)
        };
        let second = scripted.pdu(second, &data[2048..]);
        let whole = [first, second].concat();
        // Also byte by byte: nothing may depend on how the stream is cut.
        for piece in [1, 47, 3000, 10_000] {
            let mut scripted = Scripted::new(scripted.parameters);
            assert_eq!(read(&mut scripted, 5000), tag);
            let mut seen = 0;
            for chunk in whole.chunks(piece) {
                scripted
                    .give(chunk, |event| {
                        let end = expect!(event, Event::Response);
                        assert_eq!(end.task.initiator_task_tag(), tag);
                        assert_eq!(end.user.data_in, data);
                        assert_eq!((end.status, end.received, end.with_data), (0, 4090, true));
                        assert_eq!(end.residual, Residual::Underflow(910));
                        seen += 1;
                    })
                    .unwrap();
            }
            assert_eq!(seen, 1);
            assert_eq!(scripted.connection.exp_stat_sn(), 501);
            assert_eq!(scripted.connection.in_flight(), 0);
        }
    }
}

#[test]
fn sense_comes_without_its_length_field() {
    let mut scripted = Scripted::new(parameters());
    let tag = read(&mut scripted, 512);
    let check = ScsiResponse { status: 2, residual_underflow: true, residual_count: 512, ..response(tag) };
    let bytes = scripted.pdu(check, &[0, 3, 0x70, 0, 5, 0xaa]);
    let mut seen = false;
    scripted
        .give(&bytes, |event| {
            let end = expect!(event, Event::Response);
            assert_eq!(end.status, 2);
            assert_eq!(end.sense, [0x70, 0, 5]);
            assert_eq!(end.residual, Residual::Underflow(512));
            assert!(!end.with_data);
            seen = true;
        })
        .unwrap();
    assert!(seen);
}

#[test]
fn unsolicited_data_follow_the_negotiation() {
    let data = bytes(3001);
    // InitialR2T, ImmediateData; then offsets and lengths of what goes unasked (FirstBurst 2048, target's MRDSL 1024).
    type Case<'a> = (bool, bool, &'a [(u32, usize)]);
    let cases: [Case<'_>; 4] = [
        (true, true, &[(0, 1024)]),
        (true, false, &[]),
        (false, true, &[(0, 1024), (1024, 1024)]),
        (false, false, &[(0, 1024), (1024, 1024)]),
    ];
    for (initial_r2t, immediate_data, expected) in cases {
        for digest in [false, true] {
            let mut scripted = Scripted::new(Parameters {
                initial_r2t,
                immediate_data,
                data_digest: digest,
                header_digest: digest,
                ..parameters()
            });
            let (tag, command, segments) = write(&mut scripted, &data);
            assert!(command.write && !command.read);
            assert_eq!(command.final_bit, initial_r2t, "F is 0 when Data-Out follows unasked");
            let unasked: Vec<_> = segments.iter().map(|(offset, _, data)| (*offset, data.len())).collect();
            assert_eq!(unasked, expected);
            if let Some((_, last, _)) = segments.last() {
                assert!(last);
            }
            // The target asks for the rest in two bursts.
            let mut all = segments;
            let from = all.iter().map(|(_, _, data)| data.len() as u32).sum::<u32>();
            scripted.give_quietly(r2t(tag, 0, from, 500), &[]);
            let sent = scripted.sent();
            all.extend(data_out(sent, tag, 0x70));
            scripted.give_quietly(r2t(tag, 1, from + 500, 3001 - from - 500), &[]);
            let sent = scripted.sent();
            all.extend(data_out(sent, tag, 0x71));
            assert!(all.iter().all(|(_, _, data)| data.len() <= 1024));
            let whole: Vec<u8> = all.iter().flat_map(|(_, _, data)| data.clone()).collect();
            assert_eq!(whole, data);
            let finals = all.iter().filter(|(_, last, _)| *last).count();
            assert_eq!(finals, 2 + usize::from(!expected.is_empty()));
        }
    }
}

#[test]
fn a_short_write_goes_with_its_command() {
    let mut scripted = Scripted::new(Parameters { initial_r2t: false, ..parameters() });
    let (_, command, segments) = write(&mut scripted, &bytes(513));
    assert!(command.final_bit);
    assert_eq!(segments, [(0, true, bytes(513))]);
}

#[test]
fn several_r2ts_may_be_open() {
    let parameters = Parameters { immediate_data: false, max_outstanding_r2t: 2, ..parameters() };
    let limits = Limits { output_length: 0, ..Limits::default() };
    let mut scripted = Scripted::with_limits(parameters, 8, limits);
    let (tag, ..) = write(&mut scripted, &bytes(3000));
    // Nothing is sent while the output is full, so both R2Ts stay open, and the third is one too many.
    scripted.give_quietly(r2t(tag, 0, 0, 1000), &[]);
    scripted.give_quietly(r2t(tag, 1, 1000, 1000), &[]);
    assert!(scripted.sent().is_empty());
    assert_eq!(scripted.refusal(r2t(tag, 2, 2000, 1000), &[]), "protocol error: more R2Ts than MaxOutstandingR2T");
}

#[test]
fn data_out_stops_at_a_full_output_and_goes_on() {
    let parameters = Parameters { immediate_data: false, ..parameters() };
    let limits = Limits { output_length: 100, ..Limits::default() };
    let mut scripted = Scripted::with_limits(parameters, 8, limits);
    let data = bytes(3000);
    let (tag, ..) = write(&mut scripted, &data);
    scripted.give_quietly(r2t(tag, 0, 0, 3000), &[]);
    let mut whole = Vec::new();
    for round in 0..3 {
        let (pdu, data) = scripted.sent_one();
        let pdu = expect!(pdu, RequestPdu::DataOut);
        assert_eq!((pdu.data_sn, pdu.final_bit), (round, round == 2));
        whole.extend(data);
        assert_eq!(scripted.connection.pump(&mut scripted.out), round >= 1);
    }
    assert_eq!(whole, data);
    assert!(scripted.sent().is_empty());
}

#[test]
fn data_of_an_ended_command_are_not_sent() {
    let parameters = Parameters { immediate_data: false, ..parameters() };
    let limits = Limits { output_length: 0, ..Limits::default() };
    let mut scripted = Scripted::with_limits(parameters, 8, limits);
    let (tag, ..) = write(&mut scripted, &bytes(3000));
    scripted.give_quietly(r2t(tag, 0, 0, 3000), &[]);
    let end = scripted.pdu(ScsiResponse { status: 2, ..response(tag) }, &[]);
    scripted.give(&end, |event| drop(expect!(event, Event::Response))).unwrap();
    assert!(scripted.connection.pump(&mut scripted.out));
    assert!(scripted.sent().is_empty());
}

#[test]
fn the_window_limits_commands_but_not_immediate_ones() {
    let mut scripted = Scripted::with_limits(parameters(), 2, Limits::default());
    let mut command = Command::none(cdb::test_unit_ready());
    let submit = |scripted: &mut Scripted, command: &Command<'_>| {
        scripted.connection.submit(command, Transfer::default(), &mut scripted.out).map_err(|refused| refused.reason)
    };
    let first = submit(&mut scripted, &command).unwrap();
    submit(&mut scripted, &command).unwrap();
    assert_eq!(scripted.connection.window_room(), 0);
    assert_eq!(submit(&mut scripted, &command), Err(SubmitError::Full));
    command.immediate = true;
    submit(&mut scripted, &command).unwrap();
    command.immediate = false;
    let numbers: Vec<_> = scripted
        .sent()
        .into_iter()
        .map(|(pdu, _)| expect!(pdu, RequestPdu::ScsiCommand))
        .map(|command| (command.cmd_sn, command.immediate))
        .collect();
    assert_eq!(numbers, [(100, false), (101, false), (102, true)]);
    // A response opens it by one.
    let end = ScsiResponse { exp_cmd_sn: 102, max_cmd_sn: 102, ..response(first.initiator_task_tag()) };
    let end = scripted.pdu(end, &[]);
    scripted.give(&end, |event| drop(expect!(event, Event::Response))).unwrap();
    assert_eq!(scripted.connection.window_room(), 1);
    submit(&mut scripted, &command).unwrap();
    let (pdu, _) = scripted.sent_one();
    let pdu = expect!(pdu, RequestPdu::ScsiCommand);
    assert_eq!((pdu.cmd_sn, pdu.exp_stat_sn), (102, 501));
}

#[test]
fn a_full_task_table_gives_the_caller_its_part_back() {
    let limits = Limits { tasks: 1, ..Limits::default() };
    let mut scripted = Scripted::with_limits(parameters(), 8, limits);
    read(&mut scripted, 512);
    let refused = scripted
        .connection
        .submit(&Command::none(cdb::test_unit_ready()), Transfer::sending(vec![1]), &mut scripted.out)
        .unwrap_err();
    assert_eq!((refused.reason, refused.user.data_out), (SubmitError::NoTag, vec![1]));
    // Requests have their own places.
    scripted.connection.ping(&[], &mut scripted.out).unwrap();
}

#[test]
fn long_cdbs_and_bidirectional_commands_have_additional_segments() {
    let mut scripted = Scripted::new(parameters());
    let extended = bytes(16);
    let mut command = Command::read(cdb::read_10(0, 1), 600);
    command.write_length = 10;
    command.extended_cdb = &extended;
    let task = scripted.connection.submit(&command, Transfer::sending(bytes(10)), &mut scripted.out).unwrap();
    let ahs = scripted.out[48..48 + 28].to_vec();
    let segments = wire::ahs::CommandSegments::parse(&ahs).unwrap();
    assert_eq!(segments.bidirectional_read_length, Some(600));
    assert_eq!(segments.extended_cdb, Some(&extended[..]));
    let (pdu, data) = scripted.sent_one();
    let pdu = expect!(pdu, RequestPdu::ScsiCommand);
    assert!(pdu.read && pdu.write);
    assert_eq!((pdu.expected_data_transfer_length, pdu.total_ahs_length), (10, 7));
    assert_eq!(data, bytes(10));
    // Both residuals come back.
    let tag = task.initiator_task_tag();
    let end = ScsiResponse {
        bidi_read_underflow: true,
        bidi_read_residual_count: 600,
        residual_overflow: true,
        residual_count: 5,
        ..response(tag)
    };
    let end = scripted.pdu(end, &[]);
    scripted
        .give(&end, |event| {
            let end = expect!(event, Event::Response);
            assert_eq!(end.bidirectional_residual, Residual::Underflow(600));
            assert_eq!(end.residual, Residual::Overflow(5));
        })
        .unwrap();
}

/// Why the target's PDU closes a connection that waits for 512 bytes of a read.
fn read_refusal(change: impl FnOnce(&mut DataIn), data: &[u8]) -> String {
    let mut scripted = Scripted::new(parameters());
    let mut pdu = data_in(read(&mut scripted, 512));
    change(&mut pdu);
    scripted.refusal(pdu, data)
}

#[test]
fn data_in_that_nobody_asked_for_closes_the_connection() {
    let out_of_order = "protocol error: Data-In out of order";
    let too_much = "protocol error: more Data-In than the command expects";
    assert_eq!(read_refusal(|pdu| pdu.buffer_offset = 4, &[0; 4]), out_of_order);
    assert_eq!(read_refusal(|_| {}, &[0; 513]), too_much);
    assert_eq!(read_refusal(|pdu| pdu.buffer_offset = u32::MAX, &[0; 4]), too_much);
    assert_eq!(read_refusal(|pdu| pdu.data_sn = 1, &[0; 4]), "protocol error: DataSN out of order");
    assert_eq!(
        read_refusal(|_| {}, &[0; 4097]),
        "protocol error: a data segment is longer than our MaxRecvDataSegmentLength"
    );
    assert_eq!(
        read_refusal(|pdu| (pdu.final_bit, pdu.status_present, pdu.stat_sn) = (true, true, 501), &[0; 4]),
        "protocol error: StatSN out of order"
    );
    assert_eq!(
        read_refusal(
            |pdu| (pdu.final_bit, pdu.status_present, pdu.stat_sn, pdu.status) = (true, true, 500, 2),
            &[0; 4]
        ),
        "protocol error: Data-In with CHECK CONDITION"
    );
}

#[test]
fn a_lenient_initiator_lets_harmless_numbers_pass() {
    for lenient in [false, true] {
        let limits = Limits { lenient, ..Limits::default() };
        let mut scripted = Scripted::with_limits(parameters(), 8, limits);
        let (tag, ..) = write(&mut scripted, &bytes(3000));
        let pdu = ReadyToTransfer { stat_sn: 77, ..r2t(tag, 0, 1024, 100) };
        if lenient {
            scripted.give_quietly(pdu, &[]);
            assert_eq!(scripted.sent().len(), 1);
        } else {
            assert_eq!(scripted.refusal(pdu, &[]), "protocol error: StatSN out of order");
        }
    }
}

#[test]
fn a_data_in_sequence_is_bounded_by_max_burst_length() {
    let mut scripted = Scripted::new(parameters());
    let tag = read(&mut scripted, 100_000);
    for part in 0..2 {
        let pdu = DataIn { data_sn: part, buffer_offset: part * 2048, final_bit: part == 1, ..data_in(tag) };
        scripted.give_quietly(pdu, &[0; 2048]);
    }
    let pdu = DataIn { data_sn: 2, buffer_offset: 4096, ..data_in(tag) };
    scripted.give_quietly(pdu, &[0; 4096]);
    let pdu = DataIn { data_sn: 3, buffer_offset: 8192, ..data_in(tag) };
    assert_eq!(scripted.refusal(pdu, &[0; 4]), "protocol error: a Data-In sequence longer than MaxBurstLength");
}

#[test]
fn r2ts_that_nobody_can_answer_close_the_connection() {
    let cases = [
        (r2t(0, 1, 1024, 4), "R2TSN out of order"),
        (r2t(0, 0, 1024, 4097), "an R2T for more than MaxBurstLength"),
        (r2t(0, 0, 1024, 1977), "an R2T for more than the command's data"),
        (r2t(0, 0, u32::MAX, 4), "an R2T for more than the command's data"),
        (r2t(0, 0, 0, 4), "an R2T out of order"),
    ];
    for (pdu, reason) in cases {
        let mut scripted = Scripted::new(parameters());
        let (tag, ..) = write(&mut scripted, &bytes(3000));
        let pdu = ReadyToTransfer { initiator_task_tag: tag, ..pdu };
        assert_eq!(scripted.refusal(pdu, &[]), format!("protocol error: {reason}"));
    }
}

#[test]
fn a_response_must_fit_its_data() {
    let mut scripted = Scripted::new(parameters());
    let tag = read(&mut scripted, 512);
    scripted.give_quietly(data_in(tag), &[0; 4]);
    assert!(scripted.refusal(response(tag), &[]).contains("ExpDataSN"));
    let mut scripted = Scripted::new(parameters());
    let tag = read(&mut scripted, 512);
    assert!(scripted.refusal(response(tag), &[0, 9, 1]).contains("SenseLength"));
}

#[test]
fn corrupt_pdus_close_the_connection() {
    let parameters = Parameters { header_digest: true, data_digest: true, ..parameters() };
    for (flipped, reason) in [(20, "header digest error"), (60, "data digest error"), (55, "data digest error")] {
        let mut scripted = Scripted::new(parameters);
        let tag = read(&mut scripted, 512);
        let mut bytes = scripted.pdu(data_in(tag), &[7; 6]);
        bytes[flipped] ^= 0x10;
        let error = scripted.give(&bytes, |event| panic!("{event:?}")).unwrap_err();
        assert_eq!(error.to_string(), reason);
        // And it stays closed.
        assert_eq!(scripted.give(&[], |_| {}), Err(error));
        let refused = scripted.connection.ping(&[], &mut scripted.out);
        assert_eq!(refused, Err(SubmitError::Closed));
    }
}

#[test]
fn payload_may_be_received_elsewhere_or_not_be_looked_at() {
    let mut scripted = Scripted::new(parameters());
    let tag = read(&mut scripted, 512);
    let pdu = DataIn { final_bit: true, status_present: true, stat_sn: 500, ..data_in(tag) };
    let bytes = scripted.pdu(pdu, &[9; 512]);
    let mut input = &bytes[..48];
    let connection = &mut scripted.connection;
    for left in [512, 500, 0] {
        match connection.advance(&mut input, &mut scripted.out) {
            initiator::Advance::Payload { task, offset, length } => {
                assert_eq!((task.initiator_task_tag(), offset, length), (tag, 512 - left, left));
                if left == 512 { connection.payload(&[9; 12]) } else { connection.payload_unseen(length) }
            }
            initiator::Advance::Event(Event::Response(end)) => {
                assert_eq!((left, end.received), (0, 512))
            }
            other => panic!("{other:?}"),
        }
    }
}
