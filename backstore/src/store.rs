//! The control half of every store.

use crate::Capacity;
use crate::file::File;
use crate::filter::{self, Armed, Filter};
use crate::null::Null;
use crate::protection::Layout;
use crate::ram::Ram;
use crate::settings::{DEPTH_LIMIT, Kind, OpenError, Settings};
use backstore_api::{BlockQueue, Geometry, StoreError};
use memory::Class;
use reactor::Reactor;
use std::{fmt, io, os::fd::OwnedFd, sync::Arc};

/// An open store: one per volume, shared by all threads.
///
/// Dropping the last reference closes and unlocks it; queues hold one.
pub struct Store {
    medium: Medium,
    /// With protection information: how the medium is divided.
    protected: Option<Layout>,
    depth: u32,
    filters: Vec<Armed>,
}

enum Medium {
    Ram(Ram),
    Null(Null),
    File(File),
}

impl Medium {
    fn geometry(&self) -> &Geometry {
        match self {
            Medium::Ram(ram) => ram.geometry(),
            Medium::Null(null) => null.geometry(),
            Medium::File(file) => file.geometry(),
        }
    }
}

impl Store {
    /// Opens, locks, sizes and probes. Blocks: not for a data core.
    pub fn open(settings: &Settings) -> Result<Arc<Store>, OpenError> {
        let medium =
            match &settings.kind {
                Kind::Ram { bytes, preallocate } => {
                    check_size("ram store", *bytes, settings.block_size)?;
                    Medium::Ram(Ram::new(*bytes, *preallocate).map_err(|error| {
                        let doing = format!("get {bytes} bytes of memory");
                        OpenError::system("ram store", &doing, error, "choose a smaller `size`")
                    })?)
                }
                Kind::Null { bytes } => {
                    check_size("null store", *bytes, settings.block_size)?;
                    Medium::Null(Null::new(*bytes).map_err(|error| {
                        OpenError::system("null store", "map its zeroes", error, "free some memory")
                    })?)
                }
                Kind::File(file) => Medium::File(crate::file::open_file(file, settings.block_size)?),
                Kind::Block(block) => Medium::File(crate::file::open_device(block, settings.block_size)?),
            };
        let protected = settings.protection.map(|kind| {
            let layout = Layout::new(kind, settings.block_size, medium.geometry());
            let cause = "it is too small for a block and its protection information";
            layout.ok_or_else(|| OpenError::new("store", cause, "make it larger"))
        });
        Ok(Arc::new(Store {
            medium,
            protected: protected.transpose()?,
            depth: settings.depth.clamp(1, DEPTH_LIMIT),
            filters: settings.filters.iter().map(filter::arm).collect(),
        }))
    }

    /// A file that is open already: handed over by another process, or one of a simulated world. It is used as
    /// `geometry` says; nothing is looked at, sized or locked. Memory is aligned as offsets are, and an alignment above
    /// 1 means that no page cache is in between. Status answers that all is mapped.
    ///
    /// Errors: an alignment that no buffer can have.
    pub fn adopt(
        descriptor: Arc<OwnedFd>,
        geometry: Geometry,
        depth: u32,
        filters: &[Filter],
    ) -> Result<Arc<Store>, OpenError> {
        Ok(Arc::new(Store {
            medium: Medium::File(crate::file::adopt(descriptor, geometry)?),
            protected: None,
            depth: depth.clamp(1, DEPTH_LIMIT),
            filters: filters.iter().map(filter::arm).collect(),
        }))
    }

    /// Bytes that it serves now.
    pub fn bytes(&self) -> u64 {
        self.protected.as_ref().map_or_else(|| self.capacity().bytes(), |layout| layout.geometry().bytes)
    }

    /// Looks what size it can have now, of file, device and `settings`, which are those that it was opened with but for
    /// the size; what they ask for (length, space) is done. Nothing is served differently before
    /// [`resize`](Store::resize). Blocks: not for a data core.
    ///
    /// Errors: what would refuse such an opening; memory that is to grow; protection information, whose place follows from
    /// the size.
    pub fn measure(&self, settings: &Settings) -> Result<u64, OpenError> {
        if self.protected.is_some() {
            let cause =
                "a medium with protection information keeps its size: the information lies behind its last block";
            return Err(OpenError::new("store", cause, "make another volume of the new size, and copy it"));
        }
        match (&self.medium, &settings.kind) {
            (Medium::File(file), kind) => file.measure(kind, settings.block_size),
            (Medium::Ram(ram), Kind::Ram { bytes, .. }) => {
                check_size("ram store", *bytes, settings.block_size)?;
                ram.measure(*bytes).map(|()| *bytes)
            }
            (_, Kind::Ram { bytes, .. } | Kind::Null { bytes }) => {
                check_size("null store", *bytes, settings.block_size).map(|()| *bytes)
            }
            _ => Ok(self.bytes()),
        }
    }

    /// Serves so many bytes from now on, in all queues: as many as [`measure`](Store::measure) has found, or fewer.
    /// Requests that were submitted go on; later ones beyond the end are refused as out of range.
    pub fn resize(&self, bytes: u64) {
        self.capacity().set(bytes);
    }

    fn capacity(&self) -> &Capacity {
        match &self.medium {
            Medium::Ram(ram) => ram.capacity(),
            Medium::Null(null) => null.capacity(),
            Medium::File(file) => file.capacity(),
        }
    }

    /// What it can do.
    pub fn geometry(&self) -> &Geometry {
        self.protected.as_ref().map_or_else(|| self.medium.geometry(), Layout::geometry)
    }

    /// Makes the data half for the core of this reactor: registers the file there, and takes
    /// [`buffers_per_queue`](Store::buffers_per_queue) from its pool for good. The lower 24 bits of `token_base` must
    /// be 0.
    ///
    /// Errors: no room in the table of registered files; OutOfMemory when the pool has no buffers.
    pub fn queue<R: Reactor + 'static>(
        &self,
        reactor: &mut R,
        token_base: u64,
    ) -> io::Result<Box<dyn BlockQueue<R, reactor::Completion>>> {
        if token_base & 0xff_ffff != 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the lower 24 bits of a token base belong to the queue",
            ));
        }
        let mut queue: Box<dyn BlockQueue<R, reactor::Completion>> = match &self.medium {
            Medium::Ram(ram) => Box::new(ram.queue(token_base, self.depth)),
            Medium::Null(null) => Box::new(null.clone()),
            Medium::File(file) => Box::new(file.queue(reactor, token_base, self.depth)?),
        };
        if let Some(layout) = &self.protected {
            queue = layout.wrap(reactor, queue, self.depth)?;
        }
        for armed in &self.filters {
            queue = armed.wrap(queue, self.depth);
        }
        Ok(queue)
    }

    /// Buffers of each class that each queue keeps for itself (bounce buffers, tuples of protection information), for
    /// the sum that sizes a core's pool.
    pub fn buffers_per_queue(&self) -> [u32; 3] {
        let mut sum = [0; 3];
        let mut add = |(class, count): (Class, u32)| sum[class as usize] += count;
        if let Medium::File(file) = &self.medium {
            add(file.buffers_per_queue());
        }
        if let Some(layout) = &self.protected {
            add(layout.buffers_per_queue());
        }
        sum
    }

    /// Requests in flight per queue at most.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Operations of one queue that may sit on a kernel worker thread at the same time, for
    /// IORING_REGISTER_IOWQ_MAX_WORKERS.
    pub fn blocking_bound(&self) -> u32 {
        match &self.medium {
            Medium::Ram(_) | Medium::Null(_) => 0,
            Medium::File(_) => self.depth,
        }
    }

    /// What every request meets at the moment: `Gone`, `Latched`, or nothing. Never blocks.
    pub fn state(&self) -> Result<(), StoreError> {
        match &self.medium {
            Medium::Ram(_) | Medium::Null(_) => Ok(()),
            Medium::File(file) => file.state(),
        }
    }

    /// Looks whether the file still has a name, or the device is still there; then as [`state`](Store::state).
    /// May block: not for a data core.
    pub fn probe(&self) -> Result<(), StoreError> {
        match &self.medium {
            Medium::Ram(_) | Medium::Null(_) => Ok(()),
            Medium::File(file) => file.probe(),
        }
    }

    /// The operator has dealt with a failed flush: serve again.
    pub fn clear_latch(&self) {
        if let Medium::File(file) = &self.medium {
            file.clear_latch();
        }
    }

    /// Switches of the deliberately broken variants, shared by all queues; `None` for stores that keep nothing.
    #[cfg(feature = "broken-durability")]
    pub fn broken(&self) -> Option<&crate::Broken> {
        match &self.medium {
            Medium::Ram(_) | Medium::Null(_) => None,
            Medium::File(file) => Some(file.broken()),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.medium {
            Medium::Ram(_) => "ram",
            Medium::Null(_) => "null",
            Medium::File(_) => "file",
        };
        f.debug_struct("Store")
            .field("kind", &kind)
            .field("geometry", self.geometry())
            .field("depth", &self.depth)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// A size that SCSI can name: whole blocks, at least one.
pub(crate) fn check_size(place: &str, bytes: u64, block_size: u32) -> Result<(), OpenError> {
    let block = u64::from(block_size.max(1));
    if bytes == 0 || bytes > i64::MAX as u64 {
        let cure = "give a `size` of at least one block";
        return Err(OpenError::new(place, format!("a size of {bytes} bytes can't be served"), cure));
    }
    if !bytes.is_multiple_of(block) {
        let cause = format!("its size of {bytes} bytes is not a multiple of the block size {block}");
        let cure = format!(
            "make it {} or {} bytes, or set `block_size = 512`",
            bytes / block * block,
            bytes.next_multiple_of(block)
        );
        return Err(OpenError::new(place, cause, cure));
    }
    Ok(())
}
