//! Instructions per request and per SSE chunk, counted by callgrind: the steady measure.
//!
//! Two runs that differ only in their amount of work; the difference is the work. The shorter run then
//! idles until it has lasted as long as the longer one, so that what a proxy does by the clock (timers,
//! scrapes) falls out of the difference, as start and end do.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep};

use super::Bench;
use super::report::{Report, Row};
use crate::child;
use crate::load::Clients;
use crate::peers::Proxy;
use crate::wire::{Shape, Stream};

/// Few enough that callgrind's pace does not change how events come in batches.
const CONNECTIONS: usize = 8;
/// How far above the baseline a ratio may be.
const TOLERANCE: f64 = 1.05;

/// Two amounts of the same work.
#[derive(Debug)]
struct Work {
    measure: &'static str,
    body_bytes: usize,
    /// Requests and SSE chunks per request (0: a plain answer) of each run.
    less: (u64, u32),
    more: (u64, u32),
}

const WORKS: [Work; 3] = [
    Work {
        measure: "instructions per request, 1 KiB",
        body_bytes: 1024,
        less: (500, 0),
        more: (1500, 0),
    },
    Work {
        measure: "instructions per request, 32 KiB",
        body_bytes: 32 * 1024,
        less: (500, 0),
        more: (1500, 0),
    },
    Work {
        measure: "instructions per SSE chunk",
        body_bytes: 1024,
        less: (CONNECTIONS as u64, 50),
        more: (CONNECTIONS as u64, 250),
    },
];

impl Work {
    /// By how many requests or chunks the two runs differ.
    fn units(&self) -> u64 {
        let of = |(requests, chunks): (u64, u32)| requests * u64::from(chunks.max(1));
        of(self.more) - of(self.less)
    }
}

/// Every proxy against the floor.
pub(super) async fn compare(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    if !child::is_installed("valgrind") {
        bail!("valgrind is not installed: instructions cannot be counted");
    }
    let mut rows = Vec::new();
    for work in &WORKS {
        let floor = work.per_unit(bench, Proxy::Floor).await?;
        for &proxy in &bench.proxies {
            let other = work.per_unit(bench, proxy).await?;
            rows.push(Row::new(work.measure, "instr", proxy, &[(floor, other)]));
        }
    }
    Ok(rows)
}

impl Work {
    async fn per_unit(&self, bench: &Bench, proxy: Proxy) -> anyhow::Result<f64> {
        let what = || format!("{}, {}", self.measure, proxy.name());
        let (more, lasted) = self
            .counted(bench, proxy, self.more, Duration::ZERO)
            .await
            .with_context(what)?;
        let (less, _) = self
            .counted(bench, proxy, self.less, lasted)
            .await
            .with_context(what)?;
        Ok((more as f64 - less as f64) / self.units() as f64)
    }

    /// The process's instructions, and how long it ran before it was told to end.
    async fn counted(
        &self,
        bench: &Bench,
        proxy: Proxy,
        (requests, chunks): (u64, u32),
        at_least: Duration,
    ) -> anyhow::Result<(u64, Duration)> {
        let counts = bench.place.dir.join("callgrind.out");
        let started = Instant::now();
        let mut running = proxy.start(&bench.place, Some(&counts))?;
        running.ready().await?;
        running.open_books().await?;
        let pace = Duration::from_millis(10);
        let shape = Shape {
            body_bytes: self.body_bytes,
            stream: (chunks > 0).then_some(Stream { chunks, pace }),
            text: bench.text,
            python_headers: bench.python_headers,
        };
        let mut clients = Clients::open(running.address, CONNECTIONS).await?;
        clients.run(&shape, requests).await?.demand(requests)?;
        running.settle_log(requests).await?;
        running.settle_counter().await?;
        sleep(at_least.saturating_sub(started.elapsed())).await;
        let lasted = started.elapsed();
        running.end().await?;
        Ok((total(&std::fs::read_to_string(&counts)?)?, lasted))
    }
}

/// All instructions, from callgrind's output file.
fn total(counts: &str) -> anyhow::Result<u64> {
    let line = counts
        .lines()
        .find_map(|line| line.strip_prefix("totals: "));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .context("callgrind wrote no total")
}

/// Compares Penstock's ratios with the committed ones, or writes them.
pub(super) fn judge(report: &Report, baseline: &Path, update: bool) -> anyhow::Result<ExitCode> {
    let penstock = report
        .rows()
        .iter()
        .filter(|row| row.proxy == Proxy::Penstock);
    let found: BTreeMap<String, f64> = penstock
        .map(|row| (row.measure.to_owned(), rounded(row.ratio.median)))
        .collect();
    if update {
        if let Some(dir) = baseline.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(baseline, serde_json::to_string_pretty(&found)? + "\n")?;
        eprintln!("wrote {}", baseline.display());
        return Ok(ExitCode::SUCCESS);
    }
    let text = std::fs::read_to_string(baseline).with_context(|| {
        format!(
            "no baseline in {}: write one with --update-baseline",
            baseline.display()
        )
    })?;
    let faults = above(&found, &serde_json::from_str(&text)?);
    for fault in &faults {
        eprintln!("{fault}");
    }
    Ok(if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Ratios are committed with four digits: less noise in diffs.
fn rounded(ratio: f64) -> f64 {
    (ratio * 1e4).round() / 1e4
}

/// Which of the committed ratios are exceeded by more than the tolerance, or not measured any more.
fn above(found: &BTreeMap<String, f64>, baseline: &BTreeMap<String, f64>) -> Vec<String> {
    let fault = |(measure, &limit): (&String, &f64)| match found.get(measure) {
        None => Some(format!("{measure}: in the baseline, but not measured")),
        Some(&ratio) if ratio <= limit * TOLERANCE => None,
        Some(&ratio) => {
            let percent = (ratio / limit - 1.0) * 100.0;
            Some(format!(
                "{measure}: {ratio:.4} of the floor, {percent:.1} % above {limit:.4}"
            ))
        }
    };
    let mut faults: Vec<String> = baseline.iter().filter_map(fault).collect();
    if baseline.is_empty() {
        faults.push("the baseline is empty".to_owned());
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_may_be_five_percent_above_its_baseline() {
        let ratios = |a: f64, b: f64| BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        let baseline = ratios(0.4, 0.5);
        assert_eq!(above(&ratios(0.41, 0.5), &baseline), Vec::<String>::new());
        assert_eq!(above(&ratios(0.1, 0.1), &baseline), Vec::<String>::new());
        let faults = above(&ratios(0.4, 0.53), &baseline);
        assert_eq!(faults, ["b: 0.5300 of the floor, 6.0 % above 0.5000"]);
        assert_eq!(above(&BTreeMap::new(), &baseline).len(), 2);
        assert_eq!(above(&baseline, &BTreeMap::new()).len(), 1);
    }

    #[test]
    fn reads_callgrinds_total() {
        assert_eq!(
            total("version: 1\nfn=(1)\n1 2\n\ntotals: 123456\n").unwrap(),
            123_456
        );
        assert!(total("version: 1\n").is_err());
    }
}
