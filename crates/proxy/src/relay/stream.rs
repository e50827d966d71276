//! The rest of an answer that has begun: what comes passes on until it is over, by the short way
//! (`flow.rs`) where that leads, and each wait for more has its limits.

use super::ends::{closed_mid_stream, idle, out_of_time, reset_mid_stream, vanished_mid_stream};
use super::heartbeat::Heartbeat;
use super::reply::Reply;
use super::{Event, Way, cut, flow, next};
use crate::clock;
use crate::exchange::Exchange;
use crate::failure::{Failure, Phase};
use crate::listener::client::Client;
use crate::worker::{OutBuffer, Scratch};
use picker::Micros;

/// Passes on what comes until the answer is over.
pub(super) async fn stream(
    client: &mut Client,
    x: &mut Exchange,
    way: &mut Way<'_, '_>,
    mut reply: Box<Reply>,
) -> (Box<Reply>, Result<(), Failure>) {
    let mut wait = Wait::new();
    while !reply.is_done() || reply.is_whole() && way.awaits_trailers(client) {
        let stepped = match wait.begin(client, way).await {
            Ok(()) => {
                let flowed;
                (reply, flowed) = wait.flow(client, x, way, reply).await;
                match flowed {
                    Ok(None) => Ok(Step::On),
                    Ok(Some(event)) => wait.step(client, x, way, (&mut reply, event)).await,
                    Err(failure) => Err(failure),
                }
            }
            Err(failure) => Err(failure),
        };
        match stepped {
            Ok(Step::On) => {}
            Ok(Step::End) => break,
            Ok(Step::Over) => return (reply, Ok(())),
            Err(failure) => return (reply, Err(failure)),
        }
    }
    let ended = end(client, x, way, &mut reply).await;
    (reply, ended)
}

/// What follows an event of a stream.
enum Step {
    On,
    /// The answer is over, and the client is to be told.
    End,
    /// Nobody is there to be told.
    Over,
}

/// The waits of one stream, each for the next bytes.
struct Wait {
    heartbeat: Heartbeat,
    heard_at: Micros,
    heard: bool,
    /// When the stream has been silent for too long.
    idle_at: Micros,
    /// When it must be over, for silence or because all of its time is used.
    due: Micros,
    look_at: Micros,
}

impl Wait {
    fn new() -> Self {
        Self {
            heartbeat: Heartbeat::new(),
            heard_at: Micros(0),
            heard: true,
            idle_at: Micros(0),
            due: Micros(0),
            look_at: Micros(0),
        }
    }

    async fn begin(&mut self, client: &mut Client, way: &Way<'_, '_>) -> Result<(), Failure> {
        client.flush(way.limits).await?;
        let now = clock::coarse();
        if core::mem::take(&mut self.heard) {
            self.heard_at = now;
        }
        self.idle_at = self.heard_at + way.limits.stream_idle;
        self.due = way.due.map_or(self.idle_at, |due| due.min(self.idle_at));
        self.look_at = self.due.min(now + way.limits.look);
        client.set_deadline(Some(self.look_at));
        Ok(())
    }

    /// The next event; none if bytes went the short way until something is to be looked after.
    async fn flow(
        &mut self,
        client: &mut Client,
        x: &Exchange,
        way: &mut Way<'_, '_>,
        mut reply: Box<Reply>,
    ) -> (Box<Reply>, Result<Option<Event>, Failure>) {
        if clock::coarse() >= self.due {
            return (reply, Ok(Some(Event::Late)));
        }
        if x.timings.first_token.0 > 0 {
            let flowed;
            (reply, flowed) = flow::run(client, way, reply, self.look_at).await;
            if let Some(at) = flowed.heard_at {
                self.heard_at = at;
            }
            match flowed.event {
                Ok(None) if flowed.heard_at.is_none() => {}
                event => return (reply, event),
            }
        }
        let event = next(client, way.upstream, way.limits).await;
        (reply, Ok(Some(event)))
    }

    async fn step(
        &mut self,
        client: &mut Client,
        x: &mut Exchange,
        way: &mut Way<'_, '_>,
        (reply, event): (&mut Reply, Event),
    ) -> Result<Step, Failure> {
        let limits = way.limits;
        let failure = match event {
            Event::Bytes(scratch, count) if count > 0 => {
                client.hold_open(way.awaits_trailers(client));
                forward(client, reply, (scratch, count)).await?;
                way.first_token(reply, x);
                self.heard = true;
                return Ok(Step::On);
            }
            Event::Bytes(..) if reply.ends_at_close() || reply.is_whole() => return Ok(Step::End),
            Event::Bytes(..) => closed_mid_stream(),
            Event::Broken(error) => reset_mid_stream(&error),
            // Clients hang up at the end mark; what is left is framing.
            Event::ClientGone if reply.has_end_mark() => return Ok(Step::Over),
            Event::ClientGone => return Err(Failure::client_gone(Phase::Stream)),
            Event::Late if clock::now() < self.due => {
                if way.endpoint.reach.is_gone_for(limits.vanished) {
                    vanished_mid_stream()
                } else {
                    if reply.is_between_events() {
                        let heard_at = self.heard_at;
                        self.heartbeat.beat(client, x, heard_at, limits).await?;
                    }
                    return Ok(Step::On);
                }
            }
            Event::Late if self.due < self.idle_at => out_of_time(),
            Event::Late => idle(limits),
        };
        Err(cut(client, reply, limits, failure).await)
    }
}

/// The end of an answer that was passed on to its last byte.
async fn end(
    client: &mut Client,
    x: &mut Exchange,
    way: &mut Way<'_, '_>,
    reply: &mut Reply,
) -> Result<(), Failure> {
    let limits = way.limits;
    client.set_deadline(None);
    if let Some(failure) = reply.cut_by_engine() {
        return Err(cut(client, reply, limits, failure).await);
    }
    let trailers = way.upstream.take_trailers().or_else(|| reply.trailers());
    if let (Some(session), Some(trailers)) = (&mut x.picking, &trailers) {
        session.trailers(trailers);
    }
    reply.end(client, trailers, limits).await?;
    client.flush(limits).await
}

/// One read, one write: never split, never wait for more.
async fn forward(
    client: &mut Client,
    reply: &mut Reply,
    (scratch, count): (Scratch, usize),
) -> Result<(), Failure> {
    let bytes = scratch.get(..count).unwrap_or_default();
    if reply.passes_raw() {
        let used = reply.scan_raw(bytes)?;
        return reply
            .send(client, &[], &[], bytes.get(..used).unwrap_or_default())
            .await;
    }
    let mut ready = OutBuffer::take();
    reply.take(bytes, &mut ready)?;
    drop(scratch);
    reply.send(client, &[], &ready, &[]).await
}
