//! The configuration in force, and what the process shares over all workers.
//!
//! [`Proxy::apply`] takes a snapshot and the members of its pools: it binds what is new, swaps the
//! [`Live`] state in one step, and drains what is gone. Pools live on across snapshots, with their
//! reservations, prefix index and learnt rates; a request keeps the `Arc`s of its own route and pool.

mod binds;

use crate::access_log::AccessLog;
use crate::limits::Limits;
use crate::memory::{self, ACCOUNT, MemoryView};
use crate::metrics::Metrics;
use crate::pool::decisions::Decisions;
use crate::pool::{self, Pool, Resolved, Wanted, scrape};
use crate::tls::server::Terminating;
use crate::upkeep;
use crate::worker::Worker;
use arc_swap::ArcSwap;
use config::{Bind, ObjectName, ServiceConfig, ServicePort, Snapshot};
use indexmap::{Equivalent, IndexMap};
use picker::{PoolSpec, Profile};
use rustc_hash::FxBuildHasher;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the proxy is started with.
#[derive(Debug)]
pub struct Settings {
    /// Threads that serve requests; one per core is right.
    pub workers: usize,
    /// Bounds of connections and messages.
    pub limits: Limits,
    /// Where access-log lines go.
    pub log: AccessLog,
    /// Whether responses carry `x-penstock-endpoint`, `-decision` and `-overhead-us`.
    pub explain: bool,
    /// Seed of draws for weights and identifiers.
    pub seed: u64,
    /// Most bytes that the process may hold; `None`: as many as it takes.
    pub memory: Option<usize>,
}

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) live: Arc<ArcSwap<Live>>,
    pub(crate) limits: Limits,
    pub(crate) log: AccessLog,
    pub(crate) metrics: Metrics,
    pub(crate) explain: bool,
    pub(crate) seed: u64,
    /// Cancelled when nothing new is taken any more.
    pub(crate) stop: CancellationToken,
    /// Cancelled when the last request has ended.
    pub(crate) ended: CancellationToken,
    decision: AtomicU64,
}

impl Shared {
    pub(crate) fn next_decision(&self) -> u64 {
        self.decision.fetch_add(1, Ordering::Relaxed)
    }
}

/// A bind as it is served: configured address and the real one (port 0 became a port).
#[derive(Debug, Clone)]
struct Served {
    configured: SocketAddr,
    address: SocketAddr,
    bind: Arc<Bind>,
    tls: Option<Arc<Terminating>>,
    stop: CancellationToken,
}

/// One configuration in force. Immutable; swapped whole.
#[derive(Debug)]
pub struct Live {
    /// Counts applied snapshots, from 1.
    pub version: u64,
    /// What it was made of.
    pub snapshot: Arc<Snapshot>,
    binds: Vec<Served>,
    pools: IndexMap<ObjectName, Arc<Pool>, FxBuildHasher>,
    services: IndexMap<ServicePort, Arc<Pool>, FxBuildHasher>,
    _alive: Alive,
}

/// Counts how many configurations are still in memory.
#[derive(Debug)]
struct Alive(Arc<AtomicU64>);

impl Alive {
    fn new(counter: &Arc<AtomicU64>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Live {
    pub(crate) fn bind(&self, address: SocketAddr) -> Option<&Bind> {
        self.binds
            .iter()
            .find(|served| served.address == address)
            .map(|served| &*served.bind)
    }

    /// How the listeners at `address` end TLS, if they do.
    pub(crate) fn tls(&self, address: SocketAddr) -> Option<Arc<Terminating>> {
        self.binds
            .iter()
            .find(|served| served.address == address)
            .and_then(|served| served.tls.clone())
    }

    /// What a backend or a mirror leads to.
    pub(crate) fn backend(&self, target: &config::Target) -> Option<Arc<Pool>> {
        match target {
            config::Target::Pool(pool) => self.pool(&pool.name),
            config::Target::Service(service) => self.service(service),
            config::Target::Invalid { .. } => None,
        }
    }

    fn pool(&self, name: &ObjectName) -> Option<Arc<Pool>> {
        self.pools.get(name).cloned()
    }

    fn service(&self, service: &ServiceConfig) -> Option<Arc<Pool>> {
        let key = ServiceKey {
            name: &service.name,
            port: service.port,
        };
        self.services.get(&key).cloned()
    }

    pub(crate) fn has_pools(&self) -> bool {
        !self.pools.is_empty()
    }

    pub(crate) fn all_pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.pools.values().chain(self.services.values())
    }
}

/// A [`ServicePort`] by reference: no name is copied to look it up. The same fields in the same order
/// give the same hash.
#[derive(Hash)]
struct ServiceKey<'a> {
    name: &'a ObjectName,
    port: u16,
}

impl Equivalent<ServicePort> for ServiceKey<'_> {
    fn equivalent(&self, key: &ServicePort) -> bool {
        *self.name == key.name && self.port == key.port
    }
}

/// What became of one bind of an applied snapshot.
#[derive(Debug)]
pub struct Bound {
    /// The address that was asked for.
    pub configured: SocketAddr,
    /// The address it listens on, or why it does not.
    pub result: Result<SocketAddr, io::Error>,
    /// Gateway and name of each of its listeners whose certificates cannot be used, and why.
    pub certificates: Vec<(ObjectName, Box<str>, String)>,
}

/// What `apply` did.
#[derive(Debug)]
pub struct Applied {
    /// The version that is now in force.
    pub version: u64,
    /// One entry per bind of the snapshot.
    pub binds: Vec<Bound>,
}

/// Members of pools and services, with addresses that can be connected to.
#[derive(Debug, Default)]
pub struct Members {
    /// Per InferencePool.
    pub pools: IndexMap<ObjectName, Vec<Resolved>>,
    /// Per Service and port.
    pub services: IndexMap<ServicePort, Vec<Resolved>>,
    /// Per InferencePool that names an endpoint picker: where that picker listens.
    pub pickers: IndexMap<ObjectName, Vec<Resolved>>,
}

/// The data plane of a process.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    decisions: Arc<Decisions>,
    telemetry: TaskTracker,
    alive: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts the workers; nothing is bound yet. Telemetry runs on the runtime that calls this.
    ///
    /// # Errors
    /// Threads or runtimes that cannot be made.
    pub fn start(settings: Settings) -> io::Result<Self> {
        ACCOUNT.set_ceiling(settings.memory);
        let alive = Arc::<AtomicU64>::default();
        let empty = Live {
            version: 0,
            snapshot: Arc::new(Snapshot::empty()),
            binds: Vec::new(),
            pools: IndexMap::default(),
            services: IndexMap::default(),
            _alive: Alive::new(&alive),
        };
        let shared = Arc::new(Shared {
            live: Arc::new(ArcSwap::from_pointee(empty)),
            limits: settings.limits,
            log: settings.log,
            metrics: Metrics::default(),
            explain: settings.explain,
            seed: settings.seed,
            stop: CancellationToken::new(),
            ended: CancellationToken::new(),
            decision: AtomicU64::new(1),
        });
        let workers = (0..settings.workers.max(1))
            .map(|index| Worker::start(index, shared.clone()))
            .collect::<io::Result<_>>()?;
        let proxy = Self {
            shared,
            workers,
            decisions: Arc::default(),
            telemetry: TaskTracker::new(),
            alive,
        };
        let (shared, decisions) = (proxy.shared.clone(), proxy.decisions.clone());
        proxy.telemetry.spawn(upkeep::run(shared, decisions));
        Ok(proxy)
    }

    /// Binds what is new, swaps, drains what is gone.
    pub fn apply(&self, snapshot: Arc<Snapshot>, members: &Members) -> Applied {
        let old = self.shared.live.load_full();
        let (binds, fresh, report) = self.binds(&old, &snapshot);
        let pools: IndexMap<_, _, _> = snapshot
            .pools
            .iter()
            .map(|(name, config)| {
                let pool = self.pool(old.pools.get(name), &config.picker, true);
                pool.speak(Wanted {
                    app_protocol: config.app_protocol,
                    tls: config.tls.clone(),
                });
                self.sync(&pool, members.pools.get(name));
                pool.ask_of(config, members, &self.telemetry);
                (name.clone(), pool)
            })
            .collect();
        let services = snapshot
            .services
            .iter()
            .map(|(key, config)| {
                let pool = self.pool(old.services.get(key), &service_spec(config), false);
                pool.speak(Wanted {
                    app_protocol: config.app_protocol,
                    tls: config.tls.clone(),
                });
                self.sync(&pool, members.services.get(key));
                (key.clone(), pool)
            })
            .collect();
        pool::share_indexes(&pools);
        let version = old.version + 1;
        let kept: Vec<SocketAddr> = binds.iter().map(|served| served.address).collect();
        let alive = Alive::new(&self.alive);
        let live = Live {
            version,
            snapshot,
            binds,
            pools,
            services,
            _alive: alive,
        };
        self.retire(&old, &live);
        self.shared.live.store(Arc::new(live));
        for accepting in fresh {
            self.accept(accepting);
        }
        for served in &old.binds {
            if !kept.contains(&served.address) {
                served.stop.cancel();
            }
        }
        Applied {
            version,
            binds: report,
        }
    }

    /// Takes over changed members without a new snapshot.
    pub fn apply_members(&self, members: &Members) {
        let live = self.shared.live.load_full();
        for (name, pool) in &live.pools {
            self.sync(pool, members.pools.get(name));
            if let Some(config) = live.snapshot.pools.get(name) {
                pool.ask_of(config, members, &self.telemetry);
            }
        }
        for (key, pool) in &live.services {
            self.sync(pool, members.services.get(key));
        }
    }

    fn pool(&self, known: Option<&Arc<Pool>>, spec: &PoolSpec, inference: bool) -> Arc<Pool> {
        match known {
            Some(pool) => {
                if *pool.seen().spec != *spec {
                    pool.configure(spec.clone());
                    pool.recatalogue();
                }
                pool.clone()
            }
            None => {
                let decisions = self.decisions.clone();
                Arc::new(Pool::new(
                    spec.clone(),
                    inference,
                    self.shared.seed,
                    decisions,
                ))
            }
        }
    }

    fn sync(&self, pool: &Arc<Pool>, members: Option<&Vec<Resolved>>) {
        let members = members.map(Vec::as_slice).unwrap_or_default();
        let added = pool.sync(members);
        if pool.inference {
            for endpoint in added {
                self.telemetry.spawn(scrape::watch(pool.clone(), endpoint));
            }
        }
    }

    /// Pools that are no longer configured lose their members, which ends their telemetry.
    fn retire(&self, old: &Live, new: &Live) {
        let retained: Vec<*const Pool> = new.all_pools().map(Arc::as_ptr).collect();
        for pool in old
            .all_pools()
            .filter(|pool| !retained.contains(&Arc::as_ptr(pool)))
        {
            pool.retire();
        }
    }

    /// The configuration in force.
    pub fn live(&self) -> Arc<Live> {
        self.shared.live.load_full()
    }

    /// How many configurations are still in memory; more than two means that something holds one.
    pub fn alive(&self) -> u64 {
        self.alive.load(Ordering::Relaxed)
    }

    /// The last decisions of all pools.
    pub fn decisions(&self) -> Arc<Decisions> {
        self.decisions.clone()
    }

    /// The counters of all workers.
    pub fn metrics(&self) -> Metrics {
        self.shared.metrics.clone()
    }

    /// The access log that requests are written to.
    pub fn log(&self) -> &AccessLog {
        &self.shared.log
    }

    /// Notes what the process holds before there is traffic; call it once all is set up.
    pub fn note_program_memory(&self) {
        memory::note_program();
    }

    /// Who holds how much memory.
    pub fn memory(&self) -> MemoryView {
        let live = self.live();
        let (decisions, series) = (self.decisions.bytes(), self.shared.metrics.bytes());
        memory::refresh(&live, decisions, series);
        memory::view(&live)
    }

    /// Stops accepting, lets requests end, also those that wait for a turn, and waits for the
    /// workers and for the lines of the access log. Blocks.
    pub fn stop(mut self) {
        self.shared.stop.cancel();
        for worker in &mut self.workers {
            worker.join();
        }
        // Until now requests under way, and the last one of each connection, needed the members.
        self.shared.ended.cancel();
        for pool in self.live().all_pools() {
            pool.retire();
        }
        self.shared.log.finish();
    }
}

/// A Service is a pool without knowledge of engines: the least busy endpoint is taken.
fn service_spec(service: &ServiceConfig) -> PoolSpec {
    PoolSpec {
        name: format!("{}:{}", service.name, service.port),
        profile: Profile::LeastRequests,
        ..PoolSpec::default()
    }
}
