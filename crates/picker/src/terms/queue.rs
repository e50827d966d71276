//! Work ahead: how long until the engine begins with this request.
//!
//! Own requests without a first token count with the tokens that must still be computed for them;
//! foreign ones that wait count as a mean request. An engine that reports to be full makes the
//! request wait for a seat as well; both waits pass at the same time, so the longer one counts.

use super::{AskNumbers, Candidate, CostTerm};

#[derive(Debug)]
pub(super) struct Queue;

impl CostTerm for Queue {
    fn name(&self) -> &'static str {
        "queue"
    }

    #[inline]
    fn seconds(&self, ask: &AskNumbers, candidate: &Candidate) -> f32 {
        let foreign_tokens = candidate.foreign_waiting * ask.mean_uncached_tokens;
        let tokens = candidate.ahead_tokens + foreign_tokens;
        let computing = tokens * candidate.rates.prefill_token_seconds;
        computing.max(candidate.seat_seconds)
    }
}
