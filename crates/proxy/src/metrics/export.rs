//! The counters of all workers as OpenMetrics text, summed when scraped.

use super::{Counted, Histogram, Key, Metrics, Outcome, SECONDS, Series};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

impl Metrics {
    /// Registers everything the data path counts.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(self.clone()));
    }

    fn workers(&self) -> Vec<Arc<Counted>> {
        self.workers.lock().clone()
    }

    /// All requests that were answered or given up, whatever their outcome.
    pub fn requests(&self) -> u64 {
        let of = |series: &Series| series.outcomes.iter().map(|c| c.load(Relaxed)).sum::<u64>();
        self.workers()
            .iter()
            .map(|worker| {
                worker
                    .series
                    .lock()
                    .iter()
                    .map(|(_, series)| of(series))
                    .sum::<u64>()
            })
            .sum()
    }
}

/// One pair of pool and model over all workers.
type Summed = Vec<(Key, Vec<Arc<Series>>)>;

fn summed(workers: &[Arc<Counted>]) -> Summed {
    let mut all: Summed = Vec::new();
    for worker in workers {
        for (key, series) in worker.series.lock().iter() {
            match all.iter_mut().find(|(known, _)| known == key) {
                Some((_, list)) => list.push(series.clone()),
                None => all.push((key.clone(), vec![series.clone()])),
            }
        }
    }
    all
}

fn total<T>(list: &[Arc<T>], of: impl Fn(&T) -> &AtomicU64) -> u64 {
    list.iter().map(|one| of(one).load(Relaxed)).sum()
}

/// A counter's value that exists only while it is written out.
struct Count(u64);

impl EncodeMetric for Count {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, _, u64>(&self.0, None)
    }
    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// A gauge's value that exists only while it is written out.
pub(crate) struct Level(pub(crate) f64);

impl EncodeMetric for Level {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.0)
    }
    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// The same histogram of several writers.
struct Merged(Vec<(f64, u64)>, f64, u64);

impl Merged {
    fn of<T>(list: &[Arc<T>], histogram: impl Fn(&T) -> &Histogram) -> Self {
        let mut buckets: Vec<(f64, u64)> = SECONDS.iter().map(|bound| (*bound, 0)).collect();
        buckets.push((f64::MAX, 0));
        let mut sum = 0;
        for one in list {
            let one = histogram(one);
            for (into, from) in buckets.iter_mut().zip(&one.buckets) {
                into.1 += from.load(Relaxed);
            }
            sum += one.sum_us.load(Relaxed);
        }
        let count = buckets.iter().map(|(_, count)| count).sum();
        Self(buckets, sum as f64 / 1e6, count)
    }
}

impl EncodeMetric for Merged {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_histogram::<NoLabelSet>(self.1, self.2, &self.0, None)
    }
    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let workers = self.workers();
        let series = summed(&workers);
        requests(&mut encoder, &series)?;
        tokens(&mut encoder, &series)?;
        latencies(&mut encoder, &series)?;
        process(&mut encoder, &workers)
    }
}

fn labels(key: &Key) -> [(&'static str, &str); 2] {
    [("pool", &key.0), ("gen_ai_request_model", &key.1)]
}

fn requests(encoder: &mut DescriptorEncoder<'_>, series: &Summed) -> fmt::Result {
    let help = "Requests by outcome, each counted once when it ended";
    let mut family =
        encoder.encode_descriptor("penstock_requests", help, None, MetricType::Counter)?;
    for (key, list) in series {
        for (outcome, name) in Outcome::ALL {
            let sum = total(list, |one| &one.outcomes[outcome as usize]);
            if sum > 0 {
                let [pool, model] = labels(key);
                let labels = [pool, model, ("outcome", name)];
                Count(sum).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    Ok(())
}

fn tokens(encoder: &mut DescriptorEncoder<'_>, series: &Summed) -> fmt::Result {
    let help = "Tokens by type, as the engines told them; estimated where they did not";
    let mut family =
        encoder.encode_descriptor("penstock_tokens", help, None, MetricType::Counter)?;
    for (key, list) in series {
        let sums = [
            ("input", "false", total(list, |one| &one.input_tokens)),
            ("output", "false", total(list, |one| &one.output_tokens)),
            ("output", "true", total(list, |one| &one.estimated_tokens)),
            (
                "input_cached",
                "false",
                total(list, |one| &one.cached_tokens),
            ),
        ];
        for (name, estimated, sum) in sums {
            let [pool, model] = labels(key);
            let kind = ("gen_ai_token_type", name);
            let labels = [pool, model, kind, ("estimated", estimated)];
            Count(sum).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "Response body bytes sent to clients";
    let mut family =
        encoder.encode_descriptor("penstock_response_bytes", help, None, MetricType::Counter)?;
    for (key, list) in series {
        let sum = total(list, |one| &one.bytes_out);
        Count(sum).encode(family.encode_family(&labels(key))?)?;
    }
    Ok(())
}

fn latencies(encoder: &mut DescriptorEncoder<'_>, series: &Summed) -> fmt::Result {
    type Of = fn(&Series) -> &Histogram;
    let families: [(&str, &str, Of); 3] = [
        (
            "gen_ai_server_request_duration_seconds",
            "From the first byte of a request to the last of its response",
            |one| &one.duration,
        ),
        (
            "gen_ai_server_time_to_first_token_seconds",
            "From the first byte of a request to the first token, or to the response head",
            |one| &one.first_token,
        ),
        (
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time between the output tokens of one streamed response",
            |one| &one.output_token,
        ),
    ];
    for (name, help, of) in families {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (key, list) in series {
            Merged::of(list, of).encode(family.encode_family(&labels(key))?)?;
        }
    }
    Ok(())
}

type CountOf = fn(&Counted) -> &AtomicU64;

/// Name, help and where it is counted.
const COUNTERS: [(&str, &str, CountOf); 8] = [
    (
        "penstock_connections",
        "Client connections accepted",
        |one| &one.connections,
    ),
    (
        "penstock_retries",
        "Requests tried again on another endpoint",
        |one| &one.retries,
    ),
    (
        "penstock_refused_heads",
        "Request heads that HTTP/1.1 forbids",
        |one| &one.refused,
    ),
    ("penstock_panics", "Connections ended by a panic", |one| {
        &one.panics
    }),
    (
        "penstock_http2_floods",
        "HTTP/2 connections closed for floods: frames, heads, resets or windows beyond what is bounded",
        |one| &one.floods,
    ),
    (
        "penstock_tls_handshakes_failed",
        "TLS handshakes with clients that failed, were late or were turned away",
        |one| &one.handshakes_failed,
    ),
    (
        "penstock_mirrored_requests",
        "Copies of requests sent to mirrors",
        |one| &one.mirrored,
    ),
    (
        "penstock_mirrors_dropped",
        "Copies that were not sent: no endpoint, or too many under way",
        |one| &one.mirrors_dropped,
    ),
];

fn process(encoder: &mut DescriptorEncoder<'_>, workers: &[Arc<Counted>]) -> fmt::Result {
    for (name, help, of) in COUNTERS {
        let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        Count(total(workers, of)).encode(family)?;
    }
    let help = "Client connections open";
    let family =
        encoder.encode_descriptor("penstock_connections_open", help, None, MetricType::Gauge)?;
    Level(total(workers, |one| &one.connections_open) as f64).encode(family)?;
    type HistogramOf = fn(&Counted) -> &Histogram;
    let histograms: [(&str, &str, HistogramOf); 2] = [
        (
            "penstock_overhead_seconds",
            "From the complete request to its last byte sent to an endpoint, without queueing",
            |one| &one.overhead,
        ),
        (
            "penstock_queue_seconds",
            "Time that queued requests waited",
            |one| &one.queued,
        ),
    ];
    for (name, help, of) in histograms {
        let family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        Merged::of(workers, of).encode(family)?;
    }
    Ok(())
}
