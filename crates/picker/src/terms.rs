//! The costs of giving a request to an endpoint, in seconds. One file per term.
//!
//! A term reads the numbers of the request and of each candidate, and nothing else; both are kept
//! in the decision's table, so that a choice can be made again. To add a term: one file here, one
//! line in [`TERMS`].

mod adapter;
mod decode;
mod prefill;
mod queue;
mod reuse;

pub use adapter::Adapter;

use crate::endpoint::EndpointId;
use crate::health::Standing;
use crate::rates::Rates;
use serde::{Deserialize, Serialize};

/// The list of terms, and the code that asks each: static, so that a choice calls nothing.
macro_rules! terms {
    ($($term:expr),* $(,)?) => {
        /// All terms; their sum is the cost of a candidate.
        pub const TERMS: [&dyn CostTerm; [$(stringify!($term)),*].len()] = [$(&$term),*];

        /// Seconds of each term, in the order of [`TERMS`].
        #[inline]
        pub(crate) fn seconds(ask: &AskNumbers, of: &Candidate) -> [f32; TERMS.len()] {
            [$($term.seconds(ask, of)),*]
        }
    };
}

terms![
    queue::Queue,
    prefill::Prefill,
    decode::Decode,
    adapter::AdapterLoad,
    reuse::Reuse,
];

/// Where terms stand in [`TERMS`] that saturation is judged by.
pub(crate) const QUEUE: usize = 0;
pub(crate) const PREFILL: usize = 1;
pub(crate) const ADAPTER: usize = 3;

/// One cost.
pub trait CostTerm: core::fmt::Debug + Sync {
    /// One word, for people.
    fn name(&self) -> &'static str;
    /// How much later tokens arrive if the candidate takes the request, in seconds, never negative.
    fn seconds(&self, ask: &AskNumbers, candidate: &Candidate) -> f32;
}

/// The numbers of a request that the terms read.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct AskNumbers {
    /// Length of the prompt, in tokens.
    pub prompt_tokens: u32,
    /// Tokens that will probably be generated.
    pub output_tokens: u32,
    /// Full blocks of the prompt.
    pub blocks: u32,
    /// The most blocks that any candidate holds.
    pub best_held_blocks: u32,
    /// Priority of the request; not a cost, but it belongs to the picture.
    pub priority: i32,
    /// Mean uncached tokens of a request of this pool: what a foreign request is taken for.
    pub mean_uncached_tokens: f32,
}

impl AskNumbers {
    /// Tokens of the prompt that an endpoint with `held_blocks` has cached.
    #[inline]
    pub fn cached_tokens(&self, held_blocks: u32) -> f32 {
        let held = held_blocks.min(self.blocks);
        self.prompt_tokens as f32 * (held as f32 / self.blocks.max(1) as f32)
    }

    /// Tokens that an endpoint with `held_blocks` must compute: at least 1, the engine always
    /// computes the last one (vLLM `kv_cache_manager.py`, `get_computed_blocks`).
    #[inline]
    pub fn uncached_tokens(&self, held_blocks: u32) -> f32 {
        (self.prompt_tokens as f32 - self.cached_tokens(held_blocks)).max(1.0)
    }
}

/// One endpoint, with one target, as the terms see it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Which endpoint.
    pub endpoint: EndpointId,
    /// Index into the request's targets.
    pub target: u32,
    /// Blocks of the prompt that it is believed to hold.
    pub held_blocks: u32,
    /// Own requests that have not ended.
    pub in_flight: u32,
    /// Own requests without a first token.
    pub prefilling: u32,
    /// Uncached tokens of those, less what must be computed by now.
    pub ahead_tokens: f32,
    /// Requests of others in its queue, by reports.
    pub foreign_waiting: f32,
    /// Requests of others that it computes, by reports.
    pub foreign_running: f32,
    /// Age of the last report that was believed, in seconds; `None` without any.
    pub report_age_seconds: Option<f32>,
    /// Seconds until a sequence ends and makes room, when the engine reports to be full; else 0.
    pub seat_seconds: f32,
    /// KV tokens that all its requests are expected to fill.
    pub kv_tokens: f32,
    /// KV tokens that fit, by reports; 0 when unknown.
    pub kv_capacity: f32,
    /// Its speeds.
    pub rates: Rates,
    /// Whether the target is loaded.
    pub adapter: Adapter,
    /// Seconds to load an adapter.
    pub load_seconds: f32,
    /// Requests in flight with this target, over all endpoints, beyond the least of the targets.
    pub target_excess: u32,
    /// Its health.
    pub health: Standing,
}

impl Candidate {
    /// Sequences that it computes or will compute: own and foreign.
    #[inline]
    pub fn sequences(&self) -> f32 {
        self.in_flight as f32 + self.foreign_running + self.foreign_waiting
    }
}
