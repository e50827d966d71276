//! A request to an endpoint over HTTP/1.1, up to the first bytes of its answer.
//!
//! A pooled connection may be closed by the server at the very moment we use it. If it ends before
//! any response byte, the engine has not answered, and the caller may try again elsewhere.

use crate::clock;
use crate::failure::{Cause, Failure, Phase};
use crate::limits::Limits;
use crate::pool::Endpoint;
use crate::upstream::idle::Idle;
use crate::worker::no_delay;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

/// A connection to an endpoint with a request on it.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) stream: TcpStream,
    pub(crate) reused: bool,
}

/// A new connection to `endpoint`.
///
/// # Errors
/// A connect that failed or took longer than `limits.connect`.
pub(crate) async fn connect(endpoint: &Endpoint, limits: &Limits) -> Result<Upstream, Failure> {
    let dialled = tokio::time::timeout(limits.connect, TcpStream::connect(endpoint.address));
    let error = match dialled.await {
        Ok(Ok(stream)) => {
            no_delay(&stream);
            return Ok(Upstream {
                stream,
                reused: false,
            });
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no connection within {:?}", limits.connect),
    };
    let message = format!("cannot connect to endpoint {}: {error}", endpoint.name);
    Err(Failure::new(Phase::Connect, Cause::ConnectFailed, message))
}

/// Gives the connection back for the next request.
pub(crate) fn keep(upstream: Upstream, endpoint: &Endpoint, idle: &Idle, limits: &Limits) {
    idle.put(
        endpoint.uid,
        upstream.stream,
        clock::coarse(),
        limits.upstream_idle,
    );
}

/// Polls a write of `head` and then `body`, `done` bytes of which are already written.
pub(crate) fn poll_write_two(
    stream: &mut TcpStream,
    cx: &mut Context<'_>,
    parts: (&[u8], &[u8]),
    done: &mut usize,
) -> Poll<io::Result<()>> {
    let (head, body) = parts;
    let all = head.len() + body.len();
    while *done < all {
        let written = match head.get(*done..) {
            Some(rest) if !rest.is_empty() && !body.is_empty() => {
                let slices = [IoSlice::new(rest), IoSlice::new(body)];
                Pin::new(&mut *stream).poll_write_vectored(cx, &slices)
            }
            Some(rest) if !rest.is_empty() => Pin::new(&mut *stream).poll_write(cx, rest),
            _ => {
                let rest = body.get(*done - head.len()..).unwrap_or_default();
                Pin::new(&mut *stream).poll_write(cx, rest)
            }
        };
        match written {
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(count)) => *done += count,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(Ok(()))
}
