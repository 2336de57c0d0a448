//! The world that twins share: its clock, its chance, what is going to happen, its sockets and files.

use super::{
    disk::{Disk, TwinFile},
    random::Random,
    stream::{Connection, End, Peer},
};
use memory::Key;
use std::{
    cell::{RefCell, RefMut},
    collections::BTreeMap,
    io,
    ops::Range,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How a world behaves.
#[derive(Clone, Debug)]
pub struct Conduct {
    /// How long a step of an operation takes: from, to.
    pub delay: Range<Duration>,
    /// Streams are cut at random places: a receive may give less than is there.
    pub fragment: bool,
    /// Bytes that wait in a stream before its sender stalls; see [`Peer::set_window`].
    pub window: usize,
}

impl Default for Conduct {
    fn default() -> Conduct {
        let delay = Duration::from_micros(1)..Duration::from_micros(200);
        Conduct { delay, fragment: true, window: 256 << 10 }
    }
}

/// An operation of a twin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Operator {
    pub(crate) core: usize,
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

impl Operator {
    pub(crate) fn new(core: usize, key: Key) -> Operator {
        Operator { core, index: key.index, generation: key.generation }
    }

    pub(crate) fn key(self) -> Key {
        Key { index: self.index, generation: self.generation }
    }
}

/// What a descriptor stands for.
#[derive(Clone, Copy)]
pub(crate) enum Object {
    End(End),
    File(usize),
}

/// Whether a twin lets time pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Awake,
    /// Until then, or forever.
    Asleep(Option<Duration>),
    Gone,
}

pub(crate) struct Core {
    pub(crate) mood: Mood,
    pub(crate) pending: Arc<AtomicBool>,
}

pub(crate) struct State {
    pub(crate) now: Duration,
    pub(crate) random: Random,
    conduct: Conduct,
    /// By time; at the same time in random order.
    events: BTreeMap<(Duration, u64), Operator>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) files: Vec<Disk>,
    /// By inode of the descriptor that stands for it.
    tokens: BTreeMap<u64, Object>,
    pub(crate) cores: Vec<Core>,
    /// Counts power cuts: twins of an earlier life are dead.
    pub(crate) life: u64,
}

impl State {
    pub(crate) fn fragments(&self) -> bool {
        self.conduct.fragment
    }

    /// Lets an operation try again after a random time.
    pub(crate) fn schedule(&mut self, operator: Operator) {
        let Range { start, end } = self.conduct.delay;
        let span = end.saturating_sub(start).as_nanos() as u64;
        let time = self.now + start + Duration::from_nanos(self.random.below(span));
        let shared = self.events.insert((time, self.random.next()), operator);
        assert!(shared.is_none(), "two events of one moment drew the same lot");
    }

    pub(crate) fn schedule_all(&mut self, operators: Vec<Operator>) {
        operators.into_iter().for_each(|operator| self.schedule(operator));
    }

    /// The next operation of a core whose time has come.
    pub(crate) fn due(&mut self, core: usize) -> Option<Operator> {
        let due = self.events.range(..=(self.now, u64::MAX)).find(|(_, operator)| operator.core == core);
        let at = due.map(|(at, _)| *at)?;
        self.events.remove(&at)
    }

    /// Lets time pass until something happens to a core, if they all sleep. False when it must not, or nothing will.
    pub(crate) fn pass_time(&mut self, core: usize) -> bool {
        let next_event = self.events.first_key_value().map(|((time, _), operator)| (*time, operator.core));
        if next_event.is_some_and(|(time, owner)| time <= self.now && owner != core) {
            return false;
        }
        let mut next = next_event.map(|(time, _)| time);
        for (number, other) in self.cores.iter().enumerate() {
            match other.mood {
                Mood::Gone => {}
                Mood::Awake if number != core => return false,
                _ if number != core && other.pending.load(Ordering::SeqCst) => return false,
                Mood::Asleep(Some(until)) if until <= self.now && number != core => return false,
                Mood::Asleep(until) => next = [next, until].into_iter().flatten().min(),
                Mood::Awake => {}
            }
        }
        match next {
            Some(time) => {
                self.now = self.now.max(time);
                true
            }
            None => false,
        }
    }

    pub(crate) fn object(&self, fd: impl AsFd) -> io::Result<Object> {
        let inode = rustix::fs::fstat(fd)?.st_ino;
        let object = self.tokens.get(&inode).copied();
        object.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// A descriptor that stands for an object: an empty file of the system's memory.
    fn token(&mut self, object: Object) -> io::Result<OwnedFd> {
        let fd = rustix::fs::memfd_create("twin", rustix::fs::MemfdFlags::CLOEXEC)?;
        self.tokens.insert(rustix::fs::fstat(&fd)?.st_ino, object);
        Ok(fd)
    }

    /// A core is gone: its operations end now.
    pub(crate) fn remove_core(&mut self, core: usize) {
        self.cores[core].mood = Mood::Gone;
        self.events.retain(|_, operator| operator.core != core);
        self.forget_parked(Some(core));
        let State { files, random, .. } = self;
        files.iter_mut().for_each(|file| file.kill(core, random));
    }
}

/// A simulated world: several [`Twin`](super::Twin)s may live in it. Cheap to clone; one thread only. The same seed
/// and the same calls give the same history.
#[derive(Clone)]
pub struct World(Rc<RefCell<State>>);

impl World {
    /// An empty world with the usual conduct.
    pub fn new(seed: u64) -> World {
        World::with(seed, Conduct::default())
    }

    /// An empty world.
    pub fn with(seed: u64, conduct: Conduct) -> World {
        World(Rc::new(RefCell::new(State {
            // Not zero, so that nobody takes the epoch for "never".
            now: Duration::from_secs(1),
            random: Random::new(seed),
            conduct,
            events: BTreeMap::new(),
            connections: Vec::new(),
            files: Vec::new(),
            tokens: BTreeMap::new(),
            cores: Vec::new(),
            life: 0,
        })))
    }

    pub(crate) fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// The time now.
    pub fn now(&self) -> Duration {
        self.state().now
    }

    /// Changes how the world behaves from now on.
    pub fn set_conduct(&self, conduct: Conduct) {
        self.state().conduct = conduct;
    }

    /// A connection between a twin and the test. The descriptor stands for the twin's end: give it to
    /// [`Reactor::register`](crate::Reactor::register), as the engine does with a real one.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn connect(&self) -> io::Result<(OwnedFd, Peer)> {
        let end = self.new_connection();
        let fd = self.state().token(Object::End(end))?;
        Ok((fd, Peer { world: self.clone(), end: end.other() }))
    }

    /// A connection between two twins.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn socket_pair(&self) -> io::Result<(OwnedFd, OwnedFd)> {
        let end = self.new_connection();
        let mut state = self.state();
        Ok((state.token(Object::End(end))?, state.token(Object::End(end.other()))?))
    }

    fn new_connection(&self) -> End {
        let mut state = self.state();
        let window = state.conduct.window;
        state.connections.push(Connection::new(window));
        End { connection: state.connections.len() - 1, side: 0 }
    }

    /// A file of `bytes` zeroes on stable storage.
    pub fn file(&self, bytes: u64) -> TwinFile {
        let mut state = self.state();
        state.files.push(Disk::new(bytes));
        TwinFile { world: self.clone(), id: state.files.len() - 1 }
    }

    /// A descriptor that stands for a file: every twin of this world can register it, as every core does with a real
    /// one ([`Reactor::register_shared`](crate::Reactor::register_shared)).
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn open(&self, file: &TwinFile) -> io::Result<Arc<OwnedFd>> {
        self.state().token(Object::File(file.id)).map(Arc::new)
    }

    /// Nothing will happen unless the test does something: no event is due, and no twin waits for a time.
    pub fn is_quiet(&self) -> bool {
        let state = self.state();
        let still = |core: &Core| match core.mood {
            Mood::Gone => true,
            Mood::Asleep(None) => !core.pending.load(Ordering::SeqCst),
            Mood::Awake | Mood::Asleep(Some(_)) => false,
        };
        state.events.is_empty() && state.cores.iter().all(still)
    }

    /// The power fails, and comes back. Files keep what is stable and a random choice of what is not; connections
    /// break; every twin is dead (its `turn` fails with ESHUTDOWN from now on): make new ones. Returns with all stalls
    /// ended; faults stay.
    pub fn power_cut(&self) {
        let mut state = self.state();
        let State { files, random, events, cores, life, .. } = &mut *state;
        files.iter_mut().for_each(|file| file.power_cut(random));
        events.clear();
        cores.iter_mut().for_each(|core| core.mood = Mood::Gone);
        *life += 1;
        state.forget_parked(None);
        for connection in 0..state.connections.len() {
            state.reset(connection);
        }
    }
}
