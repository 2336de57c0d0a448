//! A CDB of up to 32 bytes, and its fields by place.

/// The opcode of CDBs that say their own length (SPC-4 4.2.3).
pub(crate) const VARIABLE_LENGTH: u8 = 0x7F;

/// A command descriptor block, filled with zeroes behind its end.
#[derive(Clone, Copy)]
pub(crate) struct Cdb(pub [u8; 32]);

impl Cdb {
    /// The first 32 bytes of what came.
    #[inline]
    pub fn new(bytes: &[u8]) -> Cdb {
        let mut cdb = [0; 32];
        if let Ok(usual) = <&[u8; 16]>::try_from(bytes) {
            cdb[..16].copy_from_slice(usual);
        } else {
            let length = bytes.len().min(32);
            cdb[..length].copy_from_slice(&bytes[..length]);
        }
        Cdb(cdb)
    }

    /// Its bytes as two big-endian numbers.
    #[inline]
    pub fn halves(&self) -> [u128; 2] {
        let (first, second) = self.0.split_at(16);
        [first, second].map(|half| half.try_into().map_or(0, u128::from_be_bytes))
    }

    #[inline]
    pub fn opcode(&self) -> u8 {
        self.0[0]
    }

    /// A byte; `at` is below 32.
    #[inline]
    pub fn byte(&self, at: usize) -> u8 {
        self.0[at]
    }

    /// A single bit.
    #[inline]
    pub fn bit(&self, at: usize, bit: u8) -> bool {
        self.0[at] >> bit & 1 != 0
    }

    #[inline]
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.0[at], self.0[at + 1]])
    }

    #[inline]
    pub fn u24(&self, at: usize) -> u32 {
        u32::from_be_bytes([0, self.0[at], self.0[at + 1], self.0[at + 2]])
    }

    #[inline]
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    #[inline]
    pub fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) << 32 | u64::from(self.u32(at + 4))
    }

    /// The SERVICE ACTION of opcodes that have one: in byte 1, or in bytes 8 and 9 where the length varies.
    #[inline]
    pub fn service_action(&self) -> u16 {
        if self.0[0] == VARIABLE_LENGTH { self.u16(8) } else { u16::from(self.0[1] & 0x1F) }
    }
}
