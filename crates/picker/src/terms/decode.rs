//! Slower generation: of this request among the sequences that are there, and of those by it.
//!
//! Every sequence makes each step a little longer, and a prefill makes the steps that carry it
//! longer for all. A token that is late in the middle of a stream is felt less than a late first
//! one, so what others lose counts by a share.

use super::{AskNumbers, Candidate, CostTerm};

/// What a second of delay counts that other streams share. An estimate, between 0 (only the first
/// token matters) and 1 (all tokens do).
const OTHERS_SHARE: f32 = 0.1;

#[derive(Debug)]
pub(super) struct Decode;

impl CostTerm for Decode {
    fn name(&self) -> &'static str {
        "decode"
    }

    #[inline]
    fn seconds(&self, ask: &AskNumbers, candidate: &Candidate) -> f32 {
        let steps = ask.output_tokens as f32;
        let rates = &candidate.rates;
        let others = candidate.sequences();
        let alone = rates.decode_base_seconds * steps;
        let among = others * rates.decode_sequence_seconds * steps;
        let prefill = ask.uncached_tokens(candidate.held_blocks) * rates.prefill_token_seconds;
        alone + among + OTHERS_SHARE * (among + others * prefill)
    }
}
