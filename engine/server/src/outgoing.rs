//! What a connection has to send: PDUs are appended while the last message is still on its way.

use crate::core::Terms;
use memory::{Buffer, Held, Lease, PageReader, Region};
use protocol::Sink;
use reactor::{Message, Part};
use std::{collections::VecDeque, ops::Range, sync::Arc};
use wire::{BHS_LEN, Crc32c, DIGEST_LEN, digest};

/// Data-In PDUs whose data is being fetched by the processor while others are made: two groups of it.
const AHEAD: usize = 8;

/// A message being filled. Headers and small payloads go into its bytes; large payloads are referred to.
#[derive(Default)]
pub struct Outgoing {
    message: Message,
    /// Bytes of `message.bytes` that a part names already.
    covered: usize,
    /// Payload bytes in parts.
    referred: usize,
    /// PDUs at the end whose data is still to be copied.
    late: VecDeque<Late>,
    /// Bytes of them.
    late_bytes: usize,
    /// Digests that are computed when the message is sent.
    due: Vec<Due>,
}

/// A digest over pages of a RAM volume that are sent from where they lie.
struct Due {
    /// Position of the pages in `Message::parts`.
    part: u32,
    /// Of the digest in `Message::bytes`.
    at: u32,
    terms: Terms,
}

/// Regions of one message that can be made to stand still at a time.
const HELD: usize = 4;

/// A Data-In PDU with a digest over data of a RAM volume.
struct Late {
    header: [u8; BHS_LEN + DIGEST_LEN],
    header_length: u8,
    /// Position in `Message::regions`.
    region: u32,
    length: u32,
    offset: u64,
}

impl Late {
    fn bytes(&self) -> usize {
        let length = self.length as usize;
        usize::from(self.header_length) + length + wire::padding(length) + DIGEST_LEN
    }
}

/// A place in an [`Outgoing`] to go back to.
#[derive(Clone, Copy)]
pub struct Mark(usize);

impl Outgoing {
    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.message.bytes.is_empty() && self.message.parts.is_empty() && self.late.is_empty()
    }

    /// Asks the processor to fetch memory that the answers to a few small reads fill.
    #[inline]
    pub fn fetch(&self) {
        memory::fetch_start(&self.message.bytes, 512);
        memory::fetch_start(&self.message.parts, 512);
        memory::fetch_start(&self.message.regions, 8);
    }

    /// Bytes waiting to be sent.
    pub fn len(&self) -> usize {
        self.message.bytes.len() + self.referred + self.late_bytes
    }

    /// The end of the bytes now; [`Outgoing::truncate`] forgets what was put after it.
    pub fn mark(&mut self) -> Mark {
        self.catch_up();
        Mark(self.message.bytes.len())
    }

    /// Forgets bytes put after the mark. No part may have been added since.
    pub fn truncate(&mut self, mark: Mark) {
        assert!(mark.0 >= self.covered && self.late.is_empty());
        self.message.bytes.truncate(mark.0);
    }

    /// Keeps a buffer until the message is sent; gives its index for [`Outgoing::refer`].
    pub fn hold(&mut self, buffer: Buffer) -> u32 {
        self.message.buffers.push(buffer);
        (self.message.buffers.len() - 1) as u32
    }

    /// Bytes of a held buffer.
    pub fn held(&self, index: u32) -> &Buffer {
        &self.message.buffers[index as usize]
    }

    /// Appends a range of a held buffer.
    pub fn refer(&mut self, index: u32, range: Range<u32>) {
        self.cover();
        self.referred += range.len();
        self.message.parts.push(Part::Buffer { index, range });
    }

    /// Appends pages of a RAM volume.
    pub fn region(&mut self, region: &Arc<Region>, offset: u64, length: u32) {
        self.cover();
        self.referred += length as usize;
        let index = self.index(region);
        self.message.parts.push(Part::Region { index, length, offset });
    }

    /// Appends the padding of a data segment.
    #[inline]
    pub fn pad(&mut self, length: u32) {
        let padding = wire::padding(length as usize);
        if padding > 0 {
            self.put(&[0; 3][..padding]);
        }
    }

    /// Keeps a range of a file in memory until the message is sent, if it is there; gives the lease's index for
    /// [`Outgoing::pages`].
    pub fn lease(&mut self, reader: &PageReader, offset: u64, length: u32) -> Option<u32> {
        let leases = &mut self.message.leases;
        let index = leases.iter().rposition(|lease| lease.is_of(reader));
        let index = match index {
            Some(index) => leases[index].holds(offset, length).then_some(index)?,
            None => {
                let lease = Some(reader.lease()).filter(|lease| lease.holds(offset, length))?;
                leases.push(lease);
                leases.len() - 1
            }
        };
        Some(index as u32)
    }

    /// What [`Outgoing::lease`] named.
    pub fn leased(&self, index: u32) -> &Lease {
        &self.message.leases[index as usize]
    }

    /// Appends pages of a file that a lease holds.
    pub fn pages(&mut self, index: u32, offset: u64, length: u32) {
        self.cover();
        self.referred += length as usize;
        self.message.parts.push(Part::Pages { index, length, offset });
    }

    /// Appends a Data-In PDU with a data digest over pages of a RAM volume. They are copied, because they must not change
    /// between digest and send; but a little later: whoever calls it has the processor fetch them meanwhile, into its second-level
    /// cache, and each digest brings what is copied next from there into the first. `header` has its digest, if any.
    pub fn digested(&mut self, header: &[u8], region: &Arc<Region>, offset: u64, length: u32) {
        let region = self.index(region);
        let mut late = Late { header: [0; 52], header_length: header.len() as u8, region, length, offset };
        late.header[..header.len()].copy_from_slice(header);
        self.late_bytes += late.bytes();
        self.late.push_back(late);
        if self.late.len() > AHEAD {
            self.copy_oldest();
        }
    }

    /// Appends a Data-In PDU like that, but doesn't copy the pages: [`seal_lent`](Outgoing::seal_lent) has them stand still.
    pub fn in_place(&mut self, header: &[u8], region: &Arc<Region>, offset: u64, length: u32, terms: Terms) {
        self.put(header);
        self.region(region, offset, length);
        let (bytes, part) = (&mut self.message.bytes, self.message.parts.len() as u32 - 1);
        bytes.extend_from_slice(&[0; 3][..wire::padding(length as usize)]);
        self.due.push(Due { part, at: bytes.len() as u32, terms });
        bytes.extend_from_slice(&[0; DIGEST_LEN]);
    }

    /// Digests are to be computed when this is sent: [`seal_lent`](Outgoing::seal_lent) takes it.
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Position of a region in the message.
    fn index(&mut self, region: &Arc<Region>) -> u32 {
        let regions = &mut self.message.regions;
        // Nearly always the only one.
        let index = regions.iter().rposition(|known| Arc::ptr_eq(known, region)).unwrap_or_else(|| {
            regions.push(region.clone());
            regions.len() - 1
        });
        index as u32
    }

    /// Copies the data that is still to be copied: something comes behind it.
    #[inline]
    fn catch_up(&mut self) {
        while !self.late.is_empty() {
            self.copy_oldest();
        }
    }

    fn copy_oldest(&mut self) {
        let Some(late) = self.late.pop_front() else { return };
        self.late_bytes -= late.bytes();
        let Message { bytes, regions, .. } = &mut self.message;
        bytes.extend_from_slice(&late.header[..usize::from(late.header_length)]);
        let place = |late: &Late| (&*regions[late.region as usize], late.offset);
        let (length, padding) = (late.length as usize, &[0; 3][..wire::padding(late.length as usize)]);
        let mut crc = Crc32c::new();
        crc.append(place(&late), length, bytes, self.late.front().map(place));
        crc.update(padding);
        bytes.extend_from_slice(padding);
        bytes.extend_from_slice(&digest::to_wire(crc.finish()));
    }

    /// Takes what is to be sent; `recycled` is a sent message, whose memory is used again.
    pub fn seal(&mut self, mut recycled: Message) -> Message {
        self.catch_up();
        if !self.message.parts.is_empty() {
            self.cover();
        }
        recycled.clear();
        self.covered = 0;
        self.referred = 0;
        std::mem::replace(&mut self.message, recycled)
    }

    /// Takes what is to be sent, with the digests of pages that are sent from where they lie. `lend` is asked for each of them
    /// whether that may be, and then keeps a loan until the peer has them; others are copied.
    pub(crate) fn seal_lent(&mut self, recycled: Message, mut lend: impl FnMut(Terms, &Held<'_>) -> bool) -> Message {
        let mut message = self.seal(recycled);
        let (bytes, parts, regions) = (&mut message.bytes, &mut message.parts, &message.regions);
        let held: [Option<Held<'_>>; HELD] = std::array::from_fn(|index| regions.get(index)?.hold());
        for Due { part, at, terms } in self.due.drain(..) {
            let part = &mut parts[part as usize];
            let Part::Region { index, length, offset } = *part else { unreachable!("pages under a digest") };
            let region = &regions[index as usize];
            let mut crc = Crc32c::new();
            let held = held.get(index as usize).and_then(Option::as_ref);
            match held.filter(|held| lend(terms, held)) {
                Some(held) => crc.update(held.bytes(offset, length)),
                None => {
                    let start = bytes.len();
                    crc.append((region, offset), length as usize, bytes, None);
                    *part = Part::Bytes(start as u32..bytes.len() as u32);
                }
            }
            crc.update(&[0; 3][..wire::padding(length as usize)]);
            bytes[at as usize..at as usize + DIGEST_LEN].copy_from_slice(&digest::to_wire(crc.finish()));
        }
        drop(held);
        message
    }

    /// Takes a sealed message back that could not be submitted. Nothing may have been put since.
    pub fn unseal(&mut self, message: Message) {
        assert!(self.is_empty());
        self.covered = if message.parts.is_empty() { 0 } else { message.bytes.len() };
        let referred = message.parts.iter().filter(|part| !matches!(part, Part::Bytes(_)));
        self.referred = referred.map(Part::length).sum();
        self.message = message;
    }

    fn cover(&mut self) {
        self.catch_up();
        let end = self.message.bytes.len();
        if end > self.covered {
            self.message.parts.push(Part::Bytes(self.covered as u32..end as u32));
            self.covered = end;
        }
    }
}

impl Sink for Outgoing {
    fn put(&mut self, bytes: &[u8]) {
        self.catch_up();
        self.message.bytes.extend_from_slice(bytes);
    }

    fn reserve(&mut self, n: usize) -> &mut [u8] {
        self.catch_up();
        let start = self.message.bytes.len();
        self.message.bytes.resize(start + n, 0);
        &mut self.message.bytes[start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(message: &Message) -> Vec<u8> {
        if message.parts.is_empty() {
            return message.bytes.clone();
        }
        let mut all = Vec::new();
        for part in &message.parts {
            match part {
                Part::Bytes(r) => all.extend_from_slice(&message.bytes[r.start as usize..r.end as usize]),
                Part::Buffer { index, range } => {
                    all.extend_from_slice(&message.buffers[*index as usize][range.start as usize..range.end as usize]);
                }
                Part::Region { index, length, offset } => {
                    let at = all.len();
                    all.resize(at + *length as usize, 0);
                    message.regions[*index as usize].read(*offset, &mut all[at..]);
                }
                Part::Pages { index, length, offset } => {
                    let at = all.len();
                    all.resize(at + *length as usize, 0);
                    message.leases[*index as usize].read(*offset, &mut all[at..]).unwrap();
                }
            }
        }
        all
    }

    #[test]
    fn parts_keep_the_order_in_which_they_were_put() {
        let region = memory::Region::new(4096).unwrap();
        region.write(0, b"region");
        let mut out = Outgoing::default();
        out.put(b"one ");
        out.region(&region, 0, 6);
        out.put(b" two");
        out.reserve(1)[0] = b'!';
        let length = out.len();
        let message = out.seal(Message::default());
        assert_eq!(flat(&message), b"one region two!");
        assert_eq!(length, flat(&message).len());
        assert!(out.is_empty());
    }

    #[test]
    fn data_under_a_digest_comes_where_it_was_put() {
        let region = memory::Region::new(4096).unwrap();
        region.write(0, b"0123456789");
        for (count, case) in [(1, 1), (2, 2), (3, 3), (4, 4), (AHEAD as u64 + 3, 4)] {
            let mut out = Outgoing::default();
            let mut expected = Vec::new();
            out.put(b"<");
            expected.push(b'<');
            for n in (0..count).map(|n| n % 5) {
                out.digested(b"header", &region, n, 5);
                let data = &b"0123456789"[n as usize..n as usize + 5];
                let padded = [data, &[0; 3]].concat();
                expected.extend([b"header", &padded[..], &digest::to_wire(digest::crc32c(&padded))].concat());
                assert_eq!(out.len(), expected.len());
            }
            match case {
                1 => out.put(b">"),
                2 => out.region(&region, 9, 1),
                3 => out.reserve(1)[0] = b'!',
                _ => {
                    let mark = out.mark();
                    out.put(b"never");
                    out.truncate(mark);
                }
            }
            expected.extend([&b">"[..], b"9", b"!", b""][case - 1]);
            assert_eq!(out.len(), expected.len());
            assert_eq!(flat(&out.seal(Message::default())), expected, "{count}");
            assert!(out.is_empty());
        }
    }

    #[test]
    fn data_under_a_digest_stands_still_once_the_message_is_sealed() {
        let region = memory::Region::new(4096).unwrap();
        let mut out = Outgoing::default();
        out.digested(b"h", &region, 0, 4);
        assert!(!out.is_empty());
        let message = out.seal(Message::default());
        region.write(0, b"late");
        assert_eq!(flat(&message)[1..5], [0; 4]);
    }

    #[test]
    fn pages_under_a_digest_are_lent_or_copied() {
        let (region, other) = (memory::Region::new(4096).unwrap(), memory::Region::new(4096).unwrap());
        other.write(0, b"other");
        // Of this one nobody can be kept from writing.
        std::thread::scope(|scope| scope.spawn(|| other.write(0, b"other")).join().unwrap());
        let pdu = |header: &[u8], data: &[u8]| {
            let padded = [data, &[0; 3]].concat();
            [header, &padded, &digest::to_wire(digest::crc32c(&padded))].concat()
        };
        let terms = |stat_sn| Terms { unit: 0, range: 0..5, stat_sn };
        region.write(0, b"early!!!!!");
        let mut out = Outgoing::default();
        out.put(b"<");
        out.in_place(b"one", &region, 0, 5, terms(1));
        out.in_place(b"two", &other, 0, 5, terms(2));
        out.in_place(b"3rd", &region, 1, 5, terms(3));
        out.put(b">");
        assert!(out.has_due());
        let length = out.len();
        region.write(0, b"late123456");
        let mut loans = Vec::new();
        let message = out.seal_lent(Message::default(), |terms, held| {
            assert!(region.hold().is_none(), "it is held");
            assert_ne!(terms.stat_sn, 2, "it can't be held");
            if terms.stat_sn == 1 {
                loans.push(held.lend());
            }
            terms.stat_sn == 1
        });
        assert!(out.is_empty() && !out.has_due());
        let expected =
            [b"<", &pdu(b"one", b"late1")[..], &pdu(b"two", b"other"), &pdu(b"3rd", b"ate12"), b">"].concat();
        assert_eq!((flat(&message), length), (expected.clone(), expected.len()));
        assert!(!std::thread::scope(|scope| scope.spawn(|| region.may_write()).join().unwrap()), "it is lent");
        // Whoever has lent it could write to it; what was copied doesn't change.
        region.write(0, b"too late!!");
        let mut changed = expected;
        changed[4..9].copy_from_slice(b"too l");
        assert_eq!(flat(&message), changed);
        drop(loans);
        assert!(std::thread::scope(|scope| scope.spawn(|| region.may_write()).join().unwrap()));
    }

    #[test]
    fn a_message_of_bytes_alone_has_no_parts() {
        let mut out = Outgoing::default();
        out.put(b"abc");
        let mark = out.mark();
        out.put(b"def");
        out.truncate(mark);
        let message = out.seal(Message::default());
        assert!(message.parts.is_empty());
        assert_eq!(message.bytes, b"abc");
    }
}
