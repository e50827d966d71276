//! Statuses that are due: what they should say, and the write if they do not say it.

use super::super::apply::Write;
use super::super::status::{self, Beside};
use super::{Controller, Subject, now};
use config::{Kind, ObjectStatus};
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
        let judged = self.judged.as_ref().and_then(|all| all.get(subject));
        let Some((status, (index, stored))) = judged.zip(self.store.of_kind(*kind, name)) else {
            return true;
        };
        let key = (index, name.clone());
        if self.writes.holds(&key) {
            return false;
        }
        let Some((complete, beside)) = self.complete(status) else {
            return true;
        };
        if let Some(status) = status::wanted(&complete, stored, &beside, now) {
            let write = Write::Status {
                resource_version: stored.resource_version.clone(),
                api_version: stored.api_version.clone(),
                status,
            };
            self.writes.start(&self.client, key, write);
        }
        true
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
