//! The pipeline: what happens to every request, in order. Read this first.
//!
//! admit -> understand -> route -> policies -> queue and pick -> endpoint -> relay -> settle.
//! Each stage fills its fields of the [`Exchange`] or ends the request with a [`Failure`]; there is
//! one place that answers a failure and one that counts and logs, whatever happened.

use crate::answer;
use crate::clock;
use crate::exchange::Exchange;
use crate::failure::{Cause, Failure, Phase};
use crate::forward;
use crate::headers;
use crate::listener::client::Client;
use crate::live::{Live, Shared};
use crate::policies;
use crate::pool::Pool;
use crate::relay;
use crate::route;
use crate::tunnel;
use crate::worker::{Local, OutBuffer};
use config::{PickerKind, Subset, Target};
use llm::Api;
use std::sync::Arc;

/// The longest name of a model. It is copied to where requests are explained, and told in errors.
const MOST_MODEL_BYTES: usize = 1024;

/// Serves one request; tells whether the connection goes on.
pub(crate) async fn serve(
    local: &Local,
    shared: &Arc<Shared>,
    client: &mut Client,
    x: &mut Exchange,
) -> bool {
    x.keep_alive = x.head.keep_alive() && !client.is_draining();
    x.explain = shared.explain;
    x.upgrades = !x.unframed && x.head.upgrade().is_some_and(tunnel::passes);
    if let Err(failure) = stages(local, shared, client, x).await {
        fail(shared, client, x, failure).await;
    }
    record(local, x);
    x.keep_alive && !client.is_gone()
}

async fn stages(
    local: &Local,
    shared: &Arc<Shared>,
    client: &mut Client,
    x: &mut Exchange,
) -> Result<(), Failure> {
    headers::admit(local, x);
    understand(x)?;
    // Only this looks at the configuration, which is not held beyond it: a stream may last for
    // hours, and holds its rule and its pool.
    let onward = local.with_live(|live| onward(live, (local, shared), x))?;
    match onward {
        Onward::Models => answer::models_list(shared, &local.live(), client, x).await,
        Onward::Answer(answer) => answer::short(client, x, &answer).await,
        Onward::Pool(pool) => {
            let served = forward::forward(local, shared, client, x, &pool).await;
            x.pool = Some(pool);
            served
        }
    }
}

/// Who answers a request.
enum Onward {
    /// The gateway, with the list of models.
    Models,
    /// A filter.
    Answer(policies::Answer),
    /// An endpoint of a pool.
    Pool(Arc<Pool>),
}

/// Routes the request and applies the filters.
fn onward(
    live: &Live,
    (local, shared): (&Local, &Arc<Shared>),
    x: &mut Exchange,
) -> Result<Onward, Failure> {
    if answer::is_models_list(live, x) {
        return Ok(Onward::Models);
    }
    let rule = route::find(live, x)?;
    let place = policies::Place {
        local,
        shared,
        live,
    };
    if let Some(answer) = policies::request(&rule.filters, x, place) {
        return Ok(Onward::Answer(answer));
    }
    if let Some(fault) = &rule.fault {
        return Err(Failure::new(
            Phase::Route,
            Cause::InvalidBackend,
            fault.as_ref(),
        ));
    }
    let Some(backend) = rule.choose(local.draw()) else {
        let message = "the rule has no backend that may be used";
        return Err(Failure::new(Phase::Route, Cause::NoBackend, message));
    };
    let position = rule
        .backends
        .iter()
        .position(|one| std::ptr::eq(one, backend));
    x.backend = position.unwrap_or_default();
    if let Some(answer) = policies::request(&backend.filters, x, place) {
        return Ok(Onward::Answer(answer));
    }
    if let Target::Pool(pool) = &backend.target {
        x.asks_picker &= matches!(pool.picker_kind, PickerKind::External(_));
        if !pool.subsets.is_empty() {
            x.subsets = Subset::of_request(&pool.subsets, &route::View(&x.head));
        }
    } else {
        x.asks_picker = false;
    }
    live.backend(&backend.target)
        .map(Onward::Pool)
        .ok_or_else(|| {
            let message = match &backend.target {
                Target::Invalid { reason } => reason,
                _ => "the backend of this rule does not exist any more",
            };
            Failure::new(Phase::Route, Cause::InvalidBackend, message)
        })
}

/// Reads from the body what routing and picking need, without changing it.
fn understand(x: &mut Exchange) -> Result<(), Failure> {
    x.api = Api::of(x.head.method(), x.head.path());
    if x.api == Api::Other {
        return Ok(());
    }
    let peek = llm::peek(x.body.bytes(), x.api).map_err(|error| {
        let cause = Cause::Refused {
            status: error.status(),
            code: error.code(),
        };
        Failure::new(Phase::Request, cause, error.to_string())
    })?;
    if let Some(model) = peek.model_str(x.body.bytes()) {
        if model.len() > MOST_MODEL_BYTES {
            let cause = Cause::Refused {
                status: 400,
                code: "model_too_long",
            };
            let message = format!("the model's name has more than {MOST_MODEL_BYTES} bytes");
            return Err(Failure::new(Phase::Request, cause, message));
        }
        x.model.push_str(&model);
        x.head.put(headers::MODEL_NAME, x.model.as_bytes());
    }
    x.peek = Some(peek);
    Ok(())
}

/// Tells the client what went wrong, if it can still be told.
async fn fail(shared: &Arc<Shared>, client: &mut Client, x: &mut Exchange, failure: Failure) {
    // Whoever picked learns at once that it was for nothing.
    x.picking = None;
    if client.is_gone() || failure.cause == Cause::ClientGone {
        x.response.client_gone = true;
        x.keep_alive = false;
        if !x.response.head_sent {
            x.response.status = failure.cause.row().status;
        }
    } else if x.response.head_sent {
        // The relay has told what could be told; this connection ends early.
        x.keep_alive = false;
        if x.response.owes_event {
            relay::tell(client, x, &shared.limits, &failure).await;
        }
    } else {
        let mut out = OutBuffer::take();
        let fields = headers::own_fields(x);
        let is_grpc = x.unframed && x.is_grpc();
        if is_grpc {
            failure.write_grpc(&fields, &mut out);
        } else if let Some(answer) = &x.answer {
            answer.write(&fields, x.keep_alive, &mut out);
        } else {
            failure.write(x.api.dialect(), &fields, x.keep_alive, &mut out);
        }
        if x.head.method() == "HEAD" {
            leave_out_body(&mut out);
        }
        let status = failure.cause.row().status;
        x.response.status = if is_grpc { 200 } else { status };
        x.response.head_sent = true;
        let told = client.offer(&out, b"").await;
        drop(out);
        if told.is_err() || client.flush(&shared.limits).await.is_err() {
            x.keep_alive = false;
        }
    }
    x.failure = Some(failure);
}

/// The head says how long the body would be; it does not follow. Nor does it say of which type:
/// clients have been seen to parse the nothing that comes.
fn leave_out_body(out: &mut Vec<u8>) {
    const TYPE: &[u8] = b"content-type: application/json\r\n";
    if let Some(end) = memchr::memmem::find(out, b"\r\n\r\n") {
        out.truncate(end + 4);
    }
    if let Some(start) = memchr::memmem::find(out, TYPE) {
        out.drain(start..start + TYPE.len());
    }
}

/// Counts and logs, once for every request.
fn record(local: &Local, x: &mut Exchange) {
    // A try that went well has just ended.
    if x.timings.ended.0 == 0 || x.failure.is_some() {
        x.timings.ended = clock::now();
    }
    local.metrics.count(x);
    local.log.borrow_mut().push(x);
}

/// Answers bytes that are not a request, counts and logs them; the connection ends.
pub(crate) async fn refuse(
    local: &Local,
    shared: &Arc<Shared>,
    client: &mut Client,
    x: &mut Exchange,
    failure: Failure,
) {
    x.keep_alive = false;
    headers::admit(local, x);
    x.api = Api::of(x.head.method(), x.head.path());
    if matches!(failure.cause, Cause::Refused { .. }) {
        local
            .metrics
            .counted
            .refused
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    fail(shared, client, x, failure).await;
    record(local, x);
}
