//! CPU time per request and per SSE chunk, from the scheduler's nanosecond counters.
//!
//! A sample is a fixed number of requests over warm connections. Every sample of a proxy has one of the
//! floor beside it, and which of the two goes first alternates. A bad response, or a log or counter that
//! disagrees with what was sent, ends the run: a figure from such a sample would mean nothing.

use std::time::Duration;

use anyhow::Context as _;

use super::Bench;
use super::report::{Row, Spread};
use crate::load::Clients;
use crate::peers::{Proxy, Running};
use crate::process::CpuTime;
use crate::wire::{Shape, Stream};

const CONNECTIONS: usize = 64;

/// One kind of load, and how much of it makes a sample.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) measure: &'static str,
    body_bytes: usize,
    stream: Option<Stream>,
    requests: u64,
}

pub(super) const SMALL: Scenario = Scenario {
    measure: "CPU per request, 1 KiB",
    body_bytes: 1024,
    stream: None,
    requests: 20_000,
};

pub(super) const LARGE: Scenario = Scenario {
    measure: "CPU per request, 32 KiB",
    body_bytes: 32 * 1024,
    stream: None,
    requests: 12_000,
};

pub(super) const NO_DELAY: Scenario = Scenario {
    measure: "CPU per SSE chunk, no delay",
    body_bytes: 1024,
    stream: Some(Stream {
        chunks: 100,
        pace: Duration::ZERO,
    }),
    requests: 640,
};

pub(super) const PACED: Scenario = Scenario {
    measure: "CPU per SSE chunk, 10 ms",
    body_bytes: 1024,
    stream: Some(Stream {
        chunks: 100,
        pace: Duration::from_millis(10),
    }),
    requests: 2 * CONNECTIONS as u64,
};

/// What a sample found.
#[derive(Clone, Copy, Debug)]
struct Sample {
    us_per_unit: f64,
    waited_percent: f64,
}

/// Every proxy against the floor.
pub(super) async fn compare(bench: &Bench, scenario: &Scenario) -> anyhow::Result<Vec<Row>> {
    let mut floor = start(bench, Proxy::Floor).await?;
    let mut others = Vec::new();
    for &proxy in &bench.proxies {
        others.push((start(bench, proxy).await?, Vec::new()));
    }
    for pair in 0..scenario.pairs(bench) {
        for (other, samples) in &mut others {
            let sampled = if pair % 2 == 0 {
                let first = scenario.sample(bench, &mut floor).await?;
                (first, scenario.sample(bench, other).await?)
            } else {
                let first = scenario.sample(bench, other).await?;
                (scenario.sample(bench, &mut floor).await?, first)
            };
            samples.push(sampled);
        }
    }
    let rows = others
        .iter()
        .map(|(other, samples)| scenario.row(other.proxy, samples));
    Ok(rows.collect())
}

async fn start(bench: &Bench, proxy: Proxy) -> anyhow::Result<Running> {
    let mut running = proxy.start(&bench.place, None)?;
    running.ready().await?;
    running.open_books().await?;
    Ok(running)
}

impl Scenario {
    fn pairs(&self, bench: &Bench) -> u32 {
        match self.stream {
            Some(stream) if !stream.pace.is_zero() => bench.paced_pairs,
            _ => bench.pairs,
        }
    }

    fn shape(&self, bench: &Bench) -> Shape {
        Shape {
            body_bytes: self.body_bytes,
            stream: self.stream,
            text: bench.text,
            python_headers: bench.python_headers,
        }
    }

    /// Warms up as many connections as it then measures on.
    async fn sample(&self, bench: &Bench, running: &mut Running) -> anyhow::Result<Sample> {
        let sampled = self.try_sample(bench, running).await;
        sampled.with_context(|| format!("{}, {}", self.measure, running.proxy.name()))
    }

    async fn try_sample(&self, bench: &Bench, running: &mut Running) -> anyhow::Result<Sample> {
        let shape = self.shape(bench);
        let mut clients = Clients::open(running.address, CONNECTIONS).await?;
        let unpaced = |_| Stream {
            chunks: 10,
            pace: Duration::ZERO,
        };
        let warm = Shape {
            stream: shape.stream.map(unpaced),
            ..shape
        };
        let warm_requests = (self.requests / 5).max(CONNECTIONS as u64);
        clients
            .run(&warm, warm_requests)
            .await?
            .demand(warm_requests)?;
        running.settle_log(warm_requests).await?;

        let before = CpuTime::of(running.pid())?;
        let tally = clients.run(&shape, self.requests).await?;
        tally.demand(self.requests)?;
        running.settle_log(self.requests).await?;
        let used = CpuTime::of(running.pid())?.since(before);
        running.settle_counter().await?;

        let units = self.requests * u64::from(self.stream.map_or(1, |stream| stream.chunks));
        Ok(Sample {
            us_per_unit: used.run_ns as f64 / 1000.0 / units as f64,
            waited_percent: used.wait_ns as f64 / 1e7 / tally.elapsed.as_secs_f64(),
        })
    }

    fn row(&self, proxy: Proxy, samples: &[(Sample, Sample)]) -> Row {
        let pairs: Vec<_> = samples
            .iter()
            .map(|(floor, other)| (floor.us_per_unit, other.us_per_unit))
            .collect();
        let waited: Vec<_> = samples
            .iter()
            .map(|(_, other)| other.waited_percent)
            .collect();
        let waited_percent = Some(Spread::of(&waited));
        Row {
            waited_percent,
            ..Row::new(self.measure, "us", proxy, &pairs)
        }
    }
}
