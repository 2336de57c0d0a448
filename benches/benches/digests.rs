//! CRC32C of a header, a block and a large data segment, whole and in pieces; and of what is copied out of a RAM volume.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use memory::{Ahead, Region};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{collections::VecDeque, hint::black_box};
use wire::{Crc32c, crc32c};

fn digests(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    for (name, len) in [("48 B", 48), ("4 KiB", 4 << 10), ("256 KiB", 256 << 10)] {
        let bytes = vec![0x5a; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::new("whole", name), &bytes, |b, bytes| b.iter(|| crc32c(black_box(bytes))));
        group.bench_with_input(BenchmarkId::new("in two pieces", name), &bytes, |b, bytes| {
            b.iter(|| {
                let (first, second) = black_box(bytes).split_at(len / 2);
                let mut crc = Crc32c::new();
                crc.update(first);
                crc.update(second);
                crc.finish()
            });
        });
    }
    group.finish();
}

/// Reads under a data digest, from random places of a volume that no cache holds. Each place is fetched when eight others are
/// still to be copied, as the server does. Behind each, a while passes as with a command: it is in the time, too.
fn copies(c: &mut Criterion) {
    const VOLUME: u64 = 1 << 30;
    const AHEAD: usize = 8;
    const MESSAGE: usize = 128 << 10;
    let region = Region::new(VOLUME).expect("1 GiB of memory");
    region.populate().expect("1 GiB of memory");
    let mut group = c.benchmark_group("copied");
    for (name, length) in [("4 KiB", 4 << 10), ("16 KiB", 16 << 10)] {
        group.throughput(Throughput::Bytes(length as u64));
        for (way, together) in [("then digested", false), ("with its digest", true)] {
            let (mut message, mut places) = (Vec::with_capacity(2 * MESSAGE), VecDeque::new());
            let (mut ahead, mut random) = (Ahead::default(), StdRng::seed_from_u64(7));
            group.bench_function(BenchmarkId::new(way, name), |b| {
                b.iter(|| {
                    while places.len() <= AHEAD {
                        let offset = random.random_range(0..VOLUME / length as u64) * length as u64;
                        ahead.add(&region, offset, length);
                        places.push_back(offset);
                    }
                    (0..1000).fold(1_u64, |x, n| black_box(x.wrapping_mul(n)));
                    if message.len() > MESSAGE {
                        message.clear();
                    }
                    let offset = places.pop_front().expect("some are ahead");
                    // A header.
                    message.extend_from_slice(&[0; 48]);
                    let mut crc = Crc32c::new();
                    if together {
                        let next = places.front().map(|next| (&*region, *next));
                        crc.append((&region, offset), length, &mut message, next);
                    } else {
                        let start = message.len();
                        region.append_to(offset, length, &mut message);
                        crc.update(&message[start..]);
                    }
                    message.extend_from_slice(&wire::digest::to_wire(crc.finish()));
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, digests, copies);
criterion_main!(benches);
