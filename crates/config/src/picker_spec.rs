//! What the picker is told about a pool: the compiled names of models, the profile and the limits.
//!
//! The shapes of the picker's own plain specification types.

use indexmap::IndexMap;
use serde::Serialize;

/// One model that may stand in for a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// What the engine is asked for.
    pub name: String,
    /// Share of requests; `None` on all targets lets the cost choose.
    pub weight: Option<u32>,
}

/// A name and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelEntry {
    /// Empty means the name itself.
    pub targets: Vec<Target>,
    /// Above zero is critical, below zero may be shed.
    pub priority: i32,
}

/// Names of models of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelTable {
    /// Declared names.
    pub models: IndexMap<String, ModelEntry>,
    /// Targets by name that win over those of a declared name.
    pub rewrites: IndexMap<String, Vec<Target>>,
    /// Targets of names that nothing else rewrites.
    pub generic: Vec<Target>,
    /// Priorities that requests may name.
    pub objectives: IndexMap<String, i32>,
}

/// By what endpoints are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Profile {
    /// Seconds that tokens come later.
    #[default]
    Cost,
    /// Requests in flight.
    LeastRequests,
}

/// Bounds of a pool's waiting queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct QueueLimits {
    /// Requests.
    pub requests: u32,
    /// Longest wait in seconds.
    pub seconds: u32,
    /// Bytes of waiting bodies.
    pub bytes: u64,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            requests: 1_000,
            seconds: 60,
            bytes: 256 << 20,
        }
    }
}

/// Everything the picker is told about a pool but its members.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolSpec {
    /// Shown name.
    pub name: String,
    /// Names of models.
    pub models: ModelTable,
    /// By what endpoints are compared.
    pub profile: Profile,
    /// Expected seconds to the first token above which a pool is saturated.
    pub saturation_seconds: f32,
    /// Bounds of the queue.
    pub queue: QueueLimits,
}
