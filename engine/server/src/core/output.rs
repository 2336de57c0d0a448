//! What a connection sends: one message at a time, and some that the kernel still reads after they were sent.

use super::{Core, KIND_SEND, link::HELD_SENDS, link_identity, link_token};
use memory::Key;
use protocol::CloseReason;
use reactor::{Completion, Errno, Message, Operation, Reactor, Returned};
use tracing::{debug, warn};

impl<R: Reactor> Core<R> {
    /// Sends what there is, one send at a time.
    pub(super) fn flush(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        if link.sending || link.closed || link.held >= HELD_SENDS {
            return;
        }
        if link.outgoing.is_empty() {
            // A close takes back what is held: the peer is to have it first.
            if link.closing.is_some() && link.held == 0 {
                self.hang_up(key, R::close);
            }
            return;
        }
        let bytes = link.outgoing.len();
        let (spare, socket) = (std::mem::take(&mut link.spare), link.descriptor);
        let message = if link.outgoing.has_due() {
            let (now, acknowledges) = (self.reactor.now(), link.acknowledges());
            link.outgoing.seal_lent(spare, |terms, held| {
                let lends = acknowledges && self.loans.may_lend(&self.units[terms.unit as usize]);
                if lends {
                    link.lent += 1;
                    self.loans.lend(key, terms, held.lend(), now);
                }
                lends
            })
        } else {
            link.outgoing.seal(spare)
        };
        let operation = Operation::Send { socket, message };
        match self.reactor.submit(operation, link_token(KIND_SEND, key)) {
            Ok(_) => {
                link.sending = true;
                link.rests = false;
                link.last_bytes = bytes;
                link.operations += 1;
            }
            Err(Operation::Send { message, .. }) => {
                link.outgoing.unseal(message);
                self.mark_dirty(key);
            }
            Err(_) => unreachable!("a refused operation comes back as it was"),
        }
    }

    /// A send is over.
    pub(super) fn sent(&mut self, key: Key, completion: Completion) {
        // Without a copy, the message comes home when the link is gone already.
        if completion.result == Err(Errno::FAULT) && distrusts(&completion.returned) {
            warn!(
                session = link_identity(&self.links, key),
                "a file was cut, or its memory failed, while it was sent from the page cache: from now on its volume is \
                 read without `pinned`"
            );
        }
        let Some(link) = self.links.get_mut(key) else { return };
        match completion.returned {
            Returned::Message(mut message) => {
                message.clear();
                link.spare = message;
            }
            Returned::Late(message) => return self.came_home(key, message),
            // The kernel keeps it for a while.
            _ => {
                link.held += 1;
                link.held_bytes += link.last_bytes;
                link.spare = link.spares.pop().unwrap_or_default();
            }
        }
        link.sending = false;
        link.operations -= 1;
        if link.closed {
            // It was the last that the reactor had of the socket, perhaps.
            return self.settle(key);
        }
        if let Err(errno) = completion.result {
            debug!(session = link.identity.id, ?errno, "send failed");
            self.cut(key, CloseReason::Protocol("the connection broke"));
            return;
        }
        self.go_on_sending(key);
    }

    /// A message that was sent a while ago is free.
    fn came_home(&mut self, key: Key, mut message: Message) {
        let Some(link) = self.links.get_mut(key) else { return };
        link.held -= 1;
        link.held_bytes = link.held_bytes.saturating_sub(message.length());
        message.clear();
        link.spares.push(message);
        if !link.closed {
            self.go_on_sending(key);
        }
    }

    /// There is room again for what waited for it.
    fn go_on_sending(&mut self, key: Key) {
        let Some(link) = self.links.get_mut(key) else { return };
        let resume = std::mem::take(&mut link.stalled);
        self.mark_dirty(key);
        for task in resume {
            self.resume(task);
        }
    }
}

/// Looks whether a send has met pages of a file that aren't there: the file is read in the usual way from now on.
fn distrusts(returned: &Returned) -> bool {
    let (Returned::Message(message) | Returned::Late(message)) = returned else { return false };
    message.leases.iter().filter(|lease| lease.distrust()).count() > 0
}
