//! One watch per resource, for as long as the controller runs.
//!
//! Listing, resuming and starting over are the library's business. Ours: which version is served, how
//! long to wait after an error, and that objects which go away with their definition stay as they
//! were (somebody took the definition away, nobody took back what the objects say).

use super::resources::{MANAGED_BY, Scope, WATCHED, Watched};
use futures_util::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::watcher;
use kube::{Client, core::GroupVersionKind};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// How often a resource that is not served is asked for.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// How long a deletion waits for others, and most events that are taken together then.
const GATHER: Duration = Duration::from_millis(10);
const TOGETHER: usize = 256;
/// How often a definition is asked for when nobody answers.
const MOST_ASKED: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What happened to the objects of one resource, by its position in the list.
#[derive(Debug)]
pub(super) enum Event {
    /// All objects there are.
    Listed(usize, Vec<Value>),
    Applied(usize, Value),
    Deleted(usize, Value),
    /// The resource is not served.
    Absent(usize),
}

/// Follows one resource until nobody listens any more.
pub(super) async fn follow(client: Client, index: usize, events: mpsc::Sender<Event>) {
    let Some(watched) = WATCHED.get(index) else {
        return;
    };
    let mut was_listed = false;
    loop {
        for version in watched.versions {
            let mut following = Following {
                was_listed: &mut was_listed,
                client: client.clone(),
                watched,
                version,
                index,
                events: &events,
                listing: Vec::new(),
                wait: FIRST_WAIT,
            };
            if following.run().await == End::NobodyListens {
                return;
            }
        }
        if events.send(Event::Absent(index)).await.is_err() {
            return;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

#[derive(PartialEq, Eq)]
enum End {
    NotServed,
    NobodyListens,
}

struct Following<'a> {
    client: Client,
    watched: &'static Watched,
    version: &'static str,
    index: usize,
    events: &'a mpsc::Sender<Event>,
    /// With whatever version, at any time.
    was_listed: &'a mut bool,
    listing: Vec<Value>,
    wait: Duration,
}

impl Following<'_> {
    async fn run(&mut self) -> End {
        let resource = self.watched.resource(self.version);
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut config = watcher::Config::default().fields(self.watched.fields);
        if self.watched.only_ours {
            config = config.labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
        }
        let mut stream = std::pin::pin!(watcher(api, config));
        while let Some(next) = stream.next().await {
            let mut together = vec![next];
            let mut is_going = false;
            if self.watched.is_custom() && together.iter().any(is_delete) {
                let end = Instant::now() + GATHER;
                while together.len() < TOGETHER
                    && let Ok(Some(next)) = timeout_at(end, stream.next()).await
                {
                    together.push(next);
                }
                // One question for all that are here: what is not going now was not going before.
                is_going = self.is_definition_going().await;
            }
            for next in together {
                match next {
                    Ok(watcher::Event::Delete(_)) if is_going => {}
                    Ok(event) => {
                        self.wait = FIRST_WAIT;
                        if self.pass_on(event).await.is_err() {
                            return End::NobodyListens;
                        }
                    }
                    Err(error) if is_missing(&error) => return End::NotServed,
                    Err(error) => self.failed(&error).await,
                }
            }
        }
        End::NobodyListens
    }

    async fn failed(&mut self, error: &watcher::Error) {
        tracing::warn!(resource = self.watched.definition(), %error, "a watch failed");
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    async fn pass_on(
        &mut self,
        event: watcher::Event<DynamicObject>,
    ) -> Result<(), mpsc::error::SendError<Event>> {
        let index = self.index;
        let event = match event {
            watcher::Event::Init => {
                self.listing.clear();
                return Ok(());
            }
            watcher::Event::InitApply(object) => {
                self.listing.extend(self.value(object));
                return Ok(());
            }
            // The API server ends the watches of a definition that is going; a list then has what is left.
            watcher::Event::InitDone
                if *self.was_listed
                    && self.watched.is_custom()
                    && self.is_definition_going().await =>
            {
                self.listing.clear();
                return Ok(());
            }
            watcher::Event::InitDone => {
                *self.was_listed = true;
                Event::Listed(index, std::mem::take(&mut self.listing))
            }
            watcher::Event::Apply(object) => match self.value(object) {
                Some(value) => Event::Applied(index, value),
                None => return Ok(()),
            },
            watcher::Event::Delete(object) => match self.value(object) {
                Some(value) => Event::Deleted(index, value),
                None => return Ok(()),
            },
        };
        self.events.send(event).await
    }

    /// The object as JSON; lists leave version and kind out of their items.
    fn value(&self, object: DynamicObject) -> Option<Value> {
        let mut value = serde_json::to_value(object).ok()?;
        let fields = value.as_object_mut()?;
        let version = self.watched.api_version(self.version);
        fields.insert("apiVersion".to_owned(), version.into());
        fields.insert("kind".to_owned(), self.watched.api_kind.into());
        Some(value)
    }

    /// Whether objects disappear because their definition does.
    async fn is_definition_going(&self) -> bool {
        let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let resource = ApiResource::from_gvk_with_plural(&kind, "customresourcedefinitions");
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut wait = FIRST_WAIT;
        for _ in 0..MOST_ASKED {
            match api.get_metadata_opt(&self.watched.definition()).await {
                Ok(Some(definition)) => return definition.metadata.deletion_timestamp.is_some(),
                Ok(None) => return true,
                Err(error) => {
                    tracing::warn!(%error, "cannot read a definition");
                    if matches!(error, kube::Error::Api(_)) {
                        break;
                    }
                }
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        tracing::warn!("objects count as deleted, not as gone with their definition");
        false
    }
}

fn is_delete(next: &Result<watcher::Event<DynamicObject>, watcher::Error>) -> bool {
    matches!(next, Ok(watcher::Event::Delete(_)))
}

fn is_missing(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

/// An API for one object's namespace, or for the cluster.
pub(super) fn api(
    client: &Client,
    index: usize,
    version: &str,
    namespace: &str,
) -> Option<Api<DynamicObject>> {
    let watched = WATCHED.get(index)?;
    let resource = watched.resource(version);
    Some(match watched.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &resource),
    })
}
