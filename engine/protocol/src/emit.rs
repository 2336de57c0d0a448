//! Outgoing PDUs: headers, padding, digests, StatSN, and the Reject.

use crate::connection::Connection;
use crate::session::Session;
use crate::sink::Sink;
use wire::{BHS_LEN, Crc32c, DIGEST_LEN, Reject, RejectReason, digest, padding};

impl Connection {
    /// StatSN of a response that advances it.
    #[inline]
    pub(crate) fn take_stat_sn(&mut self) -> u32 {
        let stat_sn = self.stat_sn;
        self.stat_sn = stat_sn.wrapping_add(1);
        stat_sn
    }

    /// Writes a header with its digest.
    #[inline]
    pub(crate) fn put_header(&self, sink: &mut impl Sink, emit: impl FnOnce(&mut [u8; BHS_LEN])) {
        let length = BHS_LEN + if self.parameters.header_digest { DIGEST_LEN } else { 0 };
        let space = sink.reserve(length);
        let Some((header, rest)) = space.split_first_chunk_mut::<BHS_LEN>() else {
            return;
        };
        emit(header);
        if self.parameters.header_digest
            && let Some(crc) = rest.first_chunk_mut::<DIGEST_LEN>()
        {
            *crc = digest::to_wire(digest::crc32c(header));
        }
    }

    /// Writes a data segment that consists of two pieces, with padding and digest.
    pub(crate) fn put_data(&self, sink: &mut impl Sink, first: &[u8], second: &[u8]) {
        let length = first.len() + second.len();
        if length == 0 {
            return;
        }
        sink.put(first);
        sink.put(second);
        let pad = &[0; 3][..padding(length)];
        sink.put(pad);
        if self.parameters.data_digest {
            let mut crc = Crc32c::new();
            crc.update(first);
            crc.update(second);
            crc.update(pad);
            sink.put(&digest::to_wire(crc.finish()));
        }
    }

    /// Writes a Reject with the header in error (RFC 7143 11.17).
    #[cold]
    pub(crate) fn reject(
        &mut self,
        session: &Session,
        header: &[u8; BHS_LEN],
        reason: RejectReason,
        sink: &mut impl Sink,
    ) {
        let reject = Reject {
            reason,
            data_segment_length: BHS_LEN as u32,
            stat_sn: self.take_stat_sn(),
            exp_cmd_sn: session.exp_cmd_sn(),
            max_cmd_sn: session.max_cmd_sn(),
            data_sn: 0,
        };
        self.put_header(sink, |space| reject.emit(space));
        self.put_data(sink, header, &[]);
    }
}
