//! The lasting state of logical units ([`scsi::Lasting`]) on stable storage.
//!
//! One file per unit in the state directory, `unit-NAA.json`, replaced whole: a kill at any moment leaves the old or the
//! new one. The file belongs to the unit's identity, so that it follows the data when the volume is renamed. RAM and null
//! volumes have one too: what it holds says who may use the unit and how, not what is on its medium.

use crate::state::{StateError, write_synced};
use scsi::{Lasting, LogicalUnit};
use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};
use tracing::warn;

/// Keeps what must not be forgotten. The program has [`UnitFiles`]; a simulation has its own.
pub trait Keeper: Send + Sync {
    /// Puts the unit's lasting state as it is now on stable storage. Blocks: it is called on helper threads, of several
    /// cores at once. An older state never replaces a newer one.
    fn keep(&self, unit: &LogicalUnit) -> io::Result<()>;
}

/// The files of the state directory.
#[derive(Debug)]
pub struct UnitFiles {
    folder: PathBuf,
    /// By NAA: the number of the state that the file holds, if it is known. Held while the file is replaced.
    stored: HashMap<Vec<u8>, Mutex<Option<u64>>>,
}

impl UnitFiles {
    /// Files in this folder, which is this process's alone.
    pub fn new(folder: &Path) -> UnitFiles {
        UnitFiles { folder: folder.to_owned(), stored: HashMap::new() }
    }

    /// Gives a unit the state that its file holds, if there is one. Blocks.
    ///
    /// # Errors
    /// The file can't be read, or makes no sense.
    pub fn load(&mut self, unit: &LogicalUnit) -> Result<(), StateError> {
        let naa = unit.identity().naa_bytes();
        let path = self.folder.join(name(&naa));
        let damaged = |source| StateError::Damaged { path: path.clone(), source };
        match fs::read(&path) {
            Ok(bytes) => {
                let lasting: Lasting = serde_json::from_slice(&bytes).map_err(damaged)?;
                if let (Some(was), Some(is)) = (lasting.layout, unit.layout())
                    && was != is
                {
                    let unit = unit.identity().name.clone();
                    return Err(StateError::Layout { path: path.clone(), unit, was, is });
                }
                unit.restore(lasting).map_err(|why| damaged(serde::de::Error::custom(why)))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StateError::Io { path, source }),
        }
        self.stored.insert(naa, Mutex::new(None));
        if unit.layout().is_some() {
            self.keep(unit).map_err(|source| StateError::Io { path, source })?;
        }
        Ok(())
    }
}

impl Keeper for UnitFiles {
    fn keep(&self, unit: &LogicalUnit) -> io::Result<()> {
        let naa = unit.identity().naa_bytes();
        let stored = self.stored.get(&naa).ok_or_else(|| io::Error::other("the unit was never loaded"))?;
        let mut stored = stored.lock().unwrap_or_else(PoisonError::into_inner);
        // Only now: whoever gets here later has a newer state.
        let (number, lasting) = unit.lasting();
        if *stored == Some(number) {
            return Ok(());
        }
        *stored = None;
        let result = serde_json::to_vec_pretty(&lasting)
            .map_err(io::Error::other)
            .and_then(|text| write_synced(&self.folder, &name(&naa), &text));
        match &result {
            Ok(()) => *stored = Some(number),
            Err(error) => {
                let path = self.folder.join(name(&naa));
                warn!(
                    unit = unit.identity().name,
                    "state file {}: {error}; the command that needs it fails",
                    path.display()
                );
            }
        }
        result
    }
}

fn name(naa: &[u8]) -> String {
    let digits: String = naa.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("unit-{digits}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstore_api::{Geometry, Protection};
    use scsi::{Identity, Profile};
    use std::sync::Arc;

    fn unit() -> Arc<LogicalUnit> {
        LogicalUnit::new(Profile::new(Identity::from_name("iqn.x:a"), 512), Geometry::new(1 << 20))
    }

    fn path(folder: &Path) -> PathBuf {
        folder.join(name(&unit().identity().naa_bytes()))
    }

    #[test]
    fn a_kept_state_is_read_again_and_nothing_else_is_left_in_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = UnitFiles::new(folder.path());
        let one = unit();
        files.load(&one).unwrap();
        files.keep(&one).unwrap();
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(names, [path(folder.path())]);
        let two = unit();
        files.load(&two).unwrap();
        assert_eq!(one.lasting().1, two.lasting().1);
    }

    #[test]
    fn a_damaged_file_is_named_and_an_unknown_part_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(path(folder.path()), b"{\"of a later version\": [1]}").unwrap();
        UnitFiles::new(folder.path()).load(&unit()).unwrap();
        fs::write(path(folder.path()), b"{").unwrap();
        let error = UnitFiles::new(folder.path()).load(&unit()).unwrap_err().to_string();
        assert!(error.contains("unit-") && error.contains("move it away"), "{error}");
    }

    #[test]
    fn reservations_are_kept_and_those_that_cannot_be_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let load = |registrations: &str, reservation: &str| {
            let one = r#"{"initiator": "iqn.x:h", "isid": [128, 0, 0, 0, 0, 1], "relative_port": 1, "key": 160}"#;
            let registrations = registrations.replace("ONE", one);
            let record =
                format!(r#"{{"reservations": {{"registrations": [{registrations}], "reservation": {reservation}}}}}"#);
            fs::write(path(folder.path()), record).unwrap();
            let (mut files, unit) = (UnitFiles::new(folder.path()), unit());
            files.load(&unit).map(|()| (files, unit))
        };
        for (registrations, reservation) in [("", "null"), ("ONE", "null"), ("ONE", r#"{"kind": 7}"#)] {
            assert!(load(registrations, reservation).is_ok(), "{registrations} {reservation}");
        }
        let (files, one) = load("ONE", r#"{"kind": 1, "holder": 0}"#).unwrap();
        files.keep(&one).unwrap();
        let two = unit();
        UnitFiles::new(folder.path()).load(&two).unwrap();
        assert_eq!(one.lasting().1, two.lasting().1);
        assert!(one.lasting().1.reservations.is_some());
        for (registrations, reservation) in [
            ("ONE, ONE", "null"),
            ("ONE", r#"{"kind": 2, "holder": 0}"#),
            ("ONE", r#"{"kind": 1}"#),
            ("ONE", r#"{"kind": 1, "holder": 1}"#),
            ("ONE", r#"{"kind": 7, "holder": 0}"#),
            ("", r#"{"kind": 8}"#),
            (r#"{"initiator": "iqn.x:h"}"#, "null"),
        ] {
            assert!(load(registrations, reservation).is_err(), "{registrations} {reservation}");
        }
    }

    #[test]
    fn saved_pages_and_information_are_read_again_and_what_makes_no_sense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let load = |record: &str| {
            fs::write(path(folder.path()), record).unwrap();
            let (mut files, unit) = (UnitFiles::new(folder.path()), unit());
            files.load(&unit).map(|()| (files, unit))
        };
        let caching = format!(r#"{{"page": 8, "values": [0{}]}}"#, ", 255".repeat(17));
        let record = format!(r#"{{"mode_pages": [{caching}], "information": {{"device": [1, 255]}}}}"#);
        let (files, one) = load(&record).unwrap();
        assert!(!one.write_cache());
        files.keep(&one).unwrap();
        let two = unit();
        UnitFiles::new(folder.path()).load(&two).unwrap();
        assert_eq!(one.lasting().1, two.lasting().1);
        // A later version has more pages, groups and kinds of information.
        let later = r#"{"mode_pages": [{"page": 63, "subpage": 1, "values": []}], "information": {"x": 1},
                        "access": [{"portal_group": 9, "state": 1, "configured": 0}]}"#;
        assert!(load(later).is_ok());
        for record in [
            r#"{"mode_pages": [{"page": 8, "values": [0]}]}"#.to_owned(),
            r#"{"mode_pages": [{"page": 28, "values": [0, 15, 0, 0, 0, 0, 0, 0, 0, 0]}]}"#.to_owned(),
            r#"{"information": {"text": [65]}}"#.to_owned(),
            format!(r#"{{"information": {{"device": [1{}]}}}}"#, ", 1".repeat(64)),
            r#"{"access": [{"portal_group": 1, "state": 9, "configured": 0}]}"#.to_owned(),
        ] {
            let error = load(&record).unwrap_err().to_string();
            assert!(error.contains("move it away"), "{error}");
        }
    }

    #[test]
    fn a_protected_medium_that_is_divided_otherwise_now_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let load = |bytes, kind, persistent| {
            let profile = Profile { protection: Some(kind), ..Profile::new(Identity::from_name("iqn.x:a"), 512) };
            let unit = LogicalUnit::new(profile, Geometry { persistent, ..Geometry::new(bytes) });
            UnitFiles::new(folder.path()).load(&unit).map_err(|error| error.to_string())
        };
        load(1 << 20, Protection::Type1, true).unwrap();
        load(1 << 20, Protection::Type1, true).unwrap();
        for (bytes, kind) in [(2 << 20, Protection::Type1), (1 << 20, Protection::Type3)] {
            let error = load(bytes, kind, true).unwrap_err();
            assert!(
                error.contains("iqn.x:a") && error.contains("for 1048576 bytes") && error.contains("unit-"),
                "{error}"
            );
        }
        // Memory is empty.
        load(2 << 20, Protection::Type1, false).unwrap();
        UnitFiles::new(folder.path()).load(&unit()).unwrap();
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = UnitFiles::new(folder.path());
        let one = unit();
        files.load(&one).unwrap();
        drop(folder);
        assert!(files.keep(&one).is_err());
        assert!(UnitFiles::new(Path::new("/")).keep(&one).is_err(), "never loaded");
    }
}
