//! Bytes to PDUs, for the phases in which PDUs are small and rare: login and discovery sessions. No digests.

use wire::{BHS_LEN, Bhs, padded};

/// Longest data segment that is taken (RFC 7143 13.12: the default, which holds for the login phase).
pub(super) const MAX_DATA: usize = 8192;

/// Collects one PDU. Memory grows with what has come, up to one PDU of [`MAX_DATA`].
#[derive(Debug)]
pub(super) struct Framer {
    header: [u8; BHS_LEN],
    header_len: usize,
    data: Vec<u8>,
    /// The PDU was handed out; the next byte begins another.
    taken: bool,
}

/// A whole PDU.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub header: [u8; BHS_LEN],
    /// The data segment without its padding.
    pub data: &'a [u8],
}

/// A header that can't be followed: nothing after it can be framed.
#[derive(Debug)]
pub(super) struct Unframable {
    pub header: [u8; BHS_LEN],
    pub why: &'static str,
}

impl Framer {
    pub(super) fn new() -> Framer {
        Framer { header: [0; BHS_LEN], header_len: 0, data: Vec::new(), taken: false }
    }

    /// Takes bytes up to the end of a PDU. None: all input is used up, and the PDU is not whole yet.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame<'_>>, Unframable> {
        if std::mem::take(&mut self.taken) {
            self.header_len = 0;
            self.data.clear();
        }
        let missing = BHS_LEN - self.header_len;
        let piece = take(input, missing);
        self.header[self.header_len..self.header_len + piece.len()].copy_from_slice(piece);
        self.header_len += piece.len();
        if self.header_len < BHS_LEN {
            return Ok(None);
        }
        let bhs = Bhs::new(&self.header);
        let length = bhs.data_segment_length() as usize;
        let why = if bhs.total_ahs_length() != 0 {
            Some("the PDU has additional header segments")
        } else if length > MAX_DATA {
            Some("the data segment is longer than 8192 bytes")
        } else {
            None
        };
        if let Some(why) = why {
            return Err(Unframable { header: self.header, why });
        }
        let missing = padded(length) - self.data.len();
        self.data.extend_from_slice(take(input, missing));
        if self.data.len() < padded(length) {
            return Ok(None);
        }
        self.taken = true;
        Ok(Some(Frame { header: self.header, data: &self.data[..length] }))
    }
}

fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (piece, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    piece
}
