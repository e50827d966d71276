//! The short way of an event stream that flows.
//!
//! A stream is woken for a few bytes at a time, and what it needs for them has left the processor's
//! caches by then. A wake that goes through each `async fn` from the listener to the relay fetches
//! the state of each; that cost more than all that is done with the bytes. So while nothing but
//! bytes comes, both sockets and the reply are lent to the connection's task ([`Flowing`]), which
//! looks here first. All else is left to the relay: the end, errors, limits, a client that leaves,
//! does not read or sends its next request. TLS and HTTP/2 always go the long way.
//!
//! Streams that are ready together are read one after the other and then written one after the
//! other, as requests are ([`crate::turns`]): a client is woken once for several of them.

use super::reply::Reply;
use super::{Event, Way};
use crate::clock;
use crate::failure::Failure;
use crate::listener::client::Client;
use crate::socket::Socket;
use crate::turns::Place;
use crate::upstream::Wire;
use crate::worker::{Local, OutBuffer, Scratch};
use picker::Micros;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

/// What a connection and its task hand each other while the one polls the other.
#[derive(Debug, Default)]
enum Handed {
    #[default]
    Nothing,
    Flowing(Flow),
    Stopped(Flow, Stop),
}

thread_local! {
    static HANDED: RefCell<Handed> = const { RefCell::new(Handed::Nothing) };
}

/// A stream on its way, and until when it needs no look.
#[derive(Debug)]
struct Flow {
    server: Socket,
    client: Socket,
    reply: Box<Reply>,
    /// What the client gets next, and how much of it it has.
    staged: OutBuffer,
    done: usize,
    /// Held while those that are ready too are read.
    place: Option<Place>,
    /// It was not polled yet.
    fresh: bool,
    /// When the server was heard last, if at all.
    heard_at: Option<Micros>,
    look_at: Micros,
}

/// Why a stream goes the long way again.
#[derive(Debug)]
enum Stop {
    /// Something may have happened.
    Look,
    Closed(Scratch),
    Broken(io::Error),
    Refused(Box<Failure>),
}

impl Flow {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        self.place = None;
        let mut moved = std::mem::take(&mut self.fresh);
        loop {
            if !self.staged.is_empty() {
                if !self.write(cx) {
                    return Poll::Ready(Stop::Look);
                }
                moved = true;
            }
            if self.reply.is_done() {
                return Poll::Ready(Stop::Look);
            }
            match self.server.poll_scratch(cx) {
                Poll::Ready(Ok((scratch, 0))) => return Poll::Ready(Stop::Closed(scratch)),
                Poll::Ready(Ok((scratch, count))) => {
                    if let Err(failure) = self.take(scratch.get(..count).unwrap_or_default()) {
                        return Poll::Ready(Stop::Refused(Box::new(failure)));
                    }
                    moved = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Stop::Broken(error)),
                Poll::Pending => break,
            }
            if !self.staged.is_empty() {
                self.place = Place::take();
                if self.place.is_some() {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        let news = self.client.poll_news(cx).is_ready();
        if news || !moved || clock::coarse() >= self.look_at {
            return Poll::Ready(Stop::Look);
        }
        Poll::Pending
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.heard_at = Some(clock::coarse());
        let mut ready = OutBuffer::take();
        self.reply.take(bytes, &mut ready)?;
        if !ready.is_empty() {
            if self.staged.capacity() == 0 {
                self.staged = OutBuffer::take();
            }
            self.reply.frame(&ready, &mut self.staged);
        }
        Ok(())
    }

    /// Whether the client took all that was staged.
    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        let parts = (&self.staged[..], &b""[..]);
        let written = self.client.poll_write_two(cx, parts, &mut self.done);
        let all = matches!(written, Poll::Ready(Ok(())));
        if all {
            self.staged = OutBuffer::empty();
            self.done = 0;
        }
        all
    }
}

/// What became of a stream while it flowed.
pub(super) struct Flowed {
    /// When the server was heard last, if at all.
    pub(super) heard_at: Option<Micros>,
    /// What was seen of it then, if it was more than bytes.
    pub(super) event: Result<Option<Event>, Failure>,
}

impl Flowed {
    fn not() -> Self {
        Self {
            heard_at: None,
            event: Ok(None),
        }
    }
}

/// Lets a stream flow until something else than bytes comes, or it is time to look.
pub(super) async fn run(
    client: &mut Client,
    way: &mut Way<'_, '_>,
    reply: Box<Reply>,
    look_at: Micros,
) -> (Box<Reply>, Flowed) {
    let (Client::H1(connection), Wire::H1(server)) = (&mut *client, &mut way.upstream.wire) else {
        return (reply, Flowed::not());
    };
    if !connection.may_lend() || !server.is_plain() || !reply.is_chunked_stream() {
        return (reply, Flowed::not());
    }
    HANDED.set(Handed::Flowing(Flow {
        server: std::mem::replace(server, Socket::Lent),
        client: std::mem::replace(&mut connection.stream, Socket::Lent),
        reply,
        staged: OutBuffer::empty(),
        done: 0,
        place: None,
        fresh: true,
        heard_at: None,
        look_at,
    }));
    let (flow, stop) = poll_fn(|cx| {
        // The task is woken when it is time to look.
        let _ = connection.deadline.poll_passed(cx);
        poll_stopped()
    })
    .await;
    *server = flow.server;
    connection.stream = flow.client;
    let left = flow.staged.get(flow.done..).unwrap_or_default();
    let offered = if left.is_empty() {
        Ok(())
    } else {
        connection.offer(left, b"").await
    };
    let event = offered.and(match stop {
        Stop::Look => Ok(None),
        Stop::Closed(scratch) => Ok(Some(Event::Bytes(scratch, 0))),
        Stop::Broken(error) => Ok(Some(Event::Broken(error))),
        Stop::Refused(failure) => Err(*failure),
    });
    let heard_at = flow.heard_at;
    (flow.reply, Flowed { heard_at, event })
}

fn poll_stopped() -> Poll<(Flow, Stop)> {
    match HANDED.take() {
        Handed::Stopped(flow, stop) => Poll::Ready((flow, stop)),
        other => {
            HANDED.set(other);
            Poll::Pending
        }
    }
}

/// The task of a connection: its stream while one flows, and what serves it. A panic ends the
/// connection only: it is caught here, counted and logged.
pub(crate) struct Flowing {
    flow: Option<Flow>,
    serving: Pin<Box<dyn Future<Output = ()>>>,
    local: Rc<Local>,
}

impl Flowing {
    pub(crate) fn new(local: Rc<Local>, serving: impl Future<Output = ()> + 'static) -> Self {
        Self {
            flow: None,
            serving: Box::pin(serving),
            local,
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(flow) = &mut self.flow {
                let stop = ready!(flow.poll(cx));
                if let Some(flow) = self.flow.take() {
                    HANDED.set(Handed::Stopped(flow, stop));
                }
            }
            let served = self.serving.as_mut().poll(cx);
            match HANDED.take() {
                Handed::Flowing(flow) => self.flow = Some(flow),
                _ => return served,
            }
        }
    }
}

impl Future for Flowing {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let advanced = catch_unwind(AssertUnwindSafe(|| self.advance(cx)));
        advanced.unwrap_or_else(|_| {
            HANDED.take();
            self.local.metrics.counted.panics.fetch_add(1, Relaxed);
            tracing::error!("a connection panicked; it was closed and the others go on");
            Poll::Ready(())
        })
    }
}
