//! Opening a block device: claim it, and ask the kernel for its size and limits.

use super::File;
use super::open::{can_poll, check_limits, patiently};
use super::shared::{Presence, Shared};
use super::sysfs;
use super::walk::Limits;
use crate::settings::{BlockSettings, OpenError};
use crate::store::check_size;
use backstore_api::Geometry;
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::FileTypeExt},
    path::Path,
    sync::Arc,
};

/// Opens `settings.path`, a block device, for this volume alone.
pub(crate) fn open_device(settings: &BlockSettings, block_size: u32) -> Result<File, OpenError> {
    let place = &settings.path.display();
    let found = fs::metadata(&settings.path)
        .map_err(|error| OpenError::system(place, "look at it", error, "name a device that is there"))?;
    if !found.file_type().is_block_device() {
        let cure = if found.is_file() { "use `kind = \"file\"`" } else { "name a block device" };
        return Err(OpenError::new(place, "is not a block device", cure));
    }
    let descriptor = open(settings)?;
    let system = |doing, error: Errno| OpenError::system(place, doing, error, "");
    let stat = rustix::fs::fstat(&descriptor).map_err(|error| system("look at it", error))?;
    let bytes = measure(&settings.path, &descriptor, block_size)?;

    let root = Path::new(sysfs::ROOT);
    let attribute = |name| sysfs::queue(root, stat.st_rdev, name);
    let narrow = |name| attribute(name).and_then(|value| u32::try_from(value).ok()).unwrap_or(0);
    let logical = match narrow("logical_block_size") {
        0 => rustix::fs::ioctl_blksszget(&descriptor).map_err(|e| system("find its block size", e))?,
        known => known,
    };
    if sysfs::read_only(root, stat.st_rdev) && !settings.read_only {
        return Err(OpenError::new(place, "is read-only", "set `read_only = true`"));
    }
    let logical = u64::from(logical);
    let (alignment, memory) =
        if settings.direct { check_limits(&settings.path, logical, logical.min(4096))? } else { (1, 1) };
    // PUNCH_HOLE on a device is a zeroing that may deallocate; it needs both.
    let punches = !settings.read_only
        && attribute("discard_max_bytes").unwrap_or(0) > 0
        && attribute("write_zeroes_max_bytes").unwrap_or(0) > 0;
    let granule = narrow("discard_granularity").max(logical as u32);
    let geometry = Geometry {
        bytes,
        alignment: alignment as u32,
        physical_block: narrow("physical_block_size").max(logical as u32),
        optimal_io: narrow("optimal_io_size"),
        discard_granularity: if punches { granule } else { 0 },
        discard_zeroes: punches,
        persistent: true,
        read_only: settings.read_only,
        rotational: attribute("rotational") == Some(1),
        cached: !settings.direct,
        atomic_write: 0,
    };
    let polled = settings.poll && settings.direct && can_poll(&settings.path, stat.st_rdev);
    let (path, buffered) = (settings.path.clone(), !settings.direct);
    let shared = Shared::new(descriptor, path, buffered, false, Presence::Size, block_size, bytes);
    let limits = Limits { alignment, memory, allocate: logical };
    File { shared: Arc::new(shared), geometry, limits, polled, pinned: None }.pinning(settings.pinned)
}

/// The size of an open device.
pub(super) fn measure(path: &Path, descriptor: &OwnedFd, block_size: u32) -> Result<u64, OpenError> {
    let place = &path.display();
    let bytes = rustix::fs::seek(descriptor, SeekFrom::End(0))
        .map_err(|error| OpenError::system(place, "find its size", error, ""))?;
    if bytes == 0 {
        return Err(OpenError::new(place, "has no medium", "insert one, or name another device"));
    }
    check_size(&place.to_string(), bytes, block_size)?;
    Ok(bytes)
}

fn open(settings: &BlockSettings) -> Result<OwnedFd, OpenError> {
    let place = &settings.path.display();
    // O_EXCL without O_CREAT claims a device: a mounted one is refused, and so is a second volume on it.
    let mut flags = OFlags::CLOEXEC | OFlags::EXCL;
    flags |= if settings.read_only { OFlags::RDONLY } else { OFlags::RDWR };
    flags.set(OFlags::DIRECT, settings.direct);
    let opened = patiently(Errno::BUSY, || rustix::fs::open(&settings.path, flags, Mode::empty()));
    opened.map_err(|error| match error {
        Errno::BUSY => OpenError::new(
            place,
            "is in use: mounted, part of a volume group or array, or held by another volume",
            "unmount or free it; `lsblk` shows what it is used for",
        ),
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            let cure = "allow this user to read and write it, or set `read_only = true`";
            OpenError::system(place, "open it", error, cure)
        }
        Errno::NOMEDIUM | Errno::NXIO => OpenError::system(place, "open it", error, "insert a medium"),
        _ => OpenError::system(place, "open it", error, ""),
    })
}
