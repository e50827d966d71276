//! The proxy's end: connect, say what is here, take over what comes, keep it.
//!
//! The connection is opened again for ever, with growing waits; what the proxy has stays in force in
//! between. Token and authority are read again for each attempt, since both are renewed on disk.

use super::connection::{self, Http};
use super::wire::{Applied, Change, FromProxy, Hello, Said};
use super::{MOST_OBJECTS, StreamError};
use crate::kube::Content;
use config::{Kind, Object, Objects, Resource};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod kept;

use kept::Kept;

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Where the controller is and how a proxy proves who it is.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// `HOST:PORT`.
    pub controller: String,
    /// Certificate of the authority, PEM.
    pub authority: PathBuf,
    /// Token of the ServiceAccount.
    pub token: PathBuf,
    /// Folder for the last good objects.
    pub state: PathBuf,
}

/// Objects that make one version.
#[derive(Debug, Clone)]
pub struct Received {
    /// All of them.
    pub objects: Arc<Objects>,
    /// Of the controller's commit; 0 for what was kept from before.
    pub version: u64,
    /// Counts connections: a version means something to the one that it came from.
    connection: u64,
}

/// A stream that is followed.
#[derive(Debug)]
pub struct Following {
    /// The newest version; `None` until there is one.
    pub received: watch::Receiver<Option<Received>>,
    applied: mpsc::Sender<(u64, Applied)>,
}

impl Following {
    /// Says what became of a version. Dropped when the connection that it came from is gone.
    pub fn report(&self, received: &Received, mut applied: Applied) {
        applied.version = received.version;
        env!("CARGO_PKG_VERSION").clone_into(&mut applied.binary);
        // Full only when the controller reads nothing: then a later report says more.
        let _ = self.applied.try_send((received.connection, applied));
    }
}

/// Follows a controller until `stop`; the task belongs to `tracker`. What was kept is there at once.
pub fn follow(
    settings: StreamSettings,
    stop: CancellationToken,
    tracker: &TaskTracker,
) -> Following {
    let kept = Kept::read(&settings.state);
    let mut proxy = Client {
        settings,
        objects: BTreeMap::new(),
        parsed: Objects::default(),
        connection: 0,
        pending: BTreeMap::new(),
    };
    let first = kept.and_then(|kept| proxy.restore(kept));
    let (sender, received) = watch::channel(first);
    let (applied, reports) = mpsc::channel(16);
    let running = Box::pin(proxy.run(sender, reports));
    tracker.spawn(async move { stop.run_until_cancelled(running).await });
    Following { received, applied }
}

struct Client {
    settings: StreamSettings,
    /// What is in force, by key.
    objects: BTreeMap<String, (Content, Kind, config::ObjectName)>,
    parsed: Objects,
    connection: u64,
    /// Changes since the last commit.
    pending: BTreeMap<String, Option<Content>>,
}

/// `apiVersion` and `kind` of an object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: String,
    kind: String,
}

impl Client {
    fn restore(&mut self, kept: Vec<(String, Content)>) -> Option<Received> {
        for (key, content) in kept {
            self.pending.insert(key, Some(content));
        }
        self.commit().ok()?;
        Some(self.received(0))
    }

    fn received(&self, version: u64) -> Received {
        Received {
            objects: Arc::new(self.parsed.clone()),
            version,
            connection: self.connection,
        }
    }

    async fn run(
        mut self,
        sender: watch::Sender<Option<Received>>,
        mut reports: mpsc::Receiver<(u64, Applied)>,
    ) {
        let mut wait = FIRST_WAIT;
        loop {
            self.connection += 1;
            self.pending.clear();
            let began = tokio::time::Instant::now();
            if let Err(error) = self.connect(&sender, &mut reports).await {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, source, "no controller; what is in force stays");
            }
            if began.elapsed() > LONGEST_WAIT {
                wait = FIRST_WAIT;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// One connection, until it ends.
    async fn connect(
        &mut self,
        sender: &watch::Sender<Option<Received>>,
        reports: &mut mpsc::Receiver<(u64, Applied)>,
    ) -> Result<(), StreamError> {
        let token = read(&self.settings.token).await?;
        let authority = read(&self.settings.authority).await?;
        let address = self.settings.controller.clone();
        let name = connection::host_of(&address);
        let (http, driver) = connection::open(&address, name, authority.as_bytes()).await?;
        let mut driver = std::pin::pin!(driver);
        let talking = self.talk(http, token.trim(), sender, reports);
        tokio::select! {
            ended = &mut driver => ended.map_err(StreamError::from),
            ended = talking => ended,
        }
    }

    async fn talk(
        &mut self,
        http: Http,
        token: &str,
        sender: &watch::Sender<Option<Received>>,
        reports: &mut mpsc::Receiver<(u64, Applied)>,
    ) -> Result<(), StreamError> {
        let (say, said) = mpsc::channel(4);
        let hello = Hello {
            have: self
                .objects
                .iter()
                .map(|(key, (content, ..))| (key.clone(), content.hash))
                .collect(),
            binary: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let hello = FromProxy {
            said: Some(Said::Hello(hello)),
        };
        let _ = say.send(hello).await;
        let address = &self.settings.controller;
        let mut changes = connection::stream(&http, address, token, said).await?;
        loop {
            tokio::select! {
                change = changes.message() => match change? {
                    None => return Ok(()),
                    Some(change) => self.take(change, sender).await?,
                },
                report = reports.recv() => match report {
                    Some((connection, applied)) if connection == self.connection => {
                        let applied = FromProxy { said: Some(Said::Applied(applied)) };
                        let _ = say.send(applied).await;
                    }
                    Some(_) => {}
                    None => return Ok(()),
                },
            }
        }
    }

    async fn take(
        &mut self,
        change: Change,
        sender: &watch::Sender<Option<Received>>,
    ) -> Result<(), StreamError> {
        for upsert in change.upserts {
            self.pending
                .insert(upsert.key, Some(Content::new(upsert.object)));
        }
        self.pending
            .extend(change.deletes.into_iter().map(|key| (key, None)));
        if self.pending.len() > MOST_OBJECTS {
            return Err(StreamError::Unusable(format!(
                "more than {MOST_OBJECTS} objects"
            )));
        }
        let Some(version) = change.commit else {
            return Ok(());
        };
        if change.binary != env!("CARGO_PKG_VERSION") {
            tracing::warn!(
                controller = change.binary,
                "the controller is of another version"
            );
        }
        let is_new = !self.pending.is_empty() || sender.borrow().is_none();
        self.commit()?;
        if is_new {
            self.keep().await;
        }
        sender.send_replace(Some(self.received(version)));
        Ok(())
    }

    /// Puts all changes in force, or none.
    fn commit(&mut self) -> Result<(), StreamError> {
        let mut decoded = Vec::new();
        for (key, content) in std::mem::take(&mut self.pending) {
            let Some(content) = content else {
                decoded.push((key, None));
                continue;
            };
            let object =
                decode(&content).map_err(|why| StreamError::Unusable(format!("{key}: {why}")))?;
            decoded.push((key, object.map(|object| (content, object))));
        }
        for (key, new) in decoded {
            if let Some((_, kind, name)) = self.objects.remove(&key) {
                self.parsed.remove(kind, &name);
            }
            if let Some((content, object)) = new {
                self.objects
                    .insert(key, (content, object.resource.kind(), object.name()));
                self.parsed.insert(object);
            }
        }
        Ok(())
    }

    async fn keep(&self) {
        let objects = self.objects.iter();
        let objects: Vec<_> = objects
            .map(|(key, (content, ..))| (key.clone(), content.clone()))
            .collect();
        let state = self.settings.state.clone();
        let kept = tokio::task::spawn_blocking(move || Kept::write(&state, &objects)).await;
        if let Ok(Err(error)) = kept {
            tracing::warn!(%error, "the objects cannot be kept for a restart");
        }
    }
}

/// `None` for a kind that this version does not know.
fn decode(content: &Content) -> Result<Option<Object>, serde_json::Error> {
    let header: Header = serde_json::from_slice(&content.json)?;
    let Some(kind) = Kind::of(&header.api_version, &header.kind) else {
        return Ok(None);
    };
    let resource = Resource::from_json(kind, serde_json::from_slice(&content.json)?)?;
    Ok(Some(Object::from(resource)))
}

pub(super) async fn read(path: &std::path::Path) -> Result<String, StreamError> {
    tokio::fs::read_to_string(path)
        .await
        .map_err(|error| StreamError::File {
            path: path.display().to_string(),
            why: error.to_string(),
        })
}
