//! The loop: events in, one compilation, then whatever differs is written and proxies are fed.
//!
//! Everything is decided from the whole state, never from a single event, so a missed or repeated
//! event changes nothing. Events only say what is looked at ([`Due`]): what nothing has touched costs
//! nothing, and objects compile again only when one that the compiler reads has changed.

use super::KubeError;
use super::apply::{Key, Writes, Written};
use super::authority::Authority;
use super::counts::Counts;
use super::feed::Feeds;
use super::lease::{self, Leadership};
use super::manifests::ProxySettings;
use super::resources::WATCHED;
use super::store::{Store, Touched};
use super::watch::{self, Event};
use config::{Compiler, Kind, ObjectName, ObjectStatus, Placement};
use kube::Client;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch as channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod judge;
mod programmed;
mod provision;
mod statuses;

/// Events that wait for the loop.
const WAITING: usize = 4_096;
/// Changes that come within this time are compiled together, up to [`MOST_DELAY`].
const SETTLE: Duration = Duration::from_millis(5);
const MOST_DELAY: Duration = Duration::from_millis(50);
/// A leader looks at everything again this often, whatever was touched.
const LOOK_AT_ALL: Duration = Duration::from_secs(300);

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
        judged: None,
        writes: Writes::counted(counts.clone()),
        applied: HashMap::new(),
        due: Due::default(),
        led: false,
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

/// An object that has a status.
type Subject = (Kind, ObjectName);

/// What a leader has to look at, since something that it depends on is not as it was.
#[derive(Debug, Default)]
struct Due {
    /// Gateways, for what is provisioned for them.
    gateways: BTreeSet<ObjectName>,
    statuses: BTreeSet<Subject>,
}

struct Controller {
    client: Client,
    settings: ControllerSettings,
    store: Store,
    compiler: Compiler,
    /// What statuses should say, as far as the compiler knows; `None` before the first compilation.
    judged: Option<HashMap<Subject, ObjectStatus>>,
    writes: Writes,
    /// What stood after our last write of what is provisioned: something else is somebody's change.
    applied: HashMap<Key, u64>,
    due: Due,
    /// Whether this replica led when it last looked.
    led: bool,
    feeds: Arc<Feeds>,
    ready: channel::Sender<bool>,
    leads: channel::Receiver<Leadership>,
}

impl Controller {
    async fn run(mut self, mut events: mpsc::Receiver<Event>, stop: CancellationToken) {
        let mut told = Instant::now();
        let mut reported = self.feeds.changes();
        let mut all = tokio::time::interval(LOOK_AT_ALL);
        loop {
            let again = self.writes.again();
            tokio::select! {
                () = stop.cancelled() => return,
                event = events.recv() => match event {
                    None => return,
                    Some(event) => self.gather(event, &mut events).await,
                },
                written = self.writes.next() => written.into_iter().for_each(|one| self.answered(one)),
                _ = reported.changed() => self.gateways_due(),
                _ = self.leads.changed() => {}
                _ = all.tick() => self.led = false,
                () = until(again) => {}
            }
            if self.store.is_synced() {
                self.reconcile();
                self.ready
                    .send_if_modified(|ready| !std::mem::replace(ready, true));
                continue;
            }
            // The first compilation looks at everything.
            self.store.touched.clear();
            if told.elapsed() > Duration::from_secs(10) {
                told = Instant::now();
                tracing::warn!(missing = ?self.store.missing(), "still waiting for lists");
            }
        }
    }

    /// Takes an event and what came with it, and waits for what follows closely if the compiler reads it.
    async fn gather(&mut self, first: Event, events: &mut mpsc::Receiver<Event>) {
        let began = Instant::now();
        let end = began + MOST_DELAY;
        let settled = |is_read: bool| is_read.then(|| (Instant::now() + SETTLE).min(end));
        let mut quiet = settled(self.take(first)).unwrap_or(began);
        while let Ok(Some(event)) = tokio::time::timeout_at(quiet, events.recv()).await {
            quiet = settled(self.take(event)).unwrap_or(quiet);
            if Instant::now() > end {
                return;
            }
        }
    }

    /// Whether the compiler reads what an event changed.
    fn take(&mut self, event: Event) -> bool {
        let before = self.store.touched.len();
        match event {
            Event::Listed(index, values) => self.store.listed(index, values),
            Event::Applied(index, value) => self.store.applied(index, value),
            Event::Deleted(index, value) => self.store.deleted(index, &value),
            Event::Absent(index) => self.store.settled(index),
        }
        let mut new = self.store.touched.iter().skip(before);
        new.any(|one| one.compiled.is_some())
    }

    /// Takes over what a write made of its object, which is looked at once more. A status that came
    /// too late waits for the newer state: the watch brings it.
    fn answered(&mut self, Written { key, object, late }: Written) {
        let kind = WATCHED.get(key.0).and_then(|watched| watched.kind);
        if let Some(kind) = kind.filter(|_| !late) {
            self.due.statuses.insert((kind, key.1.clone()));
        }
        if let Some(object) = object {
            self.store.refreshed(key.0, object);
            self.note_applied(key);
        }
    }

    fn reconcile(&mut self) {
        let touched = std::mem::take(&mut self.store.touched);
        self.compile(&touched);
        if !self.leads.borrow().leads {
            self.due = Due::default();
            self.applied.clear();
            self.led = false;
            return;
        }
        if std::mem::replace(&mut self.led, true) {
            self.note(&touched);
        } else {
            self.note_all();
        }
        self.provision();
        self.write_statuses();
    }

    /// Notes what has to be looked at after what was touched.
    fn note(&mut self, touched: &[Touched]) {
        for one in touched {
            let (index, name) = &one.key;
            let kind = WATCHED.get(*index).and_then(|watched| watched.kind);
            let subject = kind.map(|kind| (kind, name.clone()));
            let judged = self.judged.as_ref();
            let has_status =
                |subject: &Subject| judged.is_some_and(|all| all.contains_key(subject));
            self.due.statuses.extend(subject.filter(has_status));
            match one.compiled {
                Some(Kind::Gateway) => {
                    self.due.gateways.insert(name.clone());
                }
                // Whether a Gateway is programmed depends on its proxies' readiness.
                Some(Kind::Pod) => self.gateways_due(),
                _ => {}
            }
            if let Some(gateway) = &one.made_for {
                self.due.gateways.insert(gateway.clone());
                self.due.statuses.insert((Kind::Gateway, gateway.clone()));
            }
            if self.store.get(*index, name).is_none() {
                self.applied.remove(&one.key);
            }
        }
    }

    /// A new leader looks at everything.
    fn note_all(&mut self) {
        let judged = self.judged.iter().flatten();
        self.due.statuses = judged.map(|(subject, _)| subject.clone()).collect();
        let plans = self.compiler.plans().iter();
        self.due.gateways = plans.map(|plan| plan.name.clone()).collect();
        self.due.gateways.extend(self.provisioned_for());
    }

    /// The statuses of all Gateways of ours are looked at.
    fn gateways_due(&mut self) {
        let plans = self.compiler.plans().iter();
        let gateways = plans.map(|plan| (Kind::Gateway, plan.name.clone()));
        self.due.statuses.extend(gateways);
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
