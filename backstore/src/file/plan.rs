//! What a request of a file takes: a refusal, an answer at once, or a walk.

use super::queue::FileQueue;
use super::walk::{Next, Task, Walk};
use crate::in_range;
use backstore_api::{Answer, CopySource, Extent, Request, StoreError};
use memory::Buffer;

impl FileQueue {
    pub(super) fn refusal(&self, request: &Request) -> Option<StoreError> {
        if let Err(error) = self.shared.state() {
            return Some(error);
        }
        if self.geometry.read_only && request.is_write() {
            return Some(StoreError::ReadOnly);
        }
        in_range(request, &self.shared.capacity).err()
    }

    /// The walk of a request that is in range, and its buffer.
    pub(super) fn plan(&self, request: Request) -> (Walk, Option<Buffer>, Option<CopySource>) {
        let span = request.span().unwrap_or(0..0);
        let (walk, buffer) = match request {
            Request::Copy { source, from, durable, .. } => {
                let durable = self.honest(durable);
                return (Walk::new(Task::Copy(from), span, 0, durable), None, Some(source));
            }
            Request::Read { buffer, range, .. } => {
                let walk = Walk::read(span, range, buffer.len() as u32, &self.limits);
                (walk, Some(buffer))
            }
            Request::Write { buffer, range, durable, .. } => {
                let durable = self.honest(durable);
                (Walk::new(Task::Write, span, range.start, durable), Some(buffer))
            }
            Request::ReadTuples { buffer, .. } | Request::WriteTuples { buffer, .. } => {
                // Refused already.
                let mut walk = Walk::new(Task::Flush, span, 0, false);
                walk.finish();
                (walk, Some(buffer))
            }
            Request::Flush => (Walk::new(Task::Flush, span, 0, false), None),
            Request::Discard { .. } => {
                let mut walk = Walk::discard(span, u64::from(self.geometry.discard_granularity));
                if self.geometry.discard_granularity == 0 {
                    walk.finish();
                }
                (walk, None)
            }
            Request::Zero { unmap, durable, .. } => {
                let unmap = unmap && self.geometry.discard_granularity > 0;
                (Walk::new(Task::Zero { unmap }, span, 0, self.honest(durable)), None)
            }
            Request::Fill { buffer, pattern, durable, .. } => {
                let durable = self.honest(durable);
                (Walk::new(Task::Fill(pattern), span, 0, durable), Some(buffer))
            }
            Request::Space => (Walk::new(Task::Space, span, 0, false), None),
            Request::Prefetch { .. } => {
                let mut walk = Walk::new(Task::Prefetch, span, 0, false);
                if !self.shared.buffered {
                    walk.finish();
                }
                (walk, None)
            }
            Request::Status { limit, .. } => (Walk::new(Task::Status(limit), span, 0, false), None),
        };
        (walk, buffer, None)
    }

    #[cfg(feature = "broken-durability")]
    fn honest(&self, durable: bool) -> bool {
        durable && !self.shared.broken.ignore_fua.load(std::sync::atomic::Ordering::Relaxed)
    }

    #[cfg(not(feature = "broken-durability"))]
    fn honest(&self, durable: bool) -> bool {
        durable
    }

    pub(super) fn skips_flush(&self, request: &Request) -> bool {
        #[cfg(feature = "broken-durability")]
        if self.shared.broken.ignore_flush.load(std::sync::atomic::Ordering::Relaxed) {
            return matches!(request, Request::Flush);
        }
        let _ = request;
        false
    }

    /// What needs no operation.
    pub(super) fn answer_now(&self, walk: &Walk) -> Option<Answer> {
        if let Task::Status(limit) = walk.task
            && !self.shared.holes
        {
            let (offset, length) = (walk.at, walk.end - walk.at);
            let all = Extent { offset, length, mapped: true };
            return Some(Answer::Extents(if limit == 0 || length == 0 { vec![] } else { vec![all] }));
        }
        (walk.next(&self.limits, self.shared.missing()) == Next::Done).then(|| match &walk.task {
            Task::Read(range) => Answer::Data(range.clone()),
            Task::Status(_) => Answer::Extents(Vec::new()),
            _ => Answer::Done,
        })
    }
}
