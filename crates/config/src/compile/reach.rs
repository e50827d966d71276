//! What one Gateway's proxy may see: exactly the objects that its own configuration is made of.
//!
//! Compiling those gives what compiling everything gives for that Gateway (the tests say so for
//! random objects), and nothing else leaves the controller: no route that the Gateway refuses, no
//! Secret that a grant does not permit, no Pod of a pool that none of its routes leads to.

use rustc_hash::FxHashSet;

use super::gateways::class_of;
use super::grants::{self, Referrer};
use super::{Compiler, Placement, pools};
use crate::base_models;
use crate::name::ObjectName;
use crate::objects::gateway::{Gateway, ParametersReference, SecretReference};
use crate::objects::http_route::HttpBackendReference;
use crate::objects::inference_model::PoolReference;
use crate::objects::meta::selects;
use crate::objects::{GATEWAY_GROUP, Kind, Objects, POOL_GROUP, POOL_GROUP_X};

/// Ties an EndpointSlice to its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// The objects that the proxies of `gateway` need; of a Gateway that is not ours, none.
pub fn reachable(objects: &Objects, gateway: &ObjectName) -> Objects {
    let mut compiler = Compiler::new(Placement::PerGateway);
    compiler.compile(objects);
    compiler.reachable(objects, gateway)
}

impl Compiler {
    /// [`reachable`] without compiling again: `objects` are those of the last compilation, but for
    /// kinds that are not judged.
    pub fn reachable(&self, objects: &Objects, gateway: &ObjectName) -> Objects {
        let mut reach = Reach {
            objects,
            found: Objects::default(),
            pools: FxHashSet::default(),
            services: FxHashSet::default(),
        };
        if let Some(entry) = objects.gateways.get(gateway)
            && self.plans.iter().any(|plan| plan.name == *gateway)
        {
            reach.gateway(gateway, &entry.object);
            for route in self.taken.get(gateway).into_iter().flatten() {
                reach.http_route(route);
            }
        }
        reach.found
    }
}

struct Reach<'a> {
    objects: &'a Objects,
    found: Objects,
    pools: FxHashSet<ObjectName>,
    services: FxHashSet<ObjectName>,
}

impl Reach<'_> {
    fn take(&mut self, kind: Kind, name: &ObjectName) {
        if let Some(object) = self.objects.get(kind, name) {
            self.found.insert(object);
        }
    }

    fn gateway(&mut self, name: &ObjectName, gateway: &Gateway) {
        self.take(Kind::Gateway, name);
        let class = ObjectName::new("", &gateway.spec.gateway_class_name);
        self.take(Kind::GatewayClass, &class);
        if let Some(reference) =
            class_of(self.objects, gateway).and_then(|class| class.spec.parameters_ref.as_ref())
        {
            let namespace = reference.namespace.clone().unwrap_or_default();
            self.parameters(reference, &namespace);
        }
        let infrastructure = gateway.spec.infrastructure.as_ref();
        if let Some(reference) = infrastructure.and_then(|own| own.parameters_ref.as_ref()) {
            self.parameters(reference, &name.namespace);
        }
        let tls = gateway.spec.listeners.iter();
        let tls = tls.filter_map(|listener| listener.tls.as_ref());
        for reference in tls.flat_map(|tls| &tls.certificate_refs) {
            self.certificate(name, reference);
        }
        let objects = self.objects;
        for (map, entry) in &objects.config_maps {
            if map.namespace == name.namespace && base_models::is_read(&entry.object) {
                self.take(Kind::ConfigMap, map);
            }
        }
        let own = gateway.spec.tls.as_ref();
        let shown = own.and_then(|tls| tls.backend.as_ref());
        if let Some(reference) = shown.and_then(|tls| tls.client_certificate_ref.as_ref()) {
            self.certificate(name, reference);
        }
        if let Some(frontend) = own.and_then(|tls| tls.frontend.as_ref()) {
            let of_ports = frontend.per_port.iter().filter_map(|one| one.tls.as_ref());
            let asked = frontend.default.iter().chain(of_ports);
            let asked = asked.filter_map(|tls| tls.validation.as_ref());
            for reference in asked.flat_map(|asked| &asked.ca_certificate_refs) {
                let namespace = reference.namespace.as_deref().unwrap_or(&name.namespace);
                let target = ObjectName::new(namespace, &reference.name);
                let kind = (reference.group.as_str(), reference.kind.as_str());
                if self.permitted((Kind::Gateway, &name.namespace), kind, &target) {
                    self.authority(kind, &target);
                }
            }
        }
    }

    fn certificate(&mut self, gateway: &ObjectName, reference: &SecretReference) {
        let kind = reference.kind.as_deref().unwrap_or("Secret");
        let group = reference.group.as_deref().unwrap_or_default();
        if (group, kind) == ("", "Secret") {
            let namespace = reference.namespace.as_deref();
            let namespace = namespace.unwrap_or(&gateway.namespace);
            let secret = ObjectName::new(namespace, &reference.name);
            if self.permitted((Kind::Gateway, &gateway.namespace), (group, kind), &secret) {
                self.take(Kind::Secret, &secret);
            }
        }
    }

    fn authority(&mut self, kind: (&str, &str), name: &ObjectName) {
        match kind {
            ("", "ConfigMap") => self.take(Kind::ConfigMap, name),
            ("", "Secret") => self.take(Kind::Secret, name),
            _ => {}
        }
    }

    /// The policies of a backend, older ones too, with their authorities.
    fn backend_tls(&mut self, is_kind: fn(&str, &str) -> bool, backend: &ObjectName) {
        let objects = self.objects;
        for (policy, entry) in &objects.backend_tls_policies {
            let spec = &entry.object.spec;
            let targets = spec.target_refs.iter();
            let concerns = policy.namespace == backend.namespace
                && targets.into_iter().any(|target| {
                    is_kind(&target.group, &target.kind) && *target.name == *backend.name
                });
            if concerns {
                self.take(Kind::BackendTlsPolicy, policy);
                for reference in &spec.validation.ca_certificate_refs {
                    let name = ObjectName::new(&policy.namespace, &reference.name);
                    self.authority((&reference.group, &reference.kind), &name);
                }
            }
        }
    }

    fn parameters(&mut self, reference: &ParametersReference, namespace: &str) {
        let name = ObjectName::new(namespace, &reference.name);
        self.take(Kind::GatewayParameters, &name);
    }

    /// Whether a reference is permitted; its grants come along, so that the proxy sees the same.
    fn permitted(
        &mut self,
        (from, namespace): (Kind, &str),
        to: (&str, &str),
        name: &ObjectName,
    ) -> bool {
        if namespace != &*name.namespace {
            let objects = self.objects;
            for (grant, entry) in &objects.reference_grants {
                let from = entry.object.spec.from.iter();
                let concerns = grant.namespace == name.namespace
                    && from.into_iter().any(|from| from.namespace == namespace);
                if concerns {
                    self.take(Kind::ReferenceGrant, grant);
                }
            }
        }
        let from = Referrer {
            group: GATEWAY_GROUP,
            kind: from.as_str(),
            namespace,
        };
        grants::permits(self.objects, &from, to, name)
    }

    fn http_route(&mut self, name: &ObjectName) {
        self.take(Kind::HttpRoute, name);
        self.take(Kind::Namespace, &ObjectName::new("", &name.namespace));
        let objects = self.objects;
        let Some(entry) = objects.http_routes.get(name) else {
            return;
        };
        let rules = entry.object.spec.rules.iter().flatten();
        for rule in rules {
            for reference in &rule.backend_refs {
                self.backend(Kind::HttpRoute, &name.namespace, reference);
            }
            for mirror in rule.mirrors() {
                let reference = (&mirror.backend_ref).into();
                self.backend(Kind::HttpRoute, &name.namespace, &reference);
            }
        }
    }

    fn backend(&mut self, from: Kind, namespace: &str, reference: &HttpBackendReference) {
        let group = reference.group.as_deref().unwrap_or_default();
        let kind = reference.kind.as_deref().unwrap_or(Kind::Service.as_str());
        let target = reference.namespace.as_deref().unwrap_or(namespace);
        let name = ObjectName::new(target, &reference.name);
        if !self.permitted((from, namespace), (group, kind), &name) {
            return;
        }
        if is_pool(group, kind) {
            self.pool(&name);
        } else if (group, kind) == ("", Kind::Service.as_str()) {
            self.service(&name);
        }
    }

    fn service(&mut self, name: &ObjectName) {
        if !self.services.insert(name.clone()) {
            return;
        }
        self.take(Kind::Service, name);
        self.backend_tls(is_service, name);
        let objects = self.objects;
        for (slice, entry) in &objects.endpoint_slices {
            let service = entry.object.metadata.labels.get(SERVICE_LABEL);
            if slice.namespace == name.namespace
                && service.is_some_and(|service| **service == *name.name)
            {
                self.take(Kind::EndpointSlice, slice);
            }
        }
    }

    fn pool(&mut self, name: &ObjectName) {
        let objects = self.objects;
        let Some(spec) = pools::find(objects, name) else {
            return;
        };
        if !self.pools.insert(name.clone()) {
            return;
        }
        self.take(Kind::InferencePool, name);
        self.take(Kind::InferencePoolV1Alpha2, name);
        if let Some(picker) = &spec.endpoint_picker_ref {
            self.service(&ObjectName::new(&name.namespace, &picker.name));
        }
        let wanted = &spec.selector.match_labels;
        if !wanted.is_empty() {
            for (pod, entry) in &objects.pods {
                if pod.namespace == name.namespace && selects(wanted, &entry.object.metadata.labels)
                {
                    self.take(Kind::Pod, pod);
                }
            }
        }
        for (policy, entry) in &objects.pool_policies {
            let targets = &entry.object.spec.target_refs;
            if policy.namespace == name.namespace
                && targets.iter().any(|target| *target.name == *name.name)
            {
                self.take(Kind::PoolPolicy, policy);
            }
        }
        self.backend_tls(is_pool, name);
        self.models(name);
    }

    fn models(&mut self, pool: &ObjectName) {
        let objects = self.objects;
        let is_of = |name: &ObjectName, reference: &PoolReference| {
            name.namespace == pool.namespace && *reference.name == *pool.name
        };
        for (name, entry) in &objects.inference_models {
            if is_of(name, &entry.object.spec.pool_ref) {
                self.take(Kind::InferenceModel, name);
            }
        }
        for (name, entry) in &objects.inference_objectives {
            if is_of(name, &entry.object.spec.pool_ref) {
                self.take(Kind::InferenceObjective, name);
            }
        }
        for (name, entry) in &objects.inference_model_rewrites {
            if is_of(name, &entry.object.spec.pool_ref) {
                self.take(Kind::InferenceModelRewrite, name);
            }
        }
    }
}

fn is_service(group: &str, kind: &str) -> bool {
    (group, kind) == ("", Kind::Service.as_str())
}

fn is_pool(group: &str, kind: &str) -> bool {
    kind == Kind::InferencePool.as_str() && [POOL_GROUP, POOL_GROUP_X].contains(&group)
}

#[cfg(test)]
mod tests;
