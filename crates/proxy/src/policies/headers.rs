//! RequestHeaderModifier and ResponseHeaderModifier: set, then add, then remove (Gateway API).

use config::{HeaderEdits, HeaderValue};
use http1::{RequestHead, ResponseHead};

pub(crate) fn edit_request(edits: &HeaderEdits, head: &mut RequestHead) {
    for HeaderValue { name, value } in &edits.set {
        if &**name == "host" {
            head.set_host(value);
        } else {
            head.set(name, value.as_bytes());
        }
    }
    for HeaderValue { name, value } in &edits.add {
        head.add(name, value.as_bytes());
    }
    for name in &edits.remove {
        head.remove(name);
    }
}

pub(crate) fn edit_response(edits: &HeaderEdits, head: &mut ResponseHead) {
    for HeaderValue { name, value } in &edits.set {
        head.set(name, value.as_bytes());
    }
    for HeaderValue { name, value } in &edits.add {
        head.add(name, value.as_bytes());
    }
    for name in &edits.remove {
        head.remove(name);
    }
}
