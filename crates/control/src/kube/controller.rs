//! The loop: events in, one compilation, then whatever differs is written and proxies are fed.
//!
//! Everything is decided from the whole state, never from a single event, so a missed or repeated
//! event changes nothing. Objects compile again only when one that the compiler reads has changed.

use super::KubeError;
use super::apply::{Key, Write, Writes, key_of};
use super::authority::Authority;
use super::counts::Counts;
use super::feed::Feeds;
use super::lease::{self, Leadership};
use super::manifests::{APPLIED, Provisioned, ProxySettings, made_for};
use super::resources::{WATCHED, position};
use super::status::{self, Beside};
use super::store::{Changed, Content, Store};
use super::watch::{self, Event};
use config::{Compiled, Compiler, Kind, ObjectName, ObjectStatus, Placement};
use kube::Client;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, watch as channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod programmed;

/// Events that wait for the loop.
const WAITING: usize = 4_096;
/// Events that come within this time are taken together, up to [`MOST_DELAY`].
const SETTLE: Duration = Duration::from_millis(5);
const MOST_DELAY: Duration = Duration::from_millis(50);

/// How a controller runs.
#[derive(Debug, Clone)]
pub struct ControllerSettings {
    /// Where its own Secret and Lease live.
    pub namespace: String,
    /// Name of its Service; its Secret and Lease are called after it.
    pub name: String,
    /// Who this replica is in the election: `NAME_HOST:PORT`, where others find its object stream.
    pub identity: String,
    /// Of the proxies; the authority's certificate is filled in.
    pub proxies: ProxySettings,
}

/// A controller that runs.
#[derive(Debug)]
pub struct Running {
    /// What proxies are fed with.
    pub feeds: Arc<Feeds>,
    /// Signs the object stream's certificate.
    pub authority: Authority,
    /// Whether everything has been read once.
    pub ready: channel::Receiver<bool>,
    /// Whether this replica writes.
    pub leads: channel::Receiver<Leadership>,
    /// What it counts.
    pub counts: Arc<Counts>,
}

/// Starts a controller; its tasks belong to `tracker` and end with `stop`.
///
/// # Errors
/// The authority cannot be read or made.
pub async fn controller(
    client: Client,
    mut settings: ControllerSettings,
    stop: CancellationToken,
    tracker: &TaskTracker,
) -> Result<Running, KubeError> {
    let secret = format!("{}-authority", settings.name);
    let authority = Authority::shared(client.clone(), &settings.namespace, &secret).await?;
    authority
        .certificate()
        .clone_into(&mut settings.proxies.authority);
    let (sender, events) = mpsc::channel(WAITING);
    for index in 0..WATCHED.len() {
        let following = watch::follow(client.clone(), index, sender.clone());
        let stop = stop.clone();
        tracker.spawn(async move { stop.run_until_cancelled(following).await });
    }
    let (leads, leading) = channel::channel(Leadership::default());
    let place = (
        settings.namespace.clone(),
        settings.name.clone(),
        settings.identity.clone(),
    );
    tracker.spawn(lease::elect(client.clone(), place, leads, stop.clone()));
    let (ready, is_ready) = channel::channel(false);
    let feeds = Arc::<Feeds>::default();
    let counts = Arc::<Counts>::default();
    let controller = Controller {
        client,
        settings,
        store: Store::default(),
        compiler: Compiler::new(Placement::PerGateway),
        compiled: None,
        writes: Writes::counted(counts.clone()),
        applied: HashMap::new(),
        right: HashMap::new(),
        feeds: feeds.clone(),
        ready,
        leads: leading.clone(),
    };
    tracker.spawn(controller.run(events, stop));
    Ok(Running {
        feeds,
        authority,
        ready: is_ready,
        leads: leading,
        counts,
    })
}

struct Controller {
    client: Client,
    settings: ControllerSettings,
    store: Store,
    compiler: Compiler,
    compiled: Option<Compiled>,
    writes: Writes,
    /// What stood after our last write of what is provisioned: something else is somebody's change.
    applied: HashMap<Key, u64>,
    /// Statuses that stand as they should, with the version of the object that was looked at.
    right: HashMap<Key, (ObjectStatus, String)>,
    feeds: Arc<Feeds>,
    ready: channel::Sender<bool>,
    leads: channel::Receiver<Leadership>,
}

impl Controller {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, stop: CancellationToken) {
        let mut told = Instant::now();
        let mut reported = self.feeds.changes();
        loop {
            let again = self.writes.again();
            let mut changed = Changed::Surroundings;
            tokio::select! {
                () = stop.cancelled() => return,
                event = events.recv() => match event {
                    None => return,
                    Some(event) => changed = self.gather(event, &mut events).await,
                },
                written = self.writes.next() => {
                    if let Some((key, object)) = written.map(|written| (written.key, written.object))
                        && let Some(object) = object
                    {
                        changed = self.store.refreshed(key.0, object).max(changed);
                        self.note_applied(key);
                    }
                }
                _ = reported.changed() => {}
                _ = self.leads.changed() => {}
                () = until(again) => {}
            }
            if self.store.is_synced() {
                self.reconcile(changed);
                self.ready
                    .send_if_modified(|ready| !std::mem::replace(ready, true));
            } else if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                tracing::warn!(missing = ?self.store.missing(), "still waiting for lists");
            }
        }
    }

    /// Takes an event and those that follow closely.
    async fn gather(&mut self, first: Event, events: &mut mpsc::Receiver<Event>) -> Changed {
        let mut changed = self.take(first);
        let end = Instant::now() + MOST_DELAY;
        loop {
            let settled = (Instant::now() + SETTLE).min(end);
            match tokio::time::timeout_at(settled, events.recv()).await {
                Ok(Some(event)) => changed = changed.max(self.take(event)),
                Ok(None) | Err(_) => return changed,
            }
        }
    }

    fn take(&mut self, event: Event) -> Changed {
        match event {
            Event::Listed(index, values) => self.store.listed(index, values),
            Event::Applied(index, value) => self.store.applied(index, value),
            Event::Deleted(index, value) => self.store.deleted(index, &value),
            Event::Absent(index) => {
                self.store.settled(index);
                Changed::Nothing
            }
        }
    }

    fn reconcile(&mut self, changed: Changed) {
        if changed == Changed::Objects || self.compiled.is_none() {
            let began = Instant::now();
            self.compiled = Some(self.compiler.compile(&self.store.objects));
            let counts = &self.writes.counts;
            Counts::add(&counts.compilations, 1);
            Counts::add(&counts.compile_us, began.elapsed().as_micros() as u64);
            counts
                .gateways
                .store(self.compiler.plans().len() as u64, Relaxed);
            counts
                .objects
                .store(self.store.objects.all().len() as u64, Relaxed);
            self.feed();
        }
        if self.leads.borrow().leads {
            self.provision();
            self.write_statuses();
        }
    }

    /// Hands every Gateway's objects to who feeds its proxies.
    fn feed(&self) {
        let mut accounts = HashMap::new();
        for plan in self.compiler.plans() {
            let Some((_, gateway)) = self.store.of_kind(Kind::Gateway, &plan.name) else {
                continue;
            };
            let class = gateway.spec["gatewayClassName"]
                .as_str()
                .unwrap_or_default();
            let account = super::manifests::resource_name(&plan.name.name, class);
            accounts.insert(
                (plan.name.namespace.to_string(), account),
                plan.name.clone(),
            );
            let reachable = self.compiler.reachable(&self.store.objects, &plan.name);
            let contents = reachable.all().into_iter().filter_map(|object| {
                let (kind, name) = (object.resource.kind(), object.name());
                let (_, stored) = self.store.of_kind(kind, &name)?;
                Some((format!("{kind:?}/{name}"), stored.content.clone()))
            });
            let contents: BTreeMap<String, Content> = contents.collect();
            self.feeds.publish(&plan.name, gateway.generation, contents);
        }
        self.feeds
            .retain(|name| self.compiler.plans().iter().any(|plan| plan.name == *name));
        self.feeds.set_accounts(accounts);
    }

    /// Applies what differs from what was applied last, and takes away what is ours no more.
    fn provision(&mut self) {
        let deployments = position("apps", "Deployment").unwrap_or(usize::MAX);
        let mut wanted = Vec::new();
        for plan in self
            .compiler
            .plans()
            .iter()
            .filter(|plan| plan.accepted && !plan.ports.is_empty())
        {
            let Some((_, gateway)) = self.store.of_kind(Kind::Gateway, &plan.name) else {
                continue;
            };
            if gateway.is_going() {
                continue;
            }
            let mut provisioned = Provisioned {
                plan,
                gateway,
                settings: &self.settings.proxies,
                deployment: None,
            };
            let name = ObjectName::new(&plan.name.namespace, &provisioned.name());
            provisioned.deployment = self.store.get(deployments, &name);
            wanted.extend(provisioned.manifests());
        }
        let mut kept = HashSet::new();
        for manifest in wanted {
            let Some((index, name)) = key_of(&manifest) else {
                continue;
            };
            let standing = self.store.get(index, &name);
            let key = (index, name);
            // Drift is undone, but what a new leader finds it takes for right: it was not watching.
            let is_same = standing.is_some_and(|one| {
                let known = *self.applied.entry(key.clone()).or_insert(one.essence());
                one.annotation(APPLIED) == Some(&manifest.hash) && known == one.essence()
            });
            kept.insert(key.clone());
            if !is_same {
                self.writes.start(&self.client, key, Write::Apply(manifest));
            }
        }
        self.applied.retain(|key, _| kept.contains(key));
        for (key, uid) in self.orphans(&kept) {
            self.writes.start(&self.client, key, Write::Delete { uid });
        }
    }

    /// Remembers what stands after a write of ours.
    fn note_applied(&mut self, key: Key) {
        let stored = self.store.get(key.0, &key.1);
        if let Some(stored) = stored.filter(|stored| stored.annotation(APPLIED).is_some()) {
            self.applied.insert(key, stored.essence());
        }
    }

    /// What was made for a Gateway that exists and is not ours any more, or does not want it any more.
    /// What was made for one that is gone, the garbage collector takes.
    fn orphans(&self, kept: &HashSet<Key>) -> Vec<(Key, String)> {
        let kinds = [
            ("apps", "Deployment"),
            ("", "Service"),
            ("", "ServiceAccount"),
            ("", "ConfigMap"),
        ];
        let indices = kinds
            .iter()
            .filter_map(|(group, kind)| position(group, kind));
        let mut found = Vec::new();
        for index in indices {
            for (name, stored) in self.store.all(index) {
                let Some(gateway) = made_for(stored) else {
                    continue;
                };
                let exists = self.store.of_kind(Kind::Gateway, &gateway).is_some();
                let mut plans = self.compiler.plans().iter();
                let ours = plans.find(|plan| plan.name == gateway);
                // A Gateway that is refused keeps what it has.
                let unwanted = ours.is_none_or(|plan| {
                    plan.accepted
                        && !plan.ports.is_empty()
                        && !kept.contains(&(index, name.clone()))
                });
                if exists && unwanted && !stored.is_going() && stored.annotation(APPLIED).is_some()
                {
                    found.push(((index, name.clone()), stored.uid().to_owned()));
                }
            }
        }
        found
    }

    fn write_statuses(&mut self) {
        let now = now();
        let Some(compiled) = self.compiled.as_ref() else {
            return;
        };
        let mut wanted = Vec::new();
        let mut right = HashMap::with_capacity(compiled.statuses.objects.len());
        for status in &compiled.statuses.objects {
            let Some((index, stored)) = self.store.of_kind(status.kind, &status.name) else {
                continue;
            };
            // What a Gateway's status says depends on more than these two.
            let key = (index, status.name.clone());
            let known = self.right.remove(&key).filter(|(known, version)| {
                status.kind != Kind::Gateway
                    && known == status
                    && *version == stored.resource_version
            });
            if let Some(known) = known {
                right.insert(key, known);
                continue;
            }
            let Some((complete, beside)) = self.complete(status) else {
                continue;
            };
            let new = status::wanted(&complete, stored, &beside, &now);
            if new.is_none() {
                let version = stored.resource_version.clone();
                right.insert(key, (status.clone(), version));
            }
            if let Some(new) = new {
                let write = Write::Status {
                    resource_version: stored.resource_version.clone(),
                    api_version: stored.api_version.clone(),
                    status: new,
                };
                wanted.push(((index, status.name.clone()), write));
            }
        }
        self.right = right;
        for (key, write) in wanted {
            self.writes.start(&self.client, key, write);
        }
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

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The moment as the API writes it.
fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// One field of a JSON list's elements, as texts.
fn texts<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|one| one.get(field)?.as_str()).collect()
}
