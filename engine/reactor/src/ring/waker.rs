//! Waking a core that sleeps in its ring.
//!
//! Two flags make a wake free while the core is awake. Whoever wakes sets `pending`, then looks at `sleeping`; the core
//! sets `sleeping`, then looks at `pending`. A sequentially consistent fence stands between the two steps on both
//! sides, so at least one of them sees the other: either the core doesn't go to sleep, or the waker makes a system
//! call. `pending` is cleared at the end of a turn, before the caller looks into its mailboxes: what is put there
//! later sets it again.

use crate::Wake;
use io_uring::{opcode, squeue, types};
use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering, fence},
    },
};

pub(crate) struct Shared {
    pending: AtomicBool,
    sleeping: AtomicBool,
    eventfd: OwnedFd,
    /// The ring that sleeps, for messages from other rings; None when it can't take any, or has closed. Whoever sends
    /// holds the descriptor open until its message is through, so that its number is not reused meanwhile.
    ring: Mutex<Option<Arc<OwnedFd>>>,
}

/// Wakes the core of a [`Ring`](super::Ring).
///
/// A thread that has a ring of its own (with the feature `msg_ring`) wakes others with the submissions of its next
/// turn, not with a system call of its own: whoever wakes must turn soon, or drop its ring.
#[derive(Clone)]
pub struct RingWaker(Arc<Shared>);

impl Wake for RingWaker {
    fn wake(&self) {
        let shared = &self.0;
        shared.pending.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        if shared.sleeping.load(Ordering::Relaxed)
            && shared.sleeping.swap(false, Ordering::AcqRel)
            && !outbox_push(self)
        {
            shared.ring_the_bell();
        }
    }
}

impl Shared {
    fn ring_the_bell(&self) {
        // Fails only when the counter is full, and then the core has a wake to read already.
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
    }
}

/// The core's own side.
pub(crate) struct Sleeper(RingWaker);

impl Sleeper {
    pub(crate) fn new() -> io::Result<Sleeper> {
        let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        Ok(Sleeper(RingWaker(Arc::new(Shared {
            pending: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            eventfd,
            ring: Mutex::new(None),
        }))))
    }

    pub(crate) fn waker(&self) -> RingWaker {
        self.0.clone()
    }

    pub(crate) fn eventfd(&self) -> BorrowedFd<'_> {
        self.0.0.eventfd.as_fd()
    }

    /// Says that the core will sleep. False when it must not: it was woken. See the head of this file.
    pub(crate) fn lie_down(&self) -> bool {
        let shared = &self.0.0;
        shared.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if shared.pending.load(Ordering::Acquire) {
            shared.sleeping.store(false, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Somebody has woken the core, and it has not taken note of that yet.
    pub(crate) fn is_woken(&self) -> bool {
        self.0.0.pending.load(Ordering::Relaxed)
    }

    pub(crate) fn get_up(&self) {
        self.0.0.sleeping.store(false, Ordering::Release);
    }

    /// Takes note of all wakes so far.
    pub(crate) fn clear(&self) {
        if self.0.0.pending.load(Ordering::Relaxed) {
            self.0.0.pending.swap(false, Ordering::AcqRel);
        }
    }

    /// Lets other rings send messages to this one.
    pub(crate) fn open_to_rings(&self, ring: Option<Arc<OwnedFd>>) {
        *self.0.0.ring.lock().unwrap_or_else(PoisonError::into_inner) = ring;
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.open_to_rings(None);
    }
}

thread_local! {
    /// Wakes that the ring of this thread sends with its next submission. None: this thread has no such ring.
    static OUTBOX: RefCell<Option<Vec<Message>>> = const { RefCell::new(None) };
}

/// A wake on its way from this thread's ring to another.
pub(crate) struct Message {
    target: RingWaker,
    ring: Arc<OwnedFd>,
}

impl Message {
    /// The submission that wakes the target with a completion of `target_data`.
    pub(crate) fn entry(&self, target_data: u64) -> squeue::Entry {
        opcode::MsgRingData::new(types::Fd(self.ring.as_raw_fd()), 0, target_data, None).build()
    }

    /// The ring did not take it.
    pub(crate) fn fall_back(&self) {
        self.target.0.ring_the_bell();
    }
}

/// True when the wake waits for the next turn of this thread's ring.
fn outbox_push(target: &RingWaker) -> bool {
    OUTBOX
        .try_with(|outbox| {
            let mut outbox = outbox.borrow_mut();
            let Some(messages) = outbox.as_mut() else {
                return false;
            };
            let ring = target.0.ring.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Some(ring) = ring else { return false };
            messages.push(Message { target: target.clone(), ring });
            true
        })
        .unwrap_or(false)
}

/// From now on this thread's wakes may wait for [`outbox_take`].
pub(crate) fn outbox_open() {
    OUTBOX.with(|outbox| *outbox.borrow_mut() = Some(Vec::with_capacity(16)));
}

/// Wakes that wait; `send` is called for each.
pub(crate) fn outbox_take(mut send: impl FnMut(Message)) {
    OUTBOX.with(|outbox| {
        // Not borrowed while `send` runs.
        while let Some(message) = outbox.borrow_mut().as_mut().and_then(Vec::pop) {
            send(message);
        }
    });
}

/// No later turn will take them: what waits is sent at once.
pub(crate) fn outbox_close() {
    let waiting = OUTBOX.try_with(|outbox| outbox.borrow_mut().take()).ok().flatten();
    waiting.iter().flatten().for_each(Message::fall_back);
}
