//! Request heads: parsed strictly, edited by overlay, written for the next hop.

use crate::fields::{self, Fields, Kind, text};
use crate::{Framing, Limits, Parsed, Refusal};
use std::mem::MaybeUninit;
use std::ops::Range;

/// Most fields of a head that the parser has room for.
const MOST_FIELDS: usize = 100;

/// The head of a request. Reused for request after request, so its memory is allocated once.
#[derive(Debug, Clone, Default)]
pub struct RequestHead {
    fields: Fields,
    method: Range<usize>,
    target: Range<usize>,
    query: Option<usize>,
    framing: Framing,
    minor: u8,
    keep_alive: bool,
    expects_continue: bool,
    new_target: Option<String>,
    new_host: Option<String>,
}

impl RequestHead {
    /// An empty head.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the request; memory is kept.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.method = 0..0;
        self.target = 0..0;
        self.query = None;
        self.framing = Framing::None;
        self.new_target = None;
        self.new_host = None;
    }

    /// Parses a head at the beginning of `input`; its bytes are copied once it is complete.
    ///
    /// # Errors
    /// A head that HTTP/1.1 forbids (RFC 9112), that is too large, or that asks for what a reverse
    /// proxy does not serve (CONNECT, absolute targets, codings other than chunked).
    pub fn parse(&mut self, input: &[u8], limits: &Limits) -> Result<Parsed, Refusal> {
        let mut slots = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(input, &mut slots);
        let head_bytes = match parsed {
            Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
            Ok(httparse::Status::Partial) => {
                return incomplete(input, limits);
            }
            Err(error) => return Err(fields::refuse(error)),
        };
        if head_bytes > limits.head_bytes.min(usize::from(u16::MAX)) {
            return Err(Refusal::HEAD_TOO_LARGE);
        }
        let head = input.get(..head_bytes).unwrap_or_default();
        if fields::has_bare_lf(head) {
            return Err(Refusal::BARE_LF);
        }
        if request.headers.len() > limits.fields {
            return Err(Refusal::TOO_MANY_FIELDS);
        }
        let (method, target) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
        check_target(method, target, limits)?;
        let base = input.as_ptr() as usize;
        let range = |part: &str| {
            let start = (part.as_ptr() as usize).wrapping_sub(base);
            start..start + part.len()
        };
        self.clear();
        self.method = range(method);
        self.target = range(target);
        self.query = memchr::memchr(b'?', target.as_bytes());
        self.minor = request.version.unwrap_or(1);
        let walked = self.fields.take(input, head_bytes, request.headers)?;
        self.settle(&walked)?;
        Ok(Parsed::Complete { head_bytes })
    }

    fn settle(&mut self, walked: &fields::Walked) -> Result<(), Refusal> {
        let old = self.minor == 0;
        if old && walked.codings > 0 {
            return Err(Refusal::CODING_IN_1_0);
        }
        match walked.hosts {
            1 => {}
            0 if old => {}
            0 => return Err(Refusal::MISSING_HOST),
            _ => return Err(Refusal::DUPLICATE_HOST),
        }
        let host = self.fields.first(Kind::Host).unwrap_or_default();
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]%~".contains(byte);
        if !host.iter().all(allowed) {
            return Err(Refusal::BAD_HOST);
        }
        self.framing = match (walked.chunked, walked.length) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::None,
        };
        self.keep_alive = !walked.close && (!old || walked.keep_alive);
        self.expects_continue = walked.expect && !old;
        Ok(())
    }

    /// The method, as sent.
    pub fn method(&self) -> &str {
        text(self.fields.bytes.get(self.method.clone()).unwrap_or_default())
    }

    /// The request target: path and query, or `*`. Edits count.
    pub fn target(&self) -> &str {
        match &self.new_target {
            Some(target) => target,
            None => text(self.fields.bytes.get(self.target.clone()).unwrap_or_default()),
        }
    }

    fn query_start(&self) -> Option<usize> {
        match &self.new_target {
            Some(target) => target.find('?'),
            None => self.query,
        }
    }

    /// The path of the target.
    pub fn path(&self) -> &str {
        let target = self.target();
        self.query_start().and_then(|at| target.get(..at)).unwrap_or(target)
    }

    /// What follows the question mark, if there is one.
    pub fn query(&self) -> Option<&str> {
        self.query_start().and_then(|at| self.target().get(at + 1..))
    }

    /// The host without its port; empty when the request has none. Edits count.
    pub fn host(&self) -> &str {
        let host = match &self.new_host {
            Some(host) => host.as_str(),
            None => text(self.fields.first(Kind::Host).unwrap_or_default()),
        };
        if host.starts_with('[') {
            return host.find(']').and_then(|end| host.get(..=end)).unwrap_or(host);
        }
        host.split_once(':').map_or(host, |(name, _)| name)
    }

    /// How the body of this request ends.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the client keeps the connection for another request.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub fn version_minor(&self) -> u8 {
        self.minor
    }

    /// The protocol that the client asks to switch to.
    pub fn upgrade(&self) -> Option<&str> {
        self.fields.first(Kind::Upgrade).map(text)
    }

    /// The first value of a field by its lowercase name; edits count.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.get(name)
    }

    /// All fields as they came.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter()
    }

    /// Removes all fields of this name.
    pub fn remove(&mut self, name: &str) {
        self.fields.remove(name);
    }

    /// Replaces all fields of this name by one. Control characters become spaces.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.fields.remove(name);
        self.fields.add(name, value);
    }

    /// Adds a field after those of the same name.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        self.fields.add(name, value);
    }

    /// Replaces the request target. One with spaces or control characters is not taken over.
    pub fn set_target(&mut self, target: &str) {
        if target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.new_target = Some(target.to_owned());
        }
    }

    /// Replaces the host. One with characters that a host cannot have is not taken over.
    pub fn set_host(&mut self, host: &str) {
        if host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]%~".contains(&byte)) {
            self.new_host = Some(host.to_owned());
        }
    }

    /// Writes the head for the next hop: end-to-end fields as they came, edits, framing fields for
    /// `body`, and the empty line.
    pub fn write(&self, body: Framing, out: &mut Vec<u8>) {
        out.extend_from_slice(self.fields.bytes.get(self.method.clone()).unwrap_or_default());
        out.push(b' ');
        out.extend_from_slice(self.target().as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if let Some(host) = &self.new_host {
            out.extend_from_slice(b"host: ");
            out.extend_from_slice(host.as_bytes());
            out.extend_from_slice(b"\r\n");
        } else if self.minor == 0 && self.fields.first(Kind::Host).is_none() {
            out.extend_from_slice(b"host: \r\n");
        }
        let same = body == self.framing;
        let new_host = self.new_host.is_some();
        let keeps = |kind| match kind {
            Kind::EndToEnd | Kind::ContentType => true,
            Kind::Host => !new_host,
            Kind::ContentLength | Kind::TransferEncoding => same,
            Kind::HopByHop | Kind::Connection | Kind::Expect | Kind::Upgrade | Kind::Removed => false,
        };
        self.fields.write(keeps, out);
        if !same {
            fields::write_framing(body, out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn incomplete(input: &[u8], limits: &Limits) -> Result<Parsed, Refusal> {
    if input.len() > limits.head_bytes {
        return Err(Refusal::HEAD_TOO_LARGE);
    }
    if fields::has_bare_lf(input) {
        return Err(Refusal::BARE_LF);
    }
    Ok(Parsed::Incomplete)
}

fn check_target(method: &str, target: &str, limits: &Limits) -> Result<(), Refusal> {
    if method == "CONNECT" {
        return Err(Refusal::CONNECT);
    }
    if target.len() > limits.target_bytes {
        return Err(Refusal::TARGET_TOO_LONG);
    }
    let is_path = target.starts_with('/') || (target == "*" && method == "OPTIONS");
    // A fragment never reaches a server (RFC 9112 section 3.2).
    let visible = target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if is_path && visible { Ok(()) } else { Err(Refusal::BAD_TARGET) }
}

#[cfg(test)]
mod tests;
