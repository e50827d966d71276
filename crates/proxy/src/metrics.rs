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

/// [`SECONDS`] in microseconds.
const MICROS: [u64; SECONDS.len()] = {
    let mut micros = [0; SECONDS.len()];
    let mut at = 0;
    while at < SECONDS.len() {
        #[expect(clippy::indexing_slicing, reason = "`at` is below the length of both")]
        let bound = &mut micros[at];
        #[expect(clippy::indexing_slicing, reason = "`at` is below the length of both")]
        let seconds = SECONDS[at];
        *bound = (seconds * 1e6) as u64;
        at += 1;
    }
    micros
};

/// Adds to a counter that this thread alone writes: without the locked instruction that it takes
/// where several do.
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}

/// A histogram over [`SECONDS`].
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; SECONDS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// By the one thread that writes it.
    pub(crate) fn record(&self, us: u64) {
        if let Some(bucket) = self.bucket(us) {
            add(bucket, 1);
        }
        add(&self.sum_us, us);
    }

    /// By one of several threads that write it.
    pub(crate) fn record_shared(&self, us: u64) {
        if let Some(bucket) = self.bucket(us) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

    fn bucket(&self, us: u64) -> Option<&AtomicU64> {
        self.buckets
            .get(MICROS.partition_point(|bound| *bound < us))
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
    known: RefCell<Known>,
}

/// The series that a worker has met.
#[derive(Debug, Default)]
struct Known {
    /// Where each pair of pool and model, hashed, is in `list`.
    places: FxHashMap<u64, usize>,
    list: Vec<Arc<Series>>,
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
        let mut known = self.known.borrow_mut();
        let at = self.series(&mut known, exchange);
        let Some(series) = known.list.get(at) else {
            return;
        };
        let outcome = Outcome::of(exchange);
        if let Some(counter) = series.outcomes.get(outcome as usize) {
            add(counter, 1);
        }
        let times = &exchange.timings;
        let since = |from: Micros, to: Micros| to.0.saturating_sub(from.0);
        series.duration.record(since(times.started, times.ended));
        add(&series.bytes_out, exchange.response.bytes);
        if times.first_token.0 > 0 {
            let waited = since(times.started, times.first_token);
            series.first_token.record(waited);
        }
        if times.sent.0 > 0 {
            self.counted.overhead.record(exchange.overhead_us());
        }
        if times.queued_us > 0 {
            self.counted.queued.record(times.queued_us);
        }
        let Some(usage) = &exchange.response.usage else {
            return;
        };
        add(&series.input_tokens, u64::from(usage.prompt_tokens));
        let output = if usage.estimated {
            &series.estimated_tokens
        } else {
            &series.output_tokens
        };
        add(output, u64::from(usage.completion_tokens));
        let cached = usage.cached_tokens.unwrap_or(0);
        add(&series.cached_tokens, u64::from(cached));
        if usage.completion_tokens > 1 && exchange.response.is_stream {
            let generating = since(times.first_token, times.ended);
            let each = generating / u64::from(usage.completion_tokens - 1);
            series.output_token.record(each);
        }
    }

    /// The place of a request's series among the known ones.
    fn series(&self, known: &mut Known, exchange: &Exchange) -> usize {
        let pool = exchange.pool.as_ref().map_or("", |pool| &**pool.name());
        // Only names that were known once have a series of their own.
        let asked = hash(pool, &exchange.model);
        if let Some(at) = known.places.get(&asked) {
            return *at;
        }
        let model = match &exchange.pool {
            Some(pool) if pool.knows_model(&exchange.model) => exchange.model.as_str(),
            _ if exchange.model.is_empty() => "",
            _ => "other",
        };
        let key = hash(pool, model);
        if let Some(at) = known.places.get(&key) {
            return *at;
        }
        let (pool, model) = if known.places.len() < MOST_SERIES {
            (pool, model)
        } else {
            ("other", "other")
        };
        let series = self.find_or_add(pool, model);
        let same = |one: &Arc<Series>| Arc::ptr_eq(one, &series);
        let at = known.list.iter().position(same).unwrap_or_else(|| {
            known.list.push(series.clone());
            known.list.len() - 1
        });
        if known.places.len() < 4 * MOST_SERIES {
            known.places.insert(key, at);
        }
        at
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
