//! Moves bytes and owns sockets: the data plane of Penstock.
//!
//! Start with `serve`, the pipeline of a request. [`Proxy::apply`] takes a compiled snapshot and
//! the members of its pools; where they came from is none of this crate's business, and it
//! discovers nothing. One worker per core serves connections ([`Settings::workers`]); telemetry
//! runs on the runtime that starts the proxy.

mod access_log;
mod answer;
mod clock;
mod deadline;
mod exchange;
mod ext_proc;
mod failure;
mod forward;
mod headers;
mod limits;
mod listener;
mod live;
mod memory;
mod metrics;
mod policies;
mod pool;
mod relay;
mod retry;
mod route;
mod serve;
mod socket;
mod tls;
mod tunnel;
mod turns;
mod upkeep;
mod upstream;
mod worker;

pub use access_log::AccessLog;
pub use limits::{Http2Limits, Limits, NAMED_LIMITS, NamedLimit};
pub use listener::bind::explain as explain_bind_error;
pub use live::{Applied, Bound, Live, Members, Proxy, Settings};
pub use memory::{Holder, MemoryView, PoolMemory};
pub use metrics::Metrics;
pub use pool::Resolved;
pub use pool::decisions::{Decisions, Record};
pub use pool::view::{EndpointView, PickerView, PoolView};
pub use tls::client::unverified_tls;
pub use worker::TICK;
