//! How one request becomes operations on a file: a walk over its range, piece by piece. No I/O here.
//!
//! Most requests are one piece. More are needed where the file wants aligned I/O: the edges of a write are then blocks
//! that are fetched into a bounce buffer, merged, and stored.

use backstore_api::StoreError;
use std::ops::Range;

/// Payload bytes of a bounce buffer.
pub(crate) const BOUNCE: u64 = 64 << 10;

/// What the file asks of I/O; all powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Of offset and length.
    pub(crate) alignment: u64,
    /// Of the place in memory.
    pub(crate) memory: u64,
    /// Of a range that is zeroed without writing, at least `alignment`.
    pub(crate) allocate: u64,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Into the caller's buffer; the answer is this range of it.
    Read(Range<u32>),
    /// From the caller's buffer.
    Write,
    /// The first bytes of the caller's buffer, repeated.
    Fill(u32),
    /// Zeroes; may be unmapped.
    Zero { unmap: bool },
    /// The same range of another file, from this byte of it on.
    Copy(u64),
    /// Nothing needs to be kept. The range is whole granules.
    Discard,
    /// Sync, then perhaps look whether the file still has a name.
    Flush,
    /// How much space there is, by a helper thread.
    Space,
    /// Will be read soon.
    Prefetch,
    /// Extents of data, by a helper thread.
    Status(u32),
}

/// Ways to zero or free a range that the file is known not to have.
#[derive(Clone, Copy, Default)]
pub(crate) struct Missing {
    pub(crate) punch: bool,
    pub(crate) zero: bool,
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Between the file and the caller's buffer, from this place of it on.
    Direct { offset: u64, place: u32, length: u32 },
    /// A piece of the file into the bounce buffer.
    Fetch { offset: u64, length: u32 },
    /// The bounce buffer into the file; `fresh`: fill it from the source first (else it is merged already).
    Store { offset: u64, length: u32, fresh: bool },
    /// Give a range back.
    Punch { offset: u64, length: u64 },
    /// Zero a range.
    ZeroRange { offset: u64, length: u64 },
    /// Read a range ahead.
    Advise { offset: u64, length: u64 },
    /// Copy a range of another file, by a helper thread.
    Clone { offset: u64, from: u64, length: u64 },
    /// Have pages that are kept in memory leave, by a helper thread; never asked for by a walk.
    Clear,
    /// Make the data durable.
    Sync,
    /// Look whether the file is still there.
    Look,
    /// List extents.
    List,
    /// Ask for the space.
    Count,
    /// Nothing more.
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The next piece.
    Piece,
    /// The bounce buffer holds the merged block of an edge.
    Merged,
    Count,
    Sync,
    Look,
    Done,
}

/// The progress of one request.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    pub(crate) task: Task,
    pub(crate) durable: bool,
    start: u64,
    pub(crate) end: u64,
    pub(crate) at: u64,
    /// Place in the caller's buffer of `start`.
    base: u32,
    /// A range was zeroed or freed without writing: it is durable after a sync only.
    allocated: bool,
    phase: Phase,
}

/// One step of the range.
enum Piece {
    Whole(u64),
    Bounced(u64),
    Edge { block: u64 },
    Allocate { length: u64, punch: bool },
}

impl Walk {
    pub(crate) fn new(task: Task, span: Range<u64>, base: u32, durable: bool) -> Walk {
        let phase = match task {
            Task::Flush => Phase::Sync,
            Task::Space => Phase::Count,
            _ => Phase::Piece,
        };
        Walk { task, durable, start: span.start, end: span.end, at: span.start, base, allocated: false, phase }
    }

    /// A read of `span` into `range` of a buffer of `capacity` bytes. Where the file wants aligned I/O the walk covers
    /// a little more, and the data lies elsewhere in the buffer, so that one operation does it.
    pub(crate) fn read(span: Range<u64>, range: Range<u32>, capacity: u32, limits: &Limits) -> Walk {
        let a = limits.alignment;
        let cover = span.start / a * a..span.end.next_multiple_of(a);
        let head = (span.start - cover.start) as u32;
        let length = cover.end - cover.start;
        let fits = |base: u32| u64::from(base) % limits.memory == 0 && u64::from(base) + length <= u64::from(capacity);
        match range.start.checked_sub(head).into_iter().chain([0]).find(|base| fits(*base)) {
            Some(base) if span.start < span.end => {
                let data = base + head..base + head + (range.end - range.start);
                Walk::new(Task::Read(data), cover, base, false)
            }
            _ => {
                let base = range.start;
                Walk::new(Task::Read(range), span, base, false)
            }
        }
    }

    /// The whole granules inside a range.
    pub(crate) fn discard(span: Range<u64>, granule: u64) -> Walk {
        let granule = granule.max(1);
        let start = span.start.next_multiple_of(granule);
        let end = (span.end / granule * granule).max(start);
        Walk::new(Task::Discard, start..end, 0, false)
    }

    fn piece(&self, limits: &Limits, missing: Missing) -> Piece {
        let a = limits.alignment;
        let mut end = self.end;
        let punch = matches!(self.task, Task::Zero { unmap: true }) && !missing.punch;
        if matches!(self.task, Task::Zero { .. }) && (punch || !missing.zero) {
            let unit = limits.allocate.max(a);
            if self.at.is_multiple_of(unit) && end - self.at >= unit {
                return Piece::Allocate { length: (end - self.at) / unit * unit, punch };
            }
            end = end.min((self.at / unit + 1) * unit);
        }
        if !self.at.is_multiple_of(a) || end - self.at < a {
            return Piece::Edge { block: self.at / a * a };
        }
        let whole = (end - self.at) / a * a;
        let own = matches!(self.task, Task::Read(_) | Task::Write);
        if own && u64::from(self.place()) % limits.memory == 0 {
            Piece::Whole(whole)
        } else {
            Piece::Bounced(whole.min(BOUNCE))
        }
    }

    /// What to do now. Asking again gives the same, until [`landed`](Walk::landed).
    pub(crate) fn next(&self, limits: &Limits, missing: Missing) -> Next {
        match self.phase {
            Phase::Done => return Next::Done,
            Phase::Count => return Next::Count,
            Phase::Sync => return Next::Sync,
            Phase::Look => return Next::Look,
            Phase::Piece | Phase::Merged => {}
        }
        let offset = self.at;
        if offset >= self.end {
            return Next::Done;
        }
        match self.task {
            Task::Status(_) => return Next::List,
            Task::Prefetch => return Next::Advise { offset, length: self.end - offset },
            Task::Copy(from) => {
                return Next::Clone { offset, from: from + (offset - self.start), length: self.end - offset };
            }
            Task::Discard if missing.punch => return Next::Done,
            Task::Discard => {
                return Next::Punch { offset, length: self.end - offset };
            }
            _ => {}
        }
        let reads = matches!(self.task, Task::Read(_));
        match self.piece(limits, missing) {
            Piece::Whole(length) => Next::Direct { offset, place: self.place(), length: length as u32 },
            Piece::Bounced(length) if reads => Next::Fetch { offset, length: length as u32 },
            Piece::Bounced(length) => Next::Store { offset, length: length as u32, fresh: true },
            Piece::Edge { block } => {
                let length = limits.alignment as u32;
                if self.phase == Phase::Merged {
                    Next::Store { offset: block, length, fresh: false }
                } else {
                    Next::Fetch { offset: block, length }
                }
            }
            Piece::Allocate { length, punch: true } => Next::Punch { offset, length },
            Piece::Allocate { length, punch: false } => Next::ZeroRange { offset, length },
        }
    }

    /// An operation moved `moved` bytes. `user` and `bounce` are the buffers, which are here again.
    pub(crate) fn landed(
        &mut self,
        next: Next,
        moved: u32,
        limits: &Limits,
        user: &mut [u8],
        bounce: &mut [u8],
    ) -> Result<(), StoreError> {
        match next {
            Next::Direct { offset, length, .. } => {
                // A short transfer goes on behind its last whole unit; none at all is the end of the file.
                let moved = u64::from(moved.min(length));
                let whole = moved / limits.alignment * limits.alignment;
                if whole == 0 {
                    return Err(StoreError::Medium { offset: offset + moved });
                }
                self.at += whole;
            }
            Next::Fetch { offset, length } => {
                let end = self.end.min(offset + u64::from(length));
                let reads = matches!(self.task, Task::Read(_));
                let needed = if reads { (end - offset) as u32 } else { length };
                if moved < needed {
                    return Err(StoreError::Medium { offset: offset + u64::from(moved) });
                }
                let part = (self.at - offset) as usize..(end - offset) as usize;
                if reads {
                    let place = self.place() as usize;
                    user[place..place + part.len()].copy_from_slice(&bounce[part]);
                    self.at = end;
                } else {
                    self.source(user, &mut bounce[part]);
                    self.phase = Phase::Merged;
                }
            }
            Next::Store { offset, length, .. } => {
                if moved < length {
                    return Err(StoreError::Medium { offset: offset + u64::from(moved) });
                }
                self.at = self.end.min(offset + u64::from(length));
                self.phase = self.after_piece();
            }
            Next::Clone { offset, length, .. } => {
                if moved == 0 {
                    return Err(StoreError::Medium { offset });
                }
                self.at += u64::from(moved).min(length);
                self.allocated = true;
                self.phase = self.after_piece();
            }
            Next::Punch { length, .. } | Next::ZeroRange { length, .. } => {
                self.at += length;
                self.allocated = true;
                self.phase = self.after_piece();
            }
            Next::Sync if self.task == Task::Flush => self.phase = Phase::Look,
            Next::Clear => {}
            Next::Advise { .. } | Next::Sync | Next::Look | Next::List | Next::Count | Next::Done => self.finish(),
        }
        Ok(())
    }

    /// A durable write covers its own range only.
    fn after_piece(&self) -> Phase {
        if self.durable && self.allocated && self.at >= self.end { Phase::Sync } else { Phase::Piece }
    }

    /// Nothing more is to be done.
    pub(crate) fn finish(&mut self) {
        self.phase = Phase::Done;
        self.at = self.end;
    }

    /// Writes what belongs at `at` into `into`.
    pub(crate) fn source(&self, user: &[u8], into: &mut [u8]) {
        match self.task {
            Task::Write => {
                let place = self.place() as usize;
                into.copy_from_slice(&user[place..place + into.len()]);
            }
            Task::Fill(pattern) => {
                let pattern = &user[..pattern as usize];
                let mut phase = ((self.at - self.start) % pattern.len() as u64) as usize;
                let mut done = 0;
                while done < into.len() {
                    let part = (pattern.len() - phase).min(into.len() - done);
                    into[done..done + part].copy_from_slice(&pattern[phase..phase + part]);
                    done += part;
                    phase = 0;
                }
            }
            _ => into.fill(0),
        }
    }

    /// Place of `at` in the caller's buffer.
    fn place(&self) -> u32 {
        self.base + (self.at - self.start) as u32
    }
}
