//! Header and data digests: CRC32C (RFC 7143 13.1).
//!
//! The digest of the header is over basic and additional header segments; that of the data over data and padding.
//! On the wire it is little endian ([`to_wire`]), as the byte examples of RFC 3720 B.4 have it.

use crate::DIGEST_LEN;
use crc_fast::CrcAlgorithm;

/// CRC32C of `bytes`: 0 for none.
#[inline]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
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
    const INITIAL: u32 = !0;

    /// Nothing seen yet.
    #[inline]
    pub const fn new() -> Crc32c {
        Crc32c {
            state: Crc32c::INITIAL,
        }
    }

    /// Takes the next piece, of any length.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        // The first piece is often the only one, and the one-shot function is the faster one.
        if self.state == Crc32c::INITIAL {
            self.state = !crc32c(bytes);
        } else {
            self.advance(bytes);
        }
    }

    fn advance(&mut self, bytes: &[u8]) {
        let mut digest =
            crc_fast::Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(self.state));
        digest.update(bytes);
        self.state = digest.get_state() as u32;
    }

    /// The digest of all pieces so far; more may follow.
    #[inline]
    pub const fn finish(&self) -> u32 {
        !self.state
    }
}
