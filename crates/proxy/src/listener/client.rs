//! To whom a request is answered: a connection of HTTP/1.1, or one stream of HTTP/2.
//!
//! Inside, an answer is HTTP/1.1 text: `offer` takes a head, later its body. A stream of HTTP/2
//! turns the head into frames; its bodies come to it without chunks (`Exchange::unframed`).

use super::{h1, h2};
use crate::failure::Failure;
use crate::limits::Limits;
use crate::socket::Socket;
use http::HeaderMap;
use picker::Micros;
use std::task::{Context, Poll};

/// Who asked.
#[derive(Debug)]
pub(crate) enum Client {
    H1(h1::Connection),
    H2(h2::Stream),
}

impl Client {
    /// Takes bytes of the answer: sends what goes at once, keeps the rest for [`Client::flush`].
    pub(crate) async fn offer(&mut self, head: &[u8], body: &[u8]) -> Result<(), Failure> {
        match self {
            Self::H1(connection) => connection.offer(head, body).await,
            Self::H2(stream) => stream.offer(head, body).await,
        }
    }

    /// Waits until the client has taken everything, at most `limits.write_stall` without progress.
    pub(crate) async fn flush(&mut self, limits: &Limits) -> Result<(), Failure> {
        match self {
            Self::H1(connection) => connection.flush(limits).await,
            Self::H2(stream) => stream.flush(limits).await,
        }
    }

    /// Whether the client has taken everything, and is told so of what has an end.
    pub(crate) fn has_all(&self) -> bool {
        match self {
            Self::H1(connection) => connection.has_all(),
            Self::H2(_) => false,
        }
    }

    /// Whether trailers can be said to it: those of HTTP/1.1 are for bodies in chunks only.
    pub(crate) fn takes_trailers(&self) -> bool {
        matches!(self, Self::H2(_))
    }

    /// Tells, ahead of what is offered next, whether [`Client::end`] will end the answer though its
    /// body may then be whole.
    pub(crate) fn hold_open(&mut self, is_held: bool) {
        if let Self::H2(stream) = self {
            stream.is_held = is_held;
        }
    }

    /// The end of a body whose length the head did not tell, or that trailers may come behind.
    pub(crate) async fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        limits: &Limits,
    ) -> Result<(), Failure> {
        match self {
            Self::H1(_) => Ok(()),
            Self::H2(stream) => stream.end(trailers, limits).await,
        }
    }

    /// Ready when the client has gone. Bytes that arrive meanwhile are kept for the next request,
    /// up to `most`; a half-closed connection counts as gone.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<()> {
        match self {
            Self::H1(connection) => connection.poll_gone(cx, most),
            Self::H2(stream) => stream.poll_gone(cx),
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::H1(connection) => connection.gone,
            Self::H2(stream) => stream.gone,
        }
    }

    /// Whether the deadline set with [`Client::set_deadline`] passed.
    pub(crate) fn poll_late(&self, cx: &Context<'_>) -> bool {
        match self {
            Self::H1(connection) => connection.deadline.poll_passed(cx),
            Self::H2(stream) => stream.deadline.poll_passed(cx),
        }
    }

    pub(crate) fn set_deadline(&self, due: Option<Micros>) {
        let deadline = match self {
            Self::H1(connection) => &connection.deadline,
            Self::H2(stream) => &stream.deadline,
        };
        match due {
            Some(due) => deadline.set(due),
            None => deadline.clear(),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        match self {
            Self::H1(connection) => connection.draining.get(),
            Self::H2(stream) => stream.draining.get(),
        }
    }

    /// The connection itself with what was read ahead, where it may become another protocol's.
    pub(crate) fn socket(&mut self) -> Option<(&mut Socket, &mut Vec<u8>)> {
        match self {
            Self::H1(connection) => Some((&mut connection.stream, &mut connection.carry)),
            Self::H2(_) => None,
        }
    }
}
