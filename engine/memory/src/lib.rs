//! Memory of the data path: the arena of a core with its move-only [`Buffer`]s, the [`Region`] behind a RAM
//! volume, the bounded [`Slab`]; and CRC32C by wide vectors, which need unsafe code ([`crc32c_blocks`]).
//!
//! Contract:
//! - A [`Pool`] belongs to one core (it is not `Send`); a [`Buffer`] goes home to its pool when it is dropped.
//! - Nothing is allocated after start: `take` gives `None` when the pool is empty.
//! - [`Pages`] of a file are for the kernel's eyes alone, under a [`Lease`].
//! - A [`Region`] is reached by several cores at once. Its bytes may change under a reader, so they are only
//!   ever copied by raw access here; lent as a slice only while nobody can write ([`Region::hold`]).
#![allow(unsafe_code)] // one of the two homes of unsafe code: see ARCHITECTURE.md

mod ahead;
mod arena;
mod crc32c;
mod digested;
mod mapping;
mod owner;
mod pages;
mod racing;
mod region;
mod sheets;
mod slab;

pub use ahead::{Ahead, fetch, fetch_start};
pub use arena::{Arena, ArenaConfig, Buffer, Class, HEADROOM, Piece, Pool};
pub use crc32c::crc32c_blocks;
pub use pages::{Lease, PageReader, Pages};
pub use region::{Held, Loan, Region, RegionSlice, zeroed_words};
pub use sheets::Sheets;
pub use slab::{Key, Slab};

/// Makes all that this thread has written by [`Region::stream`] visible to other threads before anything that it tells
/// them later.
#[inline]
pub fn settle() {
    racing::settle();
}
