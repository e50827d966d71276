//! Writes, one at a time for each object: statuses and what is provisioned.
//!
//! A status is patched on the version that it was computed from, so a change in between refuses it; the
//! watch then brings the newer state and it is computed again. What is provisioned is applied by the
//! server, which knows whose fields are whose.

use super::counts::Counts;
use super::manifests::Manifest;
use super::resources::{WATCHED, position};
use super::{FIELD_MANAGER, watch};
use config::ObjectName;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// One object of one resource.
pub(super) type Key = (usize, ObjectName);

const DEADLINE: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Most writes at a time.
const AT_ONCE: usize = 32;

/// A write to do.
#[derive(Debug, Clone)]
pub(super) enum Write {
    Status {
        resource_version: String,
        api_version: String,
        status: Value,
    },
    Apply(Manifest),
    Delete {
        uid: String,
    },
}

/// What became of one.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) key: Key,
    /// The object as it is now; `None` when it is gone or the write failed.
    pub(super) object: Option<Value>,
    /// Whether it came too late: the object had changed in between, or was gone.
    pub(super) late: bool,
}

/// Writes under way, and objects that have to wait after a failure.
#[derive(Debug, Default)]
pub(super) struct Writes {
    under_way: JoinSet<(Key, Result<Option<Value>, kube::Error>)>,
    busy: HashMap<Key, String>,
    failed: HashMap<Key, (Duration, Instant)>,
    /// What was last written without effect: the server leaves some of it out.
    fruitless: HashMap<Key, String>,
    pub(super) counts: Arc<Counts>,
}

impl Writes {
    pub(super) fn counted(counts: Arc<Counts>) -> Self {
        Self {
            counts,
            ..Self::default()
        }
    }

    /// Whether another write may start now.
    pub(super) fn has_room(&self) -> bool {
        self.busy.len() < AT_ONCE
    }

    /// Whether a write is under way for the object, or one failed a moment ago.
    pub(super) fn holds(&self, key: &Key) -> bool {
        let failed = self.failed.get(key);
        self.busy.contains_key(key) || failed.is_some_and(|(_, until)| *until > Instant::now())
    }

    /// Starts a write unless one is under way for the object, or it failed a moment ago.
    pub(super) fn start(&mut self, client: &Client, key: Key, write: Write) {
        let print = format!("{write:?}");
        let in_vain = self.fruitless.get(&key) == Some(&print);
        if in_vain || self.holds(&key) || !self.has_room() {
            return;
        }
        self.busy.insert(key.clone(), print);
        Counts::add(&self.counts.writes, 1);
        let client = client.clone();
        self.under_way.spawn(async move {
            let done = tokio::time::timeout(DEADLINE, perform(client, &key, write)).await;
            let done =
                done.unwrap_or_else(|_| Err(kube::Error::Service("no answer in time".into())));
            (key, done)
        });
    }

    /// The next write that ends; waits for ever when none is under way.
    pub(super) async fn next(&mut self) -> Option<Written> {
        match self.under_way.join_next().await {
            None => std::future::pending().await,
            Some(Err(_)) => None,
            Some(Ok((key, done))) => Some(self.settle(key, done)),
        }
    }

    fn settle(&mut self, key: Key, done: Result<Option<Value>, kube::Error>) -> Written {
        let print = self.busy.remove(&key).unwrap_or_default();
        let mut late = false;
        let object = match done {
            Ok(object) => {
                self.failed.remove(&key);
                let version = object
                    .as_ref()
                    .map(|object| object["metadata"]["resourceVersion"].to_string());
                if version.is_some_and(|version| print.contains(&version)) {
                    self.fruitless.insert(key.clone(), print);
                } else {
                    self.fruitless.remove(&key);
                }
                object
            }
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {
                late = true;
                None
            }
            Err(error) => {
                let wait = self
                    .failed
                    .get(&key)
                    .map_or(FIRST_WAIT, |(wait, _)| (*wait * 2).min(LONGEST_WAIT));
                let resource = WATCHED.get(key.0).map(|watched| watched.api_kind);
                Counts::add(&self.counts.writes_failed, 1);
                tracing::warn!(resource, name = %key.1, error = full(&error), ?wait, "a write failed");
                self.failed
                    .insert(key.clone(), (wait, Instant::now() + wait));
                None
            }
        };
        Written { key, object, late }
    }

    /// Until when something has to wait after a failure.
    pub(super) fn again(&self) -> Option<Instant> {
        self.failed
            .values()
            .map(|(_, until)| *until)
            .filter(|until| *until > Instant::now())
            .min()
    }
}

fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

async fn perform(
    client: Client,
    (index, name): &Key,
    write: Write,
) -> Result<Option<Value>, kube::Error> {
    let unknown = || kube::Error::Service("no such resource".into());
    let versions = WATCHED.get(*index).map(|watched| watched.versions);
    let first = versions
        .and_then(|versions| versions.first())
        .copied()
        .unwrap_or("v1");
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let object = match write {
        Write::Status {
            resource_version,
            api_version,
            status,
        } => {
            let version = api_version.rsplit('/').next().unwrap_or(first).to_owned();
            let api = watch::api(&client, *index, &version, &name.namespace).ok_or_else(unknown)?;
            let patch =
                json!({"metadata": {"resourceVersion": resource_version}, "status": status});
            Some(
                api.patch_status(&name.name, &parameters, &Patch::Merge(&patch))
                    .await?,
            )
        }
        Write::Apply(manifest) => {
            let api = watch::api(&client, *index, first, &name.namespace).ok_or_else(unknown)?;
            let parameters = parameters.force();
            Some(
                api.patch(&name.name, &parameters, &Patch::Apply(&manifest.object))
                    .await?,
            )
        }
        Write::Delete { uid } => {
            let api = watch::api(&client, *index, first, &name.namespace).ok_or_else(unknown)?;
            let preconditions = Preconditions {
                uid: Some(uid),
                resource_version: None,
            };
            let parameters = DeleteParams {
                preconditions: Some(preconditions),
                ..DeleteParams::default()
            };
            api.delete(&name.name, &parameters).await?;
            None
        }
    };
    let Some(object) = object else {
        return Ok(None);
    };
    serde_json::to_value(object)
        .map(Some)
        .map_err(kube::Error::SerdeError)
}

/// The key of a manifest's object.
pub(super) fn key_of(manifest: &Manifest) -> Option<Key> {
    let name = super::store::name_of(&manifest.object)?;
    Some((position(manifest.group, manifest.kind)?, name))
}
