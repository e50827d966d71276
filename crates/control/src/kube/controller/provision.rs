//! What runs for each Gateway: applied where it differs, taken away where it is not wanted any more.

use super::super::apply::{Key, Write, key_of};
use super::super::manifests::{APPLIED, Manifest, Provisioned, made_for};
use super::super::resources::position;
use super::Controller;
use config::{Kind, ObjectName};
use std::collections::HashSet;
use std::ops::Bound::{Excluded, Unbounded};

/// Kinds of what is provisioned.
const KINDS: &[(&str, &str)] = &[
    ("apps", "Deployment"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("", "ConfigMap"),
];

fn positions() -> impl Iterator<Item = usize> {
    KINDS
        .iter()
        .filter_map(|(group, kind)| position(group, kind))
}

impl Controller {
    /// Looks at the Gateways that are due for as long as there is room for writes.
    pub(super) fn provision(&mut self) {
        let mut next = self.due.gateways.first().cloned();
        while let Some(gateway) = next.filter(|_| self.writes.has_room()) {
            let is_right = self.provision_for(&gateway);
            let rest = (Excluded(&gateway), Unbounded);
            next = self
                .due
                .gateways
                .range::<ObjectName, _>(rest)
                .next()
                .cloned();
            if is_right {
                self.due.gateways.remove(&gateway);
            }
        }
    }

    /// Applies what differs from what was applied last, and takes away what is ours no more; whether
    /// there was nothing to do.
    fn provision_for(&mut self, gateway: &ObjectName) -> bool {
        let mut is_right = true;
        let mut kept = HashSet::new();
        for manifest in self.wanted(gateway) {
            let Some(key) = key_of(&manifest) else {
                continue;
            };
            let standing = self.store.get(key.0, &key.1);
            // Drift is undone, but what a new leader finds it takes for right: it was not watching.
            let is_same = standing.is_some_and(|one| {
                let known = *self.applied.entry(key.clone()).or_insert(one.essence());
                one.annotation(APPLIED) == Some(&manifest.hash) && known == one.essence()
            });
            kept.insert(key.clone());
            if !is_same {
                is_right = false;
                self.writes.start(&self.client, key, Write::Apply(manifest));
            }
        }
        for (key, uid) in self.orphans(gateway, &kept) {
            is_right = false;
            self.applied.remove(&key);
            self.writes.start(&self.client, key, Write::Delete { uid });
        }
        is_right
    }

    /// Everything that a Gateway should have; nothing for one that gets no proxies.
    fn wanted(&self, gateway: &ObjectName) -> Vec<Manifest> {
        let provisioned = self.provisioned(gateway);
        let runs = |one: &Provisioned<'_>| {
            one.plan.accepted && !one.plan.ports.is_empty() && !one.gateway.is_going()
        };
        let provisioned = provisioned.filter(runs);
        provisioned.map_or(Vec::new(), |one| one.manifests())
    }

    /// What is made for a Gateway of ours.
    pub(super) fn provisioned(&self, gateway: &ObjectName) -> Option<Provisioned<'_>> {
        let mut plans = self.compiler.plans().iter();
        let plan = plans.find(|plan| plan.name == *gateway)?;
        let (_, gateway) = self.store.of_kind(Kind::Gateway, gateway)?;
        let mut provisioned = Provisioned {
            plan,
            gateway,
            settings: &self.settings.proxies,
            deployment: None,
        };
        let name = ObjectName::new(&plan.name.namespace, &provisioned.name());
        let deployments = position("apps", "Deployment").unwrap_or(usize::MAX);
        provisioned.deployment = self.store.get(deployments, &name);
        Some(provisioned)
    }

    /// Remembers what stands after a write of ours.
    pub(super) fn note_applied(&mut self, key: Key) {
        let stored = self.store.get(key.0, &key.1);
        if let Some(stored) = stored.filter(|stored| stored.annotation(APPLIED).is_some()) {
            self.applied.insert(key, stored.essence());
        }
    }

    /// What was made for a Gateway that exists and is not ours any more, or does not want it any more.
    /// What was made for one that is gone, the garbage collector takes.
    fn orphans(&self, gateway: &ObjectName, kept: &HashSet<Key>) -> Vec<(Key, String)> {
        let mut plans = self.compiler.plans().iter();
        let plan = plans.find(|plan| plan.name == *gateway);
        // A Gateway that is refused keeps what it has.
        let is_refused = plan.is_some_and(|plan| !plan.accepted || plan.ports.is_empty());
        if is_refused || self.store.of_kind(Kind::Gateway, gateway).is_none() {
            return Vec::new();
        }
        let all = positions().flat_map(|index| {
            let of_namespace = self.store.all_in(index, &gateway.namespace);
            of_namespace.map(move |(name, stored)| ((index, name.clone()), stored))
        });
        let unwanted = all.filter(|(key, stored)| {
            let is_of_gateway = made_for(stored).as_ref() == Some(gateway);
            is_of_gateway
                && stored.annotation(APPLIED).is_some()
                && !stored.is_going()
                && !kept.contains(key)
        });
        unwanted
            .map(|(key, stored)| (key, stored.uid().to_owned()))
            .collect()
    }

    /// The Gateways that anything was made for.
    pub(super) fn provisioned_for(&self) -> HashSet<ObjectName> {
        let all = positions().flat_map(|index| self.store.all(index));
        all.filter_map(|(_, stored)| made_for(stored)).collect()
    }
}
