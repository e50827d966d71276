//! A client's HTTP/2 connection: streams are requests, each served by the same pipeline.
//!
//! The frames are `h2`'s. One task drives a connection and all its streams, so that whatever goes
//! wrong ends with it. What a peer may do too often is counted by `h2/guard.rs`; one stream is
//! `h2/stream.rs`.

mod guard;
mod stream;

use crate::clock;
use crate::deadline::Deadline;
use crate::exchange::Exchange;
use crate::limits::Limits;
use crate::listener::Arrived;
use crate::listener::client::Client;
use crate::live::Shared;
use crate::memory::{ACCOUNT, Charge, H2_BYTES, Use};
use crate::serve;
use crate::socket::Socket;
use crate::worker::Local;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, Stream as _};
use guard::{Flood, Guarded};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
pub(crate) use stream::Stream;

/// What a client of HTTP/2 sends first (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

type Driver = Connection<Guarded, Bytes>;

/// Serves a connection until it ends. `read`: what came before it was known for HTTP/2.
pub(crate) async fn serve_connection(
    local: &Rc<Local>,
    shared: &Arc<Shared>,
    arrived: &Arrived,
    (socket, read): (Socket, Vec<u8>),
) {
    let flood = Flood::default();
    let over_tls = socket.is_tls();
    let _charge = Charge::fixed(Use::Layers, H2_BYTES);
    let io = Guarded::new(socket, read, flood.clone());
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

async fn drive(origin: &Origin<'_>, mut driver: Driver, deadline: &Deadline, flood: &Flood) {
    let limits = &origin.shared.limits;
    let mut streams = FuturesUnordered::new();
    let mut phase = Phase::Open;
    deadline.set(clock::now() + limits.keep_alive);
    poll_fn(|cx| {
        loop {
            // Streams first: what they have to say goes out with the poll of the connection.
            let mut ended = false;
            while let Poll::Ready(Some(())) = Pin::new(&mut streams).poll_next(cx) {
                ended = true;
            }
            if ended && streams.is_empty() && phase != Phase::Closing {
                let patience = match phase {
                    Phase::Open => limits.keep_alive,
                    _ => limits.farewell,
                };
                deadline.set(clock::now() + patience);
            }
            if flood.is_over() && phase != Phase::Closing {
                origin.local.metrics.counted.floods.fetch_add(1, Relaxed);
                driver.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                phase = Phase::Closing;
                deadline.set(clock::now() + limits.farewell);
            }
            if phase == Phase::Open && origin.arrived.draining.get() {
                phase = drain(&mut driver, deadline, limits, streams.is_empty());
            }
            match driver.poll_accept(cx) {
                Poll::Ready(Some(Ok(opened))) => {
                    deadline.clear();
                    streams.push(serve_stream(origin, opened));
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
                Poll::Pending => {}
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
    while poll_fn(|cx| Pin::new(&mut streams).poll_next(cx))
        .await
        .is_some()
    {}
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
async fn serve_stream(
    origin: &Origin<'_>,
    (request, answer): (Request<RecvStream>, SendResponse<Bytes>),
) {
    let Origin { local, shared, .. } = origin;
    let mut exchange = Box::new(Exchange::new());
    exchange.bind = origin.arrived.bind;
    exchange.server_name = origin.arrived.server_name.clone();
    exchange.over_tls = origin.over_tls;
    exchange.unframed = true;
    let was_head = request.method() == http::Method::HEAD;
    let draining = origin.arrived.draining.clone();
    let held = stream::Share::new(origin.held.clone());
    let mut stream = Stream::new(answer, draining, was_head, &shared.limits);
    let received =
        stream::receive(&mut stream, request, &mut exchange, (&shared.limits, &held)).await;
    let mut client = Client::H2(stream);
    match received {
        Ok(()) if ACCOUNT.is_over() => {
            let failure = ACCOUNT.refuse(crate::failure::Phase::Request);
            serve::refuse(local, shared, &mut client, &mut exchange, failure).await;
        }
        Ok(()) => {
            serve::serve(local, shared, &mut client, &mut exchange).await;
        }
        Err(failure) => serve::refuse(local, shared, &mut client, &mut exchange, failure).await,
    }
    if let Client::H2(stream) = &mut client {
        stream.close();
    }
}
