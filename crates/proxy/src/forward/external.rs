//! Asking a pool's external endpoint picker, and walking the list of endpoints that it picked.
//!
//! Only members of the pool are ever connected to. A picker that does not pick is passed over where
//! its pool says so (`failureMode: FailOpen`): then the built-in picker chooses, with everything
//! that it knows; else the request fails.

use super::{Sending, attempt::watching};
use crate::clock;
use crate::exchange::Exchange;
use crate::ext_proc::client::Question;
use crate::ext_proc::mutation::{self, Verdict};
use crate::ext_proc::{Picker, Unpicked};
use crate::failure::{Cause, Failure, Phase};
use crate::listener::client::Client;
use crate::pool::Pool;
use crate::pool::lease::Lease;
use crate::relay;
use crate::retry;
use crate::worker::OutBuffer;
use http1::Framing;
use picker::{Ask, Decision, Micros, Subsets};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Endpoints that were picked and not tried yet, in order.
pub(super) type Picked = VecDeque<SocketAddr>;

/// That others are held for broken is told up to this many members.
const MOST_TOLD: usize = 256;

/// Asks the picker; `None`: the built-in one is to choose.
///
/// # Errors
/// The picker's own answer, or that it does not pick and may not be passed over; or the client left.
pub(super) async fn ask(
    sending: &Sending<'_>,
    client: &mut Client,
    x: &mut Exchange,
) -> Result<Option<Picked>, Failure> {
    let pool = sending.pool;
    let Some(picker) = pool.external() else {
        return Ok(None);
    };
    let from = clock::now();
    let asked = answer(sending, client, x, &picker).await;
    let now = clock::now();
    x.timings.asked_us = now.0.saturating_sub(from.0);
    let (outcome, result) = match asked {
        Ok(Ok(picked)) => {
            pool.asked.seconds.record_shared(x.timings.asked_us);
            (&pool.asked.picked, Ok(Some(picked)))
        }
        Ok(Err(_)) if sending.due.is_some_and(|due| now >= due) => {
            let message = "the route's request timeout passed while the endpoint picker was asked";
            let failure = Failure::new(Phase::Pick, Cause::RouteTimeout, message);
            (&pool.asked.failed_closed, Err(failure))
        }
        Ok(Err(unpicked)) => {
            // Not its words: they may be about what the client said.
            let code = unpicked.cause.row().code;
            tracing::debug!(id = x.id, picker = picker.name, code, "no pick");
            if picker.fail_open {
                (&pool.asked.failed_open, Ok(None))
            } else {
                (&pool.asked.failed_closed, Err(failed(unpicked)))
            }
        }
        Err(failure) if failure.cause == Cause::ClientGone => return Err(failure),
        Err(failure) => (&pool.asked.answered, Err(failure)),
    };
    count(outcome);
    result
}

fn count(outcome: &AtomicU64) {
    outcome.fetch_add(1, Relaxed);
}

fn failed(unpicked: Unpicked) -> Failure {
    let mut failure = Failure::new(Phase::Pick, unpicked.cause, unpicked.message);
    failure.retry_after = Some(1);
    failure
}

/// What the picker says, as members of the pool.
async fn answer(
    sending: &Sending<'_>,
    client: &mut Client,
    x: &mut Exchange,
    picker: &Picker,
) -> Result<Result<Picked, Unpicked>, Failure> {
    let (pool, limits) = (sending.pool, sending.limits);
    let mut head = OutBuffer::take();
    let framing = match x.head.framing() {
        Framing::None => Framing::None,
        _ => Framing::Length(x.body.bytes().len() as u64),
    };
    x.head.write(framing, &mut head);
    let question = Question {
        fields: mutation::request_fields(&x.head, &head, x.over_tls),
        body: x.body.bytes(),
        subset: subset(pool, x.subsets),
    };
    drop(head);
    let within = within(picker.within, sending.due);
    let asking = picker.ask(sending.local, limits, &question, within);
    let (session, verdict) = match watching(client, limits, asking).await? {
        Ok(answer) => answer,
        Err(unpicked) => return Ok(Err(unpicked)),
    };
    let told = question.fields;
    let (destinations, changes) = match verdict {
        Verdict::Request(destinations, changes) => (destinations, changes),
        Verdict::Immediate(answer) => {
            session.finish(sending.local);
            return Err(relay::answered(x, answer));
        }
        Verdict::Response(_) => (Vec::new(), None),
    };
    let picked = pool.members_at(&destinations);
    if picked.is_empty() {
        let what = match destinations.first() {
            None => "named no destination".to_owned(),
            Some(first) => format!("picked {first}, which is no member of the pool"),
        };
        return Ok(Err(Unpicked {
            cause: Cause::PickerNoDestination,
            message: format!("endpoint picker {} {what}", picker.name),
        }));
    }
    if let Some(changes) = changes {
        mutation::apply(&changes, &told, &mut x.head);
    }
    x.picking = Some(Box::new(session));
    Ok(Ok(picked))
}

/// Less when the request must be over before.
fn within(most: Duration, due: Option<Micros>) -> Duration {
    let left = due.map(|due| due.0.saturating_sub(clock::now().0));
    left.map_or(most, |left| most.min(Duration::from_micros(left)))
}

/// The members to choose from, when those are not all: a subset that the pool's policy keeps the
/// request to, or those that are not held for broken, of which a picker may not know.
fn subset(pool: &Pool, subsets: Subsets) -> Vec<SocketAddr> {
    let usable = pool.usable(subsets);
    let all = pool.endpoints();
    let is_long = subsets.is_empty() && usable.len() > MOST_TOLD;
    if usable.len() == all.len() || is_long {
        return Vec::new();
    }
    // Both are in the order of their slots.
    let of = all
        .iter()
        .filter(|one| usable.binary_search(&one.id).is_ok());
    of.map(|one| one.address).collect()
}

/// Books the request on the next endpoint of the list that is still a member.
///
/// # Errors
/// Nobody is left: the last failure, if there was a try.
pub(super) fn next<'p>(
    pool: &'p std::sync::Arc<Pool>,
    x: &Exchange,
    ask: &Ask<'_>,
    picked: &mut Picked,
) -> Result<(Lease<'p>, Decision), Failure> {
    while let Some(address) = picked.pop_front() {
        if let Some(booked) = pool.assign(ask, address) {
            return Ok(booked);
        }
    }
    let last = x.attempts.last().and_then(|last| last.failure.clone());
    Err(last.unwrap_or_else(|| {
        let message = format!("what was picked has just left pool {}", pool.name());
        Failure::new(Phase::Pick, Cause::PickerNoDestination, message)
    }))
}

/// Whether the next of the list is tried: always when nobody was there, else as for any pool.
pub(super) fn goes_on(pool: &Pool, x: &Exchange, failure: &Failure, picked: &Picked) -> bool {
    let nobody_there = failure.cause == Cause::ConnectFailed && !x.response.is_bound();
    !picked.is_empty() && (nobody_there || retry::allowed(pool, x, failure))
}
