//! Whether an address of a picker is worth asking: passive, from what asking it led to.
//!
//! After [`MOST_FAILURES`] failures in a row it is passed over for a second, then for twice as long
//! after each further failure, up to [`LONGEST`]. When the time is over, one request tries it.

use picker::Micros;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const MOST_FAILURES: u32 = 3;
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Failures in a row, and until when it is passed over.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    open_until: AtomicU64,
}

impl Breaker {
    /// Whether to ask now. Who is told so after the breaker was open is the only one for a while.
    pub(super) fn admits(&self, now: Micros) -> bool {
        let until = self.open_until.load(Relaxed);
        if until == 0 {
            return true;
        }
        let next = (now + FIRST).0;
        now.0 >= until
            && self
                .open_until
                .compare_exchange(until, next, Relaxed, Relaxed)
                .is_ok()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.open_until.load(Relaxed) == 0
    }

    pub(super) fn succeeded(&self) {
        // Mostly nothing changes: no write to memory that all workers share.
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.open_until.store(0, Relaxed);
        }
    }

    pub(super) fn failed(&self, now: Micros) {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        let Some(beyond) = failures.checked_sub(MOST_FAILURES) else {
            return;
        };
        let wait = FIRST.saturating_mul(1 << beyond.min(5)).min(LONGEST);
        self.open_until.store((now + wait).0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_tries_one_request_at_a_time() {
        let breaker = Breaker::default();
        let mut now = Micros(1);
        breaker.failed(now);
        breaker.failed(now);
        breaker.succeeded();
        breaker.failed(now);
        breaker.failed(now);
        assert!(breaker.admits(now), "two in a row");
        breaker.failed(now);
        assert!(!breaker.admits(now) && !breaker.is_closed());
        now = now + FIRST;
        assert!(breaker.admits(now), "a trial");
        assert!(!breaker.admits(now), "only one");
        breaker.failed(now);
        assert!(!breaker.admits(now + FIRST), "twice as long");
        for _ in 0..40 {
            breaker.failed(now);
        }
        assert!(breaker.admits(now + LONGEST), "no mark for ever");
        breaker.succeeded();
        assert!(breaker.admits(now) && breaker.is_closed());
    }
}
