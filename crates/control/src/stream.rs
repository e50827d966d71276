//! The object stream: how a controller hands a Gateway's objects to its proxies.
//!
//! One bidirectional gRPC stream, opened by the proxy. It says what it has (`Hello`), gets what differs
//! (`Change`, as many as needed), and takes it over at a commit only, so that a route never precedes its
//! pool; then it says what became of it (`Applied`). Objects are opaque JSON in the envelope: one
//! configuration language, one compilation, no second form. A proxy keeps what it has when the
//! controller is gone, and across its own restart (`client/kept.rs`).
//!
//! Every replica of the controller feeds proxies, one of them writes statuses: the others tell it over
//! the same stream what their proxies said (`relay.rs`).

mod client;
mod connection;
mod relay;
mod server;
mod wire;

pub use client::{Following, Received, StreamSettings, follow};
pub use relay::{RelaySettings, relay};
pub use server::{Caller, Reviewer, ServeSettings, TokenReviewer, serve};
pub use wire::{Applied, Listener, Listeners};

/// Path of the one method.
const METHOD: &str = "/penstock.control.v1.Objects/Follow";
/// Most objects of one Gateway.
const MOST_OBJECTS: usize = 200_000;
/// Largest message: a Hello names every object that the proxy has.
const MOST_MESSAGE: usize = 64 << 20;

/// Why a stream cannot be opened or ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The other side cannot be reached, or TLS fails.
    #[error("cannot connect to the controller at {address}")]
    Connect {
        /// `HOST:PORT`.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that is needed cannot be read.
    #[error("cannot read {path}: {why}")]
    File {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// HTTP/2 failed.
    #[error("the connection failed")]
    Http(#[from] hyper::Error),
    /// The controller ended the stream.
    #[error("the controller ended the stream: {}", .0.message())]
    Refused(Box<tonic::Status>),
    /// The controller sent what cannot be taken over.
    #[error("the controller sent what cannot be used: {0}")]
    Unusable(String),
}

impl From<tonic::Status> for StreamError {
    fn from(status: tonic::Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

#[cfg(test)]
mod tests;
