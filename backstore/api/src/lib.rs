//! What a block store is asked, and what it answers. No I/O here.
//!
//! A store has two halves. The control half opens, locks and measures; it belongs to the crate that implements the
//! store. The data half is a [`BlockQueue`]: one per core and volume, made by the control half on that core.
//!
//! Contract of the data half:
//! - A [`Request`] owns its buffer, and its [`Completion`] brings the buffer back, whatever happened.
//! - Every request ends exactly once: at once ([`Submitted::Done`]), from [`BlockQueue::complete`], or from
//!   [`BlockQueue::poll`].
//! - Requests of one queue run side by side in any order. Two that overlap are the caller's to order; a range that
//!   must be alone is named by [`BlockQueue::exclusive`].
//! - Nothing blocks, and READ and WRITE allocate nothing, but what a medium in memory is made of.
#![forbid(unsafe_code)]

mod protection;
mod queue;
mod request;

pub use protection::{Checks, Protection, TUPLE, Tag};
pub use queue::{BlockQueue, Submitted};
pub use request::{Answer, Completion, CopySource, Extent, Geometry, Repeated, Request, Space, StoreError};
