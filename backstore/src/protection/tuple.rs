//! Tuples of protection information (SBC-3 4.22.2): made, checked, put between blocks and taken out again.
//!
//! They are stored inverted: where nothing was written, zeroes of the file mean a tuple of ones, which is not checked.

use backstore_api::{Checks, Protection, TUPLE, Tag};
use crc_fast::CrcAlgorithm;

const T: usize = TUPLE as usize;

/// CRC of a block (SBC-3 4.22.4).
pub(super) fn guard(block: &[u8]) -> u16 {
    // A CRC of 16 bits.
    crc_fast::checksum(CrcAlgorithm::Crc16T10Dif, block) as u16
}

fn tuple(guard: u16, application: u16, reference: u32) -> [u8; T] {
    let mut tuple = [0; T];
    tuple[..2].copy_from_slice(&guard.to_be_bytes());
    tuple[2..4].copy_from_slice(&application.to_be_bytes());
    tuple[4..].copy_from_slice(&reference.to_be_bytes());
    tuple
}

/// The tuple of a block that came without one. The reference tag of type 3 is nobody's: not all ones with an
/// application tag of zero, so that the guard counts.
pub(super) fn made(kind: Protection, guard: u16, lba: u64) -> [u8; T] {
    let reference = match kind {
        // The lower half.
        Protection::Type1 | Protection::Type2 => lba as u32,
        Protection::Type3 => u32::MAX,
    };
    tuple(guard, 0, reference)
}

/// The tuple of the block that comes so many behind the one whose tuple is given, and holds the same (SBC-3 5.43).
pub(super) fn counted(kind: Protection, given: &[u8; T], behind: u64) -> [u8; T] {
    let mut tuple = *given;
    if kind != Protection::Type3 {
        let reference = u32::from_be_bytes([given[4], given[5], given[6], given[7]]);
        // The tag wraps around.
        tuple[4..].copy_from_slice(&reference.wrapping_add(behind as u32).to_be_bytes());
    }
    tuple
}

/// What is checked when blocks leave without their tuples (RDPROTECT 000b): what the type says by itself.
pub(super) fn inherent(kind: Protection, block_size: u32, lba: u64) -> Checks {
    Checks {
        block_size,
        guard: true,
        application: None,
        // The lower half.
        reference: (kind == Protection::Type1).then_some(lba as u32),
    }
}

/// Tuples of the medium are checked; one of ones says not to (4.22.2.2 to 4.22.2.4, "when reading").
pub(super) fn check_read(
    kind: Protection,
    checks: &Checks,
    nth: u32,
    block: &[u8],
    tuple: &[u8; T],
) -> Result<(), Tag> {
    let escaped = tuple[2..4] == [0xFF; 2] && (kind != Protection::Type3 || tuple[4..] == [0xFF; 4]);
    if escaped { Ok(()) } else { check(checks, nth, block, tuple) }
}

/// Tuples of the initiator are checked.
pub(super) fn check(checks: &Checks, nth: u32, block: &[u8], tuple: &[u8; T]) -> Result<(), Tag> {
    let [g0, g1, a0, a1, r0, r1, r2, r3] = *tuple;
    if checks.guard && u16::from_be_bytes([g0, g1]) != guard(block) {
        return Err(Tag::Guard);
    }
    if let Some((tag, mask)) = checks.application
        && (u16::from_be_bytes([a0, a1]) ^ tag) & mask != 0
    {
        return Err(Tag::Application);
    }
    match checks.reference {
        Some(first) if u32::from_be_bytes([r0, r1, r2, r3]) != first.wrapping_add(nth) => Err(Tag::Reference),
        _ => Ok(()),
    }
}

/// A tuple of the stored, inverted ones.
pub(super) fn stored(tuples: &[u8], nth: usize) -> [u8; T] {
    let mut tuple = [0; T];
    for (to, from) in tuple.iter_mut().zip(&tuples[nth * T..]) {
        *to = !from;
    }
    tuple
}

/// Puts a tuple among the stored ones.
pub(super) fn store(tuples: &mut [u8], nth: usize, tuple: &[u8; T]) {
    for (to, from) in tuples[nth * T..].iter_mut().zip(tuple) {
        *to = !from;
    }
}

/// Takes the tuples out: `bytes` begins with `blocks` blocks and their tuples, and begins with the bare blocks
/// afterwards.
pub(super) fn part(bytes: &mut [u8], blocks: usize, block_size: usize, tuples: &mut [u8]) {
    for nth in 0..blocks {
        let from = nth * (block_size + T);
        let mut tuple = [0; T];
        tuple.copy_from_slice(&bytes[from + block_size..from + block_size + T]);
        store(tuples, nth, &tuple);
        bytes.copy_within(from..from + block_size, nth * block_size);
    }
}

/// The reverse.
pub(super) fn join(bytes: &mut [u8], blocks: usize, block_size: usize, tuples: &[u8]) {
    for nth in (0..blocks).rev() {
        let to = nth * (block_size + T);
        bytes.copy_within(nth * block_size..(nth + 1) * block_size, to);
        bytes[to + block_size..to + block_size + T].copy_from_slice(&stored(tuples, nth));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn guards_are_those_of_the_standard() {
        // SBC-3 4.22.4.3, test cases.
        assert_eq!(guard(&[0; 32]), 0x0000);
        assert_eq!(guard(&[0xFF; 32]), 0xA293);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(guard(&rising), 0x0224);
        let mut two = [0; 32];
        two[..2].fill(0xFF);
        assert_eq!(guard(&two), 0x21B8);
    }

    #[test]
    fn ones_are_not_checked_when_reading() {
        let checks = Checks { block_size: 4, guard: true, application: Some((7, 0xFFFF)), reference: Some(9) };
        let ones = [0xFF; 8];
        for kind in [Protection::Type1, Protection::Type2, Protection::Type3] {
            assert_eq!(check_read(kind, &checks, 0, &[1; 4], &ones), Ok(()));
        }
        let application = tuple(0, 0xFFFF, 3);
        assert_eq!(check_read(Protection::Type1, &checks, 0, &[1; 4], &application), Ok(()));
        assert_eq!(check_read(Protection::Type3, &checks, 0, &[1; 4], &application), Err(Tag::Guard));
        assert_eq!(check(&checks, 0, &[1; 4], &ones), Err(Tag::Guard), "not so when writing");
    }

    #[test]
    fn each_tag_is_checked_by_itself() {
        let block = [5; 512];
        let right = tuple(guard(&block), 0x1234, u32::MAX);
        let all = Checks { block_size: 512, guard: true, application: Some((0x0034, 0x00FF)), reference: Some(9) };
        assert_eq!(check(&Checks { reference: Some(u32::MAX), ..all }, 0, &block, &right), Ok(()));
        assert_eq!(check(&Checks { reference: Some(u32::MAX - 2), ..all }, 2, &block, &right), Ok(()));
        assert_eq!(check(&all, 0, &block, &right), Err(Tag::Reference));
        assert_eq!(check(&Checks { reference: None, ..all }, 0, &block, &right), Ok(()));
        let whole = Some((0x0034, 0xFFFF));
        assert_eq!(check(&Checks { application: whole, ..all }, 0, &block, &right), Err(Tag::Application));
        assert_eq!(check(&all, 0, &[6; 512], &right), Err(Tag::Guard));
        assert_eq!(check(&Checks::none(512), 0, &[6; 512], &right), Ok(()));
    }

    proptest! {
        #[test]
        fn parting_and_joining_are_inverse(blocks in 1usize..9, size in prop_oneof![Just(4usize), Just(512)], seed: u8) {
            let bytes: Vec<u8> = (0..blocks * (size + T)).map(|at| (at as u8).wrapping_mul(7) ^ seed).collect();
            let (mut parted, mut tuples) = (bytes.clone(), vec![0; blocks * T]);
            part(&mut parted, blocks, size, &mut tuples);
            for nth in 0..blocks {
                let from = nth * (size + T);
                prop_assert_eq!(&parted[nth * size..(nth + 1) * size], &bytes[from..from + size]);
                prop_assert_eq!(&stored(&tuples, nth)[..], &bytes[from + size..from + size + T]);
            }
            join(&mut parted, blocks, size, &tuples);
            prop_assert_eq!(parted, bytes);
        }
    }
}
