//! The bounds of the data path: every wait has a deadline, every buffer a size.
//!
//! Defaults that a user never has to think about. There is no total time limit: a stream may run
//! for hours as long as bytes move (`stream_idle`).

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
    /// The largest request body that is held, in bytes.
    pub body_bytes: usize,
    /// A TCP connect to an endpoint.
    pub connect: Duration,
    /// From the sent request to the response head, where the route sets no timeout. An engine may
    /// compute a long answer before its head, so this is long.
    pub response_head: Duration,
    /// Between two reads of a response.
    pub stream_idle: Duration,
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
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            streams: 256,
            stream_window: 256 << 10,
            connection_window: 1 << 20,
            send_buffer: 64 << 10,
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
            body_bytes: 64 << 20,
            connect: Duration::from_secs(3),
            response_head: Duration::from_secs(600),
            stream_idle: Duration::from_secs(600),
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
            connections: 65_536,
        }
    }
}
