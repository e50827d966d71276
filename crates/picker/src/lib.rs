//! Which endpoint should serve a request, and when.
//!
//! [`Pool`] is a state machine without clock, threads or sockets: `now` is an argument, randomness
//! comes from a seed, so the same input gives the same output. The proxy holds it in a short mutex,
//! the simulator calls it bare. Costs are seconds: how much later would tokens arrive if this
//! endpoint took the request? Start at `pool.rs`; what a request wants is `ask.rs`; how a choice is
//! made is `pick.rs` with one file per cost in `terms/`.
#![warn(missing_docs)]

mod ask;
mod books;
mod decision;
mod endpoint;
mod flow;
mod health;
mod inputs;
mod micros;
pub mod models;
mod names;
mod observation;
mod outcome;
mod overview;
mod pace;
mod pick;
mod pool;
pub mod prefix;
mod rates;
mod saturation;
mod spec;
mod subset;
mod telemetry;
mod terms;
mod view;

pub use ask::{Arrival, Ask, Cause, Ticket, Wake, Why};
pub use decision::{Basis, Decision, Mismatch, Reservation, Row, Table, replay};
pub use endpoint::EndpointId;
pub use health::Standing;
pub use inputs::{Inputs, MemberNames, Numbers};
pub use micros::Micros;
pub use models::{ModelTable, Target};
pub use observation::{Announced, Observation, Report};
pub use outcome::{FailureKind, Finished, Outcome};
pub use overview::Overview;
pub use pick::narrow::Shortlist;
pub use pool::probe::{PROBE_OUTPUT_TOKENS, PROBE_PROMPT_TOKENS, Probe, Probed};
pub use pool::{Pool, Synced};
pub use prefix::{Held, PrefixIndex};
pub use rates::Rates;
pub use spec::{MemberSpec, PoolSpec, Profile, QueueLimits};
pub use subset::Subsets;
pub use terms::{Adapter, AskNumbers, Candidate, CostTerm, TERMS};
pub use view::{EndpointView, RatesView, ReportedView};
