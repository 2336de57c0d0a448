//! Copies over memory that other threads may write to meanwhile. They may mix old and new bytes; they are never
//! undefined.
//!
//! On x86_64 vector and string instructions do it: for the language they are relaxed atomic accesses byte by byte, in an
//! order that nobody promised. Elsewhere (and under Miri) it is relaxed atomic words: all access to shared memory is
//! by aligned words of the same size, since racing atomics of different sizes are undefined too.

#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(crate) use machine::{read, settle, stream, write, zero};
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(crate) use words::{read, settle, write, write as stream, zero};

#[cfg(target_arch = "x86_64")]
#[cfg_attr(miri, allow(dead_code))]
mod machine {
    use std::arch::asm;

    /// Bytes of one round of the vector loop.
    const ROUND: usize = 128;
    /// Shorter writes leave what they wrote in the cache: it may well be read or written again soon.
    const BLOCK: usize = 4096;
    /// Longer reads are faster by the string instruction, which doesn't fetch the lines that it overwrites.
    const LONG: usize = 32 << 10;

    /// Copies from racing memory to memory of our own.
    ///
    /// # Safety
    /// Both ranges of `length` bytes are mapped; `into` is exclusive; they don't overlap.
    #[inline]
    pub(crate) unsafe fn read(mut from: *const u8, mut into: *mut u8, mut length: usize) {
        if (ROUND..=LONG).contains(&length) && is_x86_feature_detected!("avx") {
            let whole = length / ROUND * ROUND;
            // SAFETY: the caller's, for the first `whole` bytes, a positive multiple of the round; AVX is there.
            unsafe {
                vectors(from, into, whole);
                (from, into) = (from.add(whole), into.add(whole));
            }
            length -= whole;
            if length == 0 {
                return;
            }
        }
        // SAFETY: the caller's; the direction flag is clear by the ABI, and the registers are given as changed.
        unsafe {
            asm!("rep movsb", inout("rcx") length => _, inout("rsi") from => _, inout("rdi") into => _,
                options(nostack, preserves_flags));
        }
    }

    /// The vector loop with one kind of store.
    macro_rules! copy_by_vectors {
        ($store:literal, $from:ident, $into:ident, $length:ident) => {
            asm!(
                "2:",
                "vmovdqu ymm0, [{from}]",
                "vmovdqu ymm1, [{from} + 32]",
                "vmovdqu ymm2, [{from} + 64]",
                "vmovdqu ymm3, [{from} + 96]",
                concat!($store, " [{into}], ymm0"),
                concat!($store, " [{into} + 32], ymm1"),
                concat!($store, " [{into} + 64], ymm2"),
                concat!($store, " [{into} + 96], ymm3"),
                "add {from}, 128",
                "add {into}, 128",
                "sub {length}, 128",
                "jnz 2b",
                "vzeroupper",
                from = inout(reg) $from => _,
                into = inout(reg) $into => _,
                length = inout(reg) $length => _,
                // All vector registers of AVX: vzeroupper clears their upper halves.
                out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
                out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
                out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
                options(nostack),
            )
        };
    }

    /// # Safety
    /// As [`read`]; `length` is a multiple of [`ROUND`] and not 0; the processor has AVX.
    #[target_feature(enable = "avx")]
    unsafe fn vectors(from: *const u8, into: *mut u8, length: usize) {
        // SAFETY: the caller's: each round reads and writes the next 128 bytes of ranges of `length` bytes. All
        // registers that change are named; the flags count as changed.
        unsafe { copy_by_vectors!("vmovdqu", from, into, length) }
    }

    /// Copies from memory of our own to racing memory. Other threads may see it only after [`settle`].
    ///
    /// # Safety
    /// Both ranges of `length` bytes are mapped; no reference to `into` exists; they don't overlap.
    #[inline]
    pub(crate) unsafe fn stream(mut from: *const u8, mut into: *mut u8, mut length: usize) {
        // Blocks of a large volume are hardly ever in the cache: they are not fetched to be overwritten. However many they
        // are, the string instruction writes half as many in a second to memory that is in no cache.
        if length >= BLOCK && into.addr().is_multiple_of(32) && is_x86_feature_detected!("avx") {
            let whole = length / ROUND * ROUND;
            // SAFETY: the caller's, for the first `whole` bytes, a positive multiple of the round; AVX is there; the
            // place is aligned.
            unsafe {
                streams(from, into, whole);
                (from, into) = (from.add(whole), into.add(whole));
            }
            length -= whole;
            if length == 0 {
                return;
            }
        }
        // SAFETY: the caller's, for what is left.
        unsafe { read(from, into, length) }
    }

    /// Makes what this thread has streamed visible before anything that it stores later.
    #[inline]
    pub(crate) fn settle() {
        // SAFETY: the instruction has no operands, and is part of every x86_64 processor.
        unsafe { core::arch::x86_64::_mm_sfence() }
    }

    /// Copies from memory of our own to racing memory.
    ///
    /// # Safety
    /// Both ranges of `length` bytes are mapped; no reference to `into` exists; they don't overlap.
    #[inline]
    pub(crate) unsafe fn write(from: *const u8, into: *mut u8, length: usize) {
        // SAFETY: the caller's.
        unsafe { stream(from, into, length) }
        settle();
    }

    /// # Safety
    /// As [`stream`]; `length` is a multiple of [`ROUND`] and not 0; `into` is a multiple of 32; the processor has AVX.
    #[target_feature(enable = "avx")]
    unsafe fn streams(from: *const u8, into: *mut u8, length: usize) {
        // SAFETY: the caller's: each round reads and writes the next 128 bytes of ranges of `length` bytes. All
        // registers that change are named; the flags count as changed.
        unsafe { copy_by_vectors!("vmovntdq", from, into, length) }
    }

    /// Zeroes racing memory.
    ///
    /// # Safety
    /// The `length` bytes are mapped, and no reference to them exists.
    #[inline]
    pub(crate) unsafe fn zero(into: *mut u8, length: usize) {
        // SAFETY: the caller's; the direction flag is clear by the ABI, and the registers are given as changed.
        unsafe {
            asm!("rep stosb", inout("rcx") length => _, inout("rdi") into => _, in("al") 0u8,
                options(nostack, preserves_flags));
        }
    }
}

#[cfg(any(test, miri, not(target_arch = "x86_64")))]
#[cfg_attr(all(target_arch = "x86_64", not(miri)), allow(dead_code))]
mod words {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    const WORD: usize = size_of::<u64>();

    /// Calls `each` with every aligned word that a range touches: the word, which of its bytes belong to the range,
    /// and how many bytes of the range came before.
    ///
    /// # Safety
    /// The words that the range touches are mapped, with no reference to them.
    unsafe fn each_word(
        start: *mut u8,
        length: usize,
        mut each: impl FnMut(&AtomicU64, std::ops::Range<usize>, usize),
    ) {
        let mut done = 0;
        while done < length {
            // SAFETY: done < length.
            let at = unsafe { start.add(done) };
            let skip = at as usize % WORD;
            let count = (WORD - skip).min(length - done);
            // SAFETY: the caller's; rounded down to a multiple of the word, which pages are multiples of.
            let word = unsafe { AtomicU64::from_ptr(at.sub(skip).cast()) };
            each(word, skip..skip + count, done);
            done += count;
        }
    }

    /// Replaces some bytes of a word without touching the others, even if those change meanwhile.
    fn put(word: &AtomicU64, place: std::ops::Range<usize>, bytes: &[u8]) {
        if place.len() == WORD {
            word.store(u64::from_ne_bytes(bytes.try_into().expect("a whole word")), Relaxed);
            return;
        }
        let _ = word.fetch_update(Relaxed, Relaxed, |old| {
            let mut new = old.to_ne_bytes();
            new[place.clone()].copy_from_slice(bytes);
            Some(u64::from_ne_bytes(new))
        });
    }

    /// See the twin in `machine`. Touches whole words of `from`.
    ///
    /// # Safety
    /// As there, and the words around the ends of `from` are mapped.
    pub(crate) unsafe fn read(from: *const u8, into: *mut u8, length: usize) {
        // SAFETY: the caller's.
        unsafe {
            each_word(from.cast_mut(), length, |word, place, done| {
                let bytes = word.load(Relaxed).to_ne_bytes();
                std::ptr::copy_nonoverlapping(bytes[place.clone()].as_ptr(), into.add(done), place.len());
            });
        }
    }

    /// See the twin in `machine`: words are never put off, so a release is enough.
    #[cfg_attr(test, allow(dead_code))]
    pub(crate) fn settle() {
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
    }

    /// See the twin in `machine`. Touches whole words of `into`.
    ///
    /// # Safety
    /// As there, and the words around the ends of `into` are mapped.
    pub(crate) unsafe fn write(from: *const u8, into: *mut u8, length: usize) {
        // SAFETY: the caller's.
        unsafe {
            each_word(into, length, |word, place, done| {
                let bytes = std::slice::from_raw_parts(from.add(done), place.len());
                put(word, place, bytes);
            });
        }
    }

    /// See the twin in `machine`. Touches whole words of `into`.
    ///
    /// # Safety
    /// As there, and the words around the ends of `into` are mapped.
    pub(crate) unsafe fn zero(into: *mut u8, length: usize) {
        // SAFETY: the caller's.
        unsafe {
            each_word(into, length, |word, place, _| {
                let bytes = [0; WORD];
                put(word, place.clone(), &bytes[..place.len()]);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    type Copy = unsafe fn(*const u8, *mut u8, usize);
    type Way = (Copy, Copy, unsafe fn(*mut u8, usize));

    const SIZE: usize = 40_960;

    /// As regions are: whole vectors of it are streamed.
    #[repr(align(32))]
    struct Aligned([u64; SIZE / 8]);

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn both_ways_copy_exactly_the_range(from in 8usize..40, into in prop_oneof![8usize..40, Just(32usize)], length in prop_oneof![0usize..700, 4096usize..33_000, Just(40_000)]) {
            let source: Vec<u8> = (0..SIZE).map(|n| (n * 7 / 3) as u8).collect();
            let ways: Vec<Way> = vec![
                (super::read, super::write, super::zero),
                (super::words::read, super::words::write, super::words::zero),
            ];
            for (read, write, zero) in ways {
                let mut expected = vec![255u8; SIZE];
                expected[into..into + length].copy_from_slice(&source[from..from + length]);
                // Words, so that rounding an end to a word stays inside the allocation.
                let mut words = Aligned([u64::MAX; SIZE / 8]);
                let target = words.0.as_mut_ptr().cast::<u8>();
                // SAFETY: all ranges are inside SIZE bytes, with a word to spare at both ends.
                let seen = unsafe {
                    write(source.as_ptr().add(from), target.add(into), length);
                    std::slice::from_raw_parts(target, SIZE).to_vec()
                };
                prop_assert_eq!(&seen, &expected);
                let mut back = vec![9u8; length];
                // SAFETY: as above.
                unsafe { read(target.add(into), back.as_mut_ptr(), length) };
                prop_assert_eq!(&back[..], &source[from..from + length]);
                // SAFETY: as above.
                let seen = unsafe {
                    zero(target.add(into), length);
                    std::slice::from_raw_parts(target, SIZE).to_vec()
                };
                expected[into..into + length].fill(0);
                prop_assert_eq!(&seen, &expected);
            }
        }
    }
}
