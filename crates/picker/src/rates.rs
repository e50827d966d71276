//! How fast endpoints are: learnt online from a stated prior, clamped, with an error that is shown.
//!
//! Two straight lines: seconds to the first token over uncached tokens ahead, seconds per generated
//! token over sequences. A pool learns them once for all members and once for each; a member goes
//! by its own only while these predict it clearly better, so equal servers stay exactly equal in
//! spite of noise. Who seems slow gets no requests and so could never show that it is not any more:
//! after a while it is doubted ([`Learnt::doubt`]). Invariant: every number is finite and within
//! its bounds, whatever was measured.

use serde::{Deserialize, Serialize};

/// Speeds that costs are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Seconds to a first token without any work ahead.
    pub prefill_base_seconds: f32,
    /// Seconds per token of prompt that must be computed.
    pub prefill_token_seconds: f32,
    /// Seconds per generated token with one sequence alone.
    pub decode_base_seconds: f32,
    /// Seconds that each further sequence adds to each generated token.
    pub decode_sequence_seconds: f32,
}

impl Rates {
    /// An 8B model on one H100: linear step model fitted to published vLLM measurements.
    pub const PRIOR: Rates = Rates {
        prefill_base_seconds: 5.75e-3,
        prefill_token_seconds: 17.25e-6,
        decode_base_seconds: 5.75e-3,
        decode_sequence_seconds: 6e-6,
    };

    /// The least of each.
    pub(crate) fn least(self, other: Self) -> Self {
        let Self {
            prefill_base_seconds,
            prefill_token_seconds,
            decode_base_seconds,
            decode_sequence_seconds,
        } = other;
        Self {
            prefill_base_seconds: self.prefill_base_seconds.min(prefill_base_seconds),
            prefill_token_seconds: self.prefill_token_seconds.min(prefill_token_seconds),
            decode_base_seconds: self.decode_base_seconds.min(decode_base_seconds),
            decode_sequence_seconds: self.decode_sequence_seconds.min(decode_sequence_seconds),
        }
    }
}

/// Error above which a pool does not trust its predictions.
pub(crate) const UNTRUSTED_ERROR: f32 = 0.5;
/// Error below which it trusts them again.
pub(crate) const TRUSTED_ERROR: f32 = 0.4;

/// The prior's stated error: trusted until evidence speaks against it.
const PRIOR_ERROR: f32 = 0.4;
/// Weight of the newest sample in an error.
const ERROR_WEIGHT: f32 = 0.125;
/// Differences below this many seconds do not matter for a first token.
const PREFILL_FLOOR_SECONDS: f64 = 0.02;
/// Differences below this many seconds do not matter for a generated token.
const DECODE_FLOOR_SECONDS: f64 = 0.002;
/// How much better than the pool's rates, in error, an endpoint's own must predict to be used.
const DISTINCT_BY: f32 = 0.1;
/// How little better they may become before they are dropped again.
const ALIKE_BY: f32 = 0.05;
/// Samples before an endpoint's own rates can be used.
const DISTINCT_SAMPLES: u32 = 8;

/// A straight line `seconds = base + slope * x`, fitted to the latest samples.
///
/// Least squares of `measured / prior(x)` over the prior's two parts, so that short and long
/// requests count alike. What the samples leave open keeps the prior's proportions at the samples'
/// scale: one more sample's worth, so that the two parts can always be told apart. In a prefill,
/// where prompts are alike for long, the slope keeps to them by as much as measurements scatter:
/// noise of short prompts says nothing of long ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    prior_base: f64,
    prior_slope: f64,
    base: f64,
    slope: f64,
    sums: Sums,
    keeps_proportions: bool,
    floor_seconds: f64,
    error: f32,
    samples: u32,
}

/// Fading sums over samples; `p` is the base's share of the prior's seconds at the sample's `x`,
/// `q` the slope's, `r` the measured seconds over the prior's.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Sums {
    n: f64,
    pp: f64,
    pq: f64,
    qq: f64,
    r: f64,
    rp: f64,
    rq: f64,
}

/// Samples' worth that the prior's scale counts: little, the first samples decide.
const PRIOR_WEIGHT: f64 = 0.1;
/// What each sample leaves of the weight of those before.
const MEMORY: f64 = 0.95;
/// What a sample leaves that is less than half or more than twice what was predicted: after a
/// change, what was learnt before is in the way.
const SURPRISED_MEMORY: f64 = 0.75;
/// A sample counts as at most this many times what was predicted, and at least its inverse.
const MOST_SURPRISE: f64 = 5.0;
/// Least slope, relative to the prior's at the samples' scale.
const LEAST_SLOPE: f64 = 0.1;
/// Bounds of each parameter, as multiples of the prior.
const MULTIPLES: (f64, f64) = (1e-3, 1e3);

impl Line {
    fn new(base: f32, slope: f32, floor_seconds: f64) -> Self {
        let (base, slope) = (f64::from(base), f64::from(slope));
        Self {
            prior_base: base,
            prior_slope: slope,
            base,
            slope,
            sums: Sums::default(),
            keeps_proportions: false,
            floor_seconds,
            error: PRIOR_ERROR,
            samples: 0,
        }
    }

    fn prefill() -> Self {
        let prior = Rates::PRIOR;
        let (base, slope) = (prior.prefill_base_seconds, prior.prefill_token_seconds);
        Self {
            keeps_proportions: true,
            ..Self::new(base, slope, PREFILL_FLOOR_SECONDS)
        }
    }

    fn decode() -> Self {
        let prior = Rates::PRIOR;
        let (base, slope) = (prior.decode_base_seconds, prior.decode_sequence_seconds);
        Self::new(base, slope, DECODE_FLOOR_SECONDS)
    }

    fn predict(&self, x: f64) -> f64 {
        self.base + self.slope * x
    }

    fn relative_error(&self, x: f64, seconds: f64) -> f32 {
        let predicted = self.predict(x);
        let scale = predicted.max(seconds).max(self.floor_seconds);
        ((predicted - seconds).abs() / scale) as f32
    }

    /// Learns that `x` took `seconds`, where `error` is the relative error of the prediction.
    fn learn(&mut self, x: f64, seconds: f64, error: f32) {
        // Both are finite if their sum is.
        let sound = x >= 0.0 && seconds >= 0.0 && x + seconds <= f64::MAX;
        if !sound {
            return;
        }
        blend(&mut self.error, error);
        self.samples = self.samples.saturating_add(1);
        let predicted = self.predict(x);
        let measured = seconds.clamp(predicted / MOST_SURPRISE, predicted * MOST_SURPRISE);
        let prior = self.prior_base + self.prior_slope * x;
        let surprised = measured > 2.0 * predicted || 2.0 * measured < predicted;
        self.sums
            .fade(if surprised { SURPRISED_MEMORY } else { MEMORY });
        self.sums.add(self.prior_base / prior, measured / prior);
        let scatter = if self.keeps_proportions {
            f64::from(self.error)
        } else {
            0.0
        };
        let (base, slope) = self.sums.solve(scatter);
        self.base = base * self.prior_base;
        self.slope = slope * self.prior_slope;
    }
}

impl Sums {
    fn fade(&mut self, memory: f64) {
        let Self {
            n,
            pp,
            pq,
            qq,
            r,
            rp,
            rq,
        } = self;
        for sum in [n, pp, pq, qq, r, rp, rq] {
            *sum *= memory;
        }
    }

    fn add(&mut self, p: f64, r: f64) {
        let q = 1.0 - p;
        self.n += 1.0;
        self.pp += p * p;
        self.pq += p * q;
        self.qq += q * q;
        self.r += r;
        self.rp += r * p;
        self.rq += r * q;
    }

    /// Base and slope as multiples of the prior. `scatter` is the relative error of a measurement,
    /// where the slope is expected to be the prior's at the samples' scale, give or take as much.
    fn solve(&self, scatter: f64) -> (f64, f64) {
        let within = |multiple: f64| {
            if multiple.is_finite() {
                multiple.clamp(MULTIPLES.0, MULTIPLES.1)
            } else {
                1.0
            }
        };
        let scale = (self.r + PRIOR_WEIGHT) / (self.n + PRIOR_WEIGHT);
        let more_p = self.pp / self.n;
        let more_q = (self.qq / self.n).max(scatter * scatter);
        let (pp, qq) = (self.pp + more_p, self.qq + more_q);
        let (rp, rq) = (self.rp + more_p * scale, self.rq + more_q * scale);
        let determinant = pp * qq - self.pq * self.pq;
        if pp < 1e-12 || qq < 1e-12 || determinant < 1e-12 * pp * qq {
            return (within(scale), within(scale));
        }
        let base = within((rp * qq - rq * self.pq) / determinant);
        // Short requests alone say little of the slope: noise may not make long ones free.
        let slope = within((rq - base * self.pq) / qq).max(within(LEAST_SLOPE * scale));
        // With the slope at a bound the base takes the rest.
        (within((rp - slope * self.pq) / pp), slope)
    }
}

fn blend(error: &mut f32, sample: f32) {
    if sample.is_finite() {
        *error += (sample.clamp(0.0, 1.0) - *error) * ERROR_WEIGHT;
    }
}

/// The two lines of a pool or of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Speeds {
    prefill: Line,
    decode: Line,
    /// The rates of the two lines, in the precision that costs use.
    pub(crate) rates: Rates,
}

impl Default for Speeds {
    fn default() -> Self {
        Self {
            prefill: Line::prefill(),
            decode: Line::decode(),
            rates: Rates::PRIOR,
        }
    }
}

impl Speeds {
    /// Mean relative error of the time to the first token, 0 to 1.
    pub(crate) fn prefill_error(&self) -> f32 {
        self.prefill.error
    }

    /// Mean relative error of the time per generated token, 0 to 1.
    pub(crate) fn decode_error(&self) -> f32 {
        self.decode.error
    }

    /// First tokens that were learnt from.
    pub(crate) fn samples(&self) -> u32 {
        self.prefill.samples
    }

    fn refresh(&mut self) {
        self.rates = Rates {
            prefill_base_seconds: self.prefill.base as f32,
            prefill_token_seconds: self.prefill.slope as f32,
            decode_base_seconds: self.decode.base as f32,
            decode_sequence_seconds: self.decode.slope as f32,
        };
    }
}

/// What is known of one endpoint's speed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Learnt {
    /// From this endpoint's requests alone.
    pub(crate) own: Speeds,
    /// Error of the pool's rates on this endpoint's first tokens.
    shared_prefill_error: f32,
    shared_decode_error: f32,
    distinct_prefill: bool,
    distinct_decode: bool,
    doubted_prefill: bool,
    doubted_decode: bool,
}

impl Default for Learnt {
    fn default() -> Self {
        Self {
            own: Speeds::default(),
            shared_prefill_error: PRIOR_ERROR,
            shared_decode_error: PRIOR_ERROR,
            distinct_prefill: false,
            distinct_decode: false,
            doubted_prefill: false,
            doubted_decode: false,
        }
    }
}

impl Learnt {
    /// The rates to go by: the pool's, or this endpoint's own where they are clearly better.
    pub(crate) fn rates(&self, shared: &Speeds) -> Rates {
        let prefill = if self.distinct_prefill {
            &self.own.rates
        } else {
            &shared.rates
        };
        let decode = if self.distinct_decode {
            &self.own.rates
        } else {
            &shared.rates
        };
        Rates {
            prefill_base_seconds: prefill.prefill_base_seconds,
            prefill_token_seconds: prefill.prefill_token_seconds,
            decode_base_seconds: decode.decode_base_seconds,
            decode_sequence_seconds: decode.decode_sequence_seconds,
        }
    }

    /// A request goes there after long without any: if what it shows fits the pool's rates better,
    /// or it shows nothing and another has to be sent, the own rates were out of date.
    pub(crate) fn doubt(&mut self, shared: &Speeds) {
        if core::mem::replace(&mut self.doubted_prefill, self.distinct_prefill) {
            self.forget_prefill(shared);
        }
        if core::mem::replace(&mut self.doubted_decode, self.distinct_decode) {
            self.forget_decode(shared);
        }
    }

    fn forget_prefill(&mut self, shared: &Speeds) {
        self.own.prefill = shared.prefill;
        self.shared_prefill_error = shared.prefill.error;
        (self.distinct_prefill, self.doubted_prefill) = (false, false);
    }

    fn forget_decode(&mut self, shared: &Speeds) {
        self.own.decode = shared.decode;
        self.shared_decode_error = shared.decode.error;
        (self.distinct_decode, self.doubted_decode) = (false, false);
    }

    /// A first token came `seconds` after the dispatch with `tokens` to compute until then.
    /// Returns the relative error of the rates that were gone by.
    pub(crate) fn first_token(&mut self, shared: &mut Speeds, tokens: f32, seconds: f32) -> f32 {
        let (tokens, seconds) = (f64::from(tokens), f64::from(seconds));
        let mut by_own = self.own.prefill.relative_error(tokens, seconds);
        let by_shared = shared.prefill.relative_error(tokens, seconds);
        let gone_by = if self.distinct_prefill && !self.doubted_prefill {
            by_own
        } else {
            by_shared
        };
        if core::mem::take(&mut self.doubted_prefill) && by_shared < by_own {
            self.forget_prefill(shared);
            by_own = by_shared;
        }
        blend(&mut self.shared_prefill_error, by_shared);
        self.own.prefill.learn(tokens, seconds, by_own);
        shared.prefill.learn(tokens, seconds, by_shared);
        self.own.refresh();
        shared.refresh();
        let (own, pool) = (&self.own.prefill, self.shared_prefill_error);
        self.distinct_prefill = is_distinct(self.distinct_prefill, own, pool);
        gone_by
    }

    /// Tokens came every `seconds` while `sequences` were computed.
    pub(crate) fn decoded(&mut self, shared: &mut Speeds, sequences: f32, seconds: f32) {
        let (sequences, seconds) = (f64::from(sequences), f64::from(seconds));
        let mut by_own = self.own.decode.relative_error(sequences, seconds);
        let by_shared = shared.decode.relative_error(sequences, seconds);
        if core::mem::take(&mut self.doubted_decode) && by_shared < by_own {
            self.forget_decode(shared);
            by_own = by_shared;
        }
        blend(&mut self.shared_decode_error, by_shared);
        self.own.decode.learn(sequences, seconds, by_own);
        shared.decode.learn(sequences, seconds, by_shared);
        self.own.refresh();
        shared.refresh();
        let (own, pool) = (&self.own.decode, self.shared_decode_error);
        self.distinct_decode = is_distinct(self.distinct_decode, own, pool);
    }
}

fn is_distinct(was: bool, own: &Line, shared_error: f32) -> bool {
    let better_by = shared_error - own.error;
    let needed = if was { ALIKE_BY } else { DISTINCT_BY };
    own.samples >= DISTINCT_SAMPLES && better_by > needed
}

/// Whether a pool goes by its predictions, with a gap so that it does not flip back and forth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Trust {
    /// Mean relative error of the predicted times to the first token, 0 to 1.
    pub(crate) error: f32,
    /// The predictions are gone by.
    pub(crate) trusted: bool,
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            error: PRIOR_ERROR,
            trusted: true,
        }
    }
}

impl Trust {
    /// Takes in the relative error of one prediction.
    pub(crate) fn sample(&mut self, relative_error: f32) {
        blend(&mut self.error, relative_error);
        let bound = if self.trusted {
            UNTRUSTED_ERROR
        } else {
            TRUSTED_ERROR
        };
        self.trusted = self.error <= bound;
    }
}

#[cfg(test)]
mod tests;
