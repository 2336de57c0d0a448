//! A disk that keeps nothing: reads give zeroes, writes vanish. For benches of everything else.

use crate::{Capacity, in_range};
use backstore_api::{Answer, BlockQueue, Completion, Extent, Geometry, Request, Space, StoreError, Submitted};
use memory::Region;
use std::{io, sync::Arc};

/// Zeroes that all reads are sent from.
const ZEROES: u64 = 1 << 20;

/// Both halves of a null disk.
#[derive(Clone)]
pub(crate) struct Null {
    geometry: Geometry,
    capacity: Capacity,
    zeroes: Arc<Region>,
}

impl Null {
    pub(crate) fn new(bytes: u64) -> io::Result<Null> {
        Ok(Null {
            zeroes: Region::new(ZEROES)?,
            capacity: Capacity::new(bytes),
            geometry: Geometry {
                discard_granularity: 4096,
                discard_zeroes: true,
                persistent: false,
                cached: true,
                atomic_write: u32::MAX,
                ..Geometry::new(bytes)
            },
        })
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn capacity(&self) -> &Capacity {
        &self.capacity
    }
}

impl<R, C> BlockQueue<R, C> for Null {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn submit(&mut self, _reactor: &mut R, tag: u64, request: Request) -> Submitted {
        if let Err(error) = in_range(&request, &self.capacity) {
            return Submitted::Done(Completion { tag, result: Err(error), buffer: request.into_buffer() });
        }
        let (answer, buffer) = match request {
            Request::Read { mut buffer, range, .. } => {
                buffer[range.start as usize..range.end as usize].fill(0);
                (Answer::Data(range), Some(buffer))
            }
            Request::Status { limit: 0, .. } | Request::Status { length: 0, .. } => (Answer::Extents(Vec::new()), None),
            Request::Status { offset, length, .. } => {
                (Answer::Extents(vec![Extent { offset, length, mapped: false }]), None)
            }
            Request::Space => (Answer::Space(Space { used: Some(0), available: Some(self.capacity.bytes()) }), None),
            other => (Answer::Done, other.into_buffer()),
        };
        Submitted::Done(Completion { tag, result: Ok(answer), buffer })
    }

    fn complete(&mut self, _reactor: &mut R, _completion: C) -> Option<Completion> {
        None
    }

    fn in_flight(&self) -> u32 {
        0
    }

    fn read_now(&mut self, offset: u64, into: &mut [u8]) -> Option<Result<(), StoreError>> {
        Some(self.capacity.holds(offset, into.len() as u64).map(|()| into.fill(0)))
    }

    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), StoreError>> {
        Some(self.capacity.holds(offset, from.len() as u64))
    }

    fn writes_now(&self, _offset: u64, _length: u64) -> bool {
        true
    }

    fn region(&self, offset: u64, length: u32) -> Option<(&Arc<Region>, u64)> {
        let fits = u64::from(length) <= ZEROES && self.capacity.holds(offset, u64::from(length)).is_ok();
        fits.then_some((&self.zeroes, 0))
    }
}
