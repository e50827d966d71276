//! What the driver counts beside the engine's own counters: histograms of times, ends by reason,
//! and which adapters ran together and when, as vLLM reports them.

use sim::Micros;
use sim::engine::{AdapterId, Gauges};

/// Past combinations of adapters that are remembered.
const COMBINATIONS: usize = 32;

/// Why a generation ends, as the API says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The model had said everything.
    Stop,
    /// The client's limit or the model's context was reached.
    Length,
}

/// Cumulative histogram of seconds, with vLLM's bucket bounds.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum_micros: u64,
    total: u64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len()],
            sum_micros: 0,
            total: 0,
        }
    }

    pub(crate) fn add(&mut self, micros: u64) {
        let seconds = micros as f64 / 1e6;
        for (bound, count) in self.bounds.iter().zip(&mut self.counts) {
            *count += u64::from(seconds <= *bound);
        }
        self.sum_micros += micros;
        self.total += 1;
    }

    /// (upper bound in seconds, observations up to it), smallest bound first.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        self.bounds.iter().copied().zip(self.counts.iter().copied())
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn sum_seconds(&self) -> f64 {
        self.sum_micros as f64 / 1e6
    }
}

/// One combination of running and waiting adapters, and when it was seen last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Combination {
    pub(crate) running: Vec<AdapterId>,
    pub(crate) waiting: Vec<AdapterId>,
    pub(crate) seen: Micros,
}

/// Counts since the start.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    /// From submission to the first token.
    pub(crate) first_token: Histogram,
    /// Between two tokens.
    pub(crate) token_gap: Histogram,
    /// Mean time per token after the first, per request.
    pub(crate) per_token: Histogram,
    /// From submission to the end.
    pub(crate) whole: Histogram,
    pub(crate) stopped: u64,
    pub(crate) at_length: u64,
    pub(crate) combinations: Vec<Combination>,
}

impl Default for Observed {
    fn default() -> Self {
        const FIRST_TOKEN: &[f64] = &[
            0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
            10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
        ];
        const TOKEN: &[f64] = &[
            0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
            10.0, 20.0, 40.0, 80.0,
        ];
        const WHOLE: &[f64] = &[
            0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
            120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
        ];
        Self {
            first_token: Histogram::new(FIRST_TOKEN),
            token_gap: Histogram::new(TOKEN),
            per_token: Histogram::new(TOKEN),
            whole: Histogram::new(WHOLE),
            stopped: 0,
            at_length: 0,
            combinations: Vec::new(),
        }
    }
}

impl Observed {
    pub(super) fn finished(&mut self, ends: Ends, micros: u64) {
        match ends {
            Ends::Stop => self.stopped += 1,
            Ends::Length => self.at_length += 1,
        }
        self.whole.add(micros);
    }

    /// Remembers which adapters run now. As in vLLM past combinations stay: only the newest counts.
    pub(super) fn note_adapters(&mut self, gauges: &Gauges, now: Micros) {
        let Gauges {
            adapters_running: running,
            adapters_waiting: waiting,
            ..
        } = gauges;
        self.combinations
            .retain(|past| past.running != *running || past.waiting != *waiting);
        if self.combinations.len() >= COMBINATIONS {
            self.combinations.remove(0);
        }
        self.combinations.push(Combination {
            running: running.clone(),
            waiting: waiting.clone(),
            seen: now,
        });
    }
}
