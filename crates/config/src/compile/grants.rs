//! ReferenceGrant: whether an object may refer to one of another namespace.

use crate::name::ObjectName;
use crate::objects::Objects;

/// Who refers.
pub(super) struct Referrer<'a> {
    pub(super) group: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
}

/// Whether `from` may refer to the object `to` of a group and kind.
pub(super) fn permits(
    objects: &Objects,
    from: &Referrer<'_>,
    (group, kind): (&str, &str),
    to: &ObjectName,
) -> bool {
    if from.namespace == &*to.namespace {
        return true;
    }
    objects
        .reference_grants
        .iter()
        .filter(|(name, _)| name.namespace == to.namespace)
        .map(|(_, entry)| &entry.object.spec)
        .any(|grant| {
            grant.from.iter().any(|granted| {
                (
                    granted.group.as_str(),
                    granted.kind.as_str(),
                    granted.namespace.as_str(),
                ) == (from.group, from.kind, from.namespace)
            }) && grant.to.iter().any(|granted| {
                (granted.group.as_str(), granted.kind.as_str()) == (group, kind)
                    && granted
                        .name
                        .as_deref()
                        .is_none_or(|name| name.is_empty() || name == &*to.name)
            })
        })
}
