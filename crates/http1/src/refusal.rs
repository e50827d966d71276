//! Why bytes are refused: status, code and text for each cause.

/// A message that HTTP/1.1 forbids, or that we do not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Status to answer a request with: 400, 414, 431, 501 or 505. A response that is refused is a
    /// bad gateway, whatever this says.
    pub status: u16,
    /// The cause in one word, for programs.
    pub code: &'static str,
    /// The cause for people.
    pub message: &'static str,
}

macro_rules! refusals {
    ($($name:ident: $status:literal, $code:literal, $message:literal;)*) => {
        impl Refusal {
            $(pub(crate) const $name: Self =
                Self { status: $status, code: $code, message: $message };)*
        }
        /// Every refusal there is, for documents and tests.
        #[cfg(test)]
        pub(crate) const ALL: &[Refusal] = &[$(Refusal::$name),*];
    };
}

refusals! {
    MALFORMED: 400, "malformed_head", "the head is not valid HTTP/1.1";
    BAD_NAME: 400, "bad_field_name", "a field name has characters that are not allowed";
    BAD_VALUE: 400, "bad_field_value", "a field value has control characters";
    BARE_LF: 400, "bare_lf", "a line of the head ends in LF without CR";
    HEAD_TOO_LARGE: 431, "head_too_large", "the head has more bytes than are accepted";
    TOO_MANY_FIELDS: 431, "too_many_fields", "the head has more fields than are accepted";
    TARGET_TOO_LONG: 414, "target_too_long", "the request target is longer than is accepted";
    BAD_VERSION: 505, "bad_version", "only HTTP/1.1 and HTTP/1.0 are served on this port";
    CONNECT: 400, "connect_not_served", "CONNECT is not served: this is not a forward proxy";
    BAD_TARGET: 400, "bad_target", "the request target must be a path that begins with a slash";
    MISSING_HOST: 400, "missing_host", "an HTTP/1.1 request needs a host field";
    DUPLICATE_HOST: 400, "duplicate_host", "there is more than one host field";
    BAD_HOST: 400, "bad_host", "the host has characters that are not allowed";
    BAD_CONTENT_LENGTH: 400, "bad_content_length", "content-length is not a plain decimal number";
    DUPLICATE_CONTENT_LENGTH: 400, "duplicate_content_length", "there is more than one content-length";
    LENGTH_AND_CODING: 400, "length_and_coding", "content-length and transfer-encoding are both there";
    BAD_CODING: 501, "bad_transfer_coding", "the only transfer coding served is one `chunked`";
    CODING_IN_1_0: 400, "coding_in_http_1_0", "HTTP/1.0 has no transfer-encoding";
    BAD_CHUNK_SIZE: 400, "bad_chunk_size", "a chunk size is not a plain hexadecimal number";
    BAD_CHUNK_END: 400, "bad_chunk_end", "a chunk does not end with CRLF";
    CHUNK_EXTENSION_TOO_LONG: 400, "chunk_extension_too_long", "a chunk extension is longer than is accepted";
    TRAILERS_TOO_LARGE: 431, "trailers_too_large", "the trailers have more bytes than are accepted";
    BAD_TRAILER: 400, "bad_trailer", "the trailers are not valid HTTP/1.1";
    BAD_STATUS: 502, "bad_status", "the status is not between 100 and 599";
}
