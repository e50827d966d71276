//! From what went wrong to what the client is told: one table.
//!
//! A [`Failure`] answers the questions a proxy asks: in which phase, what, whose fault, and may it
//! be tried elsewhere. Status, code and `Retry-After` follow from the cause alone; the text is
//! rendered in the caller's dialect (OpenAI or Anthropic).

use llm::{Dialect, ErrorText};

/// Where in the life of a request it failed; shown as `phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Request,
    Route,
    /// At the external endpoint picker.
    Pick,
    Queue,
    Connect,
    Head,
    Body,
    Stream,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Gateway,
    Engine,
}

/// Why; each has one row in [`Cause::row`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Refused by a parser, of HTTP/1.1 or of the body; status and code are the parser's.
    Refused {
        status: u16,
        code: &'static str,
    },
    BodyTooLarge,
    BodyTimeout,
    HeadTimeout,
    NoRoute,
    /// The host of the request belongs to another listener than the TLS handshake named.
    Misdirected,
    NoBackend,
    InvalidBackend,
    ModelNotFound,
    NoEndpoints,
    /// The endpoint picker could not be asked, or failed.
    PickerUnavailable,
    /// The endpoint picker did not pick in time.
    PickerTimeout,
    /// The endpoint picker picked no member of the pool.
    PickerNoDestination,
    /// The endpoint picker answered the client itself.
    PickerAnswer {
        status: u16,
    },
    Saturated,
    QueueFull,
    QueueTimeout,
    ConnectFailed,
    /// The endpoint closed before any response byte.
    ClosedEarly,
    /// The endpoint reset the connection.
    Reset,
    BadResponse,
    HeadLate,
    /// No byte for too long in the middle of a response.
    StreamIdle,
    /// The engine answered with a status that says "try elsewhere".
    EngineStatus {
        status: u16,
    },
    /// The first event of the stream was an error with this status.
    EngineErrorFirst {
        status: u16,
    },
    /// The stream was cut: an error event, an abort, or an end without its end mark.
    Cut,
    /// The client went away.
    ClientGone,
    /// The client has not taken any byte for too long.
    ClientStalled,
    RouteTimeout,
    /// The process holds as much memory as it may.
    Memory,
}

/// What went wrong, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) phase: Phase,
    pub(crate) cause: Cause,
    pub(crate) message: String,
    /// Seconds, where waiting helps.
    pub(crate) retry_after: Option<u32>,
}

/// One row of the table: status, code, OpenAI's error type, whose fault, whether another endpoint
/// may be tried, whether such a retry draws on the budget.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) side: Side,
    pub(crate) retry: Retry,
}

/// May the request go to another endpoint?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    Never,
    /// Free of charge: the endpoint cannot have begun the work.
    Free,
    /// Within the retry budget.
    Budgeted,
}

impl Cause {
    pub(crate) fn row(self) -> Row {
        use Retry::{Budgeted, Free, Never};
        use Side::{Client, Engine, Gateway};
        const INVALID: &str = "invalid_request_error";
        const SERVER: &str = "server_error";
        const RATE: &str = "rate_limit_error";
        let (status, code, kind, side, retry) = match self {
            Self::Refused { status, code } => (status, code, INVALID, Client, Never),
            Self::BodyTooLarge => (413, "request_too_large", INVALID, Client, Never),
            Self::BodyTimeout => (408, "body_timeout", INVALID, Client, Never),
            Self::HeadTimeout => (408, "head_timeout", INVALID, Client, Never),
            Self::NoRoute => (404, "no_route", INVALID, Client, Never),
            Self::Misdirected => (421, "misdirected_request", INVALID, Client, Never),
            Self::NoBackend => (500, "no_backend", SERVER, Gateway, Never),
            Self::InvalidBackend => (500, "invalid_backend", SERVER, Gateway, Never),
            Self::ModelNotFound => (404, "model_not_found", INVALID, Client, Never),
            Self::NoEndpoints => (503, "no_endpoints", SERVER, Gateway, Never),
            Self::PickerUnavailable => (503, "picker_unavailable", SERVER, Gateway, Never),
            Self::PickerTimeout => (503, "picker_timeout", SERVER, Gateway, Never),
            Self::PickerNoDestination => (503, "picker_no_destination", SERVER, Gateway, Never),
            Self::PickerAnswer { status } => (status, "picker_answer", SERVER, Gateway, Never),
            Self::Saturated => (429, "saturated", RATE, Gateway, Never),
            Self::QueueFull => (429, "queue_full", RATE, Gateway, Never),
            Self::QueueTimeout => (429, "queue_timeout", RATE, Gateway, Never),
            Self::ConnectFailed => (503, "connect_failed", SERVER, Engine, Free),
            Self::ClosedEarly => (502, "closed_early", SERVER, Engine, Free),
            Self::Reset => (502, "reset", SERVER, Engine, Budgeted),
            Self::BadResponse => (502, "bad_response", SERVER, Engine, Budgeted),
            Self::HeadLate => (504, "response_timeout", SERVER, Engine, Budgeted),
            Self::StreamIdle => (504, "stream_idle_timeout", SERVER, Engine, Never),
            Self::EngineStatus { status } => (status, "engine_error", SERVER, Engine, Budgeted),
            Self::EngineErrorFirst {
                status: status @ 400..429,
            } => (status, "engine_error", INVALID, Client, Never),
            Self::EngineErrorFirst { status } => (status, "engine_error", SERVER, Engine, Budgeted),
            Self::Cut => (502, "stream_cut", SERVER, Engine, Never),
            Self::ClientGone => (499, "client_gone", INVALID, Client, Never),
            Self::ClientStalled => (499, "client_stalled", INVALID, Client, Never),
            Self::RouteTimeout => (504, "request_timeout", SERVER, Gateway, Never),
            Self::Memory => (503, "memory", SERVER, Gateway, Never),
        };
        Row {
            status,
            code,
            kind,
            side,
            retry,
        }
    }
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Route => "route",
            Self::Pick => "pick",
            Self::Queue => "queue",
            Self::Connect => "connect",
            Self::Head => "head",
            Self::Body => "body",
            Self::Stream => "stream",
        }
    }
}

impl Failure {
    pub(crate) fn new(phase: Phase, cause: Cause, message: impl Into<String>) -> Self {
        Self {
            phase,
            cause,
            message: message.into(),
            retry_after: None,
        }
    }

    pub(crate) fn refused(refusal: &http1::Refusal) -> Self {
        let cause = Cause::Refused {
            status: refusal.status,
            code: refusal.code,
        };
        Self::new(Phase::Request, cause, refusal.message)
    }

    pub(crate) fn client_gone(phase: Phase) -> Self {
        Self::new(phase, Cause::ClientGone, "the client closed the connection")
    }

    pub(crate) fn client_stalled() -> Self {
        let message = "the client took no byte of its answer in time";
        Self::new(Phase::Stream, Cause::ClientStalled, message)
    }

    pub(crate) fn text(&self) -> ErrorText<'_> {
        let row = self.cause.row();
        ErrorText {
            status: row.status,
            kind: Some(row.kind),
            code: Some(row.code),
            message: &self.message,
            param: None,
        }
    }

    /// The whole response as gRPC reads it: a head with the status of the call, and no body.
    pub(crate) fn write_grpc(&self, fields: &[(&str, &str)], out: &mut Vec<u8>) {
        let row = self.cause.row();
        let status = grpc_status(row.status).to_string();
        let message = percent_encoded(&self.message);
        let mut all = vec![
            ("content-type", "application/grpc"),
            ("grpc-status", status.as_str()),
            ("grpc-message", message.as_str()),
            ("x-penstock-phase", self.phase.name()),
        ];
        all.extend_from_slice(fields);
        http1::write_response(200, &all, b"", true, out);
    }

    /// The whole response, in the caller's dialect.
    pub(crate) fn write(
        &self,
        dialect: Dialect,
        fields: &[(&str, &str)],
        keep: bool,
        out: &mut Vec<u8>,
    ) {
        let row = self.cause.row();
        let mut body = Vec::with_capacity(192);
        llm::error_body(dialect, &self.text(), &mut body);
        let retry_after = self.retry_after.map(|seconds| seconds.to_string());
        let mut all = vec![
            ("content-type", "application/json"),
            ("x-penstock-phase", self.phase.name()),
        ];
        if let Some(seconds) = &retry_after {
            all.push(("retry-after", seconds));
        }
        if matches!(
            self.cause,
            Cause::Saturated | Cause::QueueFull | Cause::QueueTimeout
        ) {
            all.push(("x-llm-d-request-dropped-reason", row.code));
        }
        all.extend_from_slice(fields);
        http1::write_response(row.status, &all, &body, keep, out);
    }
}

/// The status of a gRPC call for one of HTTP (the gRPC protocol's table, and what it lacks).
fn grpc_status(status: u16) -> u8 {
    match status {
        499 => 1,
        400 | 413 | 414 | 417 | 431 => 3,
        408 | 504 => 4,
        404 | 501 => 12,
        403 => 7,
        429 => 8,
        500 => 13,
        502 | 503 => 14,
        401 => 16,
        _ => 2,
    }
}

/// As gRPC writes messages: bytes other than printable ASCII, and the percent sign, are escaped.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}
