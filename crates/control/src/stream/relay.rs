//! From a replica that does not lead to the one that does: what its proxies said.
//!
//! The whole list goes out each time it changes, so nothing has to be remembered on the way, and it is
//! forgotten with the connection.

use super::client::read;
use super::wire::{FromProxy, Listener, Relayed, RelayedReport, Said};
use super::{StreamError, connection};
use crate::kube::{Feeds, Leadership, Report};
use config::ObjectName;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

const AGAIN: Duration = Duration::from_secs(1);
/// Reports that come within this time go out together.
const SETTLE: Duration = Duration::from_millis(10);

/// How a replica reaches the one that leads.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// Name in the certificate of every replica.
    pub name: String,
    /// Certificate of the authority, PEM.
    pub authority: String,
    /// Token of the controller's own ServiceAccount.
    pub token: PathBuf,
}

/// Relays for ever, whenever another replica leads.
pub async fn relay(
    settings: RelaySettings,
    feeds: Arc<Feeds>,
    mut leadership: watch::Receiver<Leadership>,
) {
    loop {
        let leader = leadership.borrow_and_update().elsewhere();
        let relaying = async {
            match leader {
                None => std::future::pending().await,
                Some(address) => to(&settings, &feeds, &address).await,
            }
        };
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            ended = relaying => {
                if let Err(error) = ended {
                    tracing::warn!(%error, "the leading replica cannot be told");
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

async fn to(settings: &RelaySettings, feeds: &Feeds, address: &str) -> Result<(), StreamError> {
    let token = read(&settings.token).await?;
    let authority = settings.authority.as_bytes();
    let (http, driver) = connection::open(address, &settings.name, authority).await?;
    let mut driver = std::pin::pin!(driver);
    let talking = async {
        let mut changed = feeds.changes();
        let (say, said) = mpsc::channel(4);
        let _ = say.send(list(feeds)).await;
        let mut answers = connection::stream(&http, address, token.trim(), said).await?;
        loop {
            tokio::select! {
                answer = answers.message() => if answer?.is_none() { return Ok(()) },
                _ = changed.changed() => {
                    tokio::time::sleep(SETTLE).await;
                    changed.mark_unchanged();
                    let _ = say.send(list(feeds)).await;
                }
            }
        }
    };
    tokio::select! {
        ended = &mut driver => ended.map_err(StreamError::from),
        ended = talking => ended,
    }
}

fn list(feeds: &Feeds) -> FromProxy {
    let reports = feeds.own_reports().into_iter();
    let reports = reports.map(|(gateway, report)| RelayedReport {
        namespace: gateway.namespace.to_string(),
        gateway: gateway.name.to_string(),
        pod: report.pod,
        generation: report.generation,
        listeners: report
            .listeners
            .iter()
            .map(|(name, state)| Listener::of(name, state))
            .collect(),
    });
    let relayed = Relayed {
        reports: reports.collect(),
    };
    FromProxy {
        said: Some(Said::Relayed(relayed)),
    }
}

/// What another replica relayed.
pub(super) fn reports(relayed: &Relayed) -> Vec<(ObjectName, Report)> {
    let one = |report: &RelayedReport| {
        let listeners = report.listeners.iter();
        let relayed = Report {
            pod: report.pod.clone(),
            generation: report.generation,
            listeners: listeners
                .map(|one| (one.name.clone(), one.state()))
                .collect(),
        };
        (ObjectName::new(&report.namespace, &report.gateway), relayed)
    };
    relayed.reports.iter().map(one).collect()
}
