//! One connection in full feature phase: framing of the stream, and who handles which PDU.

use crate::event::{Advance, CloseReason, Event};
use crate::hold::Held;
use crate::liveness::Liveness;
use crate::logout::Logout;
use crate::management::Management;
use crate::segment::{Part, Segment};
use crate::session::{Order, Session};
use crate::sink::Sink;
use crate::task::{TaskKey, Tasks};
use crate::text::Text;
use negotiation::Parameters;
use std::time::Duration;
use wire::{BHS_LEN, Bhs, DIGEST_LEN, Opcode, ParseError, RejectReason, digest};

/// Bytes of additional header segments that a PDU may have: the longest CDB (260 bytes) and a bidirectional length.
pub(crate) const MAX_AHS: usize = 256;

/// What the next bytes of the stream are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Of a header with its AHS and digest.
    Header,
    /// Of a data segment.
    Payload,
    /// Padding and data digest.
    Tail,
}

/// One connection in full feature phase: framing, StatSN, digests, parameters, NOPs. A plain value.
#[derive(Debug)]
pub struct Connection {
    pub(crate) parameters: Parameters,
    pub(crate) cid: Option<u16>,
    pub(crate) stat_sn: u32,
    pub(crate) exp_stat_sn: u32,
    pub(crate) stage: Stage,
    /// Length of the PDU whose header came last.
    pub(crate) pdu_length: usize,
    /// Bytes in `partial`.
    have: usize,
    /// A header that came in pieces, or one with AHS.
    partial: [u8; BHS_LEN + MAX_AHS + DIGEST_LEN],
    /// Bytes of AHS behind the last header, in `partial`.
    pub(crate) ahs: usize,
    pub(crate) segment: Segment,
    /// What was collected of a segment that is handled here.
    pub(crate) collected: Vec<u8>,
    /// The task whose unsolicited data came last.
    pub(crate) unsolicited: TaskKey,
    pub(crate) text: Option<Box<Text>>,
    pub(crate) management: Management,
    pub(crate) logout: Option<Logout>,
    pub(crate) liveness: Liveness,
    closed: Option<CloseReason>,
    next_tag: u32,
}

impl Connection {
    /// A connection right after login. `stat_sn`: StatSN of its next response; `now`: the time on the clock of later
    /// calls.
    pub fn new(parameters: Parameters, stat_sn: u32, now: Duration) -> Connection {
        Connection {
            parameters,
            cid: None,
            stat_sn,
            exp_stat_sn: stat_sn,
            stage: Stage::Header,
            pdu_length: BHS_LEN,
            have: 0,
            partial: [0; BHS_LEN + MAX_AHS + DIGEST_LEN],
            ahs: 0,
            segment: Segment::new(),
            collected: Vec::new(),
            unsolicited: TaskKey { index: crate::task::NONE, generation: 0 },
            text: None,
            management: Management::default(),
            logout: None,
            liveness: Liveness::new(now),
            closed: None,
            next_tag: 0,
        }
    }

    /// Tells it its CID, which a logout may name. Without it any CID is taken for its own.
    pub fn set_cid(&mut self, cid: u16) {
        self.cid = Some(cid);
    }

    /// What was negotiated. The peer may have changed its MaxRecvDataSegmentLength since.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// StatSN of the next response.
    pub fn stat_sn(&self) -> u32 {
        self.stat_sn
    }

    /// The peer has acknowledged every StatSN before this one.
    pub fn exp_stat_sn(&self) -> u32 {
        self.exp_stat_sn
    }

    /// What came in an extended CDB AHS with the last command: the CDB's bytes from the 17th on (RFC 7143 11.2.2.3).
    /// Valid from `Event::Command` to the next `advance`.
    pub fn extended_cdb(&self) -> &[u8] {
        self.segments().extended_cdb.unwrap_or(&[])
    }

    pub(crate) fn ahs_bytes(&self) -> &[u8] {
        &self.partial[BHS_LEN..BHS_LEN + self.ahs]
    }

    /// Uses up input (partial headers are kept inside) until there is something for the server. Answers to NOP-Out, Rejects
    /// and the like are written to the sink by itself.
    pub fn advance<T: Default>(
        &mut self,
        session: &mut Session,
        tasks: &mut Tasks<T>,
        input: &mut &[u8],
        sink: &mut impl Sink,
        now: Duration,
    ) -> Advance {
        self.liveness.heard(!input.is_empty(), now);
        loop {
            if let Some(advance) = self.ready(session, tasks, input, sink) {
                return advance;
            }
            let step = match self.stage {
                Stage::Header => {
                    let Some(header) = self.header(input) else {
                        return Advance::Idle;
                    };
                    match header {
                        Ok(header) => self.pdu(session, tasks, &header, sink),
                        Err(reason) => Some(self.close(reason)),
                    }
                }
                Stage::Payload => {
                    if self.segment.part.is_collected() {
                        self.collect(input);
                    }
                    let left = self.segment.length - self.segment.done;
                    if left == 0 {
                        self.stage = Stage::Tail;
                        None
                    } else if self.segment.part.is_collected() {
                        return Advance::Idle;
                    } else {
                        let segment = &self.segment;
                        let task = (segment.accept && tasks.get(segment.task).is_some_and(|task| !task.finished))
                            .then_some(segment.task);
                        let offset = segment.offset.wrapping_add(segment.done);
                        return Advance::Payload { task, offset, length: left };
                    }
                }
                Stage::Tail => {
                    if !self.segment.tail(input) {
                        return Advance::Idle;
                    }
                    self.stage = Stage::Header;
                    self.segment_complete(session, tasks, sink)
                }
            };
            if let Some(advance) = step {
                return advance;
            }
        }
    }

    /// Payload bytes as announced, wherever they were put; the digest is computed over them here. Bytes beyond what was
    /// announced are ignored.
    pub fn payload(&mut self, bytes: &[u8]) {
        if self.stage != Stage::Payload {
            return;
        }
        let segment = &mut self.segment;
        let bytes = &bytes[..bytes.len().min((segment.length - segment.done) as usize)];
        if self.parameters.data_digest {
            segment.crc.update(bytes);
        }
        segment.done += bytes.len() as u32;
        self.liveness.note_payload();
    }

    /// What is to be done before more input is looked at.
    #[inline]
    fn ready<T>(
        &mut self,
        session: &mut Session,
        tasks: &mut Tasks<T>,
        input: &mut &[u8],
        sink: &mut impl Sink,
    ) -> Option<Advance> {
        if self.closed.is_some() {
            *input = &[];
            return self.closed.clone().map(Advance::Close);
        }
        if let Some(logout) = &self.logout {
            *input = &[];
            if logout.answered {
                return Some(self.close(CloseReason::Logout));
            }
            return Some(Advance::Idle);
        }
        while let Some(held) = session.release(tasks) {
            let step = match held {
                Held::Task(task) => Some(Advance::Event(Event::Released { task })),
                Held::Pdu(pdu) => self.perform(session, tasks, &pdu.0, pdu.1, sink),
                Held::Gone => None,
            };
            if step.is_some() {
                return step;
            }
        }
        if self.management.waits()
            && let Some(event) = self.management.due(session)
        {
            return Some(Advance::Event(event));
        }
        None
    }

    /// Nothing but what comes next is to be done.
    #[inline]
    pub(crate) fn may_answer(&self) -> bool {
        self.closed.is_none() && self.logout.is_none() && !self.management.waits()
    }

    /// A PDU has begun, and more of it is to come.
    #[inline]
    pub fn is_amid_pdu(&self) -> bool {
        self.have > 0 || self.stage != Stage::Header
    }

    /// Of the data segment that has begun, or was the last one.
    pub fn data_segment_length(&self) -> u32 {
        self.segment.length
    }

    /// Of a data segment that begins now: whose it is, where its data belongs, and how much it is.
    pub fn awaited(&self) -> Option<(TaskKey, u32, u32)> {
        let Segment { accept, task, offset, length, done: 0, .. } = self.segment else { return None };
        let begins = self.stage == Stage::Payload && accept && !self.segment.part.is_collected();
        begins.then_some((task, offset, length))
    }

    /// Bytes between the data of one PDU and of the next, if they are alike.
    pub fn between(&self) -> usize {
        usize::from(self.segment.tail_length) + self.header_length()
    }

    fn header_length(&self) -> usize {
        BHS_LEN + if self.parameters.header_digest { DIGEST_LEN } else { 0 }
    }

    /// Bytes to the end of the next header: of a PDU that has begun, the rest is among them.
    pub fn to_header(&self) -> usize {
        let header = self.header_length();
        match self.stage {
            // Additional segments are longer than was foreseen.
            Stage::Header => header.saturating_sub(self.have).max(1),
            Stage::Payload | Stage::Tail => self.segment.left() + header,
        }
    }

    /// How much to receive so that it ends with the end of a PDU, if all that come are as long as the last one: what is
    /// still to come of the one that has begun, and of the others as many as `most` holds, but one at least.
    pub fn whole_pdus(&self, most: usize) -> usize {
        let begun = match self.stage {
            Stage::Header if self.have == 0 => 0,
            Stage::Header => self.pdu_length.saturating_sub(self.have),
            Stage::Payload | Stage::Tail => self.segment.left(),
        };
        begun + self.pdu_length * (most.saturating_sub(begun) / self.pdu_length).max(1)
    }

    /// The connection is over.
    pub(crate) fn close(&mut self, reason: CloseReason) -> Advance {
        self.collected = Vec::new();
        self.text = None;
        Advance::Close(self.closed.insert(reason).clone())
    }

    /// The next header, checked. `None`: not all of it is here.
    #[inline]
    fn header(&mut self, input: &mut &[u8]) -> Option<Result<[u8; BHS_LEN], CloseReason>> {
        // The usual case: all of it lies in the input.
        if self.have == 0
            && let Some((header, rest)) = input.split_first_chunk::<BHS_LEN>()
            && header[4] == 0
        {
            self.ahs = 0;
            if !self.parameters.header_digest {
                *input = rest;
                return Some(Ok(*header));
            }
            if let Some((crc, rest)) = rest.split_first_chunk::<DIGEST_LEN>() {
                *input = rest;
                if digest::crc32c(header) != digest::from_wire(*crc) {
                    return Some(Err(CloseReason::HeaderDigest));
                }
                return Some(Ok(*header));
            }
        }
        self.partial_header(input)
    }

    #[cold]
    fn partial_header(&mut self, input: &mut &[u8]) -> Option<Result<[u8; BHS_LEN], CloseReason>> {
        if !self.fill(BHS_LEN, input) {
            return None;
        }
        let ahs = usize::from(self.partial[4]) * 4;
        if ahs > MAX_AHS {
            return Some(Err(CloseReason::Protocol("too many additional header segments")));
        }
        let covered = BHS_LEN + ahs;
        let length = covered + if self.parameters.header_digest { DIGEST_LEN } else { 0 };
        if !self.fill(length, input) {
            return None;
        }
        self.have = 0;
        self.ahs = ahs;
        if self.parameters.header_digest {
            let mut crc = [0; DIGEST_LEN];
            crc.copy_from_slice(&self.partial[covered..length]);
            if digest::crc32c(&self.partial[..covered]) != digest::from_wire(crc) {
                return Some(Err(CloseReason::HeaderDigest));
            }
        }
        let mut header = [0; BHS_LEN];
        header.copy_from_slice(&self.partial[..BHS_LEN]);
        Some(Ok(header))
    }

    /// Has `length` bytes in `partial`, if the input gives them.
    fn fill(&mut self, length: usize, input: &mut &[u8]) -> bool {
        if self.have < length {
            let n = (length - self.have).min(input.len());
            let (bytes, rest) = input.split_at(n);
            self.partial[self.have..self.have + n].copy_from_slice(bytes);
            self.have += n;
            *input = rest;
        }
        self.have >= length
    }

    /// A whole header is here; its data segment, if any, comes next.
    #[inline]
    fn pdu<T: Default>(
        &mut self,
        session: &mut Session,
        tasks: &mut Tasks<T>,
        header: &[u8; BHS_LEN],
        sink: &mut impl Sink,
    ) -> Option<Advance> {
        let bhs = Bhs::new(header);
        if bhs.data_segment_length() > self.parameters.max_recv_data_segment_length {
            return Some(self.close(CloseReason::Protocol("a data segment is longer than MaxRecvDataSegmentLength")));
        }
        self.pdu_length = bhs.pdu_len(self.parameters.header_digest, self.parameters.data_digest);
        let opcode = bhs.opcode();
        self.note_exp_stat_sn(header);
        match opcode {
            Opcode::ScsiCommand => self.scsi_command(session, tasks, header, sink),
            Opcode::DataOut => self.data_out(session, tasks, header, sink),
            Opcode::NopOut => self.request(session, header, Part::Ping, sink),
            Opcode::TextRequest => self.request(session, header, Part::Text, sink),
            Opcode::TaskManagementRequest | Opcode::LogoutRequest => self.request(session, header, Part::Bare, sink),
            Opcode::LoginRequest => {
                Some(self.close(CloseReason::Protocol("a Login Request came in full feature phase")))
            }
            Opcode::Snack => self.refuse(session, header, RejectReason::SnackReject, sink),
            _ => self.refuse(session, header, RejectReason::CommandNotSupported, sink),
        }
    }

    /// All requests carry ExpStatSN at the same place. It never goes back, nor beyond what was sent.
    #[inline]
    pub(crate) fn note_exp_stat_sn(&mut self, header: &[u8; BHS_LEN]) {
        let exp_stat_sn = u32::from_be_bytes([header[28], header[29], header[30], header[31]]);
        if exp_stat_sn.wrapping_sub(self.exp_stat_sn) <= self.stat_sn.wrapping_sub(self.exp_stat_sn) {
            self.exp_stat_sn = exp_stat_sn;
        }
    }

    /// A request that is not a SCSI command: its place in the order, then its data segment.
    fn request(
        &mut self,
        session: &mut Session,
        header: &[u8; BHS_LEN],
        part: Part,
        sink: &mut impl Sink,
    ) -> Option<Advance> {
        let bhs = Bhs::new(header);
        if let Err(error) = check(header) {
            return self.refuse(session, header, error.reject_reason(), sink);
        }
        let length = bhs.data_segment_length();
        if part == Part::Bare && length != 0 {
            return self.refuse(session, header, RejectReason::InvalidPduField, sink);
        }
        let ahead = match session.order(cmd_sn(header), bhs.immediate()) {
            Order::Ignore => {
                self.discard(header);
                return None;
            }
            Order::Now => {
                if !bhs.immediate() {
                    session.consume();
                }
                false
            }
            Order::Ahead => true,
        };
        let part = if ahead { Part::Ahead } else { part };
        // What is not echoed needs no place; what is held has little.
        let keep = match part {
            Part::Ping => length.min(self.parameters.peer_max_recv_data_segment_length),
            Part::Ahead if length as usize > session.hold_room() => {
                session.hold(cmd_sn(header), Held::Gone);
                self.reject(session, header, RejectReason::LongOperationReject, sink);
                self.discard(header);
                return None;
            }
            _ => length,
        };
        self.begin(header, part, keep);
        None
    }

    /// Answers with a Reject and throws the data segment away. A non-immediate request uses up its CmdSN all the same.
    #[cold]
    pub(crate) fn refuse(
        &mut self,
        session: &mut Session,
        header: &[u8; BHS_LEN],
        reason: RejectReason,
        sink: &mut impl Sink,
    ) -> Option<Advance> {
        let bhs = Bhs::new(header);
        if has_cmd_sn(bhs.opcode()) {
            match session.order(cmd_sn(header), bhs.immediate()) {
                Order::Ignore => {
                    self.discard(header);
                    return None;
                }
                Order::Now if !bhs.immediate() => session.consume(),
                Order::Now => {}
                Order::Ahead => session.hold(cmd_sn(header), Held::Gone),
            }
        }
        self.reject(session, header, reason, sink);
        self.discard(header);
        None
    }

    /// Carries out a request whose turn has come, with all its data.
    pub(crate) fn perform<T>(
        &mut self,
        session: &mut Session,
        tasks: &mut Tasks<T>,
        header: &[u8; BHS_LEN],
        data: Vec<u8>,
        sink: &mut impl Sink,
    ) -> Option<Advance> {
        match wire::opcode(header) {
            Opcode::NopOut => self.nop_out(session, header, data, sink),
            Opcode::TextRequest => self.text_request(session, header, data, sink),
            Opcode::TaskManagementRequest => self.task_management(session, tasks, header, sink),
            Opcode::LogoutRequest => self.logout_request(session, header, sink),
            _ => None,
        }
    }

    /// A tag for what the peer has to send back; never the reserved one.
    pub(crate) fn new_tag(&mut self) -> u32 {
        self.next_tag = self.next_tag.wrapping_add(1) & 0x7fff_ffff;
        self.next_tag
    }
}

/// CmdSN of a request.
pub(crate) fn cmd_sn(header: &[u8; BHS_LEN]) -> u32 {
    u32::from_be_bytes([header[24], header[25], header[26], header[27]])
}

fn has_cmd_sn(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::NopOut
            | Opcode::ScsiCommand
            | Opcode::TaskManagementRequest
            | Opcode::TextRequest
            | Opcode::LogoutRequest
    )
}

/// The rules that a header alone can break.
fn check(header: &[u8; BHS_LEN]) -> Result<(), ParseError> {
    match wire::opcode(header) {
        Opcode::NopOut => wire::NopOut::parse(header).map(drop),
        Opcode::TextRequest => wire::TextRequest::parse(header).map(drop),
        Opcode::TaskManagementRequest => wire::TaskManagementRequest::parse(header).map(drop),
        Opcode::LogoutRequest => wire::LogoutRequest::parse(header).map(drop),
        _ => Ok(()),
    }
}
