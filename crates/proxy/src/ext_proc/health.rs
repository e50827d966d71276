//! gRPC's health check of a picker's address, off the request path.
//!
//! Only a clear "not serving" takes an address out, and a clear "serving" brings it back at once,
//! also from an open breaker. Pickers without the service (it is optional on their main port) are
//! asked more and more seldom; whether they work is seen from asking them.

use super::addresses::Address;
use super::framing::{self, Messages};
use super::wire::{HEALTH, HealthCheckRequest, HealthCheckResponse, SERVICE};
use crate::limits::Limits;
use crate::upstream::h1;
use bytes::Bytes;
use h2::client::SendRequest;
use std::sync::Weak;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(2);
const MOST_PATIENT: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(2);
const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// Follows one address until nobody uses it any more.
pub(super) async fn watch(address: Weak<Address>, stop: CancellationToken) {
    let mut silent = 0u32;
    loop {
        let pause = (EVERY * (1 + silent.min(30))).min(MOST_PATIENT);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let Some(address) = address.upgrade() else {
            return;
        };
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            asked = tokio::time::timeout(DEADLINE, Box::pin(check(&address))) => asked,
        };
        match asked.ok().flatten() {
            Some(SERVING) => {
                address.refuses.store(false, Relaxed);
                address.breaker.succeeded();
                silent = 0;
            }
            Some(NOT_SERVING) => {
                address.refuses.store(true, Relaxed);
                silent = 0;
            }
            // What cannot be asked any more is no reason to pass over it for ever.
            _ => {
                address.refuses.store(false, Relaxed);
                silent = silent.saturating_add(1);
            }
        }
    }
}

/// The status that it gives; `None` when it gives none.
async fn check(address: &Address) -> Option<i32> {
    let socket = h1::dial(&address.endpoint, &Limits::default()).await.ok()?;
    let (sender, driver) = h2::client::handshake(socket).await.ok()?;
    tokio::select! {
        status = ask(sender) => status,
        _ = driver => None,
    }
}

async fn ask(sender: SendRequest<Bytes>) -> Option<i32> {
    let mut sender = sender.ready().await.ok()?;
    let request = super::client::call(HEALTH, "health", false).ok()?;
    let (response, mut send) = sender.send_request(request, false).ok()?;
    let message = HealthCheckRequest {
        service: SERVICE.to_owned(),
    };
    send.send_data(framing::frame(&message), true).ok()?;
    let mut body = response.await.ok()?.into_body();
    let mut messages = Messages::default();
    while let Some(Ok(part)) = body.data().await {
        messages.push(&part);
        if let Some(response) = messages.next::<HealthCheckResponse>().ok()? {
            return Some(response.status);
        }
    }
    None
}
