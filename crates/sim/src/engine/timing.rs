//! How long one step takes: what the step computes, times the profile's coefficients.
//! Linear in prompt tokens, decoding sequences and context read, plus attention in prefill.

use super::Profile;

/// What one step computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StepLoad {
    prefill_tokens: u64,
    /// Twice the attention pairs: keeps the half of `chunk / 2` without a fraction.
    double_pairs: u64,
    decode_sequences: u64,
    context_tokens: u64,
    adapter_loads: u64,
}

impl StepLoad {
    /// Adds `chunk` tokens of a prompt (or of a recomputed sequence) after `context` known ones.
    pub(super) fn prefill(&mut self, chunk: u32, context: u32) {
        let (chunk, context) = (u64::from(chunk), u64::from(context));
        self.prefill_tokens += chunk;
        self.double_pairs += chunk * (2 * context + chunk);
    }

    /// Adds one decoding sequence that reads `context` tokens.
    pub(super) fn decode(&mut self, context: u32) {
        self.decode_sequences += 1;
        self.context_tokens += u64::from(context);
    }

    /// Adds the load of one adapter into a slot.
    pub(super) fn adapter_load(&mut self) {
        self.adapter_loads += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.prefill_tokens == 0 && self.decode_sequences == 0
    }

    /// Microseconds of the step, rounded up and at least 1, at `speed_per_mille` (1,000: as the
    /// profile says; 500: half as fast).
    pub(super) fn micros(
        &self,
        profile: &Profile,
        adapter_load_micros: u64,
        speed_per_mille: u32,
    ) -> u64 {
        let product = |count: u64, ps: u64| u128::from(count) * u128::from(ps);
        let ps = u128::from(profile.base_ps)
            + product(self.prefill_tokens, profile.prefill_token_ps)
            + product(self.double_pairs, profile.attention_pair_ps) / 2
            + product(self.decode_sequences, profile.decode_sequence_ps)
            + product(self.context_tokens, profile.context_token_ps)
            + product(self.adapter_loads, adapter_load_micros) * 1_000_000;
        let scaled = (ps * 1_000).div_ceil(1_000_000 * u128::from(speed_per_mille.max(1)));
        u64::try_from(scaled).unwrap_or(u64::MAX).max(1)
    }
}
