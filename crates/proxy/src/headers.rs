//! Header fields at the trust border: what a client may not say, what we add, what we tell back.
//!
//! Names that steer an inference gateway (`x-gateway-destination-endpoint*`, `x-prefiller-*`) are
//! ours alone and never pass from a client. `x-request-id` is made when absent, and `traceparent`
//! goes on unchanged: both reach the engine and the log.

use crate::exchange::Exchange;
use crate::worker::Local;
use http1::ResponseHead;
use std::io::Write;

/// The name by which routes match on the model (Gateway API inference extension, body-based routing).
pub(crate) const MODEL_NAME: &str = "x-gateway-model-name";
/// The objective that a request asks for (inference extension).
const OBJECTIVES: [&str; 2] = [
    "x-gateway-inference-objective",
    "x-llm-d-inference-objective",
];
/// Prefixes of names that only a gateway may set.
const RESERVED: [&str; 3] = [
    "x-gateway-destination-endpoint",
    "x-prefiller-",
    "x-gateway-model-name",
];
/// A longer request id is replaced.
const MOST_ID_BYTES: usize = 128;

/// Takes a request in: removes what only a gateway may say, gives it an identity.
pub(crate) fn admit(local: &Local, x: &mut Exchange) {
    let mut reserved: Vec<String> = Vec::new();
    for (name, _) in x.head.fields() {
        // All reserved names begin with an x: one comparison for most fields.
        if name.len() > 10 && matches!(name.as_bytes().first(), Some(b'x' | b'X')) {
            let lower = name.to_ascii_lowercase();
            if RESERVED.iter().any(|prefix| lower.starts_with(prefix)) {
                reserved.push(lower);
            }
        }
    }
    for name in reserved {
        x.head.remove(&name);
    }
    let id = x.head.get("x-request-id").filter(|id| usable_id(id));
    match id.and_then(|id| std::str::from_utf8(id).ok()) {
        Some(id) => x.id.push_str(id),
        None => {
            push_hex(local.draw(), &mut x.id);
            push_hex(local.draw(), &mut x.id);
            x.head.set("x-request-id", x.id.as_bytes());
        }
    }
    let objective = OBJECTIVES.iter().find_map(|name| x.head.get(name));
    x.objective = objective
        .and_then(|value| std::str::from_utf8(value).ok())
        .map(str::to_owned);
}

fn usable_id(id: &[u8]) -> bool {
    !id.is_empty() && id.len() <= MOST_ID_BYTES && id.iter().all(|byte| byte.is_ascii_graphic())
}

fn push_hex(number: u64, out: &mut String) {
    for shift in (0..16).rev() {
        let digit = (number >> (shift * 4)) & 0xf;
        out.push(char::from_digit(digit as u32, 16).unwrap_or('0'));
    }
}

/// What every response carries: the request's id and, where told to, how it was served.
pub(crate) fn respond(x: &Exchange, head: &mut ResponseHead) {
    if head.get("x-request-id").is_none() {
        head.set("x-request-id", x.id.as_bytes());
    }
    if let Some(rule) = &x.rule {
        crate::policies::headers::edit_response(&rule.filters.response_headers, head);
        if let Some(backend) = rule.backends.get(x.backend) {
            crate::policies::headers::edit_response(&backend.filters.response_headers, head);
        }
    }
    if !x.explain {
        return;
    }
    let mut text = [0; 48];
    if let Some(attempt) = x.attempts.last() {
        head.set(
            "x-penstock-endpoint",
            format_into(&mut text, format_args!("{}", attempt.address)),
        );
        head.set(
            "x-penstock-decision",
            format_into(&mut text, format_args!("{}", x.decision)),
        );
        let overhead = x.overhead_us();
        head.set(
            "x-penstock-overhead-us",
            format_into(&mut text, format_args!("{overhead}")),
        );
    }
}

fn format_into<'a>(buffer: &'a mut [u8; 48], text: std::fmt::Arguments<'_>) -> &'a [u8] {
    let mut rest = &mut buffer[..];
    // An address or a number is shorter than the buffer; a longer text would be cut.
    let _ = rest.write_fmt(text);
    let left = rest.len();
    buffer.get(..48 - left).unwrap_or_default()
}

/// The fields that our own answers carry.
pub(crate) fn own_fields(x: &Exchange) -> [(&'static str, &str); 1] {
    [("x-request-id", &x.id)]
}
