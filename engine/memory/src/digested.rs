//! Bytes of a region copied behind others, with their CRC32C.
//!
//! A copy waits for memory, also for what was fetched into the second-level cache ([`Ahead`](crate::Ahead)); a digest of
//! what was just copied waits for nothing. So while the processor digests one block it fetches the next one, which is
//! then copied from its first-level cache.

use crate::{Region, crc32c::Able};

/// Bytes that are copied, then digested, at a time.
const BLOCK: usize = crate::crc32c::BLOCK;

impl Region {
    /// Appends `length` bytes from `offset` on, and gives what [`crc32c_blocks`](crate::crc32c_blocks) gives for them: the
    /// register behind the whole blocks at their start, from the one before, and the bytes that are left. Meanwhile the
    /// processor fetches a block at `next`, which is to be appended soon.
    ///
    /// # Panics
    /// If the range, or the place of `next`, isn't inside the region.
    pub fn append_digested<'a>(
        &self,
        offset: u64,
        length: usize,
        into: &'a mut Vec<u8>,
        mut register: u32,
        next: Option<(&Region, u64)>,
    ) -> (u32, &'a [u8]) {
        let from = self.at(offset, length as u64).addr();
        let next = next.map(|(region, offset)| region.as_ptr(offset, 0).addr());
        let mut left = length;
        into.reserve(length);
        if let Some(able) = Able::if_fastest() {
            while left >= BLOCK {
                let (start, done) = (into.len(), length - left);
                self.append_to(offset + done as u64, BLOCK, into);
                left -= BLOCK;
                let follows = if left > 0 { Some(from + done + BLOCK) } else { next };
                let block = into[start..].first_chunk().expect("a block was appended");
                register = able.crc32c_block(register, block, follows);
            }
        }
        let start = into.len();
        // The string instruction takes its time for nothing, too.
        if left > 0 {
            self.append_to(offset + (length - left) as u64, left, into);
        }
        (register, &into[start..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crc32c::tests::reference;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn bytes_and_register_are_those_of_the_region(
            offset in 0..5000_u64,
            length in prop_oneof![
                prop::sample::select(vec![0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 4 * BLOCK]),
                0..4 * BLOCK,
            ],
            held in 0..100_usize,
            register: u32,
            seed: u32,
            next in prop::option::of(0..30_000_u64),
        ) {
            let bytes: Vec<u8> = (0..30_000_u32).map(|n| (n.wrapping_mul(seed | 1) >> 13) as u8).collect();
            let region = Region::new(bytes.len() as u64).unwrap();
            region.write(0, &bytes);
            let expected = &bytes[offset as usize..offset as usize + length];
            let mut into = vec![0x77; held];
            let next = next.map(|at| (&*region, at));
            let (behind, rest) = region.append_digested(offset, length, &mut into, register, next);
            let whole = if Able::if_fastest().is_some() { length / BLOCK * BLOCK } else { 0 };
            prop_assert_eq!(rest, &expected[whole..]);
            prop_assert_eq!(behind, reference(register, &expected[..whole]));
            prop_assert_eq!(&into[..held], &vec![0x77; held]);
            prop_assert_eq!(&into[held..], expected);
        }
    }

    #[test]
    fn the_register_is_that_of_what_was_copied_whoever_writes_meanwhile() {
        let region = Region::new(4 * BLOCK as u64).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0.. {
                    region.stream(0, &[round as u8; 4 * BLOCK]);
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
            for _ in 0..100 {
                let mut into = Vec::new();
                let (register, rest) = region.append_digested(0, 4 * BLOCK, &mut into, !0, Some((&region, 0)));
                let register = reference(register, rest);
                assert_eq!(register, reference(!0, &into));
            }
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn outside_of_the_region_is_nothing_to_append() {
        let region = Region::new(2 * BLOCK as u64).unwrap();
        for (offset, length, next) in [(1, 2 * BLOCK, 0), (u64::MAX, BLOCK, 0), (0, BLOCK, 2 * BLOCK as u64 + 1)] {
            let mut into = Vec::new();
            let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                region.append_digested(offset, length, &mut into, 0, Some((&region, next)));
            }));
            assert!(refused.is_err(), "{length} bytes at {offset}, then {next}");
            assert_eq!(into, []);
        }
        // The end has no bytes, but is a place.
        region.append_digested(2 * BLOCK as u64, 0, &mut Vec::new(), 0, Some((&region, 2 * BLOCK as u64)));
    }
}
