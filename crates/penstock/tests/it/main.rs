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

mod accounts;
mod backends;
mod books;
mod bytes;
mod cancel;
mod certificates;
mod churn;
mod cli;
mod configured;
mod crowd;
mod deploy;
mod dialled;
mod docs;
mod doctor;
mod drain;
mod errors;
mod events;
mod expect;
mod explain;
mod external;
mod failover;
mod faults;
mod fed;
mod files;
mod floods;
mod gateway;
mod grpc;
mod http2;
mod late;
mod latency;
mod linger;
mod living;
mod measures;
mod memory;
mod names;
mod over2;
mod picker;
mod policies;
mod privacy;
mod queue;
mod readme;
mod reload;
mod resolve;
mod retries;
mod scripted;
mod servers;
mod silence;
mod soak;
mod streams;
mod stress;
mod subsets;
mod telemetry;
mod tidy;
mod tls;
mod trailers;
mod trust;
mod vanish;
mod websocket;
