//! One request over an HTTP/2 connection, in the form of HTTP/1.1 at both ends: the head's text
//! becomes frames, the response's frames become text.
//!
//! A body without a length ends as a connection would; one that is reset breaks. Window is given
//! back for what the relay has taken only, so a slow client holds back this stream.

use super::Seat;
use crate::worker::Scratch;
use bytes::{Buf, Bytes};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http1::{Limits, Parsed, RequestHead};
use std::fmt::Write as _;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A request and its response.
#[derive(Debug)]
pub(crate) struct Stream {
    sender: SendRequest<Bytes>,
    seat: Seat,
    over_tls: bool,
    was_head: bool,
    body: Option<SendStream<Bytes>>,
    response: Option<ResponseFuture>,
    incoming: Option<RecvStream>,
    /// Came, and has not been taken by the relay.
    pending: Bytes,
    /// How much of `pending` counts in the window.
    counted: bool,
    pub(in crate::upstream) trailers: Option<HeaderMap>,
}

impl Stream {
    pub(super) fn new(sender: SendRequest<Bytes>, seat: Seat, over_tls: bool) -> Self {
        Self {
            sender,
            seat,
            over_tls,
            was_head: false,
            body: None,
            response: None,
            incoming: None,
            pending: Bytes::new(),
            counted: false,
            trailers: None,
        }
    }

    /// See [`crate::upstream::Upstream::poll_send`].
    pub(in crate::upstream) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        (head, body): (&[u8], &[u8]),
        done: &mut usize,
    ) -> Poll<io::Result<()>> {
        if self.body.is_none() {
            let ready = ready!(self.sender.poll_ready(cx));
            ready.map_err(|error| self.broken(error))?;
            let request = request(head, self.over_tls)?;
            self.was_head = request.method() == Method::HEAD;
            let sent = self.sender.send_request(request, body.is_empty());
            let (response, stream) = sent.map_err(|error| self.broken(error))?;
            self.response = Some(response);
            self.body = Some(stream);
            *done = head.len();
        }
        let Some(stream) = &mut self.body else {
            return Poll::Ready(Ok(()));
        };
        while let Some(rest) = body
            .get(*done - head.len()..)
            .filter(|rest| !rest.is_empty())
        {
            let mut window = stream.capacity();
            if window == 0 {
                stream.reserve_capacity(rest.len());
                window = match ready!(stream.poll_capacity(cx)) {
                    Some(Ok(window)) => window,
                    // The server answers without having read all, or gave the stream up: what it
                    // says is read next.
                    Some(Err(_)) | None => return Poll::Ready(Ok(())),
                };
            }
            let part = rest.get(..window.min(rest.len())).unwrap_or_default();
            let is_last = part.len() == rest.len();
            if stream
                .send_data(Bytes::copy_from_slice(part), is_last)
                .is_err()
            {
                return Poll::Ready(Ok(()));
            }
            *done += part.len();
        }
        Poll::Ready(Ok(()))
    }

    /// The next bytes of the response as HTTP/1.1; none at its end.
    pub(in crate::upstream) fn poll_scratch(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Scratch, usize)>> {
        let mut scratch = Scratch::take();
        while self.pending.is_empty() {
            if let Some(response) = &mut self.response {
                let response = ready!(Pin::new(response).poll(cx));
                let response = response.map_err(|error| self.broken(error))?;
                self.response = None;
                self.begin(response);
                continue;
            }
            let Some(incoming) = &mut self.incoming else {
                return Poll::Ready(Ok((scratch, 0)));
            };
            match ready!(incoming.poll_data(cx)) {
                Some(Ok(part)) => {
                    self.pending = part;
                    self.counted = true;
                }
                Some(Err(error)) => return Poll::Ready(Err(self.broken(error))),
                None => {
                    let trailers = ready!(incoming.poll_trailers(cx));
                    self.trailers = trailers.map_err(|error| self.broken(error))?;
                    self.incoming = None;
                }
            }
        }
        let count = self.pending.len().min(scratch.len());
        if let Some(room) = scratch.get_mut(..count) {
            self.pending.copy_to_slice(room);
        }
        if self.counted
            && let Some(incoming) = &mut self.incoming
        {
            // A stream that was reset meanwhile says so at the next read.
            let _ = incoming.flow_control().release_capacity(count);
        }
        Poll::Ready(Ok((scratch, count)))
    }

    /// Turns the head into text.
    fn begin(&mut self, response: Response<RecvStream>) {
        let (parts, incoming) = response.into_parts();
        let mut text = Vec::with_capacity(256);
        let mut line = String::new();
        // Writing to a string cannot fail.
        let _ = write!(line, "HTTP/1.1 {} \r\n", parts.status.as_u16());
        text.extend_from_slice(line.as_bytes());
        for (name, value) in &parts.headers {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        let has_no_body = incoming.is_end_stream();
        let says_length = parts.headers.contains_key(header::CONTENT_LENGTH);
        if has_no_body && !says_length && !self.was_head {
            text.extend_from_slice(b"content-length: 0\r\n");
        }
        text.extend_from_slice(b"\r\n");
        self.pending = text.into();
        self.counted = false;
        self.incoming = (!has_no_body).then_some(incoming);
    }

    /// Whether the end of the response, with trailers perhaps, is still to come.
    pub(in crate::upstream) fn is_open(&self) -> bool {
        let incoming = self.incoming.as_ref();
        incoming.is_some_and(|incoming| !incoming.is_end_stream())
    }

    /// The connection takes no further requests.
    pub(in crate::upstream) fn distrust(&self) {
        self.seat.distrust();
    }

    fn broken(&self, error: h2::Error) -> io::Error {
        // One that answers nobody any more, or is about to close, is for nobody else either.
        if !error.is_reset() {
            self.distrust();
        }
        let kind = match error.reason() {
            // Not processed at all (RFC 9113 section 8.7).
            Some(Reason::REFUSED_STREAM) => io::ErrorKind::ConnectionReset,
            _ if error.is_go_away() && self.incoming.is_none() => io::ErrorKind::ConnectionReset,
            _ => io::ErrorKind::ConnectionAborted,
        };
        io::Error::new(kind, super::described(&error))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // A request that is given up: an engine must not go on computing for nobody.
        if let Some(body) = &mut self.body
            && (self.response.is_some() || self.incoming.is_some())
        {
            body.send_reset(Reason::CANCEL);
        }
    }
}

/// A request as HTTP/2 says it, from its text.
fn request(text: &[u8], over_tls: bool) -> io::Result<Request<()>> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "no head for http/2");
    let limits = Limits {
        head_bytes: usize::MAX,
        fields: usize::MAX,
        target_bytes: usize::MAX,
        ..Limits::default()
    };
    let mut head = RequestHead::new();
    let Ok(Parsed::Complete { .. }) = head.parse(text, &limits) else {
        return Err(invalid());
    };
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(if over_tls {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    });
    let host = head.get("host").unwrap_or_default();
    uri.authority = Some(Authority::try_from(host).map_err(|_| invalid())?);
    uri.path_and_query = Some(PathAndQuery::try_from(head.target()).map_err(|_| invalid())?);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method().as_bytes()).map_err(|_| invalid())?;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| invalid())?;
    *request.version_mut() = http::Version::HTTP_2;
    let fields = request.headers_mut();
    for (name, value) in head.fields() {
        let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_bytes(value),
        ) else {
            continue;
        };
        if name != header::HOST && name != header::TRANSFER_ENCODING {
            fields.append(name, value);
        }
    }
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if fields.get(header::CONTENT_TYPE).is_some_and(is_grpc) {
        // gRPC demands it, and content-length is not its way.
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
        fields.remove(header::CONTENT_LENGTH);
    }
    Ok(request)
}
