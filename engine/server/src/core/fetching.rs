//! Completions one after the other, while the processor fetches what the next ones need.
//!
//! With hundreds of active sessions each of them has left the cache by the time that its next commands come.

use super::{Core, KIND_RECEIVE, KIND_SEND, KIND_SHIFT, link_key};
use memory::{Buffer, Key};
use reactor::{Completion, Reactor, Returned};

/// Completions ahead: the link is fetched, then what it points to, then what that points to.
const LINK: usize = 8;
const PLACE: usize = 4;
const COUNTERS: usize = 2;
/// So few links stay in the cache by themselves.
const FEW: u32 = 16;

impl<R: Reactor> Core<R> {
    /// Hands each completion to whom it belongs.
    pub(super) fn work_off(&mut self, completions: &mut Vec<Completion>) {
        if self.links.len() <= FEW {
            return completions.drain(..).for_each(|completion| self.completed(completion));
        }
        let mut left = completions.drain(..);
        left.as_slice().iter().take(LINK).for_each(|next| self.fetch_link(next));
        left.as_slice().iter().take(PLACE).for_each(|next| self.fetch_place(next));
        while let Some(completion) = left.next() {
            let coming = left.as_slice();
            let ahead = |steps: usize| coming.get(steps - 1);
            ahead(LINK).into_iter().for_each(|next| self.fetch_link(next));
            ahead(PLACE).into_iter().for_each(|next| self.fetch_place(next));
            ahead(COUNTERS).into_iter().for_each(|next| self.fetch_counters(next));
            self.completed(completion);
        }
    }

    fn fetch_link(&self, next: &Completion) {
        if matches!(next.token >> KIND_SHIFT, KIND_RECEIVE | KIND_SEND) {
            self.links.fetch(link_key(next.token).index);
        }
    }

    fn fetch_place(&self, next: &Completion) {
        let Some((key, bytes)) = received(next) else { return };
        let Some(link) = self.links.get(key) else { return };
        link.outgoing.fetch();
        link.places.first().into_iter().for_each(memory::fetch);
        // Mostly a PDU begins there; if not, nothing is lost.
        if let Some(tag) = bytes.get(TAG..).and_then(<[u8]>::first_chunk) {
            link.session.fetch(u32::from_be_bytes(*tag));
        }
    }

    fn fetch_counters(&self, next: &Completion) {
        let Some((key, _)) = received(next) else { return };
        let place = self.links.get(key).and_then(|link| link.places.first());
        place.into_iter().for_each(|place| place.nexus.fetch());
    }
}

/// Where a header has the Initiator Task Tag (RFC 7143 11.2.1.8).
const TAG: usize = 16;

fn received(completion: &Completion) -> Option<(Key, &Buffer)> {
    match &completion.returned {
        Returned::Buffer(buffer) | Returned::Part(buffer) if completion.token >> KIND_SHIFT == KIND_RECEIVE => {
            Some((link_key(completion.token), buffer))
        }
        _ => None,
    }
}
