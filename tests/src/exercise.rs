//! What any disk must do, checked from the outside: whole and partial bursts in every combination of negotiated keys,
//! caching, unmapping, verifying.

use crate::{Client, Target, client::options};
use initiator::cdb::{self, WriteSame};
use negotiation::{DigestChoice, Settings};
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Sessions that differ in what they negotiate.
pub fn manners() -> Vec<(&'static str, Settings)> {
    let default = Settings::default();
    let digests = Settings { header_digest: DigestChoice::Require, data_digest: DigestChoice::Require, ..default };
    vec![
        ("default", default),
        ("digests", digests),
        ("R2T for everything", Settings { initial_r2t: true, immediate_data: false, ..default }),
        ("unsolicited, not immediate", Settings { immediate_data: false, ..default }),
        (
            "small bursts, several R2Ts",
            Settings {
                initial_r2t: true,
                max_recv_data_segment_length: 4096,
                max_burst_length: 16384,
                first_burst_length: 4096,
                max_outstanding_r2t: 8,
                ..digests
            },
        ),
    ]
}

/// Does all of it to LUN 0 of `target`'s disk `short`, which is overwritten (16 MiB or more).
///
/// # Panics
/// When anything is not as it should be.
pub fn disk(target: &Target, short: &str) {
    for (what, settings) in manners() {
        let mut options = options(&target.name(short));
        options.settings = settings;
        let mut client = target.log_in(options).unwrap_or_else(|error| panic!("{short}, {what}: {error}"));
        client.settle();
        reads_and_writes(&mut client);
        caches(&mut client);
        zeroes(&mut client);
        verifies(&mut client);
        client.log_out().unwrap_or_else(|end| panic!("{short}, {what}: logout: {end:?}"));
    }
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn reads_and_writes(client: &mut Client) {
    let (blocks, size) = client.capacity();
    let mut seed = 0;
    let long = (2 << 20) / size;
    for count in [1, 2, 3, 7, 8, 17, 64, 129, (256 << 10) / size + 1, (1 << 20) / size + 3, long] {
        for lba in [0, 1, 5, blocks / 2 + 3, blocks - u64::from(count)] {
            seed += 1;
            let data = noise((count * size) as usize, seed);
            client.write(lba, &data, size);
            assert!(client.read(lba, count, size) == data, "{count} blocks at {lba} came back different");
        }
    }
    // Nothing but what was written has changed: neighbours keep their bytes.
    let before = noise((64 * size) as usize, 1000);
    client.write(1000, &before, size);
    let mut expected = before;
    for at in [0usize, 1, 9, 31, 63] {
        let block = noise(size as usize, 2000 + at as u64);
        client.write(1000 + at as u64, &block, size);
        expected[at * size as usize..][..size as usize].copy_from_slice(&block);
    }
    assert!(client.read(1000, 64, size) == expected, "a write has changed its neighbours");
    // Beyond the end.
    let done = client.fetch(cdb::read_16(blocks - 1, 2), 2 * size);
    assert_eq!((done.status, done.sense()), (2, Some((5, 0x21, 0))));
    let done = client.send(cdb::write_16(blocks, 1), &noise(size as usize, 1));
    assert_eq!((done.status, done.sense()), (2, Some((5, 0x21, 0))));
}

fn caches(client: &mut Client) {
    let (_, size) = client.capacity();
    let data = noise((8 * size) as usize, 7);
    client.send(cdb::with_fua(cdb::write_10(40, 8)), &data).good();
    client.command(cdb::synchronize_cache_10(40, 8)).good();
    client.command(cdb::synchronize_cache_16(0, 0)).good();
    assert!(client.fetch(cdb::with_fua(cdb::read_10(40, 8)), 8 * size).good() == data);
}

fn zeroes(client: &mut Client) {
    let (_, size) = client.capacity();
    let data = noise((256 * size) as usize, 8);
    client.write(512, &data, size);
    let list = cdb::unmap_parameters(&[(520, 16), (600, 3)]);
    client.send(cdb::unmap(false, list.len() as u16), &list).good();
    let block = noise(size as usize, 9);
    client.send(cdb::write_same_16(640, 40, WriteSame::default()), &block).good();
    let zero = vec![0; size as usize];
    client.send(cdb::write_same_10(700, 20, WriteSame { unmap: true, ..WriteSame::default() }), &zero).good();
    let mut expected = data.clone();
    let kept = |lba: usize| &data[(lba - 512) * size as usize..][..size as usize];
    for (lba, count, fill) in [(520, 16, None), (600, 3, None), (640, 40, Some(&block)), (700, 20, None)] {
        for at in lba - 512..lba - 512 + count {
            let part = &mut expected[at * size as usize..][..size as usize];
            match fill {
                Some(block) => part.copy_from_slice(block),
                None => part.fill(0),
            }
        }
    }
    let found = client.read(512, 256, size);
    for (lba, (found, expected)) in (512..).zip(found.chunks(size as usize).zip(expected.chunks(size as usize))) {
        // Less than the granularity of unmapping may stay as it was, but nothing else is possible.
        let kept = (600..603).contains(&lba) && found == kept(lba);
        assert!(found == expected || kept, "block {lba} after UNMAP and WRITE SAME");
    }
}

fn verifies(client: &mut Client) {
    let (_, size) = client.capacity();
    let data = noise((16 * size) as usize, 10);
    client.send(cdb::write_and_verify_10(96, 16, 0), &data).good();
    client.send(cdb::verify_16(96, 16, 1), &data).good();
    client.command(cdb::verify_10(96, 16, 0)).good();
    let mut other = data;
    *other.last_mut().expect("not empty") ^= 1;
    let done = client.send(cdb::verify_16(96, 16, 1), &other);
    assert_eq!((done.status, done.sense()), (2, Some((0xe, 0x1d, 0))), "MISCOMPARE DURING VERIFY");
}
