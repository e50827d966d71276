//! Whether an endpoint still takes connections.
//!
//! A server that shuts down closes its listener first; it may then leave requests unanswered on open
//! connections for minutes. Its telemetry tries to connect all the time and sees that. One connection
//! that it takes clears the mark, whatever becomes of it: a server that has just started may be too
//! busy for its telemetry. So does one look at `/metrics` that comes through on a kept connection:
//! such a server drains.

use crate::clock;
use picker::Micros;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Since when connects are refused.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Microseconds; 0 while the endpoint is there, or nobody asks it.
    refused_since: AtomicU64,
}

impl Reach {
    /// The endpoint took a connection, or answered its telemetry.
    pub(crate) fn found(&self) {
        self.refused_since.store(0, Relaxed);
    }

    /// The endpoint refused a connection of its telemetry.
    pub(super) fn refused(&self) {
        let now = clock::now().0.max(1);
        // An earlier moment stays: since then it has refused all.
        let _ = self
            .refused_since
            .compare_exchange(0, now, Relaxed, Relaxed);
    }

    /// Whether it has refused connections for at least `time`.
    pub(crate) fn is_gone_for(&self, time: Duration) -> bool {
        let since = self.refused_since.load(Relaxed);
        since != 0 && clock::now() >= Micros(since) + time
    }
}
