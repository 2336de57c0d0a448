//! A disk that keeps nothing: reads give zeroes, writes vanish. For benches of everything else.

use crate::errno::EINVAL;
use crate::in_range;
use backstore_api::{Answer, BlockQueue, Completion, Extent, Geometry, Request, StoreError, Submitted};
use memory::Region;
use std::{io, sync::Arc};

/// Zeroes that all reads are sent from.
const ZEROES: u64 = 1 << 20;

/// Both halves of a null disk.
#[derive(Clone)]
pub(crate) struct Null {
    geometry: Geometry,
    zeroes: Arc<Region>,
}

impl Null {
    pub(crate) fn new(bytes: u64) -> io::Result<Null> {
        Ok(Null {
            zeroes: Region::new(ZEROES)?,
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
}

impl<R, C> BlockQueue<R, C> for Null {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn submit(&mut self, _reactor: &mut R, tag: u64, request: Request) -> Submitted {
        if !in_range(&request, &self.geometry) {
            return Submitted::Done(Completion { tag, result: Err(EINVAL), buffer: request.into_buffer() });
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
        if !self.geometry.holds(offset, into.len() as u64) {
            return Some(Err(EINVAL));
        }
        into.fill(0);
        Some(Ok(()))
    }

    fn write_now(&mut self, offset: u64, from: &[u8]) -> Option<Result<(), StoreError>> {
        Some(if self.geometry.holds(offset, from.len() as u64) { Ok(()) } else { Err(EINVAL) })
    }

    fn region(&self, offset: u64, length: u32) -> Option<(&Arc<Region>, u64)> {
        let fits = u64::from(length) <= ZEROES && self.geometry.holds(offset, u64::from(length));
        fits.then_some((&self.zeroes, 0))
    }
}
