//! When an endpoint has too much to do for one more request, by our own accounting.
//!
//! It has when the first token would come too late, or when its KV cache cannot hold the request.
//! An endpoint without own requests in flight always accepts: waiting for it would free nothing.

use crate::decision::{Basis, Row, Table};
use crate::terms::{self, Candidate, TERMS};

/// Predicted seconds to the first token.
pub(crate) fn first_token_seconds(seconds: &[f32; TERMS.len()]) -> f32 {
    let before_first = [terms::QUEUE, terms::PREFILL, terms::ADAPTER];
    before_first
        .iter()
        .filter_map(|index| seconds.get(*index))
        .sum()
}

/// Whether the endpoint takes one more request. A request that tries out an ejected endpoint is
/// always taken.
pub(crate) fn accepts(table: &Table, candidate: &Candidate, seconds: &[f32; TERMS.len()]) -> bool {
    if table.basis == Basis::Requests || table.trial || candidate.in_flight == 0 {
        return true;
    }
    let in_time = first_token_seconds(seconds) <= table.saturation_seconds;
    let ask = &table.ask;
    let needed = ask.uncached_tokens(candidate.held_blocks) + ask.output_tokens as f32;
    let fits =
        candidate.kv_capacity <= 0.0 || candidate.kv_tokens + needed <= candidate.kv_capacity;
    in_time && fits
}

/// By how much the first token would come too late at the best candidate, in seconds.
pub(crate) fn shortage_seconds(table: &Table) -> f32 {
    let late = |row: &Row| first_token_seconds(&row.seconds) - table.saturation_seconds;
    table
        .rows
        .iter()
        .map(late)
        .min_by(f32::total_cmp)
        .unwrap_or(0.0)
        .max(0.0)
}
