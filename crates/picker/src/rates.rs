//! How fast endpoints are: learnt online from a stated prior, clamped, with an error that is shown.
//!
//! Two straight lines: seconds to the first token over uncached tokens ahead, seconds per generated
//! token over sequences. A pool learns them once for all members and once for each; a member goes
//! by its own only while these predict it clearly better, so equal servers stay exactly equal in
//! spite of noise. Invariant: every number is finite and within its bounds, whatever was measured.

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

/// A straight line `seconds = base + slope * x`, fitted by recursive least squares with a prior.
///
/// A Kalman filter with a constant state. The spread of each parameter never falls below a tenth of
/// its value, so that changes are followed, and a sample moves the prediction at most fivefold, so
/// that one outlier does little.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    base: f64,
    slope: f64,
    var_base: f64,
    var_slope: f64,
    covariance: f64,
    most_base: f64,
    most_slope: f64,
    floor_seconds: f64,
    error: f32,
    samples: u32,
}

/// Relative spread of the prior: generous, the first samples decide.
const PRIOR_SPREAD: f64 = 2.0;
/// Relative spread below which a parameter never falls.
const LEAST_SPREAD: f64 = 0.1;
/// Relative noise of one measurement.
const NOISE: f64 = 0.2;
/// A sample counts as at most this many times what was predicted, and at least its inverse.
const MOST_SURPRISE: f64 = 5.0;
/// Parameters never fall below this share of their upper bound.
const LEAST_SHARE: f64 = 1e-7;

impl Line {
    fn new(base: f32, slope: f32, floor_seconds: f64) -> Self {
        let (base, slope) = (f64::from(base), f64::from(slope));
        let mut line = Self {
            base,
            slope,
            var_base: 0.0,
            var_slope: 0.0,
            covariance: 0.0,
            most_base: 10.0,
            most_slope: 1.0,
            floor_seconds,
            error: PRIOR_ERROR,
            samples: 0,
        };
        line.widen(PRIOR_SPREAD);
        line
    }

    fn prefill() -> Self {
        let prior = Rates::PRIOR;
        let (base, slope) = (prior.prefill_base_seconds, prior.prefill_token_seconds);
        Self::new(base, slope, PREFILL_FLOOR_SECONDS)
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

    /// Makes each parameter's spread at least `spread` of its value.
    fn widen(&mut self, spread: f64) {
        let floor = |value: f64| (value * spread) * (value * spread);
        self.var_base = self.var_base.max(floor(self.base));
        self.var_slope = self.var_slope.max(floor(self.slope));
    }

    /// Learns that `x` took `seconds`. Both must be finite and not negative.
    fn learn(&mut self, x: f64, seconds: f64) {
        let error = self.relative_error(x, seconds);
        blend(&mut self.error, error);
        self.samples = self.samples.saturating_add(1);
        let predicted = self.predict(x);
        let (least, most) = (predicted / MOST_SURPRISE, predicted * MOST_SURPRISE);
        if seconds < least || seconds > most {
            self.widen(1.0);
        }
        let measured = seconds.clamp(least, most);
        let noise = (NOISE * measured).max(1e-6);
        let with_base = self.var_base + self.covariance * x;
        let with_slope = self.covariance + self.var_slope * x;
        let total = with_base + with_slope * x + noise * noise;
        let (gain_base, gain_slope) = (with_base / total, with_slope / total);
        let surprise = measured - predicted;
        self.base += gain_base * surprise;
        self.slope += gain_slope * surprise;
        self.var_base -= gain_base * with_base;
        self.covariance -= gain_base * with_slope;
        self.var_slope -= gain_slope * with_slope;
        self.bound();
    }

    /// Keeps the parameters within their bounds and the spreads sane.
    fn bound(&mut self) {
        let within = |value: f64, most: f64| {
            if value.is_finite() {
                value.clamp(most * LEAST_SHARE, most)
            } else {
                most
            }
        };
        self.base = within(self.base, self.most_base);
        self.slope = within(self.slope, self.most_slope);
        let spread = |value: f64, most: f64| {
            if value.is_finite() {
                value.clamp(0.0, most * most)
            } else {
                most * most
            }
        };
        self.var_base = spread(self.var_base, self.most_base);
        self.var_slope = spread(self.var_slope, self.most_slope);
        self.widen(LEAST_SPREAD);
        // A covariance beyond the product of the spreads would be no covariance.
        let most = 0.99 * libm::sqrt(self.var_base * self.var_slope);
        let sane = if self.covariance.is_finite() {
            self.covariance
        } else {
            0.0
        };
        self.covariance = sane.clamp(-most, most);
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
}

impl Default for Learnt {
    fn default() -> Self {
        Self {
            own: Speeds::default(),
            shared_prefill_error: PRIOR_ERROR,
            shared_decode_error: PRIOR_ERROR,
            distinct_prefill: false,
            distinct_decode: false,
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

    /// A first token came `seconds` after the dispatch with `tokens` to compute until then.
    /// Returns the relative error of the rates that were gone by.
    pub(crate) fn first_token(&mut self, shared: &mut Speeds, tokens: f32, seconds: f32) -> f32 {
        let (tokens, seconds) = (f64::from(tokens), f64::from(seconds));
        let by_own = self.own.prefill.relative_error(tokens, seconds);
        let by_shared = shared.prefill.relative_error(tokens, seconds);
        blend(&mut self.shared_prefill_error, by_shared);
        let gone_by = if self.distinct_prefill {
            by_own
        } else {
            by_shared
        };
        self.own.prefill.learn(tokens, seconds);
        shared.prefill.learn(tokens, seconds);
        self.own.refresh();
        shared.refresh();
        let (own, pool) = (&self.own.prefill, self.shared_prefill_error);
        self.distinct_prefill = is_distinct(self.distinct_prefill, own, pool);
        gone_by
    }

    /// Tokens came every `seconds` while `sequences` were computed.
    pub(crate) fn decoded(&mut self, shared: &mut Speeds, sequences: f32, seconds: f32) {
        let (sequences, seconds) = (f64::from(sequences), f64::from(seconds));
        blend(
            &mut self.shared_decode_error,
            shared.decode.relative_error(sequences, seconds),
        );
        self.own.decode.learn(sequences, seconds);
        shared.decode.learn(sequences, seconds);
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
