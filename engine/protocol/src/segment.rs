//! The data segment that is coming in: where its bytes go, its padding and digest, and what its end means.

use crate::connection::{Connection, Stage};
use crate::event::{Advance, Event};
use crate::hold::Held;
use crate::session::Session;
use crate::sink::Sink;
use crate::task::{TaskKey, Tasks};
use wire::{BHS_LEN, Bhs, Crc32c, DIGEST_LEN, RejectReason, digest, padding};

/// Protocol service CRC error (RFC 7143 11.4.7.2).
pub(crate) const CRC_ERROR: (u8, u8) = (0x47, 0x05);
/// Unexpected unsolicited data.
pub(crate) const UNEXPECTED_DATA: (u8, u8) = (0x0c, 0x0c);
/// Incorrect amount of data.
pub(crate) const INCORRECT_AMOUNT: (u8, u8) = (0x0c, 0x0d);

/// What a data segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// Nobody's.
    Discard,
    /// Immediate data of a command.
    Immediate,
    /// Of an unsolicited Data-Out.
    Unsolicited,
    /// Of a Data-Out for the R2T with this tag.
    Solicited(u32),
    /// Ping data.
    Ping,
    /// Text.
    Text,
    /// None: a request that has no data.
    Bare,
    /// Of a request that is ahead of its turn.
    Ahead,
}

impl Part {
    /// Its bytes are kept here, and do not go to the server.
    pub(crate) fn is_collected(self) -> bool {
        matches!(self, Part::Ping | Part::Text | Part::Bare | Part::Ahead)
    }

    fn is_task_data(self) -> bool {
        matches!(self, Part::Immediate | Part::Unsolicited | Part::Solicited(_))
    }
}

/// The current data segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub header: [u8; BHS_LEN],
    pub part: Part,
    pub task: TaskKey,
    /// The bytes are wanted.
    pub accept: bool,
    /// F bit.
    pub final_bit: bool,
    pub offset: u32,
    pub length: u32,
    pub done: u32,
    /// Bytes to collect.
    keep: u32,
    pub crc: Crc32c,
    tail: [u8; 3 + DIGEST_LEN],
    pub tail_length: u8,
    tail_done: u8,
}

impl Segment {
    pub(crate) fn new() -> Segment {
        Segment {
            header: [0; BHS_LEN],
            part: Part::Discard,
            task: TaskKey { index: crate::task::NONE, generation: 0 },
            accept: false,
            final_bit: false,
            offset: 0,
            length: 0,
            done: 0,
            keep: 0,
            crc: Crc32c::new(),
            tail: [0; 3 + DIGEST_LEN],
            tail_length: 0,
            tail_done: 0,
        }
    }

    /// Takes padding and digest; true when they are complete.
    pub(crate) fn tail(&mut self, input: &mut &[u8]) -> bool {
        let done = usize::from(self.tail_done);
        let n = (usize::from(self.tail_length) - done).min(input.len());
        let (bytes, rest) = input.split_at(n);
        self.tail[done..done + n].copy_from_slice(bytes);
        *input = rest;
        self.tail_done += n as u8;
        self.tail_done == self.tail_length
    }

    /// Bytes to come: data, padding and digest.
    pub(crate) fn left(&self) -> usize {
        (self.length - self.done) as usize + usize::from(self.tail_length - self.tail_done)
    }

    /// The digest is right, or there is none.
    fn is_intact(&mut self, data_digest: bool) -> bool {
        if !data_digest || self.length == 0 {
            return true;
        }
        let pad = usize::from(self.tail_length) - DIGEST_LEN;
        let mut crc = [0; DIGEST_LEN];
        crc.copy_from_slice(&self.tail[pad..pad + DIGEST_LEN]);
        self.crc.update(&self.tail[..pad]);
        self.crc.finish() == digest::from_wire(crc)
    }
}

impl Connection {
    /// The data segment of a header that was handled comes next, even if it is empty. `keep`: how many bytes of it to
    /// collect.
    pub(crate) fn begin(&mut self, header: &[u8; BHS_LEN], part: Part, keep: u32) {
        let length = Bhs::new(header).data_segment_length();
        let digest = if self.parameters.data_digest && length != 0 { DIGEST_LEN } else { 0 };
        let segment = &mut self.segment;
        segment.header = *header;
        segment.part = part;
        segment.accept = false;
        segment.offset = 0;
        segment.length = length;
        segment.done = 0;
        segment.keep = keep;
        segment.crc = Crc32c::new();
        segment.tail_length = (padding(length as usize) + digest) as u8;
        segment.tail_done = 0;
        self.stage = Stage::Payload;
    }

    /// The data segment, if any, is nobody's.
    pub(crate) fn discard(&mut self, header: &[u8; BHS_LEN]) {
        if Bhs::new(header).data_segment_length() != 0 {
            self.begin(header, Part::Discard, 0);
        }
    }

    /// Takes input for a segment that is handled here.
    pub(crate) fn collect(&mut self, input: &mut &[u8]) {
        let segment = &mut self.segment;
        let n = ((segment.length - segment.done) as usize).min(input.len());
        let (bytes, rest) = input.split_at(n);
        *input = rest;
        if self.parameters.data_digest {
            segment.crc.update(bytes);
        }
        segment.done += n as u32;
        let room = (segment.keep as usize).saturating_sub(self.collected.len());
        self.collected.extend_from_slice(&bytes[..n.min(room)]);
    }

    /// A data segment has ended.
    pub(crate) fn segment_complete<T>(
        &mut self,
        session: &mut Session,
        tasks: &mut Tasks<T>,
        sink: &mut impl Sink,
    ) -> Option<Advance> {
        let part = self.segment.part;
        if part == Part::Discard {
            return None;
        }
        let intact = self.segment.is_intact(self.parameters.data_digest);
        if part.is_task_data() {
            return self.data_complete(session, tasks, intact, sink);
        }
        let header = self.segment.header;
        let data = std::mem::take(&mut self.collected);
        if !intact {
            if part == Part::Ahead {
                session.hold(crate::connection::cmd_sn(&header), Held::Gone);
            }
            self.reject(session, &header, RejectReason::DataDigestError, sink);
            return None;
        }
        if part == Part::Ahead {
            session.hold(crate::connection::cmd_sn(&header), Held::Pdu(Box::new((header, data))));
            return None;
        }
        self.perform(session, tasks, &header, data, sink)
    }

    fn data_complete<T>(
        &mut self,
        session: &mut Session,
        tasks: &mut Tasks<T>,
        intact: bool,
        sink: &mut impl Sink,
    ) -> Option<Advance> {
        let Segment { part, task: key, accept, final_bit, offset, length, .. } = self.segment;
        if !intact {
            let header = self.segment.header;
            self.reject(session, &header, RejectReason::DataDigestError, sink);
        }
        let task = tasks.get_mut(key)?;
        if task.finished || task.failure_reported {
            return None;
        }
        if !intact {
            task.fail(CRC_ERROR);
        }
        match part {
            Part::Solicited(tag) => {
                if let Some(position) = task.burst(tag) {
                    let burst = &task.bursts[position];
                    if final_bit || burst.next >= burst.end {
                        task.close_burst(position);
                    }
                }
            }
            _ if final_bit => task.unsolicited_open = false,
            _ => {}
        }
        match task.failure {
            None if accept && (length != 0 || final_bit) => {
                Some(Advance::Event(Event::Data { task: key, offset, length, sequence_end: final_bit }))
            }
            None => None,
            Some((asc, ascq)) if !task.expects_data() => {
                task.failure_reported = true;
                Some(Advance::Event(Event::DataError { task: key, asc, ascq }))
            }
            Some(_) => None,
        }
    }
}
