//! Loading a LoRA adapter where it is not loaded yet.
//!
//! An engine without a free place for it must also drop another, which then has to come back:
//! twice the cost. Several targets are versions of one model: a small cost for the version that
//! has more requests in flight spreads them.

use super::{AskNumbers, Candidate, CostTerm};
use serde::{Deserialize, Serialize};

/// What each request in flight beyond the least used version costs, in seconds. An estimate: small
/// beside a load, large beside one more sequence in a batch.
const VERSION_SPREAD_SECONDS: f32 = 0.005;

/// Whether an endpoint has the adapter of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Adapter {
    /// The target is no adapter, as far as is known.
    #[default]
    NotNeeded,
    /// It is loaded.
    Loaded,
    /// It must be loaded.
    Absent,
    /// It must be loaded and another dropped.
    AbsentAndFull,
}

#[derive(Debug)]
pub(super) struct AdapterLoad;

impl CostTerm for AdapterLoad {
    fn name(&self) -> &'static str {
        "adapter"
    }

    #[inline]
    fn seconds(&self, _ask: &AskNumbers, candidate: &Candidate) -> f32 {
        let loads = match candidate.adapter {
            Adapter::NotNeeded | Adapter::Loaded => 0.0,
            Adapter::Absent => 1.0,
            Adapter::AbsentAndFull => 2.0,
        };
        let spread = candidate.target_excess as f32 * VERSION_SPREAD_SECONDS;
        loads * candidate.load_seconds + spread
    }
}
