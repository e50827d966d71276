//! What the picker is told about a pool: the picker's own plain types.

pub use picker::models::{Criticality, ModelTable, Target};
pub use picker::{PoolSpec, Profile, QueueLimits};
