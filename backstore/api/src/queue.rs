//! The data handle that a store gives to each core.

use crate::{Completion, CopySource, Geometry, Request, StoreError};
use memory::{PageReader, Region};
use std::{ops::Range, sync::Arc, time::Duration};

/// What became of a request.
#[derive(Debug)]
pub enum Submitted {
    /// Done already.
    Done(Completion),
    /// Its completion comes out of [`BlockQueue::complete`] or [`BlockQueue::poll`].
    Pending,
    /// The queue is at its bound, so at least one request is in flight: keep this one, and offer it again after a
    /// completion of this queue.
    Full(Request),
}

/// The data handle of one store on one core. `R` is the reactor, `C` its completion type.
pub trait BlockQueue<R, C> {
    /// What the store can do.
    fn geometry(&self) -> &Geometry;

    /// Starts a request. `tag` comes back in its completion.
    fn submit(&mut self, reactor: &mut R, tag: u64, request: Request) -> Submitted;

    /// Takes a reactor completion whose token this queue made. `Some` when a request ended with it.
    /// Tokens: the queue puts `token_base | slot` into its operations, where `token_base` is given when it is made
    /// and the lower 24 bits are the queue's own.
    fn complete(&mut self, reactor: &mut R, completion: C) -> Option<Completion>;

    /// Work that no reactor completion drives, and requests that ended together with another one: shared flushes,
    /// operations that the reactor had no slot for, and what a filter holds back. Call it in every turn, after the
    /// turn's completions, again until it gives `None`.
    fn poll(&mut self, _reactor: &mut R) -> Option<Completion> {
        None
    }

    /// When [`poll`](BlockQueue::poll) has something to do at the latest, on the reactor's clock; `None`: not by time.
    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// Requests in flight.
    fn in_flight(&self) -> u32;

    /// Gives the reactor its descriptors back. Call it last, with nothing in flight.
    fn close(&mut self, _reactor: &mut R) {}

    /// The range that a write of this range needs to itself (rounded out to `alignment`); None when it needs no fence.
    fn exclusive(&self, range: Range<u64>) -> Option<Range<u64>> {
        let a = u64::from(self.geometry().alignment.max(1));
        let out = range.start / a * a..range.end.div_ceil(a).saturating_mul(a);
        (out != range).then_some(out)
    }

    /// Reads at once when that never blocks (RAM, null). None: use `submit`.
    fn read_now(&mut self, _offset: u64, _into: &mut [u8]) -> Option<Result<(), StoreError>> {
        None
    }

    /// Writes at once when that doesn't block (RAM that has its memory, null). None: use `submit`. Other cores may see it only after this
    /// thread has called [`memory::settle`]: once for many, before anybody is told.
    fn write_now(&mut self, _offset: u64, _from: &[u8]) -> Option<Result<(), StoreError>> {
        None
    }

    /// Whether [`write_now`](BlockQueue::write_now) will write all pieces of this range at once: then the data of a command may
    /// go there as it comes. It is a forecast: what comes in between makes it wrong. A queue that can write at once may prefer
    /// `submit` now and then (RAM: to get memory ahead).
    fn writes_now(&self, _offset: u64, _length: u64) -> bool {
        false
    }

    /// What other queues may copy from by [`Request::Copy`]. None: nothing.
    fn copy_source(&self) -> Option<CopySource> {
        None
    }

    /// Whether [`Request::Copy`] from there is worth a try.
    fn can_copy(&self, _source: &CopySource, _from: u64, _to: u64, _length: u64) -> bool {
        false
    }

    /// Memory that holds a range, for a send without a copy: the region, and where the range begins in it (RAM, null).
    /// None: use `submit`.
    fn region(&self, _offset: u64, _length: u32) -> Option<(&Arc<Region>, u64)> {
        None
    }

    /// Pages of a file that hold a range, at the same place in it, for a send without a copy: if a lease of this reader
    /// says so, too. None: use `submit`.
    fn pages(&self, _offset: u64, _length: u32) -> Option<&PageReader> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Geometry);
    impl BlockQueue<(), ()> for Fixed {
        fn geometry(&self) -> &Geometry {
            &self.0
        }
        fn submit(&mut self, (): &mut (), _tag: u64, request: Request) -> Submitted {
            Submitted::Full(request)
        }
        fn complete(&mut self, (): &mut (), (): ()) -> Option<Completion> {
            None
        }
        fn in_flight(&self) -> u32 {
            0
        }
    }
    fn with_alignment(alignment: u32) -> Fixed {
        Fixed(Geometry { alignment, ..Geometry::new(1 << 20) })
    }

    #[test]
    fn exclusive_rounds_out_and_is_none_when_aligned() {
        let queue = with_alignment(4096);
        assert_eq!(queue.exclusive(512..1024), Some(0..4096));
        assert_eq!(queue.exclusive(4096..8704), Some(4096..12288));
        assert_eq!(queue.exclusive(4096..8192), None);
        assert_eq!(with_alignment(1).exclusive(512..1024), None);
    }

    #[test]
    fn span_of_a_hostile_length_saturates() {
        let request = Request::Discard { offset: u64::MAX - 5, length: 100 };
        assert_eq!(request.span(), Some(u64::MAX - 5..u64::MAX));
        assert_eq!(Request::Flush.span(), None);
    }
}
