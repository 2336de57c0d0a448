//! What a store is asked to be, and why it could not be opened.

use crate::filter::Filter;
use backstore_api::Protection;
use std::{io, path::PathBuf};

/// Most requests that a queue may have in flight, whatever the settings say: a token holds 16 bits of slot.
pub const DEPTH_LIMIT: u32 = 4096;

/// Everything that [`Store::open`](crate::Store::open) needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What holds the blocks.
    pub kind: Kind,
    /// The volume's block size: 512 or 4096. The store's size must be a multiple of it.
    pub block_size: u32,
    /// Requests in flight per core, 1..=[`DEPTH_LIMIT`]. Each may occupy a kernel worker thread when it can't go
    /// inline (buffered files, sync, allocation): see [`Store::blocking_bound`](crate::Store::blocking_bound).
    pub depth: u32,
    /// Protection information that the medium is formatted with.
    pub protection: Option<Protection>,
    /// Wrapped around the store, the first one innermost.
    pub filters: Vec<Filter>,
}

impl Settings {
    /// 512-byte blocks, 128 requests in flight per core, no protection information, no filters.
    pub fn new(kind: Kind) -> Settings {
        Settings { kind, block_size: 512, depth: 128, protection: None, filters: Vec::new() }
    }
}

/// The kinds of store.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Memory, zeroed at start.
    Ram {
        /// Size.
        bytes: u64,
        /// All memory is allocated when the store is opened, and never given back (no discard). Else each piece is when
        /// it is written to for the first time, and that write and all behind it wait.
        preallocate: bool,
    },
    /// Keeps nothing.
    Null {
        /// Size.
        bytes: u64,
    },
    /// A regular file.
    File(FileSettings),
    /// A block device.
    Block(BlockSettings),
}

/// A regular file as a disk.
#[derive(Clone, Debug)]
pub struct FileSettings {
    /// The file. Created, readable by its owner only, when it is absent and `bytes` is given.
    pub path: PathBuf,
    /// Size of the disk; `None`: the file's. A file that is larger is served as far as this.
    pub bytes: Option<u64>,
    /// O_DIRECT: past the page cache.
    pub direct: bool,
    /// With `direct`: completions are looked for instead of waited for, if the device below has queues for that.
    pub poll: bool,
    /// All space is allocated when the store is opened, and never given back (no discard).
    pub preallocate: bool,
    /// Without `direct`: up to so many bytes are locked in memory, as they are read, and sent from there. 0: none.
    pub pinned: u64,
    /// Refuses writes; several readers may share the file.
    pub read_only: bool,
    /// I/O is aligned to at least this many bytes (a power of two up to 4096), even if the file asks for less: for
    /// file systems that don't say what they need, and for tests of what happens where they do. 1: as the file asks.
    pub least_alignment: u32,
}

impl FileSettings {
    /// A sparse, buffered, writable file.
    pub fn new(path: impl Into<PathBuf>, bytes: Option<u64>) -> FileSettings {
        FileSettings {
            path: path.into(),
            bytes,
            direct: false,
            poll: false,
            preallocate: false,
            pinned: 0,
            read_only: false,
            least_alignment: 1,
        }
    }
}

/// A block device as a disk.
#[derive(Clone, Debug)]
pub struct BlockSettings {
    /// The device node.
    pub path: PathBuf,
    /// O_DIRECT: past the page cache.
    pub direct: bool,
    /// With `direct`: completions are looked for instead of waited for, if the device has queues for that.
    pub poll: bool,
    /// Without `direct`: up to so many bytes are locked in memory, as they are read, and sent from there. 0: none.
    pub pinned: u64,
    /// Refuses writes.
    pub read_only: bool,
}

/// Why a store could not be opened: the place, the cause, the way out.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {cause}{}{cure}", if cure.is_empty() { "" } else { "; " })]
pub struct OpenError {
    /// The path, or the kind of store.
    pub place: String,
    /// What is wrong.
    pub cause: String,
    /// What would be right; may be empty.
    pub cure: String,
    /// The system's error behind it.
    #[source]
    pub source: Option<io::Error>,
}

impl OpenError {
    pub(crate) fn new(place: impl ToString, cause: impl ToString, cure: impl ToString) -> OpenError {
        OpenError { place: place.to_string(), cause: cause.to_string(), cure: cure.to_string(), source: None }
    }

    /// The cause is what the system says to `doing`.
    pub(crate) fn system(
        place: impl ToString,
        doing: &str,
        error: impl Into<io::Error>,
        cure: impl ToString,
    ) -> OpenError {
        let error = error.into();
        OpenError {
            source: Some(io::Error::from(error.kind())),
            ..OpenError::new(place, format!("can't {doing}: {error}"), cure)
        }
    }
}
