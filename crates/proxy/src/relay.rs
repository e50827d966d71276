//! The way back: from the first byte of an endpoint's answer to the last byte at the client.
//!
//! [`begin`] reads until the answer is decided: the response head or, for an event stream, its
//! first event, since an engine sends `200` before it knows whether it can answer. [`finish`]
//! then forwards what each read brings with one write, waits for a slow client before it reads on,
//! scans the bytes on the side, and watches for the client to leave.

mod ends;
pub(crate) mod flow;
mod heartbeat;
mod picking;
mod reply;
pub(crate) mod spares;
mod stream;
mod trailers;

use crate::clock;
use crate::exchange::Exchange;
use crate::failure::{Cause, Failure, Phase};
use crate::limits::Limits;
use crate::listener::client::Client;
use crate::memory::{ACCOUNT, Charge, Full, Use};
use crate::pool::lease::Lease;
use crate::pool::{Endpoint, Pool};
use crate::retry;
use crate::tunnel;
use crate::upstream::{Upstream, Wire};
use crate::worker::{OutBuffer, Scratch};
use ends::{broken, closed_early, late, not_a_stream, vanished};
use heartbeat::Heartbeat;
use picker::Micros;
pub(crate) use picking::answered;
pub(crate) use reply::Reply;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::task::{Context, Poll};
use std::time::Duration;
use stream::stream;

/// What happened while waiting for an endpoint.
#[derive(Debug)]
enum Event {
    Bytes(Scratch, usize),
    Broken(io::Error),
    ClientGone,
    Late,
}

async fn next(client: &mut Client, upstream: &mut Upstream, limits: &Limits) -> Event {
    poll_fn(|cx| poll_event(client, upstream, limits, cx)).await
}

#[inline]
fn poll_event(
    client: &mut Client,
    upstream: &mut Upstream,
    limits: &Limits,
    cx: &mut Context<'_>,
) -> Poll<Event> {
    match upstream.poll_read(cx) {
        Poll::Ready(Ok((scratch, count))) => return Poll::Ready(Event::Bytes(scratch, count)),
        Poll::Ready(Err(error)) => return Poll::Ready(Event::Broken(error)),
        Poll::Pending => {}
    }
    if client.poll_gone(cx, limits.pipelined_bytes).is_ready() {
        return Poll::Ready(Event::ClientGone);
    }
    if client.poll_late(cx) {
        return Poll::Ready(Event::Late);
    }
    Poll::Pending
}

/// How often a wait for a head asks whether it is in vain.
const LOOK_FOR_HEAD: Duration = Duration::from_secs(1);

/// When the wait for the response head ends, and what the failure is then; whose head it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadDeadline<'a> {
    pub(crate) due: Micros,
    pub(crate) cause: Cause,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) pool: &'a Pool,
    /// Set when a retry has been paid for.
    pub(crate) granted: &'a Cell<bool>,
    /// The whole request must be over by then.
    pub(crate) request_due: Option<Micros>,
}

impl HeadDeadline<'_> {
    /// From the head of an event stream to its first event: as long as between two events.
    fn for_first_event(self, limits: &Limits) -> Self {
        let idle_at = clock::coarse() + limits.stream_idle;
        let (due, cause) = match self.request_due {
            Some(due) if due < idle_at => (due, Cause::RouteTimeout),
            _ => (idle_at, Cause::HeadLate),
        };
        Self { due, cause, ..self }
    }
}

/// When a wait until `due` looks whether the endpoint is still there.
fn look_by(due: Micros, limits: &Limits) -> Micros {
    due.min(clock::coarse() + limits.look.min(LOOK_FOR_HEAD))
}

/// The failure of a wait at an endpoint that hangs, if another may be tried.
fn in_vain(x: &Exchange, deadline: &HeadDeadline<'_>) -> Option<Failure> {
    let began = x.attempts.last()?.started;
    if !deadline.pool.is_in_vain(deadline.endpoint.id, began) {
        return None;
    }
    let failure = late(Cause::HeadLate);
    retry::allowed(deadline.pool, x, &failure).then(|| {
        deadline.granted.set(true);
        failure
    })
}

/// What is to be done when a wait for the decision has lasted until it looks around.
async fn look(
    client: &mut Client,
    x: &Exchange,
    (deadline, limits): (&HeadDeadline<'_>, &Limits),
    heartbeat: &mut Heartbeat,
) -> Result<(), Failure> {
    if clock::now() >= deadline.due {
        return Err(late(deadline.cause));
    }
    if deadline.endpoint.reach.is_gone_for(limits.vanished) {
        return Err(vanished());
    }
    if deadline.pool.inference
        && let Some(failure) = in_vain(x, deadline)
    {
        return Err(failure);
    }
    if x.response.owes_event {
        heartbeat.beat(client, x, Micros(0), limits).await?;
    }
    client.set_deadline(Some(look_by(deadline.due, limits)));
    Ok(())
}

/// A decided answer: the reply and the bytes for the client that are ready so far.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) reply: Box<Reply>,
    pub(crate) ready: OutBuffer,
    /// Raw body bytes of the read that decided it: forwarded from the read buffer.
    pub(crate) raw: Option<(Scratch, Range<usize>)>,
}

impl Begun {
    fn new(reply: Box<Reply>, ready: OutBuffer, raw: Option<(Scratch, Range<usize>)>) -> Self {
        Self { reply, ready, raw }
    }
}

/// Reads until the answer is decided. The client has nothing of it then, but for the head of an
/// event stream whose first event takes long.
///
/// # Errors
/// The endpoint closed, reset, sent what HTTP/1.1 forbids, was late, or began its event stream
/// with an error event; or the client left.
pub(crate) async fn begin(
    client: &mut Client,
    upstream: &mut Upstream,
    x: &mut Exchange,
    limits: &Limits,
    mut deadline: HeadDeadline<'_>,
) -> Result<Begun, Failure> {
    let mut reply = spares::reply(x, limits);
    let mut partial = OutBuffer::empty();
    let mut ready = OutBuffer::empty();
    let mut held = Charge::none(Use::Undecided);
    let mut received = false;
    let mut opened = false;
    let mut heartbeat = Heartbeat::new();
    client.set_deadline(Some(look_by(deadline.due, limits)));
    loop {
        let event = match x.picking {
            None => next(client, upstream, limits).await,
            Some(_) => picking::next(client, upstream, x, limits).await?,
        };
        let (scratch, count) = match event {
            Event::Bytes(scratch, count) => (scratch, count),
            Event::Broken(error) => return Err(broken(&error, received)),
            Event::ClientGone => return Err(Failure::client_gone(Phase::Head)),
            Event::Late if reply.holds() && !opened => {
                opened = true;
                open(client, x, &mut reply, (limits, deadline.endpoint)).await?;
                // What it held of the head went out, mostly.
                let _ = held.keep(ready.capacity() + reply.head_bytes());
                deadline = deadline.for_first_event(limits);
                client.set_deadline(Some(look_by(deadline.due, limits)));
                continue;
            }
            Event::Late => {
                look(client, x, (&deadline, limits), &mut heartbeat).await?;
                continue;
            }
        };
        if count == 0 && !reply.has_head() {
            return Err(closed_early(received));
        }
        received = true;
        if reply.has_head() {
            ready.have();
            reply.take(scratch.get(..count).unwrap_or_default(), &mut ready)?;
        } else if let Some(raw) =
            first_bytes(&mut reply, &mut partial, &mut ready, (scratch, count))?
        {
            client.set_deadline(None);
            return Ok(Begun::new(reply, ready, Some(raw)));
        } else if reply.holds() && !opened {
            client.set_deadline(Some(clock::coarse() + limits.first_event_hold));
        }
        // Once the head is out, comments that keep a connection alive pass too.
        let passes = opened && !ready.is_empty() && reply.at_event_border();
        let full = passes || ready.len() > limits.first_event_bytes;
        if reply.decided(count == 0, full)? {
            client.set_deadline(None);
            return Ok(Begun::new(reply, ready, None));
        }
        let room = held.keep(partial.capacity() + ready.capacity() + reply.head_bytes());
        room.map_err(|Full| ACCOUNT.refuse(Phase::Head))?;
    }
}

/// Sends the head of an event stream ahead of its first event: clients wait for heads less
/// patiently than for events.
async fn open(
    client: &mut Client,
    x: &mut Exchange,
    reply: &mut Reply,
    (limits, endpoint): (&Limits, &Endpoint),
) -> Result<(), Failure> {
    if x.response.head_sent {
        return Ok(());
    }
    if x.picking.is_some() {
        picking::respond(client, x, reply.head_mut(), endpoint.address, limits).await?;
    }
    let mut head = OutBuffer::take();
    reply.write_head(x, &mut head);
    x.response.head_sent = true;
    x.response.owes_event = true;
    x.response.status = reply.status();
    client.offer(&head, b"").await?;
    drop(head);
    client.flush(limits).await
}

/// Bytes before the head is complete. Returns the body bytes to forward as they are, where the
/// reply passes them so and the head came in one read.
fn first_bytes(
    reply: &mut Reply,
    partial: &mut OutBuffer,
    ready: &mut OutBuffer,
    (scratch, count): (Scratch, usize),
) -> Result<Option<(Scratch, Range<usize>)>, Failure> {
    let bytes = scratch.get(..count).unwrap_or_default();
    if partial.is_empty() {
        return match reply.parse_head(bytes)? {
            Some(start) if reply.passes_raw() => {
                let used = reply.scan_raw(bytes.get(start..).unwrap_or_default())?;
                Ok(Some((scratch, start..start + used)))
            }
            Some(start) => {
                ready.have();
                reply.take(bytes.get(start..).unwrap_or_default(), ready)?;
                Ok(None)
            }
            None => {
                partial.extend_from_slice(bytes);
                Ok(None)
            }
        };
    }
    partial.extend_from_slice(bytes);
    if let Some(start) = reply.parse_head(partial)? {
        let held = std::mem::replace(partial, OutBuffer::empty());
        ready.have();
        reply.take(held.get(start..).unwrap_or_default(), ready)?;
    }
    Ok(None)
}

/// What a relay needs besides the client: where bytes come from, whom to tell of the first token,
/// and when it must be over.
#[derive(Debug)]
pub(crate) struct Way<'a, 'p> {
    pub(crate) upstream: &'a mut Upstream,
    pub(crate) lease: &'a mut Lease<'p>,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) limits: &'a Limits,
    pub(crate) due: Option<Micros>,
}

impl Way<'_, '_> {
    /// Whether the client can be told of trailers and some may come. What has a length is known to
    /// be whole before they do.
    fn awaits_trailers(&self, client: &Client) -> bool {
        self.upstream.may_bring_trailers() && client.takes_trailers()
    }

    /// Notes the first token once there is one; answers that are no stream count with their head.
    fn first_token(&mut self, reply: &Reply, x: &mut Exchange) {
        if x.timings.first_token.0 == 0 && !reply.holds() {
            x.timings.first_token = clock::now();
            self.lease.first_token();
        }
    }
}

/// Sends head and body to the client until the response ends. Whatever happens, `x` knows then
/// what was sent and learnt.
///
/// # Errors
/// The client left, or the endpoint's answer was cut; the client has been told in the way that is
/// left at that point (a typed error event, or a connection that ends early).
pub(crate) async fn finish(
    client: &mut Client,
    x: &mut Exchange,
    mut way: Way<'_, '_>,
    begun: Begun,
) -> Result<Box<Reply>, Failure> {
    let Begun {
        mut reply,
        ready,
        raw,
    } = begun;
    let mut head = OutBuffer::empty();
    if !x.response.head_sent && x.picking.is_some() {
        let served = way.endpoint.address;
        picking::respond(client, x, reply.head_mut(), served, way.limits).await?;
    }
    if !x.response.head_sent {
        head = OutBuffer::take();
        x.keep_alive &= !client.is_draining();
        reply.write_head(x, &mut head);
        x.response.head_sent = true;
        x.response.status = reply.status();
    } else if !reply.resumes() {
        return Err(not_a_stream(reply.status()));
    }
    x.response.owes_event = false;
    way.first_token(&reply, x);
    let body = match &raw {
        Some((scratch, range)) => scratch.get(range.clone()).unwrap_or_default(),
        None => &[],
    };
    client.hold_open(way.awaits_trailers(client));
    let mut sent = reply.send(client, &head, &ready, body).await;
    drop((ready, raw, head));
    if sent.is_ok() && reply.switches() {
        sent = switched(client, x, &mut way).await;
    } else if sent.is_ok() {
        // No retry any more: the request's memory goes back while the stream runs.
        x.body.release();
        let is_over = reply.is_passed() && client.has_all() && x.picking.is_none();
        if !is_over {
            (reply, sent) = stream(client, x, &mut way, reply).await;
        }
    }
    if !reply.switches() {
        reply.record(x);
    }
    sent.map(|()| reply)
}

/// The connection becomes another protocol's; it ends with it.
async fn switched(
    client: &mut Client,
    x: &mut Exchange,
    way: &mut Way<'_, '_>,
) -> Result<(), Failure> {
    client.flush(way.limits).await?;
    x.body.release();
    let Wire::H1(server) = &mut way.upstream.wire else {
        return Ok(());
    };
    let sent = Box::pin(tunnel::run(client, server, way.limits)).await;
    x.response.bytes = sent?;
    Ok(())
}

/// The error event of a stream of which the client has the head and nothing else.
pub(crate) async fn tell(client: &mut Client, x: &Exchange, limits: &Limits, failure: &Failure) {
    let mut event = OutBuffer::take();
    llm::error_event(x.api.dialect(), &failure.text(), &mut event);
    let mut framed = OutBuffer::take();
    if x.unframed {
        framed.extend_from_slice(&event);
    } else {
        http1::write_chunk(&event, &mut framed);
        framed.extend_from_slice(http1::LAST_CHUNK);
    }
    // The client may have left meanwhile; the failure to report stays the same.
    if client.offer(&framed, b"").await.is_ok() {
        let _ = client.end(None, limits).await;
        let _ = client.flush(limits).await;
    }
}

/// Tells the client that its answer ends too early, and returns the failure.
async fn cut(client: &mut Client, reply: &mut Reply, limits: &Limits, failure: Failure) -> Failure {
    if reply.write_cut(client, &failure, limits).await.is_ok() {
        // The client may have left meanwhile; the failure to report is the first one.
        let _ = client.flush(limits).await;
    }
    failure
}
