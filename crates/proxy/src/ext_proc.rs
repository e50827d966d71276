//! External endpoint pickers: who is asked over Envoy's ext_proc protocol which endpoint of a pool
//! should serve a request (Gateway API inference extension, endpoint picker protocol).
//!
//! `client.rs` is one conversation about one request, from its head to the end of its response;
//! `addresses.rs` says which of a picker's addresses is asked; `mutation.rs` reads what it answers
//! and applies it. A picker is outside the data path: it never sees a byte of a response body, and a
//! response goes on when its picker is gone. The bytes that a model server gets are the client's.

pub(crate) mod addresses;
mod breaker;
pub(crate) mod client;
mod framing;
mod health;
pub(crate) mod mutation;
pub(crate) mod wire;

use crate::clock;
use crate::failure::Cause;
use crate::limits::Limits;
use crate::worker::Local;
use addresses::Address;
use client::{Question, Session};
use config::ExternalPicker;
use mutation::Verdict;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Addresses that are asked about one request.
const MOST_ADDRESSES: usize = 3;

/// The endpoint picker of a pool.
#[derive(Debug)]
pub(crate) struct Picker {
    pub(crate) name: String,
    pub(crate) fail_open: bool,
    pub(crate) within: Duration,
    addresses: Vec<Arc<Address>>,
    next: AtomicUsize,
}

/// What became of requests about which a picker was asked, over all workers.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) picked: AtomicU64,
    pub(crate) answered: AtomicU64,
    pub(crate) failed_open: AtomicU64,
    pub(crate) failed_closed: AtomicU64,
    pub(crate) seconds: crate::metrics::Histogram,
}

impl Asked {
    /// With the label `outcome`.
    pub(crate) fn outcomes(&self) -> [(&'static str, u64); 4] {
        [
            ("picked", self.picked.load(Relaxed)),
            ("answered", self.answered.load(Relaxed)),
            ("failed_open", self.failed_open.load(Relaxed)),
            ("failed_closed", self.failed_closed.load(Relaxed)),
        ]
    }
}

impl Picker {
    pub(crate) fn new(config: &ExternalPicker, addresses: Vec<Arc<Address>>) -> Self {
        Self {
            name: config.service.to_string(),
            fail_open: config.fail_open,
            within: Duration::from_secs_f32(config.pick_seconds.clamp(0.001, 3600.0)),
            addresses,
            next: AtomicUsize::new(0),
        }
    }

    pub(crate) fn addresses(&self) -> &[Arc<Address>] {
        &self.addresses
    }
}

/// Why there is no pick.
#[derive(Debug)]
pub(crate) struct Unpicked {
    pub(crate) cause: Cause,
    pub(crate) message: String,
}

impl Picker {
    /// Asks about one request, at other addresses too when one is not there, all within `within`.
    ///
    /// # Errors
    /// Nobody could be asked, nobody answered in time, or the answer is none.
    pub(crate) async fn ask(
        &self,
        local: &Local,
        limits: &Limits,
        question: &Question<'_>,
        within: Duration,
    ) -> Result<(Session, Verdict), Unpicked> {
        let due = tokio::time::Instant::now() + within;
        let mut tried = Vec::new();
        let mut why = match self.addresses.as_slice() {
            [] => format!("endpoint picker {} has no ready endpoint", self.name),
            _ => format!("endpoint picker {} is held for broken", self.name),
        };
        while tried.len() < MOST_ADDRESSES
            && let Some(address) = self.turn(&tried)
        {
            tried.push(address.endpoint.address);
            let asking = Session::ask(local, address, limits, question);
            let Ok(asked) = tokio::time::timeout_at(due, asking).await else {
                // A route that has less time than the picker says nothing of the picker.
                if within >= self.within {
                    address.breaker.failed(clock::now());
                    // It may be the connection that leads nowhere.
                    local.multiplexed.distrust(address.endpoint.uid);
                }
                let message = format!(
                    "endpoint picker {} did not pick within {within:?}",
                    self.name
                );
                return Err(Unpicked {
                    cause: Cause::PickerTimeout,
                    message,
                });
            };
            match asked {
                Ok((session, verdict)) => {
                    address.breaker.succeeded();
                    return Ok((session, verdict));
                }
                Err(broken) => {
                    let message = broken.message;
                    why = format!("endpoint picker {} does not pick: {message}", self.name);
                    if !broken.is_silence {
                        address.breaker.succeeded();
                        break;
                    }
                    address.breaker.failed(clock::now());
                }
            }
        }
        Err(Unpicked {
            cause: Cause::PickerUnavailable,
            message: why,
        })
    }
}
