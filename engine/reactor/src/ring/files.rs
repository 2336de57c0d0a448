//! Descriptors of a ring, with generations, and which operations are in flight on each.

use crate::Descriptor;
use memory::{Key, Slab};
use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
};

/// Ends a list of operations.
pub(crate) const NONE: u32 = u32::MAX;

/// What keeps the file open.
pub(crate) enum Holder {
    Own(OwnedFd),
    Shared(Arc<OwnedFd>),
    /// Its reads and writes are looked for: see `polled.rs`.
    Polled(Arc<OwnedFd>),
}

impl Holder {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Holder::Own(fd) => fd.as_fd(),
            Holder::Shared(fd) | Holder::Polled(fd) => fd.as_fd(),
        }
    }

    pub(crate) fn raw(&self) -> RawFd {
        match self {
            Holder::Own(fd) => fd.as_raw_fd(),
            Holder::Shared(fd) | Holder::Polled(fd) => fd.as_raw_fd(),
        }
    }

    /// A store's file that was opened with O_DIRECT.
    fn is_direct(&self) -> bool {
        let Holder::Shared(fd) = self else { return false };
        rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::DIRECT))
    }
}

pub(crate) struct File {
    pub(crate) holder: Holder,
    /// No new operations; goes when the last one has ended.
    pub(crate) closing: bool,
    /// First slot of the list of operations on it, linked through [`Links`].
    pub(crate) first: u32,
    /// The last receive has left nothing in the socket.
    pub(crate) emptied: bool,
    /// It has left something there. Of one that brought nothing neither is known.
    pub(crate) left: bool,
    /// Messages that were sent on it and that the kernel still holds.
    pub(crate) held: u32,
    /// It was given pages, of which nobody says when the peer has them.
    pub(crate) refers: bool,
    /// It ends with a reset.
    pub(crate) resets: bool,
    /// Its reads and writes go past the page cache.
    pub(crate) direct: bool,
}

/// Neighbours of an operation among those on the same file.
#[derive(Clone, Copy)]
pub(crate) struct Links {
    pub(crate) before: u32,
    pub(crate) after: u32,
}

/// The table: position in the slab = position among the registered files.
pub(crate) struct Files {
    slab: Slab<File>,
}

fn key(descriptor: Descriptor) -> Key {
    Key { index: descriptor.slot, generation: descriptor.generation }
}

impl Files {
    pub(crate) fn new(capacity: u32) -> Files {
        Files { slab: Slab::with_capacity(capacity) }
    }

    /// None when the table is full.
    pub(crate) fn insert(&mut self, holder: Holder) -> Result<Descriptor, Holder> {
        let direct = holder.is_direct();
        let file = File {
            holder,
            closing: false,
            first: NONE,
            emptied: false,
            left: false,
            held: 0,
            refers: false,
            resets: false,
            direct,
        };
        let key = self.slab.insert(file).map_err(|file| file.holder)?;
        Ok(Descriptor { slot: key.index, generation: key.generation })
    }

    /// The file, unless it was closed.
    pub(crate) fn open(&mut self, descriptor: Descriptor) -> Option<&mut File> {
        self.slab.get_mut(key(descriptor)).filter(|file| !file.closing)
    }

    /// The file, even while it is closing, unless it is gone.
    pub(crate) fn get(&self, descriptor: Descriptor) -> Option<&File> {
        self.slab.get(key(descriptor))
    }

    /// The file, even while it is closing, unless it is gone.
    pub(crate) fn get_mut(&mut self, descriptor: Descriptor) -> Option<&mut File> {
        self.slab.get_mut(key(descriptor))
    }

    /// The file, even while it is closing.
    pub(crate) fn at_mut(&mut self, slot: u32) -> &mut File {
        self.slab.at_mut(slot).expect("a file outlives the operations on it")
    }

    pub(crate) fn at(&self, slot: u32) -> &File {
        self.slab.at(slot).expect("a file outlives the operations on it")
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        self.slab.len()
    }

    /// Every file that is not gone.
    pub(crate) fn all(&self) -> Vec<Descriptor> {
        self.slab.iter().map(|(key, _)| Descriptor { slot: key.index, generation: key.generation }).collect()
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<File> {
        let key = self.slab.key_at(slot)?;
        self.slab.remove(key)
    }
}
