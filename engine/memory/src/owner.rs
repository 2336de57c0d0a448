//! Who writes to a region: as long as that is one thread, it can have the bytes stand still for a moment.

use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

/// Nobody so far.
const NOBODY: usize = 0;
/// More than one: for good.
const SEVERAL: usize = 1;
/// Another thread wants to write, and waits until the owner doesn't hold.
const CHANGING: usize = 2;

/// The only thread that has written, if there is one. Read at every write, written when a thread begins.
///
/// A thread that writes first, or holds first, becomes the owner. Another one that wants to write ends that for good, after
/// the owner's hold, if there is one: whoever holds says so first and then looks whether it is still the owner, who ends it
/// says so first and then looks for the hold.
pub(crate) struct Owner {
    thread: AtomicUsize,
    held: AtomicBool,
}

impl Owner {
    pub(crate) const fn nobody() -> Owner {
        Owner { thread: AtomicUsize::new(NOBODY), held: AtomicBool::new(false) }
    }

    /// To be called before each write.
    ///
    /// # Panics
    /// If this thread holds the bytes.
    #[inline]
    pub(crate) fn writes(&self) {
        let owner = self.thread.load(Acquire);
        if owner == SEVERAL {
            return;
        }
        if owner != this_thread() {
            return self.begin(this_thread());
        }
        assert!(!self.held.load(Relaxed), "bytes are written that this thread holds");
    }

    #[cold]
    fn begin(&self, me: usize) {
        if self.thread.compare_exchange(NOBODY, me, SeqCst, SeqCst).is_ok() {
            return;
        }
        // A thread that comes meanwhile finds this, and waits, too.
        if self.thread.swap(CHANGING, SeqCst) != SEVERAL {
            // As long as a message is digested and copied by the kernel; once in the life of a region.
            while self.held.load(SeqCst) {
                std::thread::yield_now();
            }
        }
        self.thread.store(SEVERAL, Release);
    }

    /// Whether [`hold`](Self::hold) would do it.
    #[inline]
    pub(crate) fn may_hold(&self) -> bool {
        let owner = self.thread.load(Relaxed);
        owner == this_thread() || owner == NOBODY
    }

    /// From now on to [`release`](Self::release) nobody writes. False if that can't be had.
    pub(crate) fn hold(&self) -> bool {
        let me = this_thread();
        if self.thread.load(Relaxed) == NOBODY {
            let _ = self.thread.compare_exchange(NOBODY, me, SeqCst, SeqCst);
        }
        if self.thread.load(Relaxed) != me || self.held.load(Relaxed) {
            return false;
        }
        self.held.store(true, SeqCst);
        let holds = self.thread.load(SeqCst) == me;
        if !holds {
            self.release();
        }
        holds
    }

    pub(crate) fn release(&self) {
        self.held.store(false, Release);
    }

    /// This thread, if it is the owner, is no more, until it writes or holds again.
    pub(crate) fn let_go(&self) {
        if !self.held.load(Relaxed) {
            let _ = self.thread.compare_exchange(this_thread(), NOBODY, SeqCst, SeqCst);
        }
    }
}

/// A number that no other running thread has.
#[inline]
fn this_thread() -> usize {
    // Aligned, hence none of the small numbers.
    thread_local!(static PLACE: u64 = const { 0 });
    PLACE.with(|place| std::ptr::from_ref(place).addr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc::channel, thread};

    #[test]
    fn the_first_thread_that_writes_or_holds_owns() {
        for holds in [false, true] {
            let owner = Owner::nobody();
            assert!(owner.may_hold());
            if holds {
                assert!(owner.hold());
                owner.release();
            } else {
                owner.writes();
            }
            thread::scope(|scope| scope.spawn(|| assert!(!owner.may_hold() && !owner.hold())).join().unwrap());
            assert!(owner.hold(), "others have only looked");
            assert!(!owner.hold(), "once at a time");
            owner.release();
            owner.writes();
            owner.let_go();
            thread::scope(|scope| scope.spawn(|| assert!(owner.hold())).join().unwrap());
            assert!(!owner.may_hold());
        }
    }

    #[test]
    fn a_second_writer_ends_it_for_good() {
        let owner = Owner::nobody();
        owner.writes();
        thread::scope(|scope| scope.spawn(|| owner.writes()).join().unwrap());
        for _ in 0..2 {
            assert!(!owner.may_hold() && !owner.hold());
            owner.writes();
            owner.let_go();
        }
    }

    #[test]
    fn other_writers_wait_for_the_hold() {
        let owner = Owner::nobody();
        assert!(owner.hold());
        let (said, told) = channel();
        thread::scope(|scope| {
            for _ in 0..2 {
                let (owner, said) = (&owner, said.clone());
                scope.spawn(move || {
                    owner.writes();
                    said.send(()).unwrap();
                });
            }
            while owner.thread.load(SeqCst) != CHANGING {
                thread::yield_now();
            }
            thread::sleep(std::time::Duration::from_millis(20));
            assert!(told.try_recv().is_err());
            owner.release();
            told.recv().unwrap();
            told.recv().unwrap();
        });
        assert!(!owner.hold());
    }

    #[test]
    #[should_panic(expected = "this thread holds")]
    fn who_holds_may_not_write() {
        let owner = Owner::nobody();
        assert!(owner.hold());
        owner.let_go();
        owner.writes();
    }
}
