//! A client's HTTP/2 connection: streams are requests, each served by the same pipeline.
//!
//! The frames are `h2`'s. One task drives a connection and all its streams, so that whatever goes
//! wrong ends with it. What a peer may do too often is counted by `h2/guard.rs`; one stream is
//! `h2/stream.rs`. What it owes its client is `h2/owed.rs`; where there is no memory, a connection is
//! turned away (`h2/refusal.rs`), and one of whose streams was refused is told to open no more.

mod guard;
mod owed;
mod refusal;
mod stream;

use crate::clock;
use crate::deadline::Deadline;
use crate::exchange::Exchange;
use crate::failure::Cause;
use crate::limits::Limits;
use crate::listener::Arrived;
use crate::listener::client::Client;
use crate::live::Shared;
use crate::memory::{ACCOUNT, Charge, H2_BYTES, H2_PLACE_BYTES, H2_STREAM_BYTES, Use};
use crate::serve;
use crate::socket::Socket;
use crate::worker::Local;
use futures_util::stream::{FuturesUnordered, Stream as _, StreamExt as _};
use guard::{Flood, Guarded};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use owed::{Owed, Part};
pub(crate) use refusal::{admit, turn_away};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
pub(crate) use stream::Stream;

/// What a client of HTTP/2 sends first (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

type Driver = Connection<Guarded, Part>;
type Opened = (Request<RecvStream>, SendResponse<Part>);

/// Serves a connection until it ends. `begun`: the socket with what came before it was known for
/// HTTP/2; and what it has of the account.
pub(crate) async fn serve_connection(
    local: &Rc<Local>,
    shared: &Arc<Shared>,
    arrived: &Arrived,
    (begun, charge): ((Socket, Vec<u8>), Charge),
) {
    let flood = Flood::default();
    let owed = Owed::nothing();
    let over_tls = begun.0.is_tls();
    let io = Guarded::new(begun, flood.clone(), owed.clone());
    let deadline = Deadline::new();
    deadline.set(clock::now() + shared.limits.head);
    let mut handshake = pin!(builder(&shared.limits).handshake(io));
    let begun = poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Pending if deadline.poll_passed(cx) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
        Poll::Ready(begun) => Poll::Ready(begun.ok()),
    });
    let Some(driver) = begun.await else {
        return;
    };
    let origin = Origin {
        local,
        shared,
        arrived,
        over_tls,
        held: Rc::default(),
        owed,
        is_refused: Cell::new(false),
        places: Cell::new(0),
        charge: RefCell::new(charge),
    };
    drive(&origin, driver, &deadline, &flood).await;
}

fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.http2.streams)
        .initial_window_size(limits.http2.stream_window)
        .initial_connection_window_size(limits.http2.connection_window)
        .max_header_list_size(limits.http1.head_bytes as u32)
        .max_send_buffer_size(limits.http2.send_buffer)
        .max_pending_accept_reset_streams(limits.http2.streams as usize)
        .max_concurrent_reset_streams(limits.http2.streams as usize);
    builder
}

/// Where the streams of a connection come from.
struct Origin<'a> {
    local: &'a Rc<Local>,
    shared: &'a Arc<Shared>,
    arrived: &'a Arrived,
    over_tls: bool,
    /// Bytes of request bodies in memory, of all streams.
    held: Rc<Cell<usize>>,
    owed: Owed,
    /// There was no memory for it or one of its streams: it is to open no more.
    is_refused: Cell<bool>,
    /// The most streams that were open at a time: the HTTP/2 code keeps their places.
    places: Cell<usize>,
    charge: RefCell<Charge>,
}

impl Origin<'_> {
    fn is_over(&self) -> bool {
        self.arrived.draining.get() || self.is_refused.get()
    }

    /// Takes what a stream costs, with so many others open. Without room, the stream is refused.
    fn admit(&self, (request, answer): &mut Opened, others: usize) -> Option<Charge> {
        let mut charge = Charge::none(Use::Layers);
        let fields = request.headers().iter();
        let fields = fields.map(|(name, value)| name.as_str().len() + value.len());
        // They are kept as they came, and as text.
        let mut room = charge.keep(H2_STREAM_BYTES + 2 * fields.sum::<usize>());
        let places = (others + 1).next_power_of_two();
        if room.is_ok() && places > self.places.get() {
            let mut held = self.charge.borrow_mut();
            room = held.keep(H2_BYTES + places * H2_PLACE_BYTES);
            if room.is_ok() {
                self.places.set(places);
            }
        }
        if room.is_err() {
            ACCOUNT.count_refusal();
            self.is_refused.set(true);
            // Nothing was done for it: it may be sent again.
            answer.send_reset(Reason::REFUSED_STREAM);
        }
        room.is_ok().then_some(charge)
    }
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The client was told to open no more streams; those that are open end.
    Draining,
    /// Nothing is left to be done, or the client is not to be served any longer.
    Closing,
}

impl Phase {
    /// A new connection has little time for its first request where that will be refused for memory.
    fn at_first() -> Self {
        match ACCOUNT.is_over() {
            true => Self::Draining,
            false => Self::Open,
        }
    }

    /// How long a connection without streams stays.
    fn patience(self, limits: &Limits) -> Duration {
        match self {
            Self::Open => limits.keep_alive,
            _ => limits.farewell,
        }
    }
}

async fn drive(origin: &Origin<'_>, mut driver: Driver, deadline: &Deadline, flood: &Flood) {
    let limits = &origin.shared.limits;
    let mut streams = FuturesUnordered::new();
    let mut phase = Phase::Open;
    let stall = Deadline::new();
    deadline.set(clock::now() + Phase::at_first().patience(limits));
    poll_fn(|cx| {
        loop {
            // Streams first: what they have to say goes out with the poll of the connection.
            let mut ended = false;
            while let Poll::Ready(Some(())) = Pin::new(&mut streams).poll_next(cx) {
                ended = true;
            }
            if ended && streams.is_empty() && phase != Phase::Closing {
                deadline.set(clock::now() + phase.patience(limits));
            }
            if flood.is_over() && phase != Phase::Closing {
                origin.local.metrics.counted.floods.fetch_add(1, Relaxed);
                driver.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                phase = Phase::Closing;
                deadline.set(clock::now() + phase.patience(limits));
            }
            if phase == Phase::Open && origin.is_over() {
                phase = drain(&mut driver, deadline, limits, streams.is_empty());
            }
            match driver.poll_accept(cx) {
                Poll::Ready(Some(Ok(mut opened))) => {
                    if let Some(charge) = origin.admit(&mut opened, streams.len()) {
                        deadline.clear();
                        streams.push(serve_stream(origin, opened, charge));
                    }
                    continue;
                }
                Poll::Ready(ended) => {
                    let error = ended.and_then(Result::err);
                    let is_flood = flood.is_over() || error.is_some_and(|error| is_flood(&error));
                    if is_flood && phase != Phase::Closing {
                        origin.local.metrics.counted.floods.fetch_add(1, Relaxed);
                    }
                    return Poll::Ready(());
                }
                Poll::Pending => origin.owed.settle(),
            }
            if stalls(cx, &origin.owed, &stall, limits) {
                return Poll::Ready(());
            }
            return match late(cx, deadline, streams.is_empty(), &mut phase) {
                Late::No => Poll::Pending,
                Late::Drain => {
                    phase = drain(&mut driver, deadline, limits, true);
                    continue;
                }
                Late::End => Poll::Ready(()),
            };
        }
    })
    .await;
    // Without a connection every client has gone: what is under way notes that and ends.
    drop(driver);
    while streams.next().await.is_some() {}
}

/// Whether the HTTP/2 code ended a connection for what it was made to hold or do: heads without end or
/// of too many bytes, resets, windows beyond their maximum. See `h2/guard.rs` for the rest.
fn is_flood(error: &h2::Error) -> bool {
    let floods = [
        Reason::ENHANCE_YOUR_CALM,
        Reason::COMPRESSION_ERROR,
        Reason::FLOW_CONTROL_ERROR,
    ];
    error.is_library()
        && error
            .reason()
            .is_some_and(|reason| floods.contains(&reason))
}

/// Whether the client has taken nothing for as long as it may.
fn stalls(cx: &Context<'_>, owed: &Owed, stall: &Deadline, limits: &Limits) -> bool {
    if !owed.is_blocked() {
        return false;
    }
    if owed.has_moved() {
        stall.set(clock::now() + limits.write_stall);
    }
    stall.poll_passed(cx)
}

enum Late {
    No,
    Drain,
    End,
}

fn late(cx: &Context<'_>, deadline: &Deadline, is_idle: bool, phase: &mut Phase) -> Late {
    if !deadline.poll_passed(cx) {
        return Late::No;
    }
    match *phase {
        Phase::Open if is_idle => Late::Drain,
        _ if is_idle => Late::End,
        Phase::Closing => Late::End,
        _ => Late::No,
    }
}

/// Tells the client to open no more streams (GOAWAY).
fn drain(driver: &mut Driver, deadline: &Deadline, limits: &Limits, is_idle: bool) -> Phase {
    driver.graceful_shutdown();
    if is_idle {
        deadline.set(clock::now() + limits.farewell);
    }
    Phase::Draining
}

/// Serves one stream of the connection.
async fn serve_stream(origin: &Origin<'_>, (request, answer): Opened, charge: Charge) {
    let Origin { local, shared, .. } = origin;
    let mut exchange = Box::new(Exchange::new());
    exchange.bind = origin.arrived.bind;
    exchange.server_name = origin.arrived.server_name.clone();
    exchange.over_tls = origin.over_tls;
    exchange.unframed = true;
    let was_head = request.method() == http::Method::HEAD;
    let draining = origin.arrived.draining.clone();
    let held = stream::Share::new(origin.held.clone());
    let wire = (answer, origin.owed.clone(), charge);
    let mut stream = Stream::new(wire, draining, was_head, &shared.limits);
    let received =
        stream::receive(&mut stream, request, &mut exchange, (&shared.limits, &held)).await;
    let mut client = Client::H2(stream);
    // Where nothing was done for it and not even that can be said, it may be sent again.
    let unsaid = match received {
        Ok(()) => Reason::INTERNAL_ERROR,
        Err(_) => Reason::REFUSED_STREAM,
    };
    match received {
        Ok(()) => {
            serve::serve(local, shared, &mut client, &mut exchange).await;
        }
        Err(failure) => serve::refuse(local, shared, &mut client, &mut exchange, failure).await,
    }
    if let Some(failure) = &exchange.failure
        && failure.cause == Cause::Memory
    {
        origin.is_refused.set(true);
    }
    if let Client::H2(stream) = &mut client {
        stream.close(unsaid);
    }
}
