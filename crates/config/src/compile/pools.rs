//! Pools: both versions lowered to one form, their policies and statuses.

use super::Age;
use super::gateways::Gateways;
use super::link::Linker;
use crate::members;
use crate::name::ObjectName;
use crate::objects::inference_pool::{EndpointPickerReference, FailureMode, InferencePoolSpec};
use crate::objects::penstock::{PoolPolicySpec, ProfileChoice};
use crate::objects::service::ServiceType;
use crate::objects::{Kind, Objects, POOL_GROUP, POOL_GROUP_X, PoolPolicy};
use crate::snapshot::{
    AppProtocol, ExternalPicker, PickerKind, PickerTls, PoolConfig, ServicePort,
};
use crate::status::{
    Condition, ConditionType, ObjectStatus, ParentStatus, Reason, Statuses, Truth,
};
use crate::subset::{self, Subset};
use crate::tls::BackendTls;
use picker::{ModelTable, PoolSpec, Profile, QueueLimits};
use std::sync::Arc;

/// The endpoint picker's usual port.
const PICKER_PORT: u16 = 9002;
/// How long an endpoint picker may take, unless a policy says otherwise.
const PICK_SECONDS: f32 = 5.0;

/// A pool of either version as v1; v1 wins where both exist.
pub(crate) fn find(objects: &Objects, name: &ObjectName) -> Option<InferencePoolSpec> {
    let v1 = objects
        .inference_pools
        .get(name)
        .map(|entry| entry.object.spec.clone());
    v1.or_else(|| {
        objects
            .inference_pools_v1alpha2
            .get(name)
            .map(|entry| entry.object.spec.to_v1())
    })
}

/// The Service that a pool names as its endpoint picker, and its port.
pub(super) fn picker_service(objects: &Objects, name: &ObjectName) -> Option<ServicePort> {
    let reference = find(objects, name)?.endpoint_picker_ref?;
    Some(ServicePort {
        name: ObjectName::new(&name.namespace, &reference.name),
        port: picker_port(&reference),
    })
}

fn picker_port(reference: &EndpointPickerReference) -> u16 {
    let port = reference.port.as_ref();
    port.map_or(PICKER_PORT, |port| port.number.number())
}

/// The picker that a pool names. One that is not there has no endpoints: it does not answer.
pub(super) fn external(
    objects: &Objects,
    name: &ObjectName,
    tls: Result<Option<Arc<BackendTls>>, String>,
) -> Option<ExternalPicker> {
    let reference = find(objects, name)?.endpoint_picker_ref?;
    let service = picker_service(objects, name)?;
    let usable = check_picker(objects, &name.namespace, &reference).is_ok();
    let entry = objects.services.get(&service.name).filter(|_| usable);
    let speaks = entry.and_then(|entry| {
        let mut ports = entry.object.spec.iter().flat_map(|spec| &spec.ports);
        let port = ports.find(|port| port.port.number() == service.port)?;
        port.app_protocol.as_deref()
    });
    let policies = policies(objects, name);
    let policy = policies.first().map(|policy| &policy.spec);
    Some(ExternalPicker {
        fail_open: reference.failure_mode == Some(FailureMode::FailOpen),
        pick_seconds: policy
            .and_then(|policy| policy.pick_seconds)
            .unwrap_or(PICK_SECONDS),
        tls: match tls {
            Ok(Some(tls)) => PickerTls::Verified(tls),
            Ok(None) if app_protocol(speaks) == AppProtocol::H2c => PickerTls::None,
            Ok(None) => PickerTls::Unverified,
            Err(message) => PickerTls::Unusable(message),
        },
        endpoints: entry
            .map(|entry| members::of_service(objects, &service, &entry.object))
            .unwrap_or_default(),
        service,
    })
}

/// Compiles one pool.
pub(super) fn lower(
    objects: &Objects,
    name: &ObjectName,
    models: ModelTable,
    external: Option<ExternalPicker>,
) -> Option<PoolConfig> {
    let spec = find(objects, name)?;
    let policy = policies(objects, name)
        .first()
        .map(|policy| policy.spec.clone());
    let PoolPolicySpec {
        profile,
        saturation_seconds,
        queue,
        probes,
        subsets,
        ..
    } = policy.unwrap_or_default();
    let queue = queue.unwrap_or_default();
    let defaults = PoolSpec::default();
    let limits = defaults.queue;
    let picker = PoolSpec {
        name: name.to_string(),
        models,
        profile: match profile {
            Some(ProfileChoice::LeastRequests) => Profile::LeastRequests,
            _ => Profile::Cost,
        },
        saturation_seconds: saturation_seconds.unwrap_or(defaults.saturation_seconds),
        queue: QueueLimits {
            requests: queue
                .requests
                .map_or(limits.requests, |requests| requests as usize),
            wait_seconds: queue
                .seconds
                .map_or(limits.wait_seconds, |seconds| seconds as f32),
            bytes: queue.bytes.map_or(limits.bytes, |bytes| {
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }),
        },
        probes: probes.unwrap_or(true),
    };
    Some(PoolConfig {
        name: name.clone(),
        picker,
        picker_kind: external.map_or(PickerKind::BuiltIn, PickerKind::External),
        target_ports: spec
            .target_ports
            .iter()
            .map(|port| port.number.number())
            .collect(),
        app_protocol: app_protocol(spec.app_protocol.as_deref()),
        tls: None,
        subsets: Subset::of_specs(&subsets),
    })
}

/// The subsets of a pool.
pub(crate) fn subsets(objects: &Objects, pool: &ObjectName) -> Vec<Subset> {
    let policies = policies(objects, pool);
    let specs = policies.first().map(|policy| &*policy.spec.subsets);
    Subset::of_specs(specs.unwrap_or_default())
}

pub(super) fn app_protocol(name: Option<&str>) -> AppProtocol {
    match name {
        Some("kubernetes.io/h2c") => AppProtocol::H2c,
        _ => AppProtocol::Http1,
    }
}

/// Whether a reference's group and kind mean a pool.
fn is_pool(group: &str, kind: &str) -> bool {
    kind == Kind::InferencePool.as_str() && [POOL_GROUP, POOL_GROUP_X].contains(&group)
}

/// The policies of a pool, oldest first.
fn policies<'a>(objects: &'a Objects, pool: &ObjectName) -> Vec<&'a PoolPolicy> {
    let mut found: Vec<(Age, &ObjectName, &PoolPolicy)> = objects
        .pool_policies
        .iter()
        .filter(|(name, entry)| {
            name.namespace == pool.namespace
                && entry.object.spec.target_refs.iter().any(|target| {
                    is_pool(&target.group, &target.kind) && *target.name == *pool.name
                })
        })
        .map(|(name, entry)| (Age::of(&entry.object.metadata), name, &*entry.object))
        .collect();
    found.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    found.into_iter().map(|(_, _, policy)| policy).collect()
}

/// Statuses of pools and their policies.
pub(super) fn report(
    objects: &Objects,
    linker: &Linker<'_>,
    gateways: &Gateways,
    statuses: &mut Statuses,
) {
    let v1 = objects
        .inference_pools
        .keys()
        .map(|name| (Kind::InferencePool, name));
    let older = objects.inference_pools_v1alpha2.keys();
    let older = older.map(|name| (Kind::InferencePoolV1Alpha2, name));
    for (kind, name) in v1.chain(older) {
        let mut status = ObjectStatus::new(kind, name, objects.origin(kind, name));
        let resolved = picker_condition(objects, name);
        let is_shadowed =
            kind == Kind::InferencePoolV1Alpha2 && objects.inference_pools.contains_key(name);
        let parents = linker.pool_parents.get(name).filter(|_| !is_shadowed);
        let parents = parents.into_iter().flatten();
        for (gateway, refused) in parents {
            let Some(gateway) = gateways.list.get(*gateway) else {
                continue;
            };
            let built_in = gateway.wants_built_in_picker();
            let fine = Condition::plain(
                ConditionType::ResolvedRefs,
                Truth::True,
                Reason::ResolvedRefs,
            );
            status.parents.push(ParentStatus {
                gateway: gateway.name.clone(),
                section_name: None,
                port: None,
                reference: None,
                ours: true,
                conditions: vec![
                    accepted_condition(refused.as_ref()),
                    if built_in { fine } else { resolved.clone() },
                ],
            });
        }
        statuses.objects.push(status);
    }
    for (name, entry) in &objects.pool_policies {
        let mut status = ObjectStatus::new(Kind::PoolPolicy, name, entry.origin.as_ref());
        status
            .conditions
            .push(policy_condition(objects, name, &entry.object));
        statuses.objects.push(status);
    }
}

/// Of a pool towards a Gateway: which takes a route to it, or refuses all of them.
fn accepted_condition(refused: Option<&ObjectName>) -> Condition {
    let accepted = Condition::plain(ConditionType::Accepted, Truth::True, Reason::Accepted);
    let Some(route) = refused else {
        return accepted;
    };
    Condition {
        status: Truth::False,
        reason: Reason::HttpRouteNotAccepted,
        message: format!("HTTPRoute {route} is not accepted; its status says why"),
        ..accepted
    }
}

fn picker_condition(objects: &Objects, name: &ObjectName) -> Condition {
    let fine = Condition::plain(
        ConditionType::ResolvedRefs,
        Truth::True,
        Reason::ResolvedRefs,
    );
    let reference = find(objects, name).and_then(|spec| spec.endpoint_picker_ref);
    match reference.map(|reference| check_picker(objects, &name.namespace, &reference)) {
        Some(Err(message)) => Condition {
            status: Truth::False,
            reason: Reason::InvalidExtensionRef,
            message,
            path: "spec.endpointPickerRef".to_owned(),
            ..fine
        },
        _ => fine,
    }
}

fn check_picker(
    objects: &Objects,
    namespace: &str,
    reference: &EndpointPickerReference,
) -> Result<(), String> {
    let group = reference.group.as_deref().unwrap_or_default();
    let kind = reference.kind.as_deref().unwrap_or(Kind::Service.as_str());
    if (group, kind) != ("", Kind::Service.as_str()) {
        return Err(format!("{kind} of group `{group}` is no endpoint picker"));
    }
    let name = ObjectName::new(namespace, &reference.name);
    let Some(entry) = objects.services.get(&name) else {
        return Err(format!("Service {name} not found"));
    };
    let service_type = entry
        .object
        .spec
        .as_ref()
        .and_then(|spec| spec.service_type.as_ref());
    if service_type == Some(&ServiceType::ExternalName) {
        return Err(format!("Service {name} is an ExternalName"));
    }
    let wanted = picker_port(reference);
    let mut ports = entry.object.spec.iter().flat_map(|spec| &spec.ports);
    if !ports.any(|port| port.port.number() == wanted) {
        return Err(format!("Service {name} has no port {wanted}"));
    }
    Ok(())
}

fn policy_condition(objects: &Objects, name: &ObjectName, policy: &PoolPolicy) -> Condition {
    let mut condition = Condition::plain(ConditionType::Accepted, Truth::True, Reason::Accepted);
    for (index, target) in policy.spec.target_refs.iter().enumerate() {
        let pool = ObjectName::new(&name.namespace, &target.name);
        let refusal = if !is_pool(&target.group, &target.kind) {
            Some((Reason::InvalidKind, format!("{} is no pool", target.kind)))
        } else if find(objects, &pool).is_none() {
            Some((
                Reason::TargetNotFound,
                format!("InferencePool {pool} not found"),
            ))
        } else {
            let oldest = policies(objects, &pool)
                .first()
                .map(|policy| &*policy.metadata.name);
            let other = oldest.filter(|oldest| *oldest != &*name.name);
            other.map(|other| (Reason::Conflicted, format!("PoolPolicy {other} came first")))
        };
        if let Some((reason, message)) = refusal {
            condition.status = Truth::False;
            condition.reason = reason;
            condition.message = message;
            condition.path = format!("spec.targetRefs[{index}]");
        }
    }
    let mut problems = subset::problems(&policy.spec.subsets).into_iter();
    if condition.status == Truth::True
        && let Some((path, message)) = problems.next()
    {
        condition.status = Truth::False;
        condition.reason = Reason::Invalid;
        condition.message = format!("{message}; the subset is left out");
        condition.path = path;
    }
    condition
}
