//! A configuration in force and what follows it: edits, signals, names that move, busy ports.
//!
//! An edit with an error changes nothing: the last good configuration stays and the errors are
//! shown. A socket that could not be opened by a reload is tried again.

use super::members::{LookUp, Names};
use super::signals::{Asked, Signals};
use super::source::Source;
use crate::admin::{Admin, Configuration};
use config::{ListenerReport, Snapshot, SocketState};
use proxy::{Applied, Bound, Proxy};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The first wait before a socket is tried again, and the longest: it doubles.
const REBIND_AFTER: Duration = Duration::from_millis(100);
const REBIND_MOST: Duration = Duration::from_secs(30);

/// How long the first configuration waits for the addresses of its names, and how long an edit does
/// for those of new ones.
const AT_FIRST: Duration = Duration::from_secs(3);
const AT_AN_EDIT: Duration = Duration::from_millis(250);

/// Everything that a running gateway consists of.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) proxy: Arc<Proxy>,
    pub(super) admin: Arc<Admin>,
    pub(super) source: Source,
    names: Names,
    /// Problems that were reported already.
    told: BTreeSet<String>,
    /// When sockets that are not open are tried again, and how long that was to wait for.
    rebind: Option<(Instant, Duration)>,
    /// Wait for the addresses of names that the next configuration is the first to have.
    patience: Duration,
}

impl Serving {
    pub(super) fn new(proxy: Arc<Proxy>, admin: Arc<Admin>, source: Source, names: Names) -> Self {
        Self {
            proxy,
            admin,
            source,
            names,
            told: BTreeSet::new(),
            rebind: None,
            patience: AT_FIRST,
        }
    }

    /// Compiles what the source has now and puts it in force.
    pub(super) async fn apply(&mut self) -> Applied {
        let compiled = self.source.compile();
        let objects = self.source.objects();
        let patience = std::mem::replace(&mut self.patience, AT_AN_EDIT);
        let resolving = self.names.resolve(objects, &compiled.snapshot, patience);
        let members = resolving.await;
        let applied = self.proxy.apply(compiled.snapshot.clone(), &members);
        let mut statuses = compiled.statuses;
        let reports = reports(&compiled.snapshot, &applied);
        statuses.take_reports(&reports);
        self.source.report(&compiled.snapshot, &reports);
        self.tell(&statuses);
        let failed = applied.binds.iter().any(|bound| bound.result.is_err());
        self.rebind = failed.then(|| {
            let before = self.rebind.map(|(_, wait)| (wait * 2).min(REBIND_MOST));
            let wait = before.unwrap_or(REBIND_AFTER);
            (Instant::now() + wait, wait)
        });
        self.admin.set_configuration(Configuration {
            statuses,
            refused: self.source.refused(),
        });
        applied
    }

    /// Follows changes until a signal ends the process.
    pub(super) async fn follow(&mut self, signals: &mut Signals) {
        loop {
            let rebind = self.rebind.map(|(at, _)| at);
            let due = self.names.due();
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::End => return,
                    Asked::Reload => {
                        self.source.look_now();
                        self.names.look_up(LookUp::All);
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
                () = wait_until(due) => self.names.look_up(LookUp::Due),
                has_moved = self.names.told() => if has_moved {
                    self.follow_names();
                },
                () = wait_until(rebind) => {
                    self.apply().await;
                }
            }
        }
    }

    /// Puts the addresses in force that names have now.
    fn follow_names(&self) {
        let live = self.proxy.live();
        let members = self.names.members(self.source.objects(), &live.snapshot);
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

async fn wait_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// What became of each listener: its sockets, and certificates that cannot be used.
fn reports(snapshot: &Snapshot, applied: &Applied) -> Vec<ListenerReport> {
    let sockets: Vec<_> = applied.binds.iter().map(socket_state).collect();
    let mut reports = ListenerReport::of_sockets(snapshot, &sockets);
    let certificates = applied.binds.iter().flat_map(|bound| &bound.certificates);
    reports.extend(certificates.map(|(gateway, listener, why)| ListenerReport {
        gateway: gateway.clone(),
        listener: listener.clone(),
        state: SocketState::CertificateUnusable(why.clone()),
    }));
    reports
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
