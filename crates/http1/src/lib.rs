//! HTTP/1.1 on the wire: strict, sans I/O.
//!
//! Bytes in, bytes out: [`RequestHead`] and [`ResponseHead`] read a head, take edits and write the
//! head for the next hop; [`BodyReader`] finds where a body ends. Invariant: what is accepted has
//! one meaning only, and what is written means the same to every reader (RFC 9112 section 11.2).
//! When two parsers could disagree, the message is refused ([`Refusal`]).
//!
//! Start with `request.rs`; `fields.rs` holds the index, the overlay of edits and the copying.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]
#![warn(missing_docs)]

mod answer;
mod body;
mod fields;
mod host;
mod kind;
mod name;
mod reading;
mod refusal;
mod request;
mod response;

pub use answer::{LAST_CHUNK, reason, write_chunk, write_response};
pub use body::BodyReader;
pub use name::FieldName;
pub use refusal::Refusal;
pub use request::RequestHead;
pub use response::ResponseHead;

/// What a head and the framing of a body may take at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head with its blank line; at most 16 MiB whatever is asked for.
    pub head_bytes: usize,
    /// Fields of a head; at most 128 whatever is asked for.
    pub fields: usize,
    /// Bytes of a request target.
    pub target_bytes: usize,
    /// Bytes of the extensions of one chunk.
    pub chunk_extension_bytes: usize,
    /// Bytes of all trailer lines of one body.
    pub trailer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            head_bytes: 32 << 10,
            fields: 100,
            target_bytes: 8 << 10,
            chunk_extension_bytes: 256,
            trailer_bytes: 4 << 10,
        }
    }
}

/// How far the parsing of a head came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Nothing is wrong so far, but the head is not whole: call again with more bytes.
    Incomplete,
    /// The head is whole.
    Complete {
        /// Bytes of the input that it took; the body begins there.
        head_bytes: usize,
    },
}

/// How a body is delimited (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// Chunks, the last one empty.
    Chunked,
    /// All until the connection closes; responses only.
    Close,
}
