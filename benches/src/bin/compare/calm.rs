//! Whether the machine is itself. A virtual machine's processor is one thread of a core whose other thread may be somebody else's:
//! then it does half as much, for milliseconds or for minutes, and no counter says so. A loop of arithmetic does.

use rustix::thread::{CpuSet, sched_setaffinity};
use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// How long the loop runs.
const LOOK: Duration = Duration::from_millis(20);
/// So often it runs before the first measurement, to know how fast the processors can be.
const LEARN: u32 = 50;
/// Of the fastest that was seen; below it, a processor is slowed down.
pub const CALM: f64 = 0.9;

/// Has measurements taken at calm moments.
pub struct Calm {
    /// Speed of the slower processor now, of its best.
    look: Box<dyn FnMut() -> f64>,
    /// How long a measurement may wait for calm and be taken again.
    patience: Duration,
    /// Measurements that were taken again.
    pub again: usize,
}

impl Calm {
    /// Watches the server's and the client's processor.
    pub fn new(cpus: [usize; 2], patience: Duration) -> Calm {
        let mut best = [0.0; 2];
        let mut look = move || look(cpus, &mut best);
        for _ in 0..LEARN {
            look();
        }
        Calm { look: Box::new(look), patience, again: 0 }
    }

    /// Measures when both processors are calm, and again if behind it they are not, until patience is over: what was measured at the
    /// calmest counts. With it comes the lower of the speeds before and behind.
    pub fn take<T, E>(&mut self, mut measure: impl FnMut() -> Result<T, E>) -> Result<(T, f64), E> {
        let began = Instant::now();
        let mut calmest: Option<(T, f64)> = None;
        loop {
            let mut before = (self.look)();
            while before < CALM && began.elapsed() < self.patience {
                before = (self.look)();
            }
            let value = measure()?;
            let speed = before.min((self.look)());
            let taken = match calmest {
                Some(taken) if taken.1 >= speed => taken,
                _ => (value, speed),
            };
            if taken.1 >= CALM || began.elapsed() >= self.patience {
                return Ok(taken);
            }
            calmest = Some(taken);
            self.again += 1;
        }
    }
}

/// Both processors at once, as in a measurement.
fn look(cpus: [usize; 2], best: &mut [f64; 2]) -> f64 {
    let together = &Barrier::new(cpus.len());
    let speeds = thread::scope(|scope| {
        let running = cpus.map(|cpu| {
            scope.spawn(move || {
                let mut only = CpuSet::new();
                only.set(cpu);
                // They were found to be allowed when the run began.
                let _ = sched_setaffinity(None, &only);
                together.wait();
                arithmetic()
            })
        });
        running.map(|thread| thread.join().unwrap_or(0.0))
    });
    let mut slower = 1.0_f64;
    for (speed, best) in speeds.into_iter().zip(best) {
        *best = best.max(speed);
        slower = slower.min(speed / *best);
    }
    slower
}

/// Steps per second of arithmetic that keeps a core's units busy and needs no memory.
fn arithmetic() -> f64 {
    let began = Instant::now();
    let mut lanes = [1_u64, 2, 3, 4, 5, 6, 7, 8];
    let mut steps = 0_u32;
    loop {
        for _ in 0..1000 {
            lanes = black_box(lanes).map(|lane| lane.wrapping_add(lane << 1) ^ 0x55);
        }
        steps += 1;
        let taken = began.elapsed();
        if taken >= LOOK {
            return f64::from(steps) / taken.as_secs_f64();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Processors with these speeds, one look after the other.
    fn calm(speeds: &[f64], patience: Duration) -> Calm {
        let mut speeds = Vec::from(speeds).into_iter();
        Calm { look: Box::new(move || speeds.next().expect("one look more than thought")), patience, again: 0 }
    }

    fn take(calm: &mut Calm) -> (u32, f64) {
        let mut count = 0;
        let counted = || {
            count += 1;
            Ok::<_, ()>(count)
        };
        calm.take(counted).unwrap()
    }

    #[test]
    fn a_measurement_waits_for_calm_and_is_taken_again_if_it_did_not_last() {
        let mut calm = calm(&[0.5, 0.6, 0.9, 0.7, 0.5, 0.95, 0.9], Duration::from_secs(3600));
        assert_eq!((take(&mut calm), calm.again), ((2, 0.9), 1));
    }

    #[test]
    fn without_patience_the_first_one_counts() {
        let mut calm = calm(&[0.6, 0.5], Duration::ZERO);
        assert_eq!((take(&mut calm), calm.again), ((1, 0.5), 0));
    }

    #[test]
    fn when_patience_is_over_the_calmest_one_counts() {
        let mut calm = calm(&[0.9, 0.8, 0.9, 0.7, 0.9, 0.6], Duration::from_millis(50));
        let mut count = 0;
        let taken = calm.take(|| {
            count += 1;
            thread::sleep(Duration::from_millis(20));
            Ok::<_, ()>(count)
        });
        assert_eq!(taken, Ok((1, 0.8)));
        assert!(calm.again > 0, "it tried");
    }
}
