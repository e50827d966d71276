//! Whether first tokens come when they are due: how an endpoint shows that it has turned slow.
//!
//! A first token is late when a cold cache and all the work ahead explain only a third of the wait;
//! where several are waited for, they count before they come. That proves something only of an
//! endpoint that used to be in time, and only while others still are.

use crate::micros::Micros;

/// How many times the predicted wait for a first token is not late yet, and how many seconds beside.
pub(crate) const LATE_TIMES: f32 = 3.0;
pub(crate) const LATE_SECONDS: f32 = 0.1;
/// First tokens in time that show that the predictions fit the endpoint.
const IN_TIME: u8 = 4;
/// Late first tokens in a row, or waits that are overdue at a time, that prove slowness.
const LATE: u8 = 2;

/// The first tokens of one endpoint, as far as their time can be told beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Pace {
    /// Requests without a first token that were sent since the last one came.
    waiting: u8,
    /// When the first of them was sent, and how long the last one may take.
    since: Micros,
    allowed_seconds: f32,
    heard_at: Micros,
    in_time: u8,
    late: u8,
    /// When the latest request was sent whose first token came in time.
    in_time_sent: Micros,
}

impl Pace {
    /// A request was sent whose first token is late after `allowed_seconds`.
    pub(crate) fn begin(&mut self, dispatched: Micros, allowed_seconds: f32) {
        if self.waiting == 0 {
            (self.since, self.allowed_seconds) = (dispatched, 0.0);
        }
        self.waiting = self.waiting.saturating_add(1);
        self.allowed_seconds = self.allowed_seconds.max(allowed_seconds);
    }

    /// It is waited for no more.
    pub(crate) fn end(&mut self, dispatched: Micros) {
        if dispatched >= self.heard_at {
            self.waiting = self.waiting.saturating_sub(1);
        }
    }

    /// Its first token came; `true` when that was too late for an endpoint that used to be in time.
    pub(crate) fn first_token(&mut self, now: Micros, dispatched: Micros, allowed: f32) -> bool {
        (self.waiting, self.heard_at) = (0, now);
        if now.seconds_since(dispatched) > allowed {
            return self.in_time >= IN_TIME;
        }
        self.in_time = self.in_time.saturating_add(1);
        self.late = 0;
        self.in_time_sent = self.in_time_sent.max(dispatched);
        false
    }

    /// A late first token was not due to what slows everybody; `true` when that proves slowness.
    pub(crate) fn note_late(&mut self) -> bool {
        self.late = self.late.saturating_add(1);
        self.late >= LATE
    }

    /// Since when, and from when on too long, several are waited for.
    pub(crate) fn overdue(&self) -> Option<(Micros, Micros)> {
        let counts = self.waiting >= LATE && self.in_time >= IN_TIME;
        counts.then(|| (self.since, self.since.plus_seconds(self.allowed_seconds)))
    }

    /// Whether a request that was sent at `since` or later got its first token in time.
    pub(crate) fn was_in_time(&self, since: Micros) -> bool {
        self.in_time > 0 && self.in_time_sent >= since
    }
}
