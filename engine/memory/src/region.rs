//! Memory behind a RAM volume, shared by all cores.
// INTERFACE SKETCH
use std::sync::Arc;

/// Anonymous zeroed mapping, `madvise(MADV_HUGEPAGE)`; pages are allocated on first touch. `Send + Sync`.
/// All access is by raw copies (asm `rep movsb`/vector copies on x86_64, relaxed atomics elsewhere), so that racing
/// initiators get mixed bytes but never undefined behaviour. Out-of-range access panics (assert on every call).
pub struct Region { /* .. */ }
impl Region {
    pub fn new(bytes: u64) -> std::io::Result<Arc<Region>> { todo!() }
    pub fn len(&self) -> u64 { todo!() }
    pub fn read(&self, offset: u64, into: &mut [u8]) { todo!() }
    pub fn write(&self, offset: u64, from: &[u8]) { todo!() }
    /// Zeroes; whole pages inside are given back to the system when `release` is true (MADV_DONTNEED / REMOVE).
    pub fn zero(&self, offset: u64, length: u64, release: bool) { todo!() }
    /// Asks the processor to fetch the first bytes of a block that will be read soon.
    pub fn prefetch(&self, offset: u64, length: usize) { todo!() }
    /// A counted reference to a range, for sends straight from the region.
    pub fn slice(self: &Arc<Self>, offset: u64, length: u32) -> RegionSlice { todo!() }
}
/// A counted range of a region.
#[derive(Clone)]
pub struct RegionSlice { /* Arc<Region>, offset, length */ }
impl RegionSlice {
    pub fn len(&self) -> u32 { todo!() }
    pub fn as_ptr(&self) -> *const u8 { todo!() }
    pub fn copy_to(&self, into: &mut [u8]) { todo!() }
}
