//! Whether a silent server is still there: a PING, while there are requests and nothing was heard.
//!
//! A server that vanished without a word closes nothing: its requests would wait for as long as they
//! may. One that answers is asked again after ever longer silences, because servers of gRPC take
//! a peer for a flood that pings them three times in less than five minutes without being sent
//! anything. Whatever is heard counts as an answer.

use super::State;
use crate::clock;
use crate::deadline::Deadline;
use crate::limits::Http2Limits;
use crate::socket;
use bytes::Bytes;
use h2::client::Connection;
use h2::{Ping, PingPong};
use picker::Micros;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// From one silence to the next longer one.
const LONGER: u32 = 5;
/// No silence is longer.
const MOST_SILENCE: Duration = Duration::from_secs(320);

/// When the last byte was read; shared by the socket and its driver.
#[derive(Debug, Clone)]
pub(super) struct Heard(Rc<Cell<Micros>>);

impl Heard {
    pub(super) fn new() -> Self {
        Self(Rc::new(Cell::new(clock::now())))
    }
}

/// A socket that notes when it was read from.
#[derive(Debug)]
pub(super) struct Socket {
    inner: socket::Socket,
    heard: Heard,
}

impl Socket {
    pub(super) fn new(inner: socket::Socket, heard: Heard) -> Self {
        Self { inner, heard }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        this.heard.0.set(clock::coarse());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// Moves a connection's frames until it ends, or its server has vanished.
pub(super) async fn drive(
    mut connection: Connection<Socket, Bytes>,
    (state, heard): (Rc<State>, Heard),
    limits: Http2Limits,
) {
    let mut watch = connection
        .ping_pong()
        .map(|pings| Watch::new(pings, heard, limits));
    let mut connection = pin!(connection);
    let ended = poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended.err().map(|error| super::described(&error)));
        }
        let has_vanished = watch
            .as_mut()
            .is_some_and(|watch| watch.has_vanished(cx, state.streams.get() > 0));
        if has_vanished {
            return Poll::Ready(Some("its server answers no ping".to_owned()));
        }
        Poll::Pending
    });
    let ended = ended.await;
    state.usable.set(false);
    if let Some(why) = ended {
        tracing::debug!(%why, "an http/2 connection to an endpoint ended");
    }
}

/// What is asked, and when.
struct Watch {
    pings: PingPong,
    heard: Heard,
    limits: Http2Limits,
    deadline: Deadline,
    /// Since when there have been requests.
    began: Option<Micros>,
    /// How long the server may be silent this time.
    silence: Duration,
    /// When it was asked, if it has not answered.
    asked: Option<Micros>,
    /// When it answered.
    answered: Micros,
}

impl Watch {
    fn new(pings: PingPong, heard: Heard, limits: Http2Limits) -> Self {
        Self {
            pings,
            heard,
            limits,
            deadline: Deadline::new(),
            began: None,
            silence: limits.ping,
            asked: None,
            answered: Micros(0),
        }
    }

    /// Asks when it is time to; tells whether an answer is overdue.
    fn has_vanished(&mut self, cx: &mut Context<'_>, has_requests: bool) -> bool {
        let heard = self.heard.0.get();
        if self.asked.is_some() && self.pings.poll_pong(cx).is_ready() {
            self.asked = None;
            self.answered = heard;
            self.silence = (self.silence * LONGER).min(self.limits.ping.max(MOST_SILENCE));
        }
        if heard > self.answered {
            self.silence = self.limits.ping;
        }
        if !has_requests && self.asked.is_none() {
            self.began = None;
            self.deadline.clear();
            return false;
        }
        let now = clock::now();
        let began = *self.began.get_or_insert(now);
        let due = match self.asked {
            Some(asked) => heard.max(asked) + self.limits.ping_answer,
            None => heard.max(began) + self.silence,
        };
        let next = match self.asked {
            _ if now < due => due,
            Some(_) => return true,
            None => {
                // A connection that takes no ping has ended, and says so itself.
                let sent = self.pings.send_ping(Ping::opaque());
                self.asked = sent.is_ok().then_some(now);
                now + self.limits.ping_answer
            }
        };
        self.deadline.set(next);
        // Only to be woken then.
        let _ = self.deadline.poll_passed(cx);
        false
    }
}
