//! What the picker is told about a pool, in the shapes of the picker's own plain types.

pub use picker::models::{Criticality, ModelTable, Target};

/// How the endpoints of a pool are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// By how much later tokens would arrive, in seconds.
    #[default]
    Cost,
    /// By requests in flight alone.
    LeastRequests,
}

/// Bounds of a pool's waiting queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueLimits {
    /// Requests that may wait.
    pub requests: usize,
    /// Longest wait, in seconds.
    pub wait_seconds: f32,
    /// Sum of the bodies of waiting requests, in bytes.
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            requests: 1_000,
            wait_seconds: 60.0,
            bytes: 256 << 20,
        }
    }
}

/// Everything the picker is told about a pool but its members.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// Shown name.
    pub name: String,
    /// Names of models.
    pub models: ModelTable,
    /// How endpoints are compared.
    pub profile: Profile,
    /// Expected seconds to the first token above which a pool is saturated.
    pub saturation_seconds: f32,
    /// Bounds of the queue.
    pub queue: QueueLimits,
}
