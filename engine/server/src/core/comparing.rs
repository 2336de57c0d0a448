//! Windows that are held against what the medium has: VERIFY, COMPARE AND WRITE, ORWRITE.

use super::{
    Core,
    storing::write,
    work::{Failure, Phase},
};
use backstore_api::{Checks, Request};
use protocol::TaskKey;
use reactor::Reactor;

impl<R: Reactor> Core<R> {
    /// Holds a window's data against what was read.
    pub(crate) fn compare_window(&mut self, task_key: TaskKey, window: usize) {
        let Some(task) = self.tasks.get_mut(task_key) else { return };
        let work = &mut *task.work;
        let start = work.transfer.range(window).start;
        let w = &mut work.transfer.windows[window];
        w.phase = Phase::Done;
        if let Some(error) = w.shortfall(start) {
            work.transfer.failure.get_or_insert(Failure::Store(error));
            return;
        }
        let (Some(mine), Some(theirs)) = (&w.buffer, &w.other) else { return };
        let theirs = &theirs[w.data.start as usize..w.data.end as usize];
        let block = w.expected() as usize;
        let difference = theirs
            .chunks(block)
            .enumerate()
            .find_map(|(i, chunk)| first_difference(&mine[..chunk.len()], chunk).map(|at| i * block + at));
        if let Some(at) = difference {
            work.transfer.failure.get_or_insert(Failure::Miscompare(start + at as u64));
        }
    }

    /// COMPARE AND WRITE: the block has been read. True: it was equal, and is being written.
    pub(crate) fn swap_window(&mut self, task_key: TaskKey, window: usize) -> bool {
        let Some(task) = self.tasks.get_mut(task_key) else { return false };
        let work = &mut *task.work;
        let start = work.transfer.range(window).start;
        let checks = work.transfer.checks(window);
        let (durable, w) = (work.transfer.durable, &mut work.transfer.windows[window]);
        let length = w.length as usize;
        let (Some(parameter), Some(mut medium)) = (&work.parameter, w.other.take()) else { return false };
        let (expected, new) = parameter.buffer[..2 * length].split_at(length);
        let found = &medium[w.data.start as usize..w.data.end as usize];
        let failure = match w.shortfall(start) {
            Some(error) => Some(Failure::Store(error)),
            None => differing(expected, found, checks).map(|at| Failure::Miscompare(start + at as u64)),
        };
        if let Some(failure) = failure {
            w.other = Some(medium);
            work.transfer.failure.get_or_insert(failure);
            return false;
        }
        medium[..length].copy_from_slice(new);
        let request = write(start, medium, length as u32, durable, checks);
        self.offer(task_key, window, Phase::Verifying, request);
        true
    }

    /// ORWRITE: the blocks have been read. True: they are being written, with more bits set.
    pub(crate) fn merge_window(&mut self, task_key: TaskKey, window: usize) -> bool {
        let Some(task) = self.tasks.get_mut(task_key) else { return false };
        let work = &mut *task.work;
        let start = work.transfer.range(window).start;
        let (durable, w) = (work.transfer.durable, &mut work.transfer.windows[window]);
        let (Some(data), Some(mut medium)) = (&w.buffer, w.other.take()) else { return false };
        if let Some(error) = w.shortfall(start) {
            w.other = Some(medium);
            work.transfer.failure.get_or_insert(Failure::Store(error));
            return false;
        }
        let found = &mut medium[w.data.start as usize..w.data.end as usize];
        found.iter_mut().zip(data.iter()).for_each(|(found, set)| *found |= set);
        let request = Request::Write { offset: start, buffer: medium, range: w.data.clone(), durable };
        self.offer(task_key, window, Phase::Verifying, request);
        true
    }
}

/// The first byte of the medium that differs, tuples neither compared nor counted.
fn differing(expected: &[u8], found: &[u8], checks: Option<Checks>) -> Option<usize> {
    let Some(checks) = checks else { return first_difference(expected, found) };
    let (block, whole) = (checks.block_size as usize, checks.block_with_tuple() as usize);
    let blocks = expected.chunks(whole).zip(found.chunks(whole)).enumerate();
    blocks.into_iter().find_map(|(nth, (expected, found))| {
        first_difference(&expected[..block], &found[..block]).map(|at| nth * block + at)
    })
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a == b {
        return None;
    }
    a.iter().zip(b).position(|(x, y)| x != y)
}
