//! A reservation at an endpoint, held by a request from the pick to the end of its stream.
//!
//! The lease shrinks at the first token and settles exactly once: by `settle`, or when it is
//! dropped (the client left, a task was cancelled), which counts as cancelled. So the books of the
//! picker are exact whatever happens to a connection.

use super::{Endpoint, Pool, Step};
use crate::clock;
use picker::{Arrival, Outcome, Reservation, Ticket};
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// A reservation that has not been settled.
#[derive(Debug)]
pub(crate) struct Lease<'p> {
    pool: Lent<'p, Pool>,
    reservation: Option<Reservation>,
    /// Where it is; `None` once it was taken, or when it left while its request waited.
    endpoint: Option<Lent<'p, Endpoint>>,
    shrunk: bool,
}

/// Something shared that is borrowed from a request, or had for itself.
#[derive(Debug)]
pub(crate) enum Lent<'p, T> {
    Borrowed(&'p Arc<T>),
    Own(Arc<T>),
}

impl<T> Lent<'_, T> {
    fn own(&self) -> Arc<T> {
        match self {
            Self::Borrowed(one) => Arc::clone(one),
            Self::Own(one) => one.clone(),
        }
    }
}

impl<T> Deref for Lent<'_, T> {
    type Target = Arc<T>;
    fn deref(&self) -> &Arc<T> {
        match self {
            Self::Borrowed(one) => one,
            Self::Own(one) => one,
        }
    }
}

/// An outcome of a request that nobody waits for any more.
pub(crate) fn cancelled() -> Outcome {
    Outcome {
        result: picker::Finished::Cancelled,
        prompt_tokens: 0,
        cached_tokens: None,
        completion_tokens: 0,
    }
}

impl<'p> Lease<'p> {
    pub(super) fn new(
        pool: &'p Arc<Pool>,
        reservation: Reservation,
        endpoint: Option<Lent<'p, Endpoint>>,
    ) -> Self {
        Self {
            pool: Lent::Borrowed(pool),
            reservation: Some(reservation),
            endpoint,
            shrunk: false,
        }
    }

    /// The same lease, for longer than the request that asked for it.
    pub(crate) fn own(mut self) -> Lease<'static> {
        Lease {
            pool: Lent::Own(self.pool.own()),
            reservation: self.reservation.take(),
            endpoint: self.endpoint.take().map(|one| Lent::Own(one.own())),
            shrunk: self.shrunk,
        }
    }

    /// The endpoint, which nobody but the first who asks gets.
    pub(crate) fn take_endpoint(&mut self) -> Option<Lent<'p, Endpoint>> {
        self.endpoint.take()
    }

    /// The first token has come: the prefill is done.
    pub(crate) fn first_token(&mut self) {
        let Some(reservation) = self.reservation else {
            return;
        };
        if !std::mem::replace(&mut self.shrunk, true) {
            let now = clock::coarse();
            self.pool.act(|state| state.first_token(now, reservation));
        }
    }

    /// The request has ended, at the time that was just asked for.
    pub(crate) fn settle(mut self, outcome: Outcome) {
        if let Some(reservation) = self.reservation.take() {
            let now = clock::coarse();
            self.pool
                .act(|state| state.finish(now, reservation, outcome));
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(reservation) = self.reservation.take() {
            let now = clock::now();
            self.pool
                .act(|state| state.finish(now, reservation, cancelled()));
        }
    }
}

/// A place in the pool's queue; dropped, it is given up.
#[derive(Debug)]
pub(crate) struct Waiting<'p> {
    pool: &'p Arc<Pool>,
    ticket: Ticket,
    receiver: oneshot::Receiver<Arrival>,
    done: bool,
}

impl<'p> Waiting<'p> {
    pub(super) fn new(
        pool: &'p Arc<Pool>,
        ticket: Ticket,
        receiver: oneshot::Receiver<Arrival>,
    ) -> Self {
        Self {
            pool,
            ticket,
            receiver,
            done: false,
        }
    }

    /// Ready when it is this request's turn, or it is refused.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Step<'p>> {
        let received = std::task::ready!(std::pin::Pin::new(&mut self.receiver).poll(cx));
        self.done = true;
        Poll::Ready(match received {
            Ok(Arrival::Go(decision)) => {
                let endpoint = self.pool.endpoint(decision.winner).map(Lent::Own);
                self.pool.go(decision, endpoint)
            }
            Ok(Arrival::Refuse(why)) => Step::Refuse(why),
            Ok(Arrival::Wait(_)) | Err(_) => Step::Refuse(picker::Why::no_endpoints()),
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        self.pool.waiting.lock().remove(&self.ticket);
        match self.receiver.try_recv() {
            // The turn came at this very moment.
            Ok(Arrival::Go(decision)) => {
                drop(Lease::new(self.pool, decision.reservation, None));
            }
            _ => {
                let (now, ticket) = (clock::now(), self.ticket);
                self.pool.act(|state| {
                    state.cancel(now, ticket);
                    Vec::new()
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Resolved, Seen};
    use super::*;
    use picker::{Ask, EndpointId, Held, PoolSpec, Subsets};
    use std::sync::OnceLock;

    /// The endpoints have all come later.
    static NOTHING_SEEN: OnceLock<Seen> = OnceLock::new();

    /// A pool of one server, which is saturated by one request.
    fn pool() -> (Arc<Pool>, EndpointId) {
        let spec = PoolSpec {
            saturation_seconds: 0.01,
            ..PoolSpec::default()
        };
        let pool = Arc::new(Pool::new(spec, true, 1, Arc::default()));
        let member = Resolved {
            key: "one".to_owned(),
            name: "one".to_owned(),
            address: ([127, 0, 0, 1], 9).into(),
            subsets: Subsets::NONE,
        };
        let added = pool.sync(&[member]);
        (pool, added[0].id)
    }

    fn arrive(pool: &Arc<Pool>) -> Step<'_> {
        let none = Held::default();
        let ask = Ask {
            model: "llama",
            targets: &[],
            prompt_tokens: 100_000,
            max_tokens: None,
            held: &none,
            blocks: 0,
            priority: 0,
            body_bytes: 1,
            exclude: &[],
            subsets: Subsets::NONE,
            is_retry: false,
            streams: true,
        };
        pool.arrive(&ask, NOTHING_SEEN.get_or_init(Seen::default))
    }

    fn go(pool: &Arc<Pool>) -> Lease<'_> {
        match arrive(pool) {
            Step::Go(lease, _) => lease,
            other => panic!("{other:?}"),
        }
    }

    fn wait(pool: &Arc<Pool>) -> Waiting<'_> {
        match arrive(pool) {
            Step::Wait(waiting) => waiting,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_dropped_is_given_back_whatever_came_before() {
        let (pool, id) = pool();
        let in_flight = || pool.state.lock().in_flight(id);
        let lease = go(&pool);
        assert_eq!(in_flight(), 1);
        drop(lease);
        assert_eq!(in_flight(), 0, "before its first token");
        let mut lease = go(&pool);
        lease.first_token();
        drop(lease);
        assert_eq!(in_flight(), 0, "after it");
        let lease = go(&pool);
        lease.settle(cancelled());
        assert_eq!(in_flight(), 0, "settled, and not once more");
    }

    #[tokio::test]
    async fn who_leaves_at_the_moment_of_its_turn_hands_it_on() {
        let (pool, id) = pool();
        let lease = go(&pool);
        let (first, second) = (wait(&pool), wait(&pool));
        drop(lease);
        // It is the turn of the first, who has not seen it.
        assert_eq!(pool.memory().0, 1);
        drop(first);
        assert_eq!(pool.memory().0, 0);
        drop(second);
        assert_eq!(pool.state.lock().in_flight(id), 0);
        drop((go(&pool), wait(&pool)));
        assert_eq!(pool.state.lock().in_flight(id), 0);
        assert_eq!(pool.memory().0, 0);
    }
}
