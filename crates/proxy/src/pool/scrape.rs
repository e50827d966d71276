//! What servers say of themselves: `/metrics` often, `/v1/models` now and then.
//!
//! Own dispatches are the primary load signal; scrapes correct them and show foreign load. A
//! server with work is asked every [`BUSY`], a quiet one or one that refuses connections every
//! [`QUIET`], one that fails or has no metrics more and more seldom. A failed scrape is told to the
//! picker as such: it never reads as an idle server. Servers have turns, so that a few are asked at
//! once: waking for each alone costs more than asking it.

use super::{Endpoint, Pool, models};
use crate::clock;
use crate::upstream::fetch::Fetcher;
use llm::EngineReport;
use picker::{Micros, Observation, Report};
use std::io;
use std::sync::Arc;
use std::time::Duration;

const BUSY: Duration = Duration::from_millis(200);
const QUIET: Duration = Duration::from_secs(1);
const MOST_PATIENT: Duration = Duration::from_secs(10);
const MODELS_EVERY: Duration = Duration::from_secs(10);
const DEADLINE: Duration = Duration::from_secs(1);
/// So many servers of a pool are asked at once, and there are so many turns in [`BUSY`].
const AT_ONCE: u32 = 8;
const TURNS: u32 = 8;
/// SGLang's busy page has 90 kB.
const MOST_BYTES: usize = 4 << 20;
/// Of prompt text, roughly: turns an engine's capacity in tokens into blocks of text.
const BYTES_PER_TOKEN: u64 = 4;

/// Follows one endpoint until it leaves the pool.
pub(crate) async fn watch(pool: Arc<Pool>, endpoint: Arc<Endpoint>) {
    tokio::select! {
        () = follow(&pool, &endpoint) => {}
        () = endpoint.stop.cancelled() => {}
    }
}

async fn follow(pool: &Arc<Pool>, endpoint: &Arc<Endpoint>) {
    let mut fetcher = Fetcher::new(endpoint.clone());
    let mut report = EngineReport::default();
    let mut failures: u32 = 0;
    let mut models_due = clock::now();
    loop {
        if clock::now() >= models_due {
            let asked = models::refresh(pool, endpoint, &mut fetcher).await;
            let again = if asked.is_ok() { MODELS_EVERY } else { QUIET };
            models_due = clock::now() + again;
        }
        let scraped = scrape(&mut fetcher, &mut report).await;
        failures = if scraped == Scraped::Report {
            0
        } else {
            failures.saturating_add(1)
        };
        let observation = if scraped == Scraped::Report {
            Observation::Report(plain(&report))
        } else {
            Observation::ScrapeFailed
        };
        match scraped {
            Scraped::Report | Scraped::NoReport => endpoint.reach.found(),
            Scraped::Refused => endpoint.reach.refused(),
            Scraped::Failed => {}
        }
        let busy = pool.observe(endpoint, observation);
        let pause = match failures {
            0 if busy => BUSY,
            0..=3 => QUIET,
            _ if scraped == Scraped::Refused => QUIET,
            _ => (QUIET * failures.min(10)).min(MOST_PATIENT),
        };
        let due = turn(clock::now() + pause, endpoint.id.slot);
        tokio::time::sleep_until(clock::instant(due)).await;
    }
}

/// The turn of a server that is nearest to `wanted`.
fn turn(wanted: Micros, slot: u32) -> Micros {
    let round = BUSY.as_micros() as u64;
    let own = u64::from(slot / AT_ONCE % TURNS) * round / u64::from(TURNS);
    let rounds = (wanted.0.saturating_sub(own) + round / 2) / round;
    Micros(rounds * round + own)
}

/// How a scrape ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scraped {
    Report,
    /// An answer, but no metrics in it.
    NoReport,
    /// Nobody listens there.
    Refused,
    Failed,
}

async fn scrape(fetcher: &mut Fetcher, report: &mut EngineReport) -> Scraped {
    match fetcher.get("/metrics", MOST_BYTES, DEADLINE).await {
        Ok((200, body)) if llm::scan_metrics(body, report).is_ok() && tells_load(report) => {
            Scraped::Report
        }
        Ok(_) => Scraped::NoReport,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Scraped::Refused,
        Err(_) => Scraped::Failed,
    }
}

/// A page that names no load, such as one whose metrics were renamed, is silence, not idleness.
fn tells_load(report: &EngineReport) -> bool {
    report.running.is_some() || report.waiting.is_some() || report.kv_used.is_some()
}

/// The engine's report in the picker's terms.
fn plain(report: &EngineReport) -> Report {
    let capacity = match (report.block_tokens, report.kv_blocks) {
        (Some(tokens), Some(blocks)) => Some(u64::from(tokens) * u64::from(blocks)),
        _ => None,
    };
    Report {
        running: report.running,
        waiting: report.waiting,
        kv_used: report.kv_used,
        kv_tokens: capacity,
        adapters_running: report.adapters_running.iter().map(str::to_owned).collect(),
        adapters_waiting: report.adapters_waiting.iter().map(str::to_owned).collect(),
        max_adapters: report.max_adapters,
    }
}

impl Pool {
    /// Takes in what a server said; tells whether it has work.
    fn observe(self: &Arc<Self>, endpoint: &Endpoint, observation: Observation) -> bool {
        if let Observation::Report(Report {
            kv_tokens: Some(tokens),
            ..
        }) = &observation
        {
            let blocks = tokens.saturating_mul(BYTES_PER_TOKEN) / llm::BLOCK_BYTES as u64;
            self.prefixes
                .write()
                .set_capacity(endpoint.id, blocks.min(u64::from(u32::MAX)) as u32);
        }
        let mut busy = false;
        self.act(|state| {
            let wakes = state.observe(clock::now(), endpoint.id, observation);
            busy = state.in_flight(endpoint.id) > 0;
            wakes
        });
        busy
    }

    /// Tells the picker which models and adapters a server announces.
    pub(super) fn announce(self: &Arc<Self>, endpoint: &Endpoint) {
        let announced = endpoint
            .announced
            .cards()
            .iter()
            .map(|card| picker::Announced {
                id: card.id.clone(),
                is_adapter: card.parent.is_some(),
            })
            .collect();
        self.act(|state| state.observe(clock::now(), endpoint.id, Observation::Models(announced)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_near_what_is_wanted_shared_by_a_few_and_spread() {
        for slot in 0..200 {
            for wanted in (1_000_000..1_400_000).step_by(7_000) {
                let due = turn(Micros(wanted), slot);
                assert!(due.0.abs_diff(wanted) <= BUSY.as_micros() as u64 / 2);
                assert_eq!(due, turn(due, slot));
            }
        }
        let at = |slot| turn(Micros(1_000_000), slot);
        assert_eq!(at(0), at(7));
        let mut all: Vec<Micros> = (0..64).map(at).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 8);
    }
}
