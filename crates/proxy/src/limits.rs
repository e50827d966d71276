//! The bounds of the data path: every wait has a deadline, every buffer a size.
//!
//! Defaults that a user never has to think about. There is no total time limit: a stream may run
//! for hours as long as bytes move (`stream_idle`).

use crate::clock;
use picker::Micros;
use std::time::Duration;

/// Bounds that hold for every connection of a process.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Size and number limits of heads and chunk framing.
    pub http1: http1::Limits,
    /// From the first byte of a request head to its last.
    pub head: Duration,
    /// A client connection without a request.
    pub keep_alive: Duration,
    /// The same once the listener drains: time for a request that is on its way.
    pub parting: Duration,
    /// Between two reads of a request body.
    pub body_idle: Duration,
    /// Bytes a second that a request body must come by in the long run, after `body_idle`.
    pub body_rate: u64,
    /// The largest request body that is held, in bytes.
    pub body_bytes: usize,
    /// A TCP connect to an endpoint.
    pub connect: Duration,
    /// From the sent request to the response head, where the route sets no timeout. An engine may
    /// compute a long answer before its head, so this is long.
    pub response_head: Duration,
    /// Between two reads of a response.
    pub stream_idle: Duration,
    /// Silence after which an event stream gets a comment; see `relay/heartbeat.rs`.
    pub heartbeat: Duration,
    /// How often a wait for an endpoint looks around: a whole part of `heartbeat`, at most `vanished`.
    pub(crate) look: Duration,
    /// How long a request waits for a byte of an endpoint that refuses connections all the while.
    pub vanished: Duration,
    /// A client that takes no bytes.
    pub write_stall: Duration,
    /// How long the 200 head of an event stream is held for its first event.
    pub first_event_hold: Duration,
    /// Response bytes held before the head of an event stream is sent.
    pub first_event_bytes: usize,
    /// Pipelined bytes that are read ahead while a response is under way.
    pub pipelined_bytes: usize,
    /// Idle upstream connections are closed before usual servers do (uvicorn: 5 s).
    pub upstream_idle: Duration,
    /// Silence in both directions of an upgraded connection, such as a WebSocket.
    pub tunnel_idle: Duration,
    /// Streams, windows and buffers of HTTP/2.
    pub http2: Http2Limits,
    /// A TLS handshake, with a client or with an endpoint.
    pub handshake: Duration,
    /// TLS handshakes under way, per worker; further clients are turned away.
    pub handshakes: usize,
    /// The end of a TLS or HTTP/2 connection, once everything was said.
    pub farewell: Duration,
    /// How long a client that was refused may go on sending what nobody reads, so that it sees why.
    pub linger: Duration,
    /// The same in bytes.
    pub linger_bytes: usize,
    /// Client connections of the process; further ones wait in the kernel's queue.
    pub connections: usize,
}

/// Bounds of an HTTP/2 connection, in both directions.
#[derive(Debug, Clone, Copy)]
pub struct Http2Limits {
    /// Requests of a client at a time.
    pub streams: u32,
    /// Bytes of one body that may be under way before they are read.
    pub stream_window: u32,
    /// The same for all bodies of a connection.
    pub connection_window: u32,
    /// Bytes of one response that wait in the connection to be written.
    pub send_buffer: usize,
    /// Silence of a server with requests of ours after which it is sent a PING; see
    /// `upstream/h2/ping.rs`.
    pub ping: Duration,
    /// How long it may take to answer.
    pub ping_answer: Duration,
}

/// A limit of time that people set by its name.
#[derive(Debug, Clone, Copy)]
pub struct NamedLimit {
    /// As in `--limit NAME=TIME`.
    pub name: &'static str,
    of: fn(&mut Limits) -> &mut Duration,
}

/// All of them; `docs/http.md` says what each bounds.
pub const NAMED_LIMITS: &[NamedLimit] = &[
    named("head", |limits| &mut limits.head),
    named("keep-alive", |limits| &mut limits.keep_alive),
    named("body-idle", |limits| &mut limits.body_idle),
    named("connect", |limits| &mut limits.connect),
    named("response-head", |limits| &mut limits.response_head),
    named("stream-idle", |limits| &mut limits.stream_idle),
    named("heartbeat", |limits| &mut limits.heartbeat),
    named("write-stall", |limits| &mut limits.write_stall),
    named("tunnel-idle", |limits| &mut limits.tunnel_idle),
    named("handshake", |limits| &mut limits.handshake),
    named("ping", |limits| &mut limits.http2.ping),
    named("ping-answer", |limits| &mut limits.http2.ping_answer),
];

const fn named(name: &'static str, of: fn(&mut Limits) -> &mut Duration) -> NamedLimit {
    NamedLimit { name, of }
}

impl Limits {
    /// By when more of a request body must have come, of which there are `received` bytes.
    pub(crate) fn body_due(&self, started: Micros, received: usize) -> Micros {
        let earned = Duration::from_secs(received as u64 / self.body_rate.max(1));
        (clock::coarse() + self.body_idle).min(started + self.body_idle + earned)
    }

    /// Sets one limit.
    pub fn set(&mut self, limit: NamedLimit, time: Duration) {
        *(limit.of)(self) = time;
        let most = self.vanished.as_millis().max(1);
        let parts = self.heartbeat.as_millis().div_ceil(most).max(1);
        self.look = self.heartbeat / u32::try_from(parts).unwrap_or(u32::MAX);
    }
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            streams: 256,
            stream_window: 256 << 10,
            connection_window: 1 << 20,
            send_buffer: 64 << 10,
            ping: Duration::from_secs(20),
            ping_answer: Duration::from_secs(10),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            http1: http1::Limits::default(),
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            parting: Duration::from_secs(1),
            body_idle: Duration::from_secs(30),
            body_rate: 500,
            body_bytes: 64 << 20,
            connect: Duration::from_secs(3),
            response_head: Duration::from_secs(600),
            stream_idle: Duration::from_secs(600),
            heartbeat: Duration::from_secs(15),
            look: Duration::from_secs(5),
            vanished: Duration::from_secs(5),
            write_stall: Duration::from_secs(60),
            first_event_hold: Duration::from_secs(1),
            first_event_bytes: 256 << 10,
            pipelined_bytes: 64 << 10,
            upstream_idle: Duration::from_secs(4),
            tunnel_idle: Duration::from_secs(3600),
            http2: Http2Limits::default(),
            handshake: Duration::from_secs(10),
            handshakes: 512,
            farewell: Duration::from_secs(1),
            linger: Duration::from_secs(5),
            linger_bytes: 128 << 20,
            connections: 65_536,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_looks_around_a_whole_number_of_times_between_two_heartbeats() {
        let heartbeat = NAMED_LIMITS.iter().find(|limit| limit.name == "heartbeat");
        for (millis, look) in [(15_000, 5_000), (7_000, 3_500), (200, 200), (60_000, 5_000)] {
            let mut limits = Limits::default();
            limits.set(*heartbeat.unwrap(), Duration::from_millis(millis));
            assert_eq!(limits.look, Duration::from_millis(look));
            assert_eq!(limits.heartbeat, Duration::from_millis(millis));
        }
        assert_eq!(Limits::default().look, Duration::from_secs(5));
    }
}
