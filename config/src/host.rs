//! What is asked of the system while a configuration is checked.
use rustix::{
    fs::{Access, FileType, Mode, OFlags},
    io::Errno,
};
use std::{io, io::Read, path::Path};
use zeroize::Zeroizing;

/// Longest secret file that is read, bytes.
const MAX_SECRET_FILE: u64 = 4096;

/// Answers what a configuration has to be checked against. [`System`] asks the kernel; tests bring their own.
pub trait Host {
    /// Cores that this process may use, in ascending order; empty when it can't be told.
    fn allowed_cores(&self) -> Vec<usize>;
    /// What is at a path, and whether it can be opened (for writing too unless `read_only`). Creates nothing.
    fn path_state(&self, path: &Path, read_only: bool) -> PathState;
    /// The content of a secret file, and whether others than its owner can read it.
    fn read_secret(&self, path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, bool)>;
    /// Memory of the machine, bytes; None when it can't be told.
    fn memory(&self) -> Option<u64>;
}

/// What is at a path.
#[derive(Debug)]
pub enum PathState {
    /// A regular file of this many bytes that can be opened.
    File(u64),
    /// A block device that can be opened.
    Device,
    /// A folder; whether files can be created in it.
    Folder(bool),
    /// Something else (socket, pipe, character device).
    Other,
    /// Nothing; its folder is there, and a file can be created in it.
    Creatable,
    /// Nothing, and its folder is missing.
    NoFolder,
    /// It, or the folder it would be created in, can't be opened.
    Refused(io::Error),
}

/// The running system.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Host for System {
    fn allowed_cores(&self) -> Vec<usize> {
        match rustix::thread::sched_getaffinity(None) {
            Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
            Err(_) => Vec::new(),
        }
    }

    fn path_state(&self, path: &Path, read_only: bool) -> PathState {
        match rustix::fs::stat(path) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => open(path, read_only, PathState::File(stat.st_size.unsigned_abs())),
                FileType::BlockDevice => open(path, read_only, PathState::Device),
                FileType::Directory => PathState::Folder(writable(path).is_ok()),
                _ => PathState::Other,
            },
            Err(Errno::NOENT) => {
                let folder = match path.parent() {
                    Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
                    Some(folder) => folder,
                    None => return PathState::NoFolder,
                };
                match rustix::fs::stat(folder) {
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                        match writable(folder) {
                            Ok(()) => PathState::Creatable,
                            Err(error) => PathState::Refused(error.into()),
                        }
                    }
                    Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => PathState::NoFolder,
                    Err(error) => PathState::Refused(error.into()),
                }
            }
            Err(Errno::NOTDIR) => PathState::NoFolder,
            Err(error) => PathState::Refused(error.into()),
        }
    }

    fn read_secret(&self, path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, bool)> {
        let stat = rustix::fs::stat(path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is not a regular file"));
        }
        let file = std::fs::File::open(path)?;
        // Room for all of it beforehand: a vector that grows leaves copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_FILE as usize + 2));
        file.take(MAX_SECRET_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_SECRET_FILE {
            return Err(io::Error::other("it is larger than 4 KiB"));
        }
        Ok((bytes, stat.st_mode & 0o004 != 0))
    }

    fn memory(&self) -> Option<u64> {
        let info = rustix::system::sysinfo();
        // The fields' types differ between targets.
        #[allow(clippy::useless_conversion)]
        let (total, unit) = (u64::from(info.totalram), u64::from(info.mem_unit));
        total.checked_mul(unit.max(1))
    }
}

fn writable(folder: &Path) -> Result<(), Errno> {
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
}

/// Opens and closes it: what `access` says differs from what `open` does on read-only mounts and devices.
fn open(path: &Path, read_only: bool, state: PathState) -> PathState {
    let mode = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    match rustix::fs::open(path, mode | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
        Ok(_) => state,
        Err(error) => PathState::Refused(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, [0; 100]).unwrap();
        assert!(matches!(System.path_state(&file, false), PathState::File(100)));
        assert!(matches!(System.path_state(folder.path(), false), PathState::Folder(true)));
        assert!(matches!(System.path_state(&folder.path().join("b"), false), PathState::Creatable));
        assert!(matches!(System.path_state(&folder.path().join("b/c"), false), PathState::NoFolder));
        assert!(matches!(System.path_state(&file.join("c"), false), PathState::NoFolder));
        assert!(matches!(System.path_state(Path::new("/dev/null"), false), PathState::Other));
        assert!(!folder.path().join("b").exists(), "nothing is created");
    }

    #[test]
    fn this_process_has_a_core_and_memory() {
        assert!(!System.allowed_cores().is_empty());
        assert!(System.memory().unwrap() > 1 << 20);
    }
}
