//! Memory per idle stream, memory at start, and the time from start to the first answer.
//!
//! Every sample is a fresh process: memory that a busier past left behind would hide what a stream takes.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Bench;
use super::report::Row;
use crate::idle;
use crate::peers::Proxy;
use crate::process::Memory;

/// Memory hardly scatters.
const IDLE_SAMPLES: usize = 3;

/// Resident memory per open idle stream.
pub(super) async fn idle_streams(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &proxy in &bench.proxies {
        let mut pairs = Vec::new();
        for _ in 0..IDLE_SAMPLES {
            let floor = one_idle(bench, Proxy::Floor).await?;
            pairs.push((floor, one_idle(bench, proxy).await?));
        }
        rows.push(Row::new("memory per idle stream", "KiB", proxy, &pairs));
    }
    Ok(rows)
}

async fn one_idle(bench: &Bench, proxy: Proxy) -> anyhow::Result<f64> {
    let mut running = proxy.start(&bench.place, None)?;
    running.ready().await?;
    idle::kib_per_stream(running.address, running.pid(), bench.idle_streams).await
}

/// What a process needs before it has done anything.
#[derive(Clone, Copy, Debug)]
struct Start {
    first_answer_ms: f64,
    anonymous_mib: f64,
}

/// Time to the first answer, and anonymous memory at rest after it.
pub(super) async fn start(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &proxy in &bench.proxies {
        let (mut times, mut sizes) = (Vec::new(), Vec::new());
        for _ in 0..bench.pairs {
            let floor = one_start(bench, Proxy::Floor).await?;
            let other = one_start(bench, proxy).await?;
            times.push((floor.first_answer_ms, other.first_answer_ms));
            sizes.push((floor.anonymous_mib, other.anonymous_mib));
        }
        rows.push(Row::new("start to first answer", "ms", proxy, &times));
        rows.push(Row::new("anonymous memory at start", "MiB", proxy, &sizes));
    }
    Ok(rows)
}

async fn one_start(bench: &Bench, proxy: Proxy) -> anyhow::Result<Start> {
    let started = Instant::now();
    let mut running = proxy.start(&bench.place, None)?;
    running.ready().await?;
    let first_answer_ms = started.elapsed().as_secs_f64() * 1000.0;
    sleep(Duration::from_millis(300)).await;
    let anonymous_mib = Memory::of(running.pid())?.anonymous_kib as f64 / 1024.0;
    Ok(Start {
        first_answer_ms,
        anonymous_mib,
    })
}
