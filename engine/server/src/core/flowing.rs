//! Data that goes to its store as it comes, where that never blocks: no buffer is kept for what an R2T asks for.
//!
//! What flows is in the cache when it is written, since all of it goes through the same receive buffer. Only whole blocks
//! are written: nobody sees half of one. A window that flows has a buffer for the block that its last bytes have begun, so
//! that data never comes without a place. What can't be written when it comes (a fence, a failing store) is kept in
//! the window, which goes the long way from there.

use super::{
    Core,
    work::{Failure, Phase, Window},
};
use memory::Class;
use protocol::TaskKey;
use reactor::Reactor;

impl<R: Reactor> Core<R> {
    /// Takes data that came for a transfer that flows.
    pub(crate) fn flow(&mut self, task_key: TaskKey, mut offset: u32, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(task) = self.tasks.get_mut(task_key) else { return };
            let transfer = &mut task.work.transfer;
            let Some(window) = transfer.window_at(offset).filter(|_| transfer.failure.is_none()) else { return };
            let w = &mut transfer.windows[window];
            if w.phase != Phase::Filling {
                return;
            }
            let held = offset - w.start;
            let (now, later) = bytes.split_at(bytes.len().min((w.length - held) as usize));
            let (kept, rest) = self.flow_into(task_key, window, held as usize, now);
            if !rest.is_empty()
                && !self.keep(task_key, window, kept, rest)
                && let Some(task) = self.tasks.get_mut(task_key)
            {
                let transfer = &mut task.work.transfer;
                // TASK SET FULL would say that nothing has been done.
                let written =
                    transfer.finished > 0 || transfer.windows.iter().any(|w| w.done > 0 || w.phase == Phase::Done);
                transfer.failure = Some(if written { INSUFFICIENT_RESOURCES } else { Failure::Starved });
            }
            (offset, bytes) = (offset + now.len() as u32, later);
        }
    }

    /// Writes what can be written of a window's next bytes, behind `held` that are in its buffer. Gives how many are
    /// there now, and the bytes that found no place.
    fn flow_into<'a>(
        &mut self,
        task_key: TaskKey,
        window: usize,
        mut held: usize,
        mut bytes: &'a [u8],
    ) -> (usize, &'a [u8]) {
        let Some(task) = self.tasks.get_mut(task_key) else { return (held, &[]) };
        let (index, base) = (task.work.unit, task.work.transfer.base);
        let start = base + u64::from(task.work.transfer.windows[window].start);
        let lent = self.is_lent(index, &(start..start + (held + bytes.len()) as u64));
        let Some(task) = self.tasks.get_mut(task_key) else { return (held, &[]) };
        let unit = &mut self.units[index as usize];
        let w = &mut task.work.transfer.windows[window];
        let Some(mut buffer) = w.buffer.take() else { return (held, &[]) };
        let block = unit.block_size() as usize;
        let mut write = |w: &mut Window, blocks: &[u8]| {
            let done = !lent && unit.write_now(base + u64::from(w.start), blocks);
            if done {
                w.advance(blocks.len() as u32);
                self.streamed = true;
            }
            done
        };
        if held > 0 {
            // The block that the last bytes have begun comes first.
            let missing = held.next_multiple_of(block).min(buffer.len()) - held;
            let (now, later) = bytes.split_at(missing.min(bytes.len()));
            buffer[held..held + now.len()].copy_from_slice(now);
            (held, bytes) = (held + now.len(), later);
            let whole = held / block * block;
            if whole > 0 && write(w, &buffer[..whole]) {
                buffer.copy_within(whole..held, 0);
                held -= whole;
            }
        }
        if held == 0 {
            let (whole, rest) = bytes.split_at(bytes.len() / block * block);
            if whole.is_empty() || write(w, whole) {
                buffer[..rest.len()].copy_from_slice(rest);
                (held, bytes) = (rest.len(), &[]);
            }
        }
        w.buffer = Some(buffer);
        (held, bytes)
    }

    /// Keeps bytes of a window, behind `held`, until it is full. False: there is no buffer for it.
    fn keep(&mut self, task_key: TaskKey, window: usize, held: usize, bytes: &[u8]) -> bool {
        let Some(task) = self.tasks.get_mut(task_key) else { return true };
        let (unit, length) = (task.work.unit, task.work.transfer.windows[window].length as usize);
        let small = task.work.transfer.windows[window].buffer.as_ref().is_some_and(|buffer| buffer.len() < length);
        if small {
            let Some((mut buffer, charge)) = self.take_buffer(unit, Class::fitting(length)) else { return false };
            // A smaller one than was asked for is never given, and a window is never longer than the largest.
            let Some(task) = self.tasks.get_mut(task_key) else { return true };
            let w = &mut task.work.transfer.windows[window];
            if let Some(begun) = w.buffer.take() {
                buffer[..held].copy_from_slice(&begun[..held]);
            }
            (w.buffer, w.charge) = (Some(buffer), Some(charge));
        }
        let Some(task) = self.tasks.get_mut(task_key) else { return true };
        if let Some(buffer) = &mut task.work.transfer.windows[window].buffer {
            buffer[held..held + bytes.len()].copy_from_slice(bytes);
        }
        true
    }
}

/// SPC-4 annex F: INSUFFICIENT RESOURCES.
const INSUFFICIENT_RESOURCES: Failure = Failure::Data(0x55, 0x03);
