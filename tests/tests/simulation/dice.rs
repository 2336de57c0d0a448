//! Chance from a seed: the same seed gives the same run, whatever the libraries do.

/// SplitMix64.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed ^ 0x51ed_270b_27b4_a5c1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`; 0 when there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// A number of `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }
}

/// A number that tells little of where it comes from.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Runs a simulation with `count` seeds, or with RINGLUN_SEEDS of them. One that fails names its seed; RINGLUN_SEED runs
/// that one alone. True when all `count` were run, so that what they did together can be judged.
pub fn seeds(name: &str, count: u64, mut run: impl FnMut(u64)) -> bool {
    if let Some(seed) = number("RINGLUN_SEED") {
        println!("{name}: seed {seed} alone");
        run(seed);
        return false;
    }
    let wanted = number("RINGLUN_SEEDS").unwrap_or(count);
    for seed in 0..wanted {
        let told = Told { name, seed };
        run(seed);
        drop(told);
    }
    wanted >= count
}

struct Told<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Told { name, seed } = self;
            println!(
                "{name}: seed {seed} failed; RINGLUN_SEED={seed} cargo test -p ringlun-tests --test simulation {name}"
            );
        }
    }
}
