//! The scripted initiator's PDUs, and a target whose events and payload are logged.

use crate::{Advance, CloseReason, Connection, Event, Finish, Session, TaskKey, Tasks};
use negotiation::Parameters;
use std::time::Duration;
use wire::{Bhs, DataOut, RESERVED_TAG, RejectReason, ResponsePdu, ScsiCommand, crc32c, digest};

pub(super) const WINDOW: u32 = 8;
pub(super) const FIRST_CMD_SN: u32 = 100;
pub(super) const FIRST_STAT_SN: u32 = 500;
pub(super) const LUN: u64 = 0x0001_0000_0000_0000;
pub(super) const GOOD: u8 = 0;
pub(super) const CHECK_CONDITION: u8 = 2;

/// What a feed of bytes led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Log {
    Event(Event),
    Payload { task: Option<TaskKey>, offset: u32, bytes: Vec<u8> },
    Close(CloseReason),
}

pub(super) struct Target {
    pub session: Session,
    pub connection: Connection,
    pub tasks: Tasks<u32>,
    pub sink: Vec<u8>,
    pub now: Duration,
    pub parameters: Parameters,
}

/// Everything allowed, small limits.
pub(super) fn parameters() -> Parameters {
    Parameters {
        initial_r2t: false,
        immediate_data: true,
        max_recv_data_segment_length: 4096,
        peer_max_recv_data_segment_length: 1024,
        max_burst_length: 2048,
        first_burst_length: 1536,
        max_outstanding_r2t: 2,
        ..Parameters::default()
    }
}

impl Target {
    pub fn new() -> Target {
        Target::with(parameters())
    }

    pub fn with(parameters: Parameters) -> Target {
        Target {
            session: Session::new(7, &parameters, FIRST_CMD_SN, WINDOW),
            connection: Connection::new(parameters, FIRST_STAT_SN, Duration::ZERO),
            tasks: Tasks::with_capacity(64),
            sink: Vec::new(),
            now: Duration::ZERO,
            parameters,
        }
    }

    /// Feeds bytes, and logs until all are used up.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Log> {
        let mut log = Vec::new();
        self.feed_into(bytes, &mut log, |_, _| {});
        log
    }

    /// The same into a log, with a server that acts on each event.
    pub fn feed_into(&mut self, bytes: &[u8], log: &mut Vec<Log>, mut act: impl FnMut(&mut Target, &Event)) {
        let mut input = bytes;
        for _ in 0..100_000 {
            let advance =
                self.connection.advance(&mut self.session, &mut self.tasks, &mut input, &mut self.sink, self.now);
            match advance {
                Advance::Idle => {
                    assert!(input.is_empty(), "idle with input left");
                    return;
                }
                Advance::Event(event) => {
                    act(self, &event);
                    log.push(Log::Event(event));
                }
                Advance::Payload { task, offset, length } => {
                    if input.is_empty() {
                        return;
                    }
                    let n = input.len().min(length as usize);
                    let (piece, rest) = input.split_at(n);
                    self.connection.payload(piece);
                    input = rest;
                    match log.last_mut() {
                        Some(Log::Payload { task: t, offset: o, bytes })
                            if *t == task && o.wrapping_add(bytes.len() as u32) == offset =>
                        {
                            bytes.extend_from_slice(piece);
                        }
                        _ => log.push(Log::Payload { task, offset, bytes: piece.to_vec() }),
                    }
                }
                Advance::Close(reason) => {
                    if !matches!(log.last(), Some(Log::Close(_))) {
                        log.push(Log::Close(reason));
                    }
                    return;
                }
            }
        }
        panic!("no progress");
    }

    /// Feeds one PDU with this target's digests.
    pub fn send(&mut self, emit: impl FnOnce(&mut [u8; 48]), data: &[u8]) -> Vec<Log> {
        let bytes = pdu(emit, data, &self.parameters);
        self.feed(&bytes)
    }

    /// Feeds a command, which must come out as an event.
    pub fn command(&mut self, command: ScsiCommand, data: &[u8]) -> TaskKey {
        let mut log = self.send(|h| command.emit(h), data);
        match log.remove(0) {
            Log::Event(Event::Command { task, .. }) => task,
            other => panic!("not a command: {other:?}"),
        }
    }

    /// What was sent, and forgets it. Digests are checked.
    pub fn replies(&mut self) -> Vec<(ResponsePdu, Vec<u8>)> {
        let sink = std::mem::take(&mut self.sink);
        parse_replies(&sink, &self.parameters)
    }

    /// The only reply.
    pub fn reply(&mut self) -> (ResponsePdu, Vec<u8>) {
        let mut replies = self.replies();
        assert_eq!(replies.len(), 1, "{replies:?}");
        replies.remove(0)
    }

    pub fn rejected(&mut self) -> RejectReason {
        match self.reply() {
            (ResponsePdu::Reject(reject), data) => {
                assert_eq!(data.len(), 48);
                reject.reason
            }
            other => panic!("not a reject: {other:?}"),
        }
    }

    pub fn respond(&mut self, task: TaskKey, status: u8, transfer: u32, sense: &[u8]) {
        let entry = self.tasks.get_mut(task).expect("the task");
        self.connection.response(&mut self.session, entry, Finish { status, transfer }, sense, &mut self.sink);
        assert!(self.connection.retire(&mut self.session, &mut self.tasks, task).is_some());
    }

    pub fn solicit(&mut self, task: TaskKey, offset: u32, length: u32) -> bool {
        self.connection.ready_to_transfer(&mut self.session, &mut self.tasks, task, offset, length, &mut self.sink)
    }

    /// Solicits, and gives the tag.
    pub fn r2t(&mut self, task: TaskKey, offset: u32, length: u32) -> u32 {
        assert!(self.solicit(task, offset, length));
        match self.reply().0 {
            ResponsePdu::ReadyToTransfer(r2t) => r2t.target_transfer_tag,
            other => panic!("not an R2T: {other:?}"),
        }
    }
}

pub(super) fn parse_replies(mut sink: &[u8], parameters: &Parameters) -> Vec<(ResponsePdu, Vec<u8>)> {
    let mut replies = Vec::new();
    while !sink.is_empty() {
        let header: &[u8; 48] = sink.first_chunk().expect("a whole header");
        let bhs = Bhs::new(header);
        let head = bhs.header_len(parameters.header_digest);
        if parameters.header_digest {
            assert_eq!(sink[48..52], digest::to_wire(crc32c(header)));
        }
        let length = bhs.data_segment_length() as usize;
        let whole = bhs.pdu_len(parameters.header_digest, parameters.data_digest);
        if parameters.data_digest && length != 0 {
            let padded = wire::padded(length);
            assert_eq!(sink[head + padded..whole], digest::to_wire(crc32c(&sink[head..head + padded])));
        }
        replies.push((ResponsePdu::parse(header).expect("a valid reply"), sink[head..head + length].to_vec()));
        sink = &sink[whole..];
    }
    replies
}

/// A PDU as bytes; the data segment's length is filled in.
pub(super) fn pdu(emit: impl FnOnce(&mut [u8; 48]), data: &[u8], parameters: &Parameters) -> Vec<u8> {
    pdu_with_ahs(emit, &[], data, parameters)
}

pub(super) fn pdu_with_ahs(
    emit: impl FnOnce(&mut [u8; 48]),
    ahs: &[u8],
    data: &[u8],
    parameters: &Parameters,
) -> Vec<u8> {
    let mut header = [0; 48];
    emit(&mut header);
    header[4] = (ahs.len() / 4) as u8;
    header[5..8].copy_from_slice(&(data.len() as u32).to_be_bytes()[1..]);
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(ahs);
    if parameters.header_digest {
        bytes.extend_from_slice(&digest::to_wire(crc32c(&bytes)));
    }
    if !data.is_empty() {
        let at = bytes.len();
        bytes.extend_from_slice(data);
        bytes.resize(at + wire::padded(data.len()), 0);
        if parameters.data_digest {
            let crc = crc32c(&bytes[at..]);
            bytes.extend_from_slice(&digest::to_wire(crc));
        }
    }
    bytes
}

/// A command without data, `n`th in order; its tag is `n` too.
pub(super) fn plain(n: u32) -> ScsiCommand {
    let simple = ScsiCommand::simple(n, FIRST_CMD_SN.wrapping_add(n), [n as u8; 16]);
    ScsiCommand { lun: LUN, exp_stat_sn: FIRST_STAT_SN, ..simple }
}

pub(super) fn read(n: u32, length: u32) -> ScsiCommand {
    ScsiCommand { read: true, expected_data_transfer_length: length, ..plain(n) }
}

pub(super) fn write(n: u32, length: u32) -> ScsiCommand {
    ScsiCommand { write: true, expected_data_transfer_length: length, ..plain(n) }
}

/// A Data-Out without tag.
pub(super) fn unsolicited(n: u32, data_sn: u32, buffer_offset: u32, final_bit: bool) -> DataOut {
    DataOut {
        final_bit,
        data_segment_length: 0,
        lun: 0,
        initiator_task_tag: n,
        target_transfer_tag: RESERVED_TAG,
        exp_stat_sn: FIRST_STAT_SN,
        data_sn,
        buffer_offset,
    }
}

/// A Data-Out for an R2T.
pub(super) fn solicited(n: u32, tag: u32, data_sn: u32, buffer_offset: u32, final_bit: bool) -> DataOut {
    DataOut { target_transfer_tag: tag, lun: LUN, ..unsolicited(n, data_sn, buffer_offset, final_bit) }
}

/// `length` bytes that tell where they are.
pub(super) fn pattern(offset: usize, length: usize) -> Vec<u8> {
    (offset..offset + length).map(|at| (at % 251) as u8).collect()
}

pub(super) fn data(task: TaskKey, offset: u32, length: u32, sequence_end: bool) -> Log {
    Log::Event(Event::Data { task, offset, length, sequence_end })
}

pub(super) fn payload(task: TaskKey, offset: u32, length: u32) -> Log {
    Log::Payload { task: Some(task), offset, bytes: pattern(offset as usize, length as usize) }
}

pub(super) fn dropped(offset: u32, length: u32) -> Log {
    Log::Payload { task: None, offset, bytes: pattern(offset as usize, length as usize) }
}

pub(super) fn data_error(task: TaskKey, asc: u8, ascq: u8) -> Log {
    Log::Event(Event::DataError { task, asc, ascq })
}
