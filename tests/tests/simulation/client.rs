//! An initiator in the simulated world: its end of a stream, and what the target has said to it.

use crate::dice::Dice;
use initiator::{Command, Connection, Event, Handle, Limits, LoggedIn, Residual, Transfer};
use negotiation::Parameters;
use reactor::twin::Peer;
use wire::{LogoutReason, TaskManagementFunction, TaskManagementResult};

pub const GOOD: u8 = 0x00;
pub const CHECK_CONDITION: u8 = 0x02;
pub const TASK_SET_FULL: u8 = 0x28;
/// Sense key UNIT ATTENTION.
pub const UNIT_ATTENTION: u8 = 6;

/// Commands that the simulated targets take at once from a session.
pub const WINDOW: u32 = 32;

/// How a command has ended.
#[derive(Clone, Debug)]
pub struct End {
    pub task: Handle,
    pub status: u8,
    /// Sense key and additional sense code with its qualifier; 0 without sense.
    pub sense: (u8, u16),
    pub residual: Residual,
    pub data: Vec<u8>,
}

impl End {
    /// It was not executed because its initiator had to be told something first.
    pub fn is_attention(&self) -> bool {
        self.status == CHECK_CONDITION && self.sense.0 == UNIT_ATTENTION
    }
}

/// What the target has said.
#[derive(Debug)]
pub enum Said {
    Ended(End),
    Pong,
    Management(Handle, TaskManagementResult),
    LoggedOut,
    #[expect(dead_code, reason = "shown when a test fails")]
    Other(String),
}

pub struct Client {
    pub peer: Peer,
    pub connection: Connection<Transfer>,
    out: Vec<u8>,
    /// It reads nothing.
    pub deaf: bool,
    /// The connection is over, for whatever reason.
    pub closed: Option<String>,
}

impl Client {
    /// `parameters` are the initiator's view.
    pub fn new(peer: Peer, parameters: Parameters) -> Client {
        let login = LoggedIn::assumed(parameters, 1, WINDOW, 1);
        Client {
            peer,
            connection: Connection::new(&login, Limits::default()),
            out: Vec::new(),
            deaf: false,
            closed: None,
        }
    }

    /// Whether a command may be sent now.
    pub fn is_open(&self) -> bool {
        self.closed.is_none() && self.connection.window_room() > 0
    }

    pub fn submit(&mut self, command: &Command<'_>, data: Vec<u8>) -> Handle {
        let handle = self.connection.submit(command, Transfer::sending(data), &mut self.out).expect("an open window");
        self.flush();
        handle
    }

    pub fn ping(&mut self) -> Handle {
        let handle = self.connection.ping(b"are you there?", &mut self.out).expect("room for a ping");
        self.flush();
        handle
    }

    pub fn manage(&mut self, function: TaskManagementFunction, lun: u64, task: Option<Handle>) -> Handle {
        let handle = self.connection.task_management(function, lun, task, &mut self.out).expect("room for a request");
        self.flush();
        handle
    }

    pub fn log_out(&mut self) {
        self.connection.logout(LogoutReason::CloseSession, &mut self.out).expect("room for a logout");
        self.flush();
    }

    pub fn forget(&mut self, task: Handle) {
        self.connection.forget(task);
    }

    fn flush(&mut self) {
        if !self.out.is_empty() {
            self.peer.write(&self.out);
            self.out.clear();
        }
    }

    /// Reads what has come, in pieces, and answers what wants an answer. Gives what was said.
    pub fn serve(&mut self, dice: &mut Dice) -> Vec<Said> {
        let mut said = Vec::new();
        if self.deaf || self.closed.is_some() {
            return said;
        }
        while self.peer.unread() > 0 {
            let limit = if dice.once_in(4) { 1 + dice.below(100) } else { 1 << 20 };
            let bytes = self.peer.read(limit as usize);
            let mut input = &bytes[..];
            loop {
                match self.connection.receive(&mut input, &mut self.out) {
                    Ok(None) => break,
                    Ok(Some(event)) => said.push(hear(event)),
                    Err(reason) => {
                        self.closed = Some(reason.to_string());
                        self.flush();
                        self.peer.close();
                        return said;
                    }
                }
            }
        }
        self.flush();
        if self.peer.is_at_end() {
            self.closed = Some("the target has closed".into());
        }
        said
    }
}

fn hear(event: Event<'_, Transfer>) -> Said {
    match event {
        Event::Response(response) => {
            assert_eq!(response.response, wire::ScsiResponseCode::CommandCompleted);
            let sense = match response.sense {
                [0x70 | 0xf0, _, key, _, _, _, _, _, _, _, _, _, asc, ascq, ..] => {
                    (key & 0x0f, u16::from_be_bytes([*asc, *ascq]))
                }
                _ => (0, 0),
            };
            Said::Ended(End {
                task: response.task,
                status: response.status,
                sense,
                residual: response.residual,
                data: response.user.data_in,
            })
        }
        Event::Pong { data, .. } => {
            assert_eq!(data, b"are you there?");
            Said::Pong
        }
        Event::TaskManagement { task, response } => Said::Management(task, response),
        Event::Logout { .. } => Said::LoggedOut,
        other => Said::Other(format!("{other:?}")),
    }
}
