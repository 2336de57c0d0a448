//! Data-In and SCSI Response: what goes back to the initiator for a command (RFC 7143 11.4, 11.7).

use crate::connection::Connection;
use crate::session::Session;
use crate::sink::Sink;
use crate::task::{Task, TaskKey, Tasks};
use wire::{BHS_LEN, Crc32c, DIGEST_LEN, ScsiResponse, ScsiResponseCode, digest, padding};

/// SCSI status GOOD.
const GOOD: u8 = 0;

/// How a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// SCSI status.
    pub status: u8,
    /// Bytes that the SCSI command moves in all, before they are cut to the expected length (for residual over- and
    /// underflow). 0 for a command that moves nothing or failed before it did.
    pub transfer: u32,
}

/// A Data-In PDU's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataIn {
    /// Header bytes in `out`, the digest included. 0: there was nothing to send.
    pub header: usize,
    /// Payload bytes of this PDU.
    pub payload: u32,
    /// The status was in it.
    pub finished: bool,
}

impl Connection {
    /// Header of the next Data-In PDU of a task, for up to `available` bytes that follow at its current offset; cut by
    /// MaxRecvDataSegmentLength, MaxBurstLength and the expected length. With `finish`, `available` is all that is left of
    /// the command's data, and the status goes into the last PDU if it is plain GOOD; any other status takes a
    /// [`response`](Self::response). Header incl. digest is written to `out` (<= 52 bytes); the payload and
    /// [`data_trailer`](Self::data_trailer) have to follow it.
    ///
    /// With nothing to send (no bytes available, or the expected length is reached) `header` is 0 and `finished` is
    /// false: the status takes a `response`.
    #[inline]
    pub fn data_in<T>(
        &mut self,
        session: &mut Session,
        task: &mut Task<T>,
        available: u32,
        finish: Option<Finish>,
        out: &mut [u8; BHS_LEN + DIGEST_LEN],
    ) -> DataIn {
        let room = task.read_length.saturating_sub(task.read_offset);
        let usable = available.min(room);
        let burst = session.max_burst_length.saturating_sub(task.sequence);
        let payload = usable.min(self.parameters.peer_max_recv_data_segment_length).min(burst);
        if payload == 0 || task.finished {
            return DataIn { header: 0, payload: 0, finished: false };
        }
        let all = payload == usable && (finish.is_some() || payload == room);
        let sequence_end = all || payload == burst;
        let status = finish.filter(|finish| all && finish.status == GOOD);
        let mut data_in = wire::DataIn {
            final_bit: sequence_end,
            status_present: false,
            data_sn: task.data_sn,
            buffer_offset: task.read_offset,
            ..wire::DataIn::whole(task.initiator_task_tag, payload)
        };
        if let Some(finish) = status {
            session.settle(task);
            data_in.status_present = true;
            data_in.stat_sn = self.take_stat_sn();
            data_in.residual_overflow = finish.transfer > task.read_length;
            data_in.residual_underflow = finish.transfer < task.read_length;
            data_in.residual_count = finish.transfer.abs_diff(task.read_length);
        }
        data_in.exp_cmd_sn = session.exp_cmd_sn();
        data_in.max_cmd_sn = session.max_cmd_sn();
        task.data_sn = task.data_sn.wrapping_add(1);
        task.read_offset += payload;
        task.sequence = if sequence_end { 0 } else { task.sequence + payload };
        let length = self.emit_data_in(&data_in, out);
        DataIn { header: length, payload, finished: status.is_some() }
    }

    /// Writes a header with its digest; gives their length.
    #[inline]
    pub(crate) fn emit_data_in(&self, data_in: &wire::DataIn, out: &mut [u8; BHS_LEN + DIGEST_LEN]) -> usize {
        let [header @ .., c0, c1, c2, c3] = out;
        data_in.emit(header);
        if !self.parameters.header_digest {
            return BHS_LEN;
        }
        [*c0, *c1, *c2, *c3] = digest::to_wire(digest::crc32c(header));
        BHS_LEN + DIGEST_LEN
    }

    /// Padding and data digest that follow the payload of one PDU (0 to 7 bytes): how many of `out`.
    pub fn data_trailer(&self, payload: &[u8], out: &mut [u8; 8]) -> usize {
        let mut crc = Crc32c::new();
        if self.parameters.data_digest {
            crc.update(payload);
        }
        self.data_trailer_of(payload.len() as u32, crc, out)
    }

    /// The same, where the payload is not in one piece: its length, and the CRC32C over it (any value without data
    /// digests).
    pub fn data_trailer_of(&self, length: u32, mut crc: Crc32c, out: &mut [u8; 8]) -> usize {
        let pad = padding(length as usize);
        out[..pad].fill(0);
        if !self.parameters.data_digest || length == 0 {
            return pad;
        }
        crc.update(&[0; 3][..pad]);
        out[pad..pad + DIGEST_LEN].copy_from_slice(&digest::to_wire(crc.finish()));
        pad + DIGEST_LEN
    }

    /// Data-In carries a digest over its payload. When false, the payload need not be read for
    /// [`data_trailer_of`](Self::data_trailer_of).
    pub fn data_digest(&self) -> bool {
        self.parameters.data_digest
    }

    /// SCSI Response (when the status did not go with Data-In). `sense`: sense data without its length, empty for none;
    /// cut to what the peer takes. Nothing is written if the status was sent already.
    pub fn response<T>(
        &mut self,
        session: &mut Session,
        task: &mut Task<T>,
        finish: Finish,
        sense: &[u8],
        sink: &mut impl Sink,
    ) {
        if task.finished {
            return;
        }
        session.settle(task);
        let most = self.parameters.peer_max_recv_data_segment_length.min(u32::from(u16::MAX)) as usize;
        let sense = &sense[..sense.len().min(most.saturating_sub(2))];
        let (reads, writes) = (task.read_length, task.write_length);
        let mut response = self.plain_response(session, task.initiator_task_tag, reads, writes, finish);
        // DataSN and R2TSN of a bidirectional command are counted together.
        response.exp_data_sn = if task.data_sn == 0 { 0 } else { task.data_sn.wrapping_add(task.r2t_sn) };
        response.data_segment_length = if sense.is_empty() { 0 } else { sense.len() as u32 + 2 };
        self.put_header(sink, |space| response.emit(space));
        if !sense.is_empty() {
            self.put_data(sink, &(sense.len() as u16).to_be_bytes(), sense);
        }
    }

    /// A SCSI Response with neither sense nor ExpDataSN. Over- and underflow are filled in (RFC 7143 11.4.5): a
    /// bidirectional command is taken to write `finish.transfer` bytes and to read none.
    #[inline]
    pub(crate) fn plain_response(
        &mut self,
        session: &Session,
        initiator_task_tag: u32,
        read_length: u32,
        write_length: u32,
        finish: Finish,
    ) -> ScsiResponse {
        let Finish { status, transfer } = finish;
        let expected = if write_length != 0 { write_length } else { read_length };
        let bidirectional = write_length != 0 && read_length != 0;
        ScsiResponse {
            bidi_read_overflow: false,
            bidi_read_underflow: bidirectional,
            residual_overflow: transfer > expected,
            residual_underflow: transfer < expected,
            response: ScsiResponseCode::CommandCompleted,
            status,
            data_segment_length: 0,
            status_qualifier: 0,
            initiator_task_tag,
            snack_tag: 0,
            stat_sn: self.take_stat_sn(),
            exp_cmd_sn: session.exp_cmd_sn(),
            max_cmd_sn: session.max_cmd_sn(),
            exp_data_sn: 0,
            bidi_read_residual_count: if bidirectional { read_length } else { 0 },
            residual_count: transfer.abs_diff(expected),
        }
    }

    /// Forgets the task and opens the window: the server calls it after the response, or when the task was aborted.
    /// `None`: the key is stale, or the task belongs to another session.
    pub fn retire<T>(&mut self, session: &mut Session, tasks: &mut Tasks<T>, task: TaskKey) -> Option<T> {
        session.retire(tasks, task)
    }
}
