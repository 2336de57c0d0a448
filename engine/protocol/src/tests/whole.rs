//! Commands that are answered as they come.

use super::harness::*;
use crate::{Event, Finish, Session};
use negotiation::Parameters;
use std::time::Duration;
use wire::{
    LogoutReason, LogoutRequest, RESERVED_TAG, ScsiCommand, TaskAttribute, TaskManagementFunction,
    TaskManagementRequest,
};

/// Lengths that need padding and that don't, within the limits of [`parameters`].
const LENGTHS: [u32; 5] = [1, 103, 512, 1022, 1024];

fn with_digests(header: bool, data: bool) -> Target {
    Target::with(Parameters { header_digest: header, data_digest: data, ..parameters() })
}

fn all_digests() -> impl Iterator<Item = Target> {
    [(false, false), (true, false), (false, true), (true, true)].into_iter().map(|(h, d)| with_digests(h, d))
}

/// The bytes of the `n`th command, with its data if it writes.
fn bytes(command: ScsiCommand, parameters: &Parameters) -> Vec<u8> {
    let length = if command.write { command.expected_data_transfer_length as usize } else { 0 };
    pdu(|h| command.emit(h), &pattern(0, length), parameters)
}

fn is_whole(target: &Target, input: &[u8]) -> bool {
    target.connection.whole_command(&target.session, &target.tasks, input).is_some()
}

impl Target {
    fn put_data(&mut self, length: u32) {
        let data = pattern(0, length as usize);
        let mut trailer = [0; 8];
        let n = self.connection.data_trailer(&data, &mut trailer);
        self.sink.extend_from_slice(&data);
        self.sink.extend_from_slice(&trailer[..n]);
    }

    /// Answers the first command of the input at once; gives how many bytes it had.
    fn answer_at_once(&mut self, input: &[u8]) -> usize {
        let command = self.connection.whole_command(&self.session, &self.tasks, input).expect("a whole command");
        assert!(command.is_intact());
        if command.data.is_empty() {
            let mut header = [0; 52];
            let n = self.connection.answer_read(&mut self.session, &command, &mut header);
            self.sink.extend_from_slice(&header[..n]);
            self.put_data(command.length);
        } else {
            assert_eq!(command.data, pattern(0, command.length as usize));
            self.connection.answer_write(&mut self.session, &command, &mut self.sink);
        }
        input.len() - command.rest.len()
    }

    /// The same over a task.
    fn answer_by_task(&mut self, input: &[u8], length: u32) {
        let finish = Finish { status: GOOD, transfer: length };
        self.feed_into(input, &mut Vec::new(), |target, event| match *event {
            Event::Command { task, immediate: 0, .. } => {
                let mut header = [0; 52];
                let entry = target.tasks.get_mut(task).unwrap();
                let shape = target.connection.data_in(&mut target.session, entry, length, Some(finish), &mut header);
                assert!(shape.finished);
                target.sink.extend_from_slice(&header[..shape.header]);
                target.put_data(length);
                target.connection.retire(&mut target.session, &mut target.tasks, task).unwrap();
            }
            Event::Data { task, .. } => target.respond(task, GOOD, length, &[]),
            _ => {}
        });
    }
}

#[test]
fn its_answer_is_that_of_a_task() {
    for (mut short, mut long) in all_digests().zip(all_digests()) {
        let mut n = 0;
        for length in LENGTHS {
            for command in [read(n, length), write(n + 1, length)] {
                let command = ScsiCommand { exp_stat_sn: FIRST_STAT_SN + n / 2, ..command };
                let input = bytes(command, &short.parameters);
                assert_eq!(short.answer_at_once(&[&input[..], b"next"].concat()), input.len());
                long.answer_by_task(&input, length);
                assert_eq!(short.sink, long.sink, "{length} bytes");
                assert_eq!(short.connection.exp_stat_sn(), FIRST_STAT_SN + n / 2);
                assert_eq!(short.connection.whole_pdus(1), input.len());
            }
            n += 2;
        }
        assert_eq!(short.replies().len(), n as usize);
        let numbers = |target: &Target| {
            (target.session.exp_cmd_sn(), target.session.max_cmd_sn(), target.connection.stat_sn(), target.tasks.len())
        };
        assert_eq!(numbers(&short), numbers(&long));
        assert_eq!(short.tasks.len(), 0);
    }
}

#[test]
fn the_long_way_goes_on_behind_it() {
    let mut target = Target::new();
    let input = [bytes(write(0, 8), &target.parameters), bytes(plain(1), &target.parameters)].concat();
    let n = target.answer_at_once(&input);
    assert!(matches!(target.feed(&input[n..])[..], [Log::Event(Event::Command { .. })]));
    // Its tag and its CmdSN are used up.
    assert!(!is_whole(&target, &bytes(read(0, 8), &target.parameters)));
    assert!(!is_whole(&target, &bytes(ScsiCommand { cmd_sn: FIRST_CMD_SN + 2, ..read(1, 8) }, &target.parameters)));
    assert!(is_whole(&target, &bytes(read(2, 8), &target.parameters)));
}

#[test]
fn whatever_is_an_exception_takes_the_long_way() {
    let usual = Target::new();
    let (reads, writes) = (read(0, 512), write(0, 512));
    let attribute = |attribute| ScsiCommand { attribute, ..reads };
    assert!(is_whole(&usual, &bytes(attribute(TaskAttribute::Untagged), &usual.parameters)));
    let exceptions = [
        ("no data", plain(0)),
        ("nothing expected", read(0, 0)),
        ("nothing expected by a write", write(0, 0)),
        ("immediate", ScsiCommand { immediate: true, ..reads }),
        ("ORDERED", attribute(TaskAttribute::Ordered)),
        ("HEAD OF QUEUE", attribute(TaskAttribute::HeadOfQueue)),
        ("ACA", attribute(TaskAttribute::Aca)),
        ("both directions", ScsiCommand { read: true, ..writes }),
        ("more data to come", ScsiCommand { final_bit: false, ..writes }),
        ("ahead of its turn", read(1, 512)),
        ("there already", ScsiCommand { cmd_sn: FIRST_CMD_SN - 1, ..reads }),
        ("the reserved tag", ScsiCommand { initiator_task_tag: u32::MAX, ..reads }),
        ("more than a Data-In may have", read(0, 1025)),
        ("more than a burst may have", write(0, 1537)),
    ];
    for (why, command) in exceptions {
        assert!(!is_whole(&usual, &bytes(command, &usual.parameters)), "{why}");
    }
    let segment = |emit: ScsiCommand, data: &[u8]| pdu(|h| emit.emit(h), data, &usual.parameters);
    assert!(!is_whole(&usual, &segment(reads, &[0; 512])), "data with a read");
    assert!(!is_whole(&usual, &segment(writes, &[0; 511])), "less than expected");
    assert!(!is_whole(&usual, &segment(writes, &[])), "data by R2T");
    let ahs = [0, 5, 2, 0, 0, 0, 2, 0];
    assert!(!is_whole(&usual, &pdu_with_ahs(|h| reads.emit(h), &ahs, &[], &usual.parameters)), "an AHS");
    assert!(!is_whole(&usual, &pdu(|h| unsolicited(0, 0, 0, true).emit(h), &[], &usual.parameters)), "no command");
    let none = Target::with(Parameters { immediate_data: false, ..parameters() });
    assert!(!is_whole(&none, &bytes(writes, &none.parameters)), "immediate data was not agreed on");
    let small = Target::with(Parameters { max_recv_data_segment_length: 512, ..parameters() });
    assert!(is_whole(&small, &bytes(writes, &small.parameters)));
    assert!(!is_whole(&small, &bytes(write(0, 516), &small.parameters)), "more than a PDU may have");
    let bursts = Target::with(Parameters { max_burst_length: 512, first_burst_length: 512, ..parameters() });
    assert!(!is_whole(&bursts, &bytes(read(0, 516), &bursts.parameters)), "a Data-In sequence is longer than a burst");
}

#[test]
fn not_all_of_it_is_there() {
    for target in all_digests() {
        let input = bytes(write(0, 103), &target.parameters);
        for length in 0..input.len() {
            assert!(!is_whole(&target, &input[..length]), "{length} bytes");
        }
        assert!(is_whole(&target, &input));
        assert!(!is_whole(&target, &bytes(read(0, 8), &target.parameters)[..47]));
    }
}

#[test]
fn a_wrong_digest_is_seen_and_left_to_the_long_way() {
    for mut target in all_digests() {
        let Parameters { header_digest, data_digest, .. } = target.parameters;
        let head = if header_digest { 52 } else { 48 };
        let whole = bytes(write(0, 103), &target.parameters);
        // In the CDB, the header's digest, the data, the padding, the data's digest.
        let places = [(40, header_digest), (50, header_digest), (head + 9, data_digest)];
        let ends = [(head + 103, data_digest), (head + 105, data_digest)];
        for (at, seen) in places.into_iter().chain(ends).filter(|(at, _)| *at < whole.len()) {
            let mut input = whole.clone();
            input[at] ^= 1;
            let command = target.connection.whole_command(&target.session, &target.tasks, &input).unwrap();
            assert!(!seen || !command.is_intact(), "byte {at}");
        }
        if data_digest {
            let mut input = whole.clone();
            *input.last_mut().unwrap() ^= 1;
            let log = target.feed(&input);
            assert!(matches!(log.last(), Some(Log::Event(Event::DataError { .. }))));
        }
    }
}

#[test]
fn what_waits_goes_first() {
    // A header that has begun.
    let mut target = Target::new();
    let input = bytes(read(0, 512), &target.parameters);
    target.feed(&input[..10]);
    assert!(!is_whole(&target, &input));
    // A command that is ahead of its turn.
    let mut target = Target::new();
    target.command(plain(1), &[]);
    assert!(!is_whole(&target, &input));
    // Data that is still to come.
    let mut target = Target::new();
    target.feed(&bytes(write(0, 64), &target.parameters)[..60]);
    assert!(!is_whole(&target, &bytes(read(1, 512), &target.parameters)));
    // A window that is full.
    let mut target = Target::new();
    for n in 0..WINDOW {
        assert!(is_whole(&target, &bytes(read(n, 512), &target.parameters)));
        target.command(plain(n), &[]);
    }
    assert!(!is_whole(&target, &bytes(read(WINDOW, 512), &target.parameters)));
    // A task management function that is about commands before it.
    let mut target = Target::new();
    let management = TaskManagementRequest {
        immediate: true,
        function: TaskManagementFunction::AbortTaskSet,
        data_segment_length: 0,
        lun: LUN,
        initiator_task_tag: 77,
        referenced_task_tag: RESERVED_TAG,
        cmd_sn: FIRST_CMD_SN + 1,
        exp_stat_sn: FIRST_STAT_SN,
        ref_cmd_sn: 0,
        exp_data_sn: 0,
    };
    assert_eq!(target.send(|h| management.emit(h), &[]), []);
    assert!(!is_whole(&target, &input));
    // A logout.
    let mut target = Target::new();
    let logout = LogoutRequest {
        immediate: true,
        reason: LogoutReason::CloseSession,
        data_segment_length: 0,
        initiator_task_tag: 78,
        cid: 0,
        cmd_sn: FIRST_CMD_SN,
        exp_stat_sn: FIRST_STAT_SN,
    };
    target.send(|h| logout.emit(h), &[]);
    assert!(!is_whole(&target, &input));
    // The end of the connection.
    let mut target = Target::new();
    target.feed(&bytes(ScsiCommand { final_bit: false, ..plain(0) }, &target.parameters));
    target.feed(&pdu(|h| h[0] = 0x03, &[], &target.parameters));
    assert!(!is_whole(&target, &bytes(read(target.session.exp_cmd_sn() - FIRST_CMD_SN, 8), &target.parameters)));
}

#[test]
fn numbers_go_round() {
    let mut target = Target::new();
    let first = u32::MAX - 3;
    target.session = Session::new(7, &target.parameters, first, WINDOW);
    let command = |n: u32| ScsiCommand { cmd_sn: first.wrapping_add(n), ..read(n, 8) };
    for n in 0..3 * WINDOW {
        assert!(!is_whole(&target, &bytes(command(n + 1), &target.parameters)));
        assert!(!is_whole(&target, &bytes(command(n.wrapping_sub(1)), &target.parameters)));
        target.answer_at_once(&bytes(command(n), &target.parameters));
        let next = first.wrapping_add(n + 1);
        let (exp_cmd_sn, max_cmd_sn) = (target.session.exp_cmd_sn(), target.session.max_cmd_sn());
        assert_eq!((exp_cmd_sn, max_cmd_sn), (next, next.wrapping_add(WINDOW - 1)));
    }
}

#[test]
fn who_sends_them_is_not_silent() {
    let mut target = Target::new();
    let second = Duration::from_secs;
    target.connection.set_liveness(second(10), second(10));
    let input = bytes(write(0, 512), &target.parameters);
    target.answer_at_once(&input);
    // The server has used up its input by then.
    target.now = second(9);
    assert_eq!(target.feed(&[]), []);
    target.sink.clear();
    let next = target.connection.tick(&mut target.session, second(12), &mut target.sink);
    assert_eq!((next, target.sink.len()), (Ok(second(19)), 0));
}
