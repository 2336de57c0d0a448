//! One end of the bare connections: counts whole messages, answers each with one of its own.

use hdrhistogram::Histogram;
use memmap2::{Advice, MmapMut};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
    net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg},
};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::TcpStream,
    os::fd::OwnedFd,
    time::Instant,
};

const BUFFER: usize = 1 << 20;
const COLD: usize = 1 << 30;
/// Pieces of one gathering send.
const PIECES: usize = 512;
const PAGE: usize = 4096;
/// An end that sleeps looks at the time this often.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// How an end behaves.
pub struct Behaviour {
    /// Bytes of a message that comes.
    pub expects: usize,
    /// Bytes of one that goes.
    pub sends: usize,
    /// Polls instead of sleeping.
    pub spins: bool,
    /// Sends from random places of 1 GiB.
    pub cold: bool,
}

/// All connections of one process.
pub struct End {
    behaviour: Behaviour,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    connections: Vec<Connection>,
    open: usize,
    received: Vec<u8>,
    sent: Vec<u8>,
    cold: Option<Cold>,
}

struct Connection {
    stream: TcpStream,
    /// Bytes that came of an unfinished message.
    got: usize,
    /// Bytes that are to be sent.
    pending: usize,
}

impl End {
    /// An end without connections yet.
    pub fn new(behaviour: Behaviour) -> io::Result<End> {
        let cold = behaviour.cold.then(|| Cold::new(behaviour.sends)).transpose()?;
        Ok(End {
            behaviour,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(64),
            connections: Vec::new(),
            open: 0,
            received: vec![0; BUFFER],
            sent: vec![0; BUFFER],
            cold,
        })
    }

    /// Takes a connection, on which `first` messages are to be sent at once.
    pub fn add(&mut self, stream: TcpStream, first: usize) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(self.connections.len() as u64), flags)?;
        self.connections.push(Connection { stream, got: 0, pending: first * self.behaviour.sends });
        self.open += 1;
        Ok(())
    }

    /// A connection is left.
    pub fn is_open(&self) -> bool {
        self.open > 0
    }

    /// Handles what is ready, or waits for it. Gives the number of messages that came.
    pub fn turn(&mut self, mut latencies: Option<&mut Latencies>) -> io::Result<u64> {
        let timeout = if self.behaviour.spins { Timespec { tv_sec: 0, tv_nsec: 0 } } else { NAP };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
        let mut messages = 0;
        for at in 0..self.events.len() {
            let index = self.events[at].data.u64() as usize;
            match self.pump(index, latencies.as_deref_mut()) {
                Some(count) => messages += count,
                None => {
                    epoll::delete(&self.epoll, &self.connections[index].stream)?;
                    self.open -= 1;
                }
            }
        }
        Ok(messages)
    }

    /// Sends and receives until the socket has enough of it; None when it is closed.
    fn pump(&mut self, index: usize, mut latencies: Option<&mut Latencies>) -> Option<u64> {
        let Behaviour { expects, sends, .. } = self.behaviour;
        let connection = &mut self.connections[index];
        let mut messages = 0;
        loop {
            while connection.pending > 0 {
                let sent = match &mut self.cold {
                    Some(cold) => cold.send(&connection.stream, connection.pending),
                    None => {
                        let bytes = &self.sent[..connection.pending.min(BUFFER)];
                        send(&connection.stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
                    }
                };
                match sent {
                    Ok(count) => connection.pending -= count,
                    Err(Errno::AGAIN) => return Some(messages),
                    Err(_) => return None,
                }
            }
            match recv(&connection.stream, &mut self.received[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return None,
                Ok((_, count)) => connection.got += count,
                Err(Errno::AGAIN) => return Some(messages),
                Err(_) => return None,
            }
            let whole = connection.got / expects;
            connection.got %= expects;
            connection.pending += whole * sends;
            messages += whole as u64;
            if let Some(latencies) = latencies.as_deref_mut().filter(|_| whole > 0) {
                latencies.came(index, whole);
            }
        }
    }
}

/// Answers from random places of huge pages: what a disk in memory has to read.
struct Cold {
    memory: &'static [u8],
    header: &'static [u8],
    message: usize,
    random: u64,
    pieces: Vec<IoSlice<'static>>,
}

impl Cold {
    fn new(message: usize) -> io::Result<Cold> {
        let mut memory = MmapMut::map_anon(COLD)?;
        memory.advise(Advice::HugePage)?;
        memory.fill(1);
        // Both are needed until the process ends.
        let memory: &'static MmapMut = Box::leak(Box::new(memory));
        let header = Box::leak(vec![0; message.min(super::HEADER)].into_boxed_slice());
        Ok(Cold { memory, header, message, random: 88_172_645_463_325_252, pieces: Vec::with_capacity(PIECES) })
    }

    /// Gathers up to `pending` bytes of messages, the rest of a message that was cut before first.
    fn send(&mut self, stream: &TcpStream, pending: usize) -> rustix::io::Result<usize> {
        self.pieces.clear();
        let (mut left, mut part) = (pending, pending % self.message);
        while left > 0 && self.pieces.len() + 2 <= PIECES {
            let bytes = if part > 0 { part } else { self.message };
            part = 0;
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let header = bytes.min(self.header.len());
            self.pieces.push(IoSlice::new(&self.header[..header]));
            if bytes > header {
                let pages = (COLD - self.message) / PAGE;
                let place = (self.random % pages as u64) as usize * PAGE;
                self.pieces.push(IoSlice::new(&self.memory[place..place + bytes - header]));
            }
            left -= bytes;
        }
        let mut nothing = SendAncillaryBuffer::default();
        sendmsg(stream, &self.pieces, &mut nothing, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
    }
}

/// Times between requests and their replies, which come in order.
pub struct Latencies {
    /// Of each connection: when the requests in flight were handed over to be sent. None: before this began.
    sent: Vec<VecDeque<Option<Instant>>>,
    nanoseconds: Histogram<u64>,
}

impl Latencies {
    /// For so many connections, with that many requests in flight on each.
    pub fn new(connections: usize, depth: usize) -> Latencies {
        let sent = vec![VecDeque::from(vec![None; depth]); connections];
        Latencies { sent, nanoseconds: Histogram::new(3).expect("3 digits are possible") }
    }

    /// Replies came, and as many requests follow them.
    fn came(&mut self, connection: usize, replies: usize) {
        let (now, sent) = (Instant::now(), &mut self.sent[connection]);
        for _ in 0..replies {
            if let Some(then) = sent.pop_front().flatten() {
                self.nanoseconds.record((now - then).as_nanos() as u64).expect("it grows as needed");
            }
            sent.push_back(Some(now));
        }
    }

    /// In microseconds.
    pub fn summary(&self) -> Value {
        let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let at = |quantile| us(self.nanoseconds.value_at_quantile(quantile));
        json!({
            "min": us(self.nanoseconds.min()),
            "mean": self.nanoseconds.mean() / 1e3,
            "p50": at(0.5),
            "p90": at(0.9),
            "p99": at(0.99),
            "p99_9": at(0.999),
            "max": us(self.nanoseconds.max()),
        })
    }
}
