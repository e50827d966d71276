//! Objects to snapshot and statuses: a total function that never fails.
//!
//! [`compile`] is the specification. [`Compiler`] gives the same result while it remembers what it
//! lowered and shares every node of its last snapshot that did not change. Steps, one file each:
//! our Gateways and their listeners (`gateways`), routes on their own (`lower`), who attaches where
//! (`attach`), what references lead to (`link`), names of models (`models`), pools (`pools`).
//!
//! A Gateway is ours if its GatewayClass names [`CONTROLLER_NAME`]; with [`Placement::OneProcess`]
//! also if the class is not among the objects: of a directory of files nobody else could serve it.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::host::HostIndex;
use crate::name::ObjectName;
use crate::objects::{HttpRoute, Objects};
use crate::rule::Rule;
use crate::snapshot::{Bind, Snapshot};
use crate::status::Statuses;

mod attach;
mod backend_tls;
mod filters;
mod gateways;
mod grants;
mod link;
mod lower;
mod models;
mod plan;
mod pools;
mod reach;
mod routes;

use gateways::Gateways;
use link::Linker;
use lower::LoweredRoute;
pub use plan::{GatewayPlan, PlannedPort};
pub(crate) use pools::find as find_pool;
pub use reach::reachable;

/// The controller whose GatewayClasses are ours.
pub const CONTROLLER_NAME: &str = "penstock.dev/gateway-controller";

/// What objects compile to.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// What a proxy serves.
    pub snapshot: Arc<Snapshot>,
    /// What became of each object.
    pub statuses: Statuses,
}

/// Compiles `objects` from scratch.
pub fn compile(objects: &Objects) -> Compiled {
    Compiler::default().compile(objects)
}

/// Where Gateways are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// All by one process, on the addresses that they name: they share its sockets.
    #[default]
    OneProcess,
    /// Each by proxies of its own, which listen on every address that they have (Kubernetes).
    PerGateway,
}

/// Compiles again and again, with unchanged nodes shared between snapshots.
#[derive(Debug, Default)]
pub struct Compiler {
    placement: Placement,
    /// Routes that each Gateway of ours took, as of the last compilation.
    taken: FxHashMap<ObjectName, Vec<ObjectName>>,
    plans: Vec<GatewayPlan>,
    lowered: FxHashMap<ObjectName, (Arc<HttpRoute>, Arc<LoweredRoute>)>,
    rules: FxHashMap<(ObjectName, u32), Arc<Rule>>,
    last: Option<Arc<Snapshot>>,
}

/// How old an object is: smaller is older. Objects without a timestamp come last, and are told
/// apart by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Age {
    is_unknown: bool,
    /// RFC 3339 in UTC, as the API server writes it: sorts as text.
    created: Box<str>,
}

impl Age {
    pub(crate) fn of(meta: &crate::objects::Meta) -> Self {
        let created = meta.creation_timestamp.as_deref().unwrap_or_default();
        Self {
            is_unknown: created.is_empty(),
            created: created.into(),
        }
    }
}

impl Compiler {
    /// A compiler for Gateways that are served in a given way.
    pub fn new(placement: Placement) -> Self {
        Self {
            placement,
            ..Self::default()
        }
    }

    /// Our Gateways of the last compilation, oldest first.
    pub fn plans(&self) -> &[GatewayPlan] {
        &self.plans
    }

    /// The same as [`compile`], with `Arc`s of the last snapshot wherever they are equal.
    pub fn compile(&mut self, objects: &Objects) -> Compiled {
        self.lower(objects);
        let mut statuses = Statuses::default();
        let mut gateways = Gateways::collect(objects, self.placement);
        let models = models::Tables::build(objects);
        let attached = routes::attach_all(objects, &self.lowered, &mut gateways);
        let linker = Linker::link(objects, &models, &gateways, &attached, self.last.as_deref());

        let mut rules = FxHashMap::default();
        for route in &attached {
            for rule in linker.rules(route) {
                let key = (rule.route.clone(), rule.index);
                let rule = share(Arc::new(rule), self.rules.get(&key));
                route.add_to_listeners(&rule, &mut gateways);
                rules.insert(key, rule);
            }
        }
        self.rules = rules;
        self.taken = routes::taken(&attached);
        self.plans = gateways.list.iter().map(GatewayPlan::of).collect();

        gateways.report(objects, &mut statuses);
        routes::report(objects, &attached, &mut statuses);
        backend_tls::report(objects, &linker, &gateways, &mut statuses);
        pools::report(objects, &linker, &gateways, &mut statuses);
        models.report(objects, &mut statuses);
        let snapshot = self.snapshot(gateways, linker);
        self.last = Some(Arc::clone(&snapshot));
        Compiled { snapshot, statuses }
    }

    /// Lowers the routes that changed and forgets those that are gone.
    fn lower(&mut self, objects: &Objects) {
        let mut lowered = FxHashMap::default();
        for (name, entry) in &objects.http_routes {
            let known = self.lowered.remove(name);
            let known = known.filter(|(object, _)| Arc::ptr_eq(object, &entry.object));
            let kept = known.unwrap_or_else(|| {
                (
                    Arc::clone(&entry.object),
                    Arc::new(LoweredRoute::lower(&entry.object)),
                )
            });
            lowered.insert(name.clone(), kept);
        }
        self.lowered = lowered;
    }

    fn snapshot(&self, gateways: Gateways, linker: Linker<'_>) -> Arc<Snapshot> {
        let last = self.last.as_deref();
        let known = |address, port| {
            last.and_then(|last| {
                last.binds
                    .iter()
                    .find(|bind| (bind.address, bind.port) == (address, port))
            })
        };
        let mut binds = Vec::new();
        for ((address, port), mut listeners) in gateways.into_listeners() {
            let known = known(address, port);
            for listener in &mut listeners {
                let same = known.and_then(|bind| {
                    bind.listeners.iter().find(|earlier| {
                        (&earlier.gateway, &earlier.name) == (&listener.gateway, &listener.name)
                    })
                });
                *listener = share(Arc::clone(listener), same);
            }
            let hosts = HostIndex::new(listeners.iter().map(|listener| &listener.hostname));
            let mut listening = listeners.iter();
            let has_base_models = listening.any(|listener| listener.base_models.is_some());
            binds.push(share(
                Arc::new(Bind {
                    address,
                    port,
                    listeners,
                    hosts,
                    has_base_models,
                }),
                known,
            ));
        }
        let mut snapshot = Snapshot {
            binds,
            pools: linker.pools,
            services: linker.services,
            hash: 0,
        };
        snapshot.hash = crate::hash::of_value(&snapshot);
        share(Arc::new(snapshot), self.last.as_ref())
    }
}

/// The known node if it is equal, so that nothing holds two copies of it.
fn share<T: PartialEq>(new: Arc<T>, known: Option<&Arc<T>>) -> Arc<T> {
    match known {
        Some(known) if **known == *new => Arc::clone(known),
        _ => new,
    }
}

#[cfg(test)]
mod tests;
