//! Moments, as the picker sees them: microseconds since the process started.
//!
//! The picker never reads a clock; whoever calls it says what time it is. A moment earlier than one
//! that was seen before is taken as "no time has passed", never as an error.

use core::ops::Add;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// A moment, in microseconds since the process started.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Micros(pub u64);

impl Micros {
    /// Seconds from `earlier` to this moment; 0 when `earlier` is later.
    pub fn seconds_since(self, earlier: Micros) -> f32 {
        // Converting a signed number takes one instruction.
        let micros = self.0.saturating_sub(earlier.0).cast_signed();
        micros.max(0) as f32 * 1e-6
    }

    /// This moment moved later by `seconds`, which is taken as 0 when negative or not finite.
    pub fn plus_seconds(self, seconds: f32) -> Micros {
        let seconds = if seconds.is_finite() {
            seconds.max(0.0)
        } else {
            0.0
        };
        Micros(self.0.saturating_add((f64::from(seconds) * 1e6) as u64))
    }
}

impl Add<Duration> for Micros {
    type Output = Micros;

    fn add(self, later: Duration) -> Micros {
        let micros = u64::try_from(later.as_micros()).unwrap_or(u64::MAX);
        Micros(self.0.saturating_add(micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards() {
        assert_eq!(Micros(5).seconds_since(Micros(9)), 0.0);
        assert_eq!(Micros(2_500_000).seconds_since(Micros(500_000)), 2.0);
        assert_eq!(Micros(7).plus_seconds(f32::NAN), Micros(7));
        assert_eq!(Micros(7).plus_seconds(0.5), Micros(500_007));
        assert_eq!(Micros(1) + Duration::from_millis(2), Micros(2_001));
        assert_eq!(Micros(u64::MAX) + Duration::MAX, Micros(u64::MAX));
    }
}
