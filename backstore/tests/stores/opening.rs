//! Opening files: what is made, what is refused, and what the refusal says.

use crate::harness::Core;
use crate::plain::Plain;
use backstore::{BlockSettings, FileSettings, Kind, OpenError, Settings, Store};
use backstore_api::{Request, StoreError};
use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn open(file: FileSettings) -> Result<Arc<Store>, OpenError> {
    Store::open(&Settings::new(Kind::File(file)))
}

/// The refusal's text.
fn refusal(file: FileSettings) -> String {
    open(file).expect_err("a refusal").to_string()
}

#[test]
fn a_store_is_shared_by_threads() {
    fn shared<T: Send + Sync + std::fmt::Debug>() {}
    shared::<Store>();
}

#[test]
fn a_sparse_file_is_made_with_its_size_and_no_space() {
    let folder = folder();
    let path = folder.path().join("disk");
    let store = open(FileSettings::new(&path, Some(8 << 20))).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.len(), found.blocks()), (8 << 20, 0));
    assert_eq!(found.mode() & 0o777, 0o600, "only its owner may read it");
    assert_eq!(store.geometry().bytes, 8 << 20);
    assert!(store.geometry().discard_granularity > 0);
}

#[test]
fn a_preallocated_file_has_its_space_and_keeps_it() {
    let folder = folder();
    let path = folder.path().join("disk");
    let mut file = FileSettings::new(&path, Some(1 << 20));
    file.preallocate = true;
    let store = open(file).unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
    assert_eq!(store.geometry().discard_granularity, 0);
    let mut core = Core::new(Plain::new(), &store);
    for piece in 0..4 {
        core.write(piece << 18, &[1; 1 << 18], false).unwrap();
    }
    core.simple(Request::Discard { offset: 0, length: 1 << 20 }).unwrap();
    assert_eq!(core.status(0, 1 << 20, 8), [(0, 1 << 20, true)], "a discard is no more than a hint");
    core.simple(Request::Zero { offset: 1 << 19, length: 1 << 19, unmap: true, durable: false }).unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
    assert_eq!(core.status(0, 1 << 20, 8), [(0, 1 << 19, true), (1 << 19, 1 << 19, false)]);
}

#[test]
fn an_existing_file_gives_its_own_size() {
    let folder = folder();
    let path = folder.path().join("disk");
    fs::write(&path, vec![7; 12 << 10]).unwrap();
    let store = open(FileSettings::new(&path, None)).unwrap();
    assert_eq!(store.geometry().bytes, 12 << 10);
    let mut core = Core::new(Plain::new(), &store);
    assert_eq!(core.read(4096, 512).unwrap(), [7; 512]);
}

#[test]
fn refusals_name_the_place_the_cause_and_the_way_out() {
    let folder = folder();
    let path = folder.path().join("disk");
    let named = |bytes| FileSettings::new(&path, bytes);

    let text = refusal(named(None));
    assert!(text.contains("disk") && text.contains("doesn't exist") && text.contains("`size`"), "{text}");
    let text = refusal(FileSettings::new(folder.path().join("no/such/disk"), Some(4096)));
    assert!(text.contains("no/such is missing") && text.contains("mkdir -p"), "{text}");
    let text = refusal(FileSettings::new(folder.path(), Some(4096)));
    assert!(text.contains("is a folder"), "{text}");
    let text = refusal(FileSettings::new("/dev/null", Some(4096)));
    assert!(text.contains("not a regular file"), "{text}");

    fs::write(&path, vec![0; 8192]).unwrap();
    let text = refusal(named(Some(16384)));
    assert!(text.contains("smaller (8192 bytes) than `size` (16384 bytes)"), "{text}");
    assert!(text.contains("truncate -s 16384"), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 8192, "and the file is as it was");

    fs::write(&path, vec![0; 5000]).unwrap();
    let text = refusal(named(None));
    assert!(text.contains("not a multiple of the block size 512"), "{text}");
    assert!(text.contains("4608 or 5120"), "{text}");

    let block =
        Kind::Block(BlockSettings { path: path.clone(), direct: false, poll: false, pinned: 0, read_only: false });
    let text = Store::open(&Settings::new(block)).expect_err("a refusal").to_string();
    assert!(text.contains("not a block device") && text.contains("kind = \"file\""), "{text}");
}

#[test]
fn a_file_that_could_not_be_finished_is_not_left_behind() {
    let folder = folder();
    let path = folder.path().join("disk");
    let mut file = FileSettings::new(&path, Some(1 << 60));
    file.preallocate = true;
    let text = refusal(file);
    assert!(text.contains("size"), "{text}");
    assert!(!path.exists());
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_gone() {
    let folder = folder();
    let path = folder.path().join("disk");
    let first = open(FileSettings::new(&path, Some(1 << 20))).unwrap();
    let text = refusal(FileSettings::new(&path, None));
    assert!(text.contains("held by another process"), "{text}");
    let mut reader = FileSettings::new(&path, None);
    reader.read_only = true;
    assert!(open(reader.clone()).is_err(), "a reader would see half of a write");
    drop(first);
    let one = open(reader.clone()).unwrap();
    let two = open(reader).unwrap();
    assert!(open(FileSettings::new(&path, None)).is_err(), "readers keep writers out");
    drop((one, two));
    open(FileSettings::new(&path, None)).unwrap();
}

#[test]
fn every_core_uses_the_file_that_was_opened_once() {
    let folder = folder();
    let store = open(FileSettings::new(folder.path().join("disk"), Some(1 << 20))).unwrap();
    let mut one = Core::new(Plain::new(), &store);
    let mut two = Core::new(Plain::new(), &store);
    one.write(512, &[3; 1024], false).unwrap();
    assert_eq!(two.read(512, 1024).unwrap(), [3; 1024]);
}

#[test]
fn a_read_only_store_refuses_everything_that_writes() {
    let folder = folder();
    let path = folder.path().join("disk");
    fs::write(&path, vec![9; 8192]).unwrap();
    let mut file = FileSettings::new(&path, None);
    file.read_only = true;
    let store = open(file).unwrap();
    assert!(store.geometry().read_only);
    let mut core = Core::new(Plain::new(), &store);
    assert_eq!(core.write(0, &[1; 512], false), Err(StoreError::ReadOnly));
    for request in [
        Request::Discard { offset: 0, length: 4096 },
        Request::Zero { offset: 0, length: 4096, unmap: false, durable: false },
    ] {
        assert_eq!(core.simple(request), Err(StoreError::ReadOnly));
    }
    assert_eq!(core.simple(Request::Flush), Ok(()));
    assert_eq!(core.read(0, 8192).unwrap(), [9; 8192]);
}

#[test]
fn a_direct_file_whose_end_is_a_partial_block_keeps_its_size() {
    let folder = folder();
    let path = folder.path().join("disk");
    let bytes = (64 << 10) + 512;
    let mut file = FileSettings::new(&path, Some(bytes));
    file.direct = true;
    file.least_alignment = 4096;
    for _ in 0..2 {
        let store = open(file.clone()).unwrap();
        assert_eq!(store.geometry().bytes, bytes);
        let mut core = Core::new(Plain::new(), &store);
        core.write(bytes - 512, &[5; 512], true).unwrap();
        assert_eq!(core.read(bytes - 1024, 1024).unwrap()[512..], [5; 512]);
        assert!(core.read(bytes, 512).is_err());
    }
    // Without `size` the file's own length counts, and that isn't the disk's here: it has grown to whole blocks.
    file.bytes = None;
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(bytes).unwrap();
    assert!(refusal(file).contains("multiple of 4096"));
}

#[test]
fn a_size_that_is_no_number_of_blocks_is_refused() {
    for kind in [
        Kind::Ram { bytes: 1000, preallocate: false },
        Kind::Null { bytes: 1000 },
        Kind::Ram { bytes: 0, preallocate: false },
    ] {
        assert!(Store::open(&Settings::new(kind)).is_err());
    }
    let mut settings = Settings::new(Kind::Null { bytes: 4096 + 512 });
    Store::open(&settings).unwrap();
    settings.block_size = 4096;
    let text = Store::open(&settings).expect_err("a refusal").to_string();
    assert!(text.contains("4096 or 8192"), "{text}");
}

#[test]
fn a_queue_without_bounce_buffers_is_refused() {
    let folder = folder();
    let store = open(FileSettings::new(PathBuf::from(folder.path()).join("disk"), Some(1 << 20))).unwrap();
    let mut plain = Plain::new();
    let pool = reactor::Reactor::pool(&plain).clone();
    assert!(store.buffers_per_queue()[1] > 0);
    let _all: Vec<_> = std::iter::from_fn(|| pool.take(memory::Class::Medium)).collect();
    let error = store.queue(&mut plain, 0).err().expect("a refusal");
    assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
    assert!(store.queue(&mut plain, 5).is_err(), "a token base with a slot in it");
}

#[test]
fn a_size_that_changes_is_served_in_queues_that_are_open() {
    let folder = folder();
    let path = folder.path().join("disk");
    let settings = |bytes| Settings::new(Kind::File(FileSettings::new(&path, bytes)));
    let store = Store::open(&settings(Some(1 << 20))).unwrap();
    let mut core = Core::new(Plain::new(), &store);
    let end = Err(StoreError::OutOfRange { bytes: 1 << 20 });
    assert_eq!(core.write(1 << 20, &[1; 512], false), end);

    let error = store.measure(&settings(Some(2 << 20))).expect_err("the file is shorter").to_string();
    assert!(error.contains("is smaller"), "{error}");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2 << 20).unwrap();
    assert_eq!(store.measure(&settings(None)).unwrap(), 2 << 20);
    assert_eq!(core.write(1 << 20, &[1; 512], false), end, "nothing has changed yet");
    store.resize(2 << 20);
    assert_eq!(core.write(1 << 20, &[1; 512], false), Ok(()));

    store.resize(store.measure(&settings(Some(512 << 10))).unwrap());
    assert_eq!(core.read(512 << 10, 512), Err(StoreError::OutOfRange { bytes: 512 << 10 }));
    assert_eq!(fs::metadata(&path).unwrap().len(), 2 << 20, "the file keeps what is not served");
    assert_eq!((store.bytes(), store.geometry().bytes), (512 << 10, 1 << 20));
}

#[test]
fn memory_that_shrinks_and_grows_again_is_zero_there() {
    let settings = |bytes| Settings::new(Kind::Ram { bytes, preallocate: false });
    let store = Store::open(&settings(1 << 20)).unwrap();
    let mut core = Core::new(Plain::new(), &store);
    core.write(0, &[7; 128 << 10], false).unwrap();
    for bytes in [64 << 10, 1 << 20] {
        store.resize(store.measure(&settings(bytes)).unwrap());
    }
    assert_eq!(core.read((64 << 10) - 512, 1024).unwrap(), [[7; 512], [0; 512]].concat());
    let error = store.measure(&settings(1 << 50)).expect_err("there is no such memory").to_string();
    assert!(error.contains("while it is in use"), "{error}");
}

#[test]
fn memory_grows_beyond_what_it_had_at_first() {
    for preallocate in [false, true] {
        let settings = |bytes| Settings::new(Kind::Ram { bytes, preallocate });
        let store = Store::open(&settings(64 << 10)).unwrap();
        let mut core = Core::new(Plain::new(), &store);
        core.write(0, &[7; 64 << 10], false).unwrap();
        let end = Err(StoreError::OutOfRange { bytes: 64 << 10 });
        assert_eq!(store.measure(&settings(40 << 20)).unwrap(), 40 << 20);
        assert_eq!(core.write(64 << 10, &[1; 512], false), end, "nothing has changed yet");
        store.resize(40 << 20);
        let mut late = Core::new(Plain::new(), &store);
        late.write((40 << 20) - 512, &[9; 512], false).unwrap();
        assert_eq!(core.read((40 << 20) - 1024, 1024).unwrap(), [[0; 512], [9; 512]].concat());
        assert_eq!(core.read((64 << 10) - 512, 1024).unwrap(), [[7; 512], [0; 512]].concat());
    }
}
