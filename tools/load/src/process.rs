//! What a process costs: run time of its tasks, and its memory.

use std::{fs, path::PathBuf, time::Duration};

/// A process of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    fn path(self, rest: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{rest}", self.0))
    }

    /// Run time of all tasks that live now: user and system time, in nanoseconds. Threads and the kernel's io_uring
    /// workers are tasks of the process. (`/proc/PID/stat` counts in clock ticks of 10 ms.)
    pub fn run_time(self) -> Result<Duration, String> {
        let tasks = self.path("task");
        let wrong = |error| format!("{}: {error}: is there a process {}?", tasks.display(), self.0);
        let mut sum = 0;
        for task in fs::read_dir(&tasks).map_err(wrong)? {
            // A task that ends while we look takes its time along.
            let Ok(text) =
                task.map_err(wrong).and_then(|t| fs::read_to_string(t.path().join("schedstat")).map_err(wrong))
            else {
                continue;
            };
            sum += text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(sum))
    }

    /// VmRSS in KiB.
    pub fn resident_kib(self) -> Option<u64> {
        let status = fs::read_to_string(self.path("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_and_nobody_is_refused() {
        let me = Process(std::process::id());
        let before = me.run_time().unwrap();
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(30) {}
        assert!(me.run_time().unwrap() > before);
        assert!(me.resident_kib().unwrap() > 100);
        assert!(Process(u32::MAX).run_time().unwrap_err().contains("is there a process"));
    }
}
