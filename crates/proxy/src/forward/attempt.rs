//! One try at one endpoint, up to a decided answer: connect, send, wait for head and first event.

use super::Sending;
use crate::clock;
use crate::exchange::Exchange;
use crate::failure::{Cause, Failure, Phase};
use crate::limits::Limits;
use crate::listener::client::Client;
use crate::memory::{ACCOUNT, Charge, Full, SHORT_HEAD_BYTES, Use};
use crate::pool::Endpoint;
use crate::relay::{self, Begun, HeadDeadline};
use crate::tunnel;
use crate::turns;
use crate::upstream::Upstream;
use crate::worker::{OutBuffer, SCRATCH_BYTES, cost_of};
use http1::Framing;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Sends the request to `endpoint` and waits until its answer is decided.
///
/// # Errors
/// The try failed before anything went to the client, or the client left.
pub(super) async fn attempt(
    sending: &Sending<'_>,
    client: &mut Client,
    x: &mut Exchange,
    endpoint: &Endpoint,
    target: Option<&str>,
) -> Result<(Upstream, Begun), Failure> {
    let mut fresh = false;
    loop {
        let kept = if fresh {
            None
        } else {
            Upstream::kept(sending.local, endpoint)
        };
        let mut upstream = match kept {
            Some(upstream) => upstream,
            None => {
                let opening = Upstream::open(sending.local, endpoint, sending.limits, fresh);
                let opened = watching(client, sending.limits, opening).await?;
                x.sent_to_gone += usize::from(fresh && opened.is_err());
                opened?
            }
        };
        let sent = send(sending, client, x, &mut upstream, target).await;
        let begun = match sent {
            Ok(()) => {
                let deadline = head_deadline(sending, endpoint);
                relay::begin(client, &mut upstream, x, sending.limits, deadline).await
            }
            Err(failure) => Err(failure),
        };
        match begun {
            // The server closed an idle connection at the moment we used it: most likely no failure
            // of the endpoint, which has not seen the request. Once, on a connection that is new.
            Err(failure) if upstream.reused && failure.cause == Cause::ClosedEarly => {
                fresh = true;
            }
            Err(failure) => {
                upstream.distrust(failure.cause);
                return Err(failure);
            }
            Ok(begun) => return Ok((upstream, begun)),
        }
    }
}

fn head_deadline<'a>(sending: &'a Sending<'_>, endpoint: &'a Endpoint) -> HeadDeadline<'a> {
    let now = clock::coarse();
    let mut deadline = HeadDeadline {
        due: now + sending.limits.response_head,
        cause: Cause::HeadLate,
        endpoint,
        pool: sending.pool,
        granted: &sending.granted,
        request_due: sending.due,
    };
    if let Some(within) = sending.timeouts.backend_request
        && now + within < deadline.due
    {
        deadline.due = now + within;
    }
    if let Some(due) = sending.due
        && due < deadline.due
    {
        deadline = HeadDeadline {
            due,
            cause: Cause::RouteTimeout,
            ..deadline
        };
    }
    deadline
}

/// Runs `act` while watching for the client to leave.
pub(crate) async fn watching<T>(
    client: &mut Client,
    limits: &Limits,
    act: impl Future<Output = T>,
) -> Result<T, Failure> {
    let mut act = pin!(act);
    poll_fn(|cx| {
        if let Poll::Ready(done) = act.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        match client.poll_gone(cx, limits.pipelined_bytes) {
            Poll::Ready(()) => Poll::Ready(Err(Failure::client_gone(Phase::Connect))),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Writes head and body in one go where the socket takes them.
async fn send(
    sending: &Sending<'_>,
    client: &mut Client,
    x: &mut Exchange,
    upstream: &mut Upstream,
    target: Option<&str>,
) -> Result<(), Failure> {
    let limits = sending.limits;
    let mut head = OutBuffer::take();
    let mut spliced = OutBuffer::empty();
    let [mut copied, mut untaken] = [Use::Bodies, Use::Heads].map(Charge::none);
    let body: &[u8] = match (target, &x.peek) {
        (
            Some(target),
            Some(llm::Peek {
                model: Some(model), ..
            }),
        ) if x.renamed => {
            let bytes = x.body.bytes().len() + target.len();
            if bytes > SCRATCH_BYTES {
                copied
                    .admit(cost_of(bytes))
                    .map_err(|Full| ACCOUNT.refuse(Phase::Body))?;
            }
            spliced = OutBuffer::take();
            spliced.make_room(bytes, bytes);
            llm::splice_model(x.body.bytes(), model, target, &mut spliced);
            &spliced
        }
        _ => x.body.bytes(),
    };
    write_head(x, body.len(), &mut head);
    let body = if upstream.joins(head.len() + body.len()) {
        head.extend_from_slice(body);
        b""
    } else {
        body
    };
    let mut done = 0;
    turns::after_others().await;
    client.set_deadline(Some(clock::coarse() + limits.write_stall));
    let written = poll_fn(|cx| {
        let written = upstream.poll_send(cx, (&head, body), &mut done);
        if written.is_ready() {
            return written.map(|result| result.map_err(|error| write_failed(&error)));
        }
        if head.capacity() > SHORT_HEAD_BYTES && untaken.keep(head.capacity()).is_err() {
            return Poll::Ready(Err(ACCOUNT.refuse(Phase::Body)));
        }
        if client.poll_gone(cx, limits.pipelined_bytes).is_ready() {
            return Poll::Ready(Err(Failure::client_gone(Phase::Body)));
        }
        if client.poll_late(cx) {
            let message = "the endpoint did not take the request in time";
            return Poll::Ready(Err(Failure::new(Phase::Body, Cause::HeadLate, message)));
        }
        Poll::Pending
    })
    .await;
    x.timings.sent = clock::now();
    drop((spliced, copied, untaken));
    written
}

/// Writes the head of a request with a body of so many bytes.
fn write_head(x: &Exchange, body_bytes: usize, head: &mut Vec<u8>) {
    let framing = match x.head.framing() {
        Framing::None => Framing::None,
        _ => Framing::Length(body_bytes as u64),
    };
    x.head.write(framing, head);
    if x.upgrades
        && let Some(protocol) = x.head.upgrade()
    {
        tunnel::ask(protocol.as_bytes(), head);
    }
}

fn write_failed(error: &std::io::Error) -> Failure {
    let message = format!("the endpoint closed the connection while it was sent to: {error}");
    Failure::new(Phase::Body, Cause::ClosedEarly, message)
}
