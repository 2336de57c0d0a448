//! One core with one queue: makes requests and waits for their ends, on any reactor.

use backstore::Store;
use backstore_api::{Answer, BlockQueue, Completion, Request, StoreError, Submitted};
use memory::{Buffer, Class};
use reactor::{Reactor, Wait};
use std::time::Duration;

pub const BASE: u64 = 7 << 24;

pub struct Core<R> {
    pub reactor: R,
    pub queue: Box<dyn BlockQueue<R, reactor::Completion>>,
    next_tag: u64,
}

impl<R: Reactor + 'static> Core<R> {
    pub fn new(mut reactor: R, store: &Store) -> Core<R> {
        let queue = store.queue(&mut reactor, BASE).unwrap();
        Core { reactor, queue, next_tag: 100 }
    }

    pub fn buffer(&self, bytes: usize) -> Buffer {
        let mut buffer = self.reactor.pool().take(Class::fitting(bytes)).expect("a buffer");
        buffer.fill(0xee);
        buffer
    }

    /// Offers a request; `Ok(tag)` when it runs, else what came at once.
    pub fn offer(&mut self, request: Request) -> (u64, Submitted) {
        self.next_tag += 1;
        (self.next_tag, self.queue.submit(&mut self.reactor, self.next_tag, request))
    }

    /// One turn; what ended in it.
    pub fn turn(&mut self) -> Vec<Completion> {
        let (mut out, mut ended) = (Vec::new(), Vec::new());
        let now = self.reactor.now();
        let late = now + Duration::from_millis(5);
        let until = self.queue.deadline().map_or(late, |deadline| deadline.clamp(now, late));
        self.reactor.turn(Wait::Until(until), &mut out).unwrap();
        for completion in out {
            assert_eq!(completion.token >> 24, BASE >> 24, "a token outside of its base");
            ended.extend(self.queue.complete(&mut self.reactor, completion));
        }
        while let Some(completion) = self.queue.poll(&mut self.reactor) {
            ended.push(completion);
        }
        ended
    }

    /// Turns until nothing is in flight.
    pub fn drain(&mut self) -> Vec<Completion> {
        let mut ended = Vec::new();
        let mut turns = 0;
        while self.queue.in_flight() > 0 {
            ended.extend(self.turn());
            turns += 1;
            assert!(turns < 20_000, "a request never ends");
        }
        ended
    }

    /// Makes one request and waits for it.
    pub fn run(&mut self, request: Request) -> Completion {
        let (tag, submitted) = self.offer(request);
        let completion = match submitted {
            Submitted::Done(completion) => completion,
            Submitted::Pending => {
                let mut ended = self.drain();
                assert_eq!(ended.len(), 1);
                ended.remove(0)
            }
            Submitted::Full(request) => panic!("no room for {request:?}"),
        };
        assert_eq!(completion.tag, tag);
        completion
    }

    pub fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>, StoreError> {
        let buffer = self.buffer(length as usize);
        let completion = self.run(Request::Read { offset, buffer, range: 0..length });
        data(completion, length)
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8], durable: bool) -> Result<(), StoreError> {
        let request = self.write_request(offset, bytes, durable);
        let completion = self.run(request);
        assert!(completion.buffer.is_some(), "the buffer came back");
        completion.result.map(|answer| assert_eq!(answer, Answer::Done))
    }

    pub fn write_request(&self, offset: u64, bytes: &[u8], durable: bool) -> Request {
        let mut buffer = self.buffer(bytes.len());
        buffer[..bytes.len()].copy_from_slice(bytes);
        Request::Write { offset, buffer, range: 0..bytes.len() as u32, durable }
    }

    pub fn simple(&mut self, request: Request) -> Result<(), StoreError> {
        self.run(request).result.map(|answer| assert_eq!(answer, Answer::Done))
    }

    pub fn status(&mut self, offset: u64, length: u64, limit: u32) -> Vec<(u64, u64, bool)> {
        match self.run(Request::Status { offset, length, limit }).result.unwrap() {
            Answer::Extents(extents) => {
                extents.iter().map(|extent| (extent.offset, extent.length, extent.mapped)).collect()
            }
            other => panic!("{other:?} is no list of extents"),
        }
    }
}

/// The data of a read.
pub fn data(completion: Completion, length: u32) -> Result<Vec<u8>, StoreError> {
    let buffer = completion.buffer.expect("the buffer came back");
    completion.result.map(|answer| match answer {
        Answer::Data(range) => {
            assert_eq!(range.end - range.start, length);
            buffer[range.start as usize..range.end as usize].to_vec()
        }
        other => panic!("{other:?} is no data"),
    })
}
