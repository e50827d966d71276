//! Header fields at the trust border: what a client may not say, what we add, what we tell back.
//!
//! Names that steer an inference gateway (`x-gateway-destination-endpoint*`, `x-prefiller-*`) are
//! ours alone and never pass from a client. `x-request-id` is made when absent, and `traceparent`
//! goes on unchanged: both reach the engine and the log.

use crate::exchange::Exchange;
use crate::worker::Local;
use http1::{FieldName, ResponseHead};

/// The name by which routes match on the model (Gateway API inference extension, body-based routing).
pub(crate) const MODEL_NAME: FieldName = FieldName::new("x-gateway-model-name");
/// The same for the base of an adapter; only where ConfigMaps say what that is.
pub(crate) const BASE_MODEL_NAME: FieldName = FieldName::new("x-gateway-base-model-name");
const REQUEST_ID: FieldName = FieldName::new("x-request-id");
const ENDPOINT: FieldName = FieldName::new("x-penstock-endpoint");
const DECISION: FieldName = FieldName::new("x-penstock-decision");
const OVERHEAD: FieldName = FieldName::new("x-penstock-overhead-us");
/// The objective that a request asks for (inference extension).
const OBJECTIVES: [&str; 2] = [
    "x-gateway-inference-objective",
    "x-llm-d-inference-objective",
];
/// Prefixes of names that only a gateway may set.
const RESERVED: [&str; 4] = [
    "x-gateway-destination-endpoint",
    "x-prefiller-",
    "x-gateway-model-name",
    "x-gateway-base-model-name",
];
/// A longer request id is replaced.
const MOST_ID_BYTES: usize = 128;

/// Takes a request in: removes what only a gateway may say, gives it an identity.
pub(crate) fn admit(local: &Local, x: &mut Exchange) {
    let mut reserved: Vec<String> = Vec::new();
    let (mut id, mut objective) = (None, None);
    for (name, value) in x.head.raw_fields() {
        // All names that matter here begin with an x: one comparison for most fields.
        if name.len() < 11 || !matches!(name.first(), Some(b'x' | b'X')) {
            continue;
        }
        if name.eq_ignore_ascii_case(b"x-request-id") {
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
        push_hex([local.draw(), local.draw()], &mut x.id);
        // In place of what the client sent, which nobody can use.
        x.head.put(REQUEST_ID, x.id.as_bytes());
    }
}

fn starts_with(name: &[u8], prefix: &str) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn usable_id(id: &[u8]) -> Option<&str> {
    let usable = !id.is_empty() && id.len() <= MOST_ID_BYTES;
    // Neither quote nor backslash: the access log writes it as it is.
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    let graphic = usable && id.iter().all(plain);
    if graphic {
        std::str::from_utf8(id).ok()
    } else {
        None
    }
}

fn push_hex(numbers: [u64; 2], out: &mut String) {
    let mut text = [0; 32];
    let halves = numbers.map(|number| [number >> 32, number & 0xffff_ffff]);
    for (half, digits_of) in halves
        .as_flattened()
        .iter()
        .zip(text.as_chunks_mut::<8>().0)
    {
        // Each nibble into a byte of its own, then all eight into digits at once.
        let spread = (half | half << 16) & 0x0000_ffff_0000_ffff;
        let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
        let spread = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
        let letters = ((spread + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
        let offset = u64::from(b'a' - b'0' - 10);
        let digits = spread + 0x3030_3030_3030_3030 + letters * offset;
        *digits_of = digits.to_be_bytes();
    }
    out.push_str(std::str::from_utf8(&text).unwrap_or_default());
}

/// What every response carries: the request's id and, where told to, how it was served.
pub(crate) fn respond(x: &Exchange, head: &mut ResponseHead) {
    if head.get(REQUEST_ID.as_str()).is_none() {
        head.put(REQUEST_ID, x.id.as_bytes());
    }
    if let Some(rule) = &x.rule {
        crate::policies::response(&rule.filters, x, head);
        if let Some(backend) = rule.backends.get(x.backend) {
            crate::policies::response(&backend.filters, x, head);
        }
    }
    if !x.explain {
        return;
    }
    if let Some(attempt) = x.attempts.last() {
        let mut number = itoa::Buffer::new();
        head.put(ENDPOINT, attempt.name.as_bytes());
        head.put(DECISION, number.format(x.decision).as_bytes());
        head.put(OVERHEAD, number.format(x.overhead_us()).as_bytes());
    }
}

/// The fields that our own answers carry.
pub(crate) fn own_fields(x: &Exchange) -> [(&'static str, &str); 1] {
    [(REQUEST_ID.as_str(), &x.id)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_sixteen_hexadecimal_digits_each() {
        for number in [0, 1, 0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210, u64::MAX] {
            let mut text = String::new();
            push_hex([number, !number], &mut text);
            assert_eq!(text, format!("{number:016x}{:016x}", !number));
        }
    }
}
