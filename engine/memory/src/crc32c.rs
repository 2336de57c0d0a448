//! CRC32C (RFC 7143 13.1) of blocks of 4 KiB, on processors that multiply vectors of 256 bits without carry but have no AVX-512.
//!
//! Libraries leave these (AMD's Zen 3, Intel's hybrid ones) to vectors of 128 bits, a third as fast (`benches/README.md`).
//! Here the first part of a block is folded by four vectors at a time; meanwhile the CRC32 instruction takes the rest of it,
//! in three chains that don't wait for each other. What a chain has come to is moved over the bytes behind it by a
//! multiplication with a power of x.
//!
//! Of memory that is in no cache, a block of 4 KiB has to be fetched ahead: its parts are too short for the processor to see that they
//! are read in sequence. In one of 64 KiB it sees seven sequences and fetches them side by side, which is faster.

/// Bytes of a block.
pub(crate) const BLOCK: usize = 4096;

pub(crate) use machine::Able;

/// Takes the whole blocks of 4 KiB at the start: the register of the CRC behind them (no complement, least significant bit
/// first), from the one before, and the bytes that are left. All are, where other code is faster or this processor can't.
#[inline]
pub fn crc32c_blocks(register: u32, bytes: &[u8]) -> (u32, &[u8]) {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    if !blocks.is_empty()
        && let Some(able) = Able::if_fastest()
    {
        return (able.crc32c(register, blocks), rest);
    }
    (register, bytes)
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod machine {
    /// No processor is.
    #[derive(Clone, Copy)]
    pub(crate) enum Able {}

    impl Able {
        pub(crate) fn if_fastest() -> Option<Able> {
            None
        }

        pub(crate) fn crc32c_block(self, _: u32, _: &[u8; super::BLOCK], _: Option<usize>) -> u32 {
            match self {}
        }

        pub(super) fn crc32c(self, _: u32, _: &[[u8; super::BLOCK]]) -> u32 {
            match self {}
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod machine {
    use super::BLOCK;
    use crate::ahead::{ALL_CACHES, LINE, SECOND_CACHE, fetch_line};
    use std::arch::x86_64::*;

    /// Bytes of a vector.
    const VECTOR: usize = 32;
    /// Vectors that are folded at a time.
    const LANES: usize = 4;
    /// Words that are taken at a time.
    const CHAINS: usize = 3;
    /// Words that each chain takes while a vector of each lane is folded: as long as that takes, on Zen 3. Some are left for the end.
    const ROUND: usize = 3;
    /// Bytes of a word.
    const WORD: usize = 8;

    /// How a block is read: `ROUNDS` vectors in each lane, and words in chains behind them.
    struct Shape<const BYTES: usize, const ROUNDS: usize, const SIDE_BY_SIDE: bool>;
    /// The vectors of all lanes lie side by side.
    type Short = Shape<BLOCK, SHORT_ROUNDS, true>;
    const SHORT_ROUNDS: usize = 20;
    /// Each lane is a part of the block.
    type Long = Shape<{ LONGER * BLOCK }, { LONGER * SHORT_ROUNDS }, false>;
    const LONGER: usize = 16;

    impl<const BYTES: usize, const ROUNDS: usize, const SIDE_BY_SIDE: bool> Shape<BYTES, ROUNDS, SIDE_BY_SIDE> {
        /// Bytes of all vectors.
        const VECTORS: usize = ROUNDS * LANES * VECTOR;
        /// From a vector to the next one of its lane, and to the one of the next lane.
        const STEP: usize = if SIDE_BY_SIDE { LANES * VECTOR } else { VECTOR };
        const LANE: usize = if SIDE_BY_SIDE { VECTOR } else { ROUNDS * VECTOR };
        /// Words of a chain.
        const CHAIN: usize = (BYTES - Self::VECTORS) / CHAINS / WORD;
        const DIVIDES: () = assert!(Self::VECTORS + CHAINS * Self::CHAIN * WORD == BYTES);
        const IN_TIME: () = assert!((ROUNDS - 1) * ROUND <= Self::CHAIN);
        const STEP_ON: (i64, i64) = over(Self::STEP);
        const LANE_ON: (i64, i64) = over(Self::LANE);
        /// Moves a register over one chain, two and three.
        const CHAINS_ON: [i64; CHAINS] =
            [over_chains(Self::CHAIN), over_chains(2 * Self::CHAIN), over_chains(3 * Self::CHAIN)];

        /// The vector of a lane in this round.
        ///
        /// # Safety
        /// There are so many lanes, and rounds.
        #[inline]
        #[target_feature(enable = "avx2")]
        unsafe fn vector(block: &[u8; BYTES], lane: usize, round: usize) -> __m256i {
            let () = Self::DIVIDES;
            debug_assert!(lane < LANES && round < ROUNDS);
            // SAFETY: so many lanes and rounds lie in a block (`DIVIDES`), and no alignment is asked for.
            unsafe { _mm256_loadu_si256(block.as_ptr().add(lane * Self::LANE + round * Self::STEP).cast()) }
        }

        /// Each chain takes its word at this place.
        ///
        /// # Safety
        /// A chain has so many words.
        #[inline]
        #[target_feature(enable = "sse4.2")]
        unsafe fn take(block: &[u8; BYTES], chains: &mut [u64; CHAINS], place: usize) {
            let () = Self::DIVIDES;
            debug_assert!(place < Self::CHAIN);
            for (chain, register) in chains.iter_mut().enumerate() {
                let at = Self::VECTORS + (chain * Self::CHAIN + place) * WORD;
                // SAFETY: so many chains of so many words lie behind the vectors (`DIVIDES`), and no alignment is asked for.
                let word = unsafe { block.as_ptr().add(at).cast::<u64>().read_unaligned() };
                *register = _mm_crc32_u64(*register, word);
            }
        }

        /// The register behind a block. `fetch` is told each round.
        #[inline]
        #[target_feature(enable = "avx2,vpclmulqdq,pclmulqdq,sse4.2")]
        fn register(register: u32, block: &[u8; BYTES], fetch: impl Fn(usize)) -> u32 {
            let () = Self::IN_TIME;
            // SAFETY: of each lane, the first round.
            let mut folded: [__m256i; LANES] = std::array::from_fn(|lane| unsafe { Self::vector(block, lane, 0) });
            folded[0] = _mm256_xor_si256(folded[0], _mm256_zextsi128_si256(_mm_cvtsi32_si128(register as i32)));
            let mut chains = [0; CHAINS];
            let mut place = 0;
            for round in 1..ROUNDS {
                fetch(round - 1);
                for (lane, vector) in folded.iter_mut().enumerate() {
                    // SAFETY: as many as there are vectors, and less than `ROUNDS`.
                    let next = unsafe { Self::vector(block, lane, round) };
                    *vector = fold(*vector, Self::STEP_ON, next);
                }
                for _ in 0..ROUND {
                    // SAFETY: all rounds together take no more words than there are (`IN_TIME`).
                    unsafe { Self::take(block, &mut chains, place) };
                    place += 1;
                }
            }
            let [first, second, third, fourth] = folded;
            let vector = fold(fold(fold(first, Self::LANE_ON, second), Self::LANE_ON, third), Self::LANE_ON, fourth);
            for place in place..Self::CHAIN {
                // SAFETY: up to its last word.
                unsafe { Self::take(block, &mut chains, place) };
            }
            let moved = _mm_xor_si128(
                multiply(reduce(vector), Self::CHAINS_ON[2]),
                _mm_xor_si128(multiply(chains[0], Self::CHAINS_ON[1]), multiply(chains[1], Self::CHAINS_ON[0])),
            );
            (_mm_crc32_u64(0, _mm_cvtsi128_si64(moved) as u64) ^ chains[2]) as u32
        }
    }

    /// Lines that are fetched ahead in each round, and rounds that do.
    const LINES: usize = 4;
    const FETCHES: usize = BLOCK / LINE / LINES;
    const _: () = assert!(FETCHES * LINES * LINE == BLOCK && FETCHES < SHORT_ROUNDS);

    /// x to the power of `n` modulo the polynomial 0x11edc6f41, least significant bit first.
    const fn power(n: usize) -> i64 {
        let (mut value, mut i) = (1_u32 << 31, 0);
        while i < n {
            value = (value >> 1) ^ (0x82f6_3b78 * (value & 1));
            i += 1;
        }
        value as i64
    }

    /// Moves 128 bits over so many bytes, by its low and its high half. A product of two values with the least significant bit first is one
    /// bit short, and a power fills only half of its 64 bits: hence 31 and -33.
    const fn over(bytes: usize) -> (i64, i64) {
        (power(8 * bytes + 31), power(8 * bytes - 33))
    }

    const HALF_ON: (i64, i64) = over(VECTOR / 2);

    /// Moves a register over so many words.
    const fn over_chains(words: usize) -> i64 {
        power(8 * WORD * words - 33)
    }

    /// The processor can do it.
    #[derive(Clone, Copy)]
    pub(crate) struct Able(());

    impl Able {
        pub(super) fn find() -> Option<Able> {
            let able = is_x86_feature_detected!("vpclmulqdq")
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("pclmulqdq")
                && is_x86_feature_detected!("sse4.2");
            able.then_some(Able(()))
        }

        /// And nothing else is faster.
        #[inline]
        pub(crate) fn if_fastest() -> Option<Able> {
            if is_x86_feature_detected!("avx512vl") { None } else { Able::find() }
        }

        #[inline]
        pub(super) fn crc32c(self, register: u32, blocks: &[[u8; BLOCK]]) -> u32 {
            let (long, short) = blocks.as_chunks();
            // SAFETY: there is an `Able` only where the processor was asked for each of these features.
            unsafe { short_blocks::<SECOND_CACHE>(long_blocks(register, long), short, None) }
        }

        /// The register behind one block. Meanwhile the processor fetches another one, which is used next, into all its caches.
        #[inline]
        pub(crate) fn crc32c_block(self, register: u32, block: &[u8; BLOCK], next: Option<usize>) -> u32 {
            // SAFETY: as above.
            unsafe { short_blocks::<ALL_CACHES>(register, std::slice::from_ref(block), next) }
        }
    }

    #[target_feature(enable = "avx2,vpclmulqdq,pclmulqdq,sse4.2")]
    fn long_blocks(register: u32, blocks: &[[[u8; BLOCK]; LONGER]]) -> u32 {
        blocks.iter().fold(register, |register, block| {
            let block = block.as_flattened().try_into().expect("so long are they");
            Long::register(register, block, |_| ())
        })
    }

    /// With each block, the one behind it is fetched; with the last one, what is at `behind`.
    #[target_feature(enable = "avx2,vpclmulqdq,pclmulqdq,sse4.2")]
    fn short_blocks<const HINT: i32>(mut register: u32, blocks: &[[u8; BLOCK]], behind: Option<usize>) -> u32 {
        for (number, block) in blocks.iter().enumerate() {
            // If there is no next one, it fetches itself, which is in the cache: sooner done than asked.
            let next = blocks.get(number + 1).map(|block| block.as_ptr().addr()).or(behind);
            let fetched = next.unwrap_or(block.as_ptr().addr());
            register = Short::register(register, block, |round| {
                if round < FETCHES {
                    (0..LINES).for_each(|n| fetch_line::<HINT>(fetched.wrapping_add((round * LINES + n) * LINE)));
                }
            });
        }
        register
    }

    /// Moves a vector, and adds the bytes that are where it is moved to.
    #[inline]
    #[target_feature(enable = "avx2,vpclmulqdq")]
    fn fold(vector: __m256i, (low, high): (i64, i64), next: __m256i) -> __m256i {
        let by = _mm256_broadcastsi128_si256(_mm_set_epi64x(high, low));
        let moved = _mm256_xor_si256(
            _mm256_clmulepi64_epi128::<0x00>(vector, by),
            _mm256_clmulepi64_epi128::<0x11>(vector, by),
        );
        _mm256_xor_si256(moved, next)
    }

    /// The register that a vector comes to.
    #[inline]
    #[target_feature(enable = "avx2,pclmulqdq,sse4.2")]
    fn reduce(vector: __m256i) -> u64 {
        let (half, by) = (_mm256_castsi256_si128(vector), _mm_set_epi64x(HALF_ON.1, HALF_ON.0));
        let moved = _mm_xor_si128(_mm_clmulepi64_si128::<0x00>(half, by), _mm_clmulepi64_si128::<0x11>(half, by));
        let half = _mm_xor_si128(moved, _mm256_extracti128_si256::<1>(vector));
        _mm_crc32_u64(_mm_crc32_u64(0, _mm_cvtsi128_si64(half) as u64), _mm_extract_epi64::<1>(half) as u64)
    }

    #[inline]
    #[target_feature(enable = "sse2,pclmulqdq")]
    fn multiply(register: u64, power: i64) -> __m128i {
        _mm_clmulepi64_si128::<0>(_mm_cvtsi64_si128(register as i64), _mm_cvtsi64_si128(power))
    }

    #[cfg(test)]
    mod tests {
        use super::super::tests::reference;
        use super::*;
        use proptest::prelude::*;

        proptest! {
            #![proptest_config(ProptestConfig::with_cases(100))]

            #[test]
            fn blocks_have_the_register_of_their_bytes(
                register: u32,
                blocks in prop_oneof![1..4_usize, 15..18_usize, 31..35_usize],
                seed: u64,
                first in 0..32_usize,
            ) {
                // Also where other code is faster, and from any address.
                let Some(able) = Able::find() else {
                    eprintln!("this processor has no VPCLMULQDQ: nothing was tested");
                    return Ok(());
                };
                let mut random = seed | 1;
                let bytes: Vec<u8> = std::iter::repeat_with(|| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random as u8
                })
                .take(first + blocks * BLOCK)
                .collect();
                let bytes = &bytes[first..];
                let blocks = bytes.as_chunks().0;
                prop_assert_eq!(able.crc32c(register, blocks), reference(register, bytes));
                for next in [None, Some(0), Some(usize::MAX - 100), Some(bytes.as_ptr().addr() + 1)] {
                    let one_by_one = blocks.iter().fold(register, |crc, block| able.crc32c_block(crc, block, next));
                    prop_assert_eq!(one_by_one, reference(register, bytes));
                }
            }

            #[test]
            fn each_bit_counts(register: u32, bit in 0..BLOCK * 8, blocks in prop_oneof![Just(1), Just(LONGER)], which: usize) {
                let Some(able) = Able::find() else { return Ok(()) };
                let mut bytes = vec![[0; BLOCK]; blocks];
                bytes[which % blocks][bit / 8] = 1 << (bit % 8);
                prop_assert_eq!(able.crc32c(register, &bytes), reference(register, bytes.as_flattened()));
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The register bit by bit, from the polynomial 0x11edc6f41 alone.
    pub(crate) fn reference(register: u32, bytes: &[u8]) -> u32 {
        bytes.iter().fold(register, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
        })
    }

    #[test]
    fn what_is_left_is_less_than_a_block_or_all() {
        let bytes = [0x5a; 3 * BLOCK + 100];
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, bytes.len()] {
            let (register, rest) = crc32c_blocks(7, &bytes[..length]);
            if length >= BLOCK && machine::Able::if_fastest().is_some() {
                assert_eq!(rest.len(), length % BLOCK);
                assert_ne!(register, 7);
            } else {
                assert_eq!((register, rest.len()), (7, length));
            }
        }
    }
}
