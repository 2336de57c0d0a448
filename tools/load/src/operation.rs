//! One read or write on its way.

use initiator::DataOut;
use std::sync::LazyLock;

/// What goes with a command and comes back with its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operation {
    /// When it was built or due, in nanoseconds of the run's clock.
    pub start: u64,
    /// Its first byte in the logical unit.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
    /// Direction.
    pub write: bool,
}

/// What plain writes carry: bytes that don't compress, repeated without end.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    use rand::{Rng, SeedableRng, rngs::SmallRng};
    let mut bytes = vec![0; PATTERN_LENGTH];
    SmallRng::seed_from_u64(0x7269_6e67_6c75_6e21).fill_bytes(&mut bytes);
    bytes
});

/// As much as the longest data segment, so that most are one piece of it.
const PATTERN_LENGTH: usize = 256 << 10;

impl DataOut for Operation {
    fn append(&self, offset: u32, length: u32, out: &mut Vec<u8>) {
        let mut left = length as usize;
        let mut at = offset as usize % PATTERN_LENGTH;
        while left != 0 {
            let piece = left.min(PATTERN_LENGTH - at);
            out.extend_from_slice(&PATTERN[at..at + piece]);
            left -= piece;
            at = 0;
        }
    }
}
