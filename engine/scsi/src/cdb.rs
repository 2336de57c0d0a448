//! A CDB of up to 16 bytes, and its fields by place.

/// A command descriptor block, filled with zeroes behind its end.
#[derive(Clone, Copy)]
pub(crate) struct Cdb(pub [u8; 16]);

impl Cdb {
    /// The first 16 bytes of what came.
    #[inline]
    pub fn new(bytes: &[u8]) -> Cdb {
        let mut cdb = [0; 16];
        if let Some(whole) = bytes.first_chunk::<16>() {
            cdb = *whole;
        } else {
            cdb[..bytes.len()].copy_from_slice(bytes);
        }
        Cdb(cdb)
    }

    #[inline]
    pub fn opcode(&self) -> u8 {
        self.0[0]
    }

    /// A byte; `at` is below 16.
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

    /// The SERVICE ACTION of opcodes that have one in byte 1.
    #[inline]
    pub fn service_action(&self) -> u16 {
        u16::from(self.0[1] & 0x1F)
    }
}
