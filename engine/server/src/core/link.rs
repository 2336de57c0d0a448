//! One session with its connection on a data core: protocol state, what it sends, what it knows of its LUNs.

use super::{Receiving, prompting::Prompting};
use crate::{mail::Installed, outgoing::Outgoing};
use memory::Key;
use protocol::{CloseReason, Connection, Session};
use reactor::{Descriptor, Message};
use scsi::{Nexus, TargetPort, TaskSet};
use std::{cell::Cell, rc::Rc, sync::Arc};

/// Stands for the LUN of a place that no map shows any more: its last tasks still use it. No number that a LUN field
/// gives is as high, so that it is never found, and stays behind all others.
pub(crate) const NO_LUN: u16 = u16::MAX;

/// A LUN as this session knows it.
pub(crate) struct Place {
    pub lun: u16,
    /// Position of the unit on this core.
    pub unit: u16,
    pub nexus: Nexus,
    pub tasks: TaskSet,
    /// Bytes of windows that are open for its reads.
    pub reading: Rc<Cell<usize>>,
}

/// A session and its one connection.
pub(crate) struct Link {
    pub descriptor: Descriptor,
    pub session: Session,
    pub connection: Connection,
    pub port: Arc<TargetPort>,
    /// Ordered by LUN.
    pub places: Vec<Place>,
    pub receiving: Receiving,
    /// Receives in a row that have left nothing in the socket, and that nothing was received between into buffers of the core's choice.
    pub calm: u8,
    /// The last receive was into a buffer of its own and has filled it: more may be there.
    pub filled: bool,
    /// The last receive was into a window for a long data segment: what is to come next is received up to the end of a header.
    pub heads: bool,
    /// The last large data segment would have been better received into a buffer of its own, instead of copied.
    pub alike: bool,
    pub prompting: Prompting,
    pub outgoing: Outgoing,
    /// A sent message, for its memory.
    pub spare: Message,
    /// Nothing was sent since the last tick.
    pub rests: bool,
    /// A send is out.
    pub sending: bool,
    /// Bytes of the last message, which may be on its way: the next one probably has as many.
    pub last_bytes: usize,
    /// Answers of which it hasn't said that it has them, and that refer to blocks where they lie: see `lending`.
    pub lent: u32,
    /// How far it had acknowledged when that was looked at.
    pub acknowledged: u32,
    /// It was too late to say so while somebody waited.
    pub gets_copies: bool,
    /// Messages that were sent, and that the kernel still reads: until the peer has acknowledged them.
    pub held: u32,
    /// Bytes of them.
    pub held_bytes: usize,
    /// Messages that came home from there, for their memory.
    pub spares: Vec<Message>,
    /// It stands in the core's list of links to flush.
    pub dirty: bool,
    /// No more input is read; it is closed when all is sent.
    pub closing: Option<CloseReason>,
    /// The descriptor has been given back; it waits for operations in flight.
    pub closed: bool,
    /// Ticks since it began to close.
    pub lingered: u32,
    /// Operations of the reactor on the socket.
    pub operations: u32,
    /// Tasks that wait until the peer has read some of what was sent.
    pub stalled: Vec<Key>,
    /// It is closed when its task management function has been answered.
    pub close_after_management: bool,
    /// Answer to SendTargets: its own target with its addresses.
    pub addresses: Arc<[u8]>,
    /// What the control thread calls it.
    pub identity: Installed,
}

/// The I_T nexus of a session.
pub(crate) fn path(identity: &Installed, port: &TargetPort) -> scsi::Path {
    scsi::Path { initiator: identity.initiator.clone(), relative_port: port.relative_port }
}

impl Link {
    /// Its I_T nexus.
    pub fn path(&self) -> scsi::Path {
        path(&self.identity, &self.port)
    }

    /// The entry of a LUN.
    pub fn place(&self, lun: u16) -> Option<u16> {
        match self.places.as_slice() {
            [only] if only.lun == lun => Some(0),
            all => all.binary_search_by_key(&lun, |p| p.lun).ok().map(|i| i as u16),
        }
    }

    /// Whether it is a session of one of these nexuses.
    pub fn is_of(&self, nexuses: &[scsi::Path]) -> bool {
        let relative_port = self.port.relative_port;
        nexuses.iter().any(|path| path.relative_port == relative_port && path.initiator == self.identity.initiator)
    }

    /// Bytes that the peer hasn't taken yet.
    fn unsent(&self) -> usize {
        let sending = if self.sending { self.last_bytes } else { 0 };
        self.outgoing.len() + sending + self.held_bytes
    }

    /// Whether the peer is so far behind that no more answers should be made for it.
    pub fn is_behind(&self) -> bool {
        self.unsent() >= OUTGOING_SOFT
    }

    /// Whether it will say that it has what it was lent. Who is closing says nothing more.
    pub fn acknowledges(&self) -> bool {
        !self.gets_copies && self.closing.is_none()
    }

    /// Whether nothing more may be read from it until it has read what it was sent.
    pub fn is_flooded(&self) -> bool {
        self.unsent() >= OUTGOING_HARD
    }
}

/// While so many messages are held, nothing more is sent: each of them has a slot of the reactor.
pub(crate) const HELD_SENDS: u32 = config::HELD_SENDS;
/// Above this, reads wait before they take another buffer.
pub(crate) const OUTGOING_SOFT: usize = 2 << 20;
/// Reads of one LUN open windows of so many bytes at a time: a peer that never reads what it asked for costs no more
/// than this and [`OUTGOING_SOFT`].
pub(crate) const READ_AHEAD: usize = 2 << 20;
/// Above this, nothing is read from the connection: only a peer that never reads gets here, since its queued
/// commands alone cannot fill it.
pub(crate) const OUTGOING_HARD: usize = 4 << 20;
