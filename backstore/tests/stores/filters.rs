//! Filters around a store.

use crate::harness::Core;
use crate::plain::Plain;
use backstore::{Delay, Fault, Filter, Kind, Kinds, Limit, Settings, Store};
use backstore_api::{Request, StoreError, Submitted};
use std::{sync::Arc, time::Duration};

fn ram(filters: Vec<Filter>) -> Arc<Store> {
    let mut settings = Settings::new(Kind::Ram { bytes: 1 << 20, preallocate: false });
    settings.filters = filters;
    Store::open(&settings).unwrap()
}

#[test]
fn delay_completes_after_its_time_and_says_when() {
    let by = Duration::from_millis(50);
    let store = ram(vec![Filter::Delay(Delay { by })]);
    let mut core = Core::new(Plain::new(), &store);
    let start = core.reactor.now;
    let request = core.write_request(0, &[1; 512], false);
    let (tag, submitted) = core.offer(request);
    assert!(matches!(submitted, Submitted::Pending));
    assert_eq!((core.queue.in_flight(), core.queue.deadline()), (1, Some(start + by)));
    core.reactor.now = start + by - Duration::from_nanos(1);
    assert!(core.turn().is_empty());
    core.reactor.now = start + by;
    assert_eq!(core.turn()[0].tag, tag);
    assert_eq!((core.queue.in_flight(), core.queue.deadline()), (0, None));
    assert!(core.queue.read_now(0, &mut [0; 512]).is_none(), "no way around the delay");
    assert!(core.queue.region(0, 512).is_none());
    assert!(core.queue.write_now(0, &[0; 512]).is_none());
}

#[test]
fn faults_strike_their_kind_and_range_and_stop_after_their_count() {
    let fault = Fault {
        kinds: Kinds { read: true, write: false, flush: false },
        range: Some(8192..12288),
        per_million: 1_000_000,
        count: Some(2),
        error: StoreError::Medium { offset: 0 },
        seed: 1,
    };
    let store = ram(vec![Filter::Fault(fault)]);
    let mut core = Core::new(Plain::new(), &store);
    core.write(8192, &[1; 4096], false).unwrap();
    core.read(4096, 4096).unwrap();
    assert_eq!(core.read(4096, 8192), Err(StoreError::Medium { offset: 8192 }));
    assert!(core.queue.read_now(8704, &mut [0; 512]).is_none());
    assert!(core.queue.read_now(0, &mut [0; 512]).is_some());
    assert!(core.queue.region(8704, 512).is_none());
    assert!(core.queue.region(8704, 0).is_some(), "of no blocks none is faulty");
    assert!(core.queue.write_now(8704, &[1; 512]).is_some(), "writes are spared");
    assert_eq!(core.read(9216, 512), Err(StoreError::Medium { offset: 9216 }));
    assert_eq!(core.read(9216, 512).unwrap(), [1; 512]);
}

#[test]
fn faults_are_as_frequent_as_asked_and_the_same_for_a_seed() {
    let run = |seed| {
        let fault = Fault {
            kinds: Kinds::ALL,
            range: None,
            per_million: 250_000,
            count: None,
            error: StoreError::NoSpace,
            seed,
        };
        let store = ram(vec![Filter::Fault(fault)]);
        let mut core = Core::new(Plain::new(), &store);
        (0..400).map(|_| core.simple(Request::Flush).is_err()).collect::<Vec<_>>()
    };
    let struck = run(3);
    assert_eq!(struck, run(3));
    assert_ne!(struck, run(4));
    let count = struck.iter().filter(|struck| **struck).count();
    assert!((60..140).contains(&count), "{count} of 400");
}

#[test]
fn limit_holds_all_cores_together_to_the_rate() {
    let limit = Limit { per_second: Some(100), burst: 2, in_flight: None };
    let store = ram(vec![Filter::Limit(limit)]);
    let mut one = Core::new(Plain::new(), &store);
    let mut two = Core::new(Plain::new(), &store);
    let start = one.reactor.now;
    let mut done = 0;
    // Offers more than fits, on both cores, for a second.
    for tick in 0..1000u32 {
        for core in [&mut one, &mut two] {
            core.reactor.now = start + Duration::from_millis(1) * tick;
            if core.queue.in_flight() < 3 && matches!(core.offer(Request::Flush).1, Submitted::Done(_)) {
                done += 1;
            }
            done += core.turn().len();
        }
    }
    assert!((100..=102).contains(&done), "{done} in a second");
    assert!(one.queue.deadline().is_some_and(|due| due >= start + Duration::from_millis(990)));
}

#[test]
fn limit_refuses_more_in_flight_than_it_says() {
    let filters = vec![
        Filter::Delay(Delay { by: Duration::from_millis(1) }),
        Filter::Limit(Limit { per_second: None, burst: 1, in_flight: Some(2) }),
    ];
    let store = ram(filters);
    let mut core = Core::new(Plain::new(), &store);
    assert!(matches!(core.offer(Request::Flush).1, Submitted::Pending));
    assert!(matches!(core.offer(Request::Flush).1, Submitted::Pending));
    assert!(matches!(core.offer(Request::Flush).1, Submitted::Full(_)));
    core.reactor.now += Duration::from_millis(1);
    assert_eq!(core.turn().len(), 2);
    assert!(matches!(core.offer(Request::Flush).1, Submitted::Pending));
}

#[test]
fn limit_counts_requests_and_not_what_a_store_does_by_itself() {
    const HUGE: u64 = 2 << 20;
    let filters = vec![Filter::Limit(Limit { per_second: None, burst: 1, in_flight: Some(1) })];
    let settings = Settings { filters, ..Settings::new(Kind::Ram { bytes: 16 * HUGE, preallocate: false }) };
    let store = Store::open(&settings).unwrap();
    let mut core = Core::new(Plain::new(), &store);
    // Who writes one block after the other has memory got ahead.
    for offset in [0, HUGE - 512] {
        core.write(offset, &[7; 512], false).unwrap();
    }
    let request = core.write_request(HUGE, &[7; 512], false);
    assert!(matches!(core.offer(request).1, Submitted::Pending));
    let request = core.write_request(0, &[8; 512], false);
    assert!(matches!(core.offer(request).1, Submitted::Full(_)));
    while core.turn().is_empty() {}
    assert_eq!(core.queue.in_flight(), 1, "the next page is on its way");
    let request = core.write_request(0, &[8; 512], false);
    assert!(matches!(core.offer(request).1, Submitted::Done(_)));
    core.drain();
}
