//! Our own errors in the words of the client's API, as a body and as an event in a stream.
//!
//! Official client libraries pick the exception from the status and show `message`; `type` and
//! `code` are what programs compare. Shapes: OpenAI's error object, Anthropic's errors page.

use crate::api::Dialect;
use crate::text;

/// One error to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorText<'a> {
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// OpenAI's `error.type`; `None` takes the usual one for the status. Anthropic's type always
    /// follows the status.
    pub kind: Option<&'a str>,
    /// OpenAI's `error.code`, e.g. `model_not_found`; null when `None`. Not told in Anthropic's
    /// dialect, which has no place for it.
    pub code: Option<&'a str>,
    /// For people: what, where, and what to do.
    pub message: &'a str,
    /// OpenAI's `error.param`: the request's field at fault.
    pub param: Option<&'a str>,
}

impl<'a> ErrorText<'a> {
    /// An error with the status' usual type and no parameter.
    #[must_use]
    pub fn new(status: u16, code: &'a str, message: &'a str) -> Self {
        Self {
            status,
            kind: None,
            code: Some(code),
            message,
            param: None,
        }
    }
}

/// Appends the error as a JSON body.
pub fn error_body(dialect: Dialect, error: &ErrorText<'_>, out: &mut Vec<u8>) {
    match dialect {
        Dialect::OpenAi => openai(error, out),
        Dialect::Anthropic => anthropic(error, out),
    }
}

/// Appends the error as an event that ends a stream. `[DONE]` or `message_stop` must not follow:
/// the answer is not complete, and clients must see that.
pub fn error_event(dialect: Dialect, error: &ErrorText<'_>, out: &mut Vec<u8>) {
    match dialect {
        // The OpenAI libraries raise on a `data` object with a top-level `error`.
        Dialect::OpenAi => out.extend_from_slice(b"data: "),
        Dialect::Anthropic => out.extend_from_slice(b"event: error\ndata: "),
    }
    error_body(dialect, error, out);
    out.extend_from_slice(b"\n\n");
}

fn openai(error: &ErrorText<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"error\":{\"message\":");
    text::quoted(error.message, out);
    out.extend_from_slice(b",\"type\":");
    text::quoted(error.kind.unwrap_or_else(|| openai_kind(error.status)), out);
    out.extend_from_slice(b",\"param\":");
    nullable(error.param, out);
    out.extend_from_slice(b",\"code\":");
    nullable(error.code, out);
    out.extend_from_slice(b"}}");
}

fn anthropic(error: &ErrorText<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":\"error\",\"error\":{\"type\":");
    text::quoted(anthropic_kind(error.status), out);
    out.extend_from_slice(b",\"message\":");
    text::quoted(error.message, out);
    out.extend_from_slice(b"}}");
}

fn nullable(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        Some(text) => text::quoted(text, out),
        None => out.extend_from_slice(b"null"),
    }
}

fn openai_kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

fn anthropic_kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

/// The status that an Anthropic error type stands for.
pub(crate) fn anthropic_status(kind: &[u8]) -> Option<u16> {
    Some(match kind {
        b"invalid_request_error" => 400,
        b"authentication_error" => 401,
        b"permission_error" => 403,
        b"not_found_error" => 404,
        b"request_too_large" => 413,
        b"rate_limit_error" => 429,
        b"api_error" => 500,
        b"timeout_error" => 504,
        b"overloaded_error" => 529,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
