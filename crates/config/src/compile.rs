//! Objects to snapshot and statuses: a total function that never fails.
//!
//! [`compile`] is the specification. [`Compiler`] gives the same result while it remembers what it
//! lowered and shares every node of its last snapshot that did not change. Steps, one file each:
//! our Gateways and their listeners (`gateways`), routes on their own (`lower`), who attaches where
//! (`attach`), what references lead to (`link`), names of models (`models`), pools (`pools`).
//!
//! A Gateway is ours if its GatewayClass names [`CONTROLLER_NAME`]; with [`Placement::OneProcess`]
//! also if the class is not among the objects: of a directory of files nobody else could serve it.

use std::collections::BTreeSet;
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

pub(crate) use filters::header_name;
use gateways::Gateways;
use link::Linker;
use lower::LoweredRoute;
pub use plan::{GatewayPlan, PlannedPort};
pub(crate) use pools::find as find_pool;
pub(crate) use pools::subsets as subsets_of;
pub use reach::reachable;
use routes::AttachedRoute;

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

/// Everything that statuses are made of.
struct Linked<'a> {
    gateways: Gateways,
    models: models::Tables,
    routes: Vec<AttachedRoute>,
    linker: Linker<'a>,
}

impl Linked<'_> {
    fn statuses(&self, objects: &Objects) -> Statuses {
        let mut statuses = Statuses::default();
        self.gateways.report(objects, &mut statuses);
        routes::report(objects, &self.routes, &mut statuses);
        backend_tls::report(objects, &self.linker, &self.gateways, &mut statuses);
        pools::report(objects, &self.linker, &self.gateways, &mut statuses);
        self.models.report(objects, &mut statuses);
        statuses
    }
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
        let mut linked = self.link(objects);
        let last = self.last.as_deref();
        linked.linker.lower(&linked.models, &linked.gateways, last);
        let mut rules = FxHashMap::default();
        for route in &linked.routes {
            for rule in linked.linker.rules(route) {
                let key = (rule.route.clone(), rule.index);
                let rule = share(Arc::new(rule), self.rules.get(&key));
                route.add_to_listeners(&rule, &mut linked.gateways);
                rules.insert(key, rule);
            }
        }
        self.rules = rules;
        let statuses = linked.statuses(objects);
        let snapshot = self.snapshot(linked.gateways, linked.linker);
        self.last = Some(Arc::clone(&snapshot));
        Compiled { snapshot, statuses }
    }

    /// The statuses of [`Compiler::compile`], for who serves nothing: no rule and no table is made.
    /// Where a Service's or a pool's endpoints are makes no difference to them: see
    /// [`Kind::is_judged`].
    pub fn judge(&mut self, objects: &Objects) -> Statuses {
        self.link(objects).statuses(objects)
    }

    /// Gateways of ours that took any of these routes in the last compilation.
    pub fn takers(&self, routes: &BTreeSet<ObjectName>) -> Vec<ObjectName> {
        let taken = self.taken.iter();
        let takers = taken.filter(|(_, taken)| taken.iter().any(|name| routes.contains(name)));
        takers.map(|(gateway, _)| gateway.clone()).collect()
    }

    /// Who attaches where, and what references lead to.
    fn link<'a>(&mut self, objects: &'a Objects) -> Linked<'a> {
        self.lower(objects);
        let mut gateways = Gateways::collect(objects, self.placement);
        let models = models::Tables::build(objects);
        let routes = routes::attach_all(objects, &self.lowered, &mut gateways);
        let linker = Linker::link(objects, &gateways, &routes);
        self.taken = routes::taken(&routes);
        self.plans = gateways.list.iter().map(GatewayPlan::of).collect();
        Linked {
            gateways,
            models,
            routes,
            linker,
        }
    }

    /// Lowers the routes that changed and forgets those that are gone.
    fn lower(&mut self, objects: &Objects) {
        for (name, entry) in &objects.http_routes {
            let known = self.lowered.get(name);
            if known.is_none_or(|(object, _)| !Arc::ptr_eq(object, &entry.object)) {
                let lowered = Arc::new(LoweredRoute::lower(&entry.object));
                let lowered = (Arc::clone(&entry.object), lowered);
                self.lowered.insert(name.clone(), lowered);
            }
        }
        if self.lowered.len() > objects.http_routes.len() {
            self.lowered
                .retain(|name, _| objects.http_routes.contains_key(name));
        }
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
