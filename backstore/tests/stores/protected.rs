//! Media with protection information.

use crate::harness::{Core, data};
use crate::plain::Plain;
use backstore::{FileSettings, Kind, Settings, Store};
use backstore_api::{Answer, Checks, Protection, Repeated, Request, StoreError, Tag};
use std::{path::Path, sync::Arc};

const BLOCK: usize = 512;
const WHOLE: usize = BLOCK + 8;

fn settings(kind: Kind, protection: Protection) -> Settings {
    Settings { protection: Some(protection), ..Settings::new(kind) }
}

fn ram(protection: Protection) -> Arc<Store> {
    Store::open(&settings(Kind::Ram { bytes: 1 << 20, preallocate: false }, protection)).unwrap()
}

fn file(path: &Path) -> Arc<Store> {
    let mut file = FileSettings::new(path, Some(1 << 20));
    (file.direct, file.least_alignment) = (true, 4096);
    Store::open(&settings(Kind::File(file), Protection::Type1)).unwrap()
}

/// The CRC of the standard, bit by bit: polynomial 8BB7h.
fn crc(block: &[u8]) -> u16 {
    block.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| crc << 1 ^ if crc >> 15 == 1 { 0x8BB7 } else { 0 })
    })
}

/// Blocks of a byte each, with tuples of this application tag, and reference tags from `reference` on.
fn with_tuples(bytes: &[u8], application: u16, reference: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for (nth, byte) in bytes.iter().enumerate() {
        let block = [*byte; BLOCK];
        out.extend(block);
        out.extend(crc(&block).to_be_bytes());
        out.extend(application.to_be_bytes());
        out.extend((reference + nth as u32).to_be_bytes());
    }
    out
}

fn checks(reference: u32) -> Checks {
    Checks { block_size: BLOCK as u32, guard: true, application: None, reference: Some(reference) }
}

fn write(core: &mut Core<Plain>, lba: u64, bytes: &[u8], checks: Checks) -> Result<(), StoreError> {
    let mut buffer = core.buffer(bytes.len() + 3);
    buffer[3..3 + bytes.len()].copy_from_slice(bytes);
    let range = 3..3 + bytes.len() as u32;
    let offset = lba * BLOCK as u64;
    let completion = core.run(Request::WriteTuples { offset, buffer, range, durable: lba & 1 == 1, checks });
    let buffer = completion.buffer.expect("the buffer came back");
    assert!(buffer[3..3 + bytes.len()] == *bytes, "and is as it was");
    completion.result.map(|answer| assert_eq!(answer, Answer::Done))
}

fn read(core: &mut Core<Plain>, lba: u64, blocks: usize, checks: Checks) -> Result<Vec<u8>, StoreError> {
    let length = (blocks * WHOLE) as u32;
    // Room for what lies around an unaligned read of a direct file.
    let buffer = core.buffer(length as usize + 8192);
    let request = Request::ReadTuples { offset: lba * BLOCK as u64, buffer, range: 0..length, checks };
    data(core.run(request), length)
}

#[test]
fn tuples_come_back_as_they_were_written_and_plain_reads_leave_them_out() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for store in [ram(Protection::Type1), file(&folder.path().join("disk"))] {
        let mut core = Core::new(Plain::new(), &store);
        let bytes = with_tuples(&[1, 2, 3, 4, 5], 0xABCD, 77);
        write(&mut core, 77, &bytes, checks(77)).unwrap();
        assert_eq!(read(&mut core, 77, 5, checks(77)).unwrap(), bytes);
        assert_eq!(read(&mut core, 79, 2, checks(79)).unwrap(), bytes[2 * WHOLE..4 * WHOLE]);
        let plain = core.read(78 * 512, 1024).unwrap();
        assert!(plain[..512] == [2; 512] && plain[512..] == [3; 512]);
        // A plain write makes the tuples itself.
        core.write(78 * 512, &[9; 512], false).unwrap();
        assert_eq!(read(&mut core, 78, 1, checks(78)).unwrap(), with_tuples(&[9], 0, 78));
    }
}

#[test]
fn each_check_names_the_tag_and_the_block() {
    let mut core = Core::new(Plain::new(), &ram(Protection::Type1));
    let good = with_tuples(&[1, 2, 3], 5, 10);
    let mut bad = good.clone();
    bad[WHOLE + 7] ^= 1;
    let wrong = |tag, lba: u64| Err(StoreError::Protection { tag, offset: lba * 512 });
    assert_eq!(write(&mut core, 10, &bad, checks(10)), wrong(Tag::Guard, 11));
    assert_eq!(core.read(10 * 512, 1536).unwrap(), [0; 1536], "nothing was written");
    assert_eq!(write(&mut core, 10, &good, checks(9)), wrong(Tag::Reference, 10));
    let application = Checks { application: Some((4, 0xFF)), ..checks(10) };
    assert_eq!(write(&mut core, 10, &good, application), wrong(Tag::Application, 10));
    // What is not to be checked is stored, and found by whoever checks.
    write(&mut core, 10, &bad, Checks::none(512)).unwrap();
    assert_eq!(read(&mut core, 10, 3, Checks::none(512)).unwrap(), bad);
    assert_eq!(read(&mut core, 10, 3, checks(10)).map(drop), wrong(Tag::Guard, 11));
    assert_eq!(core.read(10 * 512, 1536).map(drop), wrong(Tag::Guard, 11));
    write(&mut core, 20, &good, Checks::none(512)).unwrap();
    assert_eq!(core.read(20 * 512, 512).map(drop), wrong(Tag::Reference, 20));
    let mut others = Core::new(Plain::new(), &ram(Protection::Type3));
    write(&mut others, 20, &good, Checks::none(512)).unwrap();
    others.read(20 * 512, 512).expect("no reference tag is checked by itself in type 3");
}

#[test]
fn what_was_never_written_or_was_discarded_has_tuples_of_ones() {
    let mut core = Core::new(Plain::new(), &ram(Protection::Type2));
    let ones = |core: &mut Core<Plain>, lba| {
        let read = read(core, lba, 8, Checks::none(512)).unwrap();
        read.chunks(WHOLE).all(|block| block[..BLOCK] == [0; BLOCK] && block[BLOCK..] == [0xFF; 8])
    };
    assert!(ones(&mut core, 8));
    core.write(8 * 512, &[7; 4096], false).unwrap();
    assert!(!ones(&mut core, 8));
    core.simple(Request::Discard { offset: 4096, length: 4096 }).unwrap();
    assert!(ones(&mut core, 8));
    core.write(8 * 512, &[7; 4096], false).unwrap();
    core.simple(Request::Zero { offset: 4096, length: 4096, unmap: true, durable: false }).unwrap();
    assert!(ones(&mut core, 8));
    // Zeroes that were asked for have tuples like other data.
    core.simple(Request::Zero { offset: 4096, length: 4096, unmap: false, durable: false }).unwrap();
    assert_eq!(read(&mut core, 9, 1, checks(9)).unwrap(), with_tuples(&[0], 0, 9));
}

#[test]
fn long_repetitions_get_all_their_tuples() {
    let mut core = Core::new(Plain::new(), &ram(Protection::Type1));
    let mut buffer = core.buffer(512);
    buffer[..512].fill(6);
    let (offset, length) = (3 * 512, 1500 * 512);
    core.simple(Request::Fill { offset, length, buffer, pattern: 512, durable: true, tuple: None }).unwrap();
    for lba in [3, 514, 515, 1502] {
        assert_eq!(read(&mut core, lba, 1, checks(lba as u32)).unwrap(), with_tuples(&[6], 0, lba as u32));
    }
    assert!(read(&mut core, 1503, 1, checks(1503)).unwrap()[..BLOCK] == [0; BLOCK], "and no more");
    // Three blocks that come again and again.
    let mut buffer = core.buffer(1536);
    buffer[..1536].copy_from_slice(&[[1; 512], [2; 512], [3; 512]].concat());
    let length = 1000 * 512;
    core.simple(Request::Fill { offset, length, buffer, pattern: 1536, durable: false, tuple: None }).unwrap();
    assert_eq!(read(&mut core, 514, 3, checks(514)).unwrap(), with_tuples(&[2, 3, 1], 0, 514));
}

#[test]
fn a_part_of_the_last_block_may_be_read() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for store in [ram(Protection::Type1), file(&folder.path().join("disk"))] {
        let mut core = Core::new(Plain::new(), &store);
        core.write(8 * 512, &[7; 1024], false).unwrap();
        for length in [1, 511, 513, 1000] {
            assert_eq!(core.read(8 * 512, length).unwrap(), vec![7; length as usize]);
        }
        write(&mut core, 9, &with_tuples(&[1], 0, 1), Checks::none(512)).unwrap();
        assert!(core.read(8 * 512, 512).is_ok());
        assert!(core.read(8 * 512, 513).is_err(), "it is checked whole");
    }
}

#[test]
fn every_write_is_alone_and_the_medium_ends_before_its_tuples() {
    let core = Core::new(Plain::new(), &ram(Protection::Type1));
    assert_eq!(core.queue.exclusive(512..1024), Some(512..1024));
    let bytes = core.queue.geometry().bytes;
    assert!(bytes.is_multiple_of(512) && bytes < (1 << 20) - bytes / 512 * 8);
    assert!(bytes > (1 << 20) * 512 / 520 - 8192, "{bytes}");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let core = Core::new(Plain::new(), &file(&folder.path().join("disk")));
    // The tuples of 512 blocks are in one block of the file.
    assert_eq!(core.queue.exclusive(512..1024), Some(0..512 * 512));
    let mut core = Core::new(Plain::new(), &ram(Protection::Type1));
    let beyond = core.read(bytes, 512);
    assert!(beyond.is_err(), "the tuples are nobody's data");
    let tiny = settings(Kind::Ram { bytes: 512, preallocate: false }, Protection::Type1);
    assert!(Store::open(&tiny).is_err(), "no room for tuples");
}

#[test]
fn a_store_without_tuples_refuses_requests_with_them() {
    let store = Store::open(&Settings::new(Kind::Ram { bytes: 1 << 20, preallocate: false })).unwrap();
    let mut core = Core::new(Plain::new(), &store);
    assert!(read(&mut core, 0, 1, checks(0)).is_err());
    assert!(write(&mut core, 0, &with_tuples(&[1], 0, 0), checks(0)).is_err());
}

#[test]
fn a_pattern_of_a_whole_buffer_fills_a_range() {
    let mut core = Core::new(Plain::new(), &ram(Protection::Type1));
    let mut buffer = core.buffer(65536);
    buffer.fill(9);
    let length = core.queue.geometry().bytes;
    core.simple(Request::Fill { offset: 0, length, buffer, pattern: 65536, durable: false, tuple: None }).unwrap();
    assert_eq!(read(&mut core, 1000, 1, checks(1000)).unwrap(), with_tuples(&[9], 0, 1000));
}

#[test]
fn a_tuple_that_comes_with_a_block_is_checked_and_counted_on() {
    for kind in [Protection::Type1, Protection::Type2, Protection::Type3] {
        let mut core = Core::new(Plain::new(), &ram(kind));
        let block = [0x3C; 512];
        let guard = crc(&block);
        let given =
            |guard: u16, reference: u32| [&guard.to_be_bytes()[..], &[0xAB, 0xCD], &reference.to_be_bytes()].concat();
        let checks = Checks { block_size: 512, guard: true, application: None, reference: Some(77) };
        // In two pieces: the second one counts on from the first.
        let fill = |core: &mut Core<Plain>, offset: u64, blocks: u64, tuple: &[u8], checks: Checks| {
            let mut buffer = core.buffer(WHOLE);
            buffer[..WHOLE].copy_from_slice(&[&block[..], tuple].concat());
            let tuple = Some(Repeated { checks, from: 4 * 512 });
            let length = blocks * 512;
            core.simple(Request::Fill { offset, length, buffer, pattern: WHOLE as u32, durable: false, tuple })
                .map(drop)
        };
        fill(&mut core, 4 * 512, 3, &given(guard, 77), checks).unwrap();
        fill(&mut core, 7 * 512, 2, &given(guard, 77), checks).unwrap();
        let wrong = |tag| Err(StoreError::Protection { tag, offset: 4 * 512 });
        assert_eq!(fill(&mut core, 4 * 512, 3, &given(!guard, 77), checks), wrong(Tag::Guard));
        assert_eq!(fill(&mut core, 4 * 512, 3, &given(guard, 78), checks), wrong(Tag::Reference));
        // Unchecked, it is kept as it came.
        fill(&mut core, 20 * 512, 1, &given(!guard, 1), Checks::none(512)).unwrap();
        for (first, blocks, guard, reference) in [(4, 5, guard, 77), (20, 1, !guard, 1 + 16)] {
            let found = read(&mut core, first, blocks, Checks::none(512)).unwrap();
            for (nth, found) in found.chunks(520).enumerate() {
                let reference = match kind {
                    Protection::Type3 if first == 20 => 1,
                    Protection::Type3 => 77,
                    _ => reference + nth as u32,
                };
                assert_eq!(found[..512], block);
                assert_eq!(found[512..], given(guard, reference), "{kind:?} {first}+{nth}");
            }
        }
    }
}
