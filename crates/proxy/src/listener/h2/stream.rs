//! One stream of HTTP/2: its request read whole, its answer turned from text into frames.
//!
//! What the client has no window for stays here (at most one read of the endpoint's, since the
//! relay waits for [`Stream::flush`] before it reads on), so a slow client holds back its server.

use super::owed::{Owed, Part};
use crate::clock;
use crate::deadline::Deadline;
use crate::exchange::{Exchange, Growing};
use crate::failure::{Cause, Failure, Phase};
use crate::limits::Limits;
use crate::listener::h1::{body_late, bounded, too_large};
use crate::memory::{ACCOUNT, Charge, Full, Use, cost_of_unsent};
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use http1::{Framing, Parsed, RequestHead, ResponseHead};
use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

/// A larger buffer for what is unsent is not kept for the next read.
const KEPT_BYTES: usize = 1 << 10;

/// The client's side of a stream.
#[derive(Debug)]
pub(crate) struct Stream {
    answer: SendResponse<Part>,
    body: Option<SendStream<Part>>,
    unsent: BytesMut,
    /// The most that was in `unsent` since it was last empty: so large is its buffer.
    unsent_most: usize,
    /// Bytes of the body that are still to come, where the head told.
    left: Option<u64>,
    /// Trailers may come: what has a length does not end with its last byte.
    pub(in crate::listener) is_held: bool,
    /// Everything was handed over, the end too.
    ended: bool,
    was_head: bool,
    limits: http1::Limits,
    pub(in crate::listener) deadline: Deadline,
    pub(in crate::listener) draining: Rc<Cell<bool>>,
    pub(in crate::listener) gone: bool,
    /// The stream itself, and what its client has no window for.
    _charge: Charge,
    held: Charge,
    /// What was handed over, of all streams of the connection.
    owed: Owed,
}

impl Stream {
    pub(super) fn new(
        (answer, owed, charge): (SendResponse<Part>, Owed, Charge),
        draining: Rc<Cell<bool>>,
        was_head: bool,
        limits: &Limits,
    ) -> Self {
        Self {
            answer,
            body: None,
            unsent: BytesMut::new(),
            unsent_most: 0,
            left: None,
            is_held: false,
            ended: false,
            was_head,
            limits: http1::Limits {
                // Our own fields come on top of what an endpoint may send.
                head_bytes: limits.http1.head_bytes * 2,
                fields: usize::MAX,
                ..limits.http1
            },
            deadline: Deadline::new(),
            draining,
            gone: false,
            _charge: charge,
            held: Charge::none(Use::Unsent),
            owed,
        }
    }

    /// Takes text of an answer: first its head, then its body without chunks.
    pub(in crate::listener) async fn offer(
        &mut self,
        head: &[u8],
        body: &[u8],
    ) -> Result<(), Failure> {
        let start = if self.body.is_some() || head.is_empty() {
            0
        } else {
            self.begin(head)?
        };
        if !self.ended {
            self.unsent
                .extend_from_slice(head.get(start..).unwrap_or_default());
            self.unsent.extend_from_slice(body);
            self.unsent_most = self.unsent_most.max(self.unsent.len());
        }
        let sent = poll_fn(|cx| match self.poll_send(cx) {
            Poll::Ready(sent) => Poll::Ready(sent),
            Poll::Pending => Poll::Ready(Ok(())),
        });
        sent.await.map_err(|lost| self.lost(lost))
    }

    /// Sends the head; returns how many bytes of `text` it has.
    fn begin(&mut self, text: &[u8]) -> Result<usize, Failure> {
        let mut head = ResponseHead::new();
        let Ok(Parsed::Complete { head_bytes }) = head.parse(text, self.was_head, &self.limits)
        else {
            let message = "the response head cannot be said in HTTP/2";
            return Err(Failure::new(Phase::Head, Cause::BadResponse, message));
        };
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::from_u16(head.status()).unwrap_or_default();
        let is_grpc = head
            .get("content-type")
            .is_some_and(|value| value.starts_with(b"application/grpc"));
        for (name, value) in head.fields() {
            let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(name.as_bytes()),
                HeaderValue::from_bytes(value),
            ) else {
                continue;
            };
            let is_framing = is_of_connection(&name) || is_grpc && name == header::CONTENT_LENGTH;
            if !is_framing {
                response.headers_mut().append(name, value);
            }
        }
        self.left = match head.framing() {
            Framing::None => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::Close => None,
        };
        self.ended = self.left == Some(0) && !self.is_held;
        let room = self.owed.head(head_bytes);
        room.map_err(|Full| ACCOUNT.refuse(Phase::Stream))?;
        match self.answer.send_response(response, self.ended) {
            Ok(body) => self.body = Some(body),
            Err(_) => return Err(self.left()),
        }
        Ok(head_bytes)
    }

    /// Hands over what the client has window for.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Ok(()));
        };
        while !self.unsent.is_empty() {
            let mut window = body.capacity();
            if window == 0 {
                body.reserve_capacity(self.unsent.len());
                window = match body.poll_capacity(cx) {
                    Poll::Ready(Some(Ok(window))) => window,
                    Poll::Ready(_) => return Poll::Ready(Err(Lost::Gone)),
                    Poll::Pending => return Poll::Pending,
                };
            }
            let part = self.unsent.split_to(window.min(self.unsent.len()));
            // A small part must not keep the buffer of a large read.
            let bytes = if part.len() * 2 < self.unsent_most {
                Bytes::copy_from_slice(&part)
            } else {
                part.freeze()
            };
            let left = self
                .left
                .map(|left| left.saturating_sub(bytes.len() as u64));
            let Ok(part) = self.owed.part(bytes) else {
                return Poll::Ready(Err(Lost::Full));
            };
            self.left = left;
            self.ended = left == Some(0) && !self.is_held;
            if body.send_data(part, self.ended).is_err() {
                return Poll::Ready(Err(Lost::Gone));
            }
            if self.ended {
                self.unsent.clear();
            }
        }
        if self.unsent_most > KEPT_BYTES {
            self.unsent = BytesMut::new();
        }
        self.unsent_most = 0;
        Poll::Ready(Ok(()))
    }

    pub(in crate::listener) async fn flush(&mut self, limits: &Limits) -> Result<(), Failure> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let mut seen = usize::MAX;
        let sent = poll_fn(|cx| {
            let sent = self.poll_send(cx);
            if sent.is_ready() {
                return sent;
            }
            if self.held.keep(cost_of_unsent(self.unsent_most)).is_err() {
                return Poll::Ready(Err(Lost::Full));
            }
            if self.unsent.len() != seen {
                seen = self.unsent.len();
                self.deadline.set(clock::now() + limits.write_stall);
            }
            if self.deadline.poll_passed(cx) {
                return Poll::Ready(Err(Lost::Stalled));
            }
            self.poll_gone(cx).map(|()| Err(Lost::Gone))
        })
        .await;
        self.deadline.clear();
        self.held.release();
        sent.map_err(|lost| self.lost(lost))
    }

    /// Ends a body whose length was not told or that is whole, with trailers if there are any.
    pub(in crate::listener) async fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        limits: &Limits,
    ) -> Result<(), Failure> {
        self.flush(limits).await?;
        // One with a length that is not there yet is cut: see `close`.
        if self.ended || self.left.is_some_and(|left| left > 0) {
            return Ok(());
        }
        let Some(body) = &mut self.body else {
            return Ok(());
        };
        let ended = match trailers {
            Some(trailers) => {
                let texts = trailers.iter();
                let bytes = texts.map(|(name, value)| name.as_str().len() + value.len());
                let room = self.owed.head(bytes.sum());
                room.map(|()| body.send_trailers(trailers))
            }
            None => {
                let end = self.owed.part(Bytes::new());
                end.map(|end| body.send_data(end, true))
            }
        };
        let ended = ended.map_err(|Full| ACCOUNT.refuse(Phase::Stream))?;
        self.ended = true;
        ended.map_err(|_| self.left())
    }

    /// Ready when the client reset the stream or left.
    pub(in crate::listener) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.body {
            Some(body) => body.poll_reset(cx),
            None => self.answer.poll_reset(cx),
        };
        reset.map(|_| self.gone = true)
    }

    /// What was begun and not ended is cut: the client must not take it for whole. `unsaid`: the
    /// reason where nothing was said.
    pub(super) fn close(&mut self, unsaid: Reason) {
        if self.ended || self.gone {
            return;
        }
        match &mut self.body {
            Some(body) => body.send_reset(Reason::INTERNAL_ERROR),
            None => self.answer.send_reset(unsaid),
        }
    }

    fn lost(&mut self, lost: Lost) -> Failure {
        match lost {
            Lost::Gone => self.left(),
            Lost::Full => ACCOUNT.refuse(Phase::Stream),
            Lost::Stalled => {
                self.left();
                Failure::client_stalled()
            }
        }
    }

    fn left(&mut self) -> Failure {
        self.gone = true;
        Failure::client_gone(Phase::Stream)
    }
}

/// What one stream holds of the bodies that a connection may hold in memory: as much as two of
/// the largest.
#[derive(Debug)]
pub(super) struct Share {
    all: Rc<Cell<usize>>,
    own: Cell<usize>,
}

impl Share {
    pub(super) fn new(all: Rc<Cell<usize>>) -> Self {
        Self {
            all,
            own: Cell::new(0),
        }
    }

    /// Whether there is room for so many bytes more.
    fn grow(&self, bytes: usize, limits: &Limits) -> bool {
        self.own.set(self.own.get() + bytes);
        self.all.set(self.all.get() + bytes);
        self.all.get() <= limits.body_bytes.saturating_mul(2)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.set(self.all.get().saturating_sub(self.own.get()));
    }
}

/// Why the rest of an answer is not sent.
#[derive(Debug)]
enum Lost {
    /// The client does not take anything any more.
    Gone,
    /// It does not read, while others need the memory.
    Full,
    /// It has taken nothing for as long as it may.
    Stalled,
}

/// Fields that HTTP/2 has no place for (RFC 9113 section 8.2.2).
fn is_of_connection(name: &HeaderName) -> bool {
    [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::PROXY_AUTHENTICATE,
    ]
    .contains(name)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Reads a whole request, head and body, into `x`.
///
/// # Errors
/// What HTTP/1.1 would refuse too, a body that is too large or late; or the client left.
pub(super) async fn receive(
    stream: &mut Stream,
    request: Request<RecvStream>,
    x: &mut Exchange,
    (limits, held): (&Limits, &Share),
) -> Result<(), Failure> {
    x.timings.started = clock::now();
    let (parts, mut incoming) = request.into_parts();
    let has_body = !incoming.is_end_stream();
    let fields = fields(&parts)?;
    // Before the body is read: what is refused anyway need not send it.
    let mut head = head(&parts, &fields, has_body.then_some(0))?;
    if ACCOUNT.is_over() {
        x.head = head;
        return Err(ACCOUNT.refuse(Phase::Request));
    }
    let announced = parts.headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse().ok());
    let announced = announced
        .map(|length| bounded(length, limits))
        .transpose()?;
    let mut body = Growing::new(announced.unwrap_or(limits.body_bytes));
    if has_body {
        if parts.headers.contains_key(header::EXPECT) {
            let mut proceed = Response::new(());
            *proceed.status_mut() = http::StatusCode::CONTINUE;
            // A client that has left meanwhile is noticed by what follows.
            let _ = stream.answer.send_informational(proceed);
        }
        body_of(stream, &mut incoming, &mut body, (limits, held)).await?;
        head = self::head(&parts, &fields, Some(body.len()))?;
    }
    x.head = head;
    x.body_bytes = body.len();
    x.body = body.done();
    x.timings.received = clock::now();
    stream.deadline.clear();
    Ok(())
}

async fn body_of(
    stream: &mut Stream,
    incoming: &mut RecvStream,
    body: &mut Growing,
    (limits, held): (&Limits, &Share),
) -> Result<(), Failure> {
    let started = clock::coarse();
    loop {
        stream.deadline.set(limits.body_due(started, body.len()));
        let part = poll_fn(|cx| match incoming.poll_data(cx) {
            Poll::Pending if stream.deadline.poll_passed(cx) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
            Poll::Ready(part) => Poll::Ready(Some(part)),
        });
        match part.await {
            Some(Some(Ok(part))) => {
                body.extend(&part)
                    .map_err(|Full| ACCOUNT.refuse(Phase::Body))?;
                if body.len() > limits.body_bytes || !held.grow(part.len(), limits) {
                    return Err(too_large(body.len() as u64, limits));
                }
                // The stream may have been reset meanwhile: the next poll tells.
                let _ = incoming.flow_control().release_capacity(part.len());
            }
            Some(Some(Err(_))) => {
                stream.gone = true;
                return Err(Failure::client_gone(Phase::Body));
            }
            Some(None) => return Ok(()),
            None => return Err(body_late(limits)),
        }
    }
}

/// The fields of a request as HTTP/1.1 says them: cookies in one field, none of framing.
fn fields(parts: &http::request::Parts) -> Result<Vec<(HeaderName, Bytes)>, Failure> {
    let mut fields: Vec<(HeaderName, Bytes)> = Vec::with_capacity(parts.headers.len());
    let mut cookies = Vec::new();
    for (name, value) in &parts.headers {
        match name {
            &header::HOST | &header::CONTENT_LENGTH => {}
            &header::COOKIE => cookies.push(value.as_bytes()),
            name => fields.push((name.clone(), Bytes::copy_from_slice(value.as_bytes()))),
        }
    }
    if !cookies.is_empty() {
        // Split for compression only (RFC 9113 section 8.2.3).
        fields.push((header::COOKIE, cookies.join(&b"; "[..]).into()));
    }
    if fields.len() > 100 {
        let cause = Cause::Refused {
            status: 431,
            code: "too_many_fields",
        };
        let message = "the head has more fields than the limit";
        return Err(Failure::new(Phase::Request, cause, message));
    }
    Ok(fields)
}

/// The head as the pipeline reads it.
fn head(
    parts: &http::request::Parts,
    fields: &[(HeaderName, Bytes)],
    body: Option<usize>,
) -> Result<RequestHead, Failure> {
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let length = body.map(|bytes| bytes.to_string());
    let length = length
        .iter()
        .map(|text| ("content-length", text.as_bytes()));
    let fields = fields
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_ref()));
    let host = host(parts)?;
    RequestHead::from_parts(parts.method.as_str(), target, host, fields.chain(length))
        .map_err(|refusal| Failure::refused(&refusal))
}

/// `:authority`, or the Host field; they must not differ.
fn host(parts: &http::request::Parts) -> Result<&str, Failure> {
    let refused = |code, message| {
        let cause = Cause::Refused { status: 400, code };
        Err(Failure::new(Phase::Request, cause, message))
    };
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let field = fields.next().map(HeaderValue::to_str);
    if fields.next().is_some() {
        return refused("duplicate_host", "more than one Host field");
    }
    match (parts.uri.authority(), field) {
        (Some(authority), Some(Ok(host))) if !authority.as_str().eq_ignore_ascii_case(host) => {
            refused("invalid_host", "`:authority` and the Host field differ")
        }
        (Some(authority), _) => Ok(authority.as_str()),
        (None, Some(Ok(host))) => Ok(host),
        (None, Some(Err(_))) => refused("invalid_host", "the Host field is no text"),
        (None, None) => refused("missing_host", "an HTTP/2 request needs `:authority`"),
    }
}
