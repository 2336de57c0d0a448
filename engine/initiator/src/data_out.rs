//! Data-Out: bursts that the target has asked for, or that go unsolicited, cut into PDUs.

use crate::Connection;
use crate::connection::Pending;
use crate::frame::{append_header, append_trailer};
use std::sync::Arc;
use wire::RESERVED_TAG;

/// Gives the bytes of a command's data.
pub trait DataOut {
    /// Appends the bytes [`offset`, `offset` + `length`) of the data to `out`. What is missing is sent as zeros.
    fn append(&self, offset: u32, length: u32, out: &mut Vec<u8>);
}

/// No data (reads), or zeros.
impl DataOut for () {
    fn append(&self, _: u32, _: u32, _: &mut Vec<u8>) {}
}

impl DataOut for [u8] {
    fn append(&self, offset: u32, length: u32, out: &mut Vec<u8>) {
        let rest = self.get(offset as usize..).unwrap_or_default();
        out.extend_from_slice(&rest[..rest.len().min(length as usize)]);
    }
}

impl DataOut for Vec<u8> {
    fn append(&self, offset: u32, length: u32, out: &mut Vec<u8>) {
        self.as_slice().append(offset, length, out);
    }
}

impl<D: DataOut + ?Sized> DataOut for &D {
    fn append(&self, offset: u32, length: u32, out: &mut Vec<u8>) {
        (**self).append(offset, length, out);
    }
}

impl<D: DataOut + ?Sized> DataOut for Arc<D> {
    fn append(&self, offset: u32, length: u32, out: &mut Vec<u8>) {
        (**self).append(offset, length, out);
    }
}

/// Data that is to be sent in one sequence.
pub(crate) struct Burst {
    pub tag: u32,
    pub target_transfer_tag: u32,
    pub offset: u32,
    pub end: u32,
    pub data_sn: u32,
}

/// Appends exactly `length` bytes.
pub(crate) fn append_exactly(data: &impl DataOut, offset: u32, length: u32, out: &mut Vec<u8>) {
    let end = out.len() + length as usize;
    data.append(offset, length, out);
    out.resize(end, 0);
}

impl<T: DataOut> Connection<T> {
    /// Sends Data-Out that is due, until `out` holds [`Limits::output_length`](crate::Limits::output_length) bytes. True
    /// when nothing is left. [`submit`](Self::submit) and [`advance`](Self::advance) call it themselves; the caller
    /// does so after emptying an output that was full.
    pub fn pump(&mut self, out: &mut Vec<u8>) -> bool {
        while let Some(burst) = self.bursts.front_mut() {
            // The command may have ended meanwhile: then nobody wants its data any more.
            let Some(Pending::Command(task)) = self.tags.get_mut(burst.tag) else {
                self.bursts.pop_front();
                continue;
            };
            if out.len() >= self.limits.output_length {
                return false;
            }
            let length = (burst.end - burst.offset).min(self.parameters.peer_max_recv_data_segment_length);
            let last = burst.offset + length == burst.end;
            let mut header = [0; wire::BHS_LEN];
            wire::DataOut {
                final_bit: last,
                data_segment_length: length,
                lun: task.lun,
                initiator_task_tag: burst.tag,
                target_transfer_tag: burst.target_transfer_tag,
                exp_stat_sn: self.window.exp_stat_sn,
                data_sn: burst.data_sn,
                buffer_offset: burst.offset,
            }
            .emit(&mut header);
            append_header(out, &header, &[], self.parameters.header_digest);
            let start = out.len();
            append_exactly(&task.user, burst.offset, length, out);
            append_trailer(out, start, self.parameters.data_digest);
            burst.offset += length;
            burst.data_sn += 1;
            if last {
                if burst.target_transfer_tag != RESERVED_TAG {
                    task.r2t_open -= 1;
                }
                self.bursts.pop_front();
            }
        }
        true
    }
}
