//! What each Gateway's proxies should have, and what they say that they serve.
//!
//! The controller's loop fills this; the server of the object stream reads it. Versions count within
//! one process; what proxies report is told by the Gateway's generation, which all replicas share.

use super::store::Content;
use config::{ObjectName, SocketState};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::watch;

/// The objects of one Gateway.
#[derive(Debug, Clone, Default)]
pub struct Feed {
    /// Grows with every change of the set.
    pub version: u64,
    /// Generation of the Gateway in this set.
    pub generation: i64,
    /// The objects by key.
    pub objects: Arc<BTreeMap<String, Content>>,
}

/// What a proxy said.
#[derive(Debug, Clone)]
pub struct Report {
    /// The proxy's Pod.
    pub pod: String,
    /// Generation of the Gateway that it applied.
    pub generation: i64,
    /// What became of each listener.
    pub listeners: Vec<(String, SocketState)>,
}

/// All feeds and reports of this process.
#[derive(Debug, Default)]
pub struct Feeds {
    gateways: Mutex<HashMap<ObjectName, watch::Sender<Feed>>>,
    reports: Mutex<HashMap<(ObjectName, u64), Report>>,
    /// What other replicas relayed, by connection.
    relayed: Mutex<HashMap<u64, Vec<(ObjectName, Report)>>>,
    /// Something was reported or a proxy left.
    changes: watch::Sender<()>,
    /// Gateways by namespace and ServiceAccount of their proxies.
    accounts: Mutex<HashMap<(String, String), ObjectName>>,
}

impl Feeds {
    /// The feed of a Gateway, now and from now on.
    pub fn follow(&self, gateway: &ObjectName) -> watch::Receiver<Feed> {
        self.sender(gateway).subscribe()
    }

    fn sender(&self, gateway: &ObjectName) -> watch::Sender<Feed> {
        let mut gateways = self.gateways.lock();
        let sender = gateways
            .entry(gateway.clone())
            .or_insert_with(|| watch::channel(Feed::default()).0);
        sender.clone()
    }

    /// Replaces the set of a Gateway if it differs.
    pub fn publish(
        &self,
        gateway: &ObjectName,
        generation: i64,
        objects: BTreeMap<String, Content>,
    ) {
        self.sender(gateway).send_if_modified(|feed| {
            let pairs = feed.objects.iter().zip(&objects);
            let is_same = feed.version > 0
                && feed.generation == generation
                && feed.objects.len() == objects.len()
                && pairs
                    .into_iter()
                    .all(|(one, other)| (one.0, one.1.hash) == (other.0, other.1.hash));
            if is_same {
                return false;
            }
            feed.version += 1;
            feed.generation = generation;
            feed.objects = Arc::new(objects);
            true
        });
    }

    /// Forgets Gateways that are gone: their proxies get no further change.
    pub(super) fn retain(&self, keep: impl Fn(&ObjectName) -> bool) {
        self.gateways.lock().retain(|name, _| keep(name));
    }

    /// Which ServiceAccounts speak for which Gateways.
    pub fn set_accounts(&self, accounts: HashMap<(String, String), ObjectName>) {
        *self.accounts.lock() = accounts;
    }

    /// The Gateway that a ServiceAccount's proxies serve.
    pub fn gateway_of(&self, namespace: &str, account: &str) -> Option<ObjectName> {
        let key = (namespace.to_owned(), account.to_owned());
        self.accounts.lock().get(&key).cloned()
    }

    /// Takes over what a proxy says; `stream` tells its connections apart.
    pub fn report(&self, gateway: &ObjectName, stream: u64, report: Report) {
        self.reports
            .lock()
            .insert((gateway.clone(), stream), report);
        self.changes.send_replace(());
    }

    /// A proxy's stream has ended.
    pub fn left(&self, gateway: &ObjectName, stream: u64) {
        if self
            .reports
            .lock()
            .remove(&(gateway.clone(), stream))
            .is_some()
        {
            self.changes.send_replace(());
        }
    }

    /// Says when anything was reported.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Replaces what the replica behind a connection relayed; nothing once it is gone.
    pub fn relay(&self, stream: u64, reports: Vec<(ObjectName, Report)>) {
        if reports.is_empty() {
            self.relayed.lock().remove(&stream);
        } else {
            self.relayed.lock().insert(stream, reports);
        }
        self.changes.send_replace(());
    }

    /// What this replica's own proxies say.
    pub fn own_reports(&self) -> Vec<(ObjectName, Report)> {
        let reports = self.reports.lock();
        let own = reports.iter();
        own.map(|((gateway, _), report)| (gateway.clone(), report.clone()))
            .collect()
    }

    /// Generations that other replicas relayed.
    #[cfg(test)]
    pub(crate) fn relayed_generations(&self) -> Vec<i64> {
        let relayed = self.relayed.lock();
        let reports = relayed.values().flatten();
        reports.map(|(_, report)| report.generation).collect()
    }

    /// What the proxies of a Gateway say now, to any replica.
    pub(super) fn reports(&self, gateway: &ObjectName) -> Vec<Report> {
        let (own, relayed) = (self.reports.lock(), self.relayed.lock());
        let own = own.iter().map(|((name, _), report)| (name, report));
        let relayed = relayed.values().flatten();
        let all = own.chain(relayed.map(|(name, report)| (name, report)));
        all.filter(|(name, _)| *name == gateway)
            .map(|(_, report)| report.clone())
            .collect()
    }
}
