//! Idle upstream connections of one worker: a stack per endpoint, the most recently used on top.
//!
//! A pooled connection is looked at when it is taken: an event on it (a close, or bytes that
//! nobody asked for) makes it useless. The look is a poll of the readiness that the runtime
//! already knows, so it costs no system call. Connections are dropped before usual servers
//! close them (`Limits::upstream_idle`), and the stacks are bounded.

use crate::socket::Socket;
use picker::Micros;
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::time::Duration;

/// Idle connections kept per endpoint and worker.
const MOST_PER_ENDPOINT: usize = 1024;

#[derive(Debug)]
struct Waiting {
    stream: Socket,
    since: Micros,
}

/// The idle connections of one worker, by endpoint.
#[derive(Debug, Default)]
pub(crate) struct Idle {
    stacks: RefCell<FxHashMap<u64, Vec<Waiting>>>,
    /// How long a connection may wait; set from the limits at the first return.
    most_idle: std::cell::Cell<Duration>,
}

impl Idle {
    /// A connection that looks alive, if there is one.
    pub(crate) fn take(&self, endpoint: u64) -> Option<Socket> {
        let mut stacks = self.stacks.borrow_mut();
        let stack = stacks.get_mut(&endpoint)?;
        while let Some(Waiting { stream, .. }) = stack.pop() {
            if stream.is_quiet() {
                return Some(stream);
            }
        }
        None
    }

    pub(crate) fn put(&self, endpoint: u64, stream: Socket, now: Micros, most_idle: Duration) {
        self.most_idle.set(most_idle);
        let mut stacks = self.stacks.borrow_mut();
        let stack = stacks.entry(endpoint).or_default();
        if stack.len() < MOST_PER_ENDPOINT {
            stack.push(Waiting { stream, since: now });
        }
    }

    /// Closes what has waited too long; called by the worker's tick.
    pub(crate) fn expire(&self, now: Micros) {
        let most = self.most_idle.get().as_micros() as u64;
        self.stacks.borrow_mut().retain(|_, stack| {
            // Oldest first: what is taken comes from the end.
            let old = stack
                .iter()
                .take_while(|one| now.0.saturating_sub(one.since.0) > most)
                .count();
            stack.drain(..old);
            !stack.is_empty()
        });
    }
}
