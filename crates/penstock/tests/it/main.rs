//! Promises of the product, tested from outside: the built binary, real sockets, real bytes.
//!
//! `gateway.rs` starts the binary; one file per subject. `tidy.rs` checks the house rules.

mod gateway;
mod readme;
mod streams;
mod tidy;
