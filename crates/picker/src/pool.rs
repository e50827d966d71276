//! The state machine of a pool: arrive, first token, finish; observe, sync; nothing else counts
//! work in flight.
//!
//! `arrive` picks and reserves in one step. Whatever frees capacity returns the wakes of those who
//! waited for it. Invariants: the books are exact (`books.rs`); a lane is served in order
//! (`flow.rs`); every wait has a deadline. The choice is prepared in `pool/decide.rs`, members come
//! and go in `pool/members.rs`, reports in `pool/observe.rs`, waits end in `pool/wake.rs`.

mod assign;
mod decide;
mod fill;
mod members;
mod observe;
pub(crate) mod probe;
mod settle;
mod view;
mod wake;

pub use members::Synced;

use crate::ask::{Arrival, Ask, Cause, Ticket, Wake, Why};
use crate::books::Books;
use crate::endpoint::{EndpointId, Load, Member, Presence};
use crate::flow::Queue;
use crate::inputs::{Inputs, Roster};
use crate::micros::Micros;
use crate::names::{NameId, Names};
use crate::overview::Overview;
use crate::pick::Cost;
use crate::pick::narrow::{MOST_CANDIDATES, Shortlist};
use crate::rates::{Speeds, Trust};
use crate::spec::PoolSpec;
use crate::telemetry::{Foreign, KvShare};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;

/// While requests wait, they are looked at again at least this often, in seconds: progress that
/// nobody reports, such as the end of an ejection, frees them too.
const LOOK_AGAIN_SECONDS: f32 = 0.1;

/// A pool of endpoints.
#[derive(Debug)]
pub struct Pool {
    spec: PoolSpec,
    turn: u32,
    /// The latest moment that anybody told.
    now: Micros,
    loads: Vec<Load>,
    members: Vec<Member>,
    member_count: u32,
    free_slots: Vec<u32>,
    by_key: FxHashMap<String, u32>,
    names: Names,
    books: Books,
    queue: Queue,
    looked_at: Micros,
    /// How long the last request that was turned away would have waited, in seconds.
    shortage_seconds: f32,
    shared: Speeds,
    trust: Trust,
    means: Means,
    kv_share: KvShare,
    /// Load of others on a middling member.
    median: Foreign,
    median_at: Option<Micros>,
    /// First tokens whose lesson is not learnt yet.
    lessons: VecDeque<(Micros, crate::decision::Reservation)>,
    /// Nobody can have been silent for too long before this moment.
    silent_at: Micros,
    /// No first token can be overdue before this moment, and when was last looked.
    overdue_at: Micros,
    overdue_looked_at: Micros,
    /// Some endpoint may be ejected until a probe comes through.
    probing: bool,
    /// What is seen of the pool without its lock.
    overview: Arc<Overview>,
    roster: Roster,
    /// The name that was asked for last.
    last_name: Option<NameId>,
    // Memory that is used again by every choice.
    costs: Vec<Cost>,
    shortlist: Shortlist,
    numbers: Vec<f32>,
    spare: Option<Box<Inputs>>,
}

/// What requests of this pool are like: moving means.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Means {
    /// Tokens to compute per request. The prior is an estimate.
    uncached_tokens: f32,
    /// Tokens that are generated. The prior is an estimate.
    output_tokens: f32,
    /// Seconds from the first token to the end. The prior is an estimate.
    residence_seconds: f32,
    /// Share of the responses that are not streamed, 0 to 1.
    unstreamed: f32,
}

impl Default for Means {
    fn default() -> Self {
        Self {
            uncached_tokens: 512.0,
            output_tokens: 256.0,
            residence_seconds: 2.0,
            unstreamed: 0.0,
        }
    }
}

impl Pool {
    /// An empty pool. `seed` decides what chance decides.
    pub fn new(spec: PoolSpec, seed: u64) -> Self {
        Self {
            spec,
            turn: 0,
            now: Micros(0),
            loads: Vec::new(),
            members: Vec::new(),
            member_count: 0,
            free_slots: Vec::new(),
            by_key: FxHashMap::default(),
            names: Names::default(),
            books: Books::default(),
            queue: Queue::default(),
            looked_at: Micros(0),
            shortage_seconds: 0.0,
            shared: Speeds::default(),
            trust: Trust::default(),
            means: Means::default(),
            kv_share: KvShare::default(),
            median: Foreign::default(),
            median_at: None,
            lessons: VecDeque::new(),
            silent_at: Micros(u64::MAX),
            overdue_at: Micros(u64::MAX),
            overdue_looked_at: Micros(0),
            probing: false,
            overview: Arc::new(Overview::new(seed)),
            roster: Roster::default(),
            last_name: None,
            costs: Vec::new(),
            shortlist: Shortlist::default(),
            numbers: Vec::new(),
            spare: None,
        }
    }

    /// The settings that are in force.
    pub fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// Takes over changed settings.
    pub fn configure(&mut self, now: Micros, spec: PoolSpec) -> Vec<Wake> {
        self.tell(now);
        self.spec = spec;
        if !self.spec.probes {
            self.end_probing();
        }
        self.wake()
    }

    /// What can be read of the pool by others while somebody holds it; stays the same.
    pub fn overview(&self) -> Arc<Overview> {
        self.overview.clone()
    }

    /// Takes back a record that nobody keeps any more, so that a later decision need not allocate.
    pub fn reuse(&mut self, record: Box<Inputs>) {
        let most = 4 * (self.member_count as usize).clamp(4, MOST_CANDIDATES);
        if record.candidates.capacity() <= most {
            self.spare = Some(record);
        }
    }

    /// A request asks for an endpoint: picks and reserves in one step.
    pub fn arrive(&mut self, now: Micros, ask: &Ask<'_>) -> Arrival {
        self.arrive_in(now, ask, None)
    }

    /// The same when [`Overview::narrow`] wrote `list` for `ask` before, without the lock.
    pub fn arrive_among(&mut self, now: Micros, ask: &Ask<'_>, list: &Shortlist) -> Arrival {
        self.arrive_in(now, ask, Some(list))
    }

    fn arrive_in(&mut self, now: Micros, ask: &Ask<'_>, list: Option<&Shortlist>) -> Arrival {
        self.tell(now);
        if self.member_count == 0 {
            return Arrival::Refuse(Why::no_endpoints());
        }
        let overtakes = !self.queue.is_empty() && self.queue.is_ahead(ask);
        if !overtakes {
            match self.decide(ask, list) {
                decide::Choice::Go(decision) => return Arrival::Go(decision),
                decide::Choice::Nobody => return self.refuse(Cause::AllExcluded),
                decide::Choice::Full => {}
            }
        }
        if ask.priority < 0 {
            return self.refuse(Cause::Saturated);
        }
        if self.queue.is_empty() {
            self.looked_at = self.now;
        }
        match self.queue.push(self.now, ask, &self.spec.queue) {
            Some(ticket) => Arrival::Wait(ticket),
            None => self.refuse(Cause::QueueFull),
        }
    }

    /// The client left while its request waited. An unknown ticket is passed over.
    pub fn cancel(&mut self, now: Micros, ticket: Ticket) {
        self.tell(now);
        self.queue.remove(ticket);
    }

    /// When [`Pool::expire`] has something to do; `None` while nobody waits.
    pub fn next_deadline(&self) -> Option<Micros> {
        let (_, since) = self.queue.oldest()?;
        let over = since.plus_seconds(self.spec.queue.wait_seconds);
        Some(over.min(self.looked_at.plus_seconds(LOOK_AGAIN_SECONDS)))
    }

    /// Ends waits that are over, and looks whether others can end well.
    pub fn expire(&mut self, now: Micros) -> Vec<Wake> {
        self.tell(now);
        self.wake()
    }

    /// Takes note of the time; it never runs backwards. Lessons of the past are learnt first.
    fn tell(&mut self, now: Micros) {
        self.now = self.now.max(now);
        self.learn_due();
    }

    fn refuse(&self, cause: Cause) -> Arrival {
        Arrival::Refuse(self.why(cause))
    }

    /// A cause with an estimate of when another try is worth it.
    fn why(&self, cause: Cause) -> Why {
        let queued = self.queue.len() as f32 * self.means.uncached_tokens;
        let seconds_per_token = self.shared.rates.prefill_token_seconds;
        let draining = queued * seconds_per_token / self.member_count.max(1) as f32;
        let seconds = match cause {
            Cause::NoEndpoints | Cause::AllExcluded => 1.0,
            Cause::Saturated | Cause::QueueFull | Cause::WaitedTooLong => {
                self.shortage_seconds + draining
            }
        };
        Why {
            cause,
            retry_after_seconds: seconds.ceil().clamp(1.0, 60.0) as u32,
        }
    }

    /// The slot of a member; `None` when it is none, or none any more.
    fn member_slot(&self, id: EndpointId) -> Option<u32> {
        let load = self.loads.get(id.slot as usize)?;
        let is_it = load.presence == Presence::Member && load.generation == id.generation;
        is_it.then_some(id.slot)
    }
}

#[cfg(test)]
mod tests;
