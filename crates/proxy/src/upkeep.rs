//! What is looked after some times a second, whoever asks: waits that are over, probes that are due,
//! and the account of memory.

use crate::live::Shared;
use crate::memory;
use crate::pool::decisions::Decisions;
use crate::pool::probe;
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(100);

/// Does so in all pools until the last request has ended.
pub(crate) async fn run(shared: Arc<Shared>, decisions: Arc<Decisions>) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut probes = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = shared.ended.cancelled() => return,
        }
        let live = shared.live.load();
        for pool in live.all_pools() {
            pool.expire();
            probe::send_due(pool, &mut probes);
        }
        while probes.try_join_next().is_some() {}
        memory::refresh(&live, decisions.bytes(), shared.metrics.bytes());
    }
}
