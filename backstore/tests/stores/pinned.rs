//! Buffered files whose pages are kept in memory and sent from there.

use crate::harness::Core;
use crate::on_ring::ring;
use backstore::{FileSettings, Kind, Settings, Store};
use backstore_api::{Request, StoreError};
use reactor::{FeatureMask, Ring};
use std::{
    fs::{File, OpenOptions},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const CHUNK: u64 = 2 << 20;
const BLOCK: u32 = 4096;

struct Rig {
    folder: TempDir,
    settings: Settings,
    store: Arc<Store>,
    core: Core<Ring>,
}

/// A file of some chunks, each of which holds its number, with `pinned` of them in memory.
fn rig(chunks: u64, pinned: u64) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let bytes: Vec<u8> = (0..chunks * CHUNK).map(|at| (at / CHUNK) as u8 + 1).collect();
    std::fs::write(&path, bytes).unwrap();
    let settings = Settings::new(Kind::File(FileSettings { pinned: pinned * CHUNK, ..FileSettings::new(path, None) }));
    let store = Store::open(&settings).unwrap();
    let core = Core::new(ring(FeatureMask::NONE), &store);
    Rig { folder, settings, store, core }
}

impl Rig {
    fn file(&self) -> File {
        OpenOptions::new().write(true).open(self.folder.path().join("disk")).unwrap()
    }

    /// Reads a chunk so often that it is worth having.
    fn warm(&mut self, chunk: u64) {
        for at in 0..12 {
            let found = self.core.read(chunk * CHUNK + at * 8192, BLOCK).unwrap();
            assert!(found.iter().all(|byte| *byte == found[0]));
        }
        self.core.drain();
    }

    fn is_there(&self, offset: u64) -> bool {
        self.core.queue.pages(offset, BLOCK).is_some()
    }

    /// What a send would send; None: it would be read.
    fn sent(&self, offset: u64) -> Option<Vec<u8>> {
        let lease = self.core.queue.pages(offset, BLOCK)?.lease();
        let mut bytes = vec![0; BLOCK as usize];
        assert!(lease.holds(offset, BLOCK));
        lease.read(offset, &mut bytes).unwrap();
        Some(bytes)
    }
}

#[test]
fn what_is_read_often_is_sent_from_the_page_cache() {
    let mut rig = rig(3, 3);
    assert!(!rig.is_there(0));
    rig.core.read(0, BLOCK).unwrap();
    rig.core.drain();
    assert!(!rig.is_there(0), "once is not often");
    rig.warm(0);
    rig.warm(1);
    assert!(rig.sent(8192) == Some(vec![1; BLOCK as usize]));
    assert_eq!(rig.core.queue.pages(CHUNK - 512, 1024).map(|_| ()), Some(()));
    assert!(rig.core.queue.pages(2 * CHUNK - 512, 1024).is_none(), "half of it");
    // What was written is what is sent, and so is what another core wrote.
    rig.core.write(CHUNK + 4096, &[0xab; 8192], true).unwrap();
    assert!(rig.sent(CHUNK + 8192) == Some(vec![0xab; BLOCK as usize]));
    let mut other = Core::new(ring(FeatureMask::NONE), &rig.store);
    assert!(other.queue.pages(CHUNK, BLOCK).is_some(), "all cores have what one has brought");
    other.write(CHUNK + 4096, &[0xcd; 4096], false).unwrap();
    assert!(rig.sent(CHUNK + 4096) == Some(vec![0xcd; BLOCK as usize]));
}

#[test]
fn over_the_bound_what_was_not_read_lately_goes() {
    let mut rig = rig(4, 2);
    rig.warm(0);
    rig.warm(1);
    assert!(rig.is_there(0) && rig.is_there(CHUNK));
    let until = Instant::now() + Duration::from_secs(20);
    while !rig.is_there(3 * CHUNK) {
        assert!(Instant::now() < until, "it never comes");
        // Chunk 1 stays in use.
        let _ = rig.sent(CHUNK);
        rig.warm(3);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(rig.is_there(CHUNK) && !rig.is_there(0), "the one that nobody reads goes");
    assert!(rig.sent(3 * CHUNK) == Some(vec![4; BLOCK as usize]));
}

#[test]
fn what_takes_pages_away_has_them_leave_first() {
    let requests: [fn() -> Request; 3] = [
        || Request::Discard { offset: CHUNK + 4096, length: 8192 },
        || Request::Zero { offset: CHUNK + 4096, length: 8192, unmap: true, durable: false },
        || Request::Zero { offset: CHUNK + 4096, length: 8192, unmap: false, durable: true },
    ];
    for (n, request) in requests.into_iter().enumerate() {
        let mut rig = rig(3, 3);
        rig.warm(0);
        rig.warm(1);
        // A message that the peer doesn't read holds it up for a moment, and no longer.
        let lease = rig.core.queue.pages(CHUNK, BLOCK).unwrap().lease();
        assert!(lease.holds(CHUNK + 4096, 8192));
        rig.core.simple(request()).unwrap();
        assert!(!rig.is_there(CHUNK), "{n}");
        assert!(rig.is_there(0), "{n}: others stay");
        assert_eq!(rig.core.read(CHUNK + 4096, 8192).unwrap(), [0; 8192], "{n}");
        let mut bytes = [9; 4096];
        lease.read(CHUNK + 4096, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 4096], "{n}");
        drop(lease);
        rig.warm(1);
        rig.warm(1);
        assert!(rig.sent(CHUNK + 4096) == Some(vec![0; BLOCK as usize]), "{n}");
        assert!(rig.sent(CHUNK) == Some(vec![2; BLOCK as usize]), "{n}");
    }
}

#[test]
fn a_copy_from_another_file_is_seen() {
    let mut rig = rig(2, 2);
    rig.warm(0);
    rig.warm(1);
    let path = rig.folder.path().join("source");
    std::fs::write(&path, vec![0x77; CHUNK as usize]).unwrap();
    let source = Store::open(&Settings::new(Kind::File(FileSettings::new(path, None)))).unwrap();
    let source = Core::new(ring(FeatureMask::NONE), &source).queue.copy_source().unwrap();
    let copy = Request::Copy { offset: CHUNK, length: 65_536, source, from: 0, durable: false };
    rig.core.simple(copy).unwrap();
    assert!(!rig.is_there(CHUNK) && rig.is_there(0));
    rig.warm(1);
    rig.warm(1);
    assert!(rig.sent(CHUNK + 4096) == Some(vec![0x77; BLOCK as usize]));
    assert!(rig.sent(CHUNK + 65_536) == Some(vec![2; BLOCK as usize]));
}

#[test]
fn a_file_that_grows_has_its_new_part_there_too() {
    let mut rig = rig(2, 4);
    rig.warm(1);
    rig.file().set_len(4 * CHUNK).unwrap();
    assert_eq!(rig.store.measure(&rig.settings).unwrap(), 4 * CHUNK);
    assert!(!rig.is_there(3 * CHUNK));
    rig.store.resize(4 * CHUNK);
    rig.warm(3);
    assert!(rig.sent(3 * CHUNK + 4096) == Some(vec![0; BLOCK as usize]));
    assert!(rig.sent(CHUNK) == Some(vec![2; BLOCK as usize]));
    // Smaller again: what is locked is not served.
    rig.store.resize(2 * CHUNK);
    assert!(!rig.is_there(3 * CHUNK) && rig.is_there(CHUNK));
}

#[test]
fn a_file_that_somebody_cuts_is_an_error_and_no_signal() {
    let mut rig = rig(4, 4);
    rig.warm(0);
    rig.warm(1);
    rig.file().set_len(CHUNK).unwrap();
    let lease = rig.core.queue.pages(CHUNK, BLOCK).unwrap().lease();
    assert_eq!(lease.read(CHUNK, &mut [0; 512]).unwrap_err().raw_os_error(), Some(14));
    assert!(lease.distrust());
    assert!(!rig.is_there(CHUNK) && !rig.is_there(0));
    assert_eq!(rig.core.read(CHUNK, BLOCK), Err(StoreError::Medium { offset: CHUNK }));
    assert_eq!(rig.core.read(0, BLOCK).unwrap(), [1; BLOCK as usize]);
}

#[test]
fn what_can_not_be_locked_is_read() {
    let mut rig = rig(3, 3);
    rig.file().set_len(2 * CHUNK).unwrap();
    for _ in 0..8 {
        assert_eq!(rig.core.read(2 * CHUNK, BLOCK), Err(StoreError::Medium { offset: 2 * CHUNK }));
    }
    rig.core.drain();
    assert!(!rig.is_there(2 * CHUNK));
    // Nor is it tried again for a while.
    rig.warm(0);
    assert!(!rig.is_there(0));
}

#[test]
fn without_the_option_or_with_direct_io_nothing_is_pinned() {
    for (direct, pinned) in [(false, 0), (true, CHUNK)] {
        let mut rig = rig(2, 0);
        let path = rig.folder.path().join("other");
        let file = FileSettings { direct, pinned, ..FileSettings::new(path, Some(2 * CHUNK)) };
        let store = Store::open(&Settings::new(Kind::File(file))).unwrap();
        rig.core = Core::new(ring(FeatureMask::NONE), &store);
        rig.warm(0);
        assert!(!rig.is_there(0));
    }
}
