//! Connections to endpoints: connect, send a request, read its response, keep for later.
//!
//! `h1` over the codec of the crate `http1`, `h2` over shared connections. Both give the relay the
//! same: bytes of HTTP/1.1. `fetch` is the small client of the telemetry.

pub(crate) mod fetch;
pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod idle;

use crate::failure::{Cause, Failure};
use crate::limits::Limits;
use crate::pool::Endpoint;
use crate::socket::{Socket, TOGETHER_BYTES};
use crate::worker::{Local, Scratch, no_delay};
use std::io;
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// A new TCP connection to `endpoint`, which is there, then.
async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(endpoint.address).await?;
    endpoint.reach.found();
    no_delay(&stream);
    Ok(stream)
}

/// A connection to an endpoint, or a stream of one, with a request on it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) wire: Wire,
    /// It has served a request before, so it may turn out to be closed.
    pub(crate) reused: bool,
}

/// What the request goes over.
#[derive(Debug)]
pub(crate) enum Wire {
    H1(Socket),
    H2(Box<h2::Stream>),
}

impl Upstream {
    /// A connection of HTTP/1.1 that waits for its next request.
    pub(crate) fn kept(local: &Local, endpoint: &Endpoint) -> Option<Self> {
        let socket = local.idle.take(endpoint.uid)?;
        Some(Self {
            wire: Wire::H1(socket),
            reused: true,
        })
    }

    /// A new connection to `endpoint`; with HTTP/2, a known one unless it must be `fresh`.
    ///
    /// # Errors
    /// A connect that failed or took longer than `limits.connect`.
    pub(crate) async fn open(
        local: &Local,
        endpoint: &Endpoint,
        limits: &Limits,
        fresh: bool,
    ) -> Result<Self, Failure> {
        if endpoint.transport.is_h2 {
            return Box::pin(h2::open(local, endpoint, limits, fresh)).await;
        }
        h1::connect(endpoint, limits).await
    }

    /// The next bytes of the response, as HTTP/1.1; none at its end.
    #[inline]
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Scratch, usize)>> {
        match &mut self.wire {
            Wire::H1(socket) => socket.poll_scratch(cx),
            Wire::H2(stream) => stream.poll_scratch(cx),
        }
    }

    /// Polls sending a request, head and body, `done` bytes of which are already sent.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        parts: (&[u8], &[u8]),
        done: &mut usize,
    ) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::H1(socket) => socket.poll_write_two(cx, parts, done),
            Wire::H2(stream) => stream.poll_send(cx, parts, done),
        }
    }

    /// Whether a request of so many bytes is better written as one piece.
    pub(crate) fn joins(&self, bytes: usize) -> bool {
        matches!(self.wire, Wire::H1(_)) && bytes <= TOGETHER_BYTES
    }

    /// The endpoint fell silent: no further requests over a connection that they would share.
    pub(crate) fn distrust(&self, cause: Cause) {
        if let (Wire::H2(stream), Cause::HeadLate | Cause::StreamIdle) = (&self.wire, cause) {
            stream.distrust();
        }
    }

    /// Whether trailers may still come, though the body may be whole.
    #[inline]
    pub(crate) fn may_bring_trailers(&self) -> bool {
        match &self.wire {
            Wire::H1(_) => false,
            Wire::H2(stream) => stream.is_open(),
        }
    }

    /// Trailers that came behind the body.
    pub(crate) fn take_trailers(&mut self) -> Option<http::HeaderMap> {
        match &mut self.wire {
            Wire::H1(_) => None,
            Wire::H2(stream) => stream.trailers.take(),
        }
    }

    /// Gives the connection back for the next request.
    pub(crate) fn keep(self, endpoint: &Endpoint, local: &Local, limits: &Limits) {
        if let Wire::H1(socket) = self.wire {
            local.idle.put(
                endpoint.uid,
                socket,
                crate::clock::coarse(),
                limits.upstream_idle,
            );
        }
    }
}
