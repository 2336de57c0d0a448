//! Cuts the byte stream into headers and data segments, and checks their digests.

use crate::event::CloseReason;
use crate::output::Output;
use wire::digest::{Crc32c, crc32c, from_wire, to_wire};
use wire::{BHS_LEN as BHS, DIGEST_LEN, padding};

/// Header, the longest AHS (255 words) and the digest.
const MAX_HEADER: usize = BHS + 255 * 4 + DIGEST_LEN;

/// Collects headers that come in pieces.
pub struct Headers {
    partial: Box<[u8; MAX_HEADER]>,
    have: usize,
}

impl Headers {
    pub fn new() -> Headers {
        Headers { partial: Box::new([0; MAX_HEADER]), have: 0 }
    }

    /// Takes the next basic header out of `input`, with its AHS (which no target sends: it is dropped) and its digest.
    /// `None`: all input is used up.
    #[inline]
    pub fn next(&mut self, input: &mut &[u8], digest: bool) -> Result<Option<[u8; BHS]>, CloseReason> {
        if self.have == 0
            && let Some(header) = input.first_chunk::<BHS>()
        {
            let total = length(header, digest);
            if input.len() >= total {
                let (whole, rest) = input.split_at(total);
                check(whole, digest)?;
                let header = *header;
                *input = rest;
                return Ok(Some(header));
            }
        }
        self.next_in_pieces(input, digest)
    }

    #[cold]
    fn next_in_pieces(&mut self, input: &mut &[u8], digest: bool) -> Result<Option<[u8; BHS]>, CloseReason> {
        if !self.fill(input, BHS) {
            return Ok(None);
        }
        let Some(header) = self.partial.first_chunk::<BHS>().copied() else {
            return Ok(None);
        };
        let total = length(&header, digest);
        if !self.fill(input, total) {
            return Ok(None);
        }
        self.have = 0;
        check(&self.partial[..total], digest)?;
        Ok(Some(header))
    }

    fn fill(&mut self, input: &mut &[u8], want: usize) -> bool {
        let n = want.saturating_sub(self.have).min(input.len());
        self.partial[self.have..self.have + n].copy_from_slice(&input[..n]);
        self.have += n;
        *input = &input[n..];
        self.have >= want
    }
}

/// Header, AHS and digest in bytes.
fn length(header: &[u8; BHS], digest: bool) -> usize {
    wire::Bhs(header).header_len(digest)
}

fn check(whole: &[u8], digest: bool) -> Result<(), CloseReason> {
    if !digest {
        return Ok(());
    }
    let (header, sum) = whole.split_at(whole.len() - 4);
    if to_wire(crc32c(header)) == *sum { Ok(()) } else { Err(CloseReason::HeaderDigest) }
}

/// A data segment on its way in: payload, pad, digest.
pub struct Segment {
    /// Payload bytes that are still to come.
    pub remaining: u32,
    /// Pad and digest bytes that are still to come.
    trailer: u8,
    sum: Option<Crc32c>,
    received_sum: [u8; 4],
}

impl Segment {
    pub fn new(length: u32, digest: bool) -> Segment {
        let pad = padding(length as usize) as u8;
        // A PDU without a data segment has no data digest (RFC 7143 11.2.4).
        let digest = digest && length != 0;
        Segment {
            remaining: length,
            trailer: pad + if digest { 4 } else { 0 },
            sum: digest.then(Crc32c::new),
            received_sum: [0; 4],
        }
    }

    /// Accounts for payload.
    #[inline]
    pub fn payload(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.remaining as usize, "more payload reported than announced");
        self.remaining -= bytes.len() as u32;
        if let Some(sum) = &mut self.sum {
            sum.update(bytes);
        }
    }

    /// Accounts for payload that nobody has read. Only without a data digest.
    pub fn unseen(&mut self, length: u32) {
        assert!(self.sum.is_none(), "a data digest needs every byte");
        assert!(length <= self.remaining, "more payload reported than announced");
        self.remaining -= length;
    }

    /// Takes pad and digest out of `input`; true when the segment is complete and right.
    #[inline]
    pub fn trailer(&mut self, input: &mut &[u8]) -> Result<bool, CloseReason> {
        if self.trailer == 0 {
            return Ok(true);
        }
        self.trailer_bytes(input)
    }

    fn trailer_bytes(&mut self, input: &mut &[u8]) -> Result<bool, CloseReason> {
        while self.trailer > 0 {
            let Some((byte, rest)) = input.split_first() else {
                return Ok(false);
            };
            *input = rest;
            if let Some(sum) = &mut self.sum {
                if self.trailer > 4 {
                    sum.update(&[*byte]); // the digest covers the pad
                } else {
                    self.received_sum[4 - usize::from(self.trailer)] = *byte;
                }
            }
            self.trailer -= 1;
        }
        match self.sum.take() {
            Some(sum) if sum.finish() != from_wire(self.received_sum) => Err(CloseReason::DataDigest),
            _ => Ok(true),
        }
    }
}

/// Appends a PDU: header (lengths as they stand in it), AHS, data, pad, and digests where asked for. Nothing is checked.
pub fn append(
    out: &mut impl Output,
    header: &[u8; BHS],
    ahs: &[u8],
    data: &[u8],
    header_digest: bool,
    data_digest: bool,
) {
    append_header(out, header, ahs, header_digest);
    if !data.is_empty() {
        out.put(data);
        let mut sum = data_digest.then(Crc32c::new);
        if let Some(sum) = &mut sum {
            sum.update(data);
        }
        append_trailer(out, data.len(), sum);
    }
}

/// Appends header, AHS and digest.
#[inline]
pub fn append_header(out: &mut impl Output, header: &[u8; BHS], ahs: &[u8], digest: bool) {
    out.put(header);
    if !ahs.is_empty() {
        out.put(ahs);
    }
    if digest {
        let mut sum = Crc32c::new();
        sum.update(header);
        sum.update(ahs);
        out.put(&to_wire(sum.finish()));
    }
}

/// Appends the pad of a data segment of `length` bytes and its digest; `sum` has seen the bytes.
#[inline]
pub fn append_trailer(out: &mut impl Output, length: usize, sum: Option<Crc32c>) {
    let pad = &[0; 3][..padding(length)];
    if !pad.is_empty() {
        out.put(pad);
    }
    if let Some(mut sum) = sum {
        sum.update(pad);
        out.put(&to_wire(sum.finish()));
    }
}
