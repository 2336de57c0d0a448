//! Data-Out: bursts that the target has asked for, or that go unsolicited, cut into PDUs.

use crate::Connection;
use crate::connection::Pending;
use crate::frame::{append_header, append_trailer};
use crate::output::Output;
use std::sync::Arc;
use wire::RESERVED_TAG;
use wire::digest::Crc32c;

/// Gives the bytes of a command's data.
pub trait DataOut {
    /// Appends the bytes [`offset`, `offset` + `length`) of the data to `out`. What is missing is sent as zeros.
    fn append(&self, offset: u32, length: u32, out: &mut Vec<u8>);

    /// The same bytes where they lie for as long as the program runs, or the first of them; `None`: they don't. An
    /// [`Output`] may send them from there.
    fn lasting(&self, offset: u32, length: u32) -> Option<&'static [u8]> {
        let _ = (offset, length);
        None
    }

    /// The CRC32C of the same bytes, for who knows it without looking at them.
    fn crc32c(&self, offset: u32, length: u32) -> Option<u32> {
        let _ = (offset, length);
        None
    }
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

    fn lasting(&self, offset: u32, length: u32) -> Option<&'static [u8]> {
        (**self).lasting(offset, length)
    }

    fn crc32c(&self, offset: u32, length: u32) -> Option<u32> {
        (**self).crc32c(offset, length)
    }
}

impl<D: DataOut + ?Sized> DataOut for Arc<D> {
    fn append(&self, offset: u32, length: u32, out: &mut Vec<u8>) {
        (**self).append(offset, length, out);
    }

    fn lasting(&self, offset: u32, length: u32) -> Option<&'static [u8]> {
        (**self).lasting(offset, length)
    }

    fn crc32c(&self, offset: u32, length: u32) -> Option<u32> {
        (**self).crc32c(offset, length)
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

/// Appends a data segment: exactly `length` bytes of a command's data, pad and digest.
pub(crate) fn append_segment(data: &impl DataOut, offset: u32, length: u32, digest: bool, out: &mut impl Output) {
    let known = if digest { data.crc32c(offset, length) } else { None };
    let mut sum = (digest && known.is_none()).then(Crc32c::new);
    out.put_data(data, offset, length, sum.as_mut());
    append_trailer(out, length as usize, known.map(Crc32c::behind).or(sum));
}

impl<T: DataOut> Connection<T> {
    /// Sends Data-Out that is due, until `out` holds [`Limits::output_length`](crate::Limits::output_length) bytes. True
    /// when nothing is left. [`submit`](Self::submit) and [`advance`](Self::advance) call it themselves; the caller
    /// does so after emptying an output that was full.
    pub fn pump(&mut self, out: &mut impl Output) -> bool {
        while let Some(burst) = self.bursts.front_mut() {
            // The command may have ended meanwhile: then nobody wants its data any more.
            let Some(Pending::Command(task)) = self.tags.get_mut(burst.tag) else {
                self.bursts.pop_front();
                continue;
            };
            if out.length() >= self.limits.output_length {
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
            append_segment(&task.user, burst.offset, length, self.parameters.data_digest, out);
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
