//! Opening a regular file: create, lock, size, allocate, and find out what it can do.

use super::File;
use super::shared::{Presence, Shared};
use super::sysfs;
use super::walk::{BOUNCE, Limits};
use crate::settings::{FileSettings, OpenError};
use crate::store::check_size;
use backstore_api::Geometry;
use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, Stat, StatxFlags};
use rustix::io::Errno;
use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::FileTypeExt},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Opens `settings.path` as the disk that the settings describe.
pub(crate) fn open_file(settings: &FileSettings, block_size: u32) -> Result<File, OpenError> {
    let place = &settings.path.display();
    let absent = check_path(settings)?;
    let descriptor = open(settings, absent)?;
    // Keeps the lock until the file is dealt with.
    let lock = descriptor.try_clone();
    let result = fit(settings, descriptor, block_size);
    if absent
        && result.is_err()
        && let Err(error) = fs::remove_file(&settings.path)
    {
        tracing::warn!(path = %place, %error, "an unfinished file stays behind");
    }
    drop(lock);
    result
}

/// A file that is open already; see [`Store::adopt`](crate::Store::adopt).
pub(crate) fn adopt(descriptor: Arc<OwnedFd>, geometry: Geometry) -> Result<File, OpenError> {
    let path = PathBuf::from("adopted file");
    let alignment = u64::from(geometry.alignment);
    let (alignment, memory) = check_limits(&path, alignment, alignment.min(4096))?;
    let buffered = alignment == 1;
    let shared = Shared::new(descriptor, path, buffered, false, Presence::Always, 512, geometry.bytes);
    let limits = Limits { alignment, memory, allocate: alignment };
    Ok(File { shared: Arc::new(shared), geometry, limits, polled: false, pinned: None })
}

/// Whether the file is absent, and may be.
fn check_path(settings: &FileSettings) -> Result<bool, OpenError> {
    let path = &settings.path;
    let wrong = |cause: &str, cure: &str| Err(OpenError::new(path.display(), cause, cure));
    match fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(false),
        Ok(found) if found.file_type().is_block_device() => {
            wrong("is a block device, not a file", "use `kind = \"block\"`")
        }
        Ok(found) if found.is_dir() => wrong("is a folder", "name a file in it"),
        Ok(_) => wrong("is not a regular file", "name a regular file or a block device"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let folder = folder(path);
            if !folder.is_dir() {
                let cause = format!("its folder {} is missing", folder.display());
                let cure = format!("mkdir -p {}", folder.display());
                wrong(&cause, &cure)
            } else if settings.read_only {
                wrong("doesn't exist", "a read-only volume needs a file that is there")
            } else if settings.bytes.is_none() {
                wrong("doesn't exist", "give a `size` to have it created")
            } else {
                Ok(true)
            }
        }
        Err(error) => Err(OpenError::system(path.display(), "look at it", error, "")),
    }
}

fn open(settings: &FileSettings, absent: bool) -> Result<OwnedFd, OpenError> {
    let mut flags = OFlags::CLOEXEC;
    flags |= if settings.read_only { OFlags::RDONLY } else { OFlags::RDWR };
    flags.set(OFlags::CREATE, absent);
    flags.set(OFlags::DIRECT, settings.direct);
    let place = &settings.path.display();
    let descriptor = rustix::fs::open(&settings.path, flags, Mode::RUSR | Mode::WUSR).map_err(|error| match error {
        Errno::INVAL if settings.direct => no_direct(&settings.path),
        Errno::ACCESS | Errno::PERM => {
            let cure = "allow this user to read and write it, or set `read_only = true`";
            OpenError::system(place, "open it", error, cure)
        }
        Errno::ROFS => OpenError::system(place, "open it", error, "set `read_only = true`"),
        _ => OpenError::system(place, "open it", error, ""),
    })?;
    let lock = if settings.read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    patiently(Errno::WOULDBLOCK, || rustix::fs::flock(&descriptor, lock)).map_err(|error| match error {
        Errno::WOULDBLOCK => in_use(&settings.path),
        _ => OpenError::system(settings.path.display(), "lock it", error, ""),
    })?;
    Ok(descriptor)
}

/// Tries again for a while what is refused because somebody holds the file: a ring's files are closed some time after
/// its process has ended, so that a restart would be refused.
pub(super) fn patiently<T>(busy: Errno, attempt: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        match attempt() {
            Err(error) if error == busy && Instant::now() < patience => thread::sleep(Duration::from_millis(20)),
            result => return result,
        }
    }
}

fn in_use(path: &Path) -> OpenError {
    OpenError::new(
        path.display(),
        "is in use: it is held by another process, or by another volume of this one",
        "stop the other one; `lslocks` shows who it is",
    )
}

fn no_direct(path: &Path) -> OpenError {
    OpenError::new(path.display(), "this file system can't do direct I/O", "set `direct = false`")
}

/// Sizes the locked file and measures it.
fn fit(settings: &FileSettings, descriptor: OwnedFd, block_size: u32) -> Result<File, OpenError> {
    let place = &settings.path.display();
    let stat = rustix::fs::fstat(&descriptor).map_err(|error| OpenError::system(place, "look at it", error, ""))?;
    let (alignment, memory) = if settings.direct { direct_limits(&settings.path, &descriptor, &stat)? } else { (1, 1) };
    let least = u64::from(settings.least_alignment.max(1));
    let (alignment, memory) = check_limits(&settings.path, alignment.max(least), memory)?;
    let bytes = size(settings, &descriptor, &stat, block_size, alignment)?;
    let granule = block_of(&stat);
    let length = bytes.next_multiple_of(alignment);
    let may_punch = !settings.read_only && !settings.preallocate;
    let punches = may_punch && can_punch(&descriptor, length.next_multiple_of(granule), granule);
    let device = sysfs::queue(Path::new(sysfs::ROOT), stat.st_dev, "rotational");
    let geometry = Geometry {
        bytes,
        alignment: alignment as u32,
        physical_block: alignment.max(512) as u32,
        optimal_io: 0,
        discard_granularity: if punches { granule as u32 } else { 0 },
        discard_zeroes: punches,
        persistent: true,
        read_only: settings.read_only,
        rotational: device == Some(1),
        cached: !settings.direct,
        atomic_write: 0,
    };
    let presence = if stat.st_nlink > 0 { Presence::Name } else { Presence::Always };
    let buffered = !settings.direct;
    // Partial blocks are zeroed through the page cache, which direct I/O is to stay clear of.
    let allocate = if settings.direct { granule.max(alignment) } else { alignment };
    let path = settings.path.clone();
    let shared =
        Shared::new(descriptor, path, buffered, true, presence, block_size, bytes).keeping(settings.preallocate);
    let polled = settings.poll && settings.direct && can_poll(&settings.path, stat.st_dev);
    let limits = Limits { alignment, memory, allocate };
    File { shared: Arc::new(shared), geometry, limits, polled, pinned: None }.pinning(settings.pinned)
}

/// What an open file can serve now, with the length and space that `settings` ask for.
pub(super) fn measure(
    settings: &FileSettings,
    descriptor: &OwnedFd,
    block_size: u32,
    alignment: u64,
) -> Result<u64, OpenError> {
    let place = &settings.path.display();
    let stat = rustix::fs::fstat(descriptor).map_err(|error| OpenError::system(place, "look at it", error, ""))?;
    size(settings, descriptor, &stat, block_size, alignment)
}

/// Settles the size of the disk, and gives the file that length and the space that it is to have.
fn size(
    settings: &FileSettings,
    descriptor: &OwnedFd,
    stat: &Stat,
    block_size: u32,
    alignment: u64,
) -> Result<u64, OpenError> {
    let place = &settings.path.display();
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    let bytes = match (length, settings.bytes) {
        (0, None) => {
            let cure = "give a `size`";
            return Err(OpenError::new(place, "is empty", cure));
        }
        (0, Some(bytes)) if !settings.read_only => bytes,
        (length, Some(bytes)) if length < bytes => {
            let cause = format!("is smaller ({length} bytes) than `size` ({bytes} bytes)");
            let cure = format!("lower `size`, leave it out, or grow the file: truncate -s {bytes} {place}");
            return Err(OpenError::new(place, cause, cure));
        }
        (_, Some(bytes)) => bytes,
        (length, None) => length,
    };
    check_size(&place.to_string(), bytes, block_size)?;
    // Direct I/O reads and writes the block that holds the end as a whole.
    let whole = bytes.next_multiple_of(alignment);
    if length < whole && (settings.read_only || settings.bytes.is_none()) {
        let cause = format!("direct I/O on this file system needs a length that is a multiple of {alignment} bytes");
        let cure = format!("set `direct = false`, or `size = {bytes}` so that the file may grow to {whole} bytes");
        return Err(OpenError::new(place, cause, cure));
    }
    if length < whole {
        let doing = format!("make it {whole} bytes long");
        rustix::fs::ftruncate(descriptor, whole)
            .map_err(|error| OpenError::system(place, &doing, error, "choose a smaller `size`"))?;
    }
    if settings.preallocate && !settings.read_only {
        let doing = format!("allocate {whole} bytes");
        rustix::fs::fallocate(descriptor, FallocateFlags::empty(), 0, whole).map_err(|error| {
            let cure = match error {
                Errno::NOSPC | Errno::DQUOT => "free space, or choose a smaller `size`",
                _ => "set `preallocate = false`",
            };
            OpenError::system(place, &doing, error, cure)
        })?;
    }
    if length < whole || settings.preallocate {
        // A flush of the data alone needs not bring a new length or name to the disk.
        let sync = || -> rustix::io::Result<()> {
            rustix::fs::fsync(descriptor)?;
            let folder = folder(&settings.path);
            rustix::fs::fsync(rustix::fs::open(folder, OFlags::CLOEXEC, Mode::empty())?)
        };
        sync().map_err(|error| OpenError::system(place, "bring its new size to the disk", error, ""))?;
    }
    Ok(bytes)
}

/// What direct I/O on this file asks of (offset and length, memory).
fn direct_limits(path: &Path, descriptor: &OwnedFd, stat: &Stat) -> Result<(u64, u64), OpenError> {
    let asked = rustix::fs::statx(descriptor, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok();
    let known = asked.filter(|found| found.stx_mask & StatxFlags::DIOALIGN.bits() != 0);
    let (alignment, memory) = match known {
        Some(found) if found.stx_dio_offset_align == 0 => return Err(no_direct(path)),
        Some(found) => (found.stx_dio_offset_align, found.stx_dio_mem_align),
        None => {
            // Kernels before 6.1 don't say. A device's block is what its files need; without one (network file
            // systems) a page is enough for all that are known.
            let block = sysfs::queue(Path::new(sysfs::ROOT), stat.st_dev, "logical_block_size");
            let block = block.and_then(|block| u32::try_from(block).ok()).unwrap_or(4096);
            (block, block)
        }
    };
    Ok((u64::from(alignment), u64::from(memory)))
}

/// Whether the device has queues that don't interrupt; else the operator is told, and it is served as any other.
pub(super) fn can_poll(path: &Path, device: u64) -> bool {
    let can = sysfs::queue(Path::new(sysfs::ROOT), device, "io_poll") == Some(1);
    if !can {
        tracing::warn!(
            path = %path.display(),
            "its device has no queues to poll (`io_poll` in its /sys/block/*/queue is not 1), so its completions interrupt: start an \
             NVMe driver with nvme.poll_queues=1 or more, or leave `poll` out"
        );
    }
    can
}

/// Buffers lie on pages, and a bounce buffer holds at least one block.
pub(super) fn check_limits(path: &Path, alignment: u64, memory: u64) -> Result<(u64, u64), OpenError> {
    let memory = memory.max(1);
    let fits = alignment.is_power_of_two() && alignment <= BOUNCE;
    if !fits || !memory.is_power_of_two() || memory > 4096 {
        let cause =
            format!("I/O on it needs {alignment}-byte blocks at {memory}-byte addresses, which is not supported");
        return Err(OpenError::new(path.display(), cause, "set `direct = false`"));
    }
    Ok((alignment, memory))
}

/// The file system's block, as far as it is a plausible one.
fn block_of(stat: &Stat) -> u64 {
    let block = stat.st_blksize as u64;
    if block.is_power_of_two() && (512..=65536).contains(&block) { block } else { 4096 }
}

/// Tries it behind the end, where it changes nothing.
fn can_punch(descriptor: &OwnedFd, behind: u64, granule: u64) -> bool {
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(descriptor, mode, behind, granule).is_ok()
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}
