//! A simulated model server: the simulator's engine in real time behind an OpenAI-compatible API.
//!
//! It speaks as vLLM does (routes, bodies, streams, metrics) and misbehaves on demand. One task
//! owns the engine (`driver`); requests are answered by `api`; what can go wrong is listed in
//! [`FAULTS`]. [`Mock::bind`] takes the port, so the address is known before [`Mock::serve`] runs.

mod api;
mod driver;
mod faults;
mod journal;
mod metrics;
mod server;
mod spec;
#[cfg(test)]
mod tests;
mod text;

pub use faults::{FAULTS, Fault, FaultBook, FaultEntry, FaultError, FaultKind};
pub use server::{Mock, serve};
pub use sim::engine::{EngineSpec, PROFILES, Profile};
pub use spec::{Listen, MockSpec};
