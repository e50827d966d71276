//! One conversation with a picker about one request: its head and body, later the head of its
//! response, at last its trailers; one stream of a connection that all requests of a worker share.
//!
//! The body goes out while the answer is awaited, since a picker may say nothing before it has all
//! of it. What it sends back of the body is read and dropped. After the pick, a conversation that
//! breaks is simply over; one that ends well is ended by us when the response has.

use super::framing::{self, Messages};
use super::mutation::{self, NAMESPACE, SERVED, SUBSET, Verdict};
use super::wire::{
    FULL_DUPLEX_STREAMED, HeaderMap, HttpBody, HttpHeaders, HttpTrailers, Metadata, PROCESS,
    ProcessingRequest, ProcessingResponse, ProtocolConfiguration, Said, Value,
};
use crate::limits::{Http2Limits, Limits};
use crate::memory::{Charge, Use};
use crate::upstream::h2::{self as shared, Seat};
use crate::worker::Local;
use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Uri};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// Body bytes of one message. Envoy's are as large.
const CHUNK_BYTES: usize = 64 << 10;
/// What a conversation holds: its stream, a message under way, heads and what was not read yet.
const SESSION_BYTES: usize = 32 << 10;
/// How long we wait for a picker's end of a conversation that is over.
const FAREWELL: Duration = Duration::from_secs(2);
/// What is not read yet of one conversation stays below this; of a connection, below that. So many
/// conversations can be left unread while their responses stream.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// What a picker is told of a request.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) fields: HeaderMap,
    pub(crate) body: &'a [u8],
    /// Members to choose among; empty: all.
    pub(crate) subset: Vec<SocketAddr>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(super) message: String,
    /// Nobody was there, as opposed to somebody who said that it failed.
    pub(super) is_silence: bool,
    /// No message had come.
    is_early: bool,
}

/// A conversation.
#[derive(Debug)]
pub(crate) struct Session {
    seat: Seat,
    send: SendStream<Bytes>,
    response: Option<ResponseFuture>,
    incoming: Option<RecvStream>,
    messages: Messages,
    heard: bool,
    /// A part of a message that there was no window for yet.
    pending: Bytes,
    body_sent: usize,
    body_ended: bool,
    subset: Option<Metadata>,
    /// The picker, or its end of the connection, takes no more.
    deaf: bool,
    ended: bool,
    /// Came while something else was waited for.
    kept: Option<Verdict>,
    _charge: Charge,
}

/// The bounds of connections to pickers.
fn bounds(limits: &Limits) -> Limits {
    Limits {
        http2: Http2Limits {
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            ..limits.http2
        },
        ..limits.clone()
    }
}

/// The head of a call of gRPC.
pub(super) fn call(path: &str, authority: &str, over_tls: bool) -> http::Result<Request<()>> {
    let uri = Uri::builder()
        .scheme(if over_tls { "https" } else { "http" })
        .authority(authority)
        .path_and_query(path);
    Request::post(uri.build()?)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "penstock")
        .body(())
}

impl Session {
    /// Asks at one address; ends with the verdict on the request.
    pub(super) async fn ask(
        local: &Local,
        address: &super::addresses::Address,
        limits: &Limits,
        question: &Question<'_>,
    ) -> Result<(Self, Verdict), Broken> {
        let mut fresh = false;
        loop {
            let (mut session, reused) = Self::open(local, address, limits, fresh).await?;
            let verdict = session.question(question).await;
            match verdict {
                Ok(verdict) => return Ok((session, verdict)),
                // A connection that was there before may have been closed at this very moment.
                Err(broken) if broken.is_early && broken.is_silence && reused && !fresh => {
                    session.seat.distrust();
                    fresh = true;
                }
                Err(broken) => return Err(broken),
            }
        }
    }

    async fn open(
        local: &Local,
        address: &super::addresses::Address,
        limits: &Limits,
        fresh: bool,
    ) -> Result<(Self, bool), Broken> {
        let endpoint = &address.endpoint;
        let opened = Box::pin(shared::seat(local, endpoint, &bounds(limits), fresh)).await;
        let (sender, seat, reused) = opened.map_err(|failure| silence(failure.message))?;
        let over_tls = !matches!(endpoint.transport.tls, crate::pool::Tls::None);
        let head = call(PROCESS, &endpoint.name, over_tls);
        let head = head.map_err(|error| silence(error.to_string()))?;
        let mut sender = sender.ready().await.map_err(|error| lost(&error))?;
        let sent = sender.send_request(head, false);
        let (response, send) = sent.map_err(|error| lost(&error))?;
        let session = Self {
            seat,
            send,
            response: Some(response),
            incoming: None,
            messages: Messages::default(),
            heard: false,
            pending: Bytes::new(),
            body_sent: 0,
            body_ended: false,
            subset: None,
            deaf: false,
            ended: false,
            kept: None,
            _charge: Charge::fixed(Use::Pickers, SESSION_BYTES),
        };
        Ok((session, reused))
    }

    async fn question(&mut self, question: &Question<'_>) -> Result<Verdict, Broken> {
        self.subset = (!question.subset.is_empty()).then(|| subset(&question.subset));
        self.body_ended = question.body.is_empty();
        self.say(&ProcessingRequest {
            said: Some(Said::RequestHeaders(HttpHeaders {
                headers: Some(question.fields.clone()),
                end_of_stream: question.body.is_empty(),
            })),
            metadata_context: self.subset.clone(),
            protocol_config: Some(ProtocolConfiguration {
                request_body_mode: FULL_DUPLEX_STREAMED,
                response_body_mode: 0,
                send_body_without_waiting_for_header_response: true,
            }),
        });
        let verdict = poll_fn(|cx| self.poll_verdict(cx, question.body)).await?;
        verdict.ok_or_else(|| Broken {
            message: "it ended the conversation without a destination".to_owned(),
            is_silence: false,
            is_early: false,
        })
    }

    /// The next verdict, while the body goes out; `None` when the picker is done with the request.
    pub(crate) fn poll_verdict(
        &mut self,
        cx: &mut Context<'_>,
        body: &[u8],
    ) -> Poll<Result<Option<Verdict>, Broken>> {
        loop {
            match self.poll_message(cx) {
                Poll::Ready(Ok(Some(message))) => {
                    if let Some(verdict) = Verdict::of(message) {
                        return Poll::Ready(Ok(Some(verdict)));
                    }
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
                Poll::Pending => break,
            }
        }
        // Its wake-up is this future's, whatever it waits for.
        while matches!(self.poll_part(cx, body), Poll::Ready(false)) {}
        Poll::Pending
    }

    fn say(&mut self, message: &ProcessingRequest) {
        // Small enough for the connection to hold; whether it arrives shows in what comes back.
        self.deaf |= self.send.send_data(framing::frame(message), false).is_err();
    }

    /// Hands over some of the body. True when that was all, or the picker wants no more of it.
    fn poll_part(&mut self, cx: &mut Context<'_>, body: &[u8]) -> Poll<bool> {
        if !self.deaf {
            if self.pending.is_empty() {
                if self.body_ended {
                    return Poll::Ready(true);
                }
                let rest = body.get(self.body_sent..).unwrap_or_default();
                let (part, rest) = rest.split_at(rest.len().min(CHUNK_BYTES));
                self.body_sent += part.len();
                self.body_ended = rest.is_empty();
                self.pending = framing::frame(&ProcessingRequest {
                    said: Some(Said::RequestBody(HttpBody {
                        body: Bytes::copy_from_slice(part),
                        end_of_stream: self.body_ended,
                    })),
                    metadata_context: self.subset.clone().filter(|_| self.body_ended),
                    protocol_config: None,
                });
            }
            self.send.reserve_capacity(self.pending.len());
            let Some(Ok(window)) = ready!(self.send.poll_capacity(cx)) else {
                self.deaf = true;
                return Poll::Ready(true);
            };
            let part = self.pending.split_to(window.min(self.pending.len()));
            self.deaf |= self.send.send_data(part, false).is_err();
        }
        Poll::Ready(self.deaf)
    }

    /// The next message; `None` when the picker ended the conversation well.
    fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<ProcessingResponse>, Broken>> {
        loop {
            match self.messages.next() {
                Ok(Some(message)) => {
                    self.heard = true;
                    return Poll::Ready(Ok(Some(message)));
                }
                Ok(None) => {}
                Err(message) => return Poll::Ready(Err(self.said(message))),
            }
            if let Some(response) = &mut self.response {
                let response = ready!(Pin::new(response).poll(cx));
                self.response = None;
                let response = response.map_err(|error| self.lost(&error))?;
                let (head, incoming) = response.into_parts();
                if !head.status.is_success() {
                    let message = format!("it answered with status {}", head.status.as_u16());
                    return Poll::Ready(Err(self.said(message)));
                }
                if incoming.is_end_stream() {
                    return Poll::Ready(self.end(&head.headers));
                }
                self.incoming = Some(incoming);
            }
            let Some(incoming) = &mut self.incoming else {
                return Poll::Ready(Ok(None));
            };
            match ready!(incoming.poll_data(cx)) {
                Some(Ok(part)) => {
                    self.messages.push(&part);
                    // A stream that was reset meanwhile says so at the next read.
                    let _ = incoming.flow_control().release_capacity(part.len());
                }
                Some(Err(error)) => return Poll::Ready(Err(self.lost(&error))),
                None => {
                    let trailers = ready!(incoming.poll_trailers(cx));
                    self.incoming = None;
                    let trailers = trailers.map_err(|error| self.lost(&error))?;
                    return Poll::Ready(self.end(&trailers.unwrap_or_default()));
                }
            }
        }
    }

    /// The picker ended the conversation: well, with status 0 after a whole message.
    fn end<T>(&mut self, trailers: &http::HeaderMap) -> Result<Option<T>, Broken> {
        self.deaf = true;
        self.ended = true;
        let text = |name: &str| {
            let value = trailers.get(name).map(http::HeaderValue::as_bytes);
            String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
        };
        let status = text("grpc-status");
        if status == "0" && !self.messages.is_cut() {
            return Ok(None);
        }
        let message = match status.as_str() {
            "" => "it ended the conversation without a status".to_owned(),
            _ => format!(
                "it failed with gRPC status {status}: {}",
                text("grpc-message")
            ),
        };
        Err(self.said(message))
    }

    /// A picker that is there failed.
    fn said(&self, message: String) -> Broken {
        Broken {
            message,
            is_silence: false,
            is_early: !self.heard,
        }
    }

    fn lost(&self, error: &h2::Error) -> Broken {
        if !error.is_reset() {
            self.seat.distrust();
        }
        Broken {
            is_early: !self.heard,
            ..lost(error)
        }
    }

    /// Tells the picker the head of the response and who served; ends with what it makes of it. It
    /// is given up when for `within` nothing moves.
    pub(crate) async fn respond(
        &mut self,
        told: &HeaderMap,
        served: SocketAddr,
        body: &[u8],
        within: Duration,
    ) -> Result<Option<Verdict>, Broken> {
        // In the order of the protocol: first the rest of the request, if the picker decided early.
        let mut is_whole = false;
        while !is_whole {
            is_whole = bounded(within, poll_fn(|cx| self.poll_rest(cx, body))).await?;
        }
        if self.deaf || self.kept.is_some() {
            return Ok(self.kept.take());
        }
        let served = Value::text(served.to_string());
        self.say(&ProcessingRequest {
            said: Some(Said::ResponseHeaders(HttpHeaders {
                headers: Some(told.clone()),
                end_of_stream: false,
            })),
            metadata_context: Some(Metadata::of(NAMESPACE, SERVED, served)),
            protocol_config: None,
        });
        bounded(within, poll_fn(|cx| self.poll_verdict(cx, body))).await?
    }

    /// Hands over some of the body, and drops what the picker sends back of it meanwhile.
    fn poll_rest(&mut self, cx: &mut Context<'_>, body: &[u8]) -> Poll<bool> {
        while let Poll::Ready(message) = self.poll_message(cx) {
            match message.map(|message| message.and_then(Verdict::of)) {
                Ok(Some(Verdict::Immediate(answer))) => {
                    self.kept = Some(Verdict::Immediate(answer));
                    return Poll::Ready(true);
                }
                Ok(_) if !self.ended => {}
                _ => {
                    self.deaf = true;
                    return Poll::Ready(true);
                }
            }
        }
        self.poll_part(cx, body)
    }

    /// Tells the picker the trailers of the response; it need not say anything to them.
    pub(crate) fn trailers(&mut self, trailers: &http::HeaderMap) {
        if !self.deaf {
            self.say(&ProcessingRequest {
                said: Some(Said::ResponseTrailers(HttpTrailers {
                    trailers: Some(mutation::trailer_fields(trailers)),
                })),
                metadata_context: None,
                protocol_config: None,
            });
        }
    }

    /// The response ended as it should: so does the conversation. Nobody waits for its end.
    pub(crate) fn finish(self, local: &Local) {
        let mut session = self;
        if session.ended || session.send.send_data(Bytes::new(), true).is_err() {
            return;
        }
        session.ended = true;
        local.multiplexed.attend(async move {
            let end = poll_fn(|cx| {
                while let Poll::Ready(message) = session.poll_message(cx) {
                    if !matches!(message, Ok(Some(_))) {
                        return Poll::Ready(());
                    }
                }
                Poll::Pending
            });
            let _ = tokio::time::timeout(FAREWELL, end).await;
        });
    }
}

impl Drop for Session {
    /// Given up: the picker must not take it for an end.
    fn drop(&mut self) {
        if !self.ended {
            self.send.send_reset(Reason::CANCEL);
        }
    }
}

fn subset(members: &[SocketAddr]) -> Metadata {
    let values = members.iter().map(|member| Value::text(member.to_string()));
    Metadata::of(SUBSET.0, SUBSET.1, Value::list(values.collect()))
}

async fn bounded<T>(within: Duration, act: impl Future<Output = T>) -> Result<T, Broken> {
    let done = tokio::time::timeout(within, act).await;
    done.map_err(|_| silence(format!("nothing moved for {within:?}")))
}

fn silence(message: String) -> Broken {
    Broken {
        message,
        is_silence: true,
        is_early: true,
    }
}

fn lost(error: &h2::Error) -> Broken {
    let error = shared::described(error);
    silence(format!("the connection broke: {error}"))
}
