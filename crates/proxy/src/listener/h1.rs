//! A client's HTTP/1.1 connection: read a whole request, write pieces of a response, and notice at
//! any time that the client has gone.
//!
//! The connection owns no buffer while it waits. Requests are read into the worker's read buffer;
//! `carry` holds an incomplete head or pipelined bytes, `unsent` what a slow client has not taken.

mod ending;

use crate::clock;
use crate::deadline::Deadline;
use crate::exchange::{Exchange, Growing, Held, HeldBuffer};
use crate::failure::{Cause, Failure, Phase};
use crate::limits::Limits;
use crate::listener::Arrived;
use crate::listener::client::Client;
use crate::live::Shared;
use crate::memory::{ACCOUNT, Charge, Full, Use, cost_of_unsent};
use crate::serve;
use crate::socket::Socket;
use crate::worker::{Local, OutBuffer, Scratch};
use http1::{BodyReader, Framing, Parsed};
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// Bodies up to this size are copied out of the read buffer; larger ones take the buffer over.
const COPY_BYTES: usize = 8 << 10;

/// A client and its connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Socket,
    pub(super) carry: Vec<u8>,
    unsent: Vec<u8>,
    /// What `carry` and `unsent` have of the account.
    ahead: Charge,
    owed: Charge,
    pub(crate) deadline: Deadline,
    pub(super) draining: Rc<Cell<bool>>,
    pub(super) gone: bool,
}

/// What `next_request` found.
enum Next {
    Request,
    Closed,
}

/// Serves one connection, request after request, until it ends. Returns it with what was read of
/// it when the client turns out to speak HTTP/2 from the first byte on.
pub(crate) async fn serve_connection(
    local: &Rc<Local>,
    shared: &Arc<Shared>,
    arrived: &mut Arrived,
    stream: Socket,
) -> Option<(Socket, Vec<u8>)> {
    let mut exchange = Box::new(Exchange::new());
    exchange.bind = arrived.bind;
    exchange.server_name = arrived.server_name.take();
    exchange.over_tls = stream.is_tls();
    let mut client = Client::H1(Connection {
        stream,
        carry: Vec::new(),
        unsent: Vec::new(),
        ahead: Charge::none(Use::ReadAhead),
        owed: Charge::none(Use::Unsent),
        deadline: Deadline::new(),
        draining: arrived.draining.clone(),
        gone: false,
    });
    let mut is_first = true;
    loop {
        exchange.clear();
        let Client::H1(connection) = &mut client else {
            return None;
        };
        match connection.next_request(&mut exchange, &shared.limits).await {
            Ok(Next::Closed) => break,
            Ok(Next::Request) if is_first && ACCOUNT.is_over() => {
                let failure = ACCOUNT.refuse(Phase::Request);
                serve::refuse(local, shared, &mut client, &mut exchange, failure).await;
                break;
            }
            Ok(Next::Request) => {}
            // Behind a head of HTTP/1.1 it would be a broken body.
            Err(_) if is_first && exchange.head.method().is_empty() && connection.is_preface() => {
                arrived.server_name = exchange.server_name.take();
                let Client::H1(connection) = client else {
                    return None;
                };
                return Some((connection.stream, connection.carry));
            }
            Err(failure) => {
                serve::refuse(local, shared, &mut client, &mut exchange, failure).await;
                exchange.release_head();
                if let Client::H1(connection) = &mut client {
                    connection.linger(&shared.limits).await;
                }
                return None;
            }
        }
        is_first = false;
        if !serve::serve(local, shared, &mut client, &mut exchange).await {
            break;
        }
    }
    if let Client::H1(connection) = &mut client {
        connection.close(&shared.limits).await;
    }
    None
}

impl Connection {
    /// Reads the next request whole, head and body, into `exchange`.
    async fn next_request(&mut self, x: &mut Exchange, limits: &Limits) -> Result<Next, Failure> {
        if self.carry.is_empty() {
            self.deadline.set(clock::coarse() + limits.keep_alive);
            let Some((scratch, count)) = self.read_first(limits).await else {
                return Ok(Next::Closed);
            };
            x.timings.started = clock::now();
            let bytes = scratch.get(..count).unwrap_or_default();
            match x.head.parse(bytes, &limits.http1) {
                Ok(Parsed::Complete { head_bytes }) => {
                    let room = x.count_head();
                    room.map_err(|Full| ACCOUNT.refuse(Phase::Request))?;
                    self.take_body(
                        x,
                        limits,
                        Received {
                            scratch,
                            head_bytes,
                            count,
                        },
                    )
                    .await?;
                    return Ok(self.received(x));
                }
                Ok(Parsed::Incomplete) => self.carry.extend_from_slice(bytes),
                Err(refusal) => {
                    self.carry.extend_from_slice(bytes);
                    return Err(Failure::refused(&refusal));
                }
            }
        } else {
            x.timings.started = clock::now();
        }
        self.deadline.set(x.timings.started + limits.head);
        let Some(head_bytes) = self.carried_head(x, limits).await? else {
            return Ok(Next::Closed);
        };
        let room = x.count_head();
        room.map_err(|Full| ACCOUNT.refuse(Phase::Request))?;
        self.carry.drain(..head_bytes);
        self.carried_body(x, limits).await?;
        Ok(self.received(x))
    }

    fn received(&mut self, x: &mut Exchange) -> Next {
        self.deadline.clear();
        x.unframed = x.head.version_minor() == 0;
        x.body_bytes = x.body.end - x.body.start;
        Next::Request
    }

    /// The first read of a request. `None`: the client closed, failed, was idle too long, or the
    /// listener drains. A client that was not told yet that this is the end may be sending its next
    /// request: closing at once would lose it, so a draining connection waits for a last one.
    async fn read_first(&mut self, limits: &Limits) -> Option<(Scratch, usize)> {
        let mut parting = false;
        let read = poll_fn(|cx| {
            if let Poll::Ready(read) = self.stream.poll_scratch(cx) {
                return Poll::Ready(read.ok());
            }
            if self.draining.get() && !std::mem::replace(&mut parting, true) {
                self.deadline.set(clock::now() + limits.parting);
            }
            if self.deadline.poll_passed(cx) {
                return Poll::Ready(None);
            }
            Poll::Pending
        });
        read.await.filter(|(_, count)| *count > 0)
    }

    /// Reads into `carry` until it begins with a whole head. `None`: the client closed.
    async fn carried_head(
        &mut self,
        x: &mut Exchange,
        limits: &Limits,
    ) -> Result<Option<usize>, Failure> {
        let mut look = true;
        loop {
            // A head can only be complete, or wrong, when a line has ended.
            if look
                && let Parsed::Complete { head_bytes } = x
                    .head
                    .parse(&self.carry, &limits.http1)
                    .map_err(|r| Failure::refused(&r))?
            {
                return Ok(Some(head_bytes));
            }
            let before = self.carry.len();
            match self.read_more().await {
                Ok(0) => return Ok(None),
                Ok(_) => {
                    let room = self.ahead.keep(self.carry.capacity());
                    room.map_err(|Full| ACCOUNT.refuse(Phase::Request))?;
                    let new = self.carry.get(before..).unwrap_or_default();
                    look = memchr::memchr(b'\n', new).is_some()
                        || self.carry.len() > limits.http1.head_bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let message =
                        format!("the request head did not arrive within {:?}", limits.head);
                    return Err(Failure::new(Phase::Request, Cause::HeadTimeout, message));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// The body of a head that came with one read, where it usually is already.
    async fn take_body(
        &mut self,
        x: &mut Exchange,
        limits: &Limits,
        received: Received,
    ) -> Result<(), Failure> {
        let Received {
            scratch,
            head_bytes,
            count,
        } = received;
        let length = match x.head.framing() {
            Framing::None | Framing::Close => 0,
            Framing::Length(length) => bounded(length, limits)?,
            Framing::Chunked => usize::MAX,
        };
        let end = head_bytes.saturating_add(length);
        if end > count {
            let rest = scratch.get(head_bytes..count).unwrap_or_default();
            self.carry.extend_from_slice(rest);
            drop(scratch);
            return self.carried_body(x, limits).await;
        }
        self.carry
            .extend_from_slice(scratch.get(end..count).unwrap_or_default());
        // All came with one read; its buffer is in the account already.
        x.timings.received = x.timings.started;
        x.body = if length > COPY_BYTES {
            Held {
                buffer: HeldBuffer::Read(scratch),
                start: head_bytes,
                end,
                _charge: None,
            }
        } else {
            let mut body = OutBuffer::take();
            body.extend_from_slice(scratch.get(head_bytes..end).unwrap_or_default());
            Held::own(body, None)
        };
        Ok(())
    }

    /// The body whose first bytes are in `carry`.
    async fn carried_body(&mut self, x: &mut Exchange, limits: &Limits) -> Result<(), Failure> {
        let most = match x.head.framing() {
            Framing::Length(length) => bounded(length, limits)?,
            _ => limits.body_bytes,
        };
        let mut reader = BodyReader::new(x.head.framing(), &limits.http1);
        let mut body = Growing::new(most);
        let mut continued = !x.head.expects_continue();
        loop {
            let mut room = Ok(());
            let used = reader
                .feed(&self.carry, |part| {
                    room = room.and_then(|()| body.extend(part));
                })
                .map_err(|refusal| Failure::refused(&refusal))?;
            room.map_err(|Full| ACCOUNT.refuse(Phase::Body))?;
            if body.len() > limits.body_bytes {
                return Err(too_large(body.len() as u64, limits));
            }
            self.carry.drain(..used);
            if reader.is_done() {
                break;
            }
            if !std::mem::replace(&mut continued, true) {
                self.offer(b"HTTP/1.1 100 Continue\r\n\r\n", b"").await?;
                self.flush(limits).await?;
            }
            self.deadline
                .set(limits.body_due(x.timings.started, body.len()));
            match self.read_more().await {
                Ok(0) => return Err(Failure::client_gone(Phase::Body)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(body_late(limits));
                }
                Err(_) => return Err(Failure::client_gone(Phase::Body)),
            }
        }
        if self.carry.is_empty() {
            self.carry = Vec::new();
        }
        self.ahead.release();
        x.body = body.done();
        x.timings.received = clock::now();
        Ok(())
    }

    async fn read_more(&mut self) -> io::Result<usize> {
        poll_fn(|cx| {
            if self.deadline.poll_passed(cx) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let (scratch, count) = ready!(self.stream.poll_scratch(cx))?;
            self.carry
                .extend_from_slice(scratch.get(..count).unwrap_or_default());
            Poll::Ready(Ok(count))
        })
        .await
    }

    /// Ready when the client has gone. Bytes that arrive meanwhile are kept for the next request,
    /// up to `most`; a half-closed connection counts as gone.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<()> {
        while self.carry.len() < most {
            match ready!(self.stream.poll_scratch(cx)) {
                Ok((scratch, count)) if count > 0 => {
                    self.carry
                        .extend_from_slice(scratch.get(..count).unwrap_or_default());
                    if self.ahead.keep(self.carry.capacity()).is_err() {
                        self.gone = true;
                        return Poll::Ready(());
                    }
                }
                _ => {
                    self.gone = true;
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }

    /// Writes what the socket takes at once; the rest is copied and waits for [`Connection::flush`].
    pub(crate) async fn offer(&mut self, head: &[u8], body: &[u8]) -> Result<(), Failure> {
        let mut done = 0;
        let written = if self.unsent.is_empty() {
            poll_fn(
                |cx| match self.stream.poll_write_two(cx, (head, body), &mut done) {
                    Poll::Ready(written) => Poll::Ready(written),
                    Poll::Pending => Poll::Ready(Ok(())),
                },
            )
            .await
        } else {
            Ok(())
        };
        if written.is_err() {
            self.gone = true;
            return Err(Failure::client_gone(Phase::Stream));
        }
        if done < head.len() + body.len() {
            self.keep_unsent((head, body), done)?;
        }
        Ok(())
    }

    /// Copies what the client has not taken: all but `done` bytes. There is always at most one read
    /// of an endpoint's, since nobody reads on before [`Connection::flush`].
    #[cold]
    fn keep_unsent(&mut self, (head, body): (&[u8], &[u8]), done: usize) -> Result<(), Failure> {
        let left = head.len() + body.len() - done;
        // It does not read, while others need the memory.
        let room = self.owed.keep(cost_of_unsent(self.unsent.len() + left));
        room.map_err(|Full| ACCOUNT.refuse(Phase::Stream))?;
        self.unsent
            .extend_from_slice(head.get(done..).unwrap_or_default());
        let into_body = done.saturating_sub(head.len());
        self.unsent
            .extend_from_slice(body.get(into_body..).unwrap_or_default());
        Ok(())
    }

    /// Whether the client has taken everything.
    pub(crate) fn has_all(&self) -> bool {
        self.unsent.is_empty() && !self.stream.owes_flush()
    }

    /// Waits until the client has taken everything, at most `limits.write_stall` without progress.
    pub(crate) async fn flush(&mut self, limits: &Limits) -> Result<(), Failure> {
        if self.has_all() {
            return Ok(());
        }
        let unsent = std::mem::take(&mut self.unsent);
        let mut done = 0;
        let mut seen = usize::MAX;
        let written = poll_fn(|cx| {
            let written = self.stream.poll_write_two(cx, (&unsent, b""), &mut done);
            if written.is_pending() && done != seen {
                seen = done;
                self.deadline.set(clock::now() + limits.write_stall);
            }
            match written {
                Poll::Pending if self.deadline.poll_passed(cx) => {
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
                written => written,
            }
        })
        .await;
        self.deadline.clear();
        drop(unsent);
        self.owed.release();
        written.map_err(|error| {
            self.gone = true;
            match error.kind() {
                io::ErrorKind::TimedOut => Failure::client_stalled(),
                _ => Failure::client_gone(Phase::Stream),
            }
        })
    }

    /// Whether its socket may serve a stream by itself: nothing waits to be read or written here.
    pub(crate) fn may_lend(&self) -> bool {
        self.stream.is_plain() && self.carry.is_empty() && self.unsent.is_empty()
    }

    /// Whether the client began with the preface of HTTP/2, which no request of HTTP/1.1 is.
    #[cold]
    fn is_preface(&self) -> bool {
        let seen = self.carry.len().min(super::h2::PREFACE.len());
        seen > 0 && self.carry.get(..seen) == super::h2::PREFACE.get(..seen)
    }
}

/// The first read of a request: the read buffer, where the head ends, and how much was read.
struct Received {
    scratch: Scratch,
    head_bytes: usize,
    count: usize,
}

pub(super) fn bounded(length: u64, limits: &Limits) -> Result<usize, Failure> {
    match usize::try_from(length) {
        Ok(length) if length <= limits.body_bytes => Ok(length),
        _ => Err(too_large(length, limits)),
    }
}

pub(super) fn body_late(limits: &Limits) -> Failure {
    let message = format!(
        "no byte of the request body within {:?}, or fewer than {} a second",
        limits.body_idle, limits.body_rate
    );
    Failure::new(Phase::Body, Cause::BodyTimeout, message)
}

pub(super) fn too_large(length: u64, limits: &Limits) -> Failure {
    let message = format!(
        "the request body has {length} bytes or more, at most {} are accepted",
        limits.body_bytes
    );
    Failure::new(Phase::Body, Cause::BodyTooLarge, message)
}
