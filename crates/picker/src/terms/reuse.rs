//! Cached prefixes that are destroyed elsewhere in time: the price of a second copy.
//!
//! Blocks that another candidate holds already are stored twice when this endpoint computes them,
//! and push out as many that may be wanted again. Tokens beyond the KV cache's size preempt
//! requests, whose work is then done twice (vLLM `scheduler.py`, `_preempt_request`).

use super::{AskNumbers, Candidate, CostTerm};

/// Chance that what a second copy pushes out is wanted again. An estimate, kept small: the copy is
/// itself worth something when the prefix is hot.
const WANTED_AGAIN: f32 = 0.2;

#[derive(Debug)]
pub(super) struct Reuse;

impl CostTerm for Reuse {
    fn name(&self) -> &'static str {
        "reuse"
    }

    #[inline]
    fn seconds(&self, ask: &AskNumbers, candidate: &Candidate) -> f32 {
        let best = ask.cached_tokens(ask.best_held_blocks);
        let copied = (best - ask.cached_tokens(candidate.held_blocks)).max(0.0);
        let filled = candidate.kv_tokens + ask.prompt_tokens as f32 + ask.output_tokens as f32;
        let known = candidate.kv_capacity > 0.0;
        let over = if known {
            (filled - candidate.kv_capacity).max(0.0)
        } else {
            0.0
        };
        (WANTED_AGAIN * copied + over) * candidate.rates.prefill_token_seconds
    }
}
