//! What references lead to: backends of rules, the pools and Services behind them.
//!
//! A reference that leads nowhere stays in its rule as an invalid backend and keeps its weight: its
//! share of requests is answered 500.

use std::sync::Arc;

use indexmap::IndexMap;
use rustc_hash::FxHashSet;

use super::gateways::Gateways;
use super::grants::{self, Referrer};
use super::routes::AttachedRoute;
use super::{models, pools, share};
use crate::members;
use crate::name::ObjectName;
use crate::objects::http_route::HttpBackendReference;
use crate::objects::service::ServiceType;
use crate::objects::{GATEWAY_GROUP, HttpRoute, Kind, Objects, POOL_GROUP, POOL_GROUP_X, Service};
use crate::rule::{Backend, Filters, Rule, Target};
use crate::snapshot::{AppProtocol, PoolConfig, ServiceConfig, ServicePort, Snapshot};
use crate::status::Reason;

/// What one reference leads to.
#[derive(Clone, Debug)]
pub(super) enum Resolved {
    Pool(ObjectName),
    Service(ServicePort),
    Invalid { reason: Reason, message: String },
}

/// The references of a route, rule by rule.
pub(super) fn resolve(
    objects: &Objects,
    name: &ObjectName,
    route: &HttpRoute,
) -> Vec<Vec<Resolved>> {
    let rules = route.spec.rules.as_deref().unwrap_or_default();
    let one = |reference| {
        resolve_one(objects, name, reference)
            .unwrap_or_else(|(reason, message)| Resolved::Invalid { reason, message })
    };
    rules
        .iter()
        .map(|rule| rule.backend_refs.iter().map(one).collect())
        .collect()
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
    objects: &'a Objects,
}

impl<'a> Linker<'a> {
    pub(super) fn link(
        objects: &'a Objects,
        models: &models::Tables,
        gateways: &Gateways,
        routes: &[AttachedRoute],
        last: Option<&Snapshot>,
    ) -> Self {
        let mut linker = Self {
            pools: IndexMap::new(),
            services: IndexMap::new(),
            users: IndexMap::new(),
            objects,
        };
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
                    Resolved::Service(port) => linker.add_service(port, last),
                    Resolved::Invalid { .. } => {}
                }
            }
        }
        linker.users.sort_unstable_keys();
        linker.services.sort_unstable_keys();
        for (name, users) in &linker.users {
            let built_in = users.iter().filter_map(|user| gateways.list.get(*user));
            let built_in = built_in
                .into_iter()
                .any(|gateway| gateway.wants_built_in_picker());
            if let Some(pool) = pools::lower(objects, name, models.table(name), built_in) {
                let known = last.and_then(|last| last.pools.get(name));
                linker
                    .pools
                    .insert(name.clone(), share(Arc::new(pool), known));
            }
        }
        linker
    }

    fn add_service(&mut self, port: &ServicePort, last: Option<&Snapshot>) {
        if self.services.contains_key(port) {
            return;
        }
        let Some(entry) = self.objects.services.get(&port.name) else {
            return;
        };
        let config = ServiceConfig {
            name: port.name.clone(),
            port: port.port,
            app_protocol: app_protocol(&entry.object, port.port),
            tls: None,
            endpoints: members::of_service(self.objects, port, &entry.object),
        };
        let known = last.and_then(|last| last.services.get(port));
        self.services
            .insert(port.clone(), share(Arc::new(config), known));
    }

    /// The compiled rules of a route.
    pub(super) fn rules(&self, route: &AttachedRoute) -> Vec<Rule> {
        if !route.is_attached() {
            return Vec::new();
        }
        let spec = route.object.spec.rules.as_deref().unwrap_or_default();
        let rules = route.lowered.rules.iter().map(|lowered| {
            let position = lowered.index as usize;
            let written = spec.get(position).map(|rule| rule.backend_refs.as_slice());
            let resolved = route.references.get(position).map(Vec::as_slice);
            let parts = written
                .unwrap_or_default()
                .iter()
                .zip(resolved.unwrap_or_default());
            let parts = parts.zip(&lowered.backend_filters);
            let backends = parts.map(|((reference, resolved), filters)| {
                self.backend(reference, resolved, filters.as_ref())
            });
            Rule {
                route: route.name.clone(),
                index: lowered.index,
                name: lowered.name.clone(),
                filters: lowered.filters.clone(),
                backends: if lowered.fault.is_some() {
                    Vec::new()
                } else {
                    backends.collect()
                },
                timeouts: lowered.timeouts,
                fault: lowered.fault.clone(),
            }
        });
        rules.collect()
    }

    fn backend(
        &self,
        reference: &HttpBackendReference,
        resolved: &Resolved,
        filters: Result<&Filters, &String>,
    ) -> Backend {
        let invalid = |reason: &str| Target::Invalid {
            reason: reason.into(),
        };
        let target = match (resolved, filters) {
            (Resolved::Invalid { message, .. }, _) | (_, Err(message)) => invalid(message),
            (Resolved::Pool(name), Ok(_)) => match self.pools.get(name) {
                None => invalid("the pool is gone"),
                Some(pool) => pools::unserved(pool)
                    .map_or_else(|| Target::Pool(pool.clone()), |reason| invalid(&reason)),
            },
            (Resolved::Service(port), Ok(_)) => self.services.get(port).map_or_else(
                || invalid("the service is gone"),
                |service| Target::Service(service.clone()),
            ),
        };
        Backend {
            weight: reference.weight.map_or(1, |weight| weight.value()),
            filters: filters.cloned().unwrap_or_default(),
            target,
        }
    }
}

fn app_protocol(service: &Service, port: u16) -> AppProtocol {
    let ports = service.spec.iter().flat_map(|spec| &spec.ports);
    let mut ports = ports.filter(|known| known.port.number() == port);
    let name = ports.next().and_then(|port| port.app_protocol.as_deref());
    pools::app_protocol(name)
}
