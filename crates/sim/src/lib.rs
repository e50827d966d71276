//! Discrete-event model of continuous-batching model servers.
//!
//! Pure: no clock, thread, socket or random generator. Time is an argument, in integer
//! microseconds, so the same input gives the same output on every platform. Start at
//! [`engine::Engine`]: one server. [`run`] drives a bare engine over a list of arrivals.
#![warn(missing_docs)]

pub mod engine;
mod run;
mod time;

pub use run::run;
pub use time::Micros;
