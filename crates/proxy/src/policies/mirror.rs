//! RequestMirror: copies of requests go to other backends, whose answers nobody reads.
//!
//! A copy never delays or fails the request it is made of. What copies may hold and how many of
//! them may be under way is bounded per worker, and by the account of memory; beyond that they are dropped and counted.

use super::Place;
use crate::exchange::Exchange;
use crate::limits::Limits;
use crate::live::Shared;
use crate::memory::{Charge, Use};
use crate::pool::lease::{Lease, Lent};
use crate::pool::{Endpoint, Pool, Step};
use crate::upstream::Upstream;
use crate::worker::Local;
use config::Mirror;
use http1::{BodyReader, Framing, Parsed, ResponseHead};
use picker::{Ask, Finished, Held, Outcome};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Copies under way at a time, per worker.
const MOST_COPIES: usize = 256;
/// Bytes that copies under way may hold, per worker.
const MOST_BYTES: usize = 32 << 20;
/// An answer is read for so long, then its connection is closed.
const MOST_TIME: Duration = Duration::from_secs(60);

/// A request to be sent again.
struct Duplicate {
    head: Vec<u8>,
    body: Vec<u8>,
    is_head: bool,
    local: Rc<Local>,
    _charge: Charge,
}

impl Duplicate {
    fn bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

impl Drop for Duplicate {
    fn drop(&mut self) {
        let held = &self.local.mirrored;
        held.set(held.get().saturating_sub(self.bytes()));
    }
}

/// Sends the copies that the mirrors ask for.
pub(crate) fn send(mirrors: &[Mirror], x: &Exchange, place: Place<'_>) {
    for mirror in mirrors {
        if x.upgrades || !mirror.takes(place.local.draw()) {
            continue;
        }
        let counted = &place.local.metrics.counted;
        let pool = place.live.backend(&mirror.target);
        match pool.and_then(|pool| start(&pool, x, place)) {
            Some(()) => counted.mirrored.fetch_add(1, Relaxed),
            None => counted.mirrors_dropped.fetch_add(1, Relaxed),
        };
    }
}

/// `None`: nobody takes it, or too much is under way.
fn start(pool: &Arc<Pool>, x: &Exchange, place: Place<'_>) -> Option<()> {
    let local = place.local.me.upgrade()?;
    let body = x.body.bytes();
    if local.mirrors.len() >= MOST_COPIES || local.mirrored.get() + body.len() > MOST_BYTES {
        return None;
    }
    let mut charge = Charge::none(Use::Bodies);
    charge.admit(body.len()).ok()?;
    let seen = pool.seen();
    let Step::Go(lease, _) = pool.arrive(&ask(x), &seen) else {
        return None;
    };
    let mut lease = lease.own();
    let endpoint = lease.take_endpoint()?;
    let mut head = Vec::new();
    let framing = match x.head.framing() {
        Framing::None => Framing::None,
        _ => Framing::Length(body.len() as u64),
    };
    x.head.write(framing, &mut head);
    let duplicate = Duplicate {
        head,
        body: body.to_vec(),
        is_head: x.head.method() == "HEAD",
        local,
        _charge: charge,
    };
    let held = &place.local.mirrored;
    held.set(held.get() + duplicate.bytes());
    let shared = place.shared.clone();
    let sending = deliver(duplicate, shared, lease, endpoint);
    place.local.mirrors.spawn_local(sending);
    Some(())
}

fn ask(x: &Exchange) -> Ask<'_> {
    static NOTHING_HELD: std::sync::LazyLock<Held> = std::sync::LazyLock::new(Held::default);
    let peek = x.peek.as_ref();
    Ask {
        model: &x.model,
        targets: &[],
        prompt_tokens: llm::estimate_tokens(peek.map_or(0, llm::Peek::prompt_bytes)),
        max_tokens: peek.and_then(|peek| peek.max_tokens),
        held: &NOTHING_HELD,
        blocks: 0,
        // Copies give way to requests that somebody waits for.
        priority: -1,
        body_bytes: x.body.bytes().len() as u32,
        exclude: &[],
        subsets: picker::Subsets::NONE,
        is_retry: true,
        streams: false,
    }
}

async fn deliver(
    duplicate: Duplicate,
    shared: Arc<Shared>,
    lease: Lease<'static>,
    endpoint: Lent<'static, Endpoint>,
) {
    let sending = exchange(&duplicate, &shared.limits, &endpoint);
    let done = tokio::select! {
        done = tokio::time::timeout(MOST_TIME, sending) => done,
        () = shared.stop.cancelled() => return,
    };
    match done {
        Ok(Ok(_)) => lease.settle(Outcome {
            result: Finished::Complete,
            prompt_tokens: 0,
            cached_tokens: None,
            completion_tokens: 0,
        }),
        Ok(Err(error)) => tracing::debug!(endpoint = %endpoint.name, %error, "a mirror failed"),
        Err(_) => tracing::debug!(endpoint = %endpoint.name, "a mirror took too long"),
    }
}

async fn exchange(duplicate: &Duplicate, limits: &Limits, endpoint: &Endpoint) -> io::Result<()> {
    let local = &duplicate.local;
    if let Some(kept) = Upstream::kept(local, endpoint) {
        // A kept connection may be closed by now; then a new one is tried.
        if once(kept, duplicate, limits, endpoint).await.is_ok() {
            return Ok(());
        }
    }
    let opened = Upstream::open(local, endpoint, limits, false).await;
    let opened = opened.map_err(|failure| io::Error::other(failure.message))?;
    once(opened, duplicate, limits, endpoint).await
}

async fn once(
    mut upstream: Upstream,
    duplicate: &Duplicate,
    limits: &Limits,
    endpoint: &Endpoint,
) -> io::Result<()> {
    let mut done = 0;
    let parts = (duplicate.head.as_slice(), duplicate.body.as_slice());
    poll_fn(|cx| upstream.poll_send(cx, parts, &mut done)).await?;
    let mut answer = Answer::new(duplicate.is_head, limits);
    loop {
        let (scratch, count) = poll_fn(|cx| upstream.poll_read(cx)).await?;
        let bytes = scratch.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            return answer.closed();
        }
        if answer
            .take(bytes)
            .map_err(|refusal| io::Error::other(refusal.to_string()))?
        {
            drop(scratch);
            if answer.keeps {
                upstream.keep(endpoint, &duplicate.local, limits);
            }
            return Ok(());
        }
    }
}

/// An answer that is read to its end and thrown away.
struct Answer {
    head: ResponseHead,
    is_head: bool,
    limits: http1::Limits,
    /// Bytes of a head that is not complete.
    partial: Vec<u8>,
    reader: Option<BodyReader>,
    /// The connection may be used again.
    keeps: bool,
}

impl Answer {
    fn new(is_head: bool, limits: &Limits) -> Self {
        Self {
            head: ResponseHead::new(),
            is_head,
            limits: limits.http1,
            partial: Vec::new(),
            reader: None,
            keeps: false,
        }
    }

    fn closed(&self) -> io::Result<()> {
        match &self.reader {
            Some(reader) if reader.ends_at_close() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Whether the answer is complete.
    fn take(&mut self, bytes: &[u8]) -> Result<bool, http1::Refusal> {
        if self.reader.is_some() {
            return self.read(bytes);
        }
        self.partial.extend_from_slice(bytes);
        loop {
            let parsed = self.head.parse(&self.partial, self.is_head, &self.limits)?;
            let Parsed::Complete { head_bytes } = parsed else {
                return Ok(false);
            };
            self.partial.drain(..head_bytes);
            if self.head.status() >= 200 {
                break;
            }
            self.head.clear();
        }
        self.reader = Some(BodyReader::new(self.head.framing(), &self.limits));
        let body = std::mem::take(&mut self.partial);
        self.read(&body)
    }

    fn read(&mut self, bytes: &[u8]) -> Result<bool, http1::Refusal> {
        let Some(reader) = &mut self.reader else {
            return Ok(false);
        };
        let used = reader.feed(bytes, |_| ())?;
        let is_done = reader.is_done();
        self.keeps = is_done && used == bytes.len() && self.head.keep_alive();
        Ok(is_done)
    }
}
