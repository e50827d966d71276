//! What a drill measures: printed for `just promises`, which runs the drills at full length.

use std::time::Duration;

/// How often a drill repeats: in every run of the tests, or when the promises are measured.
pub(crate) fn promised(usually: usize, in_full: usize) -> usize {
    if std::env::var_os("PENSTOCK_PROMISES").is_some() {
        in_full
    } else {
        usually
    }
}

/// One line that the table in `docs/promises.md` is made from.
#[expect(
    clippy::print_stdout,
    reason = "the line is for whoever runs the drills"
)]
pub(crate) fn measured(name: &str, value: f64) {
    println!("measured: {name} {value:.3}");
}

/// The smallest value that this share of all does not exceed, in percent.
pub(crate) fn percentile(all: &mut [Duration], percent: f64) -> Duration {
    all.sort();
    let at = (all.len() as f64 * percent / 100.0).ceil() as usize;
    all[at.clamp(1, all.len()) - 1]
}
