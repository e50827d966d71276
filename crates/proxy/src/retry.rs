//! When a failed request goes to another endpoint.
//!
//! Only for InferencePools, at most [`MOST_RETRIES`] times, and only while nothing of the answer
//! went to the client and the request is held. A retry that may repeat work at an engine draws on
//! a budget of a fifth of the pool's requests, so that retries cannot multiply an overload; one
//! after a failed connect, or after a close before any response byte, is free.

use crate::exchange::Exchange;
use crate::failure::{Failure, Retry};
use crate::pool::Pool;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

const MOST_RETRIES: usize = 2;
/// One retry per this many requests.
const REQUESTS_PER_RETRY: i64 = 5;
/// Retries that a quiet pool has saved up.
const MOST_SAVED: i64 = 10;

/// Credit for retries, counted in requests.
#[derive(Debug)]
pub(crate) struct Budget(AtomicI64);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicI64::new(MOST_SAVED * REQUESTS_PER_RETRY))
    }
}

impl Budget {
    /// A request was sent: a fifth of a retry more.
    pub(crate) fn earn(&self) {
        if self.0.load(Relaxed) < MOST_SAVED * REQUESTS_PER_RETRY {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn spend(&self) -> bool {
        let spent = self.0.fetch_update(Relaxed, Relaxed, |credit| {
            (credit >= REQUESTS_PER_RETRY).then(|| credit - REQUESTS_PER_RETRY)
        });
        spent.is_ok()
    }
}

/// Whether `failure` of the latest attempt may be tried elsewhere; takes from the budget if so.
pub(crate) fn allowed(pool: &Pool, x: &Exchange, failure: &Failure) -> bool {
    if !pool.inference || x.response.is_bound() || tries_are_over(x) {
        return false;
    }
    match failure.cause.row().retry {
        Retry::Never => false,
        Retry::Free => true,
        Retry::Budgeted => pool.budget.spend(),
    }
}

/// Whether the request was sent as often as it may be.
pub(crate) fn tries_are_over(x: &Exchange) -> bool {
    x.attempts.len() + x.resends > MOST_RETRIES
}

/// Statuses of an engine that another engine may answer better.
pub(crate) fn is_engine_trouble(status: u16) -> bool {
    matches!(status, 429 | 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_requests_may_be_retried() {
        let budget = Budget::default();
        let saved = (0..100).filter(|_| budget.spend()).count();
        assert_eq!(saved as i64, MOST_SAVED);
        let mut spent = 0;
        for _ in 0..100 {
            budget.earn();
            spent += i64::from(budget.spend());
        }
        assert_eq!(spent, 100 / REQUESTS_PER_RETRY);
    }
}
