//! Connects, logs in, and brings a logical unit to where commands are simply obeyed.

use crate::operation::Operation;
use crate::options::Options;
use crate::url::Url;
use initiator::chap::{Algorithm, Credentials, Mutual, Secret};
use initiator::{
    Advance, Command, Connection, DigestChoice, Event, Limits, Login, LoginOptions, Settings, cdb, lun, random_isid,
};
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};
use wire::ScsiResponseCode;

/// How long a target may take for each answer before the load begins.
const PATIENCE: Duration = Duration::from_secs(30);
/// Logins at a time.
const AT_A_TIME: usize = 16;
/// Unit attentions that a new nexus may have to tell, and moments in which a unit gets ready.
const ATTENTIONS: usize = 32;

/// How a logical unit is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes per logical block.
    pub block_length: u32,
    /// Logical blocks.
    pub blocks: u64,
}

/// A session that is ready for load.
pub struct Opened {
    /// Which of the URLs.
    pub url: usize,
    /// The LUN field.
    pub lun: u64,
    /// The socket, blocking still.
    pub stream: TcpStream,
    /// The session; all that came is in it.
    pub connection: Connection<Operation>,
    /// Of its logical unit.
    pub geometry: Geometry,
}

/// What all logins have in common.
pub struct Visitor<'a> {
    options: &'a Options,
    places: Vec<SocketAddr>,
    chap: Vec<Option<Credentials>>,
}

impl<'a> Visitor<'a> {
    /// Resolves names and reads secrets.
    pub fn new(options: &'a Options) -> Result<Visitor<'a>, String> {
        let places = options.urls.iter().map(resolve).collect::<Result<_, _>>()?;
        let chap = options.urls.iter().map(|url| credentials(options, url)).collect::<Result<_, _>>()?;
        Ok(Visitor { options, places, chap })
    }

    /// Opens all sessions, some at a time, in the order of their numbers.
    pub fn open_all(&self) -> Result<Vec<Opened>, String> {
        let sessions = self.options.sessions.get() as usize;
        let (next, opened) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(sessions)));
        let work = || -> Result<(), String> {
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= sessions {
                    return Ok(());
                }
                let url = number % self.options.urls.len();
                let session = self.open(url).inspect_err(|_| next.store(sessions, Relaxed)).map_err(|reason| {
                    format!("session {} of {sessions} with {}: {reason}", number + 1, self.options.urls[url])
                })?;
                opened.lock().expect("nobody panics with it").push((number, session));
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_A_TIME.min(sessions)).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().expect("it does not panic")).collect::<Result<Vec<()>, _>>()
        })?;
        let mut opened = opened.into_inner().expect("nobody panics with it");
        opened.sort_by_key(|(number, _)| *number);
        Ok(opened.into_iter().map(|(_, session)| session).collect())
    }

    fn open(&self, url: usize) -> Result<Opened, String> {
        let place = self.places[url];
        let stream = TcpStream::connect_timeout(&place, PATIENCE)
            .map_err(|error| format!("connecting to {place}: {error}: is the target up, and is that its portal?"))?;
        let io = |error: std::io::Error| format!("{place}: {error}");
        stream.set_nodelay(true).map_err(io)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(io)?;
        let connection = self.log_in(&stream, url)?;
        let number = self.options.urls[url].lun;
        let geometry = Geometry { block_length: 0, blocks: 0 };
        let mut opened = Opened { url, lun: lun(number), stream, connection, geometry };
        opened.settle()?;
        opened.geometry = opened.read_capacity()?;
        Ok(opened)
    }

    fn log_in(&self, mut stream: &TcpStream, url: usize) -> Result<Connection<Operation>, String> {
        let options = self.options;
        let digest = |wanted| if wanted { DigestChoice::Require } else { DigestChoice::Never };
        let mut login = Login::new(LoginOptions {
            isid: random_isid(&mut rand::rng()),
            settings: Settings {
                header_digest: digest(options.header_digest),
                data_digest: digest(options.data_digest),
                max_outstanding_r2t: 4,
                ..Settings::default()
            },
            chap: self.chap[url].clone(),
            ..LoginOptions::normal(&options.initiator_name, &options.urls[url].target)
        });
        let (mut input, mut out) = (Vec::new(), Vec::new());
        login.start(&mut out).map_err(|error| error.to_string())?;
        let logged_in = loop {
            stream.write_all(&out).map_err(|error| format!("login: {error}"))?;
            out.clear();
            receive(stream, &mut input).map_err(|error| format!("login: {error}"))?;
            let mut rest = &input[..];
            let done = login.advance(&mut rest, &mut rand::rng(), &mut out).map_err(|error| error.to_string())?;
            let left = rest.len();
            input.drain(..input.len() - left);
            if let Some(logged_in) = done {
                break logged_in;
            }
        };
        if options.header_digest != logged_in.parameters.header_digest
            || options.data_digest != logged_in.parameters.data_digest
        {
            return Err("the target agreed to other digests than --header-digest and --data-digest ask for".to_owned());
        }
        let limits = Limits {
            tasks: options.depth.get() as usize,
            requests: 4,
            text_length: 0,
            lenient: options.lenient,
            ..Limits::default()
        };
        let mut connection = Connection::new(&logged_in, limits);
        // Nothing was asked yet; a NOP-In may have come all the same.
        let mut rest = &input[..];
        while !rest.is_empty() {
            if let Advance::Close(reason) = connection.advance(&mut rest, &mut out) {
                return Err(reason.to_string());
            }
        }
        stream.write_all(&out).map_err(|error| format!("after the login: {error}"))?;
        Ok(connection)
    }
}

/// How a command of the beginning has ended.
struct Answer {
    status: u8,
    sense: Vec<u8>,
    data: Vec<u8>,
}

impl Opened {
    /// Reads off unit attentions, and waits until the unit is ready.
    fn settle(&mut self) -> Result<(), String> {
        for attempt in 0..ATTENTIONS {
            let answer = self.command("TEST UNIT READY", cdb::test_unit_ready(), 0)?;
            match (answer.status, sense_key(&answer.sense)) {
                (0, _) => return Ok(()),
                // UNIT ATTENTION is told once each; NOT READY, BUSY and the like may pass.
                (2, Some(6)) => {}
                (2, Some(2)) | (8 | 0x28, _) if attempt + 1 < ATTENTIONS => thread::sleep(Duration::from_millis(100)),
                _ => return Err(format!("TEST UNIT READY: {}", describe(answer.status, &answer.sense))),
            }
        }
        Err("TEST UNIT READY never gets GOOD".to_owned())
    }

    fn read_capacity(&mut self) -> Result<Geometry, String> {
        let long = self.command("READ CAPACITY(16)", cdb::read_capacity_16(32), 32)?;
        let geometry = match (long.status, long.data.first_chunk::<8>(), long.data.get(8..12)) {
            (0, Some(last), Some(length)) => Geometry {
                blocks: u64::from_be_bytes(*last).saturating_add(1),
                block_length: u32::from_be_bytes(length.try_into().expect("four bytes")),
            },
            _ => {
                // Old units have the short form alone.
                let short = self.command("READ CAPACITY(10)", cdb::read_capacity_10(), 8)?;
                match (short.status, short.data.first_chunk::<4>(), short.data.get(4..8)) {
                    (0, Some(last), Some(length)) => Geometry {
                        blocks: u64::from(u32::from_be_bytes(*last)) + 1,
                        block_length: u32::from_be_bytes(length.try_into().expect("four bytes")),
                    },
                    _ => return Err(format!("READ CAPACITY: {}", describe(short.status, &short.sense))),
                }
            }
        };
        match geometry.block_length {
            512..=65536 if geometry.block_length.is_power_of_two() => Ok(geometry),
            length => Err(format!("READ CAPACITY says blocks of {length} bytes: that is no disk")),
        }
    }

    fn command(&mut self, name: &str, cdb: cdb::Cdb, length: u32) -> Result<Answer, String> {
        let mut out = Vec::new();
        let command = Command::read(cdb, length).to_lun(self.lun);
        if let Err(refused) = self.connection.submit(&command, Operation::default(), &mut out) {
            return Err(format!("{name}: {}", refused.reason));
        }
        let (mut input, mut data) = (Vec::new(), Vec::new());
        loop {
            self.stream.write_all(&out).map_err(|error| format!("{name}: {error}"))?;
            out.clear();
            receive(&self.stream, &mut input).map_err(|error| format!("{name}: {error}"))?;
            let mut rest = &input[..];
            loop {
                match self.connection.advance(&mut rest, &mut out) {
                    Advance::Idle => break,
                    Advance::Payload { .. } if rest.is_empty() => break,
                    Advance::Payload { .. } => data.extend_from_slice(self.connection.take_payload(&mut rest)),
                    Advance::Event(Event::Response(response)) => {
                        if response.response != ScsiResponseCode::CommandCompleted {
                            return Err(format!("{name}: {}", response.response));
                        }
                        return Ok(Answer { status: response.status, sense: response.sense.to_vec(), data });
                    }
                    Advance::Event(_) => {}
                    Advance::Close(reason) => return Err(format!("{name}: {reason}")),
                }
            }
            input.clear();
        }
    }
}

fn receive(mut stream: &TcpStream, input: &mut Vec<u8>) -> Result<(), String> {
    let mut chunk = [0; 16384];
    match stream.read(&mut chunk) {
        Ok(0) => Err("the target has closed the connection".to_owned()),
        Ok(count) => {
            input.extend_from_slice(&chunk[..count]);
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            Err(format!("no answer within {} seconds", PATIENCE.as_secs()))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn resolve(url: &Url) -> Result<SocketAddr, String> {
    let mut found = (url.host.as_str(), url.port).to_socket_addrs().map_err(|error| format!("{url}: {error}"))?;
    found.next().ok_or_else(|| format!("{url}: the name has no address"))
}

fn credentials(options: &Options, url: &Url) -> Result<Option<Credentials>, String> {
    let user = url.user.as_ref().or(options.chap_user.as_ref());
    let (user, path) = match (user, &options.chap_secret_file) {
        (Some(user), Some(path)) => (user, path),
        (Some(_), None) => return Err(format!("{url}: a user needs --chap-secret-file")),
        (None, Some(_)) => return Err(format!("{url}: --chap-secret-file needs --chap-user, or a user in the URL")),
        (None, None) => return Ok(None),
    };
    let mutual = match (&options.mutual_user, &options.mutual_secret_file) {
        (Some(user), Some(path)) => Some(Mutual { user: user.clone(), secret: secret(path)? }),
        _ => None,
    };
    Credentials::new(user, secret(path)?, mutual, Algorithm::ALL.to_vec())
        .map(Some)
        .map_err(|error| format!("{url}: {error}"))
}

fn secret(path: &Path) -> Result<Secret, String> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    match text.split(|byte| matches!(byte, b'\n' | b'\r')).next() {
        Some(line) if !line.is_empty() => Ok(Secret::new(line)),
        _ => Err(format!("{}: its first line is empty: the secret belongs there", path.display())),
    }
}

/// Sense key, of fixed or descriptor format (SPC-4 4.5).
pub fn sense_key(sense: &[u8]) -> Option<u8> {
    sense_codes(sense).map(|(key, _, _)| key)
}

fn sense_codes(sense: &[u8]) -> Option<(u8, u8, u8)> {
    match sense.first()? & 0x7f {
        0x70 | 0x71 => Some((sense.get(2)? & 0xf, *sense.get(12)?, *sense.get(13)?)),
        0x72 | 0x73 => Some((sense.get(1)? & 0xf, *sense.get(2)?, *sense.get(3)?)),
        _ => None,
    }
}

/// A status that is not GOOD, for people.
pub fn describe(status: u8, sense: &[u8]) -> String {
    let name = match status {
        0x02 => "CHECK CONDITION",
        0x08 => "BUSY",
        0x18 => "RESERVATION CONFLICT",
        0x28 => "TASK SET FULL",
        0x30 => "ACA ACTIVE",
        0x40 => "TASK ABORTED",
        _ => "status",
    };
    match sense_codes(sense) {
        Some((key, code, qualifier)) => {
            format!("{name} ({status:02x}h), sense key {key:x}h, additional sense {code:02x}h/{qualifier:02x}h")
        }
        None => format!("{name} ({status:02x}h)"),
    }
}
