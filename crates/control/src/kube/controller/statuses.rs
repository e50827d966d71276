//! Statuses that are due: what they should say, and the write if they do not say it.

use super::super::apply::Write;
use super::super::status::{self, Beside};
use super::{Controller, Subject, now};
use config::{Condition, ConditionType, Kind, ObjectStatus, Reason, Truth};
use std::ops::Bound::{Excluded, Unbounded};

impl Controller {
    /// Looks at what is due for as long as there is room for writes.
    pub(super) fn write_statuses(&mut self) {
        let now = now();
        let mut next = self.due.statuses.first().cloned();
        while let Some(subject) = next.filter(|_| self.writes.has_room()) {
            let is_done = self.write_status(&subject, &now);
            let rest = (Excluded(&subject), Unbounded);
            next = self.due.statuses.range::<Subject, _>(rest).next().cloned();
            if is_done {
                self.due.statuses.remove(&subject);
            }
        }
    }

    /// Whether nothing is left to do until something is touched or a write is answered.
    fn write_status(&mut self, subject: &Subject, now: &str) -> bool {
        let (kind, name) = subject;
        let Some(status) = self.judged.as_ref().and_then(|all| all.get(subject)) else {
            return true;
        };
        let mut standing = self.store.all_of_kind(*kind, name);
        if standing.any(|(index, _)| self.writes.holds(&(index, name.clone()))) {
            return false;
        }
        let Some((complete, beside)) = self.complete(status) else {
            return true;
        };
        let mut writes = Vec::new();
        for (position, (index, stored)) in self.store.all_of_kind(*kind, name).enumerate() {
            let wanted = match position {
                0 => status::wanted(&complete, stored, &beside, now),
                _ => status::wanted(&shadowed(&complete), stored, &Beside::default(), now),
            };
            let write = wanted.map(|status| Write::Status {
                resource_version: stored.resource_version.clone(),
                api_version: stored.api_version.clone(),
                status,
            });
            writes.extend(write.map(|write| ((index, name.clone()), write)));
        }
        let mut is_done = true;
        for (key, write) in writes {
            is_done &= self.writes.has_room();
            self.writes.start(&self.client, key, write);
        }
        is_done
    }

    /// What the compiler said, with what proxies and the cluster say; `None` for kinds that have no
    /// status in the API.
    fn complete(&self, status: &ObjectStatus) -> Option<(ObjectStatus, Beside)> {
        let mut status = status.clone();
        let mut beside = Beside::default();
        match status.kind {
            Kind::GatewayParameters => return None,
            Kind::GatewayClass => beside.features = config::SUPPORTED_FEATURES,
            Kind::Gateway => beside.addresses = self.program(&mut status),
            _ => {}
        }
        Some((status, beside))
    }
}

/// What is said of an object when one of its name in another API group is read in its place.
fn shadowed(status: &ObjectStatus) -> ObjectStatus {
    let (kind, name) = (status.kind, &status.name);
    ObjectStatus {
        conditions: vec![Condition {
            condition_type: ConditionType::Accepted,
            status: Truth::False,
            reason: Reason::Conflicted,
            message: format!("{kind} {name} of another API group is read in its place"),
            path: String::new(),
        }],
        ..status.clone()
    }
}
