//! Sockets: the port, the accept loop, one task per connection, and how a connection is reset.
//! Every task is on one tracker and ends with the cancellation token.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api;
use crate::driver::{Driver, EngineHandle};
use crate::faults::FaultBook;
use crate::journal::Journal;
use crate::spec::{Listen, MockSpec, per_mille};

/// A mock server whose port is bound and that does not serve yet.
#[derive(Debug)]
pub struct Mock {
    listener: std::net::TcpListener,
    address: SocketAddr,
    spec: MockSpec,
    faults: Arc<FaultBook>,
}

impl Mock {
    /// Takes the port.
    ///
    /// # Errors
    /// When the address cannot be bound, or the spec names no model.
    pub fn bind(mut spec: MockSpec) -> io::Result<Self> {
        if spec.models.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the mock server has no model: name at least one",
            ));
        }
        let any = Listen::Address(SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = match core::mem::replace(&mut spec.listen, any) {
            Listen::Address(address) => std::net::TcpListener::bind(address)?,
            Listen::Bound(listener) => listener,
        };
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let faults = Arc::new(FaultBook::new(core::mem::take(&mut spec.faults), spec.seed));
        Ok(Self {
            listener,
            address,
            spec,
            faults,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its faults, to change while it serves.
    #[must_use]
    pub fn faults(&self) -> Arc<FaultBook> {
        Arc::clone(&self.faults)
    }

    /// Serves until cancelled; open connections are then closed without ceremony.
    ///
    /// # Errors
    /// When the listening socket cannot be used.
    pub async fn serve(self, cancel: CancellationToken) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let tracker = TaskTracker::new();
        let (driver, engine) = Driver::new(self.spec.engine);
        tracker.spawn(driver.run(cancel.clone()));
        let speed = per_mille(self.spec.speed);
        engine.set_speed(speed).await;
        let server = Arc::new(Server::new(self.spec, self.faults, engine));
        let mut connections = 0;
        loop {
            let accepted = tokio::select! {
                () = cancel.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    connections += 1;
                    let connection = Arc::new(Connection::new(connections));
                    let task = converse(Arc::clone(&server), stream, connection, cancel.clone());
                    tracker.spawn(task);
                }
                Err(error) => {
                    // Out of descriptors, most likely: wait for some to come back.
                    tracing::warn!(%error, "mock server cannot accept");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        drop(listener);
        tracker.close();
        tracker.wait().await;
        Ok(())
    }
}

/// Binds and serves until cancelled: [`Mock::bind`] and [`Mock::serve`] in one.
///
/// # Errors
/// As both.
pub async fn serve(spec: MockSpec, cancel: CancellationToken) -> io::Result<()> {
    Mock::bind(spec)?.serve(cancel).await
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) spec: MockSpec,
    pub(crate) faults: Arc<FaultBook>,
    pub(crate) engine: EngineHandle,
    pub(crate) journal: Journal,
    /// The page that `metrics-frozen` shows.
    pub(crate) frozen: Mutex<Option<String>>,
    started: Instant,
    started_unix: f64,
    answers: AtomicU64,
}

impl Server {
    fn new(mut spec: MockSpec, faults: Arc<FaultBook>, engine: EngineHandle) -> Self {
        let kv_tokens = u32::try_from(spec.engine.kv_tokens()).unwrap_or(u32::MAX);
        spec.max_model_len = spec.max_model_len.min(kv_tokens).max(1);
        Self {
            spec,
            faults,
            engine,
            journal: Journal::new(),
            frozen: Mutex::new(None),
            started: Instant::now(),
            started_unix: unix_seconds(),
            answers: AtomicU64::new(0),
        }
    }

    /// Unix time of the start, in seconds.
    pub(crate) fn started_unix(&self) -> f64 {
        self.started_unix
    }

    /// Unix time, in seconds.
    pub(crate) fn created(&self) -> u64 {
        self.started_unix as u64 + self.started.elapsed().as_secs()
    }

    /// A name for an answer, different for each.
    pub(crate) fn answer_id(&self) -> String {
        let count = self.answers.fetch_add(1, Ordering::Relaxed);
        let draw = twox_hash::XxHash3_64::oneshot_with_seed(self.spec.seed, &count.to_le_bytes());
        format!("{draw:016x}")
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "`created` in answers is wall time"
)]
fn unix_seconds() -> f64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// One client connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    reset: AtomicBool,
}

impl Connection {
    fn new(id: u64) -> Self {
        Self {
            id,
            reset: AtomicBool::new(false),
        }
    }

    /// The connection shall end in a reset: the caller then fails its request.
    pub(crate) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }
}

async fn converse(
    server: Arc<Server>,
    stream: TcpStream,
    connection: Arc<Connection>,
    cancel: CancellationToken,
) {
    // Without it only latency suffers.
    let _ = stream.set_nodelay(true);
    let socket = Socket {
        stream,
        connection: Arc::clone(&connection),
    };
    let service = hyper::service::service_fn(|request| {
        let (server, connection) = (Arc::clone(&server), Arc::clone(&connection));
        // On the heap: a request's future is large, and a connection holds one at most.
        Box::pin(api::answer(server, connection, request))
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        () = cancel.cancelled() => {}
        ended = serving => {
            if let Err(error) = ended {
                tracing::debug!(%error, connection = connection.id, "connection failed");
            }
        }
    }
}

/// A TCP stream that can end in a reset instead of a clean close.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.connection.is_reset() {
            // A close with zero linger sends RST. If it fails the peer gets FIN instead.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.connection.is_reset() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
