//! A small pool of threads for calls that have no ring operation.

use crate::{Errno, Job, JobResult, Wake};
use crossbeam::{
    channel::{self, TrySendError},
    queue::ArrayQueue,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

/// Jobs waiting, running, or with an answer that wasn't collected yet, per ring.
pub(crate) const JOBS: usize = 256;

type Task = (Job, u64);

/// The helper threads of one ring. They start with the first job, and end when this is dropped, each after the job
/// that it runs; nobody waits for them.
pub(crate) struct Offload<W> {
    threads: u32,
    started: bool,
    /// Processors that the threads may run on; empty: those of the thread that starts them.
    cpus: Vec<u32>,
    waker: W,
    tasks: (channel::Sender<Task>, channel::Receiver<Task>),
    answers: Arc<ArrayQueue<(u64, JobResult)>>,
    in_flight: usize,
}

impl<W: Wake> Offload<W> {
    pub(crate) fn new(threads: u32, cpus: Vec<u32>, waker: W) -> Offload<W> {
        let answers = Arc::new(ArrayQueue::new(JOBS));
        Offload { threads, started: false, cpus, waker, tasks: channel::bounded(JOBS), answers, in_flight: 0 }
    }

    /// Queues a job. Gives it back when [`JOBS`] are under way, or when no thread could be started.
    pub(crate) fn start(&mut self, job: Job, token: u64) -> Result<(), Job> {
        if self.in_flight == JOBS || !self.ensure_threads() {
            return Err(job);
        }
        match self.tasks.0.try_send((job, token)) {
            Ok(()) => {
                self.in_flight += 1;
                Ok(())
            }
            Err(TrySendError::Full((job, _)) | TrySendError::Disconnected((job, _))) => Err(job),
        }
    }

    /// The answer of a job that has ended.
    pub(crate) fn take(&mut self) -> Option<(u64, JobResult)> {
        let answer = self.answers.pop()?;
        self.in_flight -= 1;
        Some(answer)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn ensure_threads(&mut self) -> bool {
        if self.started {
            return true;
        }
        for number in 0..self.threads {
            let (tasks, answers) = (self.tasks.1.clone(), self.answers.clone());
            let (waker, cpus) = (self.waker.clone(), self.cpus.clone());
            let body = move || {
                confine(&cpus);
                for (job, token) in tasks {
                    let result = catch_unwind(AssertUnwindSafe(job)).unwrap_or(Err(Errno(libc::EIO)));
                    // There is room for all that may be in flight.
                    let _ = answers.push((token, result));
                    waker.wake();
                }
            };
            match thread::Builder::new().name(format!("helper-{number}")).spawn(body) {
                Ok(_) => self.started = true,
                Err(error) => tracing::warn!(%error, "a helper thread could not be started"),
            }
        }
        self.started
    }
}

/// A thread inherits the processors of the one that starts it: a helper of a pinned core would share its processor.
fn confine(cpus: &[u32]) {
    if cpus.is_empty() {
        return;
    }
    let mut set = rustix::thread::CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu as usize));
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(?cpus, %error, "a helper thread could not be confined to its processors");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[derive(Clone)]
    struct Notice(mpsc::Sender<()>);
    impl Wake for Notice {
        fn wake(&self) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn a_full_queue_gives_the_job_back_and_a_panic_is_an_answer() {
        let (sender, notices) = mpsc::channel();
        let mut offload = Offload::new(1, Vec::new(), Notice(sender));
        let (release, held) = mpsc::channel::<()>();
        assert!(
            offload
                .start(
                    Box::new(move || {
                        let _ = held.recv();
                        panic!("a job")
                    }),
                    0
                )
                .is_ok()
        );
        for token in 1..JOBS as u64 {
            assert!(offload.start(Box::new(move || Ok((token, vec![1]))), token).is_ok());
        }
        assert!(offload.start(Box::new(|| Ok((0, Vec::new()))), 9).is_err());
        assert!(offload.take().is_none());
        drop(release);
        for token in 0..JOBS as u64 {
            notices.recv().unwrap();
            let expected = if token == 0 { Err(Errno(libc::EIO)) } else { Ok((token, vec![1])) };
            assert_eq!(offload.take(), Some((token, expected)));
        }
        assert_eq!(offload.in_flight(), 0);
        assert!(offload.start(Box::new(|| Ok((0, Vec::new()))), 9).is_ok());
    }

    #[test]
    fn without_threads_no_job_is_taken() {
        let mut offload = Offload::new(0, Vec::new(), Notice(mpsc::channel().0));
        assert!(offload.start(Box::new(|| Ok((0, Vec::new()))), 1).is_err());
    }
}
