//! A target with nothing inside: it says yes to every login, and answers every READ with the same bytes from the cache.
//! What `ringlun-load` reaches against it is what `ringlun-load` can do.
//!
//! `cargo run --release -p ringlun-load --example hollow_target` says where it listens.
#![forbid(unsafe_code)]

use initiator::{DataOut, Gather, Output};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};
use std::{
    io::{IoSlice, Read, Write},
    mem::MaybeUninit,
    net::{TcpListener, TcpStream},
};
use wire::{
    BHS_LEN, Bhs, DataIn, LoginRequest, LoginResponse, LoginStatus, LogoutRequest, LogoutResponse, LogoutResult,
    Opcode, ScsiCommand, ScsiResponse, ScsiResponseCode, padding,
};

/// Commands that a session may have in flight.
const WINDOW: u32 = 4096;
/// What READ CAPACITY says.
const BLOCKS: u64 = 1 << 21;

/// What every block holds; sent from where it lies.
static BYTES: [u8; 4096] = [0x5a; 4096];

struct Content;

impl DataOut for Content {
    fn append(&self, _: u32, _: u32, _: &mut Vec<u8>) {}

    fn lasting(&self, offset: u32, length: u32) -> Option<&'static [u8]> {
        let at = offset as usize % BYTES.len();
        BYTES.get(at..(at + length as usize).min(BYTES.len()))
    }
}

type Header = [u8; BHS_LEN];

struct Session {
    stream: TcpStream,
    stat_sn: u32,
    exp_cmd_sn: u32,
    input: Vec<u8>,
    have: usize,
    out: Gather,
}

fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(u64::MAX), EventFlags::IN)?;
    let mut sessions: Vec<Option<Session>> = Vec::new();
    let mut events = [MaybeUninit::uninit(); 256];
    loop {
        let (events, _) = epoll::wait(&epoll, &mut events[..], None)?;
        for event in events {
            let index = event.data.u64() as usize;
            let Some(place) = sessions.get_mut(index) else {
                if let Ok(session) = log_in(listener.accept()?.0) {
                    let data = EventData::new_u64(sessions.len() as u64);
                    epoll::add(&epoll, &session.stream, data, EventFlags::IN | EventFlags::OUT | EventFlags::ET)?;
                    sessions.push(Some(session));
                }
                continue;
            };
            if place.as_mut().is_some_and(|session| !session.serve()) {
                *place = None;
            }
        }
    }
}

/// Says yes until the full feature phase, and agrees to every key as it was offered.
fn log_in(mut stream: TcpStream) -> std::io::Result<Session> {
    stream.set_nodelay(true)?;
    let mut stat_sn = 1;
    loop {
        let mut header = [0; BHS_LEN];
        stream.read_exact(&mut header)?;
        let request = LoginRequest::parse(&header).map_err(std::io::Error::other)?;
        let length = request.data_segment_length as usize;
        let mut text = vec![0; length + padding(length)];
        stream.read_exact(&mut text)?;
        let declared = ["InitiatorName=", "InitiatorAlias=", "TargetName=", "SessionType="];
        let agreed = text[..length].split_inclusive(|byte| *byte == 0);
        let agreed = agreed.filter(|pair| !declared.iter().any(|key| pair.starts_with(key.as_bytes())));
        let mut answer = agreed.collect::<Vec<_>>().concat();
        if stat_sn == 1 {
            answer.extend_from_slice(b"TargetPortalGroupTag=1\0");
        }
        let mut header = [0; BHS_LEN];
        LoginResponse {
            transit: request.transit,
            continue_bit: false,
            current_stage: request.current_stage,
            next_stage: request.next_stage,
            version_max: 0,
            version_active: 0,
            data_segment_length: answer.len() as u32,
            isid: request.isid,
            tsih: 1,
            initiator_task_tag: request.initiator_task_tag,
            stat_sn,
            exp_cmd_sn: request.cmd_sn,
            max_cmd_sn: request.cmd_sn.wrapping_add(WINDOW),
            status: LoginStatus::Success,
        }
        .emit(&mut header);
        answer.resize(answer.len() + padding(answer.len()), 0);
        stream.write_all(&[&header[..], &answer].concat())?;
        stat_sn += 1;
        if request.transit && request.next_stage == wire::Stage::FullFeaturePhase {
            stream.set_nonblocking(true)?;
            return Ok(Session {
                stream,
                stat_sn,
                exp_cmd_sn: request.cmd_sn,
                input: vec![0; 64 << 10],
                have: 0,
                out: Gather::with_capacity(64 << 10),
            });
        }
    }
}

impl Session {
    /// False when it is over.
    fn serve(&mut self) -> bool {
        loop {
            let drained = match recv(&self.stream, &mut self.input[self.have..], RecvFlags::empty()) {
                Ok((0, _)) => return false,
                Ok((count, _)) => {
                    self.have += count;
                    self.have < self.input.len()
                }
                Err(Errno::WOULDBLOCK) => true,
                Err(_) => return false,
            };
            let mut at = 0;
            while let Some(header) = self.input[at..self.have].first_chunk::<BHS_LEN>().copied() {
                // Whole PDUs only; nothing but headers comes from a reader.
                at += BHS_LEN;
                self.answer(&header);
            }
            self.input.copy_within(at..self.have, 0);
            self.have -= at;
            while !self.out.is_empty() {
                let mut slices = [IoSlice::new(&[]); 128];
                let count = self.out.pieces(&mut slices);
                let mut nothing = SendAncillaryBuffer::default();
                match sendmsg(&self.stream, &slices[..count], &mut nothing, SendFlags::NOSIGNAL) {
                    Ok(count) => self.out.advance(count),
                    Err(Errno::WOULDBLOCK) => return true,
                    Err(_) => return false,
                }
            }
            if drained {
                return true;
            }
        }
    }

    fn answer(&mut self, header: &Header) {
        match Bhs(header).opcode() {
            Opcode::ScsiCommand => {
                if let Ok(command) = ScsiCommand::parse(header) {
                    self.exp_cmd_sn = command.cmd_sn.wrapping_add(1);
                    let length = command.expected_data_transfer_length;
                    match command.cdb[0] {
                        0x28 | 0x88 => self.data_in(command.initiator_task_tag, length, &[]),
                        0x9e => {
                            let mut capacity = [0; 32];
                            capacity[..8].copy_from_slice(&(BLOCKS - 1).to_be_bytes());
                            capacity[8..12].copy_from_slice(&512u32.to_be_bytes());
                            self.data_in(command.initiator_task_tag, 32, &capacity);
                        }
                        _ => self.response(command.initiator_task_tag),
                    }
                }
            }
            Opcode::LogoutRequest => {
                if let Ok(request) = LogoutRequest::parse(header) {
                    let mut header = [0; BHS_LEN];
                    LogoutResponse {
                        response: LogoutResult::Success,
                        data_segment_length: 0,
                        initiator_task_tag: request.initiator_task_tag,
                        stat_sn: self.stat_sn,
                        exp_cmd_sn: self.exp_cmd_sn,
                        max_cmd_sn: self.exp_cmd_sn.wrapping_add(WINDOW),
                        time2wait: 0,
                        time2retain: 0,
                    }
                    .emit(&mut header);
                    self.out.put(&header);
                }
            }
            _ => {}
        }
    }

    fn data_in(&mut self, initiator_task_tag: u32, length: u32, bytes: &[u8]) {
        let mut header = [0; BHS_LEN];
        DataIn {
            stat_sn: self.stat_sn,
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.exp_cmd_sn.wrapping_add(WINDOW),
            ..DataIn::whole(initiator_task_tag, length)
        }
        .emit(&mut header);
        self.stat_sn = self.stat_sn.wrapping_add(1);
        self.out.put(&header);
        self.out.put(bytes);
        self.out.put_data(&Content, bytes.len() as u32, length - bytes.len() as u32, None);
    }

    fn response(&mut self, initiator_task_tag: u32) {
        let mut header = [0; BHS_LEN];
        ScsiResponse {
            bidi_read_overflow: false,
            bidi_read_underflow: false,
            residual_overflow: false,
            residual_underflow: false,
            response: ScsiResponseCode::CommandCompleted,
            status: 0,
            data_segment_length: 0,
            status_qualifier: 0,
            initiator_task_tag,
            snack_tag: 0,
            stat_sn: self.stat_sn,
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.exp_cmd_sn.wrapping_add(WINDOW),
            exp_data_sn: 0,
            bidi_read_residual_count: 0,
            residual_count: 0,
        }
        .emit(&mut header);
        self.stat_sn = self.stat_sn.wrapping_add(1);
        self.out.put(&header);
    }
}
