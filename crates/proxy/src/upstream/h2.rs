//! HTTP/2 towards endpoints: connections that many requests share, per worker and endpoint.
//!
//! A further connection is opened when all are full. One whose peer said goodbye or failed takes no
//! new requests; the streams that are open on it end as they would. Connections that nobody
//! used for a while are let go. One that is silent while it has requests is asked whether its
//! server is still there (`h2/ping.rs`).

mod ping;
mod stream;

use crate::clock;
use crate::failure::{Cause, Failure, Phase};
use crate::limits::Limits;
use crate::pool::Endpoint;
use crate::upstream::{Upstream, Wire, h1};
use crate::worker::Local;
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use picker::Micros;
use rustc_hash::FxHashMap;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
pub(crate) use stream::Stream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections to one endpoint.
const MOST_CONNECTIONS: usize = 16;
/// How long one may be unused.
const MOST_IDLE: Duration = Duration::from_secs(60);

/// The HTTP/2 connections of one worker, by endpoint.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    known: RefCell<FxHashMap<u64, Vec<Connection>>>,
    /// One connection is made at a time per endpoint: those who wait may find room on it.
    dialling: RefCell<FxHashMap<u64, Arc<Semaphore>>>,
    drivers: RefCell<JoinSet<()>>,
}

#[derive(Debug, Clone)]
struct Connection {
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    used: Micros,
}

/// What the streams of a connection and its driver know of it.
#[derive(Debug)]
struct State {
    /// Cleared when it is not to be used any more.
    usable: Cell<bool>,
    streams: Cell<usize>,
}

/// A stream's place on its connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat(Rc<State>);

impl Seat {
    fn new(state: Rc<State>) -> Self {
        state.streams.set(state.streams.get() + 1);
        Self(state)
    }

    /// The connection takes no further requests.
    pub(crate) fn distrust(&self) {
        self.0.usable.set(false);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let streams = &self.0.streams;
        streams.set(streams.get().saturating_sub(1));
    }
}

impl Connection {
    fn has_room(&self) -> bool {
        self.state.streams.get() < self.sender.current_max_send_streams()
    }
}

impl Connections {
    /// A connection with room for a request.
    fn take(&self, endpoint: u64) -> Option<Connection> {
        let mut known = self.known.borrow_mut();
        let list = known.get_mut(&endpoint)?;
        list.retain(|one| one.state.usable.get());
        let full = list.len() >= MOST_CONNECTIONS;
        let found = list.iter_mut().find(|one| full || one.has_room())?;
        found.used = clock::coarse();
        Some(found.clone())
    }

    /// Runs something short beside the requests, such as the end of a conversation.
    pub(crate) fn attend(&self, act: impl Future<Output = ()> + 'static) {
        self.drivers.borrow_mut().spawn_local(act);
    }

    /// No further requests over the connections to this endpoint: it fell silent.
    pub(crate) fn distrust(&self, endpoint: u64) {
        for one in self.known.borrow().get(&endpoint).into_iter().flatten() {
            one.state.usable.set(false);
        }
    }

    fn turn(&self, endpoint: u64) -> Arc<Semaphore> {
        let mut dialling = self.dialling.borrow_mut();
        let turn = dialling.entry(endpoint);
        turn.or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
    }

    /// Lets go of connections that nobody used for a while; called by the worker's tick.
    pub(crate) fn expire(&self, now: Micros) {
        self.known.borrow_mut().retain(|_, list| {
            list.retain(|one| {
                let unused = now.0.saturating_sub(one.used.0) > MOST_IDLE.as_micros() as u64;
                one.state.usable.get() && !unused
            });
            !list.is_empty()
        });
        let known = self.known.borrow();
        let keep = |endpoint: &u64, turn: &mut Arc<Semaphore>| {
            Arc::strong_count(turn) > 1 || known.contains_key(endpoint)
        };
        self.dialling.borrow_mut().retain(keep);
        while self.drivers.borrow_mut().try_join_next().is_some() {}
    }
}

/// A stream on a connection to `endpoint`.
///
/// # Errors
/// A connect that failed or took longer than `limits.connect`.
pub(super) async fn open(
    local: &Local,
    endpoint: &Endpoint,
    limits: &Limits,
    fresh: bool,
) -> Result<Upstream, Failure> {
    let (sender, seat, reused) = seat(local, endpoint, limits, fresh).await?;
    let over_tls = matches!(endpoint.transport.tls, crate::pool::Tls::Connect(_));
    Ok(Upstream {
        wire: Wire::H2(Box::new(Stream::new(sender, seat, over_tls))),
        reused,
    })
}

/// Room for one stream on a connection to `endpoint`, and whether the connection was there before.
///
/// # Errors
/// A connect that failed or took longer than `limits.connect`.
pub(crate) async fn seat(
    local: &Local,
    endpoint: &Endpoint,
    limits: &Limits,
    fresh: bool,
) -> Result<(SendRequest<Bytes>, Seat, bool), Failure> {
    let mut known = local.multiplexed.take(endpoint.uid).filter(|_| !fresh);
    let mut _turn = None;
    if known.is_none() && !fresh {
        // Not behind the whole wait of one who dials in vain: then each on its own.
        let turn = local.multiplexed.turn(endpoint.uid).acquire_owned();
        let turn = tokio::time::timeout(limits.connect, turn).await;
        _turn = turn.ok().and_then(Result::ok);
        known = local.multiplexed.take(endpoint.uid);
    }
    let reused = known.is_some();
    let connection = match known {
        Some(connection) => connection,
        None => connect(local, endpoint, limits).await?,
    };
    Ok((connection.sender, Seat::new(connection.state), reused))
}

async fn connect(
    local: &Local,
    endpoint: &Endpoint,
    limits: &Limits,
) -> Result<Connection, Failure> {
    let heard = ping::Heard::new();
    let socket = ping::Socket::new(h1::dial(endpoint, limits).await?, heard.clone());
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits.http2.stream_window)
        .initial_connection_window_size(limits.http2.connection_window)
        .max_header_list_size(limits.http1.head_bytes as u32)
        .max_send_buffer_size(limits.http2.send_buffer);
    let shaking = tokio::time::timeout(limits.handshake, builder.handshake(socket));
    let error = match shaking.await {
        Ok(Ok((sender, driver))) => {
            let state = Rc::new(State {
                usable: Cell::new(true),
                streams: Cell::new(0),
            });
            let ended = state.clone();
            local
                .multiplexed
                .drivers
                .borrow_mut()
                .spawn_local(ping::drive(driver, (ended, heard), limits.http2));
            let connection = Connection {
                sender,
                state,
                used: clock::now(),
            };
            let mut known = local.multiplexed.known.borrow_mut();
            known
                .entry(endpoint.uid)
                .or_default()
                .push(connection.clone());
            return Ok(connection);
        }
        Ok(Err(error)) => described(&error),
        Err(_) => format!("no http/2 within {:?}", limits.handshake),
    };
    let message = format!("cannot connect to endpoint {}: {error}", endpoint.name);
    Err(Failure::new(Phase::Connect, Cause::ConnectFailed, message))
}

/// What broke, without the words of a GOAWAY: they may quote a request, and all who share the
/// connection would read them.
pub(crate) fn described(error: &h2::Error) -> String {
    match error.reason() {
        Some(reason) if error.is_go_away() => {
            let by = if error.is_remote() { "told" } else { "found" };
            format!("connection error {by}: {reason}")
        }
        _ => error.to_string(),
    }
}
