//! CRC32C of a header, a block and a large data segment, whole and in pieces.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
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

criterion_group!(benches, digests);
criterion_main!(benches);
