//! What a pool is told: its members and its settings.
//!
//! Plain values, compared whole: the shell calls [`crate::Pool::configure`] when the settings
//! changed and [`crate::Pool::sync`] when the list of members did.

use crate::models::ModelTable;
use crate::subset::Subsets;

/// One server of a pool, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSpec {
    /// Identity across changes of the list: a pod's UID or an address.
    pub key: String,
    /// As people know it, such as `10.0.0.3:8000`.
    pub name: String,
    /// In which of the pool's subsets it is.
    pub subsets: Subsets,
}

/// The settings of a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSpec {
    /// Namespace and name, for people.
    pub name: String,
    /// Which names the pool serves, with their targets and priorities.
    pub models: ModelTable,
    /// How endpoints are compared.
    pub profile: Profile,
    /// A first token expected later than this, in seconds, everywhere means a saturated pool.
    pub saturation_seconds: f32,
    /// How many requests may wait, and for how long.
    pub queue: QueueLimits,
    /// Somebody sends the probes that [`crate::Pool::due_probes`] asks for: who cuts answers or has
    /// turned slow is tried out by them, not by requests of clients.
    pub probes: bool,
}

impl Default for PoolSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            models: ModelTable::default(),
            profile: Profile::Cost,
            saturation_seconds: 5.0,
            queue: QueueLimits::default(),
            probes: false,
        }
    }
}

/// How the endpoints of a pool are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// By how much later tokens would arrive, in seconds.
    #[default]
    Cost,
    /// By requests in flight alone; such a pool is never saturated. For plain web servers.
    LeastRequests,
}

/// Bounds of the queue in front of a saturated pool. Beyond them requests are refused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QueueLimits {
    /// Requests that may wait.
    pub requests: usize,
    /// Longest wait, in seconds.
    pub wait_seconds: f32,
    /// Sum of the bodies of the requests that wait, in bytes.
    pub bytes: usize,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            requests: 1000,
            wait_seconds: 60.0,
            bytes: 256 << 20,
        }
    }
}
