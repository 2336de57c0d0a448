//! Messages between threads: a bounded queue, and a wake for the core that reads it.

use crate::Wake;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// Makes a queue for at most `capacity` values. Whoever sends wakes the owner of the mailbox.
///
/// # Panics
/// If `capacity` is 0.
pub fn mailbox<T: Send, W: Wake>(capacity: usize, waker: W) -> (Sender<T, W>, Mailbox<T>) {
    let queue = Arc::new(ArrayQueue::new(capacity));
    (Sender { queue: queue.clone(), waker }, Mailbox { queue })
}

/// The end that any thread may hold. Values of one sender arrive in order.
pub struct Sender<T, W> {
    queue: Arc<ArrayQueue<T>>,
    waker: W,
}

impl<T: Send, W: Wake> Sender<T, W> {
    /// Queues a value and wakes the reader. Gives it back when the queue is full: never blocks.
    pub fn send(&self, value: T) -> Result<(), T> {
        let sent = self.queue.push(value);
        self.waker.wake();
        sent
    }
}

impl<T, W: Clone> Clone for Sender<T, W> {
    fn clone(&self) -> Self {
        Sender { queue: self.queue.clone(), waker: self.waker.clone() }
    }
}

/// The end of the core that reads. Look into it after every turn.
pub struct Mailbox<T> {
    queue: Arc<ArrayQueue<T>>,
}

impl<T> Mailbox<T> {
    /// The oldest value, if there is one.
    pub fn take(&self) -> Option<T> {
        self.queue.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[derive(Clone, Default)]
    struct Count(Arc<AtomicU32>);
    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_full_mailbox_gives_the_value_back_and_wakes_its_reader() {
        let wakes = Count::default();
        let (sender, mailbox) = mailbox(2, wakes.clone());
        let other = sender.clone();
        assert_eq!((sender.send(1), other.send(2), sender.send(3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 3);
        assert_eq!((mailbox.take(), mailbox.take(), mailbox.take()), (Some(1), Some(2), None));
    }
}
