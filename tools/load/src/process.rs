//! What a process costs: run time of its tasks, and its memory.

use rustix::time::{ClockId, clock_gettime};
use std::{collections::HashMap, ffi::OsString, fs, path::PathBuf, time::Duration};

/// A process of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    fn path(self, rest: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{rest}", self.0))
    }

    /// Run time of each task that lives now: user and system time, in nanoseconds. Threads and the kernel's io_uring
    /// workers are tasks of the process. (`/proc/PID/stat` counts in clock ticks of 10 ms.)
    fn tasks(self) -> Result<HashMap<OsString, u64>, String> {
        let tasks = self.path("task");
        let wrong = |error| format!("{}: {error}: is there a process {}?", tasks.display(), self.0);
        let mut all = HashMap::new();
        for task in fs::read_dir(&tasks).map_err(wrong)? {
            let task = task.map_err(wrong)?;
            // A task may end while we look.
            if let Ok(text) = fs::read_to_string(task.path().join("schedstat")) {
                let nanoseconds = text.split_whitespace().next().and_then(|field| field.parse().ok());
                all.insert(task.file_name(), nanoseconds.unwrap_or(0));
            }
        }
        Ok(all)
    }

    /// VmRSS in KiB.
    pub fn resident_kib(self) -> Option<u64> {
        let status = fs::read_to_string(self.path("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }
}

/// Adds up the run time of a process. A task that ends takes its time along: look now and then, and what is lost is what
/// tasks did after the last look before their end.
pub struct RunTime {
    process: Process,
    last: HashMap<OsString, u64>,
    sum: u64,
}

impl RunTime {
    /// From now on.
    pub fn of(process: Process) -> Result<RunTime, String> {
        Ok(RunTime { process, last: process.tasks()?, sum: 0 })
    }

    /// Looks, and gives the sum. A process that has ended adds nothing more.
    pub fn look(&mut self) -> Duration {
        if let Ok(now) = self.process.tasks() {
            // Of a task that is new, all was within this time.
            let grown = |(task, time): (&OsString, &u64)| time - self.last.get(task).copied().unwrap_or(0).min(*time);
            self.sum += now.iter().map(grown).sum::<u64>();
            self.last = now;
        }
        Duration::from_nanos(self.sum)
    }
}

/// Run time of this process, with all threads that it ever had.
pub fn own_run_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn work() {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(30) {}
    }

    #[test]
    fn work_is_seen_also_of_threads_that_end() {
        let me = Process(std::process::id());
        let (mut time, own) = (RunTime::of(me).unwrap(), own_run_time());
        let (go, end) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            work();
            let _ = end.recv();
        });
        work();
        while time.look() < Duration::from_millis(10) {}
        let before = time.look();
        drop(go);
        thread.join().unwrap();
        assert!(time.look() >= before);
        assert!(own_run_time() - own > Duration::from_millis(10));
        assert!(me.resident_kib().unwrap() > 100);
    }

    #[test]
    fn nobody_is_refused() {
        assert!(RunTime::of(Process(u32::MAX)).err().unwrap().contains("is there a process"));
    }
}
