//! A pool at run time: the picker's state machine, its prefix index, and the sockets' view of it.
//!
//! The picker is pure; this is its shell. One short mutex holds the state machine, another lock the
//! prefix index; nothing is sent and nobody is woken while either is held. Backends that are
//! Services are pools too, with the profile `leastRequests` and without telemetry or retries.

pub(crate) mod decisions;
mod external;
pub(crate) mod lease;
pub(crate) mod models;
pub(crate) mod probe;
pub(crate) mod reach;
pub(crate) mod scrape;
pub(crate) mod view;

use crate::clock;
use crate::memory;
use crate::retry::Budget;
use arc_swap::ArcSwap;
use config::{AppProtocol, ObjectName};
use decisions::Decisions;
use indexmap::IndexMap;
use lease::{Lease, Lent, Waiting};
use parking_lot::{Mutex, RwLock};
use picker::{
    Arrival, Ask, Decision, EndpointId, Held, MemberSpec, Overview, PoolSpec, PrefixIndex,
    Shortlist, Subsets, Ticket, Wake, Why,
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Blocks of 512 bytes that a pool's prefix index may hold: 16 GiB of prompt text.
const MOST_PREFIX_BLOCKS: usize = 1 << 20;

thread_local! {
    /// Memory for narrowing, used again by every pick.
    static SHORTLIST: RefCell<Shortlist> = RefCell::default();
}

static NEXT_ENDPOINT: AtomicU64 = AtomicU64::new(1);

/// One server of a pool.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Unique in this process, never reused: the key of idle connections.
    pub(crate) uid: u64,
    pub(crate) id: EndpointId,
    pub(crate) name: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) transport: Arc<Transport>,
    pub(crate) announced: models::Announced,
    pub(crate) reach: reach::Reach,
    /// Cancelled when the member leaves: ends its telemetry.
    pub(crate) stop: CancellationToken,
    /// Set then: cheaper to read.
    left: AtomicBool,
}

impl Endpoint {
    /// It is not to be used again.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
        self.stop.cancel();
    }

    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }
}

/// How endpoints of a pool are spoken to.
#[derive(Debug, Default)]
pub(crate) struct Transport {
    pub(crate) tls: Tls,
    /// HTTP/2, known beforehand.
    pub(crate) is_h2: bool,
}

/// Whether there is TLS between us and an endpoint.
#[derive(Debug, Default)]
pub(crate) enum Tls {
    #[default]
    None,
    Connect(Box<crate::tls::client::Connecting>),
    /// It was asked for and cannot be had: nothing is sent without it.
    Unusable(Box<str>),
}

impl Transport {
    pub(crate) fn new(wanted: &Wanted) -> Self {
        let is_h2 = wanted.app_protocol == AppProtocol::H2c;
        let connecting = wanted.tls.as_ref();
        let connecting = connecting.map(|tls| crate::tls::client::Connecting::new(tls, is_h2));
        Self {
            is_h2,
            tls: match connecting {
                None => Tls::None,
                Some(Ok(connecting)) => Tls::Connect(Box::new(connecting)),
                Some(Err(error)) => {
                    Tls::Unusable(format!("its tls settings cannot be used: {error}").into())
                }
            },
        }
    }
}

/// How a configuration wants endpoints to be spoken to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) app_protocol: AppProtocol,
    pub(crate) tls: Option<Arc<config::BackendTls>>,
}

/// How endpoints are spoken to, from the next [`Pool::sync`] on.
#[derive(Debug, Default)]
struct Spoken {
    wanted: Wanted,
    transport: Arc<Transport>,
    /// Not yet in force.
    is_new: bool,
}

impl Spoken {
    /// Puts it in force; whether it was not before.
    fn take(&mut self) -> (Arc<Transport>, bool) {
        (self.transport.clone(), std::mem::take(&mut self.is_new))
    }
}

/// A member that has an address to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Identity across changes of the list.
    pub key: String,
    /// As people know it, such as `10.0.0.3:8000`.
    pub name: String,
    /// Where to connect.
    pub address: SocketAddr,
    /// In which of the pool's subsets it is.
    pub subsets: Subsets,
}

/// What a request reads of its pool without a lock, at once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) spec: Arc<PoolSpec>,
    endpoints: Arc<FxHashMap<EndpointId, Arc<Endpoint>>>,
    /// All models that objects declare or servers announce.
    names: Arc<FxHashSet<String>>,
}

impl Seen {
    pub(crate) fn endpoint(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&id)
    }

    pub(crate) fn knows_model(&self, model: &str) -> bool {
        self.names.contains(model)
    }
}

/// A pool of endpoints.
#[derive(Debug)]
pub(crate) struct Pool {
    name: Arc<str>,
    /// An InferencePool, as opposed to a Service.
    pub(crate) inference: bool,
    state: Mutex<picker::Pool>,
    /// What can be read of `state` without its lock.
    overview: Arc<Overview>,
    prefixes: RwLock<PrefixIndex>,
    seen: ArcSwap<Seen>,
    waiting: Mutex<FxHashMap<Ticket, oneshot::Sender<Arrival>>>,
    spoken: Mutex<Spoken>,
    pub(crate) catalogue: models::Catalogue,
    pub(crate) decisions: Arc<Decisions>,
    pub(crate) budget: Budget,
    external: external::External,
    pub(crate) asked: crate::ext_proc::Asked,
    probes: probe::Count,
}

/// All prefix indexes together stay within their part of the ceiling. Services have none: their
/// endpoints are not told apart by what they hold.
pub(crate) fn share_indexes<S>(pools: &IndexMap<ObjectName, Arc<Pool>, S>) {
    let blocks = memory::blocks_for_each(pools.len(), MOST_PREFIX_BLOCKS);
    for pool in pools.values() {
        pool.limit_prefixes(blocks);
    }
}

/// What `arrive` said, with what it takes to go on.
#[derive(Debug)]
pub(crate) enum Step<'p> {
    Go(Lease<'p>, Decision),
    Wait(Waiting<'p>),
    Refuse(Why),
}

impl Pool {
    pub(crate) fn new(
        spec: PoolSpec,
        inference: bool,
        seed: u64,
        decisions: Arc<Decisions>,
    ) -> Self {
        let state = picker::Pool::new(spec.clone(), seed);
        Self {
            name: spec.name.as_str().into(),
            inference,
            overview: state.overview(),
            state: Mutex::new(state),
            // `apply` says how many it may hold.
            prefixes: RwLock::new(PrefixIndex::new(0)),
            seen: ArcSwap::from_pointee(Seen {
                spec: Arc::new(spec),
                ..Seen::default()
            }),
            waiting: Mutex::default(),
            spoken: Mutex::default(),
            catalogue: models::Catalogue::default(),
            decisions,
            budget: Budget::default(),
            external: external::External::default(),
            asked: crate::ext_proc::Asked::default(),
            probes: probe::Count::default(),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn seen(&self) -> Arc<Seen> {
        self.seen.load_full()
    }

    /// Changes what requests see. May run more than once, when others change it at this moment.
    fn show(&self, change: impl Fn(&mut Seen)) {
        self.seen.rcu(|seen| {
            let mut seen = Seen::clone(seen);
            change(&mut seen);
            seen
        });
    }

    /// Takes over a changed configuration.
    pub(crate) fn configure(self: &Arc<Self>, spec: PoolSpec) {
        let wakes = self.state.lock().configure(clock::now(), spec.clone());
        let spec = Arc::new(spec);
        self.show(|seen| seen.spec = spec.clone());
        self.deliver(wakes);
    }

    /// Takes over how endpoints are spoken to. Known ones that were spoken to otherwise are replaced
    /// by the next [`Pool::sync`], in one step: until then requests go to them as before.
    pub(crate) fn speak(&self, wanted: Wanted) {
        let mut spoken = self.spoken.lock();
        if spoken.wanted == wanted {
            return;
        }
        let transport = Arc::new(Transport::new(&wanted));
        if let Tls::Unusable(why) = &transport.tls {
            tracing::error!(pool = %self.name, "{why}");
        }
        *spoken = Spoken {
            wanted,
            transport,
            is_new: true,
        };
    }

    /// Takes over a changed member list; returns the endpoints that are new.
    pub(crate) fn sync(self: &Arc<Self>, members: &[Resolved]) -> Vec<Arc<Endpoint>> {
        let specs: Vec<MemberSpec> = members
            .iter()
            .map(|member| MemberSpec {
                key: member.key.clone(),
                name: member.name.clone(),
                subsets: member.subsets,
            })
            .collect();
        let (transport, is_new) = self.spoken.lock().take();
        let mut state = self.state.lock();
        let synced = if is_new {
            state.replace(clock::now(), &specs)
        } else {
            state.sync(clock::now(), &specs)
        };
        let mut endpoints = FxHashMap::clone(&self.seen.load().endpoints);
        for id in &synced.removed {
            if let Some(gone) = endpoints.remove(id) {
                gone.leave();
            }
        }
        let mut added = Vec::new();
        for (id, key) in &synced.added {
            let Some(member) = members.iter().find(|member| member.key == *key) else {
                continue;
            };
            let endpoint = Arc::new(Endpoint {
                uid: NEXT_ENDPOINT.fetch_add(1, Ordering::Relaxed),
                id: *id,
                name: member.name.as_str().into(),
                address: member.address,
                transport: transport.clone(),
                announced: models::Announced::default(),
                reach: reach::Reach::default(),
                stop: CancellationToken::new(),
                left: AtomicBool::new(false),
            });
            endpoints.insert(*id, endpoint.clone());
            added.push(endpoint);
        }
        let endpoints = Arc::new(endpoints);
        self.show(|seen| seen.endpoints = endpoints.clone());
        // Not earlier: who is picked must be found.
        drop(state);
        for id in &synced.removed {
            self.prefixes.write().remove(*id);
        }
        self.recatalogue();
        self.deliver(synced.wakes);
        added
    }

    pub(crate) fn endpoint(&self, id: EndpointId) -> Option<Arc<Endpoint>> {
        self.seen.load().endpoint(id).cloned()
    }

    pub(crate) fn endpoint_count(&self) -> usize {
        self.seen.load().endpoints.len()
    }

    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let mut all: Vec<_> = self.seen.load().endpoints.values().cloned().collect();
        all.sort_by_key(|endpoint| endpoint.id.slot);
        all
    }

    /// Which endpoints hold how much of this prompt.
    pub(crate) fn held(&self, chain: &[u64], held: &mut Held) {
        self.prefixes.read().lookup(chain, held);
    }

    /// Sets how many blocks the prefix index may hold.
    pub(crate) fn limit_prefixes(&self, blocks: usize) {
        self.prefixes.write().set_max_blocks(blocks);
    }

    /// Requests that wait, and bytes of the prefix index.
    pub(crate) fn memory(&self) -> (usize, usize) {
        let waiting = self.state.lock().queue_len();
        (waiting, self.prefixes.read().bytes())
    }

    /// Notes that `endpoint` will hold the prompt.
    pub(crate) fn will_hold(&self, endpoint: EndpointId, chain: &[u64]) {
        if !chain.is_empty() {
            self.prefixes.write().insert(endpoint, chain);
        }
    }

    /// The engine said how much of the prompt it really had.
    pub(crate) fn correct_held(&self, endpoint: EndpointId, chain: &[u64], blocks: u32) {
        self.prefixes.write().correct(endpoint, chain, blocks);
    }

    /// Asks for an endpoint. A long list of members is narrowed first, without the lock; pick and
    /// reservation are one step under it. `seen` is the pool as the request found it.
    pub(crate) fn arrive<'p>(self: &'p Arc<Self>, ask: &Ask<'_>, seen: &'p Seen) -> Step<'p> {
        SHORTLIST.with_borrow_mut(|list| {
            self.overview.narrow(clock::coarse(), ask, list);
            self.arrive_among(ask, list, seen)
        })
    }

    fn arrive_among<'p>(
        self: &'p Arc<Self>,
        ask: &Ask<'_>,
        list: &Shortlist,
        seen: &'p Seen,
    ) -> Step<'p> {
        let record = decisions::spare();
        let now = clock::coarse();
        let mut state = self.state.lock();
        if let Some(record) = record {
            state.reuse(record);
        }
        match state.arrive_among(now, ask, list) {
            // Looked up before the lock is released: it may leave at once.
            Arrival::Go(decision) => {
                let known = seen.endpoint(decision.winner).map(Lent::Borrowed);
                let endpoint = known.or_else(|| self.endpoint(decision.winner).map(Lent::Own));
                self.go(decision, endpoint)
            }
            Arrival::Wait(ticket) => {
                // Registered before the lock is released: a wake may come at once.
                let (sender, receiver) = oneshot::channel();
                self.waiting.lock().insert(ticket, sender);
                Step::Wait(Waiting::new(self, ticket, receiver))
            }
            Arrival::Refuse(why) => Step::Refuse(why),
        }
    }

    fn go<'p>(
        self: &'p Arc<Self>,
        decision: Decision,
        endpoint: Option<Lent<'p, Endpoint>>,
    ) -> Step<'p> {
        let lease = Lease::new(self, decision.reservation, endpoint);
        Step::Go(lease, decision)
    }

    /// Whether what was sent to `endpoint` at `dispatched` waits there in vain.
    pub(crate) fn is_in_vain(&self, endpoint: EndpointId, dispatched: picker::Micros) -> bool {
        let now = clock::now();
        self.state.lock().is_in_vain(now, endpoint, dispatched)
    }

    /// Runs `act` on the state machine and wakes whom it says, after the lock is released.
    fn act(self: &Arc<Self>, act: impl FnOnce(&mut picker::Pool) -> Vec<Wake>) {
        let wakes = act(&mut self.state.lock());
        self.deliver(wakes);
    }

    fn deliver(self: &Arc<Self>, wakes: Vec<Wake>) {
        let mut pending = wakes;
        while let Some(Wake { ticket, arrival }) = pending.pop() {
            let sender = self.waiting.lock().remove(&ticket);
            let undelivered = match sender {
                Some(sender) => sender.send(arrival).err(),
                None => Some(arrival),
            };
            // Nobody waits any more: what was reserved for it goes back.
            if let Some(Arrival::Go(decision)) = undelivered {
                let cancelled = lease::cancelled();
                let mut state = self.state.lock();
                let more = state.finish(clock::now(), decision.reservation, cancelled);
                drop(state);
                pending.extend(more);
            }
        }
    }

    /// Refuses what has waited too long, and re-admits what a deadline frees.
    pub(crate) fn expire(self: &Arc<Self>) {
        let now = clock::now();
        let mut state = self.state.lock();
        if state.next_deadline().is_none_or(|due| due > now) {
            return;
        }
        let wakes = state.expire(now);
        drop(state);
        self.deliver(wakes);
    }
}
