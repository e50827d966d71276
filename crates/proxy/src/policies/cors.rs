//! CORS: which pages of other origins may ask, told by the gateway in place of the backend.
//!
//! A preflight (the Fetch standard, section 3.2) is answered here and reaches no backend. One of an
//! origin that may not gets the same answer without any permission in it: the browser refuses.

use super::Answer;
use crate::exchange::Exchange;
use config::{Allowed, Cors};
use http1::ResponseHead;

const ORIGIN: &str = "access-control-allow-origin";
const CREDENTIALS: &str = "access-control-allow-credentials";
const EXPOSED: &str = "access-control-expose-headers";

/// `None`: the request is no preflight.
pub(crate) fn preflight(cors: &Cors, x: &Exchange) -> Option<Answer> {
    let text = |name| {
        let value = x.head.get(name)?;
        std::str::from_utf8(value).ok()
    };
    if x.head.method() != "OPTIONS" {
        return None;
    }
    let origin = text("origin")?;
    let method = text("access-control-request-method")?;
    let mut fields = vec![("vary", "Origin".to_owned())];
    if let Some(origin) = cors.allow_origin(origin) {
        fields.push((ORIGIN, origin.to_owned()));
        if let Some(methods) = allowed(&cors.methods, Some(method)) {
            fields.push(("access-control-allow-methods", methods.to_owned()));
        }
        let asked = text("access-control-request-headers");
        if let Some(headers) = allowed(&cors.headers, asked) {
            fields.push(("access-control-allow-headers", headers.to_owned()));
        }
        if !cors.exposed.is_empty() {
            fields.push((EXPOSED, cors.exposed.to_string()));
        }
        if cors.credentials {
            fields.push((CREDENTIALS, "true".to_owned()));
        }
        fields.push(("access-control-max-age", cors.max_age.to_string()));
    }
    Some(Answer {
        status: 204,
        fields,
    })
}

/// What was asked for is told where everything is allowed: with credentials, `*` means nothing.
fn allowed<'a>(allowed: &'a Allowed, asked: Option<&'a str>) -> Option<&'a str> {
    match allowed {
        Allowed::Any => asked,
        Allowed::These(names) if names.is_empty() => None,
        Allowed::These(names) => Some(names),
    }
}

/// Whatever the backend says about origins gives way.
pub(crate) fn edit_response(cors: &Cors, x: &Exchange, head: &mut ResponseHead) {
    let origin = x.head.get("origin").unwrap_or_default();
    let Ok(origin) = std::str::from_utf8(origin) else {
        return;
    };
    for name in [ORIGIN, CREDENTIALS, EXPOSED] {
        head.remove(name);
    }
    if origin.is_empty() {
        return;
    }
    head.add("vary", b"Origin");
    let Some(origin) = cors.allow_origin(origin) else {
        return;
    };
    head.set(ORIGIN, origin.as_bytes());
    if cors.credentials {
        head.set(CREDENTIALS, b"true");
    }
    if !cors.exposed.is_empty() {
        head.set(EXPOSED, cors.exposed.as_bytes());
    }
}
