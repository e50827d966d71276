//! What references lead to: backends of rules, the pools and Services behind them.
//!
//! A reference that leads nowhere stays in its rule as an invalid backend and keeps its weight: its
//! share of requests is answered 500.

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use rustc_hash::{FxHashMap, FxHashSet};

use super::backend_tls::{self, Backend as TlsBackend};
use super::gateways::Gateways;
use super::grants::{self, Referrer};
use super::routes::AttachedRoute;
use super::{models, pools, share};
use crate::members;
use crate::name::ObjectName;
use crate::objects::http_route::{HttpBackendReference, HttpRouteFilter, HttpRouteRule};
use crate::objects::service::ServiceType;
use crate::objects::{GATEWAY_GROUP, HttpRoute, Kind, Objects, POOL_GROUP, POOL_GROUP_X, Service};
use crate::rule::{Backend, Filters, Rule, Target};
use crate::snapshot::{
    AppProtocol, ExternalPicker, PoolConfig, ServiceConfig, ServicePort, Snapshot,
};
use crate::status::Reason;
use crate::tls::CertificatePem;

/// What one reference leads to.
#[derive(Clone, Debug)]
pub(super) enum Resolved {
    Pool(ObjectName),
    Service(ServicePort),
    Invalid { reason: Reason, message: String },
}

/// The references of a route, rule by rule: first those of backends, then those of mirrors.
pub(super) fn resolve(
    objects: &Objects,
    name: &ObjectName,
    route: &HttpRoute,
) -> Vec<Vec<Resolved>> {
    let rules = route.spec.rules.as_deref().unwrap_or_default();
    let one = |reference: &HttpBackendReference| {
        resolve_one(objects, name, reference)
            .unwrap_or_else(|(reason, message)| Resolved::Invalid { reason, message })
    };
    let rules = rules.iter().map(|rule| {
        let mirrors = rule
            .mirrors()
            .map(|mirror| one(&(&mirror.backend_ref).into()));
        let backends = rule.backend_refs.iter().map(one);
        backends.chain(mirrors).collect()
    });
    rules.collect()
}

fn resolve_one(
    objects: &Objects,
    route: &ObjectName,
    reference: &HttpBackendReference,
) -> Result<Resolved, (Reason, String)> {
    let group = reference.group.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or(Kind::Service.as_str());
    let namespace = reference.namespace.as_deref().unwrap_or(&route.namespace);
    let name = ObjectName::new(namespace, &reference.name);
    let is_pool =
        kind == Kind::InferencePool.as_str() && [POOL_GROUP, POOL_GROUP_X].contains(&group);
    if !is_pool && (group, kind) != ("", Kind::Service.as_str()) {
        let message = format!("{kind} of group `{group}` is no backend that is served");
        return Err((Reason::InvalidKind, message));
    }
    let from = Referrer {
        group: GATEWAY_GROUP,
        kind: Kind::HttpRoute.as_str(),
        namespace: &route.namespace,
    };
    if !grants::permits(objects, &from, (group, kind), &name) {
        return Err((
            Reason::RefNotPermitted,
            format!("no ReferenceGrant permits {kind} {name}"),
        ));
    }
    if is_pool {
        let exists = pools::find(objects, &name).is_some();
        return exists.then(|| Resolved::Pool(name.clone())).ok_or_else(|| {
            (
                Reason::BackendNotFound,
                format!("InferencePool {name} not found"),
            )
        });
    }
    resolve_service(objects, name, reference)
}

fn resolve_service(
    objects: &Objects,
    name: ObjectName,
    reference: &HttpBackendReference,
) -> Result<Resolved, (Reason, String)> {
    let Some(entry) = objects.services.get(&name) else {
        return Err((Reason::BackendNotFound, format!("Service {name} not found")));
    };
    let spec = entry.object.spec.as_ref();
    let service_type = spec.and_then(|spec| spec.service_type.as_ref());
    if service_type == Some(&ServiceType::ExternalName) {
        // CVE-2021-25740: an ExternalName leads out of the namespace's own network.
        return Err((
            Reason::InvalidKind,
            format!("Service {name} is an ExternalName"),
        ));
    }
    let Some(port) = reference.port else {
        return Err((
            Reason::BackendNotFound,
            format!("a port of Service {name} is needed"),
        ));
    };
    let ports = spec.map(|spec| spec.ports.as_slice()).unwrap_or_default();
    if !ports.iter().any(|known| known.port == port) {
        let numbers: Vec<_> = ports
            .iter()
            .map(|port| port.port.number().to_string())
            .collect();
        let message = format!(
            "Service {name} has no port {}, only {}",
            port.number(),
            numbers.join(", ")
        );
        return Err((Reason::BackendNotFound, message));
    }
    Ok(Resolved::Service(ServicePort {
        name,
        port: port.number(),
    }))
}

/// The pools and Services that attached routes lead to.
pub(super) struct Linker<'a> {
    pub(super) pools: IndexMap<ObjectName, Arc<PoolConfig>>,
    pub(super) services: IndexMap<ServicePort, Arc<ServiceConfig>>,
    /// Gateways, by position, whose routes lead to a pool.
    pub(super) users: IndexMap<ObjectName, FxHashSet<usize>>,
    /// Gateways, by position, that routes to a pool name; with a route that is refused where none is taken.
    pub(super) pool_parents: FxHashMap<ObjectName, BTreeMap<usize, Option<ObjectName>>>,
    /// What `users` is for pools, for ports of Services, with the port's name.
    service_users: IndexMap<ServicePort, (String, FxHashSet<usize>)>,
    /// The same for Services behind which endpoint pickers are asked.
    picker_users: IndexMap<ServicePort, (String, FxHashSet<usize>)>,
    /// Why a port of a Service or a pool cannot be connected to as it is asked for.
    service_faults: FxHashMap<ServicePort, String>,
    pool_faults: FxHashMap<ObjectName, String>,
    objects: &'a Objects,
}

impl<'a> Linker<'a> {
    /// Who leads where; what is there is not lowered yet.
    pub(super) fn link(
        objects: &'a Objects,
        gateways: &Gateways,
        routes: &[AttachedRoute],
    ) -> Self {
        let mut linker = Self {
            pools: IndexMap::new(),
            services: IndexMap::new(),
            users: IndexMap::new(),
            pool_parents: FxHashMap::default(),
            service_users: IndexMap::new(),
            picker_users: IndexMap::new(),
            service_faults: FxHashMap::default(),
            pool_faults: FxHashMap::default(),
            objects,
        };
        for route in routes {
            linker.note_parents(route);
        }
        for route in routes.iter().filter(|route| route.is_attached()) {
            let accepted = route.parents.iter().filter(|parent| parent.is_accepted());
            let accepted: Vec<usize> = accepted.filter_map(|parent| parent.index).collect();
            for resolved in route.references.iter().flatten() {
                match resolved {
                    Resolved::Pool(name) => {
                        linker
                            .users
                            .entry(name.clone())
                            .or_default()
                            .extend(&accepted);
                    }
                    Resolved::Service(port) => {
                        let name = port_name(objects, port);
                        let users = linker.service_users.entry(port.clone());
                        users
                            .or_insert_with(|| (name, FxHashSet::default()))
                            .1
                            .extend(&accepted);
                    }
                    Resolved::Invalid { .. } => {}
                }
            }
        }
        linker.users.sort_unstable_keys();
        linker.service_users.sort_unstable_keys();
        linker.add_picker_users(gateways);
        linker
    }

    fn note_parents(&mut self, route: &AttachedRoute) {
        for resolved in route.references.iter().flatten() {
            let Resolved::Pool(name) = resolved else {
                continue;
            };
            let parents = self.pool_parents.entry(name.clone()).or_default();
            for (gateway, is_taken) in route.verdicts() {
                let refused = parents.entry(gateway);
                let refused = refused.or_insert_with(|| Some(route.name.clone()));
                refused.take_if(|_| is_taken);
            }
        }
    }

    fn add_picker_users(&mut self, gateways: &Gateways) {
        for (pool, users) in &self.users {
            let asking = asking(gateways, users);
            if let Some(service) = pools::picker_service(self.objects, pool)
                && !asking.is_empty()
            {
                let name = port_name(self.objects, &service);
                let users = self.picker_users.entry(service);
                let users = users.or_insert_with(|| (name, FxHashSet::default()));
                users.1.extend(asking);
            }
        }
    }

    /// Compiles the Services and pools that routes lead to.
    pub(super) fn lower(
        &mut self,
        models: &models::Tables,
        gateways: &Gateways,
        last: Option<&Snapshot>,
    ) {
        self.add_services(gateways, last);
        self.add_pools(models, gateways, last);
    }

    fn add_services(&mut self, gateways: &Gateways, last: Option<&Snapshot>) {
        for (port, (port_name, users)) in &self.service_users {
            let Some(entry) = self.objects.services.get(&port.name) else {
                continue;
            };
            let shown = gateways.client_certificate(users);
            let tls =
                backend_tls::resolve(self.objects, TlsBackend::Service(port, port_name), shown);
            if let Err(fault) = &tls {
                self.service_faults.insert(port.clone(), fault.clone());
            }
            let config = ServiceConfig {
                name: port.name.clone(),
                port: port.port,
                app_protocol: app_protocol(&entry.object, port.port),
                tls: tls.unwrap_or_default(),
                endpoints: members::of_service(self.objects, port, &entry.object),
            };
            let known = last.and_then(|last| last.services.get(port));
            self.services
                .insert(port.clone(), share(Arc::new(config), known));
        }
    }

    fn add_pools(&mut self, models: &models::Tables, gateways: &Gateways, last: Option<&Snapshot>) {
        for (name, users) in &self.users {
            let shown = gateways.client_certificate(users);
            let external = external_picker(self.objects, name, shown, &asking(gateways, users));
            let tls = backend_tls::resolve(self.objects, TlsBackend::Pool(name), shown);
            if let Err(fault) = &tls {
                self.pool_faults.insert(name.clone(), fault.clone());
            }
            let lowered = pools::lower(self.objects, name, models.table(name), external);
            if let Some(mut pool) = lowered {
                pool.tls = tls.unwrap_or_default();
                let known = last.and_then(|last| last.pools.get(name));
                self.pools
                    .insert(name.clone(), share(Arc::new(pool), known));
            }
        }
    }

    /// Everything that routes lead to, with the Gateways whose routes do.
    pub(super) fn backends(&self) -> impl Iterator<Item = (TlsBackend<'_>, &FxHashSet<usize>)> {
        let services = self.service_users.iter().chain(&self.picker_users);
        let services =
            services.map(|(port, (name, users))| (TlsBackend::Service(port, name), users));
        let pools = self.users.iter();
        services.chain(pools.map(|(name, users)| (TlsBackend::Pool(name), users)))
    }

    /// The compiled rules of a route.
    pub(super) fn rules(&self, route: &AttachedRoute) -> Vec<Rule> {
        if !route.is_attached() {
            return Vec::new();
        }
        let spec = route.object.spec.rules.as_deref().unwrap_or_default();
        let rules = route.lowered.rules.iter().map(|lowered| {
            let position = lowered.index as usize;
            let rule = spec.get(position);
            let written = rule.map(|rule| rule.backend_refs.as_slice());
            let resolved = route.references.get(position).map(Vec::as_slice);
            let parts = written
                .unwrap_or_default()
                .iter()
                .zip(resolved.unwrap_or_default());
            let parts = parts.zip(&lowered.backend_filters);
            let backends = parts.map(|((reference, resolved), filters)| {
                self.backend(reference, resolved, filters.as_ref())
            });
            let mut backends: Vec<Backend> = backends.collect();
            let mut filters = lowered.filters.clone();
            let mirrors = resolved.and_then(|all| all.get(written.map_or(0, <[_]>::len)..));
            let all = std::iter::once(&mut filters);
            let all = all.chain(backends.iter_mut().map(|backend| &mut backend.filters));
            self.lead_mirrors(all, rule, mirrors.unwrap_or_default());
            Rule {
                route: route.name.clone(),
                index: lowered.index,
                name: lowered.name.clone(),
                filters,
                backends: if lowered.fault.is_some() {
                    Vec::new()
                } else {
                    backends
                },
                timeouts: lowered.timeouts,
                retry: lowered.retry.clone(),
                fault: lowered.fault.clone(),
            }
        });
        rules.collect()
    }

    /// Gives the mirrors of each list of filters, in order, what their references lead to.
    fn lead_mirrors<'f>(
        &self,
        filters: impl Iterator<Item = &'f mut Filters>,
        rule: Option<&HttpRouteRule>,
        mut resolved: &[Resolved],
    ) {
        let written = rule.into_iter().flat_map(HttpRouteRule::filter_lists);
        for (filters, written) in filters.zip(written) {
            let count = written.iter().filter_map(HttpRouteFilter::mirror).count();
            let (own, rest) = resolved.split_at(count.min(resolved.len()));
            resolved = rest;
            let mirrors = filters.more.iter_mut().flat_map(|more| &mut more.mirrors);
            for (mirror, resolved) in mirrors.zip(own) {
                mirror.target = self.target(resolved);
            }
        }
    }

    fn backend(
        &self,
        reference: &HttpBackendReference,
        resolved: &Resolved,
        filters: Result<&Filters, &String>,
    ) -> Backend {
        let target = match filters {
            Err(message) => Target::Invalid {
                reason: message.as_str().into(),
            },
            Ok(_) => self.target(resolved),
        };
        Backend {
            weight: reference.weight.map_or(1, |weight| weight.value()),
            filters: filters.cloned().unwrap_or_default(),
            target,
        }
    }

    fn target(&self, resolved: &Resolved) -> Target {
        let invalid = |reason: &str| Target::Invalid {
            reason: reason.into(),
        };
        match resolved {
            Resolved::Invalid { message, .. } => invalid(message),
            Resolved::Pool(name) => match self.pools.get(name) {
                _ if self.pool_faults.contains_key(name) => {
                    invalid(self.pool_faults.get(name).map_or("", String::as_str))
                }
                None => invalid("the pool is gone"),
                Some(pool) => Target::Pool(pool.clone()),
            },
            Resolved::Service(port) => {
                match (self.service_faults.get(port), self.services.get(port)) {
                    (Some(fault), _) => invalid(fault),
                    (None, None) => invalid("the service is gone"),
                    (None, Some(service)) => Target::Service(service.clone()),
                }
            }
        }
    }
}

fn port_name(objects: &Objects, port: &ServicePort) -> String {
    let entry = objects.services.get(&port.name);
    let ports = entry.iter().flat_map(|entry| &entry.object.spec);
    let mut ports = ports.flat_map(|spec| &spec.ports);
    let found = ports.find(|known| known.port.number() == port.port);
    found.and_then(|port| port.name.clone()).unwrap_or_default()
}

/// The Gateways of `users` that ask the endpoint pickers which pools name.
fn asking(gateways: &Gateways, users: &FxHashSet<usize>) -> FxHashSet<usize> {
    let asks = |user: &usize| {
        let gateway = gateways.list.get(*user);
        gateway.is_some_and(|gateway| !gateway.wants_built_in_picker())
    };
    users.iter().copied().filter(asks).collect()
}

/// The picker of a pool, if any Gateway asks it.
fn external_picker(
    objects: &Objects,
    pool: &ObjectName,
    shown: Option<&CertificatePem>,
    asking: &FxHashSet<usize>,
) -> Option<ExternalPicker> {
    let service = pools::picker_service(objects, pool).filter(|_| !asking.is_empty())?;
    let name = port_name(objects, &service);
    let tls = backend_tls::resolve(objects, TlsBackend::Service(&service, &name), shown);
    pools::external(objects, pool, tls)
}

fn app_protocol(service: &Service, port: u16) -> AppProtocol {
    let ports = service.spec.iter().flat_map(|spec| &spec.ports);
    let mut ports = ports.filter(|known| known.port.number() == port);
    let name = ports.next().and_then(|port| port.app_protocol.as_deref());
    pools::app_protocol(name)
}
