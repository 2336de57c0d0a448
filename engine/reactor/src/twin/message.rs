//! Steps of receives and sends: how bytes go between streams and what operations own.

use super::{
    stream::End,
    world::{Operator, State},
};
use crate::{Errno, Message, Part};

/// None: it waits for bytes.
pub(crate) fn receive(
    state: &mut State,
    end: End,
    operator: Operator,
    cancelled: bool,
    into: &mut [u8],
) -> Option<Result<u32, Errno>> {
    match state.incoming(end).waiting() {
        Err(errno) => Some(Err(errno)),
        Ok(None) => Some(Ok(0)),
        Ok(Some(0)) if cancelled => Some(Err(Errno(libc::ECANCELED))),
        Ok(Some(0)) => {
            state.park_reader(end, operator);
            None
        }
        Ok(Some(waiting)) => {
            let mut limit = into.len().min(waiting);
            if state.fragments() && limit > 0 {
                limit = 1 + state.random.below(limit as u64) as usize;
            }
            Some(Ok(state.take_bytes(end, &mut into[..limit]) as u32))
        }
    }
}

/// None: it waits for room, or goes on later.
pub(crate) fn send(
    state: &mut State,
    end: End,
    operator: Operator,
    cancelled: bool,
    message: &Message,
    sent: &mut usize,
) -> Option<Result<u32, Errno>> {
    let total = message.length();
    if *sent == total {
        return Some(Ok(total as u32));
    }
    match state.outgoing(end).room() {
        None => Some(Err(Errno(libc::EPIPE))),
        Some(_) if cancelled => Some(Err(Errno(libc::ECANCELED))),
        Some(0) => {
            state.park_writer(end, operator);
            None
        }
        Some(room) => {
            let mut count = room.min(total - *sent);
            if state.fragments() && state.random.coin() {
                count = 1 + state.random.below(count as u64) as usize;
            }
            let bytes = match message_bytes(message, *sent, count) {
                Ok(bytes) => bytes,
                Err(error) => return Some(Err(error.into())),
            };
            state.put_bytes(end, &bytes);
            *sent += count;
            if *sent == total {
                return Some(Ok(total as u32));
            }
            state.schedule(operator);
            None
        }
    }
}

/// A piece of what a message says now: the pages of a region may have changed since it was submitted.
fn message_bytes(message: &Message, mut skip: usize, count: usize) -> std::io::Result<Vec<u8>> {
    if message.parts.is_empty() {
        return Ok(message.bytes[skip..skip + count].to_vec());
    }
    let mut bytes = Vec::with_capacity(count);
    for part in &message.parts {
        let length = part.length();
        let now = length.saturating_sub(skip).min(count - bytes.len());
        if now > 0 {
            match part {
                Part::Bytes(range) => bytes.extend_from_slice(&message.bytes[range.start as usize + skip..][..now]),
                Part::Buffer { index, range } => {
                    bytes.extend_from_slice(&message.buffers[*index as usize][range.start as usize + skip..][..now]);
                }
                Part::Region { index, offset, .. } => {
                    let start = bytes.len();
                    bytes.resize(start + now, 0);
                    message.regions[*index as usize].read(offset + skip as u64, &mut bytes[start..]);
                }
                // As a socket has the kernel read them: the file may have been cut.
                Part::Pages { index, offset, .. } => {
                    let start = bytes.len();
                    bytes.resize(start + now, 0);
                    message.leases[*index as usize].read(offset + skip as u64, &mut bytes[start..])?;
                }
            }
        }
        skip = skip.saturating_sub(length);
    }
    Ok(bytes)
}
