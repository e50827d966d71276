//! A byte stream to a client or a server: plain TCP, or TLS over it.
//!
//! An enum and no trait object, so that the plain path costs one comparison. One read goes into a
//! read buffer of the worker, which is held only when there is something in it.

mod direct;

use crate::worker::{OutBuffer, Scratch};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// Up to so many bytes, head and body are copied together: the copy costs less than what a vectored
/// write costs beyond a plain one.
pub(crate) const TOGETHER_BYTES: usize = 4 << 10;

/// A connection's socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// The connection's task has it while a stream flows (`relay/flow.rs`).
    Lent,
}

fn is_lent<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl Socket {
    /// One read into a read buffer of the worker.
    pub(crate) fn poll_scratch(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Scratch, usize)>> {
        if let Self::Tcp(stream) = self {
            return direct::poll_scratch(stream, cx);
        }
        let mut scratch = Scratch::take();
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(Pin::new(self).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        Poll::Ready(Ok((scratch, count)))
    }

    /// Polls a write of `head` and then `body`, `done` bytes of which are already written.
    pub(crate) fn poll_write_two(
        &mut self,
        cx: &mut Context<'_>,
        (head, body): (&[u8], &[u8]),
        done: &mut usize,
    ) -> Poll<io::Result<()>> {
        let all = head.len() + body.len();
        while *done < all {
            let written = match head.get(*done..) {
                Some(rest) if !rest.is_empty() && !body.is_empty() && all <= TOGETHER_BYTES => {
                    let mut together = OutBuffer::take();
                    together.reserve(all);
                    together.extend_from_slice(rest);
                    together.extend_from_slice(body);
                    Pin::new(&mut *self).poll_write(cx, &together)
                }
                Some(rest) if !rest.is_empty() && !body.is_empty() => {
                    let slices = [IoSlice::new(rest), IoSlice::new(body)];
                    Pin::new(&mut *self).poll_write_vectored(cx, &slices)
                }
                Some(rest) if !rest.is_empty() => Pin::new(&mut *self).poll_write(cx, rest),
                _ => {
                    let rest = body.get(*done - head.len()..).unwrap_or_default();
                    Pin::new(&mut *self).poll_write(cx, rest)
                }
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => *done += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        match self {
            Self::Tcp(_) | Self::Lent => Poll::Ready(Ok(())),
            // What TLS has taken may still wait in its own buffer.
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
        }
    }

    /// Whether bytes that were taken have not gone out: [`Socket::poll_write_two`] again.
    pub(crate) fn owes_flush(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Lent => false,
            Self::Tls(stream) => stream.get_ref().1.wants_write(),
        }
    }

    /// Whether nothing has happened on an idle connection: no close, no bytes. Costs no system
    /// call: the runtime already knows.
    pub(crate) fn is_quiet(&self) -> bool {
        // Nothing is read: it is asked only whether something could be.
        self.tcp()
            .is_some_and(|tcp| tcp.try_io(Interest::READABLE, || Ok(())).is_err())
    }

    /// Ready when there is something to read, or the end.
    pub(crate) fn poll_news(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.tcp() {
            Some(tcp) => tcp.poll_read_ready(cx).map(|_| ()),
            None => Poll::Ready(()),
        }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Tls(stream) => Some(stream.get_ref().0),
            Self::Lent => None,
        }
    }

    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    pub(crate) fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(cx, buffer),
            Self::Lent => is_lent(),
        }
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => direct::poll_write(stream, cx, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(cx, bytes),
            Self::Lent => is_lent(),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => direct::poll_write_vectored(stream, cx, slices),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, slices),
            Self::Lent => is_lent(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Self::Lent => is_lent(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            Self::Lent => is_lent(),
        }
    }
}
