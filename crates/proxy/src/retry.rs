//! When a failed request goes to another endpoint.
//!
//! Without a word of the route only for InferencePools, at most [`MOST_RETRIES`] times, and only
//! while nothing of the answer went to the client and the request is held. Such a retry that may
//! repeat work at an engine draws on a budget of a fifth of the pool's requests, so that retries
//! cannot multiply an overload; one after a failed connect, or after a close before any response
//! byte, is free. A route that sets retries says itself how many, for which statuses and how far
//! apart (GEP-1731).

use crate::exchange::Exchange;
use crate::failure::{Cause, Failure, Retry};
use crate::pool::Pool;
use config::RouteRetry;
use picker::EndpointId;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

const MOST_RETRIES: usize = 2;
/// Endpoints that may turn out to be gone, beside those tries.
const MOST_GONE: usize = 8;
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
    if x.response.is_bound() || tries_are_over(x, failure) {
        return false;
    }
    if let Some(retry) = of_route(x) {
        return match failure.cause {
            Cause::EngineStatus { status } | Cause::EngineErrorFirst { status } => {
                retry.codes.contains(&status)
            }
            cause => cause.row().retry != Retry::Never,
        };
    }
    if !pool.inference {
        return false;
    }
    match failure.cause.row().retry {
        Retry::Never => false,
        Retry::Free => true,
        Retry::Budgeted => pool.budget.spend(),
    }
}

/// Whether the request has gone to as many endpoints as it may, after this failure of the latest.
/// One that closed a kept connection on it may get it twice: that is one try.
fn tries_are_over(x: &Exchange, latest: &Failure) -> bool {
    let most = of_route(x).map_or(MOST_RETRIES, |retry| retry.attempts as usize);
    // Nobody has seen a request whose connection failed; when many servers go at once, such tries
    // must not use up the others.
    let reached = |failure: &&Failure| failure.cause != Cause::ConnectFailed;
    let earlier = x.attempts.iter().filter_map(|one| one.failure.as_ref());
    let sent = earlier.chain([latest]).filter(reached).count() + x.sent_to_gone;
    sent > most || x.attempts.len() > most + MOST_GONE
}

/// What the request's route says about retries, if it does.
pub(crate) fn of_route(x: &Exchange) -> Option<&RouteRetry> {
    x.rule.as_ref().and_then(|rule| rule.retry.as_ref())
}

/// Whether another try may have a better answer than one with this status. `has_another`: there is
/// an endpoint that was not tried.
pub(crate) fn may_be_better(x: &Exchange, status: u16, has_another: bool) -> bool {
    match of_route(x) {
        Some(retry) => retry.codes.contains(&status),
        None => is_engine_trouble(status) && has_another,
    }
}

/// Statuses of an engine that another engine may answer better.
fn is_engine_trouble(status: u16) -> bool {
    matches!(status, 429 | 500 | 502 | 503 | 504)
}

/// Endpoints that the next try leaves out: those tried, unless a route's retries go around again.
pub(crate) fn left_out(pool: &Pool, x: &Exchange) -> Vec<EndpointId> {
    let again = of_route(x).is_some() && x.attempts.len() >= pool.endpoint_count();
    let tried = x.attempts.iter().map(|attempt| attempt.endpoint);
    if again { Vec::new() } else { tried.collect() }
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
