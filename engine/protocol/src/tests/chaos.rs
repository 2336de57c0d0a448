//! Properties: hostile bytes never panic nor grow memory, and pieces of the stream make no difference.

use super::harness::*;
use crate::{Event, Finish, MAX_IMMEDIATE, MAX_TEXT, TmfResponse};
use negotiation::Parameters;
use proptest::prelude::*;

/// A server that answers everything at once, as far as it can.
fn serve(target: &mut Target, event: &Event) {
    match *event {
        Event::Command { task, held: false, immediate: 0, .. } | Event::Released { task } => start(target, task),
        Event::Command { .. } => {}
        Event::Data { task, offset, length, .. } => {
            let Some(entry) = target.tasks.get_mut(task) else { panic!("data for nobody") };
            assert!(u64::from(offset) + u64::from(length) <= u64::from(entry.write_length));
            entry.work += length;
            if !entry.is_held() {
                start(target, task);
            }
        }
        Event::DataError { task, .. } => {
            assert!(!target.tasks.get(task).expect("its task").expects_data());
            target.respond(task, CHECK_CONDITION, 0, &[0x70; 18]);
        }
        Event::TaskManagement(request) => {
            let keys: Vec<_> = target.session.tasks(&target.tasks).collect();
            for key in keys {
                let affected = request.affects(target.tasks.get(key).expect("listed"));
                if affected || request.referenced == Some(key) {
                    target.connection.retire(&mut target.session, &mut target.tasks, key).expect("listed");
                }
            }
            let (connection, session) = (&mut target.connection, &mut target.session);
            connection.task_management_response(session, request.key, TmfResponse::Complete, &mut target.sink);
        }
        Event::SendTargets(_) => {
            let list = pattern(0, 3000);
            target.connection.text_response(&mut target.session, &list, &mut target.sink);
        }
        Event::Logout { .. } => target.connection.logout_response(&mut target.session, &mut target.sink),
    }
}

fn start(target: &mut Target, key: crate::TaskKey) {
    let task = target.tasks.get_mut(key).expect("a fresh task");
    let (read, write) = (task.read_length, task.write_length);
    if write != 0 {
        if task.work >= write && !task.expects_data() {
            target.respond(key, GOOD, write, &[]);
        } else if !task.expects_data() {
            let length = (write - task.work).min(2048);
            let offset = task.work;
            target.solicit(key, offset, length);
        }
        return;
    }
    // Some reads stay, so that the window fills.
    if task.initiator_task_tag % 5 == 4 {
        return;
    }
    let mut left = read.min(10_000);
    let finish = Finish { status: GOOD, transfer: left };
    let mut finished = false;
    while left != 0 {
        let mut header = [0; 52];
        let task = target.tasks.get_mut(key).expect("a fresh task");
        let shape = target.connection.data_in(&mut target.session, task, left, Some(finish), &mut header);
        assert_ne!(shape.payload, 0);
        let bytes = pattern(0, shape.payload as usize);
        let mut trailer = [0; 8];
        let tail = target.connection.data_trailer(&bytes, &mut trailer);
        target.sink.extend_from_slice(&header[..shape.header]);
        target.sink.extend_from_slice(&bytes);
        target.sink.extend_from_slice(&trailer[..tail]);
        left -= shape.payload;
        finished = shape.finished;
    }
    if finished {
        target.connection.retire(&mut target.session, &mut target.tasks, key).expect("its task");
    } else {
        target.respond(key, GOOD, 0, &[]);
    }
}

fn run(target: &mut Target, bytes: &[u8], cuts: &[usize]) -> Vec<Log> {
    let mut log = Vec::new();
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    while !rest.is_empty() {
        let n = cuts.next().map_or(rest.len(), |&cut| cut.clamp(1, rest.len()));
        target.feed_into(&rest[..n], &mut log, serve);
        rest = &rest[n..];
        check_bounds(target);
    }
    log
}

fn check_bounds(target: &Target) {
    assert!(target.tasks.len() <= WINDOW + MAX_IMMEDIATE);
    assert_eq!(target.tasks.len(), target.session.task_count());
    assert_eq!(target.session.tasks(&target.tasks).count() as u32, target.tasks.len());
    assert!(target.connection.collected.capacity() <= 8192);
    if let Some(text) = &target.connection.text {
        assert!(text.held_bytes() <= 8 * MAX_TEXT);
    }
    let open = target.session.max_cmd_sn().wrapping_sub(target.session.exp_cmd_sn()).wrapping_add(1);
    assert!(open <= WINDOW);
}

/// One PDU that makes some sense, with fields from small ranges so that they meet.
fn sensible() -> impl Strategy<Value = ([u8; 48], Vec<u8>)> {
    let opcode = prop_oneof![
        8 => Just(0x01u8), 8 => Just(0x05), 2 => Just(0x00), 2 => Just(0x02), 2 => Just(0x04),
        1 => Just(0x41), 1 => Just(0x40), 1 => Just(0x42), 1 => Just(0x44), 1 => Just(0x10), 1 => Just(0x2f),
    ];
    let flags = prop_oneof![
        Just(0xa1u8),
        Just(0x21),
        Just(0xc1),
        Just(0x80),
        Just(0x81),
        Just(0x82),
        Just(0x85),
        Just(0x86),
        any::<u8>()
    ];
    let tag = prop_oneof![Just(u32::MAX), (0u32..64, 0u32..4096).prop_map(|(slot, tag)| slot | tag << 20)];
    let data = prop_oneof![
        3 => Just(Vec::new()),
        3 => (0usize..1600).prop_map(|length| pattern(0, length)),
        1 => Just(b"SendTargets=All\0".to_vec()),
    ];
    let words = (0u32..10, tag, prop_oneof![4 => 0u32..12, 1 => any::<u32>()], 0u32..3, 0u32..4);
    (opcode, flags, words, 0u32..4000, data).prop_map(|(opcode, flags, words, length, data)| {
        let (itt, tag, sn, data_sn, offset) = words;
        let mut header = [0; 48];
        header[0] = opcode;
        header[1] = flags;
        header[9] = (itt % 2) as u8;
        header[16..20].copy_from_slice(&itt.to_be_bytes());
        let second = if opcode & 0x3f == 1 { length } else { tag };
        header[20..24].copy_from_slice(&second.to_be_bytes());
        header[24..28].copy_from_slice(&FIRST_CMD_SN.wrapping_add(sn).to_be_bytes());
        header[28..32].copy_from_slice(&FIRST_STAT_SN.to_be_bytes());
        header[32..36].copy_from_slice(&FIRST_CMD_SN.wrapping_add(data_sn).to_be_bytes());
        header[36..40].copy_from_slice(&data_sn.to_be_bytes());
        header[40..44].copy_from_slice(&(offset * 512).to_be_bytes());
        (header, data)
    })
}

fn limits(digests: bool) -> Parameters {
    Parameters { header_digest: digests, data_digest: digests, ..parameters() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4000), cuts in prop::collection::vec(1usize..300, 1..8), digests: bool) {
        run(&mut Target::with(limits(digests)), &bytes, &cuts);
    }

    #[test]
    fn sensible_and_mutated_pdus_give_the_same_in_any_pieces(
        pdus in prop::collection::vec(sensible(), 1..40),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cuts in prop::collection::vec(1usize..700, 1..8),
        digests: bool,
    ) {
        let parameters = limits(digests);
        let mut bytes: Vec<u8> =
            pdus.iter().flat_map(|(header, data)| pdu(|h| *h = *header, data, &parameters)).collect();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= value;
        }
        let mut whole = Target::with(parameters);
        let mut pieces = Target::with(parameters);
        let expected = run(&mut whole, &bytes, &[]);
        let got = run(&mut pieces, &bytes, &cuts);
        prop_assert_eq!(got, expected);
        prop_assert_eq!(&pieces.sink, &whole.sink);
        // Whatever was sent can be read.
        parse_replies(&whole.sink, &parameters);
        prop_assert_eq!(pieces.session.exp_cmd_sn(), whole.session.exp_cmd_sn());
        prop_assert_eq!(pieces.session.max_cmd_sn(), whole.session.max_cmd_sn());
    }

    #[test]
    fn writes_of_any_shape_arrive_whole(
        lengths in prop::collection::vec((1u32..6000, 0u32..1600, any::<bool>(), 1u32..1025), 1..6),
        cuts in prop::collection::vec(1usize..900, 1..6),
        digests: bool,
    ) {
        let parameters = limits(digests);
        let mut target = Target::with(parameters);
        for (n, (length, immediate, more, segment)) in lengths.into_iter().enumerate() {
            let n = n as u32;
            let first = length.min(1536);
            let immediate = immediate.min(first);
            let more = more && immediate < first;
            let command = wire::ScsiCommand { final_bit: !more, ..write(n, length) };
            let mut bytes = pdu(|h| command.emit(h), &pattern(0, immediate as usize), &parameters);
            if more {
                bytes.extend(sequence(immediate, first, segment, &parameters, |sn, at, last| unsolicited(n, sn, at, last)));
            }
            let mut image = Vec::new();
            let mut answered = 0;
            loop {
                let log = run(&mut target, &bytes, &cuts);
                for entry in log {
                    if let Log::Payload { task, offset, bytes } = entry {
                        prop_assert!(task.is_some());
                        prop_assert_eq!(offset as usize, image.len());
                        image.extend(bytes);
                    }
                }
                let replies = target.replies();
                prop_assert_eq!(replies.len(), 1);
                match replies[0].0 {
                    wire::ResponsePdu::ReadyToTransfer(r2t) => {
                        prop_assert_eq!(r2t.r2t_sn, answered);
                        answered += 1;
                        let from = r2t.buffer_offset;
                        let to = from + r2t.desired_data_transfer_length;
                        bytes = sequence(from, to, segment, &parameters, |sn, at, last| {
                            solicited(n, r2t.target_transfer_tag, sn, at, last)
                        });
                    }
                    wire::ResponsePdu::ScsiResponse(response) => {
                        prop_assert_eq!(response.status, GOOD);
                        break;
                    }
                    ref other => prop_assert!(false, "{:?}", other),
                }
            }
            prop_assert_eq!(image, pattern(0, length as usize));
        }
        prop_assert!(target.tasks.is_empty());
    }
}

/// The Data-Out PDUs of a sequence.
fn sequence(
    from: u32,
    to: u32,
    segment: u32,
    parameters: &Parameters,
    header: impl Fn(u32, u32, bool) -> wire::DataOut,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = from;
    let mut data_sn = 0;
    while at < to {
        let length = segment.min(to - at);
        let data_out = header(data_sn, at, at + length == to);
        bytes.extend(pdu(|h| data_out.emit(h), &pattern(at as usize, length as usize), parameters));
        at += length;
        data_sn += 1;
    }
    bytes
}
