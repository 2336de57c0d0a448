//! A thread with its sessions: waits for sockets, serves them, keeps the rate.

use crate::measure::Counters;
use crate::session::{Common, Session};
use crate::verify::Checker;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use std::{
    collections::BTreeMap,
    mem::MaybeUninit,
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};

/// What the run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Load, but nothing counts yet.
    Warmup,
    /// Everything counts.
    Measure,
    /// No more commands.
    Stop,
}

/// Tells the threads what the run is at. They look at it once per receive: one load of a line that hardly changes.
#[derive(Default)]
pub struct Control(AtomicU64);

impl Control {
    /// Sets phase and number of the interval.
    pub fn set(&self, phase: Phase, interval: u32) {
        self.0.store((phase as u64) << 32 | u64::from(interval), Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

fn phase(state: u64) -> Phase {
    match state >> 32 {
        0 => Phase::Warmup,
        1 => Phase::Measure,
        _ => Phase::Stop,
    }
}

/// What a thread says.
pub enum Said {
    /// What it has counted in an interval of a phase.
    Interval(Phase, Box<Counters>),
    /// It has moved its share of the amount.
    Finished,
    /// It can't go on.
    Lost(String),
}

/// How a thread works.
pub struct Manner {
    /// Number of the thread.
    pub number: usize,
    /// Never sleep.
    pub spin: bool,
    /// Send no commands.
    pub idle: bool,
    /// Nanoseconds from one operation to the next.
    pub pace: Option<f64>,
    /// When the run's clock was zero.
    pub epoch: Instant,
    /// Bytes to move.
    pub amount: Option<u64>,
}

/// Longest sleep: phases are noticed so soon at the latest.
const NAP: Duration = Duration::from_millis(50);
/// How long commands in flight are waited for at the end, and then answers to the logouts.
const DRAIN: Duration = Duration::from_secs(10);
const FAREWELL: Duration = Duration::from_secs(2);
/// Events per wait.
const EVENTS: usize = 256;
/// Up to so many sessions a spinning thread asks each socket by itself.
const ASKED_DIRECTLY: usize = 2;

/// What is left of a thread.
#[derive(Default)]
pub struct Outcome {
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
    /// With `--verify`: what it knows.
    pub checker: Option<Checker>,
}

/// A thread's work.
pub struct Worker<'a> {
    manner: Manner,
    control: &'a Control,
    said: Sender<Said>,
    sessions: Vec<Session>,
    common: Common,
    epoll: OwnedFd,
    events: Box<[MaybeUninit<epoll::Event>; EVENTS]>,
    /// Sessions that have something to receive and had their turn.
    ready: Vec<usize>,
    seen: u64,
    /// With a rate: when the next operation is due, and whose turn it is.
    due: f64,
    turn: usize,
    finished: bool,
}

impl<'a> Worker<'a> {
    /// Takes sessions over.
    pub fn new(
        manner: Manner,
        control: &'a Control,
        said: Sender<Said>,
        sessions: Vec<Session>,
        common: Common,
    ) -> Result<Worker<'a>, String> {
        let wrong = |error| format!("epoll: {error}");
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(wrong)?;
        for (index, session) in sessions.iter().enumerate() {
            // Edge-triggered: one registration for good, and a short receive says that nothing is left.
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&epoll, session.socket(), EventData::new_u64(index as u64), flags).map_err(wrong)?;
        }
        Ok(Worker {
            manner,
            control,
            said,
            sessions,
            common,
            epoll,
            events: Box::new([MaybeUninit::uninit(); EVENTS]),
            ready: Vec::new(),
            seen: 0,
            due: 0.0,
            turn: 0,
            finished: false,
        })
    }

    /// Works until told to stop.
    pub fn run(mut self) -> Outcome {
        let mut result = self.load();
        self.common.open = false;
        if result.is_ok() {
            result = self.leave();
        }
        if let Err(reason) = result {
            self.common.note(reason.clone());
            let _ = self.said.send(Said::Lost(reason));
        }
        self.tell();
        Outcome { errors: self.common.errors, checker: self.common.checker }
    }

    fn load(&mut self) -> Result<(), String> {
        self.common.open = !self.manner.idle;
        let refill = self.refills();
        let now = self.now();
        self.due = now as f64;
        for session in &mut self.sessions {
            if refill {
                session.fill(&mut self.common, now);
            }
            session.flush()?;
        }
        loop {
            let state = self.control.get();
            if state != self.seen {
                self.tell();
                if phase(state) == Phase::Measure && phase(self.seen) == Phase::Warmup {
                    self.begin_amount();
                }
                self.seen = state;
                if phase(state) == Phase::Stop {
                    return Ok(());
                }
            }
            self.turn()?;
            if self.common.budget == 0 && self.common.in_flight == 0 && !self.finished {
                self.finished = true;
                let _ = self.said.send(Said::Finished);
            }
        }
    }

    /// Without a rate every command that ends is replaced at once.
    fn refills(&self) -> bool {
        self.manner.pace.is_none() && !self.manner.idle
    }

    /// From here on the amount counts, what is in flight already included.
    fn begin_amount(&mut self) {
        if let Some(amount) = self.manner.amount {
            let in_flight = self.sessions.iter().map(Session::bytes_in_flight).sum();
            self.common.budget = amount.saturating_sub(in_flight);
        }
    }

    fn now(&self) -> u64 {
        self.manner.epoch.elapsed().as_nanos() as u64
    }

    /// Gives away what was counted.
    fn tell(&mut self) {
        let counters = Box::new(std::mem::take(&mut self.common.counters));
        let _ = self.said.send(Said::Interval(phase(self.seen), counters));
    }

    /// Waits for sockets, serves those that have something, starts what is due.
    fn turn(&mut self) -> Result<(), String> {
        if self.manner.spin && self.sessions.len() <= ASKED_DIRECTLY {
            // Asking a full socket without end would keep it from emptying: an event says when it takes more.
            if self.sessions.iter().any(Session::is_full) {
                self.wait()?;
            }
            self.ready.clear();
            self.ready.extend(0..self.sessions.len());
        } else {
            self.wait()?;
        }
        let refill = self.refills();
        let epoch = self.manner.epoch;
        let clock = || epoch.elapsed().as_nanos() as u64;
        let mut left = 0;
        for at in 0..self.ready.len() {
            let index = self.ready[at];
            let session = &mut self.sessions[index];
            if !session.over {
                session.receive(&mut self.common, refill, &clock)?;
            }
            if session.readable && !session.over {
                self.ready[left] = index;
                left += 1;
            }
        }
        self.ready.truncate(left);
        if self.common.open && self.manner.pace.is_some() {
            self.keep_pace()?;
        } else if std::mem::take(&mut self.common.starved) && refill {
            let now = self.now();
            for session in self.sessions.iter_mut().filter(|session| session.has_room()) {
                session.fill(&mut self.common, now);
                session.flush()?;
            }
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), String> {
        let nap = if self.manner.spin || !self.ready.is_empty() {
            Duration::ZERO
        } else if self.manner.pace.is_some() && self.common.open {
            NAP.min(Duration::from_nanos((self.due - self.now() as f64).max(0.0) as u64))
        } else {
            NAP
        };
        let nap = Timespec { tv_sec: 0, tv_nsec: nap.as_nanos() as i64 };
        let (events, _) = match epoll::wait(&self.epoll, &mut self.events[..], Some(&nap)) {
            Ok(events) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(format!("epoll: {error}")),
        };
        for event in events {
            let (index, flags) = (event.data.u64() as usize, event.flags);
            let session = &mut self.sessions[index];
            if flags.contains(EventFlags::OUT) {
                session.writable()?;
            }
            // It stands in the list already when it was readable before.
            let input = flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            if input && !std::mem::replace(&mut session.readable, true) {
                self.ready.push(index);
            }
        }
        Ok(())
    }

    /// Starts what is due, one session after the other.
    fn keep_pace(&mut self) -> Result<(), String> {
        let Some(pace) = self.manner.pace else {
            return Ok(());
        };
        let now = self.now() as f64;
        let (mut refused, first, mut asked) = (0, self.turn, 0);
        while self.due <= now && refused < self.sessions.len() {
            let session = &mut self.sessions[self.turn];
            if session.has_room() && session.submit_next(&mut self.common, self.due as u64) {
                self.due += pace;
                refused = 0;
            } else {
                refused += 1;
            }
            self.turn = (self.turn + 1) % self.sessions.len();
            asked += 1;
        }
        // One send for all that a session was given.
        let (before, from) = self.sessions.split_at_mut(first);
        from.iter_mut().chain(before).take(asked).try_for_each(Session::flush)
    }

    /// Waits for what is in flight, then logs out.
    fn leave(&mut self) -> Result<(), String> {
        let end = Instant::now() + DRAIN;
        while self.common.in_flight != 0 {
            if Instant::now() >= end {
                let left = self.common.in_flight;
                return Err(format!("{left} commands got no response within {} seconds", DRAIN.as_secs()));
            }
            self.turn()?;
        }
        for session in &mut self.sessions {
            session.log_out();
        }
        let end = Instant::now() + FAREWELL;
        while self.sessions.iter().any(|session| !session.over) && Instant::now() < end {
            // What goes wrong from here on harms nobody.
            if self.turn().is_err() {
                break;
            }
        }
        Ok(())
    }
}
