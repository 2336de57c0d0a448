//! Simulated stream sockets.

use super::world::{Operator, State, World};
use crate::Errno;
use std::collections::VecDeque;

/// Bytes on their way in one direction.
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    /// Most bytes that wait in it: the receive window.
    window: usize,
    /// No more bytes will come.
    ended: bool,
    /// Nobody will read them.
    unread: bool,
    /// The connection broke: what waits is lost.
    reset: bool,
    /// Operations that wait for bytes, or for room.
    readers: Vec<Operator>,
    writers: Vec<Operator>,
}

impl Pipe {
    fn new(window: usize) -> Pipe {
        Pipe {
            bytes: VecDeque::new(),
            window,
            ended: false,
            unread: false,
            reset: false,
            readers: Vec::new(),
            writers: Vec::new(),
        }
    }

    /// Room for more bytes; None when there will never be any.
    pub(crate) fn room(&self) -> Option<usize> {
        (!self.ended && !self.unread && !self.reset).then(|| self.window.saturating_sub(self.bytes.len()))
    }

    /// Bytes that wait; None when there are none and none will come.
    pub(crate) fn waiting(&self) -> Result<Option<usize>, Errno> {
        if self.reset {
            return Err(Errno(libc::ECONNRESET));
        }
        match self.bytes.len() {
            0 if self.ended || self.unread => Ok(None),
            count => Ok(Some(count)),
        }
    }
}

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) connection: usize,
    pub(crate) side: usize,
}

impl End {
    pub(crate) fn other(self) -> End {
        End { side: 1 - self.side, ..self }
    }
}

/// Two pipes; the one of index `n` is written by side `n`.
pub(crate) struct Connection([Pipe; 2]);

impl Connection {
    pub(crate) fn new(window: usize) -> Connection {
        Connection([Pipe::new(window), Pipe::new(window)])
    }
}

impl State {
    /// The pipe that an end writes to.
    pub(crate) fn outgoing(&mut self, end: End) -> &mut Pipe {
        &mut self.connections[end.connection].0[end.side]
    }

    /// The pipe that an end reads from.
    pub(crate) fn incoming(&mut self, end: End) -> &mut Pipe {
        self.outgoing(end.other())
    }

    /// Adds bytes (there is room: the caller has asked).
    pub(crate) fn put_bytes(&mut self, end: End, bytes: &[u8]) {
        let pipe = self.outgoing(end);
        pipe.bytes.extend(bytes);
        let readers = std::mem::take(&mut pipe.readers);
        self.schedule_all(readers);
    }

    /// Takes as many bytes as fit.
    pub(crate) fn take_bytes(&mut self, end: End, into: &mut [u8]) -> usize {
        let pipe = self.incoming(end);
        let count = into.len().min(pipe.bytes.len());
        for (place, byte) in into.iter_mut().zip(pipe.bytes.drain(..count)) {
            *place = byte;
        }
        if pipe.bytes.len() < pipe.window {
            let writers = std::mem::take(&mut pipe.writers);
            self.schedule_all(writers);
        }
        count
    }

    pub(crate) fn park_reader(&mut self, end: End, operator: Operator) {
        self.incoming(end).readers.push(operator);
    }

    pub(crate) fn park_writer(&mut self, end: End, operator: Operator) {
        self.outgoing(end).writers.push(operator);
    }

    /// It waits no longer. False when it didn't wait.
    pub(crate) fn unpark(&mut self, end: End, operator: Operator) -> bool {
        for pipe in &mut self.connections[end.connection].0 {
            for list in [&mut pipe.readers, &mut pipe.writers] {
                if let Some(at) = list.iter().position(|other| *other == operator) {
                    list.swap_remove(at);
                    return true;
                }
            }
        }
        false
    }

    /// An end neither sends nor receives any more; what it sent still arrives.
    pub(crate) fn shut(&mut self, end: End) {
        self.outgoing(end).ended = true;
        self.incoming(end).unread = true;
        self.stir(end.connection);
    }

    fn stir(&mut self, connection: usize) {
        for side in 0..2 {
            let pipe = &mut self.connections[connection].0[side];
            let mut all = std::mem::take(&mut pipe.readers);
            all.append(&mut pipe.writers);
            self.schedule_all(all);
        }
    }

    pub(crate) fn reset(&mut self, connection: usize) {
        for pipe in &mut self.connections[connection].0 {
            pipe.reset = true;
            pipe.bytes.clear();
        }
        self.stir(connection);
    }

    pub(crate) fn forget_parked(&mut self, core: Option<usize>) {
        let goes = |operator: &Operator| core.is_none_or(|core| operator.core == core);
        for pipe in self.connections.iter_mut().flat_map(|connection| &mut connection.0) {
            pipe.readers.retain(|operator| !goes(operator));
            pipe.writers.retain(|operator| !goes(operator));
        }
    }
}

/// The test's own end of a connection. Dropping it leaves the connection open: see [`Peer::close`].
pub struct Peer {
    pub(crate) world: World,
    pub(crate) end: End,
}

impl Peer {
    /// Sends bytes. They are taken whatever the window says (what the test sends is the test's business); without
    /// effect when the other end is shut.
    pub fn write(&self, bytes: &[u8]) {
        let mut state = self.world.state();
        if state.outgoing(self.end).room().is_some() {
            state.put_bytes(self.end, bytes);
        }
    }

    /// Takes at most `limit` of the bytes that have arrived.
    pub fn read(&self, limit: usize) -> Vec<u8> {
        let mut state = self.world.state();
        let mut bytes = vec![0; limit.min(state.incoming(self.end).bytes.len())];
        state.take_bytes(self.end, &mut bytes);
        bytes
    }

    /// Bytes that have arrived and were not read.
    pub fn unread(&self) -> usize {
        self.world.state().incoming(self.end).bytes.len()
    }

    /// Everything was read, and the other end sends no more.
    pub fn is_at_end(&self) -> bool {
        !matches!(self.world.state().incoming(self.end).waiting(), Ok(Some(_)))
    }

    /// At most so many bytes wait to be read here; then the other end's sends stall.
    pub fn set_window(&self, bytes: usize) {
        let mut state = self.world.state();
        let pipe = state.incoming(self.end);
        pipe.window = bytes;
        let writers = std::mem::take(&mut pipe.writers);
        state.schedule_all(writers);
    }

    /// Ends the stream in both directions: the other end reads what was sent and then the end; its sends fail.
    pub fn close(&self) {
        self.world.state().shut(self.end);
    }

    /// Ends the stream towards the other end only: it can still send.
    pub fn finish(&self) {
        let mut state = self.world.state();
        state.outgoing(self.end).ended = true;
        state.stir(self.end.connection);
    }

    /// Breaks the connection: what is on its way is lost.
    pub fn reset(&self) {
        self.world.state().reset(self.end.connection);
    }
}
