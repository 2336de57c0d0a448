//! Header and data digests: CRC32C (RFC 7143 13.1).
//!
//! The digest of the header is over basic and additional header segments; that of the data over data and padding.
//! On the wire it is little endian ([`to_wire`]), as the byte examples of RFC 3720 B.4 have it.

use crate::DIGEST_LEN;
use crc_fast::CrcAlgorithm;
use memory::Region;

/// CRC32C of `bytes`: 0 for none.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    let (register, rest) = memory::crc32c_blocks(INITIAL, bytes);
    if rest.len() == bytes.len() {
        // The one-shot function is faster than one that goes on.
        return crc_fast::crc32_iscsi(bytes);
    }
    !go_on(register, rest)
}

/// The register before the first byte: not complemented.
const INITIAL: u32 = !0;

/// The register behind some bytes more.
fn go_on(register: u32, bytes: &[u8]) -> u32 {
    if bytes.is_empty() {
        return register;
    }
    let mut digest = crc_fast::Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(register));
    digest.update(bytes);
    digest.get_state() as u32
}

/// A digest as it is on the wire.
#[inline]
pub const fn to_wire(crc: u32) -> [u8; DIGEST_LEN] {
    crc.to_le_bytes()
}

/// A digest from the wire.
#[inline]
pub const fn from_wire(bytes: [u8; DIGEST_LEN]) -> u32 {
    u32::from_le_bytes(bytes)
}

/// CRC32C over bytes that come in pieces. Four bytes of state, no allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Crc32c {
    /// The register: not complemented.
    state: u32,
}

impl Default for Crc32c {
    fn default() -> Crc32c {
        Crc32c::new()
    }
}

impl Crc32c {
    /// Nothing seen yet.
    #[inline]
    pub const fn new() -> Crc32c {
        Crc32c { state: INITIAL }
    }

    /// Behind bytes whose digest is known.
    #[inline]
    pub const fn behind(digest: u32) -> Crc32c {
        Crc32c { state: !digest }
    }

    /// Takes the next piece, of any length.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        // The first piece is often the only one.
        if self.state == INITIAL {
            self.state = !crc32c(bytes);
            return;
        }
        let (register, rest) = memory::crc32c_blocks(self.state, bytes);
        self.state = go_on(register, rest);
    }

    /// Appends bytes of a region to others, and takes them as they were copied. Meanwhile the processor fetches what is at
    /// `next`, to be appended soon.
    ///
    /// # Panics
    /// If one of them isn't inside its region.
    pub fn append(
        &mut self,
        (region, offset): (&Region, u64),
        length: usize,
        into: &mut Vec<u8>,
        next: Option<(&Region, u64)>,
    ) {
        let (register, rest) = region.append_digested(offset, length, into, self.state, next);
        self.state = register;
        self.update(rest);
    }

    /// The digest of all pieces so far; more may follow.
    #[inline]
    pub const fn finish(&self) -> u32 {
        !self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bit by bit, from the polynomial 0x11edc6f41 alone.
    fn reference(bytes: &[u8]) -> u32 {
        !bytes
            .iter()
            .fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))))
    }

    #[test]
    fn the_examples_of_rfc_3720_b_4_come_out() {
        let mut up = [0; 32];
        up.iter_mut().zip(0..).for_each(|(byte, i)| *byte = i);
        let down: Vec<u8> = up.iter().rev().copied().collect();
        let mut read = [0; 48];
        for (at, byte) in [(0, 0x01), (1, 0xc0), (16, 0x14), (22, 0x04), (27, 0x14), (31, 0x18), (32, 0x28), (40, 0x02)]
        {
            read[at] = byte;
        }
        let examples: [(&[u8], [u8; 4]); 5] = [
            (&[0; 32], [0xaa, 0x36, 0x91, 0x8a]),
            (&[0xff; 32], [0x43, 0xab, 0xa8, 0x62]),
            (&up, [0x4e, 0x79, 0xdd, 0x46]),
            (&down, [0x5c, 0xdb, 0x3f, 0x11]),
            (&read, [0x56, 0x3a, 0x96, 0xd9]),
        ];
        for (bytes, wire) in examples {
            assert_eq!(to_wire(crc32c(bytes)), wire);
            assert_eq!(from_wire(wire), crc32c(bytes));
        }
    }

    #[test]
    fn nothing_has_the_digest_zero() {
        assert_eq!((crc32c(&[]), Crc32c::new().finish()), (0, 0));
    }

    #[test]
    fn pieces_that_begin_or_end_with_whole_blocks_give_it_too() {
        let bytes: Vec<u8> = (0..20_000_u32).map(|n| ((n * n) >> 7) as u8).collect();
        // 4 KiB are what `memory` takes at a time.
        for first in [0, 1, 4095, 4096, 4097, 8192] {
            for second in [0, 1, 4095, 4096, 4099, 8192, 10_000] {
                let (head, tail) = bytes[..first + second].split_at(first);
                let mut crc = Crc32c::new();
                crc.update(head);
                crc.update(tail);
                assert_eq!(crc.finish(), reference(&bytes[..first + second]), "{first} and {second}");
                assert_eq!(crc32c(tail), reference(tail), "{second}");
                let mut behind = Crc32c::behind(crc32c(head));
                behind.update(tail);
                assert_eq!(behind, crc);
            }
        }
    }

    #[test]
    fn what_is_appended_from_a_region_counts_as_a_piece() {
        let bytes: Vec<u8> = (0..20_000_u32).map(|n| ((n * n) >> 7) as u8).collect();
        let region = Region::new(bytes.len() as u64).unwrap();
        region.write(0, &bytes);
        for first in [0, 1, 48] {
            for length in [0, 1, 4095, 4096, 4097, 8192, 16_384, 17_000] {
                for next in [None, Some((&*region, 4096))] {
                    let (mut crc, mut into) = (Crc32c::new(), bytes[..first].to_vec());
                    crc.update(&into);
                    crc.append((&region, 7), length, &mut into, next);
                    assert_eq!(into, [&bytes[..first], &bytes[7..7 + length]].concat());
                    assert_eq!(crc.finish(), reference(&into), "{first} and {length}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn pieces_give_the_digest_of_the_whole(
            bytes in prop::collection::vec(any::<u8>(), 0..5000),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut crc = Crc32c::new();
            let mut start = 0;
            for cut in cuts {
                crc.update(&bytes[start..cut]);
                prop_assert_eq!(crc.finish(), reference(&bytes[..cut]));
                start = cut;
            }
            crc.update(&bytes[start..]);
            prop_assert_eq!(crc.finish(), crc32c(&bytes));
            prop_assert_eq!(crc.finish(), reference(&bytes));
        }
    }
}
