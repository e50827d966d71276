//! Trailers of a server of HTTP/1.1 that answers in chunks, for who takes them as fields.
//!
//! The reader of the body has looked at them: their size is bounded, and none is of framing, routing,
//! credentials or the connection. What else must not stand behind a body is left out here (RFC 9110,
//! 6.5.1): fields of which part it is, of who may have it, and of what to do with it.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Left out, in their order.
const NEVER: [&str; 12] = [
    "age",
    "cache-control",
    "content-range",
    "date",
    "expires",
    "location",
    "max-forwards",
    "retry-after",
    "set-cookie",
    "vary",
    "warning",
    "www-authenticate",
];

/// The lines of the trailers of one response, as they came.
#[derive(Debug, Default)]
pub(super) struct Trailers(Vec<u8>);

impl Trailers {
    pub(super) fn note(&mut self, lines: &[u8]) {
        self.0.extend_from_slice(lines);
    }

    /// Those that may be said; `None` when there are none.
    pub(super) fn fields(&self) -> Option<HeaderMap> {
        if self.0.is_empty() {
            return None;
        }
        let mut fields = HeaderMap::new();
        for line in self.0.split(|byte| *byte == b'\n') {
            if let Some((name, value)) = field(line) {
                fields.append(name, value);
            }
        }
        (!fields.is_empty()).then_some(fields)
    }
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
    let name = HeaderName::from_bytes(name).ok()?;
    let value = HeaderValue::from_bytes(value.trim_ascii()).ok()?;
    (!NEVER.contains(&name.as_str())).then_some((name, value))
}
