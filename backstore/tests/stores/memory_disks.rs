//! RAM and null disks.

use crate::harness::Core;
use crate::plain::Plain;
use backstore::{Kind, Settings, Store};
use backstore_api::{Request, Submitted};

#[test]
fn ram_is_shared_by_all_cores_and_answers_at_once() {
    let store = Store::open(&Settings::new(Kind::Ram { bytes: 1 << 20, preallocate: false })).unwrap();
    let mut one = Core::new(Plain::new(), &store);
    let mut two = Core::new(Plain::new(), &store);
    let request = one.write_request(512, &[7; 1024], true);
    assert!(matches!(one.offer(request).1, Submitted::Done(_)));
    let mut found = [0; 1024];
    two.queue.read_now(512, &mut found).unwrap().unwrap();
    assert_eq!(found, [7; 1024]);
    let (region, at) = two.queue.region(512, 1024).unwrap();
    region.read(at, &mut found);
    assert_eq!(found, [7; 1024]);
    one.queue.write_now(1024, &[8; 512]).unwrap().unwrap();
    two.queue.read_now(512, &mut found).unwrap().unwrap();
    assert_eq!((found[511], found[512]), (7, 8));
    assert!(one.queue.write_now((1 << 20) - 256, &[8; 512]).unwrap().is_err());
    assert!(two.queue.region((1 << 20) - 512, 1024).is_none());
    assert!(two.queue.read_now(1 << 20, &mut found).unwrap().is_err());
}

#[test]
fn ram_tells_what_was_written_and_forgets_what_was_discarded() {
    let bytes = 4 << 20;
    let store = Store::open(&Settings::new(Kind::Ram { bytes, preallocate: false })).unwrap();
    let mut core = Core::new(Plain::new(), &store);
    assert_eq!(core.status(0, bytes, 9), [(0, bytes, false)]);
    core.write(4096 * 63, &[1; 8192], false).unwrap();
    let mapped = (4096 * 63, 8192, true);
    assert_eq!(core.status(0, bytes, 9)[1], mapped);
    assert_eq!(core.status(0, bytes, 9).len(), 3);
    // Half a granule stays, whole ones go.
    core.simple(Request::Discard { offset: 4096 * 63 + 512, length: 8192 }).unwrap();
    assert_eq!(core.status(4096 * 63, 8192, 9), [(4096 * 63, 4096, true), (4096 * 64, 4096, false)]);
    assert_eq!(core.read(4096 * 63, 4096).unwrap(), [1; 4096]);
    assert_eq!(core.read(4096 * 64, 4096).unwrap(), [0; 4096]);
    // Zeroes that are to stay mapped are.
    core.simple(Request::Zero { offset: 0, length: 4096, unmap: false, durable: false }).unwrap();
    assert_eq!(core.status(512, 512, 9), [(512, 512, true)]);
    core.simple(Request::Zero { offset: 0, length: bytes, unmap: true, durable: false }).unwrap();
    assert_eq!(core.status(0, bytes, 9), [(0, bytes, false)]);
    assert_eq!(core.status(0, bytes, 0), []);
}

#[test]
fn ram_that_was_preallocated_keeps_its_memory() {
    let bytes = 4 << 20;
    let store = Store::open(&Settings::new(Kind::Ram { bytes, preallocate: true })).unwrap();
    let mut core = Core::new(Plain::new(), &store);
    let geometry = core.queue.geometry();
    assert_eq!((geometry.discard_granularity, geometry.discard_zeroes), (0, false));
    assert_eq!(core.read(0, 8192).unwrap(), [0; 8192]);
    core.write(4096, &[1; 8192], false).unwrap();
    core.simple(Request::Discard { offset: 0, length: bytes }).unwrap();
    assert_eq!(core.read(4096, 8192).unwrap(), [1; 8192], "a discard is no more than a hint");
    core.simple(Request::Zero { offset: 4096, length: 4096, unmap: true, durable: false }).unwrap();
    assert_eq!((core.read(4096, 4096).unwrap(), core.read(8192, 4096).unwrap()), (vec![0; 4096], vec![1; 4096]));
    assert_eq!(core.status(0, bytes, 9), [(0, 8192, false), (8192, 4096, true), (12288, bytes - 12288, false)]);
}

#[test]
fn null_reads_zeroes_and_keeps_nothing() {
    let store = Store::open(&Settings::new(Kind::Null { bytes: 1 << 40 })).unwrap();
    let mut core = Core::new(Plain::new(), &store);
    core.write(1 << 30, &[1; 4096], true).unwrap();
    assert_eq!(core.read(1 << 30, 4096).unwrap(), [0; 4096]);
    let mut found = [9; 512];
    core.queue.read_now(0, &mut found).unwrap().unwrap();
    assert_eq!(found, [0; 512]);
    core.queue.write_now(1 << 39, &[1; 512]).unwrap().unwrap();
    let (zeroes, at) = core.queue.region(1 << 39, 512).unwrap();
    found.fill(9);
    zeroes.read(at, &mut found);
    assert_eq!(found, [0; 512]);
    let outside = (1 << 40) - 256;
    assert!(core.queue.read_now(outside, &mut found).unwrap().is_err());
    assert!(core.queue.write_now(outside, &found).unwrap().is_err());
    assert!(core.queue.region(outside, 512).is_none());
    assert_eq!(core.status(0, 1 << 40, 5), [(0, 1 << 40, false)]);
    core.simple(Request::Flush).unwrap();
}
