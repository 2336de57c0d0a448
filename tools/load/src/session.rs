//! One session under load: its socket, its protocol state, what it sends.

use crate::login::{Opened, describe, sense_key};
use crate::measure::Counters;
use crate::operation::Operation;
use crate::verify::Checker;
use crate::workload::{Draw, Walk};
use initiator::{Advance, Command, Connection, Event, Gather, Response, SubmitError, cdb};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};
use std::{collections::BTreeMap, io::IoSlice, net::TcpStream};
use wire::{LogoutReason, ScsiResponseCode};

/// What the sessions of a thread share.
pub struct Common {
    /// Draws operations.
    pub draw: Draw,
    /// What was counted since it was last taken.
    pub counters: Counters,
    /// Where bytes are received: small enough to stay in the processor's cache.
    pub scratch: Vec<u8>,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
    /// Bytes that may still be asked for.
    pub budget: u64,
    /// Commands may be sent.
    pub open: bool,
    /// Commands without a response.
    pub in_flight: u64,
    /// With `--verify`.
    pub checker: Option<Checker>,
    /// Operations were held back because others are at their blocks.
    pub starved: bool,
    /// The longest operation.
    pub longest: u32,
    /// Room for payload that is dropped unseen; never touched.
    pub void: Vec<u8>,
}

/// One session.
pub struct Session {
    /// Which one, for messages.
    name: String,
    stream: TcpStream,
    connection: Connection<Operation>,
    lun: u64,
    block_shift: u32,
    /// Which of the checker's units.
    unit: usize,
    walk: Walk,
    depth: usize,
    out: Gather,
    /// So many bytes of payload come next, and nobody looks at them.
    unseen: u32,
    /// Operations to send once more: a unit attention or a busy unit was in their way.
    again: Vec<Operation>,
    /// Something may be there to receive.
    pub readable: bool,
    /// The socket takes more.
    writable: bool,
    /// Logged out, or lost.
    pub over: bool,
}

/// From so many bytes on, payload that nobody looks at is dropped by a receive of its own, without a copy.
const WORTH_DROPPING: u32 = 32 << 10;
/// Pieces per send.
const PIECES: usize = 128;
/// Operations that are drawn until one finds its blocks free.
const DRAWS: usize = 16;
/// Receives in a row before others have their turn.
const RECEIVES: usize = 4;

impl Session {
    /// Takes an opened session over.
    pub fn new(opened: Opened, name: String, unit: usize, walk: Walk, depth: usize) -> Result<Session, String> {
        opened.stream.set_nonblocking(true).map_err(|error| format!("{name}: {error}"))?;
        Ok(Session {
            name,
            stream: opened.stream,
            connection: opened.connection,
            lun: opened.lun,
            block_shift: opened.geometry.block_length.trailing_zeros(),
            unit,
            walk,
            depth,
            out: Gather::with_capacity(depth.min(1024) * 64),
            unseen: 0,
            again: Vec::new(),
            readable: false,
            writable: true,
            over: false,
        })
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// There is a free place for a command.
    #[inline]
    pub fn has_room(&self) -> bool {
        !self.over && self.connection.in_flight() < self.depth && self.connection.window_room() != 0
    }

    /// Bytes of all operations that are in flight, or wait for another try.
    pub fn bytes_in_flight(&self) -> u64 {
        let operations = self.connection.tasks().map(|(_, operation)| operation).chain(&self.again);
        operations.map(|operation| u64::from(operation.length)).sum()
    }

    /// Takes what has come; `clock` says when. With `refill`, every command that has ended is replaced.
    pub fn receive(&mut self, common: &mut Common, refill: bool, clock: &impl Fn() -> u64) -> Result<(), String> {
        for _ in 0..RECEIVES {
            let dropping = self.unseen >= WORTH_DROPPING;
            let into = if dropping { &mut common.void } else { &mut common.scratch };
            let mut buffer = std::mem::take(into);
            let result = if dropping {
                let length = buffer.len().min(self.unseen as usize);
                recv(&self.stream, &mut buffer[..length], RecvFlags::TRUNC).map(|(_, count)| (count, count == length))
            } else {
                recv(&self.stream, &mut buffer[..], RecvFlags::empty()).map(|(count, _)| (count, count == buffer.len()))
            };
            let now = clock();
            let outcome = match result {
                Ok((0, _)) => Err(format!("{}: the target has closed the connection", self.name)),
                Ok((count, full)) => {
                    self.readable = full;
                    if dropping {
                        self.connection.payload_unseen(count as u32);
                    }
                    self.take(if dropping { &[] } else { &buffer[..count] }, now, common)
                }
                Err(Errno::WOULDBLOCK) => {
                    self.readable = false;
                    Ok(())
                }
                Err(Errno::INTR) => Ok(()),
                Err(error) => Err(format!("{}: {error}", self.name)),
            };
            *(if dropping { &mut common.void } else { &mut common.scratch }) = buffer;
            if self.over {
                return Ok(());
            }
            outcome?;
            if refill {
                self.fill(common, now);
            }
            self.flush()?;
            if !self.readable {
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, mut input: &[u8], now: u64, common: &mut Common) -> Result<(), String> {
        self.unseen = 0;
        loop {
            match self.connection.advance(&mut input, &mut self.out) {
                Advance::Idle => return Ok(()),
                Advance::Payload { task, offset, length } => {
                    if let Some(checker) = &mut common.checker {
                        if input.is_empty() {
                            return Ok(());
                        }
                        let operation = self.connection.user(task).copied();
                        let bytes = self.connection.take_payload(&mut input);
                        if let Some(operation) = operation {
                            let checked = checker.check(self.unit, &operation, offset, bytes);
                            checked.map_err(|fault| format!("{}: {fault}", self.name))?;
                        }
                    } else if input.is_empty() {
                        if !self.connection.data_digest() {
                            self.unseen = length;
                        }
                        return Ok(());
                    } else {
                        self.connection.take_payload(&mut input);
                    }
                }
                Advance::Event(Event::Response(response)) => {
                    common.in_flight -= 1;
                    ended(response, now, common, self.unit, &mut self.again, &self.name);
                }
                Advance::Event(Event::Logout { .. }) => self.over = true,
                Advance::Event(Event::Reject { reason, .. }) => {
                    return Err(format!("{}: the target has rejected a PDU: {reason:?}", self.name));
                }
                Advance::Event(_) => {}
                Advance::Close(_) if self.over => return Ok(()),
                Advance::Close(reason) => return Err(format!("{}: {reason}", self.name)),
            }
        }
    }

    /// Puts commands into all free places.
    #[inline]
    pub fn fill(&mut self, common: &mut Common, now: u64) {
        while common.open && self.connection.in_flight() < self.depth {
            if !self.submit_next(common, now) {
                break;
            }
        }
    }

    /// Builds the next command; false when there is none, or no room.
    #[inline]
    pub fn submit_next(&mut self, common: &mut Common, start: u64) -> bool {
        if self.connection.window_room() == 0 {
            return false;
        }
        let operation = match self.again.pop() {
            Some(operation) => operation,
            None => {
                if common.budget == 0 {
                    return false;
                }
                let Some(operation) = self.draw(common, start) else {
                    common.starved = true;
                    return false;
                };
                common.budget = common.budget.saturating_sub(u64::from(operation.length));
                operation
            }
        };
        let command = self.command(&operation);
        match self.connection.submit(&command, operation, &mut self.out) {
            Ok(_) => {
                common.in_flight += 1;
                true
            }
            Err(refused) => {
                debug_assert!(!matches!(refused.reason, SubmitError::TooLong));
                self.again.push(refused.user);
                false
            }
        }
    }

    /// The next operation; with `--verify` one whose blocks are free.
    #[inline]
    fn draw(&mut self, common: &mut Common, start: u64) -> Option<Operation> {
        let Some(checker) = &mut common.checker else {
            return Some(common.draw.next(&mut self.walk, start));
        };
        if checker.fills(self.unit) {
            return checker.next_fill(self.unit, common.longest, start);
        }
        for _ in 0..DRAWS {
            let mut operation = common.draw.next(&mut self.walk, start);
            if checker.claim(self.unit, &mut operation) {
                return Some(operation);
            }
        }
        None
    }

    fn command(&self, operation: &Operation) -> Command<'static> {
        let (lba, blocks) = (operation.offset >> self.block_shift, operation.length >> self.block_shift);
        let short = u32::try_from(lba).ok().zip(u16::try_from(blocks).ok());
        let cdb = match (operation.write, short) {
            (false, Some((lba, blocks))) => cdb::read_10(lba, blocks),
            (false, None) => cdb::read_16(lba, blocks),
            (true, Some((lba, blocks))) => cdb::write_10(lba, blocks),
            (true, None) => cdb::write_16(lba, blocks),
        };
        let command = match operation.write {
            false => Command::read(cdb, operation.length),
            true => Command::write(cdb, operation.length),
        };
        command.to_lun(self.lun)
    }

    /// Sends what the socket takes.
    #[inline]
    pub fn flush(&mut self) -> Result<(), String> {
        while self.writable && !self.out.is_empty() {
            let result = match self.out.single() {
                Some(bytes) => send(&self.stream, bytes, SendFlags::NOSIGNAL),
                None => {
                    let mut slices = [IoSlice::new(&[]); PIECES];
                    let count = self.out.pieces(&mut slices);
                    let mut nothing = SendAncillaryBuffer::default();
                    sendmsg(&self.stream, &slices[..count], &mut nothing, SendFlags::NOSIGNAL)
                }
            };
            match result {
                Ok(count) => self.out.advance(count),
                Err(Errno::WOULDBLOCK) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(error) => return Err(format!("{}: {error}", self.name)),
            }
        }
        Ok(())
    }

    /// The socket takes no more, and something is left.
    pub fn is_full(&self) -> bool {
        !self.writable
    }

    /// The socket says that it takes more.
    pub fn writable(&mut self) -> Result<(), String> {
        self.writable = true;
        self.flush()
    }

    /// Asks for a logout, when nothing is in flight.
    pub fn log_out(&mut self) {
        let asked = self.connection.logout(LogoutReason::CloseSession, &mut self.out);
        self.over |= asked.is_err() || self.flush().is_err();
    }
}

/// A command has ended.
#[inline]
fn ended(
    response: Response<'_, Operation>,
    now: u64,
    common: &mut Common,
    unit: usize,
    again: &mut Vec<Operation>,
    name: &str,
) {
    let operation = response.user;
    let moved = operation.write || response.received == operation.length;
    if response.status == 0 && response.response == ScsiResponseCode::CommandCompleted && moved {
        let counter = if operation.write { &mut common.counters.write } else { &mut common.counters.read };
        counter.record(operation.length, now.saturating_sub(operation.start));
        if let Some(checker) = &mut common.checker {
            checker.release(unit, &operation, true);
        }
        return;
    }
    failed(&response, common, unit, again, name);
}

#[cold]
fn failed(
    response: &Response<'_, Operation>,
    common: &mut Common,
    unit: usize,
    again: &mut Vec<Operation>,
    name: &str,
) {
    let completed = response.response == ScsiResponseCode::CommandCompleted;
    // A unit attention is told once, and BUSY and TASK SET FULL pass: the operation goes once more.
    if completed && matches!((response.status, sense_key(response.sense)), (2, Some(6)) | (8 | 0x28, _)) {
        again.push(response.user);
        return;
    }
    let operation = response.user;
    if let Some(checker) = &mut common.checker {
        checker.release(unit, &operation, false);
    }
    let reason = if !completed {
        format!("{}", response.response)
    } else if response.status != 0 {
        describe(response.status, response.sense)
    } else {
        format!("GOOD, but only {} bytes came", response.received)
    };
    let what = if operation.write { "WRITE" } else { "READ" };
    common.note(format!("{name}: {what} of {} bytes at byte {}: {reason}", operation.length, operation.offset));
}

/// Kinds of errors that are kept apart.
const MOST_ERRORS: usize = 100;

impl Common {
    /// Counts an error.
    pub fn note(&mut self, error: String) {
        let error = match self.errors.len() < MOST_ERRORS || self.errors.contains_key(&error) {
            true => error,
            false => "further errors".to_owned(),
        };
        *self.errors.entry(error).or_default() += 1;
    }
}
