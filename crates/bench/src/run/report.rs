//! Figures as medians with their range, ratios of the same pair, for people and for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::peers::Proxy;

/// The floor may cost at most this much of nginx's CPU per small request, or it is no floor.
const FLOOR_TO_NGINX_MAX: f64 = 1.15;

/// What one run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
    /// CPU per small request of the floor in ratio to nginx, where nginx took part.
    #[serde(skip_serializing_if = "Option::is_none")]
    floor_to_nginx: Option<f64>,
}

/// One measure of one proxy.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) measure: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) proxy: Proxy,
    pub(crate) value: Spread,
    pub(crate) floor: Spread,
    /// Proxy to floor, of the two samples of each pair.
    pub(crate) ratio: Spread,
    /// How long the proxy's threads waited for the core while others had it, in percent of the sample:
    /// how disturbed the samples were. CPU measures only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waited_percent: Option<Spread>,
}

/// Median and range of some samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) samples: usize,
}

impl Spread {
    /// Of no samples at all it is all zeros.
    pub(crate) fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        let last = sorted.len().saturating_sub(1);
        Self {
            median: f64::midpoint(at(last / 2), at(last - last / 2)),
            min: at(0),
            max: at(last),
            samples: sorted.len(),
        }
    }
}

impl Row {
    /// From pairs of (floor, proxy).
    pub(crate) fn new(
        measure: &'static str,
        unit: &'static str,
        proxy: Proxy,
        pairs: &[(f64, f64)],
    ) -> Self {
        let spread = |of: fn(&(f64, f64)) -> f64| {
            let samples: Vec<f64> = pairs.iter().map(of).collect();
            Spread::of(&samples)
        };
        Self {
            measure,
            unit,
            proxy,
            value: spread(|pair| pair.1),
            floor: spread(|pair| pair.0),
            ratio: spread(|pair| pair.1 / pair.0),
            waited_percent: None,
        }
    }
}

impl Report {
    pub(crate) fn new(rows: Vec<Row>) -> Self {
        let small = |row: &&Row| row.measure == super::cpu::SMALL.measure;
        let nginx = rows
            .iter()
            .filter(small)
            .find(|row| row.proxy == Proxy::Nginx);
        let floor_to_nginx = nginx.map(|row| 1.0 / row.ratio.median);
        Self {
            rows,
            floor_to_nginx,
        }
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// A table for people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{:<30} {:<9} {:>16} {:>10}   {:<22} {:>3}  {}\n",
            "measure", "proxy", "value", "floor", "ratio (min-max)", "n", "waited"
        );
        for row in &self.rows {
            let ratio = format!(
                "x {:.2} ({:.2}-{:.2})",
                row.ratio.median, row.ratio.min, row.ratio.max
            );
            let waited = row
                .waited_percent
                .map(|waited| format!("{:.1} %", waited.median));
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:<30} {:<9} {:>16} {:>10}   {ratio:<22} {:>3}  {}",
                row.measure,
                row.proxy.name(),
                format!("{} {}", short(row.value.median), row.unit),
                short(row.floor.median),
                row.ratio.samples,
                waited.unwrap_or_default()
            );
        }
        if let Some(ratio) = self.floor_to_nginx {
            let verdict = if ratio <= FLOOR_TO_NGINX_MAX {
                "ok"
            } else {
                "THE FLOOR IS SLOW"
            };
            let _ = writeln!(
                text,
                "floor / nginx at 1 KiB: {ratio:.2}, may be {FLOOR_TO_NGINX_MAX}: {verdict}"
            );
        }
        text
    }
}

/// Three or more digits that count.
fn short(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two() {
        for (samples, median) in [
            (&[][..], 0.0),
            (&[3.0], 3.0),
            (&[9.0, 1.0], 5.0),
            (&[9.0, 1.0, 2.0], 2.0),
            (&[4.0, 1.0, 9.0, 2.0], 3.0),
        ] {
            assert_eq!(Spread::of(samples).median, median, "{samples:?}");
        }
        let spread = Spread::of(&[4.0, 1.0, 9.0, 2.0]);
        assert_eq!((spread.min, spread.max, spread.samples), (1.0, 9.0, 4));
    }

    #[test]
    fn a_ratio_is_taken_within_its_pair() {
        let row = Row::new(
            "m",
            "us",
            Proxy::Nginx,
            &[(10.0, 20.0), (100.0, 100.0), (1.0, 4.0)],
        );
        assert_eq!(
            (row.ratio.median, row.ratio.min, row.ratio.max),
            (2.0, 1.0, 4.0)
        );
        assert_eq!((row.value.median, row.floor.median), (20.0, 10.0));
    }

    #[test]
    fn a_floor_slower_than_nginx_is_said() {
        for (nginx, verdict) in [(10.0, ": ok"), (8.0, "SLOW")] {
            let row = Row::new(
                super::super::cpu::SMALL.measure,
                "us",
                Proxy::Nginx,
                &[(10.0, nginx)],
            );
            let text = Report::new(vec![row]).text();
            assert!(text.contains(verdict), "{text}");
        }
    }
}
