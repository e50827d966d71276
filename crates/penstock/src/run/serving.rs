//! A configuration in force and what follows it: edits, signals, names that move, busy ports.
//!
//! An edit with an error changes nothing: the last good configuration stays and the errors are
//! shown. A socket that could not be opened by a reload is tried again.

use super::members::{LookUp, Names};
use super::signals::{Asked, Signals};
use super::source::Source;
use crate::admin::{Admin, Configuration};
use config::SocketState;
use proxy::{Applied, Bound, Proxy};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How often names of endpoints are resolved again.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// The first wait before a socket is tried again; it doubles up to [`RESOLVE_EVERY`].
const REBIND_AFTER: Duration = Duration::from_millis(100);

/// Everything that a running gateway consists of.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) proxy: Arc<Proxy>,
    pub(super) admin: Arc<Admin>,
    pub(super) source: Source,
    names: Names,
    /// Problems that were reported already.
    told: BTreeSet<String>,
    /// Wait until sockets that are not open are tried again.
    rebind: Option<Duration>,
}

impl Serving {
    pub(super) fn new(proxy: Arc<Proxy>, admin: Arc<Admin>, source: Source) -> Self {
        Self {
            proxy,
            admin,
            source,
            names: Names::default(),
            told: BTreeSet::new(),
            rebind: None,
        }
    }

    /// Compiles what the source has now and puts it in force.
    pub(super) async fn apply(&mut self) -> Applied {
        let compiled = self.source.compile();
        let objects = self.source.objects();
        let members = self
            .names
            .resolve(objects, &compiled.snapshot, LookUp::New)
            .await;
        let applied = self.proxy.apply(compiled.snapshot.clone(), &members);
        let mut statuses = compiled.statuses;
        let report: Vec<_> = applied.binds.iter().map(socket_state).collect();
        statuses.take_sockets(&compiled.snapshot, &report);
        self.source.report(&compiled.snapshot, &report);
        self.tell(&statuses);
        let failed = applied.binds.iter().any(|bound| bound.result.is_err());
        self.rebind = failed.then(|| match self.rebind {
            Some(before) => (before * 2).min(RESOLVE_EVERY),
            None => REBIND_AFTER,
        });
        self.admin.set_configuration(Configuration {
            statuses,
            refused: self.source.refused(),
        });
        applied
    }

    /// Follows changes until a signal ends the process.
    pub(super) async fn follow(&mut self, signals: &mut Signals) {
        let mut again = tokio::time::interval(RESOLVE_EVERY);
        again.tick().await;
        loop {
            let rebind = self.rebind;
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::End => return,
                    Asked::Reload => {
                        self.source.look_now();
                        self.resolve().await;
                    }
                },
                is_good = self.source.changed() => {
                    if is_good {
                        self.rebind = None;
                        self.apply().await;
                    } else {
                        self.refuse();
                    }
                }
                _ = again.tick() => self.resolve().await,
                () = wait(rebind) => {
                    self.apply().await;
                }
            }
        }
    }

    /// Resolves all names again.
    async fn resolve(&mut self) {
        let live = self.proxy.live();
        let objects = self.source.objects();
        let members = self
            .names
            .resolve(objects, &live.snapshot, LookUp::All)
            .await;
        self.proxy.apply_members(&members);
    }

    /// Keeps the last good configuration and shows what is wrong with the new one.
    fn refuse(&self) {
        let refused = self.source.refused();
        for error in &refused {
            tracing::error!("an edit is refused, the last good configuration stays: {error}");
        }
        self.admin.set_refused(refused);
    }

    /// Reports each problem once.
    fn tell(&mut self, statuses: &config::Statuses) {
        let problems: BTreeSet<String> = statuses
            .problems()
            .iter()
            .map(ToString::to_string)
            .collect();
        for problem in problems.difference(&self.told) {
            tracing::warn!("{problem}");
        }
        self.told = problems;
    }
}

async fn wait(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

fn socket_state(bound: &Bound) -> (SocketAddr, SocketState) {
    let state = match &bound.result {
        Ok(_) => SocketState::Served,
        Err(error) => match error.kind() {
            ErrorKind::AddrInUse | ErrorKind::PermissionDenied => {
                SocketState::PortUnavailable(error.to_string())
            }
            _ => SocketState::AddressNotUsable(error.to_string()),
        },
    };
    (bound.configured, state)
}
