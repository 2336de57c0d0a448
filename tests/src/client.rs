//! A blocking client: the sans-IO initiator on a socket, one connection, with a time limit on everything.

use initiator::cdb::{self, Cdb};
use initiator::{
    CloseReason, Command, Connection, Event, Handle, Limits, LoggedIn, Login, LoginError, LoginOptions, Residual,
    SubmitError, Transfer, lun, random_isid,
};
use std::{
    collections::VecDeque,
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};
use wire::{
    AsyncEvent, LogoutReason, LogoutResult, RejectReason, ScsiResponseCode, TaskManagementFunction,
    TaskManagementResult,
};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name that [`options`] gives.
pub const INITIATOR: &str = "iqn.2026-01.io.ringlun:tests";

/// Options for a session of its own (a random ISID) with a target, without authentication.
pub fn options(target: &str) -> LoginOptions {
    LoginOptions { isid: random_isid(&mut rand::rng()), ..LoginOptions::normal(INITIATOR, target) }
}

/// Why there is no session.
#[derive(Debug)]
pub enum ConnectError {
    /// The socket.
    Io(io::Error),
    /// What the target said, or what it got wrong.
    Login(LoginError),
    /// It closed the connection without a word.
    Closed,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Io(error) => write!(f, "{error}"),
            ConnectError::Login(error) => write!(f, "{error}"),
            ConnectError::Closed => f.write_str("closed during the login"),
        }
    }
}

/// Why a connection is over.
#[derive(Debug)]
pub enum End {
    /// The target has closed it.
    Closed,
    /// The initiator's state machine says so.
    Reason(CloseReason),
    /// Nothing came for half a minute.
    Silent,
}

/// How a command has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// SCSI status.
    pub status: u8,
    /// Sense data, without its length.
    pub sense: Vec<u8>,
    /// Data-In.
    pub data: Vec<u8>,
    /// Residual.
    pub residual: Residual,
    /// iSCSI response.
    pub response: ScsiResponseCode,
}

impl Done {
    /// Sense key, additional sense code and its qualifier, of fixed or descriptor format (SPC-4 4.5).
    pub fn sense(&self) -> Option<(u8, u8, u8)> {
        // The segment begins with the sense's length (RFC 7143 11.4.7.2) unless that was taken off already.
        let sense = &self.sense[..];
        match sense.first()? & 0x7f {
            0x70 | 0x71 => Some((sense.get(2)? & 0xf, *sense.get(12)?, *sense.get(13)?)),
            0x72 | 0x73 => Some((sense.get(1)? & 0xf, *sense.get(2)?, *sense.get(3)?)),
            _ => None,
        }
    }

    /// The data, if the status is GOOD.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn good(self) -> Vec<u8> {
        assert_eq!((self.status, self.response), (0, ScsiResponseCode::CommandCompleted), "sense {:x?}", self.sense());
        self.data
    }
}

/// What a target has said.
#[derive(Debug)]
pub enum Seen {
    /// A command has ended.
    Done(Handle, Done),
    /// The answer to a ping.
    Pong(Handle),
    /// The answer to a task management request.
    TaskManagement(Handle, TaskManagementResult),
    /// The answer to a text request.
    Text(Vec<u8>),
    /// The answer to a logout.
    Logout(LogoutResult),
    /// An asynchronous message with its three parameters.
    Asynchronous(AsyncEvent, [u16; 3]),
    /// A Reject.
    Reject(RejectReason),
    /// An answer that nobody waits for.
    Stray([u8; 48]),
}

/// A session with one connection.
pub struct Client {
    stream: TcpStream,
    connection: Connection<Transfer>,
    /// What the login has agreed on.
    pub logged_in: LoggedIn,
    input: Vec<u8>,
    /// How much of `input` is used up.
    used: usize,
    out: Vec<u8>,
    /// What came while something else was waited for.
    aside: VecDeque<Seen>,
    /// Which logical unit the helpers speak to.
    pub lun: u64,
}

impl Client {
    /// Connects and logs in.
    ///
    /// # Errors
    /// When that fails, or takes longer than half a minute.
    pub fn connect(portal: SocketAddr, options: LoginOptions) -> Result<Client, ConnectError> {
        Client::log_in(TcpStream::connect(portal).map_err(ConnectError::Io)?, options)
    }

    /// The same from a certain local address.
    ///
    /// # Errors
    /// See [`connect`](Self::connect).
    pub fn connect_from(local: IpAddr, portal: SocketAddr, options: LoginOptions) -> Result<Client, ConnectError> {
        Client::log_in(connect_from(local, portal).map_err(ConnectError::Io)?, options)
    }

    /// Logs in on a connection.
    ///
    /// # Errors
    /// See [`connect`](Self::connect).
    pub fn log_in(stream: TcpStream, options: LoginOptions) -> Result<Client, ConnectError> {
        prepare(&stream).map_err(ConnectError::Io)?;
        let mut stream = stream;
        let mut login = Login::new(options);
        let (mut input, mut out) = (Vec::new(), Vec::new());
        login.start(&mut out).map_err(ConnectError::Login)?;
        let logged_in = loop {
            stream.write_all(&out).map_err(ConnectError::Io)?;
            out.clear();
            if read_more(&mut stream, &mut input).map_err(ConnectError::Io)? == 0 {
                return Err(ConnectError::Closed);
            }
            let mut rest = &input[..];
            let step = login.advance(&mut rest, &mut rand::rng(), &mut out).map_err(ConnectError::Login)?;
            let left = rest.len();
            input.drain(..input.len() - left);
            if let Some(logged_in) = step {
                break logged_in;
            }
        };
        Ok(Client {
            stream,
            connection: Connection::new(&logged_in, Limits::default()),
            logged_in,
            input,
            used: 0,
            out,
            aside: VecDeque::new(),
            lun: 0,
        })
    }

    /// The state machine, for what the helpers don't do. Send with [`flush`](Self::flush) what it has put out.
    pub fn raw(&mut self) -> (&mut Connection<Transfer>, &mut Vec<u8>) {
        (&mut self.connection, &mut self.out)
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Commands without a response.
    pub fn in_flight(&self) -> usize {
        self.connection.in_flight()
    }

    /// Sends what the state machine has put out.
    ///
    /// # Errors
    /// [`End::Closed`].
    pub fn flush(&mut self) -> Result<(), End> {
        let sent = self.stream.write_all(&self.out);
        self.out.clear();
        sent.map_err(|_| End::Closed)
    }

    /// Sends a command; `data` is what it writes.
    ///
    /// # Errors
    /// [`End::Closed`]; `Ok(None)`: the command window is full.
    pub fn submit(&mut self, command: &Command<'_>, data: Vec<u8>) -> Result<Option<Handle>, End> {
        match self.connection.submit(command, Transfer::sending(data), &mut self.out) {
            Ok(handle) => self.flush().map(|()| Some(handle)),
            Err(refused) if matches!(refused.reason, SubmitError::Full | SubmitError::NoTag) => Ok(None),
            Err(_) => Err(End::Closed),
        }
    }

    /// The next thing that the target says.
    ///
    /// # Errors
    /// The end of the connection.
    pub fn hear(&mut self) -> Result<Seen, End> {
        if let Some(seen) = self.aside.pop_front() {
            return Ok(seen);
        }
        self.receive()
    }

    /// Waits for what `want` takes; the rest is kept for [`hear`](Self::hear).
    ///
    /// # Errors
    /// The end of the connection.
    pub fn wait<T>(&mut self, mut want: impl FnMut(&Seen) -> Option<T>) -> Result<T, End> {
        for at in 0..self.aside.len() {
            if let Some(found) = want(&self.aside[at]) {
                self.aside.remove(at);
                return Ok(found);
            }
        }
        loop {
            let seen = self.receive()?;
            match want(&seen) {
                Some(found) => return Ok(found),
                None => self.aside.push_back(seen),
            }
        }
    }

    fn receive(&mut self) -> Result<Seen, End> {
        loop {
            let mut rest = &self.input[self.used..];
            let before = rest.len();
            let step = self.connection.receive(&mut rest, &mut self.out);
            let seen = match step {
                Ok(event) => event.map(own),
                Err(reason) => {
                    let _ = self.stream.write_all(&self.out);
                    return Err(End::Reason(reason));
                }
            };
            self.used += before - rest.len();
            if !self.out.is_empty() {
                self.flush()?;
            }
            if let Some(seen) = seen {
                return Ok(seen);
            }
            self.input.drain(..self.used);
            self.used = 0;
            match read_more(&mut self.stream, &mut self.input) {
                Ok(0) => return Err(End::Closed),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(End::Silent);
                }
                Err(_) => return Err(End::Closed),
            }
        }
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// The end of the connection.
    pub fn try_run(&mut self, command: &Command<'_>, data: &[u8]) -> Result<Done, End> {
        let handle = loop {
            match self.submit(command, data.to_vec())? {
                Some(handle) => break handle,
                None => {
                    let seen = self.receive()?;
                    self.aside.push_back(seen);
                }
            }
        };
        self.wait(|seen| match seen {
            Seen::Done(of, done) if *of == handle => Some(done.clone()),
            _ => None,
        })
    }

    /// The same.
    ///
    /// # Panics
    /// When the connection ends.
    #[track_caller]
    pub fn run(&mut self, command: &Command<'_>, data: &[u8]) -> Done {
        match self.try_run(command, data) {
            Ok(done) => done,
            Err(end) => panic!("the connection ended: {end:?}"),
        }
    }

    /// A command without data.
    #[track_caller]
    pub fn command(&mut self, cdb: Cdb) -> Done {
        self.run(&Command::none(cdb).to_lun(self.lun), &[])
    }

    /// A command that expects `length` bytes.
    #[track_caller]
    pub fn fetch(&mut self, cdb: Cdb, length: u32) -> Done {
        self.run(&Command::read(cdb, length).to_lun(self.lun), &[])
    }

    /// A command that sends `data`.
    #[track_caller]
    pub fn send(&mut self, cdb: Cdb, data: &[u8]) -> Done {
        self.run(&Command::write(cdb, data.len() as u32).to_lun(self.lun), data)
    }

    /// Reads off unit attentions until the unit is ready; gives them as (ASC, ASCQ).
    #[track_caller]
    pub fn settle(&mut self) -> Vec<(u8, u8)> {
        let mut attentions = Vec::new();
        for _ in 0..10 {
            let done = self.command(cdb::test_unit_ready());
            match (done.status, done.sense()) {
                (0, _) => return attentions,
                (2, Some((6, asc, ascq))) => attentions.push((asc, ascq)),
                other => panic!("TEST UNIT READY: {other:x?}"),
            }
        }
        panic!("unit attentions make no end: {attentions:x?}");
    }

    /// Blocks and block size, of READ CAPACITY(16).
    #[track_caller]
    pub fn capacity(&mut self) -> (u64, u32) {
        let data = self.fetch(cdb::read_capacity_16(32), 32).good();
        let last = u64::from_be_bytes(data[..8].try_into().expect("eight bytes"));
        (last + 1, u32::from_be_bytes(data[8..12].try_into().expect("four bytes")))
    }

    /// READ(16).
    #[track_caller]
    pub fn read(&mut self, lba: u64, blocks: u32, block_size: u32) -> Vec<u8> {
        let data = self.fetch(cdb::read_16(lba, blocks), blocks * block_size).good();
        assert_eq!(data.len(), (blocks * block_size) as usize, "READ of {blocks} blocks at {lba}");
        data
    }

    /// WRITE(16).
    #[track_caller]
    pub fn write(&mut self, lba: u64, data: &[u8], block_size: u32) {
        self.send(cdb::write_16(lba, data.len() as u32 / block_size), data).good();
    }

    /// A task management function.
    #[track_caller]
    pub fn manage(&mut self, function: TaskManagementFunction, about: Option<Handle>) -> TaskManagementResult {
        let lun = self.lun;
        let handle = self.connection.task_management(function, lun, about, &mut self.out).expect("it can be sent");
        let result = self.flush().and_then(|()| {
            self.wait(|seen| match seen {
                Seen::TaskManagement(of, result) if *of == handle => Some(*result),
                _ => None,
            })
        });
        result.unwrap_or_else(|end| panic!("{function}: {end:?}"))
    }

    /// Names and addresses of the targets that SendTargets lists.
    #[track_caller]
    pub fn send_targets(&mut self, which: &str) -> Vec<initiator::Target> {
        self.connection.send_targets(which, &mut self.out).expect("it can be sent");
        let text = self.flush().and_then(|()| {
            self.wait(|seen| match seen {
                Seen::Text(text) => Some(text.clone()),
                _ => None,
            })
        });
        initiator::parse_targets(&text.expect("an answer")).expect("a list of targets")
    }

    /// Waits for the end of the connection; gives the reason and what was said before.
    pub fn until_end(&mut self) -> (End, Vec<Seen>) {
        let mut said: Vec<Seen> = self.aside.drain(..).collect();
        loop {
            match self.receive() {
                Ok(seen) => said.push(seen),
                Err(end) => return (end, said),
            }
        }
    }

    /// Logs out.
    ///
    /// # Errors
    /// Another end than the one that was asked for.
    pub fn log_out(&mut self) -> Result<(), End> {
        if self.connection.logout(LogoutReason::CloseSession, &mut self.out).is_err() {
            return Err(End::Closed);
        }
        self.flush()?;
        match self.until_end().0 {
            End::Reason(CloseReason::Logout) => Ok(()),
            other => Err(other),
        }
    }

    /// Chooses the logical unit.
    #[must_use]
    pub fn at_lun(mut self, number: u16) -> Client {
        self.lun = lun(number);
        self
    }
}

fn own(event: Event<'_, Transfer>) -> Seen {
    match event {
        Event::Response(response) => Seen::Done(
            response.task,
            Done {
                status: response.status,
                sense: response.sense.to_vec(),
                data: response.user.data_in,
                residual: response.residual,
                response: response.response,
            },
        ),
        Event::Pong { task, .. } => Seen::Pong(task),
        Event::TaskManagement { task, response } => Seen::TaskManagement(task, response),
        Event::Text { text, .. } => Seen::Text(text.to_vec()),
        Event::Logout { response, .. } => Seen::Logout(response),
        Event::Asynchronous(message) => Seen::Asynchronous(message.event, message.parameters),
        Event::Reject { reason, .. } => Seen::Reject(reason),
        Event::Stray { header, .. } => Seen::Stray(header),
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn read_more(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<usize> {
    let start = input.len();
    input.resize(start + (256 << 10), 0);
    let result = loop {
        match stream.read(&mut input[start..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    input.truncate(start + *result.as_ref().unwrap_or(&0));
    result
}

/// A connection from a certain local address.
///
/// # Errors
/// Those of the socket.
pub fn connect_from(local: IpAddr, portal: SocketAddr) -> io::Result<TcpStream> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(portal), Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(local, 0).into())?;
    socket.connect(&portal.into())?;
    Ok(socket.into())
}
