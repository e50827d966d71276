//! The proxies that are measured, and how each is started.
//!
//! All of them listen on loopback, run on one core and forward to the same backend. Penstock gets the
//! backend's four addresses, so that it has something to choose from; the others have nothing to choose.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::ChildStdout;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::child::{Child, CommandLine, is_installed};
use crate::load::{Connection, dial};
use crate::wire::{Shape, Text};

/// How long a proxy may take to serve its first request; callgrind makes everything 50 times slower.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long log lines and counters may lag behind the answers.
const BOOKS_MAX: Duration = Duration::from_secs(5);

/// A proxy that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Proxy {
    Floor,
    Penstock,
    Nginx,
    Haproxy,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) backends: Vec<SocketAddr>,
    /// For generated configuration and what children say.
    pub(crate) dir: PathBuf,
    pub(crate) penstock: PathBuf,
    /// The name of Penstock's counter of requests.
    pub(crate) counter: String,
    pub(crate) proxy_core: u32,
}

/// A proxy that answers.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) proxy: Proxy,
    pub(crate) address: SocketAddr,
    child: Child,
    books: Option<Books>,
    /// Reads what the child prints; ends with it.
    _readers: JoinSet<()>,
}

/// What a proxy itself says about the requests it served. It must agree with what was sent.
#[derive(Debug)]
struct Books {
    lines: Arc<AtomicU64>,
    lines_expected: u64,
    admin: SocketAddr,
    counter: String,
    counted_expected: u64,
}

impl Proxy {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Penstock => "penstock",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// Why it cannot be measured here, if so.
    pub(crate) fn missing(self, penstock: &Path) -> Option<String> {
        match self {
            Self::Floor => None,
            Self::Penstock if penstock.is_file() => None,
            Self::Penstock => Some(format!(
                "{} is not there: build it first",
                penstock.display()
            )),
            Self::Nginx | Self::Haproxy if is_installed(self.name()) => None,
            Self::Nginx => Some("nginx is not installed (Debian: nginx-light)".to_owned()),
            Self::Haproxy => Some("haproxy is not installed (Debian: haproxy)".to_owned()),
        }
    }

    /// Starts it, under callgrind when `counts` names a file for that.
    pub(crate) fn start(self, place: &Place, counts: Option<&Path>) -> anyhow::Result<Running> {
        let address = free_address()?;
        let admin = free_address()?;
        let mut line = self.command(place, address, admin)?;
        if let Some(counts) = counts {
            line = line.counted(counts);
        }
        let words = place.dir.join(format!("{}.err", self.name()));
        let mut child = Child::start(line, place.proxy_core, words)?;
        let lines = Arc::new(AtomicU64::new(0));
        let mut readers = JoinSet::new();
        readers.spawn(count_lines(child.stdout()?, Arc::clone(&lines)));
        let books = (self == Self::Penstock).then(|| Books {
            lines,
            lines_expected: 0,
            admin,
            counter: place.counter.clone(),
            counted_expected: 0,
        });
        Ok(Running {
            proxy: self,
            address,
            child,
            books,
            _readers: readers,
        })
    }

    fn command(
        self,
        place: &Place,
        listen: SocketAddr,
        admin: SocketAddr,
    ) -> anyhow::Result<CommandLine> {
        let upstream = *place.backends.first().context("no backend")?;
        let fill = |template: &str, name: &str| {
            let text = template
                .replace("@DIR@", &place.dir.to_string_lossy())
                .replace("@LISTEN@", &listen.to_string())
                .replace("@UPSTREAM@", &upstream.to_string());
            let path = place.dir.join(name);
            std::fs::write(&path, text).map(|()| path)
        };
        Ok(match self {
            Self::Floor => CommandLine::new(std::env::current_exe()?)
                .arg("floor")
                .arg("--listen")
                .arg(listen.to_string())
                .arg("--upstream")
                .arg(upstream.to_string()),
            Self::Penstock => penstock(place, listen, admin),
            Self::Nginx => {
                let config = fill(include_str!("../templates/nginx.conf"), "nginx.conf")?;
                let nginx = CommandLine::new("/usr/sbin/nginx").arg("-e").arg("stderr");
                nginx.arg("-p").arg(&place.dir).arg("-c").arg(config)
            }
            Self::Haproxy => {
                let config = fill(include_str!("../templates/haproxy.cfg"), "haproxy.cfg")?;
                CommandLine::new("/usr/sbin/haproxy")
                    .arg("-db")
                    .arg("-f")
                    .arg(config)
            }
        })
    }
}

/// Everything on, one worker, access log to the pipe that this process reads.
fn penstock(place: &Place, listen: SocketAddr, admin: SocketAddr) -> CommandLine {
    let mut line = CommandLine::new(&place.penstock).arg("run");
    for backend in &place.backends {
        line = line.arg("--endpoint").arg(format!("http://{backend}"));
    }
    line.arg("--listen")
        .arg(listen.to_string())
        .arg("--admin")
        .arg(admin.to_string())
        .arg("--workers")
        .arg("1")
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Waits until it has served a request from end to end.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let name = self.proxy.name();
        let started = Instant::now();
        while let Err(error) = self.serve_one().await {
            self.child.demand_alive().context(name)?;
            if started.elapsed() > READY_MAX {
                return Err(error.context(format!("{name} serves nothing")));
            }
            sleep(Duration::from_micros(500)).await;
        }
        Ok(())
    }

    /// Opens the books: from here on, every request must be in them.
    pub(crate) async fn open_books(&mut self) -> anyhow::Result<()> {
        let Some(books) = &mut self.books else {
            return Ok(());
        };
        // Requests sent while it started may still be on their way into the log.
        sleep(Duration::from_millis(500)).await;
        books.lines_expected = books.lines.load(Ordering::Relaxed);
        books.counted_expected = count(books.admin, &books.counter).await?;
        Ok(())
    }

    /// Waits until the log has `served` lines more; writing them is part of the work.
    pub(crate) async fn settle_log(&mut self, served: u64) -> anyhow::Result<()> {
        // Also lets a thread that has just answered go to sleep, which books its CPU time.
        sleep(Duration::from_millis(2)).await;
        let Some(books) = &mut self.books else {
            return Ok(());
        };
        books.lines_expected += served;
        books.counted_expected += served;
        let started = Instant::now();
        while books.lines.load(Ordering::Relaxed) < books.lines_expected
            && started.elapsed() < BOOKS_MAX
        {
            sleep(Duration::from_millis(1)).await;
        }
        let lines = books.lines.load(Ordering::Relaxed);
        if lines != books.lines_expected {
            bail!(
                "{lines} access log lines for {} requests",
                books.lines_expected
            );
        }
        Ok(())
    }

    /// An error unless its counter agrees with the requests sent.
    pub(crate) async fn settle_counter(&mut self) -> anyhow::Result<()> {
        let Some(books) = &self.books else {
            return Ok(());
        };
        let started = Instant::now();
        loop {
            let counted = count(books.admin, &books.counter).await?;
            if counted == books.counted_expected {
                return Ok(());
            }
            if started.elapsed() > BOOKS_MAX {
                let expected = books.counted_expected;
                bail!(
                    "{} counts {counted} in place of {expected} requests",
                    books.counter
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it and waits until it has ended.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.child.end().await
    }

    async fn serve_one(&self) -> anyhow::Result<()> {
        let shape = Shape {
            body_bytes: 1024,
            stream: None,
            text: Text::Plain,
            python_headers: false,
        };
        let mut connection = Connection::open(self.address).await?;
        let request = shape.request(&self.address.to_string(), 0);
        connection.exchange(&request, &shape.expected()).await
    }
}

/// A loopback address on which nothing listens now.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Counts the lines that are JSON objects; other lines are talk.
async fn count_lines(mut stdout: ChildStdout, lines: Arc<AtomicU64>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut at_start = true;
    while let Ok(read) = stdout.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        lines.fetch_add(count_objects(bytes, &mut at_start), Ordering::Relaxed);
    }
}

fn count_objects(bytes: &[u8], at_start: &mut bool) -> u64 {
    let mut objects = 0;
    for &byte in bytes {
        objects += u64::from(*at_start && byte == b'{');
        *at_start = byte == b'\n';
    }
    objects
}

/// The sum of a counter over all its labels, as the admin address shows it now.
async fn count(admin: SocketAddr, counter: &str) -> anyhow::Result<u64> {
    let mut stream = dial(admin).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    sum_series(&text, counter).with_context(|| format!("no {counter} in http://{admin}/metrics"))
}

fn sum_series(text: &str, counter: &str) -> Option<u64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(counter)?;
        let of_this = rest.starts_with('{') || rest.starts_with(' ');
        let value: f64 = rest.split_ascii_whitespace().next_back()?.parse().ok()?;
        of_this.then_some(value as u64)
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or_default() + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_log_lines_whatever_the_borders() {
        let text = b"listening on x\n{\"a\":1}\n{\"b\":{}}\n\n  {\n{\"c\":\"{\"}\n";
        for piece in 1..text.len() {
            let mut at_start = true;
            let sum: u64 = text
                .chunks(piece)
                .map(|part| count_objects(part, &mut at_start))
                .sum();
            assert_eq!(sum, 3, "pieces of {piece}");
        }
    }

    #[test]
    fn sums_a_counter_over_its_labels() {
        let text = "# TYPE a_total counter\na_total{x=\"1 2\"} 3\na_total{x=\"2\"} 4.0\nab_total 9\na_total_x 8\n";
        assert_eq!(sum_series(text, "a_total"), Some(7));
        assert_eq!(sum_series(text, "ab_total"), Some(9));
        assert_eq!(sum_series(text, "c_total"), None);
    }
}
