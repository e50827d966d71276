//! What LLM requests, responses and engine reports are: pure decoders over bytes.
//!
//! Requests are peeked and spliced, responses are scanned on the side, engine metrics are read line
//! by line. Nothing here does I/O, keeps a tree, or copies a body; every window is bounded.
//! Bytes that need no change are never rewritten, so `1e400` and odd spaces survive.
//! Start at `peek.rs` for requests, `stream.rs` for responses, `metrics.rs` for engine reports.
#![warn(missing_docs)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod api;
mod blocks;
mod errors;
mod metrics;
mod models;
mod object;
mod peek;
mod rename;
mod splice;
mod sse;
mod stream;
mod text;
mod usage;
mod walk;

pub use api::{Api, Dialect};
pub use blocks::{BLOCK_BYTES, block_hashes, chain_seed, estimate_tokens};
pub use errors::{ErrorText, error_body, error_event};
pub use metrics::{Adapters, Engine, EngineReport, MAX_METRICS_BYTES, MetricsError, scan_metrics};
pub use models::{ModelCard, scan_models};
#[cfg(feature = "fuzzing")]
pub use peek::peek_scalar;
pub use peek::{Peek, PeekError, Span, peek};
pub use rename::ModelRename;
pub use splice::{Spliced, splice_model};
pub use sse::{Event, SseScan, WINDOW_BYTES};
pub use stream::{CutCause, Ended, FirstEvent, Seen, StreamScan};
pub use usage::{BodyScan, Usage, body_usage};
