//! Entries by parent or ancestor: others' stay, ours are renewed, added or taken away.
//!
//! What is ours says so by `controllerName`. The definitions of pools in the inference extension before
//! v1.1, and of v1alpha2 in all of its versions, have no such field, and the API server leaves it out:
//! there the message of `Accepted` names this controller, so that an entry is known for ours when its
//! Gateway is gone, and after a restart.

use super::{Stamp, merge_conditions};
use config::{CONTROLLER_NAME, Kind, ObjectStatus, ParentStatus};
use serde_json::{Value, json};

/// Names of the list of entries in a status, and of what each entry is about.
pub(super) fn fields(kind: Kind) -> Option<(&'static str, &'static str)> {
    match kind {
        Kind::HttpRoute | Kind::InferencePool => Some(("parents", "parentRef")),
        Kind::InferencePoolV1Alpha2 => Some(("parent", "parentRef")),
        Kind::BackendTlsPolicy => Some(("ancestors", "ancestorRef")),
        _ => None,
    }
}

/// Others' entries stay in place; ours are replaced, dropped or added at the end.
pub(super) fn merge(
    before: &[Value],
    status: &ObjectStatus,
    field: &str,
    stamp: Stamp<'_>,
    reference: impl Fn(&ParentStatus) -> Option<Value>,
) -> Value {
    let ours = status.parents.iter().filter(|parent| parent.ours);
    let mut ours: Vec<(Value, &ParentStatus)> = ours
        .filter_map(|parent| Some((reference(parent)?, parent)))
        .collect();
    let is_used = !ours.is_empty();
    let mut has_lost_unnamed = false;
    let mut after = Vec::new();
    for known in before {
        if is_used && is_pool(status.kind) && is_placeholder(known) {
            continue;
        }
        if !is_ours(known, status) {
            after.push(known.clone());
            continue;
        }
        let mut references = ours.iter();
        match references.position(|(reference, _)| *reference == known[field]) {
            Some(position) => {
                let (reference, parent) = ours.remove(position);
                let conditions = known["conditions"].as_array();
                let conditions = conditions.map_or(&[][..], Vec::as_slice);
                let conditions = merge_conditions(conditions, &parent.conditions, stamp);
                let new = entry(field, reference, conditions);
                after.push(renewed(known, new, status.kind));
            }
            None => has_lost_unnamed |= known.get("controllerName").is_none(),
        }
    }
    after.extend(ours.into_iter().map(|(reference, parent)| {
        let conditions = merge_conditions(&[], &parent.conditions, stamp);
        entry(field, reference, conditions)
    }));
    if after.is_empty() && has_lost_unnamed && status.kind == Kind::InferencePoolV1Alpha2 {
        after.push(placeholder());
    }
    Value::Array(after)
}

fn entry(field: &str, reference: Value, conditions: Value) -> Value {
    json!({field: reference, "controllerName": CONTROLLER_NAME, "conditions": conditions})
}

/// A new state of a known entry. Where its definition has no field for the controller's name, the name
/// stands in the message, and the missing field is no difference.
fn renewed(known: &Value, mut new: Value, kind: Kind) -> Value {
    if !is_pool(kind) || known.get("controllerName").is_some() {
        return new;
    }
    sign(&mut new["conditions"]);
    let mut unnamed = new.clone();
    if let Some(fields) = unnamed.as_object_mut() {
        fields.remove("controllerName");
    }
    if unnamed == *known { unnamed } else { new }
}

fn is_pool(kind: Kind) -> bool {
    matches!(kind, Kind::InferencePool | Kind::InferencePoolV1Alpha2)
}

fn is_ours(entry: &Value, status: &ObjectStatus) -> bool {
    match entry.get("controllerName") {
        Some(name) => name == CONTROLLER_NAME,
        None => is_pool(status.kind) && (is_signed(entry) || is_reported(entry, status)),
    }
}

/// Whether an entry without a name is about a Gateway of ours that the pool has: ours before it could
/// be signed.
fn is_reported(entry: &Value, status: &ObjectStatus) -> bool {
    let reference = &entry["parentRef"];
    let name = |field: &str| reference[field].as_str().unwrap_or_default();
    let mut parents = status.parents.iter().map(|parent| &parent.gateway);
    parents
        .any(|gateway| (&*gateway.namespace, &*gateway.name) == (name("namespace"), name("name")))
}

fn signature() -> String {
    format!("reported by {CONTROLLER_NAME}")
}

fn is_signed(entry: &Value) -> bool {
    let mut conditions = entry["conditions"].as_array().into_iter().flatten();
    let accepted = conditions.find(|one| one["type"] == "Accepted");
    let message = accepted.and_then(|one| one["message"].as_str());
    message.is_some_and(|message| message.ends_with(&signature()))
}

fn sign(conditions: &mut Value) {
    let conditions = conditions.as_array_mut().into_iter().flatten();
    for condition in conditions.filter(|one| one["type"] == "Accepted") {
        condition["message"] = match condition["message"].as_str() {
            None | Some("") => signature().into(),
            Some(message) => format!("{message}; {}", signature()).into(),
        };
    }
}

/// What upstream's v1alpha2 has for a pool without a Gateway, and asks controllers to take away and to
/// put back.
pub(super) fn placeholder() -> Value {
    json!({
        "parentRef": {"group": config::objects::GATEWAY_GROUP, "kind": "Status", "name": "default"},
        "conditions": [{
            "type": "Accepted", "status": "Unknown", "reason": "Pending",
            "message": "Waiting for controller", "lastTransitionTime": "1970-01-01T00:00:00Z",
        }],
    })
}

fn is_placeholder(entry: &Value) -> bool {
    let reference = &entry["parentRef"];
    reference["kind"] == "Status" && reference["name"] == "default"
}
