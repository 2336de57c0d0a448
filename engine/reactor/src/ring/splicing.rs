//! Answers out of memory that stays: its pages go to the socket themselves, instead of copies of them.
//!
//! The way there is a pipe: vmsplice(2) puts references to the pages into it, splice(2) moves them on to the socket. It is
//! what file servers do with the page cache. Nobody says when a page has been read by the peer, so this is for memory that
//! is never given back for something else ([`memory::Region`]); what stands between goes through [`Sheets`]. A page that is
//! written to before the peer has read it is read as it is then.

use super::{Ring, sending::Sending};
use crate::{Feature, Message, Part, Use};
use memory::{Key, Region, Sheets};
use rustix::{
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType,
        sockopt::{Timeout, set_socket_timeout},
    },
    pipe::{PipeFlags, SpliceFlags},
};
use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

const PAGE: usize = 4096;
/// Pages that the pipe is asked to hold, and that it must hold to be of use: a process without rights gets less.
const WANTED: usize = 256;
const LEAST: usize = 32;
/// Bytes before a page, where it is tried out.
const BHS: usize = 48;
/// A call that takes so long, and doesn't do it all, has waited.
const WAITED: Duration = Duration::from_micros(500);

/// How far a message came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// All of it is the socket's.
    All,
    /// The socket has no room for more.
    Full,
    /// It doesn't work here, or the connection is broken: sending it otherwise will tell.
    Refused,
}

/// Splices messages, one at a time. Between two messages the pipe is empty.
pub(super) struct Splicer {
    from: OwnedFd,
    into: OwnedFd,
    /// Pages that the pipe holds.
    slots: usize,
    /// Takes what the socket didn't.
    sink: File,
    sheets: Sheets,
    pieces: Vec<libc::iovec>,
    /// It is not used before, because it has made the core wait.
    rests_until: Option<Instant>,
    /// There is something in the pipe that belongs to nobody: it is of no use any more.
    spoiled: bool,
}

impl Splicer {
    fn new() -> io::Result<Splicer> {
        let (from, into) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let mut bytes = WANTED * PAGE;
        let slots = loop {
            match rustix::pipe::fcntl_setpipe_size(&into, bytes) {
                Ok(size) => break size / PAGE,
                Err(_) if bytes > LEAST * PAGE => bytes /= 2,
                Err(errno) => return Err(errno.into()),
            }
        };
        let sink = OpenOptions::new().write(true).open("/dev/null")?;
        let (sheets, pieces) = (Sheets::new()?, Vec::with_capacity(slots));
        let mut splicer = Splicer { from, into, slots, sink, sheets, pieces, rests_until: None, spoiled: false };
        splicer.try_out()?;
        Ok(splicer)
    }

    /// Sends a page and something before it to itself: what stands between it and the kernel may know other calls than these.
    fn try_out(&mut self) -> io::Result<()> {
        let region = Region::new(PAGE as u64)?;
        let bytes: Vec<u8> = (0..BHS + PAGE).map(|n| (n * 7 + n / 251) as u8).collect();
        region.write(0, &bytes[BHS..]);
        let page = Part::Region { index: 0, length: PAGE as u32, offset: 0 };
        let parts = vec![Part::Bytes(0..BHS as u32), page];
        let message = Message { bytes: bytes[..BHS].to_vec(), parts, regions: vec![region], ..Message::default() };
        let mut sending = Sending::new(message);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        if self.send(ours.as_fd(), &mut sending) != Progress::All {
            return Err(io::Error::other("a socket doesn't take pages"));
        }
        let (mut came, mut got) = (0, vec![0; bytes.len()]);
        while came < got.len() {
            match rustix::net::recv(&theirs, &mut got[came..], RecvFlags::empty())? {
                (0, _) => break,
                (count, _) => came += count,
            }
        }
        if got == bytes { Ok(()) } else { Err(io::Error::other("other bytes come out of a socket than were put in")) }
    }

    /// Hands over as much of a message as the socket has room for, without waiting.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, sending: &mut Sending) -> Progress {
        if let Some(until) = self.rests_until {
            if Instant::now() < until {
                return Progress::Refused;
            }
            self.rests_until = None;
        }
        while !sending.is_done() {
            // It must not wait, and has no other way to say so: the flag would be the socket's, for all of its users.
            let Some(room) = room(socket) else { return Progress::Refused };
            let Ok(bytes) = self.gather(sending, room) else { return Progress::Refused };
            if bytes == 0 {
                return Progress::Full;
            }
            // SAFETY: the pieces were just gathered: they are memory of the message's regions, which live as long as it and
            // stay mapped, and of the sheets. The kernel takes references to their pages, and none to the addresses.
            let filled = unsafe {
                libc::vmsplice(self.into.as_raw_fd(), self.pieces.as_ptr(), self.pieces.len(), libc::SPLICE_F_NONBLOCK)
            };
            let Ok(filled) = usize::try_from(filled) else { return Progress::Refused };
            let begin = Instant::now();
            let taken = match rustix::pipe::splice(&self.from, None, socket, None, filled, SpliceFlags::NONBLOCK) {
                Ok(taken) => taken,
                Err(_) => {
                    self.rest_after(begin);
                    self.drain(filled);
                    return Progress::Refused;
                }
            };
            sending.advance(taken);
            if taken < filled {
                self.rest_after(begin);
                self.drain(filled - taken);
                return Progress::Full;
            }
        }
        Progress::All
    }

    /// Collects what comes next of a message: as much as pipe and socket hold.
    fn gather(&mut self, sending: &Sending, mut room: usize) -> io::Result<usize> {
        self.pieces.clear();
        let (mut bytes, mut slots) = (0, self.slots);
        for (address, length, stays) in sending.rest() {
            let mut done = 0;
            while done < length {
                let mut step = (length - done).min(room);
                if step == 0 || slots == 0 {
                    return Ok(bytes);
                }
                let mut from = address.wrapping_add(done);
                if stays {
                    let ahead = from.addr() % PAGE;
                    step = step.min(slots * PAGE - ahead);
                    slots -= (ahead + step).div_ceil(PAGE);
                } else {
                    step = step.min(PAGE);
                    // SAFETY: bytes of the message that nobody changes while it is being sent; `rest` gives no others but
                    // those that stay.
                    let piece = unsafe { std::slice::from_raw_parts(from, step) };
                    from = match self.sheets.put(piece) {
                        Some(copy) => copy,
                        None if bytes > 0 => return Ok(bytes),
                        None => {
                            self.sheets.renew()?;
                            self.sheets.put(piece).ok_or(io::ErrorKind::OutOfMemory)?
                        }
                    };
                    slots -= 1;
                }
                self.pieces.push(libc::iovec { iov_base: from.cast_mut().cast(), iov_len: step });
                done += step;
                bytes += step;
                room -= step;
            }
        }
        Ok(bytes)
    }

    /// There was less room than it seemed, since `begin`: whoever waits is to do so for a hundredth of the time at most.
    fn rest_after(&mut self, begin: Instant) {
        let waited = begin.elapsed();
        if waited >= WAITED {
            self.rests_until = Some(Instant::now() + waited * 100);
        }
    }

    /// Empties the pipe.
    fn drain(&mut self, mut bytes: usize) {
        while bytes > 0 {
            match rustix::pipe::splice(&self.from, None, &self.sink, None, bytes, SpliceFlags::NONBLOCK) {
                Ok(gone) if gone > 0 => bytes -= gone,
                // Not to be expected; what stays must never reach another connection.
                _ => {
                    self.spoiled = true;
                    return;
                }
            }
        }
    }
}

/// Bytes that a socket takes without waiting, by a cautious guess: what it counts includes its own structures.
fn room(socket: BorrowedFd<'_>) -> Option<usize> {
    const SK_MEMINFO_WMEM_ALLOC: usize = 2;
    const SK_MEMINFO_SNDBUF: usize = 3;
    const SK_MEMINFO_WMEM_QUEUED: usize = 5;
    const SK_MEMINFO_VARS: usize = 9;
    let mut numbers = [0u32; SK_MEMINFO_VARS];
    let mut length = size_of_val(&numbers) as libc::socklen_t;
    let descriptor: RawFd = socket.as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes, which are the array's.
    let result = unsafe {
        libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_MEMINFO, numbers.as_mut_ptr().cast(), &mut length)
    };
    if result < 0 {
        return None;
    }
    let used = numbers[SK_MEMINFO_WMEM_QUEUED].max(numbers[SK_MEMINFO_WMEM_ALLOC]);
    Some(numbers[SK_MEMINFO_SNDBUF].saturating_sub(used) as usize / 4 * 3)
}

impl Ring {
    /// The splicer, if it is wanted and there can be one.
    pub(super) fn try_splicing(settings_ask: bool, features: &mut crate::Features) -> Option<Box<Splicer>> {
        if !features.wanted(Feature::Splice) {
            return None;
        }
        if !settings_ask {
            features.set(Feature::Splice, Use::Unasked);
            return None;
        }
        match Splicer::new() {
            Ok(splicer) => {
                features.set(Feature::Splice, Use::Used);
                Some(Box::new(splicer))
            }
            Err(error) => {
                tracing::warn!(
                    %error,
                    "answers of RAM volumes are copied, since their pages can't be spliced; raise the limit of pipes \
                     (fs.pipe-user-pages-soft), allow vmsplice(2) and splice(2) in the sandbox, or write `splice = 0`"
                );
                None
            }
        }
    }

    /// Should it have to wait after all (the kernel is short of memory for sockets), then not for long.
    pub(super) fn bound_waits(socket: BorrowedFd<'_>) {
        // Files and devices have no such options, and need none.
        let _ = set_socket_timeout(socket, Timeout::Send, Some(Duration::from_micros(1)));
        // A limit of what is not sent yet (net.ipv4.tcp_notsent_lowat) would make it wait while there is room.
        let none = u32::MAX;
        // SAFETY: the kernel reads the four bytes of the number.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_NOTSENT_LOWAT,
                std::ptr::from_ref(&none).cast(),
                size_of_val(&none) as libc::socklen_t,
            )
        };
    }

    /// Splices what it can of a send. False when that isn't all: it then waits for room, or the usual way is to be taken,
    /// from where it is now.
    pub(super) fn splice(&mut self, key: Key) -> bool {
        let slot = self.slots.get_mut(key).expect("a slot in flight");
        let file = slot.file.slot;
        let Some(sending) = slot.sending() else { return false };
        let Some(splicer) = self.splicer.as_mut() else {
            // Given up while this one was waiting for room.
            sending.waited = false;
            return false;
        };
        let before = sending.sent();
        let mut progress = splicer.send(self.files.at(file).holder.as_fd(), sending);
        if splicer.spoiled {
            tracing::error!("answers of RAM volumes are copied from now on: the pipe for their pages can't be emptied");
            progress = Progress::Refused;
        }
        let spoiled = splicer.spoiled;
        let moved = sending.sent().wrapping_sub(before);
        self.counters.spliced += u64::from(moved);
        self.files.at_mut(file).refers |= moved > 0;
        // Told that there is room again, and there was none.
        if progress == Progress::Full && sending.waited && sending.sent() == before {
            progress = Progress::Refused;
        }
        sending.waited = progress == Progress::Full;
        if spoiled {
            self.splicer = None;
        }
        progress == Progress::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_bring_the_bytes_that_it_was_given_is_not_used() {
        let mut good = Splicer::new().unwrap();
        good.try_out().unwrap();
        let mut dirty = Splicer::new().unwrap();
        rustix::io::write(&dirty.into, b"stray").unwrap();
        let why = dirty.try_out().unwrap_err().to_string();
        assert!(why.contains("other bytes"), "{why}");
        // As if splice(2) was not allowed.
        let mut refused = Splicer::new().unwrap();
        refused.from = refused.sink.try_clone().unwrap().into();
        let why = refused.try_out().unwrap_err().to_string();
        assert!(why.contains("doesn't take pages"), "{why}");
    }
}
