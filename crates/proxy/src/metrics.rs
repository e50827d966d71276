//! What the data path counts, per worker, and its sum when somebody asks.
//!
//! A worker adds to its own counters (nobody else writes them), so a request costs a few
//! uncontended adds. Names follow the OpenTelemetry gen-ai conventions and the inference
//! extension's where one exists; label values are bounded: pools and models *as configured or
//! announced*, at most [`MOST_SERIES`] pairs a worker, the rest under `other`.

use crate::exchange::Exchange;
use crate::failure::Side;
use parking_lot::Mutex;
use picker::Micros;
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

mod export;

pub(crate) const MOST_SERIES: usize = 256;

/// Upper bounds of latency buckets, in seconds.
pub(crate) const SECONDS: [f64; 16] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
];

/// How a request ended; the label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    ClientError,
    ClientGone,
    GatewayError,
    EngineError,
}

impl Outcome {
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::Ok, "ok"),
        (Self::ClientError, "client_error"),
        (Self::ClientGone, "client_gone"),
        (Self::GatewayError, "gateway_error"),
        (Self::EngineError, "engine_error"),
    ];

    fn of(exchange: &Exchange) -> Self {
        if exchange.response.client_gone {
            return Self::ClientGone;
        }
        match &exchange.failure {
            Some(failure) => match failure.cause.row().side {
                Side::Client => Self::ClientError,
                Side::Gateway => Self::GatewayError,
                Side::Engine => Self::EngineError,
            },
            None => match exchange.response.status {
                500.. => Self::EngineError,
                400.. => Self::ClientError,
                _ => Self::Ok,
            },
        }
    }
}

/// A histogram over [`SECONDS`] that one thread writes.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; SECONDS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn record(&self, from: Micros, to: Micros) {
        let us = to.0.saturating_sub(from.0);
        let seconds = us as f64 / 1e6;
        let bucket = SECONDS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Upper bounds with the count of each, and the sum in seconds.
    pub(crate) fn read(&self) -> (Vec<(f64, u64)>, f64) {
        let bounds = SECONDS.iter().copied().chain([f64::MAX]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed));
        let sum = self.sum_us.load(Relaxed) as f64 / 1e6;
        (bounds.zip(counts).collect(), sum)
    }
}

/// What is counted for one pair of pool and model.
#[derive(Debug, Default)]
pub(crate) struct Series {
    pub(crate) outcomes: [AtomicU64; 5],
    pub(crate) duration: Histogram,
    pub(crate) first_token: Histogram,
    pub(crate) output_token: Histogram,
    pub(crate) input_tokens: AtomicU64,
    pub(crate) output_tokens: AtomicU64,
    /// Events of streams whose engine told no usage.
    pub(crate) estimated_tokens: AtomicU64,
    pub(crate) cached_tokens: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

type Key = (Box<str>, Box<str>);

/// What one worker counts; read by the exporter.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    series: Mutex<Vec<(Key, Arc<Series>)>>,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_open: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) overhead: Histogram,
    pub(crate) queued: Histogram,
    pub(crate) panics: AtomicU64,
    /// HTTP/2 connections closed because of what they sent.
    pub(crate) floods: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) mirrored: AtomicU64,
    pub(crate) mirrors_dropped: AtomicU64,
}

/// The handle by which a worker counts.
#[derive(Debug)]
pub(crate) struct WorkerMetrics {
    pub(crate) counted: Arc<Counted>,
    known: RefCell<FxHashMap<u64, Arc<Series>>>,
}

/// All workers' counters.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    workers: Arc<Mutex<Vec<Arc<Counted>>>>,
}

impl Metrics {
    pub(crate) fn worker(&self, _index: usize) -> WorkerMetrics {
        let counted = Arc::<Counted>::default();
        self.workers.lock().push(counted.clone());
        WorkerMetrics {
            counted,
            known: RefCell::default(),
        }
    }
}

impl Metrics {
    /// Memory of all series, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let workers = self.workers.lock();
        let of = |worker: &Arc<Counted>| {
            let names: usize = worker
                .series
                .lock()
                .iter()
                .map(|((pool, model), _)| pool.len() + model.len() + size_of::<Series>())
                .sum();
            names + size_of::<Counted>()
        };
        workers.iter().map(of).sum()
    }
}

impl WorkerMetrics {
    /// Counts a finished request.
    pub(crate) fn count(&self, exchange: &Exchange) {
        let series = self.series(exchange);
        let outcome = Outcome::of(exchange);
        if let Some(counter) = series.outcomes.get(outcome as usize) {
            counter.fetch_add(1, Relaxed);
        }
        let times = &exchange.timings;
        series.duration.record(times.started, times.ended);
        series.bytes_out.fetch_add(exchange.response.bytes, Relaxed);
        if times.first_token.0 > 0 {
            series.first_token.record(times.started, times.first_token);
        }
        if times.sent.0 > 0 {
            self.counted
                .overhead
                .record(Micros(0), Micros(exchange.overhead_us()));
        }
        if times.queued_us > 0 {
            self.counted
                .queued
                .record(Micros(0), Micros(times.queued_us));
        }
        let Some(usage) = &exchange.response.usage else {
            return;
        };
        series
            .input_tokens
            .fetch_add(u64::from(usage.prompt_tokens), Relaxed);
        let output = if usage.estimated {
            &series.estimated_tokens
        } else {
            &series.output_tokens
        };
        output.fetch_add(u64::from(usage.completion_tokens), Relaxed);
        series
            .cached_tokens
            .fetch_add(u64::from(usage.cached_tokens.unwrap_or(0)), Relaxed);
        if usage.completion_tokens > 1 && exchange.response.is_stream {
            let generating = times.ended.0.saturating_sub(times.first_token.0);
            let each = generating / u64::from(usage.completion_tokens - 1);
            series.output_token.record(Micros(0), Micros(each));
        }
    }

    fn series(&self, exchange: &Exchange) -> Arc<Series> {
        let pool = exchange.pool.as_ref().map_or("", |pool| &**pool.name());
        // Only names that were known once have a series of their own.
        let asked = hash(pool, &exchange.model);
        let mut known = self.known.borrow_mut();
        if let Some(series) = known.get(&asked) {
            return series.clone();
        }
        let model = match &exchange.pool {
            Some(pool) if pool.knows_model(&exchange.model) => exchange.model.as_str(),
            _ if exchange.model.is_empty() => "",
            _ => "other",
        };
        let key = hash(pool, model);
        if let Some(series) = known.get(&key) {
            return series.clone();
        }
        let (pool, model) = if known.len() < MOST_SERIES {
            (pool, model)
        } else {
            ("other", "other")
        };
        let series = self.find_or_add(pool, model);
        if known.len() < 4 * MOST_SERIES {
            known.insert(key, series.clone());
        }
        series
    }

    fn find_or_add(&self, pool: &str, model: &str) -> Arc<Series> {
        let mut all = self.counted.series.lock();
        if let Some((_, series)) = all.iter().find(|((p, m), _)| &**p == pool && &**m == model) {
            return series.clone();
        }
        let series = Arc::<Series>::default();
        all.push(((pool.into(), model.into()), series.clone()));
        series
    }
}

fn hash(pool: &str, model: &str) -> u64 {
    use std::hash::Hasher;
    let mut hasher = rustc_hash::FxHasher::default();
    hasher.write(pool.as_bytes());
    hasher.write_u8(0xff);
    hasher.write(model.as_bytes());
    hasher.finish()
}
