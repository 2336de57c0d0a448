//! A message on its way out: which bytes are next, as the kernel wants to see them.

use crate::{Errno, Message, Part};
use memory::Region;

/// Most pieces of one system call; the rest goes in further rounds.
pub(crate) const PIECES: usize = 256;

/// A message with fewer bytes of regions isn't worth the system calls of splicing.
pub(crate) const SPLICE_WORTH: u64 = 32 << 10;

/// Pieces below this are short. Those of a region that stays in the cache are copied in less time than the references to its few
/// pages are counted, by both ends.
const SHORT: u32 = 16 << 10;

/// From how many bytes on pieces of a region are spliced, if it is from `least` on at all.
pub(crate) fn splice_least(region: &Region, least: u32) -> u32 {
    if region.fits_cache() { least.max(SHORT) } else { least }
}

/// What sendmsg reads; lives in a box because the kernel may look at it as long as the operation runs.
pub(crate) struct Vector {
    header: libc::msghdr,
    pieces: [libc::iovec; PIECES],
}

impl Vector {
    pub(crate) fn new() -> Box<Vector> {
        // SAFETY: both are C structs of integers and pointers, for which all zeroes is a value.
        Box::new(unsafe { std::mem::zeroed() })
    }

    /// One of former operations, or a new one.
    pub(super) fn spare(spare: &mut Vec<Box<Vector>>) -> Box<Vector> {
        spare.pop().unwrap_or_else(Vector::new)
    }

    pub(super) fn set(&mut self, at: usize, address: *const u8, length: usize) {
        self.pieces[at] = libc::iovec { iov_base: address.cast_mut().cast(), iov_len: length };
    }

    /// What names the first `count` pieces.
    pub(super) fn header(&mut self, count: usize) -> &mut libc::msghdr {
        self.header.msg_iov = self.pieces.as_mut_ptr();
        self.header.msg_iovlen = count as _;
        &mut self.header
    }
}

/// A send and how far it is.
pub(crate) struct Sending {
    message: Message,
    /// Next part, and bytes of it that are gone.
    part: usize,
    within: usize,
    sent: u64,
    vector: Option<Box<Vector>>,
    /// The round that is out is to go without a copy.
    pub(crate) zero_copy: bool,
    /// The kernel has refused that.
    pub(crate) plain: bool,
    /// It waits for room in the socket, to be spliced; see `splicing.rs`.
    pub(crate) waited: bool,
    /// Rounds of whose memory the kernel has not let go yet.
    pub(crate) notices: u32,
    /// What it ended with, while the kernel still holds its memory.
    pub(crate) over: Option<Result<u32, Errno>>,
}

/// Pieces of regions in a message.
pub(crate) struct Pages {
    pub bytes: u64,
    pub pieces: u64,
}

/// What to submit next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// All is sent.
    Done,
    /// One contiguous piece.
    One(*const u8, u32),
    /// Several: a header that stays in place until the next round.
    Many(*const libc::msghdr),
}

impl Sending {
    /// # Panics
    /// If a part lies outside of what it names.
    pub(crate) fn new(message: Message) -> Sending {
        for part in &message.parts {
            let (range, length) = match part {
                Part::Bytes(range) => (range, message.bytes.len()),
                Part::Buffer { index, range } => (range, message.buffers[*index as usize].len()),
                // Checked where its address is taken.
                Part::Region { .. } | Part::Pages { .. } => continue,
            };
            assert!(range.start <= range.end && range.end as usize <= length, "a part lies outside of its bytes");
        }
        Sending {
            message,
            part: 0,
            within: 0,
            sent: 0,
            vector: None,
            zero_copy: false,
            plain: false,
            waited: false,
            notices: 0,
            over: None,
        }
    }

    fn piece(&self, part: usize) -> Option<(*const u8, usize)> {
        piece(&self.message, part)
    }

    /// What there is to splice, if that is worth it: its pieces of regions have `least` bytes each, in the mean, and little else
    /// is with them.
    pub(crate) fn worth_splicing(&self, least: u32) -> Option<Pages> {
        let message = &self.message;
        // What lies between regions is copied here, where nobody may look at pages of files.
        if message.regions.is_empty() || !message.buffers.is_empty() || !message.leases.is_empty() {
            return None;
        }
        let (mut bytes, mut pieces, mut rest) = (0, 0, 0);
        for part in &message.parts {
            match part {
                Part::Region { length, .. } => (bytes, pieces) = (bytes + u64::from(*length), pieces + 1),
                Part::Bytes(_) | Part::Buffer { .. } | Part::Pages { .. } => rest += part.length() as u64,
            }
        }
        let least = message.regions.iter().map(|region| splice_least(region, least)).max().unwrap_or(least);
        let worth = bytes >= SPLICE_WORTH && bytes >= u64::from(least) * pieces && rest * 8 <= bytes;
        worth.then_some(Pages { bytes, pieces })
    }

    /// Address and length of what is left, piece by piece, and whether it is a region's, which stays where it is.
    pub(crate) fn rest(&self) -> impl Iterator<Item = (*const u8, usize, bool)> {
        let mut within = self.within;
        (self.part..).map_while(|part| Some((part, self.piece(part)?))).map(move |(part, (address, length))| {
            let within = std::mem::take(&mut within);
            let stays = matches!(self.message.parts.get(part), Some(Part::Region { .. }));
            (address.wrapping_add(within), length - within, stays)
        })
    }

    /// The next round. `spare` are vectors of former sends, to be used again.
    pub(crate) fn next(&mut self, spare: &mut Vec<Box<Vector>>) -> Round {
        let mut first = None;
        let mut count = 0;
        let mut vector = self.vector.take();
        for (address, length, _) in self.rest().filter(|(_, length, _)| *length > 0).take(PIECES) {
            match first {
                None => first = Some((address, length)),
                Some((address, length)) if count == 1 => {
                    let vector = vector.get_or_insert_with(|| Vector::spare(spare));
                    vector.set(0, address, length);
                }
                Some(_) => {}
            }
            if count > 0 {
                vector.as_mut().expect("made with the second piece").set(count, address, length);
            }
            count += 1;
        }
        self.vector = vector;
        match (first, &mut self.vector) {
            (None, _) => Round::Done,
            (Some((address, length)), _) if count == 1 => Round::One(address, length.min(1 << 30) as u32),
            (Some(_), Some(vector)) => Round::Many(vector.header(count)),
            (Some(_), None) => unreachable!("several pieces are in a vector"),
        }
    }

    /// Whether a round is to go without a copy: a piece of it is at least so long. Pages are pinned and acknowledged one by
    /// one, so a long message of short pieces is better copied.
    pub(crate) fn spares_copy(&mut self, round: &Round, least: u32) -> bool {
        let longest = match (round, &self.vector) {
            (Round::One(_, length), _) => *length as usize,
            (Round::Many(_), Some(vector)) => {
                let pieces = vector.pieces.iter().take(vector.header.msg_iovlen);
                pieces.map(|piece| piece.iov_len).max().unwrap_or(0)
            }
            _ => 0,
        };
        self.zero_copy = !self.plain && longest >= least as usize;
        self.zero_copy
    }

    /// Takes note of bytes that the socket took.
    pub(crate) fn advance(&mut self, mut bytes: usize) {
        self.sent += bytes as u64;
        while bytes > 0 {
            let Some((_, length)) = self.piece(self.part) else {
                unreachable!("the kernel sent more than it was given")
            };
            let step = bytes.min(length - self.within);
            bytes -= step;
            self.within += step;
            if self.within == length {
                self.part += 1;
                self.within = 0;
            }
        }
    }

    /// Nothing is left (empty parts don't count).
    pub(crate) fn is_done(&self) -> bool {
        self.rest().all(|(_, length, _)| length == 0)
    }

    /// Bytes sent so far.
    pub(crate) fn sent(&self) -> u32 {
        u32::try_from(self.sent).unwrap_or(u32::MAX)
    }

    /// The message; the vector is kept for others.
    pub(crate) fn finish(self, spare: &mut Vec<Box<Vector>>) -> Message {
        spare.extend(self.vector);
        self.message
    }
}

/// Where a part lies, and its bytes.
fn piece(message: &Message, part: usize) -> Option<(*const u8, usize)> {
    if message.parts.is_empty() {
        return (part == 0).then_some((message.bytes.as_ptr(), message.bytes.len()));
    }
    Some(match message.parts.get(part)? {
        Part::Bytes(range) => {
            let bytes = &message.bytes[range.start as usize..range.end as usize];
            (bytes.as_ptr(), bytes.len())
        }
        Part::Buffer { index, range } => {
            let bytes = &message.buffers[*index as usize][range.start as usize..range.end as usize];
            (bytes.as_ptr(), bytes.len())
        }
        Part::Region { index, length, offset } => {
            (message.regions[*index as usize].as_ptr(*offset, *length), *length as usize)
        }
        Part::Pages { index, length, offset } => {
            (message.leases[*index as usize].as_ptr(*offset, *length), *length as usize)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(round: &Round) -> Vec<u8> {
        // SAFETY: the pointers come from a message that is alive in the test.
        unsafe {
            match round {
                Round::Done => Vec::new(),
                Round::One(address, length) => std::slice::from_raw_parts(*address, *length as usize).to_vec(),
                Round::Many(header) => (0..(**header).msg_iovlen)
                    .flat_map(|at| {
                        let piece = *(**header).msg_iov.add(at);
                        std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len).to_vec()
                    })
                    .collect(),
            }
        }
    }

    #[test]
    fn short_pieces_of_a_region_that_fits_the_cache_are_copied() {
        let spliced = |bytes: u64, piece: u32, pieces: u32| {
            let regions = vec![memory::Region::new(bytes).unwrap()];
            let part = |at| Part::Region { index: 0, length: piece, offset: u64::from(at * piece) };
            let parts = (0..pieces).map(part).collect();
            Sending::new(Message { regions, parts, ..Message::default() }).worth_splicing(4096).is_some()
        };
        assert!(spliced(4 << 20, 4096, 8));
        assert!(!spliced(4 << 20, 4096, 7), "too few bytes");
        assert!(!spliced(4 << 20, 2048, 32), "too short pieces");
        assert!(!spliced(1 << 20, 4096, 32), "in the cache");
        assert!(spliced(1 << 20, 16384, 8));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_byte_is_offered_once_and_in_order(
            lengths in prop::collection::vec((0u32..9, any::<bool>()), 0..600),
            steps in prop::collection::vec(1usize..400, 1..40),
        ) {
            let region = memory::Region::new(8192).unwrap();
            region.write(0, &(0..8192u32).map(|n| (n * 7) as u8).collect::<Vec<u8>>());
            let mut message =
                Message { bytes: (0..=255).collect(), regions: vec![region.clone()], ..Message::default() };
            let mut expected = Vec::new();
            for (at, (length, from_region)) in lengths.iter().enumerate() {
                if *from_region {
                    let slice = region.slice(at as u64, *length);
                    let mut copy = vec![0; *length as usize];
                    region.read(slice.offset(), &mut copy);
                    expected.extend(copy);
                    message.parts.push(Part::Region { index: 0, length: slice.len(), offset: slice.offset() });
                } else {
                    let start = at as u32 % 200;
                    expected.extend_from_slice(&message.bytes[start as usize..(start + length) as usize]);
                    message.parts.push(Part::Bytes(start..start + length));
                }
            }
            if message.parts.is_empty() {
                expected.clone_from(&message.bytes);
            }
            let (mut spare, mut got) = (Vec::new(), Vec::new());
            let mut sending = Sending::new(message);
            let mut steps = steps.into_iter().cycle();
            loop {
                let round = sending.next(&mut spare);
                if round == Round::Done {
                    break;
                }
                let offered = bytes_of(&round);
                let taken = steps.next().unwrap().min(offered.len());
                got.extend_from_slice(&offered[..taken]);
                sending.advance(taken);
            }
            prop_assert!(sending.is_done());
            prop_assert_eq!(sending.sent() as usize, expected.len());
            prop_assert_eq!(got, expected);
            prop_assert_eq!(sending.finish(&mut spare).parts.len(), lengths.len());
            prop_assert!(spare.len() <= 1);
        }
    }
}
