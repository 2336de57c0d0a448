//! What a connection has to send: PDUs are appended while the last message is still on its way.

use memory::{Buffer, Region};
use protocol::Sink;
use reactor::{Message, Part};
use std::{ops::Range, sync::Arc};

/// A message being filled. Headers and small payloads go into its bytes; large payloads are referred to.
#[derive(Default)]
pub struct Outgoing {
    message: Message,
    /// Bytes of `message.bytes` that a part names already.
    covered: usize,
    /// Payload bytes in parts.
    referred: usize,
}

/// A place in an [`Outgoing`] to go back to.
#[derive(Clone, Copy)]
pub struct Mark(usize);

impl Outgoing {
    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.message.bytes.is_empty() && self.message.parts.is_empty()
    }

    /// Bytes waiting to be sent.
    pub fn len(&self) -> usize {
        self.message.bytes.len() + self.referred
    }

    /// The end of the bytes now; [`Outgoing::truncate`] forgets what was put after it.
    pub fn mark(&self) -> Mark {
        Mark(self.message.bytes.len())
    }

    /// Forgets bytes put after the mark. No part may have been added since.
    pub fn truncate(&mut self, mark: Mark) {
        assert!(mark.0 >= self.covered);
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
        let regions = &mut self.message.regions;
        // Nearly always the only one.
        let index = match regions.iter().rposition(|known| Arc::ptr_eq(known, region)) {
            Some(index) => index,
            None => {
                regions.push(region.clone());
                regions.len() - 1
            }
        };
        self.message.parts.push(Part::Region { index: index as u32, length, offset });
    }

    /// Takes what is to be sent; `recycled` is a sent message, whose memory is used again.
    pub fn seal(&mut self, mut recycled: Message) -> Message {
        if !self.message.parts.is_empty() {
            self.cover();
        }
        recycled.clear();
        self.covered = 0;
        self.referred = 0;
        std::mem::replace(&mut self.message, recycled)
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
        let end = self.message.bytes.len();
        if end > self.covered {
            self.message.parts.push(Part::Bytes(self.covered as u32..end as u32));
            self.covered = end;
        }
    }
}

impl Sink for Outgoing {
    fn put(&mut self, bytes: &[u8]) {
        self.message.bytes.extend_from_slice(bytes);
    }

    fn reserve(&mut self, n: usize) -> &mut [u8] {
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
