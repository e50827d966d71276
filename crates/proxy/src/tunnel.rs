//! After `101 Switching Protocols`: bytes both ways until one side ends, such as a WebSocket.
//!
//! Each direction reads on only when what it read before has been written: a slow side holds back
//! the other. Silence in both directions for [`Limits::tunnel_idle`] ends the tunnel, as does the
//! end of the listener.

use crate::clock;
use crate::failure::{Cause, Failure, Phase};
use crate::limits::Limits;
use crate::listener::client::Client;
use crate::socket::Socket;
use crate::worker::Scratch;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// One direction.
#[derive(Debug, Default)]
struct Way {
    /// Read, and not yet written.
    pending: Option<(Scratch, usize)>,
    written: usize,
    /// The source has ended, and the destination was told.
    ended: bool,
    bytes: u64,
}

impl Way {
    /// Moves what can be moved. Ready when the source has ended; true if bytes moved.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Socket,
        to: &mut Socket,
    ) -> Poll<io::Result<bool>> {
        let mut moved = false;
        loop {
            if self.ended {
                return Poll::Ready(Ok(moved));
            }
            let (scratch, count) = match self.pending.take() {
                Some(pending) => pending,
                None => match from.poll_scratch(cx) {
                    Poll::Ready(read) => read?,
                    Poll::Pending => return poll_moved(moved),
                },
            };
            if count == 0 {
                match Pin::new(&mut *to).poll_shutdown(cx) {
                    Poll::Ready(_) => self.ended = true,
                    Poll::Pending => {
                        self.pending = Some((scratch, 0));
                        return poll_moved(moved);
                    }
                }
                continue;
            }
            let bytes = scratch.get(..count).unwrap_or_default();
            let wrote = to.poll_write_two(cx, (bytes, b""), &mut self.written);
            match wrote {
                Poll::Ready(done) => {
                    done?;
                    self.bytes += count as u64;
                    self.written = 0;
                    moved = true;
                }
                Poll::Pending => {
                    self.pending = Some((scratch, count));
                    return poll_moved(moved);
                }
            }
        }
    }
}

/// Pending, but awake again if something moved, so that the caller can note it.
fn poll_moved(moved: bool) -> Poll<io::Result<bool>> {
    if moved {
        Poll::Ready(Ok(true))
    } else {
        Poll::Pending
    }
}

/// Whether an upgrade to `protocol` is passed on. Not to another HTTP: requests in it would pass by
/// the routes.
pub(crate) fn passes(protocol: &str) -> bool {
    let is_other_http = |one: &str| {
        let one = one.trim().to_ascii_lowercase();
        one == "h2c" || one.starts_with("http/") || one.starts_with("tls/")
    };
    !protocol.is_empty() && !protocol.split(',').any(is_other_http)
}

/// Adds to a head, which ends with its blank line, what asks for `protocol` or grants it.
pub(crate) fn ask(protocol: &[u8], head: &mut Vec<u8>) {
    head.truncate(head.len().saturating_sub(2));
    head.extend_from_slice(b"connection: upgrade\r\nupgrade: ");
    head.extend_from_slice(protocol);
    head.extend_from_slice(b"\r\n\r\n");
}

/// Forwards between client and server until both directions have ended. Returns the bytes that
/// went to the client.
///
/// # Errors
/// One side broke, or there was silence for too long; and the client cannot be told.
pub(crate) async fn run(
    client: &mut Client,
    server: &mut Socket,
    limits: &Limits,
) -> Result<u64, Failure> {
    let (mut up, mut down) = (Way::default(), Way::default());
    client.set_deadline(Some(clock::now() + limits.tunnel_idle));
    let done = poll_fn(|cx| {
        loop {
            if client.poll_late(cx) || client.is_draining() {
                return Poll::Ready(Err(idle()));
            }
            let Some((socket, carry)) = client.socket() else {
                return Poll::Ready(Err(Failure::client_gone(Phase::Stream)));
            };
            if !carry.is_empty() && up.pending.is_none() {
                // Sent ahead of our answer; at most what is read ahead of a request.
                let mut scratch = Scratch::take();
                let count = carry.len().min(scratch.len());
                if let Some(room) = scratch.get_mut(..count) {
                    room.copy_from_slice(carry.get(..count).unwrap_or_default());
                }
                carry.drain(..count);
                up.pending = Some((scratch, count));
            }
            let upward = up.poll(cx, socket, server);
            let downward = down.poll(cx, server, socket);
            match (upward, downward) {
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => {
                    return Poll::Ready(Err(Failure::client_gone(Phase::Stream)));
                }
                _ if up.ended && down.ended => return Poll::Ready(Ok(())),
                (Poll::Ready(Ok(true)), _) | (_, Poll::Ready(Ok(true))) => {
                    client.set_deadline(Some(clock::now() + limits.tunnel_idle));
                }
                _ => return Poll::Pending,
            }
        }
    })
    .await;
    done.map(|()| down.bytes)
}

fn idle() -> Failure {
    let message = "the connection was silent for too long, or the listener goes away";
    Failure::new(Phase::Stream, Cause::StreamIdle, message)
}
