//! Keeps some requests back from a disk that ends all it has at once, so that it has work while they are answered.
//!
//! Some disks, virtual ones above all, do one request after the other and interrupt when nothing is left. Then all requests end
//! together, and the disk stands still until they have been answered, the initiator has sent its next commands, and these
//! have come. If some of the requests wait here instead, the disk has them at once, and what is asked for anew comes while it
//! works on them. Others, whose requests end one by one, are told from it by just that, and nothing is kept from them.
//!
//! How many is learnt: so many that answers and new commands have been on their way when the disk is through with them, and no
//! more, since the disk tells the more often the more are kept. And whether it is worth it is measured, now and then without: a
//! disk that works on all it has side by side may end it at once, too, and only loses by that.

use memory::Key;
use std::{collections::VecDeque, time::Duration};

/// With fewer requests nothing is kept back.
const LEAST: u32 = 16;
/// A disk that is through with all it has in less than that isn't waited for.
const LONG: Duration = Duration::from_micros(100);
/// No request is kept back for longer.
const PATIENCE: Duration = Duration::from_millis(5);
/// So many times in a row all requests have ended at once: something is kept back from then on.
const SURE: u32 = 16;
/// So many times that something has ended it is tried for, until its speed is compared with that before.
const TRIAL: u32 = 64;
/// So many trials in a row have lost nothing, until the speed without is measured anew.
const TRIALS: u32 = 16;
/// No fewer are kept back.
const FEWEST: u32 = 4;
/// So many times in a row all that was to be kept was there: one fewer would do, perhaps.
const ENOUGH: u32 = 8;
/// The disk had to wait although a third of all were to be kept. That costs an interrupt more, as much as some other times gain: each
/// such time counts so much, each other takes one away, and at the sum it doesn't help.
const LATE: u32 = 4;
const HOPELESS: u32 = 32;
/// So many times all requests end until it is tried again: at first, and at most.
const PAUSE: (u32, u32) = (64, 4096);

/// The requests that one queue keeps back.
#[derive(Default)]
pub(super) struct Reserve {
    kept: VecDeque<Key>,
    /// When the oldest of them came.
    since: Duration,
    /// How many are to be kept; 0: nothing is.
    share: u32,
    /// Requests of all that there were lately, kept or not.
    load: u32,
    /// Times in a row that all that was to be kept was there.
    full: u32,
    /// What speaks for giving up: see [`LATE`].
    late: u32,
    /// Times that all requests end before it is tried again, and how often it was given up.
    pause: u32,
    given_up: u32,
    /// Since the last change between keeping and not; that without; trials since it that were worth it.
    speed: Speed,
    without: Speed,
    trials: u32,
    /// When the disk got its latest requests, how many these were, and when those before.
    given: Duration,
    new: u32,
    before: Duration,
    /// What has ended in this turn.
    turn: Turn,
}

/// How much ends in which time.
#[derive(Clone, Copy, Default)]
struct Speed {
    began: Duration,
    time: Duration,
    turns: u32,
    ended: u64,
}

impl Speed {
    /// The first turn only begins it.
    fn add(&mut self, ended: u32, now: Duration) {
        if self.turns == 0 {
            self.began = now;
        } else {
            self.ended += u64::from(ended);
            self.time = now.saturating_sub(self.began);
        }
        self.turns += 1;
    }

    /// By more than a thirty-second: less may be chance.
    fn is_less_than(&self, other: &Speed) -> bool {
        let product = |ended: u64, time: Duration| u128::from(ended) * time.as_nanos();
        product(self.ended, other.time) * 32 < product(other.ended, self.time) * 31
    }
}

#[derive(Default)]
struct Turn {
    /// Requests that have ended, and those that the disk had before.
    ended: u32,
    had: u32,
    /// Requests that were kept.
    kept: u32,
    /// The disk has worked for long.
    long: bool,
    now: Duration,
}

impl Turn {
    /// All have ended at once, after the disk has had them for long.
    fn is_burst(&self) -> bool {
        self.ended == self.had && self.long
    }
}

impl Reserve {
    pub(super) fn with_capacity(depth: u32) -> Reserve {
        Reserve { kept: VecDeque::with_capacity(depth as usize), ..Reserve::default() }
    }

    /// A request is there while the disk has `busy`: whether it is kept back. Never when the disk has none, since what ends
    /// there frees what is kept.
    pub(super) fn keeps(&mut self, key: Key, busy: u32, now: Duration) -> bool {
        let keeps = self.share > 0 && busy >= self.load.saturating_sub(self.share).max(1);
        if keeps {
            if self.kept.is_empty() {
                self.since = now;
            }
            self.kept.push_back(key);
        } else {
            self.gives(1, now);
        }
        keeps
    }

    fn gives(&mut self, count: u32, now: Duration) {
        if self.given < now {
            (self.before, self.given, self.new) = (self.given, now, 0);
        }
        self.new += count;
    }

    /// The next that goes to the disk, because a request has ended or it is time.
    pub(super) fn pop(&mut self) -> Option<Key> {
        self.kept.pop_front()
    }

    /// When what is kept has to go to the disk.
    pub(super) fn deadline(&self) -> Option<Duration> {
        (!self.kept.is_empty()).then_some(self.since + PATIENCE)
    }

    /// That is over. The disk is busy with something slow: nothing is kept back for now.
    pub(super) fn is_overdue(&mut self, now: Duration) -> bool {
        let overdue = self.deadline().is_some_and(|deadline| now >= deadline);
        if overdue {
            self.give_up();
        }
        overdue
    }

    /// A request has ended; the disk had `busy` with it. Whatever is kept has to go there now. True: with it all have
    /// ended at once, after the disk has had them for long.
    pub(super) fn ended(&mut self, busy: u32, now: Duration) -> bool {
        if self.turn.ended == 0 {
            let kept = self.kept.len() as u32;
            // What came in this turn has not been given to the disk yet.
            let (new, given) = if self.given == now { (self.new, self.before) } else { (0, self.given) };
            let had = busy.saturating_sub(new).max(1);
            self.load = (busy + kept).max(self.load - self.load / 16);
            self.turn = Turn { ended: 0, had, kept, long: now.saturating_sub(given) >= LONG, now };
            if kept > 0 {
                self.gives(kept, now);
            }
        }
        self.turn.ended += 1;
        if self.turn.ended < self.turn.had {
            return false;
        }
        // Nobody says that the turn is over when nothing is left.
        let burst = self.turn.is_burst();
        self.turn_over();
        burst
    }

    /// What was to end in this turn has ended.
    pub(super) fn turn_over(&mut self) {
        let turn = std::mem::take(&mut self.turn);
        if turn.ended == 0 {
            return;
        }
        let all = turn.is_burst();
        if self.share > 0 {
            self.speed.add(turn.ended, turn.now);
            self.learn(&turn, all);
        } else if self.pause > 0 {
            self.pause -= u32::from(all);
        } else if all && turn.had >= LEAST {
            self.speed.add(turn.ended, turn.now);
            if self.speed.turns > SURE {
                self.without = std::mem::take(&mut self.speed);
                (self.share, self.full, self.late, self.trials) = (self.load / 4, 0, 0, 0);
            }
        } else {
            self.speed = Speed::default();
        }
    }

    /// Something is kept back: more, less, or nothing any more. When not all have ended, the disk was through with what had been
    /// kept before more came.
    fn learn(&mut self, turn: &Turn, all: bool) {
        let (most, step) = (self.load / 3, (self.load / 32).max(1));
        self.share = self.share.min(most);
        if all && turn.kept > 0 {
            self.late = self.late.saturating_sub(1);
            self.full = if turn.kept >= self.share { self.full + 1 } else { 0 };
            if self.full >= ENOUGH {
                (self.share, self.full) = (self.share.saturating_sub(step).max(FEWEST), 0);
            }
        } else if self.share < most {
            (self.share, self.full) = ((self.share + step).min(most), 0);
        } else {
            (self.late, self.full) = (self.late + LATE, 0);
        }
        if self.late >= HOPELESS || self.load < LEAST {
            self.give_up();
        } else if self.speed.turns > TRIAL {
            let speed = std::mem::take(&mut self.speed);
            self.trials += 1;
            if speed.is_less_than(&self.without) {
                self.give_up();
                return;
            }
            self.given_up = self.given_up.saturating_sub(1);
            if self.trials == TRIALS {
                self.share = 0;
            }
        }
    }

    fn give_up(&mut self) {
        (self.share, self.pause) = (0, PAUSE.0 << self.given_up);
        self.given_up = (self.given_up + 1).min((PAUSE.1 / PAUSE.0).ilog2());
        self.speed = Speed::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const KEY: Key = Key { index: 1, generation: 2 };

    struct Disk {
        each: u64,
        /// It does all it has at the same time, not one after the other.
        side_by_side: bool,
        /// It tells of its requests when it is through with all of them.
        at_once: bool,
        /// From its interrupt until it has the next request.
        wakes: u64,
    }

    const VIRTUAL: Disk = Disk { each: 12, side_by_side: false, at_once: true, wakes: 50 };

    /// What happens at a disk for which an initiator always wants `load` requests. Times are in microseconds.
    struct Scene<'a> {
        disk: &'a Disk,
        /// From the end of a request until the next has come in its place: of the first, and more for each further one.
        back: (u64, u64),
        now: u64,
        /// Requests that the disk has been given and has not told of, how many of them it has still to do, and when it is through with one.
        busy: u32,
        left: u32,
        through: u64,
        /// Requests that come.
        coming: BTreeMap<u64, u32>,
        done: u32,
        longest: u32,
    }

    impl Scene<'_> {
        fn new(disk: &Disk, load: u32, back: (u64, u64)) -> Scene<'_> {
            let coming = BTreeMap::from([(0, load)]);
            Scene { disk, back, now: 0, busy: 0, left: 0, through: 0, coming, done: 0, longest: 0 }
        }

        fn give(&mut self) {
            if self.left == 0 || self.disk.side_by_side {
                self.through = self.now + self.disk.wakes + self.disk.each;
            }
            (self.busy, self.left) = (self.busy + 1, self.left + 1);
        }

        /// Requests per millisecond in `time`.
        fn run(&mut self, reserve: &mut Reserve, time: u64) -> f64 {
            let (end, before) = (self.now + time, self.done);
            while self.now < end {
                let comes = self.coming.first_key_value().map_or(u64::MAX, |(time, _)| *time);
                let ends = if self.left > 0 { self.through } else { u64::MAX };
                self.now = comes.min(ends);
                let now = Duration::from_micros(self.now);
                if comes <= ends {
                    for _ in 0..self.coming.remove(&comes).unwrap() {
                        if !reserve.keeps(KEY, self.busy, now) {
                            self.give();
                        }
                    }
                    self.longest = self.longest.max(reserve.kept.len() as u32);
                    assert!(reserve.kept.is_empty() || self.busy > 0, "nothing would free what is kept");
                    continue;
                }
                self.left -= if self.disk.side_by_side { self.left } else { 1 };
                self.through += self.disk.each;
                if self.disk.at_once && self.left > 0 {
                    continue;
                }
                let ended = self.busy - self.left;
                self.done += ended;
                for told in 0..ended {
                    reserve.ended(self.busy, now);
                    self.busy -= 1;
                    while reserve.pop().is_some() {
                        self.give();
                    }
                    let time = self.now + self.back.0 + u64::from(told) * self.back.1;
                    *self.coming.entry(time).or_default() += 1;
                }
                reserve.turn_over();
            }
            f64::from(self.done - before) / (time as f64 / 1000.0)
        }
    }

    /// Requests per millisecond without and with a reserve, once it has been learnt, and how many it keeps then.
    fn compare(disk: &Disk, load: u32, back: (u64, u64)) -> (f64, f64, u32) {
        let mut none = Reserve { pause: u32::MAX, ..Reserve::with_capacity(load) };
        let without = Scene::new(disk, load, back).run(&mut none, 500_000);
        let mut reserve = Reserve::with_capacity(load);
        let mut scene = Scene::new(disk, load, back);
        scene.run(&mut reserve, 2_000_000);
        scene.longest = 0;
        let with = scene.run(&mut reserve, 500_000);
        (without, with, scene.longest)
    }

    #[test]
    fn a_disk_that_ends_all_at_once_has_work_while_they_are_answered() {
        for load in [16, 32, 64, 256] {
            for back in [(30, 1), (60, 2), (80, 3), (100, 4), (150, 4), (200, 6), (400, 6), (1000, 10)] {
                let (without, with, kept) = compare(&VIRTUAL, load, back);
                let gain = with / without;
                assert!(gain > 0.99 && kept <= load / 2, "{load} {back:?}: {gain:.2} with {kept}");
                let worth = match load {
                    32 => 60..=150,
                    64 => 100..=200,
                    256 => 400..=400,
                    _ => 60..=60,
                };
                assert!(gain > 1.1 || !worth.contains(&back.0), "{load} {back:?}: {gain:.2} with {kept}");
            }
        }
    }

    #[test]
    fn nothing_is_kept_from_others() {
        let single = Disk { at_once: false, ..VIRTUAL };
        let fast = Disk { each: 1, wakes: 5, ..VIRTUAL };
        for disk in [single, fast] {
            for load in [1, 16, 32, 64] {
                for back in [(1, 0), (80, 3), (400, 6)] {
                    assert_eq!(compare(&disk, load, back).2, 0, "{load} {back:?}");
                }
            }
        }
        // Nor from a disk that has little to do.
        assert_eq!(compare(&VIRTUAL, LEAST - 1, (80, 3)).2, 0);
    }

    #[test]
    fn a_disk_that_works_on_all_side_by_side_keeps_its_speed() {
        for each in [100, 200, 500, 1000] {
            for back in [(30, 0), (60, 1), (100, 3), (200, 0), (500, 1)] {
                for load in [16, 32, 64] {
                    let disk = Disk { each, side_by_side: true, ..VIRTUAL };
                    let (without, with, _) = compare(&disk, load, back);
                    assert!(with > 0.94 * without, "{load} of {each}, {back:?}: {:.2}", with / without);
                }
            }
        }
    }

    #[test]
    fn single_requests_after_many_are_no_sign() {
        let (mut reserve, mut now) = (Reserve::with_capacity(64), Duration::ZERO);
        (0..32).for_each(|busy| assert!(!reserve.keeps(KEY, busy, now)));
        for left in (1..=32).rev() {
            now += Duration::from_micros(200);
            reserve.ended(left, now);
            reserve.turn_over();
        }
        for _ in 0..100 {
            assert!(!reserve.keeps(KEY, 0, now));
            now += Duration::from_micros(200);
            reserve.ended(1, now);
        }
        assert_eq!(reserve.share, 0);
    }

    #[test]
    fn what_comes_in_the_turn_of_the_end_is_not_among_what_could_have_ended() {
        let (mut reserve, mut now) = (Reserve::with_capacity(64), Duration::ZERO);
        (0..30).for_each(|busy| assert!(!reserve.keeps(KEY, busy, now)));
        now += Duration::from_micros(500);
        assert!(!reserve.keeps(KEY, 30, now));
        let bursts: Vec<_> = (2..=31).rev().map(|busy| reserve.ended(busy, now)).collect();
        assert!(bursts[29] && !bursts[..29].contains(&true), "{bursts:?}");
    }

    #[test]
    fn nothing_is_kept_for_long() {
        let mut reserve = Reserve::with_capacity(32);
        Scene::new(&VIRTUAL, 32, (80, 3)).run(&mut reserve, 100_000);
        reserve.kept.clear();
        let now = Duration::from_secs(1);
        assert_eq!((reserve.deadline(), reserve.is_overdue(now)), (None, false));
        assert!(reserve.keeps(KEY, 31, now) && reserve.keeps(KEY, 31, now + PATIENCE / 2));
        assert_eq!(reserve.deadline(), Some(now + PATIENCE));
        assert!(!reserve.is_overdue(now + PATIENCE / 2) && reserve.is_overdue(now + PATIENCE));
        assert!(!reserve.keeps(KEY, 31, now + PATIENCE), "it was given up");
    }

    #[test]
    fn a_disk_that_begins_to_end_them_one_by_one_gets_all() {
        let single = Disk { at_once: false, ..VIRTUAL };
        let mut reserve = Reserve::with_capacity(32);
        Scene::new(&VIRTUAL, 32, (80, 3)).run(&mut reserve, 100_000);
        assert!(reserve.share > 0);
        reserve.kept.clear();
        Scene::new(&single, 32, (80, 3)).run(&mut reserve, 100_000);
        assert_eq!((reserve.share, reserve.kept.len()), (0, 0));
    }

    #[test]
    fn a_load_that_sinks_is_followed() {
        let mut reserve = Reserve::with_capacity(64);
        Scene::new(&VIRTUAL, 64, (80, 3)).run(&mut reserve, 100_000);
        assert!(reserve.share > 0);
        reserve.kept.clear();
        let mut scene = Scene::new(&VIRTUAL, 4, (80, 3));
        scene.run(&mut reserve, 100_000);
        scene.longest = 0;
        scene.run(&mut reserve, 100_000);
        assert_eq!(scene.longest, 0);
    }
}
