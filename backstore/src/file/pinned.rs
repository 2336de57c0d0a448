//! Pages of a buffered file that are kept in memory, so that reads are sent from there: which, how many, and how they come
//! and go.
//!
//! A chunk that is read often enough is locked by a helper thread; over the bound, one that wasn't read lately goes for it.
//! Whatever takes pages away from the file (a discard, zeroes, a copy into it) has their chunks leave first, and none comes
//! before it is over: else a send would meet the fault, and wait on its core for what the file system is about.

use crate::Capacity;
use memory::{PageReader, Pages};
use reactor::{Errno, Job, JobResult};
use rustix::process::{Resource, getrlimit};
use std::{
    io,
    ops::Range,
    os::fd::BorrowedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

/// Bytes of a chunk, at least: a huge page.
pub(crate) const CHUNK: u64 = 2 << 20;
/// Chunks of a file, at most: locked ones may each cost two of the 65,530 mappings that a process has.
const CHUNKS: u64 = 8192;
/// How often its size a file may grow to while it is in use; addresses are kept for that, which cost nothing.
const ROOM: u64 = 16;
/// Reads of an absent chunk, among four for each chunk there is, that make it worth having; and worth another one's place.
const WARM: u8 = 4;
const HOT: u8 = 12;
const PERIOD: u64 = 4;
/// Chunks that one job has come.
const BATCH: usize = 16;
/// Chunks that are looked at for one that was not read lately.
const SWEEP: u32 = 64;
/// How long messages in flight are waited for.
const PATIENCE: Duration = Duration::from_millis(50);
/// Until the next is asked for: when one had to go for it, or none could; and when locking failed.
const PAUSE: Duration = Duration::from_millis(100);
const LONG_PAUSE: Duration = Duration::from_secs(10);

/// What a job has found: go on, or pause first.
const CAME: u64 = 0;
const PAUSED: u64 = 1;

/// Of one file; all cores share it.
pub(crate) struct Pinned {
    pages: Arc<Pages>,
    path: PathBuf,
    capacity: Capacity,
    /// Chunks at most.
    limit: u64,
    /// Requests that take pages away.
    changing: AtomicU32,
    /// The bound is reached.
    full: AtomicBool,
    warned: AtomicBool,
    inner: Mutex<Inner>,
}

/// For helper threads alone.
#[derive(Default)]
struct Inner {
    /// Chunks that are locked, or are being locked.
    held: u64,
    /// Those of them that are to be unlocked when no message refers to them.
    leaving: Vec<u32>,
    /// Where the next search for one to go begins.
    hand: u32,
}

impl Pinned {
    /// For a file of which `limit` bytes may be kept.
    ///
    /// # Errors
    /// What mmap says.
    pub(crate) fn new(file: BorrowedFd<'_>, path: PathBuf, capacity: Capacity, limit: u64) -> io::Result<Arc<Pinned>> {
        let chunk = (limit / CHUNKS).next_power_of_two().max(CHUNK);
        let bytes = capacity.bytes();
        let pages = Pages::map(file, bytes, bytes.saturating_mul(ROOM), chunk)?;
        Ok(Arc::new(Pinned {
            pages,
            path,
            capacity,
            limit: limit / chunk,
            changing: AtomicU32::new(0),
            full: AtomicBool::new(false),
            warned: AtomicBool::new(false),
            inner: Mutex::default(),
        }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has chunks come, as far as there is room or can be. Blocks.
    pub(crate) fn admit(&self, chunks: &[u32]) -> JobResult {
        for chunk in chunks {
            let found = self.admit_one(*chunk)?;
            if found != CAME {
                return Ok((found, Vec::new()));
            }
        }
        Ok((CAME, Vec::new()))
    }

    fn admit_one(&self, chunk: u32) -> Result<u64, Errno> {
        let end = (u64::from(chunk) + 1).saturating_mul(self.pages.chunk());
        if end > self.capacity.bytes() || self.changing.load(Ordering::SeqCst) > 0 {
            return Ok(PAUSED);
        }
        let Some(found) = self.make_room() else { return Ok(PAUSED) };
        if !self.pages.begin(chunk) {
            self.inner().held -= 1;
            return Ok(found);
        }
        // Looked at after the claim: whoever takes pages away counts itself, then looks at the claims.
        let came = if self.changing.load(Ordering::SeqCst) > 0 {
            self.pages.give_up(chunk);
            Ok(false)
        } else {
            self.pages.fill(chunk)
        };
        if !matches!(came, Ok(true)) {
            self.inner().held -= 1;
        }
        match came {
            Ok(true) => Ok(found),
            Ok(false) => Ok(PAUSED),
            Err(error) => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    self.warn(&error);
                }
                Err(Errno::from(error))
            }
        }
    }

    fn warn(&self, error: &io::Error) {
        let limit = match getrlimit(Resource::Memlock).current {
            Some(bytes) => format!("{bytes} bytes"),
            None => "none".into(),
        };
        tracing::warn!(
            path = %self.path.display(),
            %error,
            "a part of it can't be locked in memory (`pinned`), so it is read in the usual way. The limit (RLIMIT_MEMLOCK) is \
             {limit}: raise it (ulimit -l, LimitMEMLOCK= of a systemd unit) above the sum of all `pinned`; if it is high enough, \
             see whether the file can be read"
        );
    }

    /// Counts a chunk that is to come; another one may have to go. None: all are in use.
    fn make_room(&self) -> Option<u64> {
        let mut inner = self.inner();
        self.collect(&mut inner);
        let mut found = CAME;
        if inner.held >= self.limit {
            self.full.store(true, Ordering::Relaxed);
            found = PAUSED;
            if inner.leaving.is_empty() {
                let victim = self.victim(&mut inner)?;
                if self.pages.forsake(victim) {
                    inner.leaving.push(victim);
                }
            }
            self.collect(&mut inner);
            if inner.held >= self.limit {
                return None;
            }
        }
        inner.held += 1;
        Some(found)
    }

    /// The next chunk that wasn't read since the hand came by.
    fn victim(&self, inner: &mut Inner) -> Option<u32> {
        let chunks = self.pages.chunks();
        let (mut looked, mut passed) = (0, 0);
        while looked < SWEEP && passed < chunks {
            let chunk = inner.hand % chunks;
            inner.hand = (chunk + 1) % chunks;
            passed += 1;
            match self.pages.take_used(chunk) {
                Some(false) => return Some(chunk),
                Some(true) => looked += 1,
                None => {}
            }
        }
        None
    }

    /// Unlocks what is to leave, if no message refers to it any more.
    fn collect(&self, inner: &mut Inner) {
        if !inner.leaving.is_empty() && self.pages.await_leases(PATIENCE) {
            for chunk in inner.leaving.drain(..) {
                self.pages.release(chunk);
                inner.held -= 1;
            }
            self.full.store(false, Ordering::Relaxed);
        }
    }

    /// Pages of this range will be taken away: no chunk comes before [`calm`](Pinned::calm). True: some are there, and
    /// [`clear`](Pinned::clear) comes first.
    pub(crate) fn disturb(&self, span: Range<u64>) -> bool {
        self.changing.fetch_add(1, Ordering::SeqCst);
        let mut touched = self.pages.touched(span);
        // Many are looked at elsewhere.
        touched.len() > SWEEP as usize || touched.any(|chunk| !self.pages.is_absent(chunk))
    }

    /// What was announced by [`disturb`](Pinned::disturb) is over.
    pub(crate) fn calm(&self) {
        self.changing.fetch_sub(1, Ordering::SeqCst);
    }

    /// Has the chunks of a range leave, and waits a while for the messages that refer to them. Blocks.
    pub(crate) fn clear(&self, span: Range<u64>) -> JobResult {
        let mut inner = self.inner();
        for chunk in self.pages.touched(span) {
            if self.pages.forsake(chunk) {
                inner.leaving.push(chunk);
            }
        }
        self.collect(&mut inner);
        Ok((CAME, Vec::new()))
    }
}

/// What one core's queue has of it.
pub(crate) struct Side {
    pub(crate) pinned: Arc<Pinned>,
    pub(crate) reader: PageReader,
    /// Reads of each chunk that was absent, in this period.
    heat: Box<[u8]>,
    /// Of them all.
    noted: u64,
    /// Those that are to come with the next job.
    wanted: Vec<u32>,
    /// A job is under way.
    asking: bool,
    not_before: Duration,
}

impl Side {
    pub(crate) fn new(pinned: &Arc<Pinned>) -> Side {
        let heat = vec![0; pinned.pages.chunks() as usize].into_boxed_slice();
        let (pinned, reader) = (Arc::clone(pinned), pinned.pages.reader());
        Side {
            pinned,
            reader,
            heat,
            noted: 0,
            wanted: Vec::with_capacity(BATCH),
            asking: false,
            not_before: Duration::ZERO,
        }
    }

    /// Takes note of a read that goes to the file.
    pub(crate) fn note(&mut self, offset: u64) {
        let Ok(chunk) = u32::try_from(offset / self.pinned.pages.chunk()) else { return };
        let Some(heat) = self.heat.get_mut(chunk as usize) else { return };
        *heat = heat.saturating_add(1);
        let least = if self.pinned.full.load(Ordering::Relaxed) { HOT } else { WARM };
        if *heat >= least && self.wanted.len() < BATCH && !self.reader.holds(offset, 1) {
            *heat = 0;
            self.wanted.push(chunk);
        }
        self.noted += 1;
        let used = self.pinned.capacity.bytes().div_ceil(self.pinned.pages.chunk());
        if self.noted >= PERIOD * used {
            self.noted = 0;
            let used = usize::try_from(used).unwrap_or(usize::MAX).min(self.heat.len());
            self.heat[..used].fill(0);
        }
    }

    /// A job that is to be started now, if there is one.
    pub(crate) fn job(&mut self, now: Duration) -> Option<Job> {
        if self.wanted.is_empty() || self.asking || now < self.not_before {
            return None;
        }
        let (pinned, chunks) = (Arc::clone(&self.pinned), self.wanted.clone());
        self.wanted.clear();
        self.asking = true;
        Some(Box::new(move || pinned.admit(&chunks)))
    }

    /// A job is under way.
    pub(crate) fn is_asking(&self) -> bool {
        self.asking
    }

    /// The job has ended.
    pub(crate) fn answered(&mut self, result: Result<u64, Errno>, now: Duration) {
        self.asking = false;
        self.not_before = now
            + match result {
                Ok(CAME) => Duration::ZERO,
                Ok(_) => PAUSE,
                Err(_) => LONG_PAUSE,
            };
    }
}
