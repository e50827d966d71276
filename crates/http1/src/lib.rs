//! HTTP/1.1 on the wire: heads, framing, refusals. Strict, and without any I/O.
//!
//! Two parsers in a row that disagree are a security hole, so whatever RFC 9112 lets a recipient
//! refuse is refused here: bare LF, obsolete folding, `Content-Length` with `Transfer-Encoding`,
//! any coding but one `chunked`, two `Host`s, absolute targets. A head that is accepted is written
//! for the next hop by copying runs of its own bytes around what must change.
//!
//! [`RequestHead`] and [`ResponseHead`] own their bytes with an index of fields; edits are an
//! overlay. [`BodyReader`] finds where a body ends and hands out its payload.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]
#![warn(missing_docs)]

mod body;
mod fields;
mod refusal;
mod request;
mod response;

pub use body::{BodyReader, Framing, LAST_CHUNK, write_chunk};
pub use refusal::Refusal;
pub use request::RequestHead;
pub use response::{ResponseHead, reason, write_response};

/// Bounds on what a peer may send; every one has a status of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest head, request line included, in bytes. At most 65,535.
    pub head_bytes: usize,
    /// Most header fields; at most 100 are ever accepted.
    pub fields: usize,
    /// Longest request target, in bytes.
    pub target_bytes: usize,
    /// Longest chunk extension, in bytes.
    pub chunk_extension_bytes: usize,
    /// Longest trailer section, in bytes.
    pub trailer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 32 << 10,
            fields: 100,
            target_bytes: 8 << 10,
            chunk_extension_bytes: 256,
            trailer_bytes: 4 << 10,
        }
    }
}

/// What a parser made of the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// No error yet, but the head does not end here.
    Incomplete,
    /// The head is complete and has this many bytes; the body begins there.
    Complete {
        /// Length of the head with its empty line.
        head_bytes: usize,
    },
}
