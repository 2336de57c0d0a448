//! SCSI Commands that are answered as they come: read where they lie in the input, with all their data, and never a task.
//!
//! What makes a command an exception in any way is left to [`Connection::advance`], of whose rules these are a part: here
//! is nobody told what is wrong.

use crate::connection::Connection;
use crate::data_in::Finish;
use crate::session::Session;
use crate::sink::Sink;
use crate::task::Tasks;
use wire::{BHS_LEN, DIGEST_LEN, Opcode, ScsiCommand, TaskAttribute, digest, padding};

/// A SCSI Command next in order, with all of its data in the input, that moves data in one direction and in one PDU. It has no
/// AHS, and its attribute is SIMPLE or none.
#[derive(Clone, Copy, Debug)]
pub struct WholeCommand<'a> {
    /// The CDB.
    pub cdb: [u8; 16],
    /// Logical Unit Number, the 8 bytes of the header.
    pub lun: u64,
    /// Expected Data Transfer Length: of a write, also the length of `data`. Never 0.
    pub length: u32,
    /// Immediate data; empty when it reads.
    pub data: &'a [u8],
    /// The input behind it.
    pub rest: &'a [u8],
    header: &'a [u8; BHS_LEN],
    header_digest: &'a [u8],
    /// Data with padding, and its digest.
    padded: &'a [u8],
    data_digest: &'a [u8],
    initiator_task_tag: u32,
}

impl Connection {
    /// The command that comes first in the input, if it is one that [`answer_read`](Self::answer_read) or
    /// [`answer_write`](Self::answer_write) may answer. Nothing is taken by looking; digests are not looked at yet.
    #[inline]
    pub fn whole_command<'a, T>(
        &self,
        session: &Session,
        tasks: &Tasks<T>,
        input: &'a [u8],
    ) -> Option<WholeCommand<'a>> {
        if self.is_amid_pdu() || !self.may_answer() || session.is_holding() {
            return None;
        }
        let (header, rest) = input.split_first_chunk::<BHS_LEN>()?;
        // Neither I nor AHS.
        if header[0] != Opcode::ScsiCommand.code() || header[4] != 0 {
            return None;
        }
        let command = ScsiCommand::parse(header).ok()?;
        let ScsiCommand { data_segment_length: immediate, expected_data_transfer_length: length, .. } = command;
        let parameters = &self.parameters;
        let fits = match (command.read, command.write) {
            (true, false) => {
                immediate == 0 && length <= parameters.peer_max_recv_data_segment_length.min(session.max_burst_length)
            }
            (false, true) => {
                let most = parameters.max_recv_data_segment_length.min(session.first_burst_length);
                command.final_bit && immediate == length && length <= most && session.immediate_data
            }
            _ => false,
        };
        let simple = matches!(command.attribute, TaskAttribute::Simple | TaskAttribute::Untagged);
        if !fits || !simple || length == 0 || !session.is_next(command.cmd_sn) {
            return None;
        }
        if session.find(tasks, command.initiator_task_tag).is_some() {
            return None;
        }
        let (header_digest, rest) = rest.split_at_checked(if parameters.header_digest { DIGEST_LEN } else { 0 })?;
        let immediate = immediate as usize;
        let (padded, rest) = rest.split_at_checked(immediate + padding(immediate))?;
        let has_digest = parameters.data_digest && immediate != 0;
        let (data_digest, rest) = rest.split_at_checked(if has_digest { DIGEST_LEN } else { 0 })?;
        Some(WholeCommand {
            cdb: command.cdb,
            lun: command.lun,
            length,
            data: &padded[..immediate],
            rest,
            header,
            header_digest,
            padded,
            data_digest,
            initiator_task_tag: command.initiator_task_tag,
        })
    }

    /// Takes a command that reads, and gives it StatSN: header of the one Data-In PDU with all of its data and status GOOD, its
    /// digest included (<= 52 bytes), which the data and [`data_trailer`](Self::data_trailer) have to follow.
    #[inline]
    pub fn answer_read(
        &mut self,
        session: &mut Session,
        command: &WholeCommand<'_>,
        out: &mut [u8; BHS_LEN + DIGEST_LEN],
    ) -> usize {
        self.take_whole(session, command);
        let data_in = wire::DataIn {
            stat_sn: self.take_stat_sn(),
            exp_cmd_sn: session.exp_cmd_sn(),
            max_cmd_sn: session.max_cmd_sn(),
            ..wire::DataIn::whole(command.initiator_task_tag, command.length)
        };
        self.emit_data_in(&data_in, out)
    }

    /// Takes a command that writes, and answers that all of its data was written.
    #[inline]
    pub fn answer_write(&mut self, session: &mut Session, command: &WholeCommand<'_>, sink: &mut impl Sink) {
        self.take_whole(session, command);
        let finish = Finish { status: 0, transfer: command.length };
        let response = self.plain_response(session, command.initiator_task_tag, 0, command.length, finish);
        self.put_header(sink, |space| response.emit(space));
    }

    /// Takes the ExpStatSN of a command that is intact, before it is known which way it takes: either of them does that, too.
    pub fn take_exp_stat_sn(&mut self, command: &WholeCommand<'_>) {
        self.note_exp_stat_sn(command.header);
    }

    #[inline]
    fn take_whole(&mut self, session: &mut Session, command: &WholeCommand<'_>) {
        self.note_exp_stat_sn(command.header);
        self.pdu_length = BHS_LEN + command.header_digest.len() + command.padded.len() + command.data_digest.len();
        session.consume();
        self.liveness.note_payload();
    }
}

impl WholeCommand<'_> {
    /// Its digests are right, or there are none.
    #[inline]
    pub fn is_intact(&self) -> bool {
        let right = |bytes: &[u8], crc: &[u8]| match crc.first_chunk() {
            Some(crc) => digest::crc32c(bytes) == digest::from_wire(*crc),
            None => true,
        };
        right(self.header, self.header_digest) && right(self.padded, self.data_digest)
    }
}
