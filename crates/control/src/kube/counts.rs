//! What the controller counts, for `/metrics`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters of one controller, from its start.
#[derive(Debug, Default)]
pub struct Counts {
    pub(super) compilations: AtomicU64,
    pub(super) compile_us: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) writes_failed: AtomicU64,
    pub(super) gateways: AtomicU64,
    pub(super) objects: AtomicU64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Relaxed);
    }

    /// As Prometheus reads it.
    pub fn text(&self, leads: bool) -> String {
        let seconds = self.compile_us.load(Relaxed) as f64 / 1e6;
        let whole = |counter: &AtomicU64| counter.load(Relaxed).to_string();
        let rows = [
            (
                "penstock_controller_leads",
                "gauge",
                "1 if this replica writes",
                u64::from(leads).to_string(),
            ),
            (
                "penstock_controller_gateways",
                "gauge",
                "Gateways of ours",
                whole(&self.gateways),
            ),
            (
                "penstock_controller_objects",
                "gauge",
                "Objects that the compiler reads",
                whole(&self.objects),
            ),
            (
                "penstock_controller_compilations_total",
                "counter",
                "Times that everything was compiled",
                whole(&self.compilations),
            ),
            (
                "penstock_controller_compile_seconds_total",
                "counter",
                "Time spent in that",
                seconds.to_string(),
            ),
            (
                "penstock_controller_writes_total",
                "counter",
                "Writes to the API server",
                whole(&self.writes),
            ),
            (
                "penstock_controller_writes_failed_total",
                "counter",
                "Writes that failed, without conflicts",
                whole(&self.writes_failed),
            ),
        ];
        let mut text = String::new();
        for (name, kind, help, value) in rows {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
            );
        }
        text
    }
}
