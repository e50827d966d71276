//! Header fields at the trust border: what a client may not say, what we add, what we tell back.
//!
//! Names that steer an inference gateway (`x-gateway-destination-endpoint*`, `x-prefiller-*`) are
//! ours alone and never pass from a client. `x-request-id` is made when absent, and `traceparent`
//! goes on unchanged: both reach the engine and the log.

use crate::exchange::Exchange;
use crate::worker::Local;
use http1::ResponseHead;

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
    let (mut id, mut objective, mut named) = (None, None, false);
    for (name, value) in x.head.raw_fields() {
        // All names that matter here begin with an x: one comparison for most fields.
        if name.len() < 11 || !matches!(name.first(), Some(b'x' | b'X')) {
            continue;
        }
        if name.eq_ignore_ascii_case(b"x-request-id") {
            named = true;
            id = id.or_else(|| usable_id(value));
        } else if OBJECTIVES
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        {
            objective = std::str::from_utf8(value).ok().map(str::to_owned);
        } else if RESERVED.iter().any(|prefix| starts_with(name, prefix)) {
            reserved.push(String::from_utf8_lossy(name).to_ascii_lowercase());
        }
    }
    let known = id.map(|id| x.id.push_str(id)).is_some();
    x.objective = objective;
    for name in reserved {
        x.head.remove(&name);
    }
    if !known {
        push_hex(local.draw(), &mut x.id);
        push_hex(local.draw(), &mut x.id);
        if named {
            // Not beside what the client sent, which nobody can use.
            x.head.remove("x-request-id");
        }
        x.head.add("x-request-id", x.id.as_bytes());
    }
}

fn starts_with(name: &[u8], prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn usable_id(id: &[u8]) -> Option<&str> {
    let usable = !id.is_empty() && id.len() <= MOST_ID_BYTES;
    let graphic = usable && id.iter().all(|byte| byte.is_ascii_graphic());
    if graphic {
        std::str::from_utf8(id).ok()
    } else {
        None
    }
}

fn push_hex(number: u64, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |at: usize| {
        DIGITS
            .get((number >> (60 - 4 * at)) as usize & 0xf)
            .copied()
    };
    let text: [u8; 16] = std::array::from_fn(|at| digit(at).unwrap_or(b'0'));
    out.push_str(std::str::from_utf8(&text).unwrap_or_default());
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
    if let Some(attempt) = x.attempts.last() {
        let mut number = itoa::Buffer::new();
        head.set("x-penstock-endpoint", attempt.name.as_bytes());
        head.set("x-penstock-decision", number.format(x.decision).as_bytes());
        head.set(
            "x-penstock-overhead-us",
            number.format(x.overhead_us()).as_bytes(),
        );
    }
}

/// The fields that our own answers carry.
pub(crate) fn own_fields(x: &Exchange) -> [(&'static str, &str); 1] {
    [("x-request-id", &x.id)]
}
