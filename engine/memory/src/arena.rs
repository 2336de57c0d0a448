//! The arena: one mapping per core, cut into pieces that can be registered with a ring, and into buffers.

use crate::mapping::{Mapping, PAGE};
use std::{cell::RefCell, fmt, io, ops, ptr::NonNull, rc::Rc};

/// Bytes in front of every buffer's payload: a header can be put right before a payload that stays page-aligned.
pub const HEADROOM: usize = 4096;

/// Largest piece that a ring can register as one fixed buffer.
const PIECE: usize = 1 << 30;

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
    /// All classes, the smallest first.
    pub const ALL: [Class; 3] = [Class::Small, Class::Medium, Class::Large];

    /// Payload bytes of a buffer of this class.
    pub const fn bytes(self) -> usize {
        match self {
            Class::Small => 4096,
            Class::Medium => 65536,
            Class::Large => 262_144,
        }
    }

    /// The smallest class that holds `bytes`; `Large` when none does.
    pub const fn fitting(bytes: usize) -> Class {
        if bytes <= Class::Small.bytes() {
            Class::Small
        } else if bytes <= Class::Medium.bytes() {
            Class::Medium
        } else {
            Class::Large
        }
    }

    /// Bytes of memory that a buffer of this class takes, with its headroom.
    pub const fn stride(self) -> usize {
        HEADROOM + self.bytes()
    }

    /// Buffers in a full piece. A piece holds one class only, so that a buffer's place is a division away.
    const fn per_piece(self) -> u32 {
        (PIECE / self.stride()) as u32
    }
}

const _: () = assert!(HEADROOM.is_multiple_of(PAGE));
const _: () = assert!(Class::Small.bytes().is_multiple_of(PAGE) && Class::Medium.bytes().is_multiple_of(PAGE));

/// How many buffers of each class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaConfig {
    /// Buffers of [`Class::Small`].
    pub small: u32,
    /// Buffers of [`Class::Medium`].
    pub medium: u32,
    /// Buffers of [`Class::Large`].
    pub large: u32,
}

impl ArenaConfig {
    /// Buffers of a class.
    pub const fn count(&self, class: Class) -> u32 {
        match class {
            Class::Small => self.small,
            Class::Medium => self.medium,
            Class::Large => self.large,
        }
    }

    /// Bytes that an arena of this size maps (before rounding to pages).
    pub fn bytes(&self) -> u64 {
        Class::ALL.iter().map(|class| u64::from(self.count(*class)) * class.stride() as u64).sum()
    }
}

/// One registrable piece of an arena.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// First byte.
    pub address: *mut u8,
    /// Bytes; at most 1 GiB.
    pub length: usize,
}

/// Owns the mapping of one core. Huge pages are asked for with madvise, never needed.
pub struct Arena {
    pool: Pool,
}

impl Arena {
    /// Maps the memory. Pages are allocated by the kernel when first touched, or when registered.
    ///
    /// # Errors
    /// What mmap says; the message names the number of bytes.
    pub fn new(config: ArenaConfig) -> io::Result<Arena> {
        let bytes = usize::try_from(config.bytes()).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mapping = Mapping::new(bytes)?;
        let mut pieces = Vec::new();
        let mut offset = 0;
        let shelves = Class::ALL.map(|class| {
            let count = config.count(class);
            let free = Vec::with_capacity(count as usize);
            let shelf = Shelf { offset, first_piece: pieces.len(), count, fresh: 0, free, reserved: 0 };
            let mut left = count;
            while left > 0 {
                let now = left.min(class.per_piece());
                let length = now as usize * class.stride();
                // SAFETY: offset < bytes, the length of the mapping.
                let address = unsafe { mapping.address().as_ptr().add(offset) };
                pieces.push(Piece { address, length });
                offset += length;
                left -= now;
            }
            shelf
        });
        assert_eq!(offset, bytes);
        if pieces.len() > usize::from(u16::MAX) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{bytes} bytes are too many pieces")));
        }
        Ok(Arena { pool: Pool(Rc::new(Inner { mapping, pieces, shelves: RefCell::new(shelves) })) })
    }

    /// Pieces of at most 1 GiB to register as fixed buffers, index = position. See [`Buffer::piece`].
    pub fn pieces(&self) -> &[Piece] {
        self.pool.pieces()
    }

    /// A handle to take buffers from.
    pub fn pool(&self) -> Pool {
        self.pool.clone()
    }
}

/// Buffers of one class: a range of the mapping, the free ones, and how many were ever taken.
struct Shelf {
    /// Of the first buffer, from the start of the mapping.
    offset: usize,
    first_piece: usize,
    count: u32,
    /// Buffers from here on were never taken; their pages are not there yet.
    fresh: u32,
    /// Given back; the last one is taken first. Has room for all.
    free: Vec<u32>,
    /// So many stay for [`Pool::take_reserved`].
    reserved: u32,
}

impl Shelf {
    fn left(&self) -> u32 {
        self.count - self.fresh + self.free.len() as u32
    }
}

struct Inner {
    mapping: Mapping,
    pieces: Vec<Piece>,
    shelves: RefCell<[Shelf; 3]>,
}

/// Hands out buffers; cheap to clone; not `Send`. The mapping lives as long as any Arena, Pool or Buffer of it.
#[derive(Clone)]
pub struct Pool(Rc<Inner>);

impl Pool {
    /// A buffer of exactly this class, or None when all are out. Its content is unspecified (old bytes): never send
    /// what you did not write.
    pub fn take(&self, class: Class) -> Option<Buffer> {
        if self.available(class) == 0 { None } else { self.take_reserved(class) }
    }

    /// Sets how many buffers of a class only [`take_reserved`](Pool::take_reserved) gets from now on: those that its
    /// caller lent out and needs back, whatever else is in short supply.
    pub fn set_reserved(&self, class: Class, count: u32) {
        self.0.shelves.borrow_mut()[class as usize].reserved = count;
    }

    /// As [`take`](Pool::take), from the reserve too. For whom the reserve is.
    pub fn take_reserved(&self, class: Class) -> Option<Buffer> {
        let mut shelves = self.0.shelves.borrow_mut();
        let shelf = &mut shelves[class as usize];
        let index = match shelf.free.pop() {
            Some(index) => index,
            None if shelf.fresh < shelf.count => {
                shelf.fresh += 1;
                shelf.fresh - 1
            }
            None => return None,
        };
        let offset = shelf.offset + index as usize * class.stride() + HEADROOM;
        // SAFETY: the shelf's buffers are a range of the mapping, and index < count: the payload is inside it.
        let payload = unsafe { self.0.mapping.address().add(offset) };
        // No more pieces than a u16 counts: see `Arena::new`.
        let piece = (shelf.first_piece + (index / class.per_piece()) as usize) as u16;
        Some(Buffer { pool: self.clone(), payload, index, piece, class })
    }

    /// Buffers of a class that can be taken now, without the reserve.
    pub fn available(&self, class: Class) -> u32 {
        let shelves = self.0.shelves.borrow();
        let shelf = &shelves[class as usize];
        shelf.left().saturating_sub(shelf.reserved)
    }

    /// Buffers of a class, taken or not.
    pub fn capacity(&self, class: Class) -> u32 {
        self.0.shelves.borrow()[class as usize].count
    }

    /// The arena's pieces: see [`Arena::pieces`].
    pub fn pieces(&self) -> &[Piece] {
        &self.0.pieces
    }

    /// Keeps the mapping for the rest of the process's life. For memory that the kernel may still write to when its
    /// owner has to go.
    pub fn leak(self) {
        std::mem::forget(self);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for class in Class::ALL {
            map.entry(&class, &format_args!("{} of {}", self.available(class), self.capacity(class)));
        }
        map.finish()
    }
}

/// A move-only piece of registrable memory; dropping it gives it back to its pool.
///
/// Dereferences to its payload: `class().bytes()` bytes at a page-aligned address, with [`HEADROOM`] bytes of the same
/// buffer in front of them. The content of a new one is unspecified. Not `Clone`, not `Send`.
pub struct Buffer {
    pool: Pool,
    payload: NonNull<u8>,
    index: u32,
    piece: u16,
    class: Class,
}

impl Buffer {
    /// Its size.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Headroom and payload as one slice: the payload starts at [`HEADROOM`].
    pub fn with_headroom(&mut self) -> &mut [u8] {
        // SAFETY: HEADROOM bytes in front of the payload are this buffer's own; see `deref_mut` for the rest.
        unsafe { std::slice::from_raw_parts_mut(self.payload.as_ptr().sub(HEADROOM), self.class.stride()) }
    }

    /// What lies in front of the payload.
    pub fn headroom(&self) -> &[u8] {
        // SAFETY: as in `with_headroom`; what is there is initialised, as in `deref`.
        unsafe { std::slice::from_raw_parts(self.payload.as_ptr().sub(HEADROOM), HEADROOM) }
    }

    /// Position of its piece in [`Arena::pieces`], which is the index of the fixed buffer once they are registered.
    pub fn piece(&self) -> u16 {
        self.piece
    }

    /// First byte of the payload.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.payload.as_ptr()
    }

    /// First byte of the payload, to read from.
    pub fn as_ptr(&self) -> *const u8 {
        self.payload.as_ptr()
    }

    /// Comes from this pool (so that it lies in the pieces of the pool's arena).
    pub fn is_of(&self, pool: &Pool) -> bool {
        Rc::ptr_eq(&self.pool.0, &pool.0)
    }
}

impl ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the payload is class.bytes() bytes of the mapping, which lives as long as `self.pool`; no other
        // Buffer has this index, so nobody else reaches them; mapped memory is initialised (zeroes).
        unsafe { std::slice::from_raw_parts(self.payload.as_ptr(), self.class.bytes()) }
    }
}

impl ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.payload.as_ptr(), self.class.bytes()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut shelves = self.pool.0.shelves.borrow_mut();
        let shelf = &mut shelves[self.class as usize];
        assert!(self.index < shelf.fresh && shelf.free.len() < shelf.fresh as usize, "a buffer came home twice");
        shelf.free.push(self.index);
    }
}

impl fmt::Debug for Buffer {
    /// Its place, never its content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({:?} {})", self.class, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(small: u32, medium: u32, large: u32) -> Pool {
        Arena::new(ArenaConfig { small, medium, large }).unwrap().pool()
    }

    #[test]
    fn an_empty_pool_gives_none_until_a_buffer_comes_home() {
        let pool = pool(2, 1, 0);
        assert!(pool.take(Class::Large).is_none());
        let first = pool.take(Class::Small).unwrap();
        let _second = pool.take(Class::Small).unwrap();
        assert!(pool.take(Class::Small).is_none());
        assert_eq!((pool.available(Class::Small), pool.available(Class::Medium)), (0, 1));
        let address = first.as_ptr();
        drop(first);
        assert_eq!(pool.available(Class::Small), 1);
        assert_eq!(pool.take(Class::Small).unwrap().as_ptr(), address);
    }

    #[test]
    fn what_is_reserved_is_left_for_whom_it_is() {
        let pool = pool(0, 3, 0);
        pool.set_reserved(Class::Medium, 2);
        assert_eq!(pool.available(Class::Medium), 1);
        let _first = pool.take(Class::Medium).unwrap();
        assert!(pool.take(Class::Medium).is_none());
        let second = pool.take_reserved(Class::Medium).unwrap();
        let _third = pool.take_reserved(Class::Medium).unwrap();
        assert!(pool.take_reserved(Class::Medium).is_none());
        drop(second);
        assert!(pool.take(Class::Medium).is_none(), "it came home to the reserve");
        pool.set_reserved(Class::Medium, 0);
        assert!(pool.take(Class::Medium).is_some());
    }

    #[test]
    fn a_buffer_outlives_its_arena_and_pool() {
        let arena = Arena::new(ArenaConfig { small: 0, medium: 1, large: 0 }).unwrap();
        let mut buffer = arena.pool().take(Class::Medium).unwrap();
        drop(arena);
        buffer.fill(7);
        assert!(buffer.iter().all(|byte| *byte == 7));
    }

    #[test]
    fn the_smallest_class_that_fits() {
        for (bytes, class) in [
            (0, Class::Small),
            (4096, Class::Small),
            (4097, Class::Medium),
            (65536, Class::Medium),
            (65537, Class::Large),
            (usize::MAX, Class::Large),
        ] {
            assert_eq!(Class::fitting(bytes), class);
        }
    }

    #[test]
    fn pieces_are_at_most_a_gibibyte_and_hold_whole_buffers() {
        // A little more than one piece of address space; none of it is touched.
        let arena = Arena::new(ArenaConfig { small: 3, medium: 0, large: 4_100 }).unwrap();
        assert!(arena.pieces().iter().all(|piece| piece.length <= 1 << 30));
        assert_eq!(arena.pieces().len(), 1 + 4_100usize.div_ceil(Class::Large.per_piece() as usize));
        let pool = arena.pool();
        let buffers: Vec<Buffer> = std::iter::from_fn(|| pool.take(Class::Large)).collect();
        assert_eq!(buffers.len(), 4_100);
        for buffer in &buffers {
            let piece = arena.pieces()[usize::from(buffer.piece())];
            let start = buffer.as_ptr() as usize - HEADROOM;
            assert!(start >= piece.address as usize);
            assert!(start + Class::Large.stride() <= piece.address as usize + piece.length);
        }
        assert!(buffers[0].is_of(&pool));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn buffers_do_not_overlap_and_keep_their_bytes(steps in prop::collection::vec((0usize..3, any::<bool>(), any::<u8>()), 1..60)) {
            let pool = pool(4, 3, 2);
            let mut held: Vec<(Buffer, u8)> = Vec::new();
            for (class, take, seed) in steps {
                if take {
                    let class = Class::ALL[class];
                    let free = pool.available(class);
                    match pool.take(class) {
                        Some(mut buffer) => {
                            prop_assert_eq!(buffer.as_ptr() as usize % 4096, 0);
                            prop_assert_eq!(buffer.len(), class.bytes());
                            prop_assert_eq!(buffer.with_headroom().len(), class.bytes() + HEADROOM);
                            buffer.with_headroom().fill(seed);
                            held.push((buffer, seed));
                        }
                        None => prop_assert_eq!(free, 0),
                    }
                } else if !held.is_empty() {
                    let at = usize::from(seed) % held.len();
                    held.swap_remove(at);
                }
                for (buffer, seed) in &mut held {
                    prop_assert!(buffer.with_headroom().iter().all(|byte| byte == seed));
                }
                let out: u32 = Class::ALL.iter().map(|class| pool.capacity(*class) - pool.available(*class)).sum();
                prop_assert_eq!(out as usize, held.len());
            }
        }
    }
}
