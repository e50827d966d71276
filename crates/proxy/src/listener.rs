//! Accepting connections: one socket per worker and bind, limits, and the loop of a connection.
//!
//! Sockets share the port by `SO_REUSEPORT`, so the kernel spreads connections over workers. A
//! connection's panic ends that connection only: `relay/flow.rs` catches, counts and logs it.

pub(crate) mod bind;
pub(crate) mod client;
pub(crate) mod h1;
pub(crate) mod h2;

use crate::deadline;
use crate::live::Shared;
use crate::memory::{ACCOUNT, CONNECTION_BYTES, Charge, Full, TLS_BYTES, Use};
use crate::relay::flow::Flowing;
use crate::socket::Socket;
use crate::tls;
use crate::worker::{Local, no_delay};
use std::cell::Cell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Until a socket that could not accept tries again.
const BREATHER: Duration = Duration::from_millis(50);

/// A socket to accept on, and the token that ends it.
#[derive(Debug)]
pub(crate) struct Accepting {
    pub(crate) socket: std::net::TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
}

/// Accepts until told to stop; each connection is a task of this worker.
pub(crate) async fn accept(
    local: Rc<Local>,
    shared: Arc<Shared>,
    accepting: Accepting,
    tasks: TaskTracker,
) {
    let Accepting {
        socket,
        address,
        stop,
    } = accepting;
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%address, %error, "cannot accept on a bound socket");
            return;
        }
    };
    let draining = Rc::new(Cell::new(false));
    let most = shared.limits.connections.saturating_mul(CONNECTION_BYTES);
    loop {
        let is_full = ACCOUNT.bytes(Use::Connections) >= most || ACCOUNT.is_spent();
        let accepted = tokio::select! {
            accepted = listener.accept(), if !is_full => accepted,
            () = tokio::time::sleep(BREATHER), if is_full => continue,
            () = stop.cancelled() => {
                draining.set(true);
                deadline::wake_all();
                // Who is connected already is served; dropped, the queue would reset them.
                match poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await {
                    Poll::Ready(accepted) => accepted,
                    Poll::Pending => return,
                }
            }
        };
        match accepted {
            Ok((stream, _)) => {
                no_delay(&stream);
                let arrived = Arrived {
                    bind: address,
                    draining: draining.clone(),
                    server_name: None,
                };
                // Counted before it is looked at: many may come until then.
                let open = Open::new(&local);
                let serving = serve(open, shared.clone(), stream, arrived);
                tasks.spawn_local(Flowing::new(local.clone(), serving));
            }
            Err(error) => {
                // Out of file descriptors, mostly: wait for some to be closed.
                tracing::warn!(%address, %error, "cannot accept a connection");
                tokio::time::sleep(BREATHER).await;
            }
        }
    }
}

/// A connection that was just accepted.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) bind: SocketAddr,
    /// Set when the listener goes: finish the request under way, then close.
    pub(crate) draining: Rc<Cell<bool>>,
    /// The host that the client named in its TLS handshake.
    pub(crate) server_name: Option<Box<str>>,
}

/// Counts a connection as open for as long as it lives.
struct Open {
    local: Rc<Local>,
    _charge: Charge,
}

impl Open {
    fn new(local: &Rc<Local>) -> Self {
        local.metrics.counted.connections.fetch_add(1, Relaxed);
        local.metrics.counted.connections_open.fetch_add(1, Relaxed);
        Self {
            local: local.clone(),
            _charge: Charge::fixed(Use::Connections, CONNECTION_BYTES),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.local
            .metrics
            .counted
            .connections_open
            .fetch_sub(1, Relaxed);
    }
}

/// Finds out what the client speaks and serves it. What is not plain HTTP/1.1 is boxed, so that an
/// idle connection that is takes no memory for it.
async fn serve(open: Open, shared: Arc<Shared>, stream: TcpStream, mut arrived: Arrived) {
    let (local, shared) = (&open.local, &shared);
    let ends_tls = local.live().tls(arrived.bind);
    let mut _charge = Charge::none(Use::Layers);
    let (socket, is_h2) = match ends_tls {
        None => (Socket::Tcp(stream), false),
        Some(settings) => {
            _charge = Charge::fixed(Use::Layers, TLS_BYTES);
            let accepting = tls::server::accept(local, shared, settings, stream);
            let Some(accepted) = Box::pin(accepting).await else {
                local
                    .metrics
                    .counted
                    .handshakes_failed
                    .fetch_add(1, Relaxed);
                return;
            };
            arrived.server_name = accepted.server_name;
            (accepted.socket, accepted.is_h2)
        }
    };
    let begun = if is_h2 {
        Some((socket, Vec::new()))
    } else {
        h1::serve_connection(local, shared, &mut arrived, socket).await
    };
    let Some(begun) = begun else {
        return;
    };
    match h2::admit() {
        Ok(charge) => {
            let serving = h2::serve_connection(local, shared, &arrived, (begun, charge));
            Box::pin(serving).await;
        }
        Err(Full) => Box::pin(h2::turn_away(begun.0, &shared.limits)).await,
    }
}
