//! Files and block devices: two ways to open, one data path.

mod device;
mod op;
mod open;
mod pinned;
mod plan;
mod portions;
mod queue;
mod reserve;
mod shared;
mod sysfs;
mod walk;

pub(crate) use device::open_device;
pub(crate) use open::{adopt, open_file};

use crate::Capacity;
use crate::settings::{Kind, OpenError};

use backstore_api::{CopySource, Geometry, StoreError};
use memory::Class;
use pinned::{Pinned, Side};
use queue::FileQueue;
use reactor::Reactor;
use shared::{Presence, Shared};
use std::{io, os::fd::AsFd, sync::Arc};
use walk::Limits;

/// Control half of a file or block device.
pub(crate) struct File {
    shared: Arc<Shared>,
    geometry: Geometry,
    limits: Limits,
    /// Its reads and writes are to be looked for.
    polled: bool,
    /// Pages that are kept in memory.
    pinned: Option<Arc<Pinned>>,
}

impl File {
    /// Keeps up to so many bytes of it in memory, if it goes through the page cache.
    fn pinning(mut self, bytes: u64) -> Result<File, OpenError> {
        let shared = &self.shared;
        if bytes >= pinned::CHUNK && shared.buffered {
            let made = Pinned::new(shared.descriptor.as_fd(), shared.path.clone(), shared.capacity.clone(), bytes);
            let refused = |error| OpenError::system(shared.path.display(), "map it", error, "leave `pinned` out");
            self.pinned = Some(made.map_err(refused)?);
        }
        Ok(self)
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn capacity(&self) -> &Capacity {
        &self.shared.capacity
    }

    /// The size that file or device can have now, and what `kind` asks for. Blocks.
    pub(crate) fn measure(&self, kind: &Kind, block_size: u32) -> Result<u64, OpenError> {
        match kind {
            Kind::File(file) => open::measure(file, &self.shared.descriptor, block_size, self.limits.alignment),
            _ => device::measure(&self.shared.path, &self.shared.descriptor, block_size),
        }
    }

    pub(crate) fn queue<R: Reactor>(&self, reactor: &mut R, token_base: u64, depth: u32) -> io::Result<FileQueue> {
        let (class, count) = self.buffers_per_queue();
        let mut bounce = Vec::with_capacity(count as usize);
        for _ in 0..count {
            bounce.push(reactor.pool().take(class).ok_or_else(|| {
                let path = self.shared.path.display();
                io::Error::new(
                    io::ErrorKind::OutOfMemory,
                    format!("{path}: the pool has too few buffers for the {count} bounce buffers of a queue"),
                )
            })?);
        }
        let descriptor = match self.polled {
            true => reactor.register_polled(&self.shared.descriptor)?,
            false => reactor.register_shared(&self.shared.descriptor)?,
        };
        // Regular files alone, and real ones.
        let source = match self.shared.presence {
            Presence::Name => Some(CopySource {
                descriptor: Arc::clone(&self.shared.descriptor),
                device: rustix::fs::fstat(&*self.shared.descriptor)?.st_dev,
            }),
            Presence::Size | Presence::Always => None,
        };
        Ok(FileQueue::new(
            Arc::clone(&self.shared),
            self.geometry.clone(),
            self.limits,
            descriptor,
            token_base,
            depth,
            bounce,
        )
        .offer(source)
        .pinning(self.pinned.as_ref().map(Side::new)))
    }

    /// One for WRITE SAME and zeroes; more where writes may have to be merged.
    pub(crate) fn buffers_per_queue(&self) -> (Class, u32) {
        (Class::Medium, if self.limits.alignment > 512 { 8 } else { 1 })
    }

    pub(crate) fn state(&self) -> Result<(), StoreError> {
        self.shared.state()
    }

    pub(crate) fn probe(&self) -> Result<(), StoreError> {
        self.shared.probe()
    }

    pub(crate) fn clear_latch(&self) {
        self.shared.clear_latch();
    }

    #[cfg(feature = "broken-durability")]
    pub(crate) fn broken(&self) -> &Broken {
        &self.shared.broken
    }
}

/// Makes a store lie about durability, so that a test can show that it would notice.
#[cfg(feature = "broken-durability")]
#[derive(Debug, Default)]
pub struct Broken {
    /// Durable writes complete as ordinary ones.
    pub ignore_fua: std::sync::atomic::AtomicBool,
    /// Flushes complete without doing anything.
    pub ignore_flush: std::sync::atomic::AtomicBool,
}
