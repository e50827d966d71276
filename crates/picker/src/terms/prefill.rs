//! The request's own prompt: the tokens that the endpoint does not hold, at its speed.

use super::{AskNumbers, Candidate, CostTerm};

#[derive(Debug)]
pub(super) struct Prefill;

impl CostTerm for Prefill {
    fn name(&self) -> &'static str {
        "prefill"
    }

    #[inline]
    fn seconds(&self, ask: &AskNumbers, candidate: &Candidate) -> f32 {
        let rates = &candidate.rates;
        let tokens = ask.uncached_tokens(candidate.held_blocks);
        rates.prefill_base_seconds + tokens * rates.prefill_token_seconds
    }
}
