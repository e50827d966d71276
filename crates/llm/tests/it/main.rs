//! The decoders on bytes recorded from real model servers: `tests/recorded/SERVER/`.
//!
//! Every answer goes through the fitting decoder whole, in one-byte pieces and, when short, cut in
//! two at every byte; the outcome must be the one in the tables here each time. A recording that no
//! table knows fails the tests. The expected values were derived with another program.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod bodies;
mod metrics;
mod recorded;
mod streams;
