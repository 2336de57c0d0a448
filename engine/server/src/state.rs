//! What must survive a restart: the identities of volumes and the identifiers of target ports.
//!
//! One file, `identities.json` in the state directory, written whole to a temporary name, synced, renamed, and the
//! directory synced: a kill at any moment leaves the old or the new one.

use scsi::{Identity, Layout};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A file that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refused.
    #[error("state file {path}: {source}; check `state_dir` in [server] and its permissions")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else wrote it.
    #[error("state file {path}: {source}; restore it from a copy, or move it away to begin anew")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Protection information would be looked for in the wrong place.
    #[error(
        "volume {unit}: its protection information is {was} (state file {path}), and it would be {is} now; give it its old size, \
         `block_size` and `protection` again and copy it to a new volume, or move the state file away to write all its blocks anew"
    )]
    Layout {
        /// Its record.
        path: PathBuf,
        /// Whose medium.
        unit: String,
        /// As it was formatted.
        was: Layout,
        /// As the configuration and its store have it.
        is: Layout,
    },
    /// All 65,535 relative target port identifiers are taken.
    #[error("state file {path}: no relative target port identifier is left; remove ports that are gone")]
    Full {
        /// Which file.
        path: PathBuf,
    },
    /// Another process holds the directory.
    #[error("{path} is in use by another ringlun; give each its own `state_dir` in [server]")]
    Busy {
        /// Its lock file.
        path: PathBuf,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredIdentity {
    naa: String,
    serial: String,
}

#[derive(Default, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    /// By the place of the data (a file's or device's path, or the volume's full name): a rename in the config does
    /// not change a disk.
    #[serde(default)]
    volumes: BTreeMap<String, StoredIdentity>,
    /// RELATIVE TARGET PORT IDENTIFIER by "target,group".
    #[serde(default)]
    ports: BTreeMap<String, u16>,
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Which one of its process, from 1.
    pub number: u64,
    /// False: nothing has changed.
    pub done: bool,
    /// In words.
    pub lines: Vec<String>,
}

/// The last reload that the process of a state directory has told of. Blocks.
pub fn last_reload(folder: &Path) -> Option<Told> {
    serde_json::from_slice(&fs::read(folder.join(RELOAD)).ok()?).ok()
}

/// The process that uses a state directory; None: none is ready. Blocks.
pub fn process(folder: &Path) -> io::Result<Option<u32>> {
    let lock = match File::open(folder.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        lock => lock?,
    };
    if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).is_ok() {
        return Ok(None);
    }
    let text = match fs::read_to_string(folder.join(PID)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    Ok(text.trim().parse().ok())
}

/// The recorded identities, open and locked for this process.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    stored: Stored,
    changed: bool,
    /// Its flock says that this process uses the directory.
    _lock: File,
}

impl State {
    /// Opens a state directory, making it if its parent exists. Blocks.
    pub fn open(folder: &Path) -> Result<State, StateError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { path, source }
        };
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(folder)(error)),
            _ => {}
        }
        let lock_path = folder.join(LOCK);
        let lock = File::create(&lock_path).map_err(fail(&lock_path))?;
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StateError::Busy { path: lock_path });
        }
        // What a process that is gone has left of itself.
        for name in [PID, RELOAD] {
            let path = folder.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(&path)(error)),
                _ => {}
            }
        }
        let path = folder.join(FILE);
        let stored = match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| StateError::Damaged { path: path.clone(), source })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Stored::default(),
            Err(error) => return Err(fail(&path)(error)),
        };
        Ok(State { folder: folder.to_owned(), stored, changed: false, _lock: lock })
    }

    /// The identity of the volume whose data is at `place`: the recorded one, or the one that its full name gives,
    /// which is recorded.
    pub fn identity(&mut self, place: &str, full_name: &str) -> Identity {
        let mut identity = Identity::from_name(full_name);
        if let Some(stored) = self.stored.volumes.get(place)
            && let Ok(naa) = u64::from_str_radix(&stored.naa, 16)
        {
            identity.naa = naa;
            identity.serial.clone_from(&stored.serial);
            return identity;
        }
        // Two places never share a NAA: a name that was used for other data before gets a number behind it.
        let mut number = 2;
        while self.stored.volumes.values().any(|s| s.naa == naa_text(identity.naa)) {
            identity = Identity { name: full_name.to_owned(), ..Identity::from_name(&format!("{full_name}#{number}")) };
            number += 1;
        }
        let stored = StoredIdentity { naa: naa_text(identity.naa), serial: identity.serial.clone() };
        self.stored.volumes.insert(place.to_owned(), stored);
        self.changed = true;
        identity
    }

    /// The RELATIVE TARGET PORT IDENTIFIER of a target in a portal group: allocated once.
    pub fn relative_port(&mut self, target: &str, group: u16) -> Result<u16, StateError> {
        let key = format!("{target},{group}");
        if let Some(&port) = self.stored.ports.get(&key) {
            return Ok(port);
        }
        let used: std::collections::BTreeSet<u16> = self.stored.ports.values().copied().collect();
        let port = (1..=u16::MAX)
            .find(|p| !used.contains(p))
            .ok_or_else(|| StateError::Full { path: self.folder.join(FILE) })?;
        self.stored.ports.insert(key, port);
        self.changed = true;
        Ok(port)
    }

    /// The directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Says which process serves: from now on it may be sent signals. Blocks.
    pub fn announce(&self) -> Result<(), StateError> {
        self.write(PID, std::process::id().to_string().as_bytes())
    }

    /// Says what became of a reload, the `number`th of this process. Blocks.
    pub fn tell_reload(&self, number: u64, done: bool, lines: &[String]) -> Result<(), StateError> {
        let told = Told { number, done, lines: lines.to_vec() };
        let text = serde_json::to_vec_pretty(&told)
            .map_err(|source| StateError::Damaged { path: self.folder.join(RELOAD), source })?;
        self.write(RELOAD, &text)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        write_synced(&self.folder, name, bytes)
            .map_err(|source| StateError::Io { path: self.folder.join(name), source })
    }

    /// Writes what has changed. Blocks.
    pub fn save(&mut self) -> Result<(), StateError> {
        if !self.changed {
            return Ok(());
        }
        let path = self.folder.join(FILE);
        let text = serde_json::to_vec_pretty(&self.stored)
            .map_err(|source| StateError::Damaged { path: path.clone(), source })?;
        write_synced(&self.folder, FILE, &text).map_err(|source| StateError::Io { path, source })?;
        self.changed = false;
        Ok(())
    }
}

const FILE: &str = "identities.json";
const LOCK: &str = "lock";
/// Process number of the target that uses the directory.
const PID: &str = "pid";
/// What became of its last reload.
const RELOAD: &str = "reload.json";

fn naa_text(naa: u64) -> String {
    format!("{naa:016x}")
}

/// Replaces a file of the folder whole: what is there after a kill is the old or the new one. Blocks.
pub(crate) fn write_synced(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_stays_when_the_volume_is_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        let first = state.identity("/srv/a.img", "iqn.x:a");
        state.save().unwrap();
        drop(state);
        let mut state = State::open(folder.path()).unwrap();
        let again = state.identity("/srv/a.img", "iqn.x:renamed");
        assert_eq!((first.naa, first.serial), (again.naa, again.serial));
    }

    #[test]
    fn identity_is_the_same_again_when_the_record_is_lost() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = State::open(one.path()).unwrap().identity("/srv/a.img", "iqn.x:a");
        let second = State::open(two.path()).unwrap().identity("/srv/a.img", "iqn.x:a");
        assert_eq!(first.naa, second.naa);
    }

    #[test]
    fn a_name_that_moves_to_other_data_does_not_take_the_identity_along() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        let first = state.identity("/srv/a.img", "iqn.x:a");
        let second = state.identity("/srv/b.img", "iqn.x:a");
        assert_ne!(first.naa, second.naa);
        assert_ne!(first.serial, second.serial);
    }

    #[test]
    fn relative_ports_are_allocated_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path()).unwrap();
        assert_eq!(state.relative_port("iqn.x:a", 1).unwrap(), 1);
        assert_eq!(state.relative_port("iqn.x:b", 1).unwrap(), 2);
        state.save().unwrap();
        drop(state);
        let mut state = State::open(folder.path()).unwrap();
        assert_eq!(state.relative_port("iqn.x:b", 1).unwrap(), 2);
        assert_eq!(state.relative_port("iqn.x:a", 2).unwrap(), 3);
    }

    #[test]
    fn a_second_process_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _first = State::open(folder.path()).unwrap();
        assert!(matches!(State::open(folder.path()), Err(StateError::Busy { .. })));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), b"{").unwrap();
        let error = State::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("identities.json"), "{error}");
    }
}
