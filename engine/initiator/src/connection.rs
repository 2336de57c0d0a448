//! A connection in full feature phase: its state, and what can be asked of it. What it receives is in `receive`, what
//! it sends in `submit`, `requests` and `data_out`.

use crate::LoggedIn;
use crate::data_out::Burst;
use crate::event::{Advance, CloseReason, Event, Response};
use crate::frame::{Headers, Segment};
use crate::output::Output;
use crate::tags::Tags;
use crate::window::Window;
use negotiation::Parameters;
use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

/// A command or request that waits for its answer. Dead once the answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub(crate) u32);

impl Handle {
    /// The Initiator Task Tag on the wire.
    pub fn initiator_task_tag(self) -> u32 {
        self.0
    }
}

/// Bounds of a connection; its memory is taken from them at construction.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most SCSI commands at a time, at most 65,471.
    pub tasks: usize,
    /// Most other requests (ping, task management, text, logout) at a time.
    pub requests: usize,
    /// Longest text answer in bytes.
    pub text_length: usize,
    /// Lets pass what other targets get wrong without harm: StatSN of R2T and of NOP-In pings, ExpDataSN, Data-In
    /// sequences that are longer than MaxBurstLength.
    pub lenient: bool,
    /// Data-Out stops when the output holds so many bytes, and goes on with [`Connection::pump`].
    pub output_length: usize,
    /// Silence after which [`Connection::tick`] sends a ping; `None`: never.
    pub ping_interval: Option<Duration>,
    /// How long it waits for anything to come after that ping.
    pub ping_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            tasks: 256,
            requests: 16,
            text_length: 1 << 20,
            lenient: false,
            output_length: usize::MAX,
            ping_interval: None,
            ping_timeout: Duration::from_secs(5),
        }
    }
}

/// A SCSI command on its way.
pub(crate) struct Task<T> {
    pub user: T,
    pub lun: u64,
    pub cmd_sn: u32,
    pub read_length: u32,
    pub write_length: u32,
    /// Data-In bytes so far; with data in order that is also the next offset.
    pub received: u32,
    /// Data-In bytes since the last F bit.
    pub sequence: u32,
    /// The next DataSN or R2TSN: Data-In and R2T of a bidirectional command share the numbers (RFC 7143 11.8.3).
    pub data_sn: u32,
    /// R2Ts that are not fully answered.
    pub r2t_open: u32,
    /// Bytes that were sent unsolicited or asked for; the next R2T's offset.
    pub solicited: u32,
}

/// What a tag stands for.
pub(crate) enum Pending<T> {
    Command(Task<T>),
    Ping,
    TaskManagement,
    Text,
    Logout { reason: wire::LogoutReason },
}

/// Where in a PDU the input stands.
pub(crate) enum Phase {
    Header,
    /// Payload of a known command.
    DataIn {
        tag: u32,
        offset: u32,
        segment: Segment,
        end: Option<End>,
    },
    /// A data segment that is kept in `gathered`.
    Gather {
        header: [u8; 48],
        segment: Segment,
    },
}

/// Status that came with the last Data-In.
#[derive(Clone, Copy)]
pub(crate) struct End {
    pub status: u8,
    pub residual: crate::Residual,
}

/// What one step has led to; the range is the event's data in `gathered`.
pub(crate) enum Step<T> {
    Idle,
    Payload { tag: u32, offset: u32, length: u32 },
    Event(Event<'static, T>, Range<usize>),
}

/// One connection, which is also its session, in full feature phase. `T` is the caller's part of every command; it
/// comes back with the response, and gives the bytes of a write ([`DataOut`](crate::DataOut)).
pub struct Connection<T> {
    pub(crate) parameters: Parameters,
    pub(crate) window: Window,
    pub(crate) limits: Limits,
    pub(crate) tags: Tags<Pending<T>>,
    pub(crate) commands: usize,
    pub(crate) headers: Headers,
    pub(crate) phase: Phase,
    pub(crate) gathered: Vec<u8>,
    pub(crate) text: Vec<u8>,
    /// The text request that is under way.
    pub(crate) text_tag: Option<u32>,
    pub(crate) bursts: VecDeque<Burst>,
    pub(crate) closed: Option<CloseReason>,
    pub(crate) connection_id: u16,
    /// Something has come since the last tick.
    pub(crate) heard: bool,
    /// When something was last known to have come, and when a ping of ours went out after that.
    pub(crate) last_heard: Option<Duration>,
    pub(crate) pinged: Option<Duration>,
    /// The ping of `tick`, whose answer is no event.
    pub(crate) own_ping: Option<u32>,
}

impl<T> Connection<T> {
    /// Goes on where a login has ended. Bytes that the login left in its input belong to this connection.
    pub fn new(login: &LoggedIn, limits: Limits) -> Connection<T> {
        let capacity = limits.tasks.saturating_add(limits.requests);
        Connection {
            parameters: login.parameters,
            window: login.window,
            limits,
            tags: Tags::new(capacity),
            commands: 0,
            headers: Headers::new(),
            phase: Phase::Header,
            gathered: Vec::with_capacity(8192),
            text: Vec::new(),
            text_tag: None,
            bursts: VecDeque::with_capacity(limits.tasks),
            closed: None,
            connection_id: login.connection_id,
            heard: true,
            last_heard: None,
            pinged: None,
            own_ping: None,
        }
    }

    /// What the login has agreed on.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Commands without a response.
    pub fn in_flight(&self) -> usize {
        self.commands
    }

    /// Commands that the target would take now, beside immediate ones.
    pub fn window_room(&self) -> u32 {
        self.window.room()
    }

    /// CmdSN of the next command.
    pub fn cmd_sn(&self) -> u32 {
        self.window.cmd_sn
    }

    /// Sets the CmdSN of the next command: for tests that leave gaps or repeat numbers.
    pub fn set_cmd_sn(&mut self, cmd_sn: u32) {
        self.window.cmd_sn = cmd_sn;
    }

    /// StatSN that is expected next.
    pub fn exp_stat_sn(&self) -> u32 {
        self.window.exp_stat_sn
    }

    /// ExpCmdSN and MaxCmdSN as the target has last said them.
    pub fn command_window(&self) -> (u32, u32) {
        (self.window.exp_cmd_sn, self.window.max_cmd_sn)
    }

    /// True when the target sends data digests, so that every payload byte must be shown to the connection.
    pub fn data_digest(&self) -> bool {
        self.parameters.data_digest
    }

    /// The caller's part of a command.
    pub fn user(&self, task: Handle) -> Option<&T> {
        match self.tags.get(task.0) {
            Some(Pending::Command(task)) => Some(&task.user),
            _ => None,
        }
    }

    /// The caller's part of a command.
    pub fn user_mut(&mut self, task: Handle) -> Option<&mut T> {
        match self.tags.get_mut(task.0) {
            Some(Pending::Command(task)) => Some(&mut task.user),
            _ => None,
        }
    }

    /// The CmdSN that a command was sent with.
    pub fn cmd_sn_of(&self, task: Handle) -> Option<u32> {
        match self.tags.get(task.0) {
            Some(Pending::Command(task)) => Some(task.cmd_sn),
            _ => None,
        }
    }

    /// All commands without a response.
    pub fn tasks(&self) -> impl Iterator<Item = (Handle, &T)> {
        self.tags.iter().filter_map(|(tag, pending)| match pending {
            Pending::Command(task) => Some((Handle(tag), &task.user)),
            _ => None,
        })
    }

    /// Drops a command or request whose answer will not come: an aborted task, once the task management function is
    /// complete, or a rejected PDU. Its later PDUs are [`Event::Stray`]. Payload that has been announced for it is
    /// still to be reported.
    pub fn forget(&mut self, task: Handle) -> Option<T> {
        match self.tags.remove(task.0)? {
            Pending::Command(task) => {
                self.commands -= 1;
                Some(task.user)
            }
            _ => {
                self.text_tag = self.text_tag.filter(|tag| *tag != task.0);
                self.own_ping = self.own_ping.filter(|tag| *tag != task.0);
                None
            }
        }
    }

    /// Uses up input until there is something for the caller. R2Ts are answered with Data-Out and pings with NOP-Out,
    /// appended to `out`.
    pub fn advance(&mut self, input: &mut &[u8], out: &mut impl Output) -> Advance<'_, T>
    where
        T: crate::DataOut,
    {
        match self.next_step(input, out) {
            Ok(Step::Idle) => Advance::Idle,
            Ok(Step::Payload { tag, offset, length }) => Advance::Payload { task: Handle(tag), offset, length },
            Ok(Step::Event(event, range)) => Advance::Event(self.said(event, range)),
            Err(reason) => Advance::Close(reason),
        }
    }

    /// The next step; once closed it stays so.
    #[inline]
    pub(crate) fn next_step(&mut self, input: &mut &[u8], out: &mut impl Output) -> Result<Step<T>, CloseReason>
    where
        T: crate::DataOut,
    {
        if let Some(reason) = self.closed {
            return Err(reason);
        }
        self.step(input, out).inspect_err(|reason| self.closed = Some(*reason))
    }

    /// Puts the borrowed bytes into an event.
    pub(crate) fn said<'a>(&'a self, event: Event<'a, T>, range: Range<usize>) -> Event<'a, T> {
        with_data(event, self.gathered.get(range).unwrap_or_default())
    }

    /// Reports payload bytes, in order, wherever they were put.
    ///
    /// # Panics
    /// When more is reported than [`Advance::Payload`] has announced.
    #[inline]
    pub fn payload(&mut self, bytes: &[u8]) {
        match &mut self.phase {
            Phase::DataIn { offset, segment, .. } => {
                segment.payload(bytes);
                *offset += bytes.len() as u32;
            }
            _ => assert!(bytes.is_empty(), "no payload was announced"),
        }
    }

    /// Reports payload that nobody has looked at.
    ///
    /// # Panics
    /// When more is reported than announced, or with [`data_digest`](Self::data_digest).
    pub fn payload_unseen(&mut self, length: u32) {
        match &mut self.phase {
            Phase::DataIn { offset, segment, .. } => {
                segment.unseen(length);
                *offset += length;
            }
            _ => assert!(length == 0, "no payload was announced"),
        }
    }

    /// Takes what `input` holds of the announced payload, and reports it.
    #[inline]
    pub fn take_payload<'i>(&mut self, input: &mut &'i [u8]) -> &'i [u8] {
        let remaining = match &self.phase {
            Phase::DataIn { segment, .. } => segment.remaining as usize,
            _ => 0,
        };
        let (taken, rest) = input.split_at(remaining.min(input.len()));
        *input = rest;
        self.payload(taken);
        taken
    }

    /// Liveness: after [`Limits::ping_interval`] of silence sends a ping, and gives up [`Limits::ping_timeout`] after
    /// that. Gives the time at which to call again.
    pub fn tick(&mut self, now: Duration, out: &mut impl Output) -> Result<Option<Duration>, CloseReason> {
        if let Some(reason) = self.closed {
            return Err(reason);
        }
        let Some(interval) = self.limits.ping_interval else {
            return Ok(None);
        };
        if self.heard || self.last_heard.is_none() {
            self.heard = false;
            self.last_heard = Some(now);
            self.pinged = None;
        }
        if let Some(pinged) = self.pinged {
            let deadline = pinged.saturating_add(self.limits.ping_timeout);
            if now >= deadline {
                self.closed = Some(CloseReason::Timeout);
                return Err(CloseReason::Timeout);
            }
            return Ok(Some(deadline));
        }
        let due = self.last_heard.unwrap_or(now).saturating_add(interval);
        if now < due {
            return Ok(Some(due));
        }
        if self.own_ping.is_none() {
            match self.ping(&[], out) {
                Ok(handle) => self.own_ping = Some(handle.0),
                // No tag is free: nothing can be asked yet.
                Err(_) => return Ok(Some(now.saturating_add(interval))),
            }
        }
        self.pinged = Some(now);
        Ok(Some(now.saturating_add(self.limits.ping_timeout)))
    }
}

/// Puts the borrowed bytes into an event.
fn with_data<'a, T>(mut event: Event<'a, T>, bytes: &'a [u8]) -> Event<'a, T> {
    match &mut event {
        Event::Response(Response { sense, .. }) => *sense = bytes,
        Event::Pong { data, .. } | Event::Stray { data, .. } => *data = bytes,
        Event::Text { text, .. } => *text = bytes,
        Event::Asynchronous(message) => message.data = bytes,
        Event::TaskManagement { .. } | Event::Logout { .. } | Event::Reject { .. } => {}
    }
    event
}
