//! When an endpoint has too much to do for one more request, by our own accounting.
//!
//! It has when the first token would come too late, or when its KV cache cannot hold the request.
//! An endpoint without own requests in flight always accepts: waiting for it would free nothing.

use crate::inputs::Inputs;
use crate::pick::{Cost, Rule};
use crate::terms::{AskNumbers, Candidate};

/// Whether the endpoint takes one more request, whose `first_token` would come after so many
/// seconds. A request that tries out an ejected endpoint is
/// always taken.
#[inline]
pub(crate) fn accepts(ask: &AskNumbers, rule: Rule, of: &Candidate, first_token: f32) -> bool {
    if rule.lenient || of.in_flight == 0 {
        return true;
    }
    let in_time = first_token <= rule.saturation_seconds;
    let fits = of.kv_capacity <= 0.0 || {
        let needed = ask.uncached_tokens(of.held_blocks) + ask.output_tokens as f32;
        of.kv_tokens + needed <= of.kv_capacity
    };
    in_time && fits
}

/// By how much the first token would come too late at the best candidate, in seconds.
pub(crate) fn shortage_seconds(inputs: &Inputs, costs: &[Cost]) -> f32 {
    let first_tokens = costs.iter().map(|cost| cost.first_token_seconds);
    first_tokens
        .min_by(f32::total_cmp)
        .map_or(0.0, |soonest| soonest - inputs.saturation_seconds)
        .max(0.0)
}
