//! One account of the memory that traffic makes the process hold, and its ceiling.
//!
//! There is one heap, so there is one account. Whoever lets memory grow says so where it grows, and
//! never on the plain path: a request that comes with one read and whose answer the client takes
//! touches nothing here but what its connection was charged once. What changes slowly (indexes,
//! records, queues) is measured ten times a second by [`refresh`].
//!
//! Above [`Account::brink`], three quarters of the limit, what is new is refused: connections, further
//! parts of bodies, waiting in a queue. What is under way may go on to [`Account::most`], seven
//! eighths; then clients that do not take their answers lose them. The rest is for what no account
//! sees: what the allocator keeps between and after allocations. Of a large limit, these parts are
//! at most [`MOST_SLACK`] each.
//!
//! Not in the account is what a worker keeps to use again, however many clients there are: spare
//! write buffers of 512 KiB together and two of 256 KiB, 96 heads of responses of 4 KiB, as many as 64
//! in replies, and the inputs of 64 decisions.

use crate::failure::{Cause, Failure, Phase};
use crate::live::Live;
use serde::Serialize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What an open connection costs beside its buffers: its task with that of its request, its socket
/// and the endpoint's, short heads, a small body. Futures of debug builds are larger.
pub(crate) const CONNECTION_BYTES: usize = if cfg!(debug_assertions) {
    24 << 10
} else {
    12 << 10
};
/// A head up to this size is among what a connection costs; a longer one counts by itself.
pub(crate) const SHORT_HEAD_BYTES: usize = 4 << 10;
/// What TLS adds to a connection: keys, records under way.
pub(crate) const TLS_BYTES: usize = 36 << 10;
/// What a connection of HTTP/2 adds: buffers for frames, tables of fields in both directions, and
/// what it may owe its client for free. Idle ones have been seen to take 21 KiB, used ones 27 to 55.
pub(crate) const H2_BYTES: usize = 48 << 10;
pub(crate) const H2_FREE_BYTES: usize = 4 << 10;
/// What a stream of HTTP/2 costs while it is served (7 KiB beside long fields), and what its place
/// does, which the connection keeps for later ones (1.3 to 2 KiB).
pub(crate) const H2_STREAM_BYTES: usize = 8 << 10;
pub(crate) const H2_PLACE_BYTES: usize = 3 << 9;
/// What a request that waits in a queue costs beside its body.
const WAITER_BYTES: usize = 1 << 10;
/// A rule of a route and an endpoint, as configured and as served. Estimates, on the high side.
const RULE_BYTES: usize = 2 << 10;
const ENDPOINT_BYTES: usize = 2 << 10;
/// A block in a prefix index, with the room that growing tables take.
const BLOCK_BYTES: usize = 192;
/// The most that is left free for one reason.
const MOST_SLACK: usize = 256 << 20;
/// All prefix indexes together: this part of the ceiling.
const INDEX_SHARE: usize = 4;
/// Tells clients to wait this long, in seconds.
const RETRY_AFTER: u32 = 1;

/// The account of this process.
pub(crate) static ACCOUNT: Account = Account::new();

/// What bytes cost that a client has not taken, half as much again: their buffers are large and do not
/// fit where smaller things were, which the allocator keeps.
pub(crate) const fn cost_of_unsent(bytes: usize) -> usize {
    bytes + bytes / 2
}

/// For what memory is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Connections,
    /// What TLS and HTTP/2 add to connections.
    Layers,
    /// Long heads of requests that are being served, twice while a server does not take them.
    Heads,
    /// Request bodies that came with more than one read.
    Bodies,
    /// Read ahead of its turn: heads in pieces, pipelined requests.
    ReadAhead,
    /// Answers that clients have not taken.
    Unsent,
    /// Answers that are not decided: heads in pieces, event streams up to their first event.
    Undecided,
    /// Conversations with external endpoint pickers.
    Pickers,
    /// Read buffers of the workers, in use and spare.
    ReadBuffers,
    // What follows is set by `refresh`.
    Configuration,
    Queues,
    PrefixIndexes,
    Decisions,
    MetricSeries,
    /// The process itself: what was resident when it began to serve.
    Program,
}

/// Every use with its name in `/debug/memory` and as a label.
const USES: [(Use, &str); 15] = [
    (Use::Connections, "connections"),
    (Use::Layers, "tls_and_http2"),
    (Use::Heads, "request_heads"),
    (Use::Bodies, "request_bodies"),
    (Use::ReadAhead, "read_ahead"),
    (Use::Unsent, "unsent_answers"),
    (Use::Undecided, "undecided_answers"),
    (Use::Pickers, "picker_conversations"),
    (Use::ReadBuffers, "read_buffers"),
    (Use::Configuration, "configuration"),
    (Use::Queues, "queues"),
    (Use::PrefixIndexes, "prefix_indexes"),
    (Use::Decisions, "decisions"),
    (Use::MetricSeries, "metric_series"),
    (Use::Program, "program"),
];

/// Apart from its neighbours, so that workers do not share a line of the cache without need.
#[derive(Debug)]
#[repr(align(64))]
struct Bytes(AtomicUsize);

/// Who holds how much, and how much may be held.
#[derive(Debug)]
pub(crate) struct Account {
    uses: [Bytes; USES.len()],
    /// `usize::MAX`: none.
    ceiling: AtomicUsize,
    refusals: AtomicU64,
}

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Account {
    const fn new() -> Self {
        Self {
            uses: [const { Bytes(AtomicUsize::new(0)) }; USES.len()],
            ceiling: AtomicUsize::new(usize::MAX),
            refusals: AtomicU64::new(0),
        }
    }

    fn of(&self, of: Use) -> &AtomicUsize {
        // One counter for each use, in their order.
        let at = (of as usize).min(USES.len() - 1);
        #[expect(clippy::indexing_slicing, reason = "`at` was made to fit")]
        &self.uses[at].0
    }

    pub(crate) fn set_ceiling(&self, bytes: Option<usize>) {
        self.ceiling.store(bytes.unwrap_or(usize::MAX), Relaxed);
    }

    pub(crate) fn bytes(&self, of: Use) -> usize {
        self.of(of).load(Relaxed)
    }

    pub(crate) fn add(&self, of: Use, bytes: usize) {
        self.of(of).fetch_add(bytes, Relaxed);
    }

    pub(crate) fn give_back(&self, of: Use, bytes: usize) {
        self.of(of).fetch_sub(bytes, Relaxed);
    }

    fn held(&self) -> usize {
        let all = self.uses.iter().map(|one| one.0.load(Relaxed));
        all.fold(0, usize::saturating_add)
    }

    fn slack(&self) -> usize {
        (self.ceiling.load(Relaxed) / 8).min(MOST_SLACK)
    }

    /// Above this, what is new is refused.
    fn brink(&self) -> usize {
        self.ceiling.load(Relaxed) - 2 * self.slack()
    }

    /// What is under way may hold this much.
    fn most(&self) -> usize {
        self.ceiling.load(Relaxed) - self.slack()
    }

    /// Whether what is new is refused.
    pub(crate) fn is_over(&self) -> bool {
        self.held() > self.brink()
    }

    /// Adds `bytes` unless the total would then be above `most`.
    fn take(&self, of: Use, bytes: usize, most: usize) -> Result<(), Full> {
        self.add(of, bytes);
        if self.held() <= most {
            return Ok(());
        }
        self.give_back(of, bytes);
        Err(Full)
    }

    /// Whether not even connections may come: what waits in the kernel's queue costs nothing here.
    pub(crate) fn is_spent(&self) -> bool {
        self.held() > self.ceiling.load(Relaxed)
    }

    pub(crate) fn count_refusal(&self) {
        self.refusals.fetch_add(1, Relaxed);
    }

    /// The failure of a request that there is no memory for; counts it.
    pub(crate) fn refuse(&self, phase: Phase) -> Failure {
        self.count_refusal();
        let message = "the gateway holds as much memory as it may; send the request again later";
        let mut failure = Failure::new(phase, Cause::Memory, message);
        failure.retry_after = Some(RETRY_AFTER);
        failure
    }
}

/// What one owner holds of the account; goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    of: Use,
    bytes: usize,
}

impl Charge {
    pub(crate) const fn none(of: Use) -> Self {
        Self { of, bytes: 0 }
    }

    /// Holds `bytes` from now on, whatever the account says.
    pub(crate) fn fixed(of: Use, bytes: usize) -> Self {
        ACCOUNT.add(of, bytes);
        Self { of, bytes }
    }

    /// Holds `bytes` from now on, where there is room for what is new.
    pub(crate) fn admit(&mut self, bytes: usize) -> Result<(), Full> {
        self.hold(bytes, ACCOUNT.brink())
    }

    /// Holds `bytes` from now on, for something that is under way.
    pub(crate) fn keep(&mut self, bytes: usize) -> Result<(), Full> {
        self.hold(bytes, ACCOUNT.most())
    }

    fn hold(&mut self, bytes: usize, most: usize) -> Result<(), Full> {
        if bytes > self.bytes {
            ACCOUNT.take(self.of, bytes - self.bytes, most)?;
        } else {
            ACCOUNT.give_back(self.of, self.bytes - bytes);
        }
        self.bytes = bytes;
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn release(&mut self) {
        if self.bytes > 0 {
            ACCOUNT.give_back(self.of, std::mem::take(&mut self.bytes));
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release();
    }
}

/// Notes what the process holds before there is any traffic.
pub(crate) fn note_program() {
    let resident = resident("VmRSS:").unwrap_or_default();
    let known = ACCOUNT.held() - ACCOUNT.bytes(Use::Program);
    let program = resident.saturating_sub(known);
    ACCOUNT.of(Use::Program).store(program, Relaxed);
}

/// Measures what changes slowly.
pub(crate) fn refresh(live: &Live, decisions: usize, series: usize) {
    let listeners = live.snapshot.binds.iter().flat_map(|bind| &bind.listeners);
    let rules = listeners.map(|listener| listener.routes.rules().count());
    let mut configuration = rules.sum::<usize>() * RULE_BYTES;
    let mut queues = 0;
    let mut indexes = 0;
    for pool in live.all_pools() {
        let (requests, prefixes) = pool.memory();
        queues += requests * WAITER_BYTES;
        indexes += prefixes;
        configuration += pool.endpoint_count() * ENDPOINT_BYTES;
    }
    ACCOUNT.of(Use::Configuration).store(configuration, Relaxed);
    ACCOUNT.of(Use::Queues).store(queues, Relaxed);
    ACCOUNT.of(Use::PrefixIndexes).store(indexes, Relaxed);
    ACCOUNT.of(Use::Decisions).store(decisions, Relaxed);
    ACCOUNT.of(Use::MetricSeries).store(series, Relaxed);
}

/// Blocks that each of `pools` prefix indexes may hold, at most `most`.
pub(crate) fn blocks_for_each(pools: usize, most: usize) -> usize {
    let all = ACCOUNT.ceiling.load(Relaxed) / INDEX_SHARE / BLOCK_BYTES;
    (all / pools.max(1)).min(most)
}

/// The account as people and metrics see it.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryView {
    /// `--memory-limit`, in bytes, as is everything here; none means no limit.
    pub limit: Option<usize>,
    /// What is new is refused above this.
    pub refuses_above: Option<usize>,
    /// Sum of all holders.
    pub held: usize,
    /// What the system says is resident now.
    pub resident: Option<usize>,
    /// The most that was resident at any time.
    pub resident_most: Option<usize>,
    /// Requests and answers that there was no memory for.
    pub refusals: u64,
    /// Who holds how much.
    pub holders: Vec<Holder>,
    /// What grows with each pool.
    pub pools: Vec<PoolMemory>,
}

/// One use of memory.
#[derive(Debug, Clone, Serialize)]
pub struct Holder {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub bytes: usize,
}

/// The part of one pool.
#[derive(Debug, Clone, Serialize)]
pub struct PoolMemory {
    /// Namespace and name, or Service and port.
    pub name: String,
    /// Its prefix index.
    pub prefix_index: usize,
    /// Requests that wait in its queue.
    pub queued_requests: usize,
}

pub(crate) fn view(live: &Live) -> MemoryView {
    let ceiling = ACCOUNT.ceiling.load(Relaxed);
    let is_set = ceiling != usize::MAX;
    let pools = live.all_pools().map(|pool| {
        let (queued_requests, prefix_index) = pool.memory();
        PoolMemory {
            name: pool.name().to_string(),
            prefix_index,
            queued_requests,
        }
    });
    MemoryView {
        limit: is_set.then_some(ceiling),
        refuses_above: is_set.then(|| ACCOUNT.brink()),
        held: ACCOUNT.held(),
        resident: resident("VmRSS:"),
        resident_most: resident("VmHWM:"),
        refusals: ACCOUNT.refusals.load(Relaxed),
        holders: USES
            .iter()
            .map(|(of, name)| Holder {
                name,
                bytes: ACCOUNT.bytes(*of),
            })
            .collect(),
        pools: pools.collect(),
    }
}

/// A line of `/proc/self/status`, in bytes. Linux only.
fn resident(line: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let rest = status.lines().find_map(|one| one.strip_prefix(line))?;
    let kib: usize = rest.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_goes_back_and_never_passes_the_ceiling() {
        // The account of the process is shared by all tests of this crate: this one only adds.
        let before = ACCOUNT.bytes(Use::ReadAhead);
        let mut charge = Charge::none(Use::ReadAhead);
        assert_eq!(charge.keep(1000), Ok(()));
        assert_eq!(charge.keep(300), Ok(()));
        assert_eq!(ACCOUNT.bytes(Use::ReadAhead), before + 300);
        drop(charge);
        assert_eq!(ACCOUNT.bytes(Use::ReadAhead), before);
    }

    #[test]
    fn what_is_new_is_refused_before_what_is_under_way() {
        let account = Account::new();
        account.set_ceiling(Some(8000));
        assert_eq!(account.take(Use::Bodies, 6000, account.brink()), Ok(()));
        assert!(!account.is_over());
        assert_eq!(account.take(Use::Bodies, 1, account.brink()), Err(Full));
        assert_eq!(account.take(Use::Unsent, 1000, account.most()), Ok(()));
        assert!(account.is_over());
        assert_eq!(account.take(Use::Unsent, 1, account.most()), Err(Full));
        assert_eq!(account.held(), 7000);
        account.set_ceiling(None);
        assert!(!account.is_over() && account.brink() > usize::MAX / 2);
        assert_eq!(account.take(Use::Unsent, 1, account.most()), Ok(()));
    }

    #[test]
    fn every_use_has_its_name() {
        for (at, (of, _)) in USES.iter().enumerate() {
            assert_eq!(*of as usize, at);
        }
    }
}
