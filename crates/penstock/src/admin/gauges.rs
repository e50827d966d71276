//! Levels that are read when somebody scrapes: pools, queues, log and memory.
//!
//! Names of pool levels are the inference extension's, exactly.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use proxy::{EndpointView, PickerView, PoolView, Proxy};
use std::fmt;
use std::sync::Arc;

/// Reads the proxy's pools at every scrape.
#[derive(Debug)]
pub(super) struct Gauges(pub(super) Arc<Proxy>);

type OfPool = fn(&PoolView) -> f64;
type OfEndpoint = fn(&EndpointView) -> f64;

/// The mean over the endpoints that have reported.
fn average(pool: &PoolView, of: impl Fn(&EndpointView) -> Option<f32>) -> f64 {
    let known: Vec<f64> = pool
        .endpoints
        .iter()
        .filter_map(|one| of(one).map(f64::from))
        .collect();
    if known.is_empty() {
        0.0
    } else {
        known.iter().sum::<f64>() / known.len() as f64
    }
}

/// Not ejected, nor on trial.
fn serves(health: &str) -> bool {
    health == "up" || health.starts_with("suspect")
}

const POOL: [(&str, &str, OfPool); 8] = [
    (
        "inference_pool_average_queue_size",
        "Requests waiting in the engines, mean over the pool",
        |pool| average(pool, |one| one.state.reported?.waiting),
    ),
    (
        "inference_pool_average_kv_cache_utilization",
        "Used share of the KV caches, 0 to 1, mean over the pool",
        |pool| average(pool, |one| one.state.reported?.kv_used),
    ),
    (
        "inference_pool_average_running_requests",
        "Requests running in the engines, mean over the pool",
        |pool| average(pool, |one| one.state.reported?.running),
    ),
    ("inference_pool_ready_pods", "Members of the pool", |pool| {
        pool.endpoints.len() as f64
    }),
    (
        "penstock_pool_saturation",
        "0 is idle, 1 and more is saturated",
        |pool| f64::from(pool.saturation),
    ),
    (
        "penstock_queue_requests",
        "Requests that wait for a turn",
        |pool| pool.queued_requests as f64,
    ),
    (
        "penstock_queue_bytes",
        "Bytes held by requests that wait",
        |pool| pool.queued_bytes as f64,
    ),
    (
        "penstock_prefix_index_bytes",
        "Memory of the prefix index",
        |pool| pool.prefix_bytes as f64,
    ),
];

const ENDPOINT: [(&str, &str, OfEndpoint); 2] = [
    (
        "penstock_endpoint_in_flight",
        "Own requests at the endpoint",
        |one| f64::from(one.state.in_flight),
    ),
    (
        "penstock_endpoint_healthy",
        "0 while the endpoint is held for broken",
        |one| f64::from(u8::from(serves(&one.state.health))),
    ),
];

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let views = self.0.live().views();
        for (name, help, of) in POOL {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for pool in views.iter().filter(|pool| pool.inference) {
                let labels = [("name", pool.name.as_str())];
                ConstGauge::new(of(pool)).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, of) in ENDPOINT {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (pool, one) in views
                .iter()
                .flat_map(|pool| pool.endpoints.iter().map(move |one| (pool, one)))
            {
                let labels = [("pool", pool.name.as_str()), ("endpoint", &*one.state.name)];
                ConstGauge::new(of(one)).encode(family.encode_family(&labels)?)?;
            }
        }
        probes(&views, &mut encoder)?;
        pickers(&views, &mut encoder)?;
        self.process(&mut encoder)?;
        self.memory(&mut encoder)
    }
}

fn probes(views: &[PoolView], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "Own requests to endpoints that cut answers or turned slow, by what became of them";
    let name = "penstock_probes";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for pool in views.iter().filter(|pool| pool.inference) {
        for (outcome, count) in pool.probes {
            let labels = [("name", pool.name.as_str()), ("outcome", outcome)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// Times to picks, as one histogram.
struct Picks<'a>(&'a PickerView);

impl EncodeMetric for Picks<'_> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let picks = &self.0.picks;
        let count = picks.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(self.0.pick_seconds, count, picks, None)
    }
    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn pickers(views: &[PoolView], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let asked = || {
        let views = views.iter();
        views.filter_map(|pool| Some((pool.name.as_str(), pool.picker.as_ref()?)))
    };
    let help = "Requests about which an external endpoint picker was asked, by what became of that";
    let name = "penstock_picker_requests";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (name, picker) in asked() {
        for (outcome, count) in picker.requests {
            let labels = [("name", name), ("outcome", outcome)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    let help = "Time that external endpoint pickers took to pick";
    let name = "penstock_picker_pick_seconds";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (name, picker) in asked() {
        Picks(picker).encode(family.encode_family(&[("name", name)])?)?;
    }
    let help = "0 while an address of an external endpoint picker is not asked";
    let name = "penstock_picker_healthy";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (name, picker) in asked() {
        for (address, is_up) in &picker.addresses {
            let address = address.to_string();
            let labels = [("name", name), ("address", address.as_str())];
            let up = f64::from(u8::from(*is_up));
            ConstGauge::new(up).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

impl Gauges {
    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let log = self.0.log();
        let counters = [
            (
                "penstock_access_log_lines",
                "Access-log lines written",
                log.written(),
            ),
            (
                "penstock_access_log_dropped",
                "Access-log lines dropped",
                log.dropped(),
            ),
        ];
        for (name, help, value) in counters {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(family)?;
        }
        let gauges = [
            (
                "penstock_config_version",
                "Applied configurations",
                self.0.live().version,
            ),
            (
                "penstock_snapshots_alive",
                "Configurations still in memory",
                self.0.alive(),
            ),
            (
                "penstock_decisions_bytes",
                "Memory of recorded decisions",
                self.0.decisions().bytes() as u64,
            ),
        ];
        for (name, help, value) in gauges {
            let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value as f64).encode(family)?;
        }
        Ok(())
    }

    fn memory(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let memory = self.0.memory();
        let help = "Memory by what it is held for; /debug/memory has more";
        let mut family =
            encoder.encode_descriptor("penstock_memory_bytes", help, None, MetricType::Gauge)?;
        for holder in &memory.holders {
            let labels = [("holder", holder.name)];
            ConstGauge::new(holder.bytes as f64).encode(family.encode_family(&labels)?)?;
        }
        let help = "Memory that may be held; 0 where there is no limit";
        let name = "penstock_memory_limit_bytes";
        let family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(memory.limit.unwrap_or_default() as f64).encode(family)?;
        let help = "Requests and answers that there was no memory for";
        let name = "penstock_memory_refusals";
        let family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(memory.refusals).encode(family)
    }
}
