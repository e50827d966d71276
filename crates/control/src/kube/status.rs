//! The status that an object should have: ours beside whatever others wrote.
//!
//! Entries of other controllers and conditions of other types pass through untouched, and the time of
//! a transition is kept as long as the condition's status is. What comes out equal to what stands is
//! not written.

use super::store::Stored;
use config::objects::GATEWAY_GROUP;
use config::{Condition, Kind, ListenerStatus, ObjectName, ObjectStatus, ParentStatus};
use serde_json::{Map, Value, json};

mod parents;

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
    if let Some((entries, field)) = parents::fields(status.kind) {
        let reference = |parent: &ParentStatus| match status.kind {
            Kind::HttpRoute => {
                let written = stored.spec.get("parentRefs")?;
                written.get(parent.reference? as usize).cloned()
            }
            _ => Some(gateway_reference(&parent.gateway)),
        };
        let known = list(&before, entries);
        let merged = parents::merge(&known, status, field, stamp, reference);
        after.insert(entries.to_owned(), merged);
    } else {
        let conditions = merge_conditions(&list(&before, "conditions"), &status.conditions, stamp);
        after.insert("conditions".to_owned(), conditions);
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

fn gateway_reference(gateway: &ObjectName) -> Value {
    json!({
        "group": GATEWAY_GROUP,
        "kind": "Gateway",
        "namespace": &*gateway.namespace,
        "name": &*gateway.name,
    })
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
