//! Pages of a file in the page cache, mapped so that the kernel can send them from there.
//!
//! User space never looks at such a mapping: a file that was cut meanwhile would be a SIGBUS. The kernel's own copy meets an
//! error instead. And it must not wait for a disk either: so the mapping is divided into chunks, and of these only
//! those count as there which are locked in memory (mlock(2)).
//!
//! A chunk that is to go may be in messages that are being sent. Whoever refers to chunks therefore has a [`Lease`], and
//! a chunk leaves in two steps: nobody takes it any more ([`Pages::forsake`]), and when all leases of before are over
//! ([`Pages::await_leases`]) it is unlocked ([`Pages::release`]).

use crate::mapping::Mapping;
use std::{
    fmt, io,
    marker::PhantomData,
    ops::Range,
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Not locked.
const ABSENT: u8 = 0;
/// A thread is locking it.
const COMING: u8 = 1;
/// Locked: may be sent.
const PRESENT: u8 = 2;
/// Locked, and not to be taken any more.
const LEAVING: u8 = 3;
/// A thread is locking it, in vain.
const UNWANTED: u8 = 4;
/// Beside the state: it was sent since somebody asked.
const USED: u8 = 0x80;

/// A file's pages. All cores share them.
pub struct Pages {
    mapping: Mapping,
    chunk: u64,
    states: Box<[AtomicU8]>,
    /// The kernel could not read what should be there.
    distrusted: AtomicBool,
    /// Which of a reader's two counts new leases are in.
    side: AtomicU32,
    readers: Mutex<Vec<Weak<Counts>>>,
    /// One waits for leases at a time.
    awaiting: Mutex<()>,
}

/// The leases of one reader; on a cache line of its own.
#[repr(align(128))]
struct Counts {
    leases: [AtomicU32; 2],
    pages: Arc<Pages>,
}

impl Pages {
    /// Maps a file of `bytes` bytes, with addresses for `room` bytes if the system has so many. It may grow into them. No
    /// chunk is there yet. `chunk`: bytes, a multiple of a page.
    ///
    /// # Errors
    /// What mmap says.
    pub fn map(file: BorrowedFd<'_>, bytes: u64, room: u64, chunk: u64) -> io::Result<Arc<Pages>> {
        assert!(chunk > 0 && chunk.is_multiple_of(crate::mapping::PAGE as u64));
        let of = |bytes: u64| {
            let length = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
            Mapping::of_file(file, length).map(|mapping| (mapping, bytes))
        };
        let (mapping, mapped) = of(room.max(bytes)).or_else(|_| of(bytes))?;
        let count = usize::try_from(mapped / chunk).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let states = (0..count).map(|_| AtomicU8::new(ABSENT)).collect();
        Ok(Arc::new(Pages {
            mapping,
            chunk,
            states,
            distrusted: AtomicBool::new(false),
            side: AtomicU32::new(0),
            readers: Mutex::default(),
            awaiting: Mutex::default(),
        }))
    }

    /// Bytes of a chunk.
    pub fn chunk(&self) -> u64 {
        self.chunk
    }

    /// Chunks that there are addresses for; a rest at the end is none.
    pub fn chunks(&self) -> u32 {
        u32::try_from(self.states.len()).unwrap_or(u32::MAX)
    }

    /// For one more core.
    pub fn reader(self: &Arc<Self>) -> PageReader {
        let counts = Arc::new(Counts { leases: Default::default(), pages: Arc::clone(self) });
        let mut readers = self.readers();
        readers.retain(|reader| reader.strong_count() > 0);
        readers.push(Arc::downgrade(&counts));
        PageReader(counts)
    }

    fn readers(&self) -> MutexGuard<'_, Vec<Weak<Counts>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, chunk: u32) -> u8 {
        self.states.get(chunk as usize).map_or(ABSENT, |state| state.load(Ordering::SeqCst) & !USED)
    }

    /// Changes the state of a chunk, if it is `from`.
    fn turn(&self, chunk: u32, from: u8, to: u8) -> bool {
        let Some(state) = self.states.get(chunk as usize) else { return false };
        let step = |now: u8| (now & !USED == from).then_some(to);
        state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step).is_ok()
    }

    /// Nothing of it is locked, nor being locked.
    pub fn is_absent(&self, chunk: u32) -> bool {
        self.state(chunk) == ABSENT
    }

    /// Claims an absent chunk, to be [`fill`](Pages::fill)ed or [given up](Pages::give_up). False: it isn't absent.
    pub fn begin(&self, chunk: u32) -> bool {
        self.turn(chunk, ABSENT, COMING)
    }

    /// Gives a claimed chunk back.
    pub fn give_up(&self, chunk: u32) {
        let _ = self.turn(chunk, COMING, ABSENT) || self.turn(chunk, UNWANTED, ABSENT);
    }

    /// Reads a claimed chunk into memory and locks it there. Blocks. False: it was forsaken meanwhile, and is absent.
    ///
    /// # Errors
    /// What mlock(2) says; the chunk is absent then. ENOMEM and EPERM: RLIMIT_MEMLOCK, or ENOMEM a page that can't be read.
    pub fn fill(&self, chunk: u32) -> io::Result<bool> {
        let (start, length) = self.place(chunk);
        let locked = self.mapping.lock(start, length);
        if locked.is_ok() && self.turn(chunk, COMING, PRESENT | USED) {
            return Ok(true);
        }
        self.mapping.unlock(start, length);
        self.give_up(chunk);
        locked.map(|()| false)
    }

    /// Nobody is to take it from now on. True: it was there, and is to be [released](Pages::release) when all leases are
    /// over.
    pub fn forsake(&self, chunk: u32) -> bool {
        // Whoever is locking it sees that it is unwanted; unless that has ended just now.
        while !self.turn(chunk, PRESENT, LEAVING) {
            if self.turn(chunk, COMING, UNWANTED) || self.state(chunk) != PRESENT {
                return false;
            }
        }
        true
    }

    /// Unlocks a chunk that [`forsake`](Pages::forsake) has said true of.
    pub fn release(&self, chunk: u32) {
        if self.state(chunk) == LEAVING {
            let (start, length) = self.place(chunk);
            self.mapping.unlock(start, length);
            self.turn(chunk, LEAVING, ABSENT);
        }
    }

    /// Whether a chunk that is there was sent since the last question; None: it isn't there.
    pub fn take_used(&self, chunk: u32) -> Option<bool> {
        let state = self.states.get(chunk as usize)?;
        let step = |now: u8| (now & !USED == PRESENT).then_some(PRESENT);
        state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step).ok().map(|before| before & USED != 0)
    }

    /// Waits until all leases that there are now are over. False: some are not after `patience`.
    ///
    /// Leases are counted on one of two sides; new ones begin on the other one while those of the old are waited for. A
    /// reader that looks at the side, and counts after it was found empty, looks at the chunks' states later still.
    pub fn await_leases(&self, patience: Duration) -> bool {
        let _alone = self.awaiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Those who come later have no lease of before.
        let readers = self.readers().clone();
        let until = Instant::now() + patience;
        let empty = |side: usize| {
            let mut pause = Duration::from_micros(20);
            let busy = |counts: &Weak<Counts>| {
                counts.upgrade().is_some_and(|counts| counts.leases[side].load(Ordering::SeqCst) > 0)
            };
            while readers.iter().any(busy) {
                if Instant::now() >= until {
                    return false;
                }
                thread::sleep(pause);
                pause = (2 * pause).min(Duration::from_millis(1));
            }
            true
        };
        let old = self.side.load(Ordering::SeqCst) as usize & 1;
        // What an earlier, impatient call has left.
        if !empty(1 - old) {
            return false;
        }
        self.side.store(1 - old as u32, Ordering::SeqCst);
        empty(old)
    }

    fn place(&self, chunk: u32) -> (usize, usize) {
        // The mapping has addresses for all chunks, so both fit.
        ((u64::from(chunk) * self.chunk) as usize, self.chunk as usize)
    }

    /// The chunks that a range touches, as far as there are any.
    pub fn touched(&self, range: Range<u64>) -> Range<u32> {
        let most = u64::from(self.chunks());
        let (first, last) = (range.start / self.chunk, range.end.div_ceil(self.chunk));
        // Both are at most `most`, which is a u32.
        first.min(most) as u32..last.min(most) as u32
    }

    #[inline]
    fn holds(&self, offset: u64, length: u32) -> bool {
        let Some(end) = offset.checked_add(u64::from(length)) else { return false };
        if length == 0 || self.distrusted.load(Ordering::Relaxed) {
            return false;
        }
        (offset / self.chunk..end.div_ceil(self.chunk)).all(|chunk| {
            let state = usize::try_from(chunk).ok().and_then(|chunk| self.states.get(chunk));
            state.is_some_and(|state| {
                let now = state.load(Ordering::SeqCst);
                // Written once after each question: cores don't take the line from each other.
                if now == PRESENT {
                    state.fetch_or(USED, Ordering::Relaxed);
                }
                now & !USED == PRESENT
            })
        })
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages({} chunks of {} bytes)", self.states.len(), self.chunk)
    }
}

/// How one core gets at [`Pages`].
pub struct PageReader(Arc<Counts>);

impl PageReader {
    /// Whether a range is there now, for a first look: only a [`Lease`] keeps it.
    #[inline]
    pub fn holds(&self, offset: u64, length: u32) -> bool {
        self.0.pages.holds(offset, length)
    }

    /// Keeps what is there from now on until it is dropped.
    pub fn lease(&self) -> Lease {
        let side = self.0.pages.side.load(Ordering::SeqCst) as u8 & 1;
        self.0.leases[usize::from(side)].fetch_add(1, Ordering::SeqCst);
        Lease { counts: Arc::clone(&self.0), side, core: PhantomData }
    }
}

/// As long as it lives, ranges that it once held stay locked in memory, unless the file itself loses them.
pub struct Lease {
    counts: Arc<Counts>,
    side: u8,
    /// It stays on its core, as the counts do.
    core: PhantomData<*const ()>,
}

impl Lease {
    /// Of this reader.
    #[inline]
    pub fn is_of(&self, reader: &PageReader) -> bool {
        Arc::ptr_eq(&self.counts, &reader.0)
    }

    /// A range is there, and stays.
    #[inline]
    pub fn holds(&self, offset: u64, length: u32) -> bool {
        self.counts.pages.holds(offset, length)
    }

    /// First byte of a range, for the kernel alone: whoever else reads it may die of SIGBUS.
    ///
    /// # Panics
    /// If there are no addresses for it.
    pub fn as_ptr(&self, offset: u64, length: u32) -> *const u8 {
        let pages = &*self.counts.pages;
        let end = offset.checked_add(u64::from(length)).expect("a range of pages overflows");
        assert!(end <= pages.states.len() as u64 * pages.chunk, "bytes {offset}..{end} are outside of the chunks");
        pages.mapping.address().as_ptr().cast_const().wrapping_add(offset as usize)
    }

    /// The kernel could not read what this held: nothing of the file counts as there any more. True: that is new.
    pub fn distrust(&self) -> bool {
        !self.counts.pages.distrusted.swap(true, Ordering::SeqCst)
    }

    /// Has the kernel copy a range. Slow; for tests and simulations.
    ///
    /// # Errors
    /// EFAULT when the file doesn't have it any more.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let length = u32::try_from(into.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let from = libc::iovec { iov_base: self.as_ptr(offset, length).cast_mut().cast(), iov_len: into.len() };
        let to = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        // SAFETY: `to` is exclusive memory of that length; `from` is read by the kernel, which says so when it can't.
        let copied = unsafe { libc::process_vm_readv(libc::getpid(), &to, 1, &from, 1, 0) };
        match usize::try_from(copied) {
            Err(_) => Err(io::Error::last_os_error()),
            Ok(copied) if copied < into.len() => Err(io::Error::from_raw_os_error(libc::EFAULT)),
            Ok(_) => Ok(()),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.counts.leases[usize::from(self.side)].fetch_sub(1, Ordering::SeqCst);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({:?})", self.counts.pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, os::fd::AsFd, os::unix::fs::FileExt};

    const CHUNK: u64 = 64 << 10;
    const SOON: Duration = Duration::from_millis(50);

    fn file(chunks: u64) -> File {
        let descriptor = rustix::fs::memfd_create("pages", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(descriptor);
        let bytes: Vec<u8> = (0..chunks * CHUNK).map(|at| (at / 1000) as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        file
    }

    fn pages(file: &File, room: u64) -> Arc<Pages> {
        let bytes = file.metadata().unwrap().len();
        Pages::map(file.as_fd(), bytes, room, CHUNK).unwrap()
    }

    #[test]
    fn what_is_filled_is_there_until_it_is_forsaken() {
        let file = file(4);
        let pages = pages(&file, 0);
        let reader = pages.reader();
        let lease = reader.lease();
        assert_eq!(pages.chunks(), 4);
        assert!(!lease.holds(CHUNK, 4096));
        assert!(pages.begin(1) && !pages.begin(1) && pages.begin(2));
        assert!(!lease.holds(CHUNK, 4096));
        assert!(pages.fill(1).unwrap() && pages.fill(2).unwrap());
        assert!(lease.holds(CHUNK, 2 * CHUNK as u32) && reader.holds(2 * CHUNK - 100, 200));
        for (offset, length) in [(CHUNK - 1, 2), (3 * CHUNK - 1, 2), (4 * CHUNK, 1), (u64::MAX, 2), (CHUNK, 0)] {
            assert!(!lease.holds(offset, length), "{offset}+{length}");
        }
        let mut found = [0; 3000];
        lease.read(CHUNK + 5, &mut found).unwrap();
        let mut expected = [0; 3000];
        file.read_exact_at(&mut expected, CHUNK + 5).unwrap();
        assert_eq!(found, expected);
        file.write_all_at(b"written later", CHUNK + 5).unwrap();
        lease.read(CHUNK + 5, &mut found[..13]).unwrap();
        assert_eq!(&found[..13], b"written later");
        assert!(pages.forsake(1) && !pages.forsake(1) && !pages.forsake(0));
        assert!(!lease.holds(CHUNK, 4096) && lease.holds(2 * CHUNK, 4096));
        pages.release(1);
        assert!(pages.is_absent(1) && !pages.is_absent(2));
    }

    #[test]
    fn leases_of_before_are_waited_for_and_later_ones_are_not() {
        let file = file(1);
        let pages = pages(&file, 0);
        let (one, two) = (pages.reader(), pages.reader());
        assert!(pages.await_leases(Duration::ZERO));
        let old = one.lease();
        for _ in 0..3 {
            assert!(!pages.await_leases(Duration::from_millis(3)));
        }
        // An impatient call has changed sides: this one is new to it, and old to the next.
        let newer = two.lease();
        drop(old);
        assert!(!pages.await_leases(Duration::from_millis(3)));
        drop(newer);
        assert!(pages.await_leases(SOON));
        // Leases that come all the time don't keep it from its end.
        let mut lease = one.lease();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pages.await_leases(Duration::from_secs(20)));
            while !waiting.is_finished() {
                let next = one.lease();
                lease = next;
                std::thread::yield_now();
            }
            assert!(waiting.join().unwrap());
        });
        drop((lease, two));
        assert!(pages.await_leases(SOON));
    }

    #[test]
    fn a_chunk_that_is_forsaken_on_its_way_does_not_come() {
        let file = file(2);
        let pages = pages(&file, 0);
        assert!(pages.begin(0));
        assert!(!pages.forsake(0) && !pages.is_absent(0));
        assert!(!pages.fill(0).unwrap());
        assert!(pages.is_absent(0) && pages.begin(0));
        pages.give_up(0);
        assert!(pages.is_absent(0));
    }

    #[test]
    fn what_was_sent_is_known_once() {
        let file = file(2);
        let pages = pages(&file, 0);
        let lease = pages.reader().lease();
        assert_eq!((pages.take_used(0), pages.take_used(9)), (None, None));
        assert!(pages.begin(0) && pages.fill(0).unwrap());
        assert_eq!((pages.take_used(0), pages.take_used(0)), (Some(true), Some(false)));
        assert!(lease.holds(0, 1));
        assert_eq!((pages.take_used(0), pages.take_used(0)), (Some(true), Some(false)));
    }

    #[test]
    fn a_file_that_was_cut_is_an_error_of_the_kernel() {
        let file = file(2);
        let pages = pages(&file, 8 * CHUNK);
        assert_eq!(pages.chunks(), 8);
        let lease = pages.reader().lease();
        assert!(pages.begin(1) && pages.fill(1).unwrap());
        // Behind the end there is nothing to lock.
        assert!(pages.begin(2) && pages.fill(2).is_err() && pages.is_absent(2));
        file.set_len(CHUNK).unwrap();
        assert!(lease.holds(CHUNK, 4096), "nobody has noticed yet");
        let error = lease.read(CHUNK, &mut [0; 16]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        assert!(lease.distrust() && !lease.distrust());
        assert!(!lease.holds(CHUNK, 4096));
        // It grows into its room.
        file.set_len(3 * CHUNK).unwrap();
        assert!(pages.begin(2) && pages.fill(2).unwrap());
    }
}
