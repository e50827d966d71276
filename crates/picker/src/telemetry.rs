//! What an engine's reports say beside our own books: the load that others put on it.
//!
//! Foreign load is what was reported less what we had in flight then, never below 0. It is believed
//! for [`FRESH_SECONDS`] and fades to the pool's median by [`FADED_SECONDS`], so silence never makes
//! a server look idle. A report that contradicts our own streams (all zero, or unchanged while
//! requests came and went) counts as silence too.

use crate::micros::Micros;
use crate::observation::Report;

/// A report counts in full until this age, in seconds.
pub(crate) const FRESH_SECONDS: f32 = 2.0;
/// At this age, in seconds, nothing of it is left.
const FADED_SECONDS: f32 = 30.0;
/// Booked KV tokens below which a report says nothing of the [`KvShare`].
const SHARE_FROM_TOKENS: u64 = 1024;
/// Share of a KV cache that is not taken for foreign load: what the estimate may be wrong by.
const KV_NOISE: f32 = 0.05;

/// How much of the booked KV tokens is really used: prefixes are shared, and what waits in the
/// engine's queue uses none. One figure for the pool, so that equal bookings stay equal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct KvShare(f32);

impl Default for KvShare {
    fn default() -> Self {
        Self(1.0)
    }
}

impl KvShare {
    /// Weight of the newest report.
    const WEIGHT: f32 = 0.1;
    /// Requests that share all of a prompt still have their outputs.
    const LEAST: f32 = 0.05;

    fn learn(&mut self, used_tokens: f32, booked: u64) {
        if booked >= SHARE_FROM_TOKENS {
            let share = (used_tokens / booked as f32).clamp(Self::LEAST, 1.0);
            self.0 += (share - self.0) * Self::WEIGHT;
        }
    }

    fn of(self, booked: u64) -> f32 {
        booked as f32 * self.0
    }
}

/// The own numbers of an endpoint when a report comes in.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Own {
    pub(crate) in_flight: u32,
    pub(crate) prefilling: u32,
    pub(crate) kv_tokens: u64,
}

/// What only reports tell: requests of others in the engine's queue, requests of others that it
/// computes, and how full it is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Foreign {
    pub(crate) waiting: f32,
    pub(crate) running: f32,
    /// Share of all sequences that one place is, when the engine computes as many as it can; else
    /// 0. A place becomes free after this share of the time that a sequence takes.
    pub(crate) per_seat: f32,
}

/// What the last report said.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Said {
    pub(crate) running: Option<f32>,
    pub(crate) waiting: Option<f32>,
    pub(crate) kv_used: Option<f32>,
}

/// The reports of one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Telemetry {
    pub(crate) said: Said,
    /// Size of the KV cache, in tokens.
    pub(crate) kv_capacity: Option<u64>,
    /// When a report was last believed.
    pub(crate) believed_at: Option<Micros>,
    /// Reports since then that failed or were not believed.
    pub(crate) failures: u32,
    foreign: Foreign,
    foreign_kv_tokens: f32,
    most_running: f32,
    /// The engine computes as many sequences as it can.
    full: bool,
    /// Most own requests at a time since the last report.
    peak_in_flight: u32,
    /// Own requests that came or ended since the last report.
    events: u32,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            said: Said::default(),
            kv_capacity: None,
            believed_at: None,
            failures: 0,
            foreign: Foreign::default(),
            foreign_kv_tokens: 0.0,
            most_running: 0.0,
            full: false,
            peak_in_flight: 0,
            events: 0,
        }
    }
}

impl Telemetry {
    /// An own request came or ended; `in_flight` remain.
    pub(crate) fn own_event(&mut self, in_flight: u32) {
        self.peak_in_flight = self.peak_in_flight.max(in_flight);
        self.events = self.events.saturating_add(1);
    }

    /// The metrics could not be had.
    pub(crate) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Takes in a report, if it can be believed.
    pub(crate) fn report(&mut self, now: Micros, report: &Report, own: Own, share: &mut KvShare) {
        let sane = |value: Option<f32>| value.filter(|value| value.is_finite() && *value >= 0.0);
        let said = Said {
            running: sane(report.running),
            waiting: sane(report.waiting),
            kv_used: sane(report.kv_used).map(|used| used.min(1.0)),
        };
        if let Some(tokens) = report.kv_tokens.filter(|tokens| *tokens > 0) {
            self.kv_capacity = Some(tokens);
        }
        if self.contradicts(&said, own) {
            self.failed();
            return;
        }
        self.note_full(&said);
        self.note_foreign(&said, own);
        self.note_kv(&said, own.kv_tokens, share);
        self.said = said;
        self.believed_at = Some(now);
        self.failures = 0;
        self.peak_in_flight = own.in_flight;
        self.events = 0;
    }

    /// An engine that streams to us runs something, and its numbers move as requests come and go.
    fn contradicts(&self, said: &Said, own: Own) -> bool {
        let streaming = own.in_flight.saturating_sub(own.prefilling);
        let all_zero = said.running == Some(0.0) && said.waiting.unwrap_or(0.0) == 0.0;
        let unmoved = self.believed_at.is_some() && *said == self.said;
        (all_zero && streaming > 0) || (unmoved && self.events > 0 && own.in_flight > 0)
    }

    /// Full: requests wait and no more are taken in, twice in a row, near the most ever seen.
    fn note_full(&mut self, said: &Said) {
        let (Some(running), Some(waiting)) = (said.running, said.waiting) else {
            return;
        };
        let before = self.said;
        let stuck = before.waiting.is_some_and(|waiting| waiting >= 1.0)
            && before.running.is_some_and(|before| running <= before);
        self.most_running = self.most_running.max(running);
        let near_most = running >= 1.0 && running >= 0.9 * self.most_running;
        self.full = waiting >= 1.0 && near_most && (stuck || self.full);
        self.foreign.per_seat = if self.full { 1.0 / running } else { 0.0 };
    }

    fn note_foreign(&mut self, said: &Said, own: Own) {
        if said.running.is_none() && said.waiting.is_none() {
            return;
        }
        let (running, waiting) = (said.running.unwrap_or(0.0), said.waiting.unwrap_or(0.0));
        // The engine's numbers are older than ours: requests that ended since are still in them.
        let ours = self.peak_in_flight.max(own.in_flight) as f32;
        let total = (running + waiting - ours).max(0.0);
        let foreign_waiting = (waiting - own.prefilling as f32).max(0.0).min(total);
        self.foreign.waiting = foreign_waiting;
        self.foreign.running = total - foreign_waiting;
    }

    fn note_kv(&mut self, said: &Said, booked: u64, share: &mut KvShare) {
        let (Some(used), Some(capacity)) = (said.kv_used, self.kv_capacity) else {
            return;
        };
        let used_tokens = used * capacity as f32;
        share.learn(used_tokens, booked);
        let noise = KV_NOISE * capacity as f32;
        self.foreign_kv_tokens = (used_tokens - share.of(booked) - noise).max(0.0);
    }

    /// Age of the last report that was believed, in seconds.
    pub(crate) fn age_seconds(&self, now: Micros) -> Option<f32> {
        self.believed_at.map(|at| now.seconds_since(at))
    }

    /// How far the last report counts at `now`: 1 for a fresh report, 0 for none.
    pub(crate) fn belief(&self, now: Micros) -> f32 {
        match self.age_seconds(now) {
            None => 0.0,
            Some(age) if age <= FRESH_SECONDS => 1.0,
            Some(age) => {
                let faded = (age - FRESH_SECONDS) / (FADED_SECONDS - FRESH_SECONDS);
                (1.0 - faded).max(0.0)
            }
        }
    }

    pub(crate) fn is_fresh(&self, now: Micros) -> bool {
        self.age_seconds(now)
            .is_some_and(|age| age <= FRESH_SECONDS)
    }

    /// Load of others, as far as the report is believed; `median` is that of the pool's members.
    pub(crate) fn foreign(&self, belief: f32, median: Foreign) -> Foreign {
        if belief == 0.0 {
            return median;
        }
        if belief == 1.0 {
            return self.foreign;
        }
        let fade = |last: f32, median: f32| last * belief + median * (1.0 - belief);
        Foreign {
            waiting: fade(self.foreign.waiting, median.waiting),
            running: fade(self.foreign.running, median.running),
            per_seat: fade(self.foreign.per_seat, median.per_seat),
        }
    }

    /// Load of others by the last report that was believed.
    pub(crate) fn last_foreign(&self) -> Foreign {
        self.foreign
    }

    /// KV tokens that all requests are expected to fill, when `own` are booked.
    pub(crate) fn kv_tokens(&self, belief: f32, own: u64, share: KvShare) -> f32 {
        share.of(own) + self.foreign_kv_tokens * belief
    }
}
