//! Who writes to a region: as long as that is one thread, it can have the bytes stand still.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

/// Nobody so far.
const NOBODY: usize = 0;
/// More than one: for good.
const SEVERAL: usize = 1;
/// Another thread wants to write: the owner can't hold or lend any more.
const CHANGING: usize = 2;

/// The only thread that has written, if there is one. Read at every write, written when a thread begins.
///
/// A thread that writes first, or holds first, becomes the owner. Another one that wants to write ends that for good, after
/// the owner's hold, if there is one: whoever holds says so first and then looks whether it is still the owner, who ends it
/// says so first and then looks for the hold.
///
/// What the owner has lent, it doesn't write itself; others see that there is something ([`may_write`](Owner::may_write)).
pub(crate) struct Owner {
    thread: AtomicUsize,
    held: AtomicBool,
    /// Loans that are not over. Only the owner changes it.
    lent: AtomicU32,
}

impl Owner {
    pub(crate) const fn nobody() -> Owner {
        Owner { thread: AtomicUsize::new(NOBODY), held: AtomicBool::new(false), lent: AtomicU32::new(0) }
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
            self.begin(this_thread());
            return;
        }
        assert!(!self.held.load(Relaxed), "bytes are written that this thread holds");
    }

    /// Whether nothing that another thread has lent is in the way. If something is, that thread lends no more from now on.
    #[inline]
    pub(crate) fn may_write(&self) -> bool {
        let owner = self.thread.load(Acquire);
        owner == SEVERAL || owner == this_thread() || self.begin(this_thread())
    }

    /// False: it is changing still, because of what is lent.
    #[cold]
    fn begin(&self, me: usize) -> bool {
        if self.thread.compare_exchange(NOBODY, me, SeqCst, SeqCst).is_ok() {
            return true;
        }
        // A thread that comes meanwhile finds this, and waits, too.
        if self.thread.swap(CHANGING, SeqCst) != SEVERAL {
            // As long as a message is digested; once in the life of a region.
            while self.held.load(SeqCst) {
                std::thread::yield_now();
            }
            if self.lent.load(SeqCst) > 0 {
                return false;
            }
        }
        self.thread.store(SEVERAL, Release);
        true
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

    /// Counts a loan. Only while this thread holds.
    pub(crate) fn lend(&self) {
        debug_assert!(self.held.load(Relaxed));
        self.lent.fetch_add(1, SeqCst);
    }

    /// A loan is over.
    pub(crate) fn take_back(&self) {
        self.lent.fetch_sub(1, SeqCst);
    }

    /// This thread, if it is the owner, is no more, until it writes or holds again. It stays that while something is lent.
    pub(crate) fn let_go(&self) {
        if !self.held.load(Relaxed) && self.lent.load(Relaxed) == 0 {
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
    fn what_is_lent_keeps_others_from_writing() {
        let owner = Owner::nobody();
        let other = |what: fn(&Owner) -> bool| thread::scope(|scope| scope.spawn(|| what(&owner)).join().unwrap());
        assert!(owner.may_write() && owner.hold());
        owner.lend();
        owner.lend();
        owner.release();
        owner.let_go();
        assert!(owner.may_write() && owner.hold(), "its own bytes are its own affair");
        owner.release();
        assert!(!other(Owner::may_write));
        assert!(!owner.hold() && !owner.may_hold(), "somebody waits");
        owner.writes();
        owner.take_back();
        // Who doesn't ask isn't kept from it, and changes nothing for the others.
        other(|owner| {
            owner.writes();
            true
        });
        assert!(!other(Owner::may_write));
        owner.take_back();
        assert!(other(Owner::may_write) && owner.may_write());
        assert!(!owner.hold(), "several write");
    }

    #[test]
    fn who_has_lent_stays_the_owner() {
        let owner = Owner::nobody();
        assert!(owner.hold());
        owner.lend();
        owner.release();
        owner.let_go();
        thread::scope(|scope| scope.spawn(|| assert!(!owner.may_hold() && !owner.hold())).join().unwrap());
        owner.take_back();
        owner.let_go();
        thread::scope(|scope| scope.spawn(|| assert!(owner.may_hold() && owner.hold())).join().unwrap());
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
