//! The status that an object should have: ours beside whatever others wrote.
//!
//! Entries of other controllers and conditions of other types pass through untouched, and the time of
//! a transition is kept as long as the condition's status is. What comes out equal to what stands is
//! not written.

use super::store::Stored;
use config::objects::{GATEWAY_GROUP, POOL_GROUP_X};
use config::{
    CONTROLLER_NAME, Condition, Kind, ListenerStatus, ObjectName, ObjectStatus, ParentStatus,
};
use serde_json::{Map, Value, json};

/// The types of conditions that this controller writes.
const OURS: &[&str] = &[
    "Accepted",
    "Programmed",
    "ResolvedRefs",
    "PartiallyInvalid",
    "Conflicted",
    "InsecureFrontendValidationMode",
];

/// What the compiler does not know of an object.
#[derive(Debug, Default, Clone)]
pub(super) struct Beside {
    /// Addresses of a Gateway, as its status says them.
    pub(super) addresses: Vec<Value>,
    /// Features of a GatewayClass.
    pub(super) features: &'static [&'static str],
}

/// Conditions at one generation and moment.
#[derive(Clone, Copy)]
struct Stamp<'a> {
    generation: i64,
    now: &'a str,
}

/// The new status, or `None` if what stands is right.
pub(super) fn wanted(
    status: &ObjectStatus,
    stored: &Stored,
    beside: &Beside,
    now: &str,
) -> Option<Value> {
    let stamp = Stamp {
        generation: stored.generation,
        now,
    };
    let before = stored.status.as_object().cloned().unwrap_or_default();
    let mut after = before.clone();
    match status.kind {
        Kind::HttpRoute => {
            let parents = list(&before, "parents");
            let written = |parent: &ParentStatus| {
                let references = stored.spec.get("parentRefs");
                references?.get(parent.reference? as usize).cloned()
            };
            after.insert(
                "parents".to_owned(),
                merge_parents(&parents, status, stamp, written, is_ours),
            );
        }
        Kind::InferencePool | Kind::InferencePoolV1Alpha2 | Kind::BackendTlsPolicy => {
            let field = match status.kind {
                Kind::InferencePool => "parents",
                Kind::InferencePoolV1Alpha2 => "parent",
                _ => "ancestors",
            };
            let parents = list(&before, field);
            let reference = |parent: &ParentStatus| Some(gateway_reference(&parent.gateway));
            let ours = |entry: &Value| {
                is_ours(entry) || is_unsigned_gateway(entry, status, &stored.api_version)
            };
            after.insert(
                field.to_owned(),
                merge_parents(&parents, status, stamp, reference, ours),
            );
        }
        _ => {
            let conditions =
                merge_conditions(&list(&before, "conditions"), &status.conditions, stamp);
            after.insert("conditions".to_owned(), conditions);
        }
    }
    if status.kind == Kind::Gateway {
        after.insert("listeners".to_owned(), listeners(&before, status, stamp));
        after.insert(
            "addresses".to_owned(),
            Value::Array(beside.addresses.clone()),
        );
    }
    if status.kind == Kind::GatewayClass {
        let features = beside.features.iter().map(|name| json!({"name": name}));
        after.insert("supportedFeatures".to_owned(), features.collect());
    }
    after.retain(|key, value| before.contains_key(key) || !is_empty(value));
    (after != before).then_some(Value::Object(after))
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty)
}

fn list(status: &Map<String, Value>, field: &str) -> Vec<Value> {
    status
        .get(field)
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}

fn is_ours(entry: &Value) -> bool {
    entry.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER_NAME)
}

/// The older pool has no controller's name in its entries: those about Gateways that this controller
/// reports on are ours, and those that it reported on and that are signed by our reasons' wording
/// cannot be told from others' otherwise.
fn is_unsigned_gateway(entry: &Value, status: &ObjectStatus, api_version: &str) -> bool {
    if entry.get("controllerName").is_some() || !api_version.starts_with(POOL_GROUP_X) {
        return false;
    }
    let reference = &entry["parentRef"];
    let name = |field: &str| {
        reference
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    status.parents.iter().any(|parent| {
        (&*parent.gateway.namespace, &*parent.gateway.name) == (name("namespace"), name("name"))
    })
}

fn gateway_reference(gateway: &ObjectName) -> Value {
    json!({
        "group": GATEWAY_GROUP,
        "kind": "Gateway",
        "namespace": &*gateway.namespace,
        "name": &*gateway.name,
    })
}

/// Others' entries stay in place; ours are replaced, dropped or added at the end.
fn merge_parents(
    before: &[Value],
    status: &ObjectStatus,
    stamp: Stamp<'_>,
    reference: impl Fn(&ParentStatus) -> Option<Value>,
    is_ours: impl Fn(&Value) -> bool,
) -> Value {
    let field = match status.kind {
        Kind::BackendTlsPolicy => "ancestorRef",
        _ => "parentRef",
    };
    let ours = status.parents.iter().filter(|parent| parent.ours);
    let mut ours: Vec<(Value, &ParentStatus)> = ours
        .filter_map(|parent| Some((reference(parent)?, parent)))
        .collect();
    let entry = |reference: Value, known: &[Value], parent: &ParentStatus| {
        let conditions = merge_conditions(known, &parent.conditions, stamp);
        json!({field: reference, "controllerName": CONTROLLER_NAME, "conditions": conditions})
    };
    let mut after = Vec::new();
    for known in before {
        if !is_ours(known) {
            after.push(known.clone());
            continue;
        }
        let position = ours
            .iter()
            .position(|(reference, _)| *reference == known[field]);
        if let Some(position) = position {
            let (reference, parent) = ours.remove(position);
            let conditions = known.get("conditions").and_then(Value::as_array);
            after.push(entry(
                reference,
                conditions.map_or(&[], Vec::as_slice),
                parent,
            ));
        }
    }
    after.extend(
        ours.into_iter()
            .map(|(reference, parent)| entry(reference, &[], parent)),
    );
    if status.kind == Kind::InferencePoolV1Alpha2 {
        for value in after.iter_mut().filter(|value| is_ours(value)) {
            if let Some(fields) = value.as_object_mut() {
                fields.remove("controllerName");
            }
        }
    }
    Value::Array(after)
}

fn listeners(before: &Map<String, Value>, status: &ObjectStatus, stamp: Stamp<'_>) -> Value {
    let known = list(before, "listeners");
    let one = |listener: &ListenerStatus| {
        let known = known.iter().find(|known| known["name"] == *listener.name);
        let conditions = known
            .and_then(|known| known.get("conditions"))
            .and_then(Value::as_array);
        let kinds = listener.supported_kinds.iter();
        let kinds: Vec<Value> = kinds
            .map(|kind| json!({"group": GATEWAY_GROUP, "kind": kind}))
            .collect();
        json!({
            "name": listener.name,
            "supportedKinds": kinds,
            "attachedRoutes": listener.attached_routes,
            "conditions": merge_conditions(conditions.map_or(&[], Vec::as_slice), &listener.conditions, stamp),
        })
    };
    status.listeners.iter().map(one).collect()
}

/// Others' conditions stay; ours take their places, keep their times, or go.
fn merge_conditions(before: &[Value], ours: &[Condition], stamp: Stamp<'_>) -> Value {
    let mut after = Vec::new();
    let mut rest: Vec<&Condition> = ours.iter().collect();
    for known in before {
        let name = known["type"].as_str().unwrap_or_default();
        if !OURS.contains(&name) {
            after.push(known.clone());
            continue;
        }
        if let Some(position) = rest.iter().position(|one| type_of(one) == name) {
            after.push(condition(rest.remove(position), Some(known), stamp));
        }
    }
    after.extend(rest.into_iter().map(|one| condition(one, None, stamp)));
    Value::Array(after)
}

fn type_of(condition: &Condition) -> String {
    format!("{:?}", condition.condition_type)
}

fn condition(condition: &Condition, known: Option<&Value>, stamp: Stamp<'_>) -> Value {
    let status = format!("{:?}", condition.status);
    let since = known.filter(|known| known["status"] == *status);
    let since = since.and_then(|known| known["lastTransitionTime"].as_str());
    let message = match condition.path.as_str() {
        "" => condition.message.clone(),
        path => format!("{path}: {}", condition.message),
    };
    json!({
        "type": type_of(condition),
        "status": status,
        "reason": condition.reason.as_str(),
        "message": message,
        "observedGeneration": stamp.generation,
        "lastTransitionTime": since.unwrap_or(stamp.now),
    })
}

#[cfg(test)]
mod tests;
