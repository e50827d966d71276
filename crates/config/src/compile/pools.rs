//! Pools: both versions lowered to one form, their policies and statuses.

use super::Age;
use super::gateways::Gateways;
use super::link::Linker;
use crate::name::ObjectName;
use crate::objects::inference_pool::{EndpointPickerReference, FailureMode, InferencePoolSpec};
use crate::objects::penstock::{PoolPolicySpec, ProfileChoice};
use crate::objects::service::ServiceType;
use crate::objects::{Kind, Objects, POOL_GROUP, POOL_GROUP_X, PoolPolicy};
use crate::snapshot::{AppProtocol, PickerKind, PoolConfig};
use crate::status::{
    Condition, ConditionType, ObjectStatus, ParentStatus, Reason, Statuses, Truth,
};
use picker::{ModelTable, PoolSpec, Profile, QueueLimits};

/// The endpoint picker's usual port.
const PICKER_PORT: u16 = 9002;

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

/// Compiles one pool.
pub(super) fn lower(
    objects: &Objects,
    name: &ObjectName,
    models: ModelTable,
    built_in: bool,
) -> Option<PoolConfig> {
    let spec = find(objects, name)?;
    let policy = policies(objects, name)
        .first()
        .map(|policy| policy.spec.clone());
    let PoolPolicySpec {
        profile,
        saturation_seconds,
        queue,
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
    };
    let picker_kind = match &spec.endpoint_picker_ref {
        Some(reference) if !built_in => PickerKind::External {
            service: ObjectName::new(&name.namespace, &reference.name),
            port: reference
                .port
                .as_ref()
                .map_or(PICKER_PORT, |port| port.number.number()),
            fail_open: reference.failure_mode == Some(FailureMode::FailOpen),
        },
        _ => PickerKind::BuiltIn,
    };
    Some(PoolConfig {
        name: name.clone(),
        picker,
        picker_kind,
        target_ports: spec
            .target_ports
            .iter()
            .map(|port| port.number.number())
            .collect(),
        app_protocol: app_protocol(spec.app_protocol.as_deref()),
        tls: None,
    })
}

/// Why nothing is sent to a pool: an endpoint picker that must be asked and cannot be. One that may
/// be passed over (`failureMode: FailOpen`) is, as if it did not answer.
pub(super) fn unserved(pool: &PoolConfig) -> Option<String> {
    match &pool.picker_kind {
        PickerKind::External {
            service,
            fail_open: false,
            ..
        } => Some(format!(
            "the endpoint picker {service} cannot be asked yet: leave endpointPickerRef out, or set \
             `picker: BuiltIn` in the Gateway's GatewayParameters"
        )),
        _ => None,
    }
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
    let older = older
        .filter(|name| !objects.inference_pools.contains_key(*name))
        .map(|name| (Kind::InferencePoolV1Alpha2, name));
    for (kind, name) in v1.chain(older) {
        let mut status = ObjectStatus::new(kind, name, objects.origin(kind, name));
        let resolved = picker_condition(objects, name);
        let users = linker.users.get(name).into_iter().flatten();
        let mut users: Vec<usize> = users.copied().collect();
        users.sort_unstable();
        for gateway in users.iter().filter_map(|user| gateways.list.get(*user)) {
            let built_in = gateway.wants_built_in_picker();
            let fine = Condition::plain(
                ConditionType::ResolvedRefs,
                Truth::True,
                Reason::ResolvedRefs,
            );
            let pool = linker.pools.get(name);
            status.parents.push(ParentStatus {
                gateway: gateway.name.clone(),
                section_name: None,
                port: None,
                reference: None,
                ours: true,
                conditions: vec![
                    accepted(pool.and_then(|pool| unserved(pool))),
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

fn accepted(refusal: Option<String>) -> Condition {
    let accepted = Condition::plain(ConditionType::Accepted, Truth::True, Reason::Accepted);
    match refusal {
        None => accepted,
        Some(message) => Condition {
            status: Truth::False,
            reason: Reason::NotSupportedByParent,
            message,
            path: "spec.endpointPickerRef".to_owned(),
            ..accepted
        },
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
    condition
}
