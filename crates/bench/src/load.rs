//! The load generator: a fixed number of connections, each sending its next request when the answer to
//! the last one is whole (closed loop).
//!
//! A batch is a fixed number of requests, so that work and not time is what a sample holds constant.
//! Connections outlive a batch: the first one warms them up. Each connection asks with a prompt of its own.

mod answer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::answer::Answer;
use crate::head::Head;
use crate::wire::{Expected, Shape};

/// Longest silence of a proxy before a request counts as bad.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes asked for in one read.
const READ_BYTES: usize = 64 * 1024;

/// One connection to the proxy.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    target: SocketAddr,
    buffer: Vec<u8>,
    /// Closed by the other side after an answer, as it had said.
    closed: bool,
}

/// What a batch brought.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    /// Whole answers, right to the last byte.
    pub(crate) good: u64,
    pub(crate) bad: u64,
    /// Why the first bad one was bad.
    pub(crate) first_bad: Option<String>,
    /// Payload bytes of the good ones.
    pub(crate) bytes: u64,
    /// Microseconds from a request's first byte sent to its answer's last byte read.
    pub(crate) latency_us: Histogram<u64>,
    pub(crate) elapsed: Duration,
}

/// The connections of one closed loop.
#[derive(Debug)]
pub(crate) struct Clients {
    target: SocketAddr,
    connections: Vec<Connection>,
}

/// What all connections of a batch share.
#[derive(Debug)]
struct Batch {
    unsent: AtomicU64,
    expected: Expected,
}

impl Clients {
    /// Opens `count` connections.
    pub(crate) async fn open(target: SocketAddr, count: usize) -> anyhow::Result<Self> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(Connection::open(target).await?);
        }
        Ok(Self {
            target,
            connections,
        })
    }

    /// Sends `requests` requests over all connections and waits for the last answer. Paced streams begin
    /// spread over one pace, as independent clients' would.
    pub(crate) async fn run(&mut self, shape: &Shape, requests: u64) -> anyhow::Result<Tally> {
        let host = self.target.to_string();
        let expected = shape.expected();
        let batch = Arc::new(Batch {
            unsent: AtomicU64::new(requests),
            expected,
        });
        let pace = shape.stream.map(|stream| stream.pace).unwrap_or_default();
        let count = self.connections.len();
        let mut prepared = Vec::with_capacity(count);
        for (connection, seed) in self.connections.drain(..).zip(0u32..) {
            let delay = pace * seed / u32::try_from(count)?.max(1);
            prepared.push((connection, shape.request(&host, u64::from(seed)), delay));
        }
        let mut total = Tally::new()?;
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for (connection, request, delay) in prepared {
            let batch = Arc::clone(&batch);
            tasks.spawn(async move {
                sleep(delay).await;
                connection.work(request, &batch).await
            });
        }
        while let Some(done) = tasks.join_next().await {
            let (connection, tally) = done??;
            self.connections.push(connection);
            total.add(&tally)?;
        }
        total.elapsed = started.elapsed();
        Ok(total)
    }
}

impl Connection {
    /// Connects, without Nagle's delay.
    pub(crate) async fn open(target: SocketAddr) -> anyhow::Result<Self> {
        let stream = dial(target).await?;
        Ok(Self {
            stream,
            target,
            buffer: Vec::new(),
            closed: false,
        })
    }

    /// Sends one request and reads its whole answer.
    pub(crate) async fn exchange(
        &mut self,
        request: &[u8],
        expected: &Expected,
    ) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        let mut answer = loop {
            if let Some(head) = Head::find(&self.buffer) {
                let mut answer = Answer::begin(&head, expected)?;
                let body = self.buffer.get(head.len()..).unwrap_or_default();
                if answer.feed(body)? {
                    self.closed = answer.closes();
                    self.buffer.clear();
                    return Ok(());
                }
                break answer;
            }
            self.read().await?;
        };
        loop {
            self.buffer.clear();
            self.read().await?;
            if answer.feed(&self.buffer)? {
                self.closed = answer.closes();
                self.buffer.clear();
                return Ok(());
            }
        }
    }

    /// Sends one request and reads until the first bytes of the answer's body; the rest is left unread.
    pub(crate) async fn begin(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        loop {
            self.read().await?;
            let Some(head) = Head::find(&self.buffer) else {
                continue;
            };
            if !head.first_line().starts_with(b"HTTP/1.1 200") {
                bail!("answered {:?}", String::from_utf8_lossy(head.first_line()));
            }
            if self.buffer.len() > head.len() {
                self.buffer = Vec::new();
                return Ok(());
            }
        }
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        self.buffer.reserve(READ_BYTES);
        let read = timeout(SILENCE_MAX, self.stream.read_buf(&mut self.buffer));
        match read.await.context("no answer for too long")?? {
            0 => bail!("closed before the answer was whole"),
            _ => Ok(()),
        }
    }

    /// Requests from the batch until none is left.
    async fn work(mut self, request: Vec<u8>, batch: &Batch) -> anyhow::Result<(Self, Tally)> {
        let mut tally = Tally::new()?;
        let take = |left: u64| left.checked_sub(1);
        while batch
            .unsent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
        {
            if self.closed {
                self = Self::open(self.target).await?;
            }
            let started = Instant::now();
            match self.exchange(&request, &batch.expected).await {
                Ok(()) => {
                    tally.good += 1;
                    tally.bytes += batch.expected.len() as u64;
                    let us = u64::try_from(started.elapsed().as_micros())?;
                    tally.latency_us.record(us)?;
                }
                Err(error) => {
                    tally.bad += 1;
                    tally.first_bad.get_or_insert_with(|| format!("{error:#}"));
                    self = Self::open(self.target).await?;
                }
            }
        }
        Ok((self, tally))
    }
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            good: 0,
            bad: 0,
            first_bad: None,
            bytes: 0,
            latency_us: Histogram::new(2)?,
            elapsed: Duration::ZERO,
        })
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.good += other.good;
        self.bad += other.bad;
        self.bytes += other.bytes;
        self.latency_us.add(&other.latency_us)?;
        if self.first_bad.is_none() {
            self.first_bad.clone_from(&other.first_bad);
        }
        Ok(())
    }

    /// An error unless all `requests` came back whole.
    pub(crate) fn demand(&self, requests: u64) -> anyhow::Result<()> {
        if self.bad == 0 && self.good == requests {
            return Ok(());
        }
        let why = self.first_bad.as_deref().unwrap_or("no reason seen");
        bail!(
            "{} good and {} bad of {requests} responses; first: {why}",
            self.good,
            self.bad
        )
    }

    /// For people.
    pub(crate) fn summary(&self) -> String {
        let seconds = self.elapsed.as_secs_f64();
        let quantile = |q| self.latency_us.value_at_quantile(q);
        let mut text = format!(
            "{} good, {} bad, {} payload bytes in {seconds:.2} s ({:.0}/s); latency p50 {} us, p99 {} us",
            self.good,
            self.bad,
            self.bytes,
            self.good as f64 / seconds,
            quantile(0.5),
            quantile(0.99),
        );
        if let Some(why) = &self.first_bad {
            text += &format!("; first bad: {why}");
        }
        text
    }
}

/// A TCP connection without Nagle's delay.
pub(crate) async fn dial(target: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(target)
        .await
        .with_context(|| format!("cannot connect to {target}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
