//! What Linux says about a process: its CPU time to the nanosecond, its memory.

use std::fs;

use anyhow::Context as _;

/// CPU time of all threads of a process since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// On a core, in nanoseconds.
    pub(crate) run_ns: u64,
    /// Ready to run while another had the core, in nanoseconds.
    pub(crate) wait_ns: u64,
}

impl CpuTime {
    /// From the scheduler's own counters, which unlike `times(2)` do not count in ticks.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        let tasks = format!("/proc/{pid}/task");
        for task in fs::read_dir(&tasks).with_context(|| format!("process {pid} is gone"))? {
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            let thread = Self::parse(&text)?;
            sum.run_ns += thread.run_ns;
            sum.wait_ns += thread.wait_ns;
        }
        Ok(sum)
    }

    /// What was used between `earlier` and now.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            run_ns: self.run_ns.saturating_sub(earlier.run_ns),
            wait_ns: self.wait_ns.saturating_sub(earlier.wait_ns),
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        next()
            .zip(next())
            .map(|(run_ns, wait_ns)| Self { run_ns, wait_ns })
            .with_context(|| format!("schedstat reads {text:?}"))
    }
}

/// Memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) resident_kib: u64,
    /// The part no file backs: heap and stacks.
    pub(crate) anonymous_kib: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid} is gone"))?;
        Self::parse(&text)
    }

    fn parse(status: &str) -> anyhow::Result<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_ascii_whitespace().next());
            number
                .and_then(|number| number.parse().ok())
                .with_context(|| format!("no {name} in the process's status"))
        };
        Ok(Self {
            resident_kib: field("VmRSS:")?,
            anonymous_kib: field("RssAnon:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let cpu = CpuTime::parse("33607679 70450283 92\n").unwrap();
        assert_eq!(
            cpu,
            CpuTime {
                run_ns: 33_607_679,
                wait_ns: 70_450_283
            }
        );
        assert!(CpuTime::parse("33607679").is_err());
        let status = "Name:\tx\nVmRSS:\t    3924 kB\nRssAnon:\t     968 kB\n";
        let memory = Memory {
            resident_kib: 3924,
            anonymous_kib: 968,
        };
        assert_eq!(Memory::parse(status).unwrap(), memory);
        assert!(Memory::parse("Name:\tx\n").is_err());
    }

    #[test]
    fn sees_this_process_at_work() {
        let pid = std::process::id();
        let before = CpuTime::of(pid).unwrap();
        let work: u64 = (0..2_000_000u64).map(std::hint::black_box).sum();
        assert!(work > 0 && Memory::of(pid).unwrap().resident_kib > 0);
        assert!(CpuTime::of(pid).unwrap().run_ns >= before.run_ns);
    }
}
