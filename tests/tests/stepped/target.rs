//! A target whose commands are made up: READ gives a pattern, WRITE keeps what it gets, anything else fails.

use memory::Slab;
use negotiation::Settings;
use negotiation::chap::Credentials;
use protocol::login::{Access, Admission, Directory, Login, LoginStep, TargetEntry};
use protocol::{Advance, CloseReason, Connection, Event, Finish, Session, TaskKey, Tasks, TmfResponse};
use rand::rngs::StdRng;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use wire::names::TargetAddress;

/// What the target's commands of READ and WRITE count in.
pub const BLOCK: u32 = 512;
/// Sense of commands that are neither.
pub const SENSE: [u8; 18] = [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0];
/// A command that the target keeps until it is aborted.
pub const STALL: u8 = 0xc0;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The byte at an offset of the data of a command at `lba`.
pub fn pattern(lba: u32, offset: u32) -> u8 {
    let at = u64::from(lba) * u64::from(BLOCK) + u64::from(offset);
    (at ^ at >> 8 ^ at >> 16).wrapping_mul(37) as u8
}

/// One target for everybody.
pub struct Targets {
    pub credentials: Option<Arc<Credentials>>,
}

impl Directory for Targets {
    fn access(&self, _: &str, target_name: Option<&str>, _: IpAddr) -> Access {
        match (target_name, &self.credentials) {
            (Some(name), _) if name != crate::pair::TARGET => Access::NotFound,
            (_, Some(credentials)) => Access::Chap(credentials.clone()),
            (_, None) => Access::Open,
        }
    }

    fn targets(&self, _: &str, _: IpAddr) -> Vec<TargetEntry> {
        let address = TargetAddress::new(SocketAddr::new(ADDRESS, 3260), 1);
        let entry = |number| TargetEntry { name: format!("{}{number}", crate::pair::TARGET), addresses: vec![address] };
        (0..200).map(entry).collect()
    }
}

/// A command's state.
#[derive(Default)]
pub struct Work {
    kind: Kind,
    /// Bytes that the CDB moves.
    transfer: u32,
    lba: u32,
    data: Vec<u8>,
    /// Bytes that have arrived and were complete.
    arrived: u32,
    /// The next byte to ask for.
    solicited: Option<u32>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Fail,
    Read,
    Write,
    Stall,
}

/// What a CDB does, from where on, and to how many bytes.
fn moves(cdb: &[u8; 16]) -> (Kind, u32, u32) {
    let kind = match cdb[0] {
        0x28 => Kind::Read,
        0x2a => Kind::Write,
        STALL => Kind::Stall,
        _ => Kind::Fail,
    };
    let lba = u32::from_be_bytes([cdb[2], cdb[3], cdb[4], cdb[5]]);
    (kind, lba, u32::from(u16::from_be_bytes([cdb[7], cdb[8]])) * BLOCK)
}

/// The target's end: the login, then the full feature phase.
pub struct Target {
    pub directory: Targets,
    login: Option<Login>,
    pub rng: StdRng,
    pub out: Vec<u8>,
    pub full: Option<Full>,
    pub admission: Option<Admission>,
    window: u32,
}

/// The full feature phase.
pub struct Full {
    pub session: Session,
    pub connection: Connection,
    pub tasks: Tasks<Work>,
    /// What writes have brought: address and data.
    pub written: Vec<(u32, Vec<u8>)>,
    /// Commands that have come whole and were answered without a task.
    pub at_once: u32,
    pub closed: Option<CloseReason>,
    max_burst_length: u32,
}

impl Target {
    pub fn new(settings: Settings, credentials: Option<Credentials>, window: u32, rng: StdRng) -> Target {
        Target {
            directory: Targets { credentials: credentials.map(Arc::new) },
            login: Some(Login::new(settings, ADDRESS, 1)),
            rng,
            out: Vec::new(),
            full: None,
            admission: None,
            window,
        }
    }

    /// Takes bytes; the failure of a login, if that is what they led to.
    pub fn receive(&mut self, mut input: &[u8]) -> Result<(), protocol::login::LoginFailure> {
        if let Some(login) = &mut self.login {
            match login.receive(&mut input, &self.directory, &mut self.rng, &mut self.out) {
                LoginStep::More => return Ok(()),
                LoginStep::Close(failure) => return Err(failure),
                LoginStep::Admit(admission) => self.admit(*admission),
            }
        }
        if let Some(full) = &mut self.full {
            full.receive(input, &mut self.out);
        }
        Ok(())
    }

    fn admit(&mut self, admission: Admission) {
        self.login = None;
        let session = Session::new(3, &admission.parameters, admission.cmd_sn, self.window);
        admission.accept(7, session.exp_cmd_sn(), session.max_cmd_sn(), &mut self.out);
        self.full = Some(Full {
            session,
            connection: Connection::new(admission.parameters, admission.stat_sn, Duration::ZERO),
            tasks: Slab::with_capacity(64),
            written: Vec::new(),
            at_once: 0,
            closed: None,
            max_burst_length: admission.parameters.max_burst_length,
        });
        self.admission = Some(admission);
    }
}

impl Full {
    fn receive(&mut self, mut input: &[u8], out: &mut Vec<u8>) {
        loop {
            if let Some(rest) = self.answer_at_once(input, out) {
                input = rest;
                continue;
            }
            let advance = self.connection.advance(&mut self.session, &mut self.tasks, &mut input, out, Duration::ZERO);
            match advance {
                Advance::Idle => return,
                Advance::Close(reason) => {
                    self.closed = Some(reason);
                    return;
                }
                Advance::Payload { .. } if input.is_empty() => return,
                Advance::Payload { task, offset, length } => {
                    let (bytes, rest) = input.split_at(input.len().min(length as usize));
                    input = rest;
                    self.connection.payload(bytes);
                    if let Some(task) = task.and_then(|key| self.tasks.get_mut(key)) {
                        task.work.data[offset as usize..][..bytes.len()].copy_from_slice(bytes);
                    }
                }
                Advance::Event(event) => self.event(event, out),
            }
        }
    }

    /// Answers a command that comes whole, without a task; gives what comes behind it.
    fn answer_at_once<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
        let command = self.connection.whole_command(&self.session, &self.tasks, input)?;
        let (kind, lba, transfer) = moves(&command.cdb);
        let fits = match kind {
            Kind::Read => command.data.is_empty(),
            Kind::Write => command.data.len() == transfer as usize,
            _ => false,
        };
        if !fits || transfer != command.length || !command.is_intact() {
            return None;
        }
        if kind == Kind::Write {
            self.written.push((lba, command.data.to_vec()));
            self.connection.answer_write(&mut self.session, &command, out);
        } else {
            let mut header = [0; 52];
            let length = self.connection.answer_read(&mut self.session, &command, &mut header);
            out.extend_from_slice(&header[..length]);
            let start = out.len();
            out.extend((0..transfer).map(|offset| pattern(lba, offset)));
            let mut trailer = [0; 8];
            let length = self.connection.data_trailer(&out[start..], &mut trailer);
            out.extend_from_slice(&trailer[..length]);
        }
        self.at_once += 1;
        Some(command.rest)
    }

    fn event(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Command { task, cdb, held, .. } => {
                self.prepare(task, &cdb);
                if !held {
                    self.go_on(task, out);
                }
            }
            Event::Released { task } => self.go_on(task, out),
            Event::Data { task, length, .. } => {
                self.tasks.get_mut(task).expect("a live task").work.arrived += length;
                self.go_on(task, out);
            }
            Event::DataError { task, asc, ascq } => {
                let mut sense = SENSE;
                (sense[2], sense[12], sense[13]) = (0x0b, asc, ascq);
                self.end(task, Finish { status: 2, transfer: 0 }, &sense, out);
            }
            Event::TaskManagement(request) => {
                let affected: Vec<TaskKey> = match request.referenced {
                    Some(task) => vec![task],
                    None => self
                        .session
                        .tasks(&self.tasks)
                        .filter(|key| self.tasks.get(*key).is_some_and(|task| request.affects(task)))
                        .collect(),
                };
                for task in affected {
                    self.connection.retire(&mut self.session, &mut self.tasks, task).expect("a live task");
                }
                self.connection.task_management_response(&mut self.session, request.key, TmfResponse::Complete, out);
            }
            Event::SendTargets(_) => {
                let text = format!("TargetName={}\0TargetAddress=127.0.0.1:3260,1\0", crate::pair::TARGET);
                self.connection.text_response(&mut self.session, text.as_bytes(), out);
            }
            Event::Logout { .. } => self.connection.logout_response(&mut self.session, out),
        }
    }

    fn prepare(&mut self, key: TaskKey, cdb: &[u8; 16]) {
        let task = self.tasks.get_mut(key).expect("a live task");
        let work = &mut task.work;
        (work.kind, work.lba, work.transfer) = moves(cdb);
        work.data = vec![0; task.write_length as usize];
    }

    fn go_on(&mut self, key: TaskKey, out: &mut Vec<u8>) {
        let task = self.tasks.get(key).expect("a live task");
        if task.is_held() || task.is_finished() {
            return;
        }
        match task.work.kind {
            Kind::Read => self.read(key, out),
            Kind::Write => self.write(key, out),
            Kind::Stall => {}
            Kind::Fail if task.expects_data() => {}
            Kind::Fail => self.end(key, Finish { status: 2, transfer: 0 }, &SENSE, out),
        }
    }

    fn read(&mut self, key: TaskKey, out: &mut Vec<u8>) {
        let task = self.tasks.get_mut(key).expect("a live task");
        let (lba, transfer) = (task.work.lba, task.work.transfer);
        let finish = Finish { status: 0, transfer };
        loop {
            let offset = task.data_in_offset();
            let mut header = [0; 52];
            let shape = self.connection.data_in(&mut self.session, task, transfer - offset, Some(finish), &mut header);
            if shape.header == 0 {
                return self.end(key, finish, &[], out);
            }
            out.extend_from_slice(&header[..shape.header]);
            let start = out.len();
            out.extend((offset..offset + shape.payload).map(|offset| pattern(lba, offset)));
            let mut trailer = [0; 8];
            let length = self.connection.data_trailer(&out[start..], &mut trailer);
            out.extend_from_slice(&trailer[..length]);
            if shape.finished {
                self.connection.retire(&mut self.session, &mut self.tasks, key).expect("a live task");
                return;
            }
        }
    }

    fn write(&mut self, key: TaskKey, out: &mut Vec<u8>) {
        let task = self.tasks.get(key).expect("a live task");
        if task.unsolicited_open() {
            return;
        }
        let wanted = task.work.transfer.min(task.write_length);
        let mut next = task.work.solicited.unwrap_or(task.unsolicited_bytes());
        while next < wanted && self.connection.may_solicit(self.tasks.get(key).expect("a live task")) {
            let length = self.max_burst_length.min(wanted - next);
            let asked = self.connection.ready_to_transfer(&mut self.session, &mut self.tasks, key, next, length, out);
            assert!(asked);
            next += length;
        }
        let task = self.tasks.get_mut(key).expect("a live task");
        task.work.solicited = Some(next);
        if task.expects_data() || task.work.arrived < wanted {
            return;
        }
        let finish = Finish { status: 0, transfer: task.work.transfer };
        let mut data = std::mem::take(&mut task.work.data);
        data.truncate(wanted as usize);
        self.written.push((task.work.lba, data));
        self.end(key, finish, &[], out);
    }

    fn end(&mut self, key: TaskKey, finish: Finish, sense: &[u8], out: &mut Vec<u8>) {
        let task = self.tasks.get_mut(key).expect("a live task");
        self.connection.response(&mut self.session, task, finish, sense, out);
        self.connection.retire(&mut self.session, &mut self.tasks, key).expect("a live task");
    }
}
