//! The choice: what each candidate costs, and who wins.
//!
//! Both functions read nothing but the inputs, so that a recorded choice can be made again. Equal
//! costs go to the endpoint with fewer requests, then to the less used target, then by turn. How a
//! long list of members is narrowed before is in `pick/narrow.rs`.

pub(crate) mod narrow;

use crate::decision::Basis;
use crate::inputs::Inputs;
use crate::rates::Rates;
use crate::saturation;
use crate::terms::{self, ADAPTER, AskNumbers, Candidate, PREFILL, QUEUE, TERMS};

/// Costs nearer than this, in seconds, are equal: less than one more token in one more sequence.
const EQUAL_SECONDS: f32 = 1e-6;
/// The same relative to the cost, for sums so large that their last digits are noise.
const EQUAL_SHARE: f32 = 1e-6;

/// What candidates are judged by, beside the request's numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    basis: Basis,
    pub(crate) saturation_seconds: f32,
    /// Everybody accepts.
    pub(crate) lenient: bool,
}

impl Rule {
    fn of(inputs: &Inputs) -> Self {
        Self {
            basis: inputs.basis,
            saturation_seconds: inputs.saturation_seconds,
            lenient: inputs.basis == Basis::Requests || inputs.trial || inputs.assigned,
        }
    }
}

/// What one candidate costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    /// What is compared: seconds, or requests with [`Basis::Requests`].
    pub(crate) total: f32,
    /// Seconds to the first token beside the load of an adapter.
    pub(crate) prefill_seconds: f32,
    /// Seconds to the first token.
    pub(crate) first_token_seconds: f32,
    /// It takes one more request.
    pub(crate) accepts: bool,
}

/// Writes what each candidate costs to `costs`.
pub(crate) fn evaluate(inputs: &Inputs, costs: &mut Vec<Cost>) {
    let (ask, rule) = (inputs.ask, Rule::of(inputs));
    costs.clear();
    costs.extend(inputs.candidates.iter().map(|of| cost(&ask, rule, of)));
}

#[inline]
fn cost(ask: &AskNumbers, rule: Rule, of: &Candidate) -> Cost {
    let seconds: [f32; TERMS.len()] = terms::seconds(ask, of);
    let [prefill_seconds, adapter] = [seconds[QUEUE] + seconds[PREFILL], seconds[ADAPTER]];
    let first_token_seconds = prefill_seconds + adapter;
    let total = match rule.basis {
        Basis::Seconds => seconds.iter().sum(),
        Basis::Requests => of.in_flight as f32,
        Basis::TokensInFlight => tokens_in_flight(ask, of) + adapter,
    };
    Cost {
        total,
        prefill_seconds,
        first_token_seconds,
        accepts: saturation::accepts(ask, rule, of, first_token_seconds),
    }
}

/// Seconds to compute all tokens in flight at the stated speed.
fn tokens_in_flight(ask: &AskNumbers, of: &Candidate) -> f32 {
    let foreign = of.foreign_waiting * ask.mean_uncached_tokens;
    let own = ask.uncached_tokens(of.held_blocks);
    // Every sequence computes one token a step.
    let tokens = of.ahead_tokens + foreign + own + of.sequences();
    tokens * Rates::PRIOR.prefill_token_seconds
}

/// Index of the winner.
pub(crate) fn choose(inputs: &Inputs, costs: &[Cost]) -> Option<u32> {
    best(inputs, costs, |_| true)
}

/// Index of the best candidate of another endpoint than the winner's.
pub(crate) fn second(inputs: &Inputs, costs: &[Cost], winner: u32) -> Option<u32> {
    let won = inputs.candidates.get(winner as usize)?.endpoint;
    best(inputs, costs, |candidate| candidate.endpoint != won)
}

#[inline]
fn best(inputs: &Inputs, costs: &[Cost], among: impl Fn(&Candidate) -> bool) -> Option<u32> {
    let candidates = inputs.candidates.as_slice();
    let mut least = f32::INFINITY;
    for (cost, candidate) in costs.iter().zip(candidates) {
        if cost.accepts && cost.total < least && among(candidate) {
            least = cost.total;
        }
    }
    let equal = least + EQUAL_SECONDS + least * EQUAL_SHARE;
    let count = candidates.len().max(1);
    let first = inputs.turn as usize % count;
    let mut best = None;
    let mut best_key = (u32::MAX, u32::MAX, usize::MAX);
    for (at, (cost, candidate)) in costs.iter().zip(candidates).enumerate() {
        if cost.total <= equal && cost.accepts && among(candidate) {
            let turn = at + if at >= first { 0 } else { count } - first;
            let key = (candidate.in_flight, candidate.target_excess, turn);
            if key < best_key {
                (best, best_key) = (Some(at as u32), key);
            }
        }
    }
    best
}
