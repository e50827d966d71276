//! What a picker's answer says, without any socket: destinations, changes of heads, and answers that
//! it gives to the client itself.
//!
//! A picker may set and remove header fields, but not those of framing and of the connection, nor
//! Host. A field without an append action replaces (pickers send back what they were told). The
//! destination itself stays inside the gateway.

use super::wire::{
    Answer, HeaderMap, HeaderMutation, HeaderValue, ImmediateResponse, Kind, ProcessingResponse,
    Struct,
};
use http1::{RequestHead, ResponseHead};
use std::net::SocketAddr;

/// Namespace of the destination in metadata.
pub(super) const NAMESPACE: &str = "envoy.lb";
/// The destination: a field of the request and a key in metadata.
const DESTINATION: &str = "x-gateway-destination-endpoint";
/// The key under which a picker is told who served.
pub(super) const SERVED: &str = "x-gateway-destination-endpoint-served";
/// Namespace and key of the members that a picker is to choose among.
pub(super) const SUBSET: (&str, &str) = (
    "envoy.lb.subset_hint",
    "x-gateway-destination-endpoint-subset",
);
/// Entries of a list of destinations that are read.
const MOST_DESTINATIONS: usize = 16;
/// `HeaderAppendAction`: add if absent; replace if present. All others replace or append.
const IF_ABSENT: i32 = 1;
const IF_PRESENT: i32 = 3;
/// Bytes that a picker may add to a head.
const MOST_BYTES: usize = 64 << 10;

/// What a picker said about a request, or about its response.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// To the head of the request: where to send it, in order, as far as that is an address.
    Request(Vec<SocketAddr>, Option<HeaderMutation>),
    /// To the head of the response.
    Response(Option<HeaderMutation>),
    /// An answer to the client, in place of everything else.
    Immediate(Box<ImmediateResponse>),
}

impl Verdict {
    /// `None` where the message decides nothing: bodies are the client's, trailers the server's.
    pub(super) fn of(message: ProcessingResponse) -> Option<Self> {
        let metadata = message.dynamic_metadata;
        match message.answer? {
            Answer::RequestHeaders(part) => {
                let mutation = part.response.and_then(|common| common.header_mutation);
                let list = destination(metadata.as_ref(), mutation.as_ref());
                Some(Self::Request(addresses(&list), mutation))
            }
            Answer::ResponseHeaders(part) => {
                let mutation = part.response.and_then(|common| common.header_mutation);
                Some(Self::Response(mutation))
            }
            Answer::Immediate(response) => Some(Self::Immediate(Box::new(response))),
            _ => None,
        }
    }
}

/// The list of destinations: of the metadata, else of the header field. They should be equal.
fn destination(metadata: Option<&Struct>, mutation: Option<&HeaderMutation>) -> String {
    let namespace = metadata.and_then(|metadata| metadata.fields.get(NAMESPACE));
    let value = match namespace.and_then(|value| value.kind.as_ref()) {
        Some(Kind::Struct(inside)) => inside.fields.get(DESTINATION),
        _ => None,
    };
    if let Some(Kind::Text(list)) = value.and_then(|value| value.kind.as_ref()) {
        return list.clone();
    }
    let headers = mutation.iter().flat_map(|mutation| &mutation.set_headers);
    let mut headers = headers.filter_map(|option| option.header.as_ref());
    let found = headers.find(|header| header.key.eq_ignore_ascii_case(DESTINATION));
    let bytes = found.map(HeaderValue::bytes).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// `ip:port[,ip:port ...]`, IPv6 in brackets; what is none is left out.
fn addresses(list: &str) -> Vec<SocketAddr> {
    let entries = list.split(',').take(MOST_DESTINATIONS);
    let found = entries.filter_map(|entry| entry.trim().parse().ok());
    found.collect()
}

/// A head whose fields can be changed.
pub(crate) trait Head {
    fn has(&self, name: &str) -> bool;
    fn replace(&mut self, name: &str, value: &[u8]);
    fn append(&mut self, name: &str, value: &[u8]);
    fn cut(&mut self, name: &str);
}

impl Head for RequestHead {
    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
    fn replace(&mut self, name: &str, value: &[u8]) {
        self.set(name, value);
    }
    fn append(&mut self, name: &str, value: &[u8]) {
        self.add(name, value);
    }
    fn cut(&mut self, name: &str) {
        self.remove(name);
    }
}

impl Head for ResponseHead {
    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
    fn replace(&mut self, name: &str, value: &[u8]) {
        self.set(name, value);
    }
    fn append(&mut self, name: &str, value: &[u8]) {
        self.add(name, value);
    }
    fn cut(&mut self, name: &str) {
        self.remove(name);
    }
}

/// Applies what a picker wants changed in a head that it was `told`.
pub(crate) fn apply(mutation: &HeaderMutation, told: &HeaderMap, head: &mut impl Head) {
    let mut replaced: Vec<(String, Vec<&[u8]>)> = Vec::new();
    let mut added: Vec<(String, i32, &[u8])> = Vec::new();
    let mut room = MOST_BYTES;
    for option in &mutation.set_headers {
        let Some(header) = &option.header else {
            continue;
        };
        let (name, value) = (header.key.to_ascii_lowercase(), header.bytes());
        if !is_open(&name) {
            continue;
        }
        let Some(rest) = room.checked_sub(name.len() + value.len()) else {
            tracing::debug!("an endpoint picker adds more to a head than it may");
            break;
        };
        room = rest;
        let appends = option.append.is_some_and(|append| append.value);
        if appends || matches!(option.append_action, IF_ABSENT | IF_PRESENT) {
            added.push((name, option.append_action, value));
        } else if let Some((_, values)) = replaced.iter_mut().find(|(known, _)| *known == name) {
            values.push(value);
        } else {
            replaced.push((name, vec![value]));
        }
    }
    for (name, values) in &replaced {
        replace(name, values, told, head);
    }
    for (name, action, value) in added {
        match action {
            IF_ABSENT if head.has(&name) => {}
            IF_PRESENT if head.has(&name) => head.replace(&name, value),
            IF_PRESENT => {}
            _ => head.append(&name, value),
        }
    }
    for name in &mutation.remove_headers {
        let name = name.to_ascii_lowercase();
        if is_open(&name) {
            head.cut(&name);
        }
    }
}

/// The new values of one field. What a picker only sends back as it was told is no change, so a
/// field that stands several times stays so, and a new value wins over the old one.
fn replace(name: &str, values: &[&[u8]], told: &HeaderMap, head: &mut impl Head) {
    let had = told.headers.iter().filter(|header| header.key == name);
    let had: Vec<&[u8]> = had.map(HeaderValue::bytes).collect();
    let times = |list: &[&[u8]], value: &[u8]| list.iter().filter(|one| **one == value).count();
    let changes = values.iter().any(|value| !had.contains(value));
    let mut result: Vec<&[u8]> = Vec::new();
    for value in values {
        let most = match times(&had, value) {
            0 => 1,
            _ if changes => 0,
            count => count,
        };
        if times(&result, value) < most {
            result.push(value);
        }
    }
    if !changes && result.len() == had.len() {
        return;
    }
    for (place, value) in result.iter().enumerate() {
        if place == 0 {
            head.replace(name, value);
        } else {
            head.append(name, value);
        }
    }
}

/// Whether a picker may change this field; those of framing and of the connection no head gives out.
fn is_open(name: &str) -> bool {
    !name.starts_with(':') && name != "host" && !name.starts_with(DESTINATION)
}

/// Fields that say how a message travels, which is for this hop only.
fn is_of_this_hop(name: &str) -> bool {
    const NAMES: [&str; 7] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.contains(&name)
}

fn field(name: impl Into<String>, value: &[u8]) -> HeaderValue {
    HeaderValue {
        key: name.into(),
        value: String::new(),
        raw_value: value.to_vec(),
    }
}

/// A request's head as a picker is told of it: as it would go out, written in `text`.
pub(crate) fn request_fields(head: &RequestHead, text: &[u8], over_tls: bool) -> HeaderMap {
    let scheme: &[u8] = if over_tls { b"https" } else { b"http" };
    let mut headers = vec![
        field(":method", head.method().as_bytes()),
        field(":scheme", scheme),
        field(":authority", head.get("host").unwrap_or_default()),
        field(":path", head.target().as_bytes()),
    ];
    for line in text.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        if name != "host" && !is_of_this_hop(&name) {
            let value = value.get(1..).unwrap_or_default();
            headers.push(field(name, value.trim_ascii()));
        }
    }
    HeaderMap { headers }
}

/// A response's head as a picker is told of it.
pub(crate) fn response_fields(head: &ResponseHead) -> HeaderMap {
    let status = head.status().to_string();
    let mut headers = vec![field(":status", status.as_bytes())];
    for (name, value) in head.fields() {
        let name = name.to_ascii_lowercase();
        if !is_of_this_hop(&name) {
            headers.push(field(name, value));
        }
    }
    HeaderMap { headers }
}

pub(super) fn trailer_fields(trailers: &http::HeaderMap) -> HeaderMap {
    let fields = trailers.iter();
    let fields = fields.map(|(name, value)| field(name.as_str(), value.as_bytes()));
    HeaderMap {
        headers: fields.collect(),
    }
}

impl ImmediateResponse {
    /// 100 to 199 is no answer, and neither is what HTTP has no number for.
    pub(crate) fn status(&self) -> u16 {
        let code = self.status.map_or(0, |status| status.code);
        let code = u16::try_from(code).ok();
        code.filter(|code| (200..600).contains(code)).unwrap_or(500)
    }

    pub(crate) fn text(&self) -> String {
        let text = if self.body.is_empty() {
            self.details.as_bytes()
        } else {
            &self.body
        };
        String::from_utf8_lossy(text.get(..text.len().min(1024)).unwrap_or_default()).into_owned()
    }

    /// The whole response, with `own` fields beside the picker's.
    pub(crate) fn write(&self, own: &[(&str, &str)], keep: bool, out: &mut Vec<u8>) {
        let mut fields: Vec<(&str, &str)> = Vec::new();
        let set = self.headers.iter().flat_map(|headers| &headers.set_headers);
        for header in set.filter_map(|option| option.header.as_ref()) {
            let name = header.key.to_ascii_lowercase();
            let value = std::str::from_utf8(header.bytes());
            let is_ours = own.iter().any(|(own, _)| *own == name);
            let is_name = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
            if is_name
                && !is_ours
                && is_open(&name)
                && !is_of_this_hop(&name)
                && name != "content-length"
                && let Ok(value) = value
            {
                fields.push((&header.key, value));
            }
        }
        let says_type = |(name, _): &(&str, &str)| name.eq_ignore_ascii_case("content-type");
        if !fields.iter().any(says_type) && !self.body.is_empty() {
            fields.push(("content-type", "text/plain"));
        }
        fields.extend_from_slice(own);
        let status = self.status();
        let body: &[u8] = match status {
            204 | 205 | 304 => b"",
            _ => &self.body,
        };
        http1::write_response(status, &fields, body, keep, out);
    }
}

#[cfg(test)]
mod tests;
