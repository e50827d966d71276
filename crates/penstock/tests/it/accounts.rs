//! The counters of every gateway that a test runs: they add up, and nothing stays counted as under
//! way. That they add up is looked at whenever a gateway goes, so after every drill.

use crate::gateway::{DEADLINE, get, wait_until};
use crate::servers::json;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the picker holds for leases at an endpoint.
const LEASED: &[&str] = &[
    "in_flight",
    "prefilling",
    "prefilling_tokens",
    "kv_tokens_in_flight",
];

const OUTCOMES: [&str; 5] = [
    "ok",
    "client_error",
    "client_gone",
    "gateway_error",
    "engine_error",
];

/// What one gateway counts. Dropped while the gateway runs, it looks at it once more.
#[derive(Debug)]
pub(crate) struct Accounts {
    admin: SocketAddr,
    has_log: bool,
}

/// The sum of a metric over the series whose labels contain `part`; 0 when it is not there.
pub(crate) fn sum(page: &str, name: &str, part: &str) -> f64 {
    page.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with([' ', '{']) && rest.contains(part))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

impl Accounts {
    /// Those of what `command` starts.
    pub(crate) fn of(command: &Command, admin: SocketAddr) -> Self {
        Self {
            admin,
            has_log: !command.get_args().any(|arg| arg == "off"),
        }
    }

    fn page(&self) -> String {
        get(self.admin, "/metrics").unwrap().body
    }

    pub(crate) fn metric(&self, name: &str, part: &str) -> f64 {
        sum(&self.page(), name, part)
    }

    /// Every number of the books that must be zero when nothing is under way, and is not.
    pub(crate) fn under_way(&self) -> Vec<(String, f64)> {
        let gauges = [
            "penstock_endpoint_in_flight",
            "penstock_queue_requests",
            "penstock_queue_bytes",
            "penstock_connections_open",
            "penstock_pool_saturation",
        ];
        let page = self.page();
        let mut all: Vec<(String, f64)> = gauges
            .iter()
            .map(|name| ((*name).to_owned(), sum(&page, name, "")))
            .collect();
        let pools = json(&get(self.admin, "/debug/pools").unwrap().body);
        for pool in pools.as_array().unwrap() {
            for key in ["queued_requests", "queued_bytes"] {
                all.push((key.to_owned(), pool[key].as_f64().unwrap()));
            }
            for endpoint in pool["endpoints"].as_array().unwrap() {
                for key in LEASED {
                    all.push(((*key).to_owned(), endpoint[key].as_f64().unwrap()));
                }
            }
        }
        all.retain(|(_, value)| *value != 0.0);
        all
    }

    /// Nothing waits and nothing is in flight any more, and all that ended is accounted for.
    #[track_caller]
    pub(crate) fn is_quiet(&self) {
        wait_until(|| {
            let page = self.page();
            let level = |name| sum(&page, name, "");
            level("penstock_endpoint_in_flight") == 0.0
                && level("penstock_queue_requests") == 0.0
                && level("penstock_queue_bytes") == 0.0
        });
        assert_eq!(self.metric("penstock_panics_total", ""), 0.0);
        self.add_up();
    }

    /// Requests counted are requests by outcome, are requests timed, are lines of the log with those
    /// that it could not take. Lines are handed over a moment later.
    #[track_caller]
    fn add_up(&self) {
        let until = Instant::now() + DEADLINE;
        while let Some(doubt) = get(self.admin, "/metrics").and_then(|page| self.doubt(&page.body))
        {
            assert!(Instant::now() < until, "{doubt}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn doubt(&self, page: &str) -> Option<String> {
        let counted = sum(page, "penstock_requests_total", "");
        let outcome = |name| {
            sum(
                page,
                "penstock_requests_total",
                &format!("outcome=\"{name}\""),
            )
        };
        let by_outcome: f64 = OUTCOMES.into_iter().map(outcome).sum();
        let timed = sum(page, "gen_ai_server_request_duration_seconds_count", "");
        let lines = sum(page, "penstock_access_log_lines_total", "");
        let dropped = sum(page, "penstock_access_log_dropped_total", "");
        let logged = if self.has_log { counted } else { 0.0 };
        let adds_up = by_outcome == counted && timed == counted && lines + dropped == logged;
        (!adds_up).then(|| {
            format!(
                "{counted} requests, {by_outcome} by outcome, {timed} timed, \
                {lines} lines and {dropped} dropped"
            )
        })
    }
}

impl Drop for Accounts {
    fn drop(&mut self) {
        // One panic is enough. A process that has ended has no counters.
        if !std::thread::panicking() {
            self.add_up();
        }
    }
}
