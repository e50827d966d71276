//! Why a message is refused: every cause, its status, its code and its text, in one place.
//!
//! The statuses are those for a client. A refused *response* is the upstream's fault:
//! `ResponseHead::parse` turns every status into 502, and a caller that reads the body of a
//! response does the same.

/// A message that has no single meaning, or exceeds a limit. The connection must not be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    /// Status to answer with: 400, 414, 417, 431, 501, 505, or 502 for a response head.
    pub status: u16,
    /// Stable name of the cause, in snake case.
    pub code: &'static str,
    /// What is wrong, for people.
    pub message: &'static str,
}

const fn refusal(status: u16, code: &'static str, message: &'static str) -> Refusal {
    Refusal {
        status,
        code,
        message,
    }
}

macro_rules! refusals {
    ($($name:ident = $status:literal $code:literal $message:literal;)*) => {
        $(pub(crate) const $name: Refusal = refusal($status, $code, $message);)*
        /// All causes: the tests prove that each one can happen.
        #[cfg(test)]
        pub(crate) const ALL: &[Refusal] = &[$($name),*];
    };
}

refusals! {
    INVALID_REQUEST_LINE = 400 "invalid_request_line"
        "the request line is not `method target HTTP/1.1` with single spaces";
    LEADING_EMPTY_LINES = 400 "leading_empty_lines" "more than one empty line before the head";
    UNSUPPORTED_VERSION = 505 "unsupported_version"
        "only HTTP/1.1 and HTTP/1.0 are spoken here";
    INVALID_STATUS_LINE = 400 "invalid_status_line"
        "the status line is not `HTTP/1.1 status reason` with a status of 100 to 599";
    INVALID_FIELD_NAME = 400 "invalid_field_name"
        "a field name holds a character that is not allowed; spaces before the colon and folded lines are refused too";
    INVALID_FIELD_VALUE = 400 "invalid_field_value"
        "a field value holds a control character or a carriage return without a line feed";
    INVALID_LINE_END = 400 "invalid_line_end" "a carriage return without a line feed";
    BARE_LINE_FEED = 400 "bare_line_feed" "a line of the head ends in a line feed alone";
    HEAD_TOO_LARGE = 431 "head_too_large" "the head is larger than the limit";
    TOO_MANY_FIELDS = 431 "too_many_fields" "the head has more fields than the limit";
    TARGET_TOO_LONG = 414 "target_too_long" "the request target is longer than the limit";
    CONNECT_NOT_SUPPORTED = 501 "connect_not_supported" "the method CONNECT is not served here";
    ABSOLUTE_FORM = 400 "absolute_form"
        "the request target is an absolute URI; send the path and a Host field";
    INVALID_TARGET = 400 "invalid_target"
        "the request target neither begins with a slash nor is `*` of OPTIONS";
    INVALID_TARGET_CHARACTER = 400 "invalid_target_character"
        "the request target holds a character that must be percent-encoded, or a fragment";
    MISSING_HOST = 400 "missing_host" "an HTTP/1.1 request needs a Host field";
    DUPLICATE_HOST = 400 "duplicate_host" "more than one Host field";
    INVALID_HOST = 400 "invalid_host"
        "the Host field is neither a name nor an address with an optional port of 1 to 65535";
    INVALID_CONTENT_LENGTH = 400 "invalid_content_length"
        "Content-Length is not one decimal number below 2^63";
    DUPLICATE_CONTENT_LENGTH = 400 "duplicate_content_length" "more than one Content-Length field";
    UNSUPPORTED_TRANSFER_CODING = 501 "unsupported_transfer_coding"
        "Transfer-Encoding is something else than `chunked`";
    DUPLICATE_TRANSFER_ENCODING = 400 "duplicate_transfer_encoding"
        "more than one Transfer-Encoding field";
    LENGTH_AND_TRANSFER_ENCODING = 400 "content_length_with_transfer_encoding"
        "Content-Length and Transfer-Encoding in one message";
    TRANSFER_ENCODING_IN_HTTP_10 = 400 "transfer_encoding_in_http_1_0"
        "HTTP/1.0 has no Transfer-Encoding";
    UNKNOWN_EXPECTATION = 417 "unknown_expectation" "only `Expect: 100-continue` is understood";
    TOO_MANY_CONNECTION_OPTIONS = 400 "too_many_connection_options"
        "the Connection fields list more than 64 options";
    INVALID_CHUNK_SIZE = 400 "invalid_chunk_size"
        "a chunk size is not a plain hexadecimal number followed by a line end";
    CHUNK_SIZE_OVERFLOW = 400 "chunk_size_overflow" "a chunk size has more than 15 digits";
    INVALID_CHUNK_EXTENSION = 400 "invalid_chunk_extension"
        "a chunk extension holds a control character";
    CHUNK_EXTENSION_TOO_LARGE = 400 "chunk_extension_too_large"
        "the extensions of a chunk are larger than the limit";
    INVALID_CHUNK_END = 400 "invalid_chunk_end" "the payload of a chunk is not followed by a line end";
    INVALID_TRAILER = 400 "invalid_trailer" "a trailer line is not `name: value`";
    FORBIDDEN_TRAILER = 400 "forbidden_trailer"
        "a trailer names a field of framing, routing or the connection";
    TRAILERS_TOO_LARGE = 431 "trailers_too_large" "the trailers are larger than the limit";
}

#[cfg(test)]
mod tests;
