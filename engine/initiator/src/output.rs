//! Where a connection puts what is to be sent: into a vector, or, for writes whose data lie somewhere for good, into a
//! list of pieces that is sent without copying them first.

use crate::data_out::DataOut;
use std::io::IoSlice;
use wire::digest::Crc32c;

/// Takes bytes in the order in which they are to be sent.
pub trait Output {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);

    /// Appends exactly `length` bytes of a command's data from `offset`, with zeros for what is missing, and feeds them
    /// to `sum`.
    fn put_data<D: DataOut + ?Sized>(&mut self, data: &D, offset: u32, length: u32, sum: Option<&mut Crc32c>);

    /// Bytes that wait to be sent.
    fn length(&self) -> usize;
}

impl Output for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn put_data<D: DataOut + ?Sized>(&mut self, data: &D, offset: u32, length: u32, sum: Option<&mut Crc32c>) {
        let start = self.len();
        data.append(offset, length, self);
        self.resize(start + length as usize, 0);
        if let Some(sum) = sum {
            sum.update(&self[start..]);
        }
    }

    #[inline]
    fn length(&self) -> usize {
        self.len()
    }
}

/// Bytes of its own, and between them bytes that lie elsewhere ([`DataOut::lasting`]).
#[derive(Default)]
pub struct Gather {
    own: Vec<u8>,
    foreign: Vec<Foreign>,
    /// All bytes, and how many of them have been sent.
    length: usize,
    sent: usize,
}

struct Foreign {
    /// They follow so many of our own bytes.
    behind: usize,
    bytes: &'static [u8],
}

/// With more pieces than these, those that were sent are forgotten before all are.
const LONG: usize = 256;

/// Less than this is copied: a piece of its own costs more.
const WORTH_A_PIECE: usize = 512;

impl Output for Gather {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.own.extend_from_slice(bytes);
        self.length += bytes.len();
    }

    fn put_data<D: DataOut + ?Sized>(&mut self, data: &D, offset: u32, length: u32, mut sum: Option<&mut Crc32c>) {
        let end = offset + length;
        let mut at = offset;
        while at < end {
            let lasting = data.lasting(at, end - at).filter(|bytes| bytes.len() >= WORTH_A_PIECE);
            let Some(bytes) = lasting else {
                let start = self.own.len();
                self.own.put_data(data, at, end - at, sum);
                self.length += self.own.len() - start;
                return;
            };
            let bytes = &bytes[..bytes.len().min((end - at) as usize)];
            if let Some(sum) = sum.as_deref_mut() {
                sum.update(bytes);
            }
            self.foreign.push(Foreign { behind: self.own.len(), bytes });
            self.length += bytes.len();
            at += bytes.len() as u32;
        }
    }

    #[inline]
    fn length(&self) -> usize {
        self.length - self.sent
    }
}

impl Gather {
    /// Nothing, with room for so many bytes of its own.
    pub fn with_capacity(bytes: usize) -> Gather {
        Gather { own: Vec::with_capacity(bytes), ..Gather::default() }
    }

    /// Nothing waits to be sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.length == self.sent
    }

    /// What waits to be sent, if that is one piece.
    #[inline]
    pub fn single(&self) -> Option<&[u8]> {
        if self.foreign.is_empty() { self.own.get(self.sent..) } else { None }
    }

    /// Puts the next pieces that wait to be sent into `slices`, and gives their number.
    pub fn pieces<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut skip, mut count, mut own) = (self.sent, 0, 0);
        let last = Foreign { behind: self.own.len(), bytes: &[] };
        for piece in self.foreign.iter().chain([&last]) {
            for bytes in [&self.own[own..piece.behind], piece.bytes] {
                if skip >= bytes.len() {
                    skip -= bytes.len();
                    continue;
                }
                let Some(slice) = slices.get_mut(count) else {
                    return count;
                };
                *slice = IoSlice::new(&bytes[skip..]);
                skip = 0;
                count += 1;
            }
            own = piece.behind;
        }
        count
    }

    /// So many bytes have been sent.
    ///
    /// # Panics
    /// When that is more than there were.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
        assert!(self.sent <= self.length, "more was sent than there is");
        if self.sent == self.length {
            self.own.clear();
            self.foreign.clear();
            (self.length, self.sent) = (0, 0);
        } else if self.foreign.len() > LONG {
            self.forget_sent();
        }
    }

    /// A peer that is never done reading would else make it grow for ever.
    fn forget_sent(&mut self) {
        let (mut gone, mut own, mut count) = (0, 0, 0);
        for foreign in &self.foreign {
            let end = gone + (foreign.behind - own) + foreign.bytes.len();
            if end > self.sent {
                break;
            }
            (gone, own, count) = (end, foreign.behind, count + 1);
        }
        // Seldom enough that the moving is nothing.
        if count * 2 > self.foreign.len() {
            self.foreign.drain(..count);
            self.own.drain(..own);
            for foreign in &mut self.foreign {
                foreign.behind -= own;
            }
            self.length -= gone;
            self.sent -= gone;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static LASTING: [u8; 2000] = [7; 2000];

    /// Data that lie there for good, in runs of 700 bytes at most.
    struct Runs;

    impl DataOut for Runs {
        fn append(&self, offset: u32, length: u32, out: &mut Vec<u8>) {
            LASTING[..].append(offset, length, out);
        }

        fn lasting(&self, offset: u32, length: u32) -> Option<&'static [u8]> {
            let rest = LASTING.get(offset as usize..).filter(|rest| !rest.is_empty())?;
            Some(&rest[..rest.len().min(700).min(length as usize)])
        }
    }

    fn sum_of(bytes: &[u8]) -> u32 {
        wire::digest::crc32c(bytes)
    }

    #[test]
    fn a_list_of_pieces_says_the_same_as_a_vector() {
        fn fill(out: &mut impl Output) -> u32 {
            let mut sum = Crc32c::new();
            out.put(b"header");
            out.put_data(&Runs, 100, 1900, Some(&mut sum));
            out.put(b"trailer");
            // More than there is: zeros.
            out.put_data(&Runs, 1990, 30, None);
            sum.finish()
        }
        let (mut plain, mut gather) = (Vec::new(), Gather::default());
        assert_eq!(fill(&mut plain), fill(&mut gather));
        assert_eq!(sum_of(&[7; 1900]), fill(&mut Vec::new()));
        assert_eq!(gather.length(), plain.len());
        assert!(gather.single().is_none());
        // Sent in steps that end inside of pieces, with few slices at a time.
        let mut sent = Vec::new();
        while !gather.is_empty() {
            let mut slices = [IoSlice::new(&[]); 2];
            let count = gather.pieces(&mut slices);
            assert!(count > 0 && slices[..count].iter().all(|slice| !slice.is_empty()));
            let together: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            let step = together.len().min(333);
            sent.extend_from_slice(&together[..step]);
            gather.advance(step);
        }
        assert_eq!(sent, plain);
        gather.put(b"again");
        assert_eq!(gather.single(), Some(&b"again"[..]));
    }

    #[test]
    fn what_is_never_all_sent_does_not_grow_for_ever() {
        let (mut expected, mut sent, mut gather) = (Vec::new(), Vec::new(), Gather::default());
        let mut take = |gather: &mut Gather, most: usize| {
            let mut slices = [IoSlice::new(&[]); 64];
            let count = gather.pieces(&mut slices);
            let mut together: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            together.truncate(most);
            gather.advance(together.len());
            sent.extend(together);
        };
        for round in 0..5000u32 {
            let header = round.to_be_bytes();
            expected.put(&header);
            expected.put_data(&Runs, 100, 700, None);
            gather.put(&header);
            gather.put_data(&Runs, 100, 700, None);
            // The peer is always some ten thousand bytes behind.
            if round > 20 {
                take(&mut gather, 704);
            }
            assert!(gather.foreign.len() < 3 * LONG, "{} pieces in round {round}", gather.foreign.len());
        }
        while !gather.is_empty() {
            take(&mut gather, 1000);
        }
        assert!(sent == expected);
    }
}
