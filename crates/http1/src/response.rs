//! Response heads: read strictly, edited, written for the client.
//!
//! An upstream is trusted no more than a client: a head with two meanings is refused with 502.
//! Which responses have no body is decided here (RFC 9112 section 6.3), and such responses keep
//! the Content-Length that describes what GET would have brought.

use core::fmt;
use core::mem::MaybeUninit;

use httparse::{ParserConfig, Status};

use crate::fields::{Copying, Fields, MAX_FIELDS, MAX_HEAD_BYTES, push_framing};
use crate::name::FieldName;
use crate::refusal::{self, Refusal};
use crate::{Framing, Limits, Parsed};

/// The head of a response: its bytes, an index of its fields, and edits laid over them.
///
/// One value serves all responses of a connection, as with [`RequestHead`](crate::RequestHead).
#[derive(Clone)]
pub struct ResponseHead {
    fields: Fields,
    outline: Outline,
    /// That of the head before, whose fields are put away (`fields/again.rs`).
    last: Outline,
}

/// What follows from the bytes of a head, and from what was asked.
#[derive(Clone, Copy, Debug)]
struct Outline {
    /// All of the head was read and found right.
    is_whole: bool,
    status: u16,
    /// Where the reason lies.
    reason: (u32, u32),
    /// Where the received Content-Type lies.
    content_type: (u32, u32),
    framing: Framing,
    /// As the fields say, also where there is no body.
    stated: Framing,
    request_was_head: bool,
    version_minor: u8,
    keep_alive: bool,
}

impl Outline {
    /// Of no head: status 0.
    const EMPTY: Self = Self {
        is_whole: false,
        status: 0,
        reason: (0, 0),
        content_type: (0, 0),
        framing: Framing::None,
        stated: Framing::None,
        request_was_head: false,
        version_minor: 1,
        keep_alive: false,
    };
}

impl ResponseHead {
    /// An empty head: status 0, no fields.
    pub fn new() -> Self {
        ResponseHead {
            fields: Fields::default(),
            outline: Outline::EMPTY,
            last: Outline::EMPTY,
        }
    }

    /// Reads the head at the beginning of `input`. Nothing is kept unless it is complete.
    /// Interim heads (1xx) are read like others.
    ///
    /// # Errors
    /// A [`Refusal`] of status 502; the connection must be closed then.
    pub fn parse(
        &mut self,
        input: &[u8],
        request_was_head: bool,
        limits: &Limits,
    ) -> Result<Parsed, Refusal> {
        self.clear();
        if let Some(head_bytes) = self.take_again(input, request_was_head, limits) {
            return Ok(Parsed::Complete { head_bytes });
        }
        self.last = Outline::EMPTY;
        self.fields.clear();
        self.outline.request_was_head = request_was_head;
        self.parse_into_empty(input, limits).map_err(|refusal| {
            self.outline = Outline::EMPTY;
            self.clear();
            Refusal {
                status: 502,
                ..refusal
            }
        })
    }

    /// Forgets the head and its edits and keeps the memory.
    pub fn clear(&mut self) {
        if self.outline.is_whole {
            self.last = self.outline;
        }
        self.outline = Outline::EMPTY;
        self.fields.hide();
    }

    /// Forgets the head and frees the memory.
    pub fn release(&mut self) {
        *self = ResponseHead::new();
    }

    /// The memory that it has, whatever it holds.
    pub fn held_bytes(&self) -> usize {
        self.fields.held_bytes()
    }

    /// 100 to 599.
    pub fn status(&self) -> u16 {
        self.outline.status
    }

    /// The reason as received; empty when missing or not UTF-8.
    pub fn reason(&self) -> &str {
        let (start, end) = self.outline.reason;
        core::str::from_utf8(self.fields.slice(start, end)).unwrap_or_default()
    }

    /// Where the body ends.
    pub fn framing(&self) -> Framing {
        self.outline.framing
    }

    /// Whether the upstream takes another request on this connection. Never in HTTP/1.0.
    pub fn keep_alive(&self) -> bool {
        self.outline.keep_alive
    }

    /// 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub fn version_minor(&self) -> u8 {
        self.outline.version_minor
    }

    /// Whether the body is a stream of server-sent events, by the head as received.
    pub fn is_event_stream(&self) -> bool {
        self.media_type().eq_ignore_ascii_case(b"text/event-stream")
    }

    /// Whether the body is JSON by the head as received, or something based on it (`application/problem+json`).
    pub fn is_json(&self) -> bool {
        let media_type = self.media_type();
        let suffix = media_type
            .get(media_type.len().saturating_sub(5)..)
            .unwrap_or_default();
        media_type.eq_ignore_ascii_case(b"application/json")
            || suffix.eq_ignore_ascii_case(b"+json")
    }

    /// First value of a field, with the edits; `name` in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.get(name)
    }

    /// Names and values as received, hop-by-hop ones too, without the edits.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.received()
    }

    /// Removes all fields of this name; `false` and nothing done for fields of framing and of the
    /// connection.
    pub fn remove(&mut self, name: &str) -> bool {
        self.fields.remove(name)
    }

    /// Replaces all fields of this name by one. Control characters of the value become spaces.
    /// `false` and nothing done for fields of framing and of the connection, and for a name that
    /// is no token.
    pub fn set(&mut self, name: &str, value: &[u8]) -> bool {
        crate::kind::is_token(name.as_bytes())
            && self.fields.remove(name)
            && self.fields.add(name, value)
    }

    /// The same as [`set`](Self::set) under a name that was checked before.
    #[inline(always)]
    pub fn put(&mut self, name: FieldName, value: &[u8]) {
        self.fields.put(name, value);
    }

    /// Appends a field; see [`set`](Self::set) for what is not done.
    pub fn add(&mut self, name: &str, value: &[u8]) -> bool {
        self.fields.add(name, value)
    }

    /// Writes the head for the client, always as HTTP/1.1.
    ///
    /// End-to-end fields are copied as received and in their order, edits follow, framing fields
    /// are as `body` says. With [`Framing::None`] a response to HEAD or of status 304 keeps its
    /// Content-Length, and one that could have a body gets `content-length: 0`. `connection: close`
    /// is added when `keep_alive` is false or `body` is [`Framing::Close`].
    pub fn write(&self, body: Framing, keep_alive: bool, out: &mut Vec<u8>) {
        out.reserve(self.fields.size_hint() + 64);
        let body = self.framing_to_write(body);
        let copying = Copying {
            first_line: self.has_canonical_first_line(),
            host: true,
            framing: body == self.outline.stated && self.fields.framing_is_canonical(),
        };
        if !copying.first_line {
            out.extend_from_slice(b"HTTP/1.1 ");
            out.extend_from_slice(itoa::Buffer::new().format(self.outline.status).as_bytes());
            out.push(b' ');
            out.extend_from_slice(
                self.fields
                    .slice(self.outline.reason.0, self.outline.reason.1),
            );
            out.extend_from_slice(b"\r\n");
        }
        self.fields.copy(copying, out);
        if !copying.framing {
            push_framing(body, out);
        }
        if !keep_alive || body == Framing::Close {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    fn framing_to_write(&self, body: Framing) -> Framing {
        let keeps_length = self.outline.request_was_head || self.outline.status == 304;
        match (self.outline.status, self.outline.stated) {
            // No field of framing may stand there (RFC 9110 section 8.6).
            (..=199 | 204, _) => Framing::None,
            _ if body != Framing::None => body,
            (_, Framing::Length(length)) if keeps_length => Framing::Length(length),
            _ if keeps_length => Framing::None,
            _ => Framing::Length(0),
        }
    }

    /// `HTTP/1.1 200 ` and whatever reason.
    fn has_canonical_first_line(&self) -> bool {
        self.outline.version_minor == 1 && self.fields.first_line().get(12) == Some(&b' ')
    }

    fn media_type(&self) -> &[u8] {
        let (start, end) = self.outline.content_type;
        let value = self.fields.slice(start, end);
        let end = memchr::memchr(b';', value).unwrap_or(value.len());
        value.get(..end).unwrap_or_default().trim_ascii()
    }

    /// Takes a head that repeats the one before, if it is one; returns its length.
    fn take_again(
        &mut self,
        input: &[u8],
        request_was_head: bool,
        limits: &Limits,
    ) -> Option<usize> {
        let last = self.last;
        if !last.is_whole || last.request_was_head != request_was_head {
            return None;
        }
        let (head_bytes, length) = self.fields.show_again(input, limits)?;
        let with_length = |framing| match (framing, length) {
            (Framing::Length(_), Some(length)) => Framing::Length(length),
            (framing, _) => framing,
        };
        self.outline = Outline {
            framing: with_length(last.framing),
            stated: with_length(last.stated),
            ..last
        };
        Some(head_bytes)
    }

    fn parse_into_empty(&mut self, input: &[u8], limits: &Limits) -> Result<Parsed, Refusal> {
        // What stands before a status line was not asked for: perhaps the rest of another body.
        if matches!(input.first(), Some(b'\r' | b'\n')) {
            return Err(refusal::INVALID_STATUS_LINE);
        }
        let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let slots = slots
            .get_mut(..limits.fields.min(MAX_FIELDS))
            .unwrap_or_default();
        let mut response = httparse::Response::new(&mut []);
        let head_limit = limits.head_bytes.min(MAX_HEAD_BYTES);
        let head_bytes = match ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            input,
            slots,
        ) {
            Ok(Status::Complete(head_bytes)) if head_bytes <= head_limit => head_bytes,
            Ok(Status::Partial) if input.len() < head_limit => return Ok(Parsed::Incomplete),
            Ok(_) => return Err(refusal::HEAD_TOO_LARGE),
            Err(error) => return Err(refusal_for(error)),
        };
        let status = response.code.unwrap_or_default();
        if !(100..=599).contains(&status) {
            return Err(refusal::INVALID_STATUS_LINE);
        }
        self.outline.status = status;
        self.outline.version_minor = response.version.unwrap_or_default();
        let head = input.get(..head_bytes).unwrap_or_default();
        self.take_fields(head, response.headers)?;
        Ok(Parsed::Complete { head_bytes })
    }

    fn take_fields(&mut self, head: &[u8], headers: &[httparse::Header]) -> Result<(), Refusal> {
        let reading = self.fields.fill(head, headers)?;
        let framing = reading.framing()?;
        if reading.is_chunked && self.outline.version_minor == 0 {
            return Err(refusal::TRANSFER_ENCODING_IN_HTTP_10);
        }
        let content_type = reading.content_type;
        let range = content_type.and_then(|number| self.fields.value_range(number));
        self.outline.content_type = range.unwrap_or_default();
        self.outline.stated = framing;
        self.outline.framing = match (self.outline.status, framing) {
            (..=199 | 204 | 304, _) => Framing::None,
            _ if self.outline.request_was_head => Framing::None,
            (_, Framing::None) => Framing::Close,
            (_, framing) => framing,
        };
        self.outline.keep_alive = self.outline.version_minor == 1
            && !reading.closes
            && self.outline.framing != Framing::Close;
        // Behind `HTTP/1.1 200 `, before the line end.
        let line_end = self.fields.first_line().len() as u32;
        let end = line_end.saturating_sub(2);
        self.outline.reason = (end.min(13), end);
        self.outline.is_whole = true;
        Ok(())
    }
}

impl Default for ResponseHead {
    fn default() -> Self {
        ResponseHead::new()
    }
}

/// Values can be secrets: they are not shown.
impl fmt::Debug for ResponseHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.outline.status)
            .field("framing", &self.outline.framing)
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

#[cold]
fn refusal_for(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::HeaderName => refusal::INVALID_FIELD_NAME,
        httparse::Error::HeaderValue => refusal::INVALID_FIELD_VALUE,
        httparse::Error::NewLine => refusal::INVALID_LINE_END,
        httparse::Error::TooManyHeaders => refusal::TOO_MANY_FIELDS,
        httparse::Error::Version => refusal::UNSUPPORTED_VERSION,
        httparse::Error::Token | httparse::Error::Status => refusal::INVALID_STATUS_LINE,
    }
}

#[cfg(test)]
pub(crate) mod tests;
