//! Response heads from servers, and responses of our own.

use crate::fields::{self, Fields, Kind, text};
use crate::{Framing, Limits, Parsed, Refusal};
use std::mem::MaybeUninit;

/// Most fields of a head that the parser has room for.
const MOST_FIELDS: usize = 100;

/// The head of a response.
#[derive(Debug, Clone, Default)]
pub struct ResponseHead {
    fields: Fields,
    status: u16,
    framing: Framing,
    keep_alive: bool,
}

impl ResponseHead {
    /// An empty head.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the response; memory is kept.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.status = 0;
        self.framing = Framing::None;
    }

    /// Parses a head at the beginning of `input`. `to_head`: the request's method was HEAD, so
    /// there is no body whatever the fields say. Interim heads (1xx) parse like others.
    ///
    /// # Errors
    /// A head that HTTP/1.1 forbids, or that is too large: the server is a bad gateway.
    pub fn parse(&mut self, input: &[u8], to_head: bool, limits: &Limits) -> Result<Parsed, Refusal> {
        let mut slots = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            input,
            &mut slots,
        );
        let head_bytes = match parsed {
            Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
            Ok(httparse::Status::Partial) if input.len() > limits.head_bytes => {
                return Err(Refusal::HEAD_TOO_LARGE);
            }
            Ok(httparse::Status::Partial) => return Ok(Parsed::Incomplete),
            Err(error) => return Err(fields::refuse(error)),
        };
        if head_bytes > limits.head_bytes.min(usize::from(u16::MAX)) {
            return Err(Refusal::HEAD_TOO_LARGE);
        }
        if fields::has_bare_lf(input.get(..head_bytes).unwrap_or_default()) {
            return Err(Refusal::BARE_LF);
        }
        let status = response.code.unwrap_or(0);
        if !(100..600).contains(&status) {
            return Err(Refusal::BAD_STATUS);
        }
        let walked = self.fields.take(input, head_bytes, response.headers)?;
        self.status = status;
        // RFC 9112 section 6.3.
        self.framing = match (walked.chunked, walked.length) {
            _ if to_head || status < 200 || status == 204 || status == 304 => Framing::None,
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Close,
        };
        let modern = response.version == Some(1);
        self.keep_alive = !walked.close && (modern || walked.keep_alive);
        Ok(Parsed::Complete { head_bytes })
    }

    /// The status code, 100 to 599.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// How the body ends.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the server keeps the connection open.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive && self.framing != Framing::Close
    }

    /// The first value of a field by its lowercase name; edits count.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.get(name)
    }

    /// All fields as they came.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter()
    }

    fn content_type(&self) -> &[u8] {
        let value = self.fields.first(Kind::ContentType).unwrap_or_default();
        value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
    }

    /// Whether the body is `text/event-stream`.
    pub fn is_event_stream(&self) -> bool {
        self.content_type().eq_ignore_ascii_case(b"text/event-stream")
    }

    /// Whether the body is `application/json`.
    pub fn is_json(&self) -> bool {
        self.content_type().eq_ignore_ascii_case(b"application/json")
    }

    /// Removes all fields of this name.
    pub fn remove(&mut self, name: &str) {
        self.fields.remove(name);
    }

    /// Replaces all fields of this name by one.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.fields.remove(name);
        self.fields.add(name, value);
    }

    /// Adds a field after those of the same name.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        self.fields.add(name, value);
    }

    /// Writes the head for the client. `keep_alive: false` tells it that the connection ends.
    pub fn write(&self, body: Framing, keep_alive: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(self.status).as_bytes());
        let line_end = memchr::memchr(b'\r', &self.fields.bytes).unwrap_or(12);
        let phrase = self.fields.bytes.get(12..line_end).unwrap_or_default();
        out.extend_from_slice(if phrase.is_empty() { b" " } else { phrase });
        out.extend_from_slice(b"\r\n");
        let same = body == self.framing;
        let keeps = |kind| match kind {
            Kind::EndToEnd | Kind::ContentType | Kind::Host | Kind::Expect => true,
            Kind::ContentLength | Kind::TransferEncoding => same,
            Kind::HopByHop | Kind::Connection | Kind::Upgrade | Kind::Removed => false,
        };
        self.fields.write(keeps, out);
        if !same {
            fields::write_framing(body, out);
        }
        if !keep_alive {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes a whole response of our own.
pub fn write_response(
    status: u16,
    fields: &[(&str, &str)],
    body: &[u8],
    keep_alive: bool,
    out: &mut Vec<u8>,
) {
    let mut head = Fields::default();
    for (name, value) in fields {
        head.add(name, value.as_bytes());
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    head.write(|_| true, out);
    fields::write_framing(Framing::Length(body.len() as u64), out);
    if !keep_alive {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

/// The usual phrase of a status (RFC 9110 section 15).
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => text(b"Status"),
    }
}

#[cfg(test)]
mod tests;
