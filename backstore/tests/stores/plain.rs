//! A reactor that does what it is asked with ordinary system calls, when it is turned. It fails on demand, has a bound
//! on its slots, a clock that the test sets, and a log of what it did.

use memory::{Arena, ArenaConfig, Key, Pool};
use reactor::{Completion, Descriptor, Errno, Job, Operation, OperationId, Reactor, Returned, Wait, Wake};
use rustix::fs::FallocateFlags;
use std::{collections::VecDeque, io, os::fd::OwnedFd, sync::Arc, time::Duration};

/// What an operation was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    Read { offset: u64, length: u32 },
    Write { offset: u64, length: u32, durable: bool },
    Sync,
    Allocate { mode: i32, offset: u64, length: u64 },
    Job,
}

pub type Fault = Box<dyn FnMut(&Done) -> Option<Result<u32, Errno>>>;

pub struct Plain {
    _arena: Arena,
    pool: Pool,
    files: Vec<Option<Arc<OwnedFd>>>,
    queue: VecDeque<(Work, u64)>,
    /// Operations that it takes at a time.
    pub slots: usize,
    pub now: Duration,
    pub log: Vec<Done>,
    /// Looks at each operation, and may give its result instead of it.
    pub fault: Option<Fault>,
    /// What becomes of jobs instead of their being done.
    pub fails_jobs: Option<Errno>,
    /// The newest operation is done first.
    pub backwards: bool,
}

enum Work {
    Operation(Operation),
    Job(Job),
}

#[derive(Clone)]
pub struct NoWake;
impl Wake for NoWake {
    fn wake(&self) {}
}

impl Plain {
    pub fn new() -> Plain {
        let arena = Arena::new(ArenaConfig { small: 32, medium: 32, large: 16 }).unwrap();
        Plain {
            pool: arena.pool(),
            _arena: arena,
            files: Vec::new(),
            queue: VecDeque::new(),
            slots: usize::MAX,
            now: Duration::from_secs(1000),
            log: Vec::new(),
            fault: None,
            fails_jobs: None,
            backwards: false,
        }
    }

    pub fn fail_with(&mut self, fault: impl FnMut(&Done) -> Option<Result<u32, Errno>> + 'static) {
        self.fault = Some(Box::new(fault));
    }

    fn file(&self, descriptor: Descriptor) -> Arc<OwnedFd> {
        Arc::clone(self.files[descriptor.slot as usize].as_ref().expect("a closed descriptor"))
    }

    fn run(&mut self, operation: Operation) -> (Result<u32, Errno>, Returned) {
        let done = match &operation {
            Operation::Read { offset, range, .. } => Done::Read { offset: *offset, length: range.len() as u32 },
            Operation::Write { offset, range, durable, .. } => {
                Done::Write { offset: *offset, length: range.len() as u32, durable: *durable }
            }
            Operation::Sync { .. } => Done::Sync,
            Operation::Allocate { mode, offset, length, .. } => {
                Done::Allocate { mode: *mode, offset: *offset, length: *length }
            }
            _ => panic!("a store has no sockets"),
        };
        let fault = self.fault.as_mut().and_then(|fault| fault(&done));
        self.log.push(done);
        let real = fault.is_none();
        let errno = |error: rustix::io::Errno| Errno(error.raw_os_error());
        match operation {
            Operation::Read { file, offset, mut buffer, range } => {
                let file = self.file(file);
                let into = &mut buffer[range.start as usize..range.end as usize];
                let result =
                    fault.unwrap_or_else(|| rustix::io::pread(&*file, into, offset).map(|n| n as u32).map_err(errno));
                (result, Returned::Buffer(buffer))
            }
            Operation::Write { file, offset, buffer, range, durable } => {
                let file = self.file(file);
                let mut from = &buffer[range.start as usize..range.end as usize];
                // A fault that gives a count is a short write: that much is written, whole sectors of it.
                if let Some(Ok(short)) = fault {
                    from = &from[..short as usize / 512 * 512];
                }
                let result = match fault {
                    Some(Err(errno)) => Err(errno),
                    Some(Ok(short)) => rustix::io::pwrite(&*file, from, offset).map(|_| short).map_err(errno),
                    None => rustix::io::pwrite(&*file, from, offset).map(|n| n as u32).map_err(errno),
                };
                if durable && real {
                    rustix::fs::fdatasync(&*file).unwrap();
                }
                (result, Returned::Buffer(buffer))
            }
            Operation::Sync { file, .. } => {
                let file = self.file(file);
                let sync = || rustix::fs::fdatasync(&*file).map(|()| 0).map_err(errno);
                (fault.unwrap_or_else(sync), Returned::Nothing)
            }
            Operation::Allocate { file, mode, offset, length } => {
                let file = self.file(file);
                let mode = FallocateFlags::from_bits_retain(mode as u32);
                let allocate = || rustix::fs::fallocate(&*file, mode, offset, length).map(|()| 0).map_err(errno);
                (fault.unwrap_or_else(allocate), Returned::Nothing)
            }
            _ => unreachable!(),
        }
    }
}

impl Reactor for Plain {
    type Waker = NoWake;
    fn pool(&self) -> &Pool {
        &self.pool
    }
    fn now(&self) -> Duration {
        self.now
    }
    fn waker(&self) -> NoWake {
        NoWake
    }
    fn register(&mut self, descriptor: OwnedFd) -> io::Result<Descriptor> {
        self.register_shared(&Arc::new(descriptor))
    }
    fn register_shared(&mut self, file: &Arc<OwnedFd>) -> io::Result<Descriptor> {
        self.files.push(Some(Arc::clone(file)));
        Ok(Descriptor { slot: self.files.len() as u32 - 1, generation: 1 })
    }
    fn close(&mut self, descriptor: Descriptor) {
        self.files[descriptor.slot as usize] = None;
    }
    fn submit(&mut self, operation: Operation, token: u64) -> Result<OperationId, Operation> {
        if self.queue.len() >= self.slots {
            return Err(operation);
        }
        self.queue.push_back((Work::Operation(operation), token));
        Ok(OperationId(Key { index: 0, generation: 0 }))
    }
    fn cancel(&mut self, _id: OperationId) {}
    fn offload(&mut self, job: Job, token: u64) -> Result<(), Job> {
        if self.queue.len() >= self.slots {
            return Err(job);
        }
        self.queue.push_back((Work::Job(job), token));
        Ok(())
    }
    /// Does one operation.
    fn turn(&mut self, _wait: Wait, out: &mut Vec<Completion>) -> io::Result<()> {
        let next = if self.backwards { self.queue.pop_back() } else { self.queue.pop_front() };
        let Some((work, token)) = next else { return Ok(()) };
        let (result, returned) = match work {
            Work::Operation(operation) => self.run(operation),
            Work::Job(job) => {
                self.log.push(Done::Job);
                match self.fails_jobs.map_or_else(job, Err) {
                    Ok((number, bytes)) => (Ok(number as u32), Returned::Job(number, bytes)),
                    Err(errno) => (Err(errno), Returned::Nothing),
                }
            }
        };
        out.push(Completion { token, result, returned });
        Ok(())
    }
    fn in_flight(&self) -> u32 {
        self.queue.len() as u32
    }
}
