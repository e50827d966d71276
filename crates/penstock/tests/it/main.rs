//! Promises of the product, tested from outside: the built binary, real sockets, real bytes.
//!
//! `gateway.rs` starts the binary; one file per subject. `tidy.rs` checks the house rules.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where it fails"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a deadline of a test is real time"
)]

mod cli;
mod configured;
mod files;
mod gateway;
mod readme;
mod reload;
mod servers;
mod streams;
mod tidy;
