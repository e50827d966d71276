//! Probes: small requests of the gateway's own to servers that cut answers or turned slow.
//!
//! The picker says when one is due and how long it may take; here it is sent, and read to its end. A
//! probe is a completion of a few tokens, so that it goes the way of the requests that went wrong.
//! It is no request of a client: it is in no log and in no count but its own.

use super::{Endpoint, Pool};
use crate::clock;
use crate::upstream::fetch::Fetcher;
use picker::{PROBE_OUTPUT_TOKENS, PROBE_PROMPT_TOKENS, Probe, Probed};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;

/// Probes under way at a time, over all pools.
const MOST_PROBES: usize = 64;
/// An answer of a few tokens is not larger than this.
const MOST_BYTES: usize = 1 << 20;

/// What became of probes.
#[derive(Debug, Default)]
pub(crate) struct Count {
    whole: AtomicU64,
    failed: AtomicU64,
    untold: AtomicU64,
}

impl Count {
    fn add(&self, probed: Probed) {
        let counter = match probed {
            Probed::Whole => &self.whole,
            Probed::Failed => &self.failed,
            Probed::Untold => &self.untold,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn outcomes(&self) -> [(&'static str, u64); 3] {
        [
            ("whole", self.whole.load(Relaxed)),
            ("failed", self.failed.load(Relaxed)),
            ("untold", self.untold.load(Relaxed)),
        ]
    }
}

/// Sends the probes of a pool that are due now.
pub(crate) fn send_due(pool: &Arc<Pool>, under_way: &mut JoinSet<()>) {
    if !pool.inference || !pool.seen.load().spec.probes || under_way.len() >= MOST_PROBES {
        return;
    }
    let due = pool.state.lock().due_probes(clock::now());
    for probe in due {
        let pool = pool.clone();
        under_way.spawn(async move {
            let probed = send(&pool, probe).await;
            pool.probes.add(probed);
            pool.act(|state| state.probed(clock::now(), probe.endpoint, probed));
        });
    }
}

async fn send(pool: &Pool, probe: Probe) -> Probed {
    let Some(endpoint) = pool.endpoint(probe.endpoint) else {
        return Probed::Untold;
    };
    let Some(request) = request(&endpoint) else {
        return Probed::Untold;
    };
    let mut fetcher = Fetcher::new(endpoint.clone());
    let deadline = Duration::from_secs_f32(probe.seconds.clamp(0.0, 3600.0));
    let sent = fetcher.post("/v1/completions", &request, MOST_BYTES, deadline);
    tokio::select! {
        answer = sent => match answer {
            Ok((status, body)) => judge(status, body),
            Err(_) => Probed::Failed,
        },
        () = endpoint.stop.cancelled() => Probed::Untold,
    }
}

/// A completion by a model that the server announces; `None` where there is none to ask for.
fn request(endpoint: &Endpoint) -> Option<String> {
    if endpoint.transport.is_h2 {
        return None;
    }
    let cards = endpoint.announced.cards();
    let is_base = |card: &&llm::ModelCard| card.parent.is_none();
    let card = cards.iter().find(is_base).or(cards.first())?;
    let prompt = "one two ".repeat(PROBE_PROMPT_TOKENS as usize / 2);
    let request = serde_json::json!({
        "model": card.id,
        "prompt": prompt,
        "max_tokens": PROBE_OUTPUT_TOKENS,
        "temperature": 0,
        "stream": true,
    });
    Some(request.to_string())
}

/// An answer that came to its end.
fn judge(status: u16, body: &[u8]) -> Probed {
    match status {
        200..300 => {
            let text = body.trim_ascii_end();
            let is_stream = text.starts_with(b"data:");
            let is_whole = !is_stream || text.ends_with(b"[DONE]");
            if is_whole {
                Probed::Whole
            } else {
                Probed::Failed
            }
        }
        501 => Probed::Untold,
        429 | 500.. => Probed::Failed,
        _ => Probed::Untold,
    }
}
