//! Where a picker listens: the ready endpoints of its Service, taken in turn.
//!
//! An address that is not there, is silent or says that it does not serve is passed over while there
//! is another; marks of earlier failures (`breaker.rs`, `health.rs`) expire by themselves.

use super::Picker;
use super::breaker::Breaker;
use super::health;
use crate::clock;
use crate::pool::{Endpoint, Transport};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio_util::task::TaskTracker;

/// One address of a picker. Connections to it are per worker and outlive changes of the picker.
#[derive(Debug)]
pub(crate) struct Address {
    /// As the connections see it.
    pub(crate) endpoint: Endpoint,
    pub(super) breaker: Breaker,
    /// It says of itself that it does not serve.
    pub(super) refuses: AtomicBool,
}

impl Address {
    fn new(address: SocketAddr, transport: Arc<Transport>) -> Self {
        Self {
            endpoint: Endpoint::outside(address, transport),
            breaker: Breaker::default(),
            refuses: AtomicBool::new(false),
        }
    }

    /// Whether requests are sent to it as far as is known.
    pub(crate) fn is_up(&self) -> bool {
        self.breaker.is_closed() && !self.refuses.load(Relaxed)
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        self.endpoint.leave();
    }
}

/// Known addresses go on as they are; new ones are watched.
pub(crate) fn follow(
    known: Option<&Picker>,
    wanted: &[SocketAddr],
    transport: &Arc<Transport>,
    tasks: &TaskTracker,
) -> Vec<Arc<Address>> {
    let known = known.map(|picker| picker.addresses()).unwrap_or_default();
    let one = |address: &SocketAddr| {
        let same = known.iter().find(|one| {
            one.endpoint.address == *address && Arc::ptr_eq(&one.endpoint.transport, transport)
        });
        same.cloned().unwrap_or_else(|| {
            let new = Arc::new(Address::new(*address, transport.clone()));
            tasks.spawn(health::watch(
                Arc::downgrade(&new),
                new.endpoint.stop.clone(),
            ));
            new
        })
    };
    wanted.iter().map(one).collect()
}

impl Picker {
    /// The next address to ask, none that is in `tried`.
    pub(super) fn turn(&self, tried: &[SocketAddr]) -> Option<&Arc<Address>> {
        let count = self.addresses.len();
        let first = self.next.fetch_add(1, Relaxed);
        let now = clock::now();
        let in_turn = (0..count)
            .filter_map(|step| self.addresses.get(first.wrapping_add(step) % count))
            .filter(|one| !tried.contains(&one.endpoint.address));
        let mut usable = in_turn.filter(|one| !one.refuses.load(Relaxed));
        usable.find(|one| one.breaker.admits(now))
    }
}
