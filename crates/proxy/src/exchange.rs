//! One request and its response, with everything that is learnt about it on the way.
//!
//! The stages of `serve` fill named, typed fields; nothing travels in side channels. A connection
//! owns one `Exchange` and uses it for request after request, so its buffers are allocated once.
//! The access log line and the metrics are projections of it.

use crate::failure::Failure;
use crate::memory::{Charge, Full, SHORT_HEAD_BYTES, Use};
use crate::worker::{OutBuffer, SCRATCH_BYTES, cost_of};
use config::Rule;
use http1::RequestHead;
use llm::{Api, Peek, Usage};
use picker::{EndpointId, Micros, Subsets};
use std::net::SocketAddr;
use std::sync::Arc;

/// Room for hashes that a connection keeps from request to request: those of 128 KiB of prompt.
const MOST_KEPT_HASHES: usize = 256;

/// Everything known about one request.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) head: RequestHead,
    /// What a long head has of the account.
    head_charge: Charge,
    pub(crate) body: Held,
    /// Length of the request body; the body itself is released before the response ends.
    pub(crate) body_bytes: usize,
    /// `x-request-id`: the client's own, or made here.
    pub(crate) id: String,
    /// Number of the decision, shown as `x-penstock-decision`; unique in this process.
    pub(crate) decision: u64,
    pub(crate) api: Api,
    pub(crate) peek: Option<Peek>,
    /// The model that the client asked for; empty when the body names none.
    pub(crate) model: String,
    /// The objective named by a trusted header.
    pub(crate) objective: Option<String>,
    pub(crate) rule: Option<Arc<Rule>>,
    /// Position of the chosen backend in the rule.
    pub(crate) backend: usize,
    /// Length of the path prefix that the rule matched, for rewrites.
    pub(crate) matched_prefix: usize,
    /// The socket address that the request came in by.
    pub(crate) bind: SocketAddr,
    /// The host that the client named in its TLS handshake.
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) over_tls: bool,
    /// Bodies have no chunks for this client: the end of the connection or of its stream ends them
    /// (HTTP/1.0, HTTP/2).
    pub(crate) unframed: bool,
    pub(crate) trusted: bool,
    /// The connection goes on after this request.
    pub(crate) keep_alive: bool,
    /// Responses tell endpoint, decision and overhead.
    pub(crate) explain: bool,
    /// The client asks for another protocol on its connection, such as WebSocket.
    pub(crate) upgrades: bool,
    /// The engine is asked for another model name than the client's.
    pub(crate) renamed: bool,
    pub(crate) pool: Option<Arc<crate::pool::Pool>>,
    /// The external endpoint picker that the pool names chooses.
    pub(crate) asks_picker: bool,
    /// The subsets of the pool that the request may be kept to.
    pub(crate) subsets: Subsets,
    /// The conversation with the external endpoint picker that chose the endpoint.
    pub(crate) picking: Option<Box<crate::ext_proc::client::Session>>,
    /// What an external endpoint picker answers the client itself.
    pub(crate) answer: Option<Box<crate::ext_proc::wire::ImmediateResponse>>,
    /// Hashes of the prompt's blocks.
    pub(crate) chain: Vec<u64>,
    /// Blocks of the prompt that the chosen endpoint was believed to hold.
    pub(crate) believed_blocks: u32,
    pub(crate) attempts: Vec<Attempt>,
    /// Attempts that ended with a failed connect after a kept connection had closed on the request:
    /// the endpoint may have seen it, and even have died of it.
    pub(crate) sent_to_gone: usize,
    pub(crate) timings: Timings,
    pub(crate) response: Answered,
    pub(crate) failure: Option<Failure>,
}

/// A request body in memory: a range of a buffer that the request owns until its head is answered.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) buffer: HeldBuffer,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// What a body that came with more than one read has of the account.
    pub(crate) _charge: Option<Charge>,
}

/// Small bodies are copied out of the read buffer; large ones take the buffer itself.
#[derive(Debug)]
pub(crate) enum HeldBuffer {
    Owned(OutBuffer),
    Read(crate::worker::Scratch),
}

impl Default for HeldBuffer {
    fn default() -> Self {
        Self::Owned(OutBuffer::empty())
    }
}

impl Held {
    pub(crate) fn bytes(&self) -> &[u8] {
        let all: &[u8] = match &self.buffer {
            HeldBuffer::Owned(bytes) => bytes,
            HeldBuffer::Read(scratch) => scratch,
        };
        all.get(self.start..self.end).unwrap_or_default()
    }

    /// A body that was put together, such as one with another model name.
    pub(crate) fn own(bytes: OutBuffer, charge: Option<Charge>) -> Self {
        Self {
            start: 0,
            end: bytes.len(),
            buffer: HeldBuffer::Owned(bytes),
            _charge: charge,
        }
    }

    /// Gives the memory back: no retry needs it any more.
    pub(crate) fn release(&mut self) {
        *self = Self::default();
    }
}

/// A request body while it is received: it grows within the account.
#[derive(Debug)]
pub(crate) struct Growing {
    bytes: OutBuffer,
    charge: Charge,
    /// Of the largest body that may come.
    most: usize,
}

impl Growing {
    /// `most`: its announced length, or the limit where none was announced.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            bytes: OutBuffer::take(),
            charge: Charge::none(Use::Bodies),
            most,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes one read more.
    pub(crate) fn extend(&mut self, part: &[u8]) -> Result<(), Full> {
        self.charge.admit(cost_of(self.bytes.len() + part.len()))?;
        // A chunk's framing is not in `most`, the last read may be beyond the limit.
        self.bytes.make_room(part.len(), self.most + SCRATCH_BYTES);
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    pub(crate) fn done(self) -> Held {
        Held::own(self.bytes, Some(self.charge))
    }
}

/// One try at one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) endpoint: EndpointId,
    /// Address and port, as people know it.
    pub(crate) name: Arc<str>,
    pub(crate) started: Micros,
    pub(crate) failure: Option<Failure>,
}

/// Moments of the request, each zero until it happened.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Timings {
    /// First byte of the head was read.
    pub(crate) started: Micros,
    /// The whole request was there.
    pub(crate) received: Micros,
    /// Time spent waiting in the pool's queue, in microseconds.
    pub(crate) queued_us: u64,
    /// Time in which an external endpoint picker was asked, in microseconds.
    pub(crate) asked_us: u64,
    /// The request was written to the endpoint that answered.
    pub(crate) sent: Micros,
    /// The first token, or the response head where there is no stream.
    pub(crate) first_token: Micros,
    pub(crate) ended: Micros,
}

/// What went back to the client.
#[derive(Debug, Default)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) head_sent: bool,
    /// The head of an event stream went out ahead of its first event, which any endpoint may give.
    pub(crate) owes_event: bool,
    pub(crate) bytes: u64,
    pub(crate) events: u64,
    pub(crate) is_stream: bool,
    pub(crate) usage: Option<Usage>,
    /// The client left before the end.
    pub(crate) client_gone: bool,
}

impl Answered {
    /// Whether the client has so much of an answer that no other can take its place.
    pub(crate) fn is_bound(&self) -> bool {
        self.head_sent && !self.owes_event
    }
}

impl Exchange {
    pub(crate) fn new() -> Self {
        Self {
            head: RequestHead::new(),
            head_charge: Charge::none(Use::Heads),
            body: Held::default(),
            body_bytes: 0,
            id: String::new(),
            decision: 0,
            api: Api::Other,
            peek: None,
            model: String::new(),
            objective: None,
            rule: None,
            backend: 0,
            matched_prefix: 0,
            bind: SocketAddr::from(([0, 0, 0, 0], 0)),
            server_name: None,
            over_tls: false,
            unframed: false,
            trusted: false,
            keep_alive: false,
            explain: false,
            upgrades: false,
            renamed: false,
            pool: None,
            asks_picker: false,
            subsets: Subsets::NONE,
            picking: None,
            answer: None,
            chain: Vec::new(),
            believed_blocks: 0,
            attempts: Vec::new(),
            sent_to_gone: 0,
            timings: Timings::default(),
            response: Answered::default(),
            failure: None,
        }
    }

    /// Ready for the next request of the connection; small buffers keep their memory.
    pub(crate) fn clear(&mut self) {
        if self.head_charge.bytes() == 0 {
            self.head.clear();
        } else {
            self.release_head();
        }
        self.body.release();
        if self.chain.capacity() > MOST_KEPT_HASHES {
            self.chain = Vec::new();
        }
        self.id.clear();
        self.api = Api::Other;
        self.peek = None;
        self.model.clear();
        self.objective = None;
        self.upgrades = false;
        self.renamed = false;
        self.rule = None;
        self.backend = 0;
        self.pool = None;
        self.subsets = Subsets::NONE;
        self.picking = None;
        self.answer = None;
        self.chain.clear();
        self.believed_blocks = 0;
        self.attempts.clear();
        self.sent_to_gone = 0;
        self.timings = Timings::default();
        self.response = Answered::default();
        self.failure = None;
    }

    /// Counts a head that is not among what its connection was charged.
    #[inline]
    pub(crate) fn count_head(&mut self) -> Result<(), Full> {
        let bytes = self.head.held_bytes();
        if bytes <= SHORT_HEAD_BYTES {
            return Ok(());
        }
        self.head_charge.keep(bytes)
    }

    /// Frees a head that nothing is done with any more.
    #[cold]
    pub(crate) fn release_head(&mut self) {
        self.head.release();
        self.head_charge.release();
    }

    /// Whether the caller reads answers as gRPC does, errors too.
    pub(crate) fn is_grpc(&self) -> bool {
        let content_type = self.head.get("content-type").unwrap_or_default();
        content_type.starts_with(b"application/grpc")
    }

    /// From the complete request to the sent one, without waiting for a turn or a pick, in microseconds.
    pub(crate) fn overhead_us(&self) -> u64 {
        self.timings
            .sent
            .0
            .saturating_sub(self.timings.received.0)
            .saturating_sub(self.timings.queued_us)
            .saturating_sub(self.timings.asked_us)
    }
}
