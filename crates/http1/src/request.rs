//! Request heads: read strictly, edited, written for the next hop.
//!
//! The duties: exactly one valid Host, a target in origin form, one framing. Anything that a
//! server behind us could read differently is refused before a byte is kept.
//! Fields and their copying are in `fields.rs`.

mod again;

use core::fmt;
use core::mem::MaybeUninit;

use httparse::Status;

use crate::fields::{Copying, Fields, MAX_FIELDS, MAX_HEAD_BYTES, offset_in};
use crate::fields::{push_framing, push_line};
use crate::host::{host_length, is_target_text};
use crate::kind::{Kind, is_token};
use crate::name::FieldName;
use crate::refusal::{self, Refusal};
use crate::{Framing, Limits, Parsed};
use again::Outline;

/// Room for method and version when an unfinished request line is measured.
const LINE_ALLOWANCE: usize = 64;

/// The head of a request: its bytes, an index of its fields, and edits laid over them.
///
/// One value serves all requests of a connection: [`clear`](Self::clear) (which
/// [`parse`](Self::parse) does itself) keeps the memory, [`release`](Self::release) frees it.
#[derive(Clone)]
pub struct RequestHead {
    fields: Fields,
    /// Method, a space and the received target, all of it ASCII. A connection's requests are mostly
    /// alike: what was checked once is kept, and told from another by comparing it.
    line: String,
    outline: Outline,
    /// That of the head before, whose fields are put away.
    last: Outline,
    /// Where the query's question mark stands in the target, received or new.
    question: Option<u32>,
    /// The value of the Host field, kept as `line` is, and its length without the port.
    host: String,
    host_bytes: u32,
    new_target: Option<String>,
    /// With its port, and the length without.
    new_host: Option<(String, u32)>,
}

impl RequestHead {
    /// An empty head: no method, no target, no fields.
    pub fn new() -> Self {
        RequestHead {
            fields: Fields::default(),
            line: String::new(),
            outline: Outline::EMPTY,
            last: Outline::EMPTY,
            question: None,
            host: String::new(),
            host_bytes: 0,
            new_target: None,
            new_host: None,
        }
    }

    /// Makes a head from its parts, for what did not arrive as HTTP/1.1 text.
    ///
    /// # Errors
    /// The same causes as [`parse`](Self::parse); the byte limits are not applied.
    pub fn from_parts<'a>(
        method: &str,
        target: &str,
        host: &str,
        fields: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, Refusal> {
        if !is_token(method.as_bytes()) {
            return Err(refusal::INVALID_REQUEST_LINE);
        }
        check_target(method, target, usize::MAX)?;
        host_length(host.as_bytes()).ok_or(refusal::INVALID_HOST)?;
        let mut text = Vec::with_capacity(256);
        push_request_line(method, target, &mut text);
        push_line("host", host.as_bytes(), &mut text);
        for (name, value) in fields {
            if !is_token(name.as_bytes()) {
                return Err(refusal::INVALID_FIELD_NAME);
            }
            push_line(name, value, &mut text);
        }
        text.extend_from_slice(b"\r\n");
        let limits = Limits {
            head_bytes: MAX_HEAD_BYTES,
            fields: MAX_FIELDS,
            target_bytes: MAX_HEAD_BYTES,
            ..Limits::default()
        };
        let mut head = RequestHead::new();
        match head.parse(&text, &limits)? {
            Parsed::Complete { .. } => Ok(head),
            Parsed::Incomplete => Err(refusal::INVALID_REQUEST_LINE),
        }
    }

    /// Reads the head at the beginning of `input`. Nothing is kept unless it is complete.
    ///
    /// # Errors
    /// A [`Refusal`] with the status to answer; the connection must be closed then.
    pub fn parse(&mut self, input: &[u8], limits: &Limits) -> Result<Parsed, Refusal> {
        self.clear();
        if let Some(head_bytes) = self.take_again(input, limits) {
            return Ok(Parsed::Complete { head_bytes });
        }
        self.last = Outline::EMPTY;
        self.fields.clear();
        let parsed = self.parse_into_empty(input, limits);
        if parsed.is_err() {
            self.outline = Outline::EMPTY;
            self.clear();
        }
        parsed
    }

    /// Forgets the head and its edits and keeps the memory.
    pub fn clear(&mut self) {
        if self.outline.is_whole {
            self.last = self.outline;
        }
        self.outline = Outline::EMPTY;
        self.fields.hide();
        self.question = None;
        self.new_target = None;
        self.new_host = None;
    }

    /// Memory that the head takes, and keeps until it is released.
    pub fn held_bytes(&self) -> usize {
        self.fields.held_bytes() + self.line.capacity() + self.host.capacity()
    }

    /// Forgets the head and frees the memory.
    pub fn release(&mut self) {
        *self = RequestHead::new();
    }

    /// The method, as received.
    pub fn method(&self) -> &str {
        let method = self.line.get(..self.outline.method_bytes as usize);
        method.unwrap_or_default()
    }

    /// Path and query, or `*`.
    pub fn target(&self) -> &str {
        match &self.new_target {
            Some(target) => target,
            None => {
                let target =
                    self.outline.method_bytes as usize + 1..self.outline.line_bytes as usize;
                let target = self.line.get(target);
                target.unwrap_or_default()
            }
        }
    }

    /// The target up to the first question mark.
    pub fn path(&self) -> &str {
        let target = self.target();
        match self.question {
            Some(question) => target.get(..question as usize).unwrap_or_default(),
            None => target,
        }
    }

    /// What stands behind the first question mark.
    pub fn query(&self) -> Option<&str> {
        self.target().get(self.question? as usize + 1..)
    }

    /// Host without port, as sent; an address of IPv6 with its brackets. Empty if the field is
    /// empty or, in HTTP/1.0, missing.
    pub fn host(&self) -> &str {
        match &self.new_host {
            Some((host, length)) => host.get(..*length as usize).unwrap_or_default(),
            None if self.outline.has_host => self
                .host
                .get(..self.host_bytes as usize)
                .unwrap_or_default(),
            None => "",
        }
    }

    /// Where the body ends: never [`Framing::Close`].
    pub fn framing(&self) -> Framing {
        self.outline.framing
    }

    /// Whether the client may send another request here. Never in HTTP/1.0.
    pub fn keep_alive(&self) -> bool {
        self.outline.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.outline.expects_continue
    }

    /// 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub fn version_minor(&self) -> u8 {
        self.outline.version_minor
    }

    /// Value of the Upgrade field when the Connection field lists it too.
    /// [`write`](Self::write) cuts both.
    pub fn upgrade(&self) -> Option<&str> {
        let (start, end) = self.outline.upgrade?;
        core::str::from_utf8(self.fields.slice(start, end)).ok()
    }

    /// First value of a field, with the edits; `name` in lower case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        match &self.new_host {
            Some((host, _)) if name == "host" => Some(host.as_bytes()),
            _ => self.fields.get(name),
        }
    }

    /// The same as [`RequestHead::fields`] with names as bytes, which costs no check.
    pub fn raw_fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.received_bytes()
    }

    /// Names and values as received, hop-by-hop ones too, without the edits.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.received()
    }

    /// Removes all fields of this name.
    ///
    /// Returns `false` and does nothing for Host and for fields of framing and of the connection:
    /// [`write`](Self::write) alone decides about those.
    pub fn remove(&mut self, name: &str) -> bool {
        self.fields.remove(name)
    }

    /// Replaces all fields of this name by one. Control characters of the value become spaces.
    ///
    /// Host is replaced as by [`set_host`](Self::set_host). Returns `false` and does nothing for
    /// fields of framing and of the connection, and for a name that is no token.
    pub fn set(&mut self, name: &str, value: &[u8]) -> bool {
        if Kind::of(name.as_bytes()) == Kind::Host {
            return core::str::from_utf8(value).is_ok_and(|host| self.set_host(host));
        }
        is_token(name.as_bytes()) && self.fields.remove(name) && self.fields.add(name, value)
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

    /// Replaces the target; `false` and nothing done if it is not one that
    /// [`parse`](Self::parse) would take.
    pub fn set_target(&mut self, target: &str) -> bool {
        let is_valid = check_target(self.method(), target, MAX_HEAD_BYTES).is_ok();
        if is_valid {
            self.question = question_in(target);
            self.new_target = Some(target.to_owned());
        }
        is_valid
    }

    /// Replaces the Host field (port included); `false` and nothing done if it is not one that
    /// [`parse`](Self::parse) would take.
    pub fn set_host(&mut self, host: &str) -> bool {
        let length = host_length(host.as_bytes());
        if let Some(length) = length {
            self.new_host = Some((host.to_owned(), length as u32));
        }
        length.is_some()
    }

    /// Writes the head for the next hop, always as HTTP/1.1.
    ///
    /// End-to-end fields are copied as received and in their order; hop-by-hop ones, those that
    /// the Connection field lists, and Expect are cut; edits follow. Framing fields are as `body`
    /// says. A request has no [`Framing::Close`]: it is written like [`Framing::None`].
    pub fn write(&self, body: Framing, out: &mut Vec<u8>) {
        out.reserve(self.fields.size_hint() + 64);
        let copying = Copying {
            first_line: self.outline.version_minor == 1 && self.new_target.is_none(),
            host: self.new_host.is_none(),
            framing: body == self.outline.framing && self.fields.framing_is_canonical(),
        };
        if !copying.first_line {
            push_request_line(self.method(), self.target(), out);
        }
        self.fields.copy(copying, out);
        match &self.new_host {
            Some((host, _)) => push_line("host", host.as_bytes(), out),
            // HTTP/1.0 may lack it, HTTP/1.1 may not.
            None if !self.outline.has_host => push_line("host", b"", out),
            None => {}
        }
        if !copying.framing {
            push_framing(body, out);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn parse_into_empty(&mut self, input: &[u8], limits: &Limits) -> Result<Parsed, Refusal> {
        let mut slots = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let slots = slots
            .get_mut(..limits.fields.min(MAX_FIELDS))
            .unwrap_or_default();
        let mut request = httparse::Request::new(&mut []);
        let head_bytes = match request.parse_with_uninit_headers(input, slots) {
            Ok(Status::Complete(head_bytes)) => head_bytes,
            Ok(Status::Partial) => return unfinished(input, limits),
            Err(error) => return Err(refusal_for(error, input)),
        };
        if head_bytes > limits.head_bytes.min(MAX_HEAD_BYTES) {
            return Err(refusal::HEAD_TOO_LARGE);
        }
        let (Some(method), Some(target), Some(version_minor)) =
            (request.method, request.path, request.version)
        else {
            return Err(refusal::INVALID_REQUEST_LINE);
        };
        let start = offset_in(input, method.as_bytes());
        // One empty line may precede (RFC 9112 section 2.2).
        match input.get(..start) {
            Some(b"" | b"\r\n") => {}
            Some(b"\n") => return Err(refusal::BARE_LINE_FEED),
            _ => return Err(refusal::LEADING_EMPTY_LINES),
        }
        self.take_line((method, target), limits.target_bytes)?;
        let head = input.get(start..head_bytes).unwrap_or_default();
        self.outline.version_minor = version_minor;
        self.take_fields(head, request.headers)?;
        Ok(Parsed::Complete { head_bytes })
    }

    fn take_fields(&mut self, head: &[u8], headers: &[httparse::Header]) -> Result<(), Refusal> {
        let reading = self.fields.fill(head, headers)?;
        self.outline.framing = reading.framing()?;
        let is_http_11 = self.outline.version_minor == 1;
        if !is_http_11 && reading.is_chunked {
            return Err(refusal::TRANSFER_ENCODING_IN_HTTP_10);
        }
        if is_http_11 && reading.host.is_none() {
            return Err(refusal::MISSING_HOST);
        }
        self.outline.has_host = reading.host.is_some();
        if let Some(range) = reading
            .host
            .and_then(|number| self.fields.value_range(number))
        {
            self.take_host(range)?;
        }
        self.outline.keep_alive = is_http_11 && !reading.closes;
        // Not heeded in HTTP/1.0, and without a body there is nothing to wait for
        // (RFC 9110 section 10.1.1).
        self.outline.expects_continue = is_http_11
            && reading.expects_continue
            && !matches!(self.outline.framing, Framing::None | Framing::Length(0));
        if is_http_11 && reading.connection_upgrade {
            self.outline.upgrade = reading
                .upgrade
                .and_then(|number| self.fields.value_range(number));
        }
        self.outline.is_whole = true;
        Ok(())
    }
}

impl Default for RequestHead {
    fn default() -> Self {
        RequestHead::new()
    }
}

/// Values and queries can be secrets: they are not shown.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method())
            .field("path", &self.path())
            .field("framing", &self.outline.framing)
            .field("fields", &self.fields)
            .finish_non_exhaustive()
    }
}

fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or_default()
}

fn question_in(target: &str) -> Option<u32> {
    memchr::memchr(b'?', target.as_bytes()).map(|question| question as u32)
}

fn push_request_line(method: &str, target: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

fn check_target(method: &str, target: &str, limit: usize) -> Result<(), Refusal> {
    if target.len() > limit {
        return Err(refusal::TARGET_TOO_LONG);
    }
    if method == "CONNECT" {
        return Err(refusal::CONNECT_NOT_SUPPORTED);
    }
    let is_served_form = target.starts_with('/') || (target == "*" && method == "OPTIONS");
    if !is_served_form {
        return Err(match target.contains("://") {
            true => refusal::ABSOLUTE_FORM,
            false => refusal::INVALID_TARGET,
        });
    }
    match is_target_text(target.as_bytes()) {
        true => Ok(()),
        false => Err(refusal::INVALID_TARGET_CHARACTER),
    }
}

/// The head is not whole yet: wait for more unless a limit is passed already.
fn unfinished(input: &[u8], limits: &Limits) -> Result<Parsed, Refusal> {
    let line = input.strip_prefix(b"\r\n").unwrap_or(input);
    let is_in_first_line = memchr::memchr(b'\n', line).is_none();
    if is_in_first_line && line.len() > limits.target_bytes.saturating_add(LINE_ALLOWANCE) {
        return Err(refusal::TARGET_TOO_LONG);
    }
    if input.len() >= limits.head_bytes.min(MAX_HEAD_BYTES) {
        return Err(refusal::HEAD_TOO_LARGE);
    }
    Ok(Parsed::Incomplete)
}

#[cold]
fn refusal_for(error: httparse::Error, input: &[u8]) -> Refusal {
    match error {
        httparse::Error::HeaderName => refusal::INVALID_FIELD_NAME,
        httparse::Error::HeaderValue => refusal::INVALID_FIELD_VALUE,
        httparse::Error::NewLine => refusal::INVALID_LINE_END,
        httparse::Error::TooManyHeaders => refusal::TOO_MANY_FIELDS,
        httparse::Error::Version => {
            // `GET / HTTP/2.0` is another version, `GET /a b HTTP/1.1` is no request line.
            let version = input
                .splitn(3, |byte| *byte == b' ')
                .nth(2)
                .unwrap_or_default();
            match version.starts_with(b"HTTP/") {
                true => refusal::UNSUPPORTED_VERSION,
                false => refusal::INVALID_REQUEST_LINE,
            }
        }
        httparse::Error::Token | httparse::Error::Status => refusal::INVALID_REQUEST_LINE,
    }
}

#[cfg(test)]
pub(crate) mod tests;
