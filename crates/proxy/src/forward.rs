//! From a chosen backend to a settled answer: queue, pick, try, relay, and try elsewhere. Pools that
//! name an external endpoint picker have it asked first (`forward/external.rs`).
//!
//! A request holds its lease from the pick to the end of its stream. Each try leaves an `Attempt`
//! in the exchange and a record for `penstock why`.

mod attempt;
mod external;

pub(crate) use attempt::watching;

use crate::clock;
use crate::exchange::{Attempt, Exchange};
use crate::failure::{Cause, Failure, Phase, Retry};
use crate::limits::Limits;
use crate::listener::client::Client;
use crate::live::Shared;
use crate::memory::ACCOUNT;
use crate::pool::decisions::{Ended, New};
use crate::pool::lease::{Lease, Waiting};
use crate::pool::{Endpoint, Pool, Seen, Step};
use crate::relay::{self, Way};
use crate::retry;
use crate::worker::Local;
use config::Timeouts;
use picker::{Ask, Decision, FailureKind, Finished, Held, Micros, Outcome, Target};
use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

/// What stays the same over all tries of one request.
pub(crate) struct Sending<'a> {
    pub(crate) local: &'a Local,
    pub(crate) limits: &'a Limits,
    pub(crate) pool: &'a Arc<Pool>,
    /// The pool as the request found it.
    seen: &'a Seen,
    held: Held,
    priority: i32,
    /// The whole request must be over by then.
    pub(crate) due: Option<Micros>,
    pub(crate) timeouts: Timeouts,
    /// The retry of the failure at hand has been paid for.
    granted: Cell<bool>,
    /// What an external endpoint picker chose and was not tried yet; `None`: we choose.
    picked: Option<external::Picked>,
}

impl Sending<'_> {
    /// Whether there is somebody else to try.
    fn has_another(&self, x: &Exchange) -> bool {
        match &self.picked {
            None => self.pool.endpoint_count() > x.attempts.len(),
            Some(picked) => !picked.is_empty(),
        }
    }

    /// Whether this failure may be tried elsewhere.
    fn goes_on(&self, x: &Exchange, failure: &Failure) -> bool {
        self.granted.take()
            || match &self.picked {
                None => retry::allowed(self.pool, x, failure),
                Some(picked) => external::goes_on(self.pool, x, failure, picked),
            }
    }
}

/// Serves the request from `pool`.
///
/// # Errors
/// What the client is to be told, or that it left.
pub(crate) async fn forward(
    local: &Local,
    shared: &Arc<Shared>,
    client: &mut Client,
    x: &mut Exchange,
    pool: &Arc<Pool>,
) -> Result<(), Failure> {
    let seen = pool.seen();
    let may_be_unknown = pool.inference && !x.asks_picker && !x.model.is_empty();
    if may_be_unknown && !seen.knows_model(&x.model) {
        check_model(x, pool).await?;
    }
    let rule = x.rule.as_ref();
    let timeouts = rule.map(|rule| rule.timeouts).unwrap_or_default();
    let resolved = seen
        .spec
        .models
        .resolve(&x.model, x.objective.as_deref(), x.trusted);
    let priority = resolved.priority;
    chain(x);
    let targets = drawn(resolved.targets, local.draw());
    let mut sending = Sending {
        local,
        limits: &shared.limits,
        pool,
        seen: &seen,
        held: Held::default(),
        priority,
        due: timeouts.request.map(|within| x.timings.started + within),
        timeouts,
        granted: Cell::new(false),
        picked: None,
    };
    pool.held(&x.chain, &mut sending.held);
    if x.asks_picker {
        sending.picked = Box::pin(external::ask(&sending, client, x)).await?;
    }
    x.decision = shared.next_decision();
    pool.budget.earn();
    loop {
        let (lease, decision) = pick(&mut sending, client, x, targets).await?;
        // Allowed is not enough: there may be nobody left to try.
        if !x.attempts.is_empty() {
            let retries = &local.metrics.counted.retries;
            retries.fetch_add(1, Relaxed);
        }
        let failure = match one(&sending, client, x, (lease, decision, targets)).await {
            Ok(()) => break,
            Err(failure) => failure,
        };
        let again = sending.goes_on(x, &failure);
        if let Some(last) = x.attempts.last_mut() {
            last.failure = Some(failure.clone());
        }
        if !again {
            return Err(failure);
        }
        if let Some(retry) = retry::of_route(x) {
            Box::pin(pause(&sending, client, retry.backoff, failure)).await?;
        }
    }
    if let Some(session) = x.picking.take() {
        session.finish(local);
    }
    Ok(())
}

/// Between two tries, as far apart as the route wants; `failure` stands if there is no time left.
async fn pause(
    sending: &Sending<'_>,
    client: &mut Client,
    backoff: std::time::Duration,
    failure: Failure,
) -> Result<(), Failure> {
    let until = clock::now() + backoff;
    if sending.due.is_some_and(|due| due < until) {
        return Err(failure);
    }
    attempt::watching(client, sending.limits, tokio::time::sleep(backoff)).await
}

/// Hashes the prompt into its chain of blocks.
fn chain(x: &mut Exchange) {
    let Some(peek) = &x.peek else { return };
    let body = x.body.bytes();
    let salt = peek.cache_salt_str(body);
    let seed = llm::chain_seed(&x.model, salt.as_deref());
    llm::block_hashes(seed, peek.prompt_slices(body), &mut x.chain);
}

/// With weights, one target by weight; without, all of them, and cost chooses.
fn drawn(targets: &[Target], draw: u64) -> &[Target] {
    match picker::models::draw(targets, draw) {
        Some(index) => targets.get(index..=index).unwrap_or(targets),
        None => targets,
    }
}

/// Waits for this request's turn.
async fn pick<'p>(
    sending: &mut Sending<'p>,
    client: &mut Client,
    x: &mut Exchange,
    targets: &[Target],
) -> Result<(Lease<'p>, Decision), Failure> {
    let exclude = if x.attempts.is_empty() {
        Vec::new()
    } else {
        retry::left_out(sending.pool, x)
    };
    let peek = x.peek.as_ref();
    let prompt_bytes = peek.map_or(0, llm::Peek::prompt_bytes);
    let ask = Ask {
        model: &x.model,
        targets,
        prompt_tokens: llm::estimate_tokens(prompt_bytes),
        max_tokens: peek.and_then(|peek| peek.max_tokens),
        held: &sending.held,
        blocks: x.chain.len() as u32,
        priority: sending.priority,
        body_bytes: x.body.bytes().len() as u32,
        exclude: &exclude,
        subsets: x.subsets,
        is_retry: !x.attempts.is_empty(),
        streams: peek.is_some_and(|peek| peek.stream),
    };
    if let Some(picked) = &mut sending.picked {
        return external::next(sending.pool, x, &ask, picked);
    }
    match sending.pool.arrive(&ask, sending.seen) {
        Step::Go(lease, decision) => Ok((lease, decision)),
        Step::Refuse(why) => Err(refused(x, sending.pool, &why)),
        // Whoever waits holds its body meanwhile.
        Step::Wait(_) if ACCOUNT.is_over() => Err(ACCOUNT.refuse(Phase::Queue)),
        Step::Wait(waiting) => {
            let from = clock::now();
            client.set_deadline(sending.due);
            let step = wait(client, waiting, sending.limits).await;
            client.set_deadline(None);
            x.timings.queued_us += clock::now().0.saturating_sub(from.0);
            match step? {
                Step::Go(lease, decision) => Ok((lease, decision)),
                Step::Refuse(why) => Err(refused(x, sending.pool, &why)),
                Step::Wait(_) => Err(refused(x, sending.pool, &picker::Why::no_endpoints())),
            }
        }
    }
}

async fn wait<'p>(
    client: &mut Client,
    mut waiting: Waiting<'p>,
    limits: &Limits,
) -> Result<Step<'p>, Failure> {
    poll_fn(|cx| {
        if let Poll::Ready(step) = waiting.poll(cx) {
            return Poll::Ready(Ok(step));
        }
        if client.poll_gone(cx, limits.pipelined_bytes).is_ready() {
            return Poll::Ready(Err(Failure::client_gone(Phase::Queue)));
        }
        if client.poll_late(cx) {
            let message = "the route's request timeout passed while the request waited";
            return Poll::Ready(Err(Failure::new(
                Phase::Queue,
                Cause::RouteTimeout,
                message,
            )));
        }
        Poll::Pending
    })
    .await
}

/// One try: send, relay, settle, record.
async fn one(
    sending: &Sending<'_>,
    client: &mut Client,
    x: &mut Exchange,
    (mut lease, decision, targets): (Lease<'_>, Decision, &[Target]),
) -> Result<(), Failure> {
    let Some(endpoint) = lease.take_endpoint() else {
        let message = "the chosen endpoint has just left the pool";
        return Err(Failure::new(Phase::Connect, Cause::ConnectFailed, message));
    };
    sending.pool.will_hold(endpoint.id, &x.chain);
    let target = targets
        .get(decision.target as usize)
        .map(|target| target.name.as_str());
    x.renamed = target.is_some_and(|target| target != x.model);
    x.attempts.push(Attempt {
        endpoint: endpoint.id,
        name: endpoint.name.clone(),
        started: clock::coarse(),
        failure: None,
    });
    let served = answered(sending, client, x, (&mut lease, &endpoint, target)).await;
    x.timings.ended = clock::now();
    lease.settle(outcome(x, served.as_ref().err()));
    if let Some(usage) = &x.response.usage
        && served.is_ok()
    {
        correct(sending.pool, &endpoint, x, usage);
    }
    remember(sending.pool, &endpoint, x, decision, served.as_ref().err());
    served
}

/// The part of a try in which bytes move.
async fn answered(
    sending: &Sending<'_>,
    client: &mut Client,
    x: &mut Exchange,
    (lease, endpoint, target): (&mut Lease<'_>, &Endpoint, Option<&str>),
) -> Result<(), Failure> {
    let (mut upstream, begun) = attempt::attempt(sending, client, x, endpoint, target).await?;
    let status = begun.reply.status();
    if status >= 400 && retry::may_be_better(x, status, sending.has_another(x)) {
        let message = format!("the engine answered with status {status}");
        let failure = Failure::new(Phase::Head, Cause::EngineStatus { status }, message);
        if retry::allowed(sending.pool, x, &failure) {
            sending.granted.set(true);
            return Err(failure);
        }
    }
    let way = Way {
        upstream: &mut upstream,
        lease,
        endpoint,
        limits: sending.limits,
        due: sending.due,
    };
    let finished = relay::finish(client, x, way, begun).await;
    let reply = finished.inspect_err(|failure| upstream.distrust(failure.cause))?;
    if reply.reusable() && !endpoint.has_left() {
        upstream.keep(endpoint, sending.local, sending.limits);
    }
    relay::spares::keep(reply);
    Ok(())
}

/// What the picker learns from a try.
fn outcome(x: &Exchange, failure: Option<&Failure>) -> Outcome {
    let result = match failure.map(|failure| failure.cause) {
        // The route's patience ended without a word from the engine.
        Some(Cause::RouteTimeout) if !x.response.is_bound() => Finished::Failed(FailureKind::Hang),
        Some(cause) => by_cause(cause),
        None => by_status(x.response.status),
    };
    let usage = x.response.usage.as_ref();
    Outcome {
        result,
        prompt_tokens: usage.map_or(0, |usage| usage.prompt_tokens),
        cached_tokens: usage.and_then(|usage| usage.cached_tokens),
        completion_tokens: usage.map_or(0, |usage| usage.completion_tokens),
    }
}

fn by_cause(cause: Cause) -> Finished {
    match cause {
        Cause::ClientGone => Finished::Cancelled,
        Cause::ConnectFailed => Finished::Failed(FailureKind::Connect),
        Cause::ClosedEarly | Cause::Reset => Finished::Failed(FailureKind::Reset),
        Cause::HeadLate | Cause::StreamIdle => Finished::Failed(FailureKind::Hang),
        Cause::Cut => Finished::Failed(FailureKind::Cut),
        Cause::EngineStatus { status } | Cause::EngineErrorFirst { status } => by_status(status),
        Cause::BadResponse => Finished::Failed(FailureKind::Status5xx),
        _ => Finished::Cancelled,
    }
}

fn by_status(status: u16) -> Finished {
    match status {
        429 => Finished::Failed(FailureKind::Status429),
        500.. => Finished::Failed(FailureKind::Status5xx),
        400.. => Finished::Failed(FailureKind::ClientFault),
        _ => Finished::Complete,
    }
}

/// The engine's own count of cached tokens corrects what we believe it holds.
fn correct(pool: &Pool, endpoint: &Endpoint, x: &Exchange, usage: &llm::Usage) {
    let Some(cached) = usage.cached_tokens else {
        return;
    };
    if usage.prompt_tokens == 0 || x.chain.is_empty() {
        return;
    }
    let share = f64::from(cached) / f64::from(usage.prompt_tokens);
    let had = (share * x.chain.len() as f64).ceil() as u32;
    let believed = x.believed_blocks;
    if had < believed {
        pool.correct_held(endpoint.id, &x.chain, had);
    }
}

fn remember(
    pool: &Pool,
    endpoint: &Endpoint,
    x: &Exchange,
    decision: Decision,
    failure: Option<&Failure>,
) {
    let Some(table) = decision.table else { return };
    let retried = failure.is_some_and(|failure| failure.cause.row().retry != Retry::Never);
    let now = clock::coarse();
    let started = x.attempts.last().map_or(now, |attempt| attempt.started);
    let response = &x.response;
    let status = if retried && !response.is_bound() {
        0
    } else {
        response.status
    };
    pool.decisions.push(New {
        ended: Ended {
            decision: x.decision,
            unix_ms: clock::unix_millis(started),
            attempt: x.attempts.len() as u32,
            status,
            error: failure.map(|failure| failure.cause.row().code),
            queued_us: x.timings.queued_us,
            first_token_us: x.timings.first_token.0.saturating_sub(x.timings.sent.0),
            duration_us: now.0.saturating_sub(x.timings.started.0),
        },
        id: &x.id,
        model: &x.model,
        pool: pool.name(),
        endpoint: &endpoint.name,
        table,
    });
}

fn refused(x: &Exchange, pool: &Pool, why: &picker::Why) -> Failure {
    let (cause, what) = match why.cause {
        picker::Cause::Saturated => (Cause::Saturated, "is saturated and sheds this request"),
        picker::Cause::QueueFull => (Cause::QueueFull, "has a full queue"),
        picker::Cause::WaitedTooLong => (Cause::QueueTimeout, "did not free up in time"),
        picker::Cause::NoEndpoints => (Cause::NoEndpoints, "has no ready endpoint"),
        picker::Cause::AllExcluded => (Cause::NoEndpoints, "has no further endpoint to try"),
    };
    // The last try says more than that there is nobody left to try.
    if let Some(failure) = x
        .attempts
        .last()
        .and_then(|attempt| attempt.failure.clone())
    {
        return failure;
    }
    let mut failure = Failure::new(Phase::Queue, cause, format!("pool {} {what}", pool.name()));
    failure.retry_after = Some(why.retry_after_seconds.max(1));
    failure
}

/// Asks the servers for a model that nobody declared or announced yet.
async fn check_model(x: &Exchange, pool: &Arc<Pool>) -> Result<(), Failure> {
    let Some(near) = pool.unknown_model(&x.model).await else {
        return Ok(());
    };
    let mut message = format!(
        "the model `{}` does not exist in pool {}",
        x.model,
        pool.name()
    );
    if !near.is_empty() {
        message.push_str("; there is ");
        message.push_str(&near.join(", "));
    }
    Err(Failure::new(Phase::Route, Cause::ModelNotFound, message))
}
