//! A block device with 4096-byte sectors: a loop device, which needs root. Without one the tests say so and pass,
//! unless RINGLUN_REQUIRE_LOOP=1.

use crate::harness::Core;
use crate::model::{Act, Model};
use crate::on_ring::{long_sequence, ring};
use crate::plain::Plain;
use backstore::{BlockSettings, Kind, Settings, Store};
use backstore_api::{Request, StoreError};
use reactor::FeatureMask;
use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, process::Command, sync::Arc};

struct Loop {
    folder: tempfile::TempDir,
    device: PathBuf,
}

impl Loop {
    const BYTES: u64 = 2 << 20;

    fn new() -> Option<Loop> {
        Self::with(&[])
    }

    fn with(more: &[&str]) -> Option<Loop> {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let image = folder.path().join("image");
        fs::File::create(&image).unwrap().set_len(Self::BYTES).unwrap();
        let made = Command::new("losetup").args(["-b", "4096", "--show", "-f"]).args(more).arg(&image).output();
        let why = match made {
            Ok(made) if made.status.success() => {
                let device = String::from_utf8(made.stdout).unwrap().trim().into();
                return Some(Loop { folder, device });
            }
            Ok(made) => String::from_utf8_lossy(&made.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        if std::env::var("RINGLUN_REQUIRE_LOOP").is_ok_and(|value| value == "1") {
            panic!("no loop device: {why}");
        }
        eprintln!("not tested, a loop device needs root: {why}");
        None
    }

    fn settings(&self, direct: bool) -> Settings {
        self.pinning(direct, 0)
    }

    fn pinning(&self, direct: bool, pinned: u64) -> Settings {
        let path = self.device.clone();
        Settings::new(Kind::Block(BlockSettings { path, direct, poll: true, pinned, read_only: false }))
    }

    /// A ring lets go of its files some time after it was closed.
    fn open(&self, direct: bool) -> Arc<Store> {
        for _ in 0..400 {
            if let Ok(store) = Store::open(&self.settings(direct)) {
                return store;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Store::open(&self.settings(direct)).unwrap()
    }

    fn blocks(&self) -> u64 {
        fs::metadata(self.folder.path().join("image")).unwrap().blocks()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

#[test]
fn limits_come_from_the_kernel() {
    let Some(device) = Loop::new() else { return };
    for (direct, alignment) in [(true, 4096), (false, 1)] {
        let store = Store::open(&device.settings(direct)).unwrap();
        let geometry = store.geometry();
        assert_eq!((geometry.bytes, geometry.alignment), (Loop::BYTES, alignment));
        assert_eq!(geometry.physical_block, 4096);
        assert!(geometry.persistent && !geometry.read_only);
        assert!(geometry.discard_granularity >= 4096 && geometry.discard_zeroes);
    }
}

#[test]
fn a_device_that_is_in_use_is_refused() {
    let Some(device) = Loop::new() else { return };
    let first = Store::open(&device.settings(true)).unwrap();
    let text = Store::open(&device.settings(true)).expect_err("a refusal").to_string();
    assert!(text.contains("is in use"), "{text}");
    drop(first);
    Store::open(&device.settings(true)).unwrap();
    let Kind::Block(BlockSettings { path, .. }) = device.settings(true).kind else { unreachable!() };
    let file = Kind::File(backstore::FileSettings::new(path, None));
    let text = Store::open(&Settings::new(file)).expect_err("a refusal").to_string();
    assert!(text.contains("kind = \"block\""), "{text}");
}

#[test]
fn a_read_only_device_says_so() {
    let Some(device) = Loop::with(&["-r"]) else { return };
    let text = Store::open(&device.settings(true)).expect_err("a refusal").to_string();
    assert!(text.contains("read_only = true"), "{text}");
    let mut settings = device.settings(true);
    if let Kind::Block(block) = &mut settings.kind {
        block.read_only = true;
    }
    let store = Store::open(&settings).unwrap();
    let mut core = Core::new(Plain::new(), &store);
    assert_eq!(core.write(0, &[1; 4096], false), Err(StoreError::ReadOnly));
    assert_eq!(core.read(512, 1024).unwrap(), [0; 1024]);
}

#[test]
fn a_device_keeps_its_bytes() {
    let Some(device) = Loop::new() else { return };
    for direct in [true, false] {
        let store = device.open(direct);
        let mut model = Model::new(Core::new(ring(FeatureMask::NONE), &store));
        let length = Loop::BYTES;
        model.core.simple(Request::Zero { offset: 0, length, unmap: false, durable: true }).unwrap();
        for act in &long_sequence() {
            model.act(act);
        }
        model.compare();
        // What was written is on the device, not only in what this descriptor sees.
        model.act(&Act::Flush);
        model.compare();
    }
}

#[test]
fn discard_gives_space_back() {
    let Some(device) = Loop::new() else { return };
    let store = Store::open(&device.settings(true)).unwrap();
    let mut core = Core::new(ring(FeatureMask::NONE), &store);
    for at in 0..8 {
        core.write(at << 18, &[1; 256 << 10], true).unwrap();
    }
    let full = device.blocks();
    core.simple(Request::Discard { offset: 512, length: 1 << 20 }).unwrap();
    core.simple(Request::Flush).unwrap();
    assert!(device.blocks() + (1 << 19) / 512 < full, "{} of {full} blocks are left", device.blocks());
    assert_eq!(core.read(0, 512).unwrap(), [1; 512], "a partial granule stays");
    assert_eq!(core.read(65536, 4096).unwrap(), [0; 4096]);
    assert_eq!(core.status(0, 1 << 20, 4), [(0, 1 << 20, true)], "a device doesn't say where its holes are");
}

#[test]
fn pages_of_a_device_are_sent_from_memory_until_they_are_taken_away() {
    let requests: [fn() -> Request; 3] = [
        || Request::Discard { offset: 0, length: 65_536 },
        || Request::Zero { offset: 0, length: 65_536, unmap: true, durable: false },
        || Request::Zero { offset: 0, length: 65_536, unmap: false, durable: true },
    ];
    for (n, request) in requests.into_iter().enumerate() {
        let Some(device) = Loop::new() else { return };
        let store = Store::open(&device.pinning(false, Loop::BYTES)).unwrap();
        let mut core = Core::new(ring(FeatureMask::NONE), &store);
        core.write(0, &vec![7; 256 << 10], true).unwrap();
        let sent = |core: &Core<_>, offset| {
            let lease = core.queue.pages(offset, 4096)?.lease();
            let mut bytes = vec![1; 4096];
            assert!(lease.holds(offset, 4096));
            lease.read(offset, &mut bytes).unwrap();
            assert!(bytes.iter().all(|byte| *byte == bytes[0]));
            Some(bytes[0])
        };
        let warm = |core: &mut Core<_>| {
            for at in 0..12 {
                core.read(at * 4096, 4096).unwrap();
            }
            core.drain();
        };
        assert_eq!(sent(&core, 0), None);
        warm(&mut core);
        assert_eq!(
            (sent(&core, 0), sent(&core, 128 << 10), sent(&core, 512 << 10)),
            (Some(7), Some(7), Some(0)),
            "{n}"
        );
        core.write(8192, &[9; 4096], false).unwrap();
        assert_eq!(sent(&core, 8192), Some(9), "{n}");
        core.simple(request()).unwrap();
        assert_eq!(sent(&core, 0), None, "{n}: a chunk from which pages were taken");
        assert_eq!([0, 128 << 10].map(|at| core.read(at, 4096).unwrap()[0]), [0, 7], "{n}");
        warm(&mut core);
        assert_eq!([0, 128 << 10].map(|at| sent(&core, at)), [Some(0), Some(7)], "{n}");
    }
}

#[test]
fn pages_of_a_device_that_becomes_smaller_are_an_error_and_no_signal() {
    let Some(device) = Loop::new() else { return };
    let store = Store::open(&device.pinning(false, Loop::BYTES)).unwrap();
    let mut core = Core::new(ring(FeatureMask::NONE), &store);
    for at in 0..12 {
        core.read(at * 4096, 4096).unwrap();
    }
    core.drain();
    let lease = core.queue.pages(1 << 20, 4096).unwrap().lease();
    assert!(lease.holds(1 << 20, 4096));
    fs::OpenOptions::new().write(true).open(device.folder.path().join("image")).unwrap().set_len(65_536).unwrap();
    assert!(Command::new("losetup").arg("-c").arg(&device.device).status().unwrap().success());
    // Whether the kernel has dropped the pages by now is its business.
    let mut bytes = [1; 4096];
    match lease.read(1 << 20, &mut bytes) {
        Ok(()) => assert_eq!(bytes, [0; 4096]),
        Err(error) => assert_eq!(error.raw_os_error(), Some(14)),
    }
    assert_eq!(core.read(0, 4096).unwrap(), [0; 4096]);
}
