//! The arena: one mapping per core, cut into pieces that can be registered with a ring, and into buffers.
// INTERFACE SKETCH: signatures are fixed, bodies are to be written.

/// Bytes in front of every buffer's payload: a header can be put right before a payload that stays page-aligned.
pub const HEADROOM: usize = 4096;

/// Sizes of buffers, without the headroom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// 4 KiB: one small command.
    Small,
    /// 64 KiB: staging of received bytes, middle transfers.
    Medium,
    /// 256 KiB: one burst of a large transfer.
    Large,
}
impl Class {
    /// Payload bytes of a buffer of this class.
    pub const fn bytes(self) -> usize { match self { Class::Small => 4096, Class::Medium => 65536, Class::Large => 262_144 } }
    /// The smallest class that holds `bytes`; `Large` when none does.
    pub const fn fitting(bytes: usize) -> Class { if bytes <= 4096 { Class::Small } else if bytes <= 65536 { Class::Medium } else { Class::Large } }
}

/// How many buffers of each class.
#[derive(Clone, Copy, Debug)]
pub struct ArenaConfig { pub small: u32, pub medium: u32, pub large: u32 }

/// Owns the mapping of one core. Huge pages are asked for with madvise, never needed.
pub struct Arena { /* .. */ }
impl Arena {
    /// Maps the memory. Errors name the number of bytes.
    pub fn new(config: ArenaConfig) -> std::io::Result<Arena> { todo!() }
    /// Pieces of at most 1 GiB (pointer, length) to register as fixed buffers, index = position.
    pub fn pieces(&self) -> &[Piece] { todo!() }
    pub fn pool(&self) -> Pool { todo!() }
}
/// One registrable piece of an arena.
#[derive(Clone, Copy, Debug)]
pub struct Piece { pub address: *mut u8, pub length: usize }

/// Hands out buffers; cheap to clone (Rc); not Send. The mapping lives as long as any Pool or Buffer.
#[derive(Clone)]
pub struct Pool { /* Rc<..> */ }
impl Pool {
    /// A buffer of exactly this class, or None. Content is unspecified (old bytes): never send what you did not write.
    pub fn take(&self, class: Class) -> Option<Buffer> { todo!() }
    pub fn available(&self, class: Class) -> u32 { todo!() }
    pub fn capacity(&self, class: Class) -> u32 { todo!() }
}

/// A move-only piece of registered memory; dropping it gives it back to its pool. Deref to the payload [u8]
/// (length = class bytes, 4096-aligned). Not Clone, not Send.
pub struct Buffer { /* Rc pool + index */ }
impl Buffer {
    pub fn class(&self) -> Class { todo!() }
    /// Headroom and payload as one slice: payload starts at HEADROOM.
    pub fn with_headroom(&mut self) -> &mut [u8] { todo!() }
    /// Index of the registered piece that it lies in (meaningful once the arena is registered).
    pub fn piece(&self) -> u16 { todo!() }
    pub fn as_mut_ptr(&mut self) -> *mut u8 { todo!() }
}
