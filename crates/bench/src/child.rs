//! Child processes: pinned to a core, alone on their output, never left behind.
//!
//! A child dies with its handle (tokio's kill on drop) and with this process, however that ends
//! (`setpriv --pdeathsig`). `taskset` and `setpriv` are util-linux; they exec, so the child's id is its own.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

/// How long a child may take to end when asked to.
const END_MAX: Duration = Duration::from_secs(30);
/// Bytes of a child's last words that go into an error.
const LAST_WORDS_BYTES: usize = 2000;

/// A command and its arguments.
#[derive(Clone, Debug)]
pub(crate) struct CommandLine(Vec<OsString>);

impl CommandLine {
    pub(crate) fn new(program: impl Into<OsString>) -> Self {
        Self(vec![program.into()])
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.0.push(arg.into());
        self
    }

    /// This command, run by another that takes a command as its last arguments.
    fn under(self, mut wrapper: Self) -> Self {
        wrapper.0.extend(self.0);
        wrapper
    }

    /// Under callgrind, which counts instructions into `counts`.
    pub(crate) fn counted(self, counts: &Path) -> Self {
        let mut file = OsString::from("--callgrind-out-file=");
        file.push(counts);
        self.under(Self::new("valgrind").arg("--tool=callgrind").arg(file))
    }

    fn spawn(&self, stdout: Stdio, stderr: Stdio) -> anyhow::Result<tokio::process::Child> {
        let (program, args) = self
            .0
            .split_first()
            .context("a command without a program")?;
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .kill_on_drop(true);
        command
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))
    }
}

/// A running child.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    pid: u32,
    /// What it wrote to its standard error.
    words: PathBuf,
}

impl Child {
    /// Starts `line` on `core`; its standard error goes to `words`.
    pub(crate) fn start(line: CommandLine, core: u32, words: PathBuf) -> anyhow::Result<Self> {
        let pinned = line
            .under(CommandLine::new("setpriv").arg("--pdeathsig").arg("KILL"))
            .under(CommandLine::new("taskset").arg("-c").arg(core.to_string()));
        let stderr = File::create(&words)?;
        let process = pinned.spawn(Stdio::piped(), stderr.into())?;
        let pid = process.id().context("ended at once")?;
        Ok(Self {
            process,
            pid,
            words,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its standard output, once.
    pub(crate) fn stdout(&mut self) -> anyhow::Result<ChildStdout> {
        self.process
            .stdout
            .take()
            .context("standard output taken twice")
    }

    /// An error with its last words when it has ended.
    pub(crate) fn demand_alive(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("it ended with {status}: {}", self.last_words()),
        }
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        let line = CommandLine::new("kill")
            .arg("-TERM")
            .arg(self.pid.to_string());
        line.spawn(Stdio::null(), Stdio::null())?.wait().await?;
        match timeout(END_MAX, self.process.wait()).await {
            Ok(status) => status.map(drop).map_err(Into::into),
            Err(_) => bail!("process {} did not end within {END_MAX:?}", self.pid),
        }
    }

    fn last_words(&self) -> String {
        let bytes = std::fs::read(&self.words).unwrap_or_default();
        let from = bytes.len().saturating_sub(LAST_WORDS_BYTES);
        String::from_utf8_lossy(bytes.get(from..).unwrap_or_default())
            .trim()
            .to_owned()
    }
}

/// Whether `program` is there to be run.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers in sbin, which is not on everybody's path.
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    dirs.map(|dir| dir.join(program)).any(|file| file.is_file())
}

/// Pins this process to `core` and lets it and its children open many files.
pub(crate) async fn settle_self(core: u32, files: u32) -> anyhow::Result<()> {
    let pid = std::process::id().to_string();
    let pin = CommandLine::new("taskset")
        .arg("-acp")
        .arg(core.to_string())
        .arg(&pid);
    if !pin
        .spawn(Stdio::null(), Stdio::inherit())?
        .wait()
        .await?
        .success()
    {
        bail!("cannot pin this process to core {core}: two cores are needed");
    }
    let limit = CommandLine::new("prlimit")
        .arg("--pid")
        .arg(&pid)
        .arg(format!("--nofile={files}:"));
    if !limit
        .spawn(Stdio::null(), Stdio::inherit())?
        .wait()
        .await?
        .success()
    {
        bail!("cannot raise the limit of open files to {files}");
    }
    Ok(())
}
