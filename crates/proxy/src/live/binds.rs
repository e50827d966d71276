//! The sockets of a configuration: what is known is kept, what is new is bound, and accepted on once
//! the configuration is in force.

use super::{Bound, Live, Proxy, Served};
use crate::listener::{Accepting, bind};
use crate::tls::server::Terminating;
use crate::worker::Command;
use config::{Bind, Snapshot};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

impl Proxy {
    /// The binds of a snapshot: known ones are kept, new ones are bound.
    pub(super) fn binds(
        &self,
        old: &Live,
        snapshot: &Snapshot,
    ) -> (Vec<Served>, Vec<Fresh>, Vec<Bound>) {
        let (mut served, mut fresh, mut report) = (Vec::new(), Vec::new(), Vec::new());
        for bind in &snapshot.binds {
            let configured = SocketAddr::new(bind.address, bind.port);
            let known = old
                .binds
                .iter()
                .find(|known| known.configured == configured);
            let result = match known {
                Some(known) => Ok(Served {
                    tls: Terminating::new(bind, known.tls.as_deref()).map(Arc::new),
                    bind: bind.clone(),
                    ..known.clone()
                }),
                None => self.bind(configured, bind).map(|(one, accepting)| {
                    fresh.push(accepting);
                    one
                }),
            };
            let mut certificates = Vec::new();
            let result = result.map(|one| {
                let address = one.address;
                certificates = one
                    .tls
                    .as_ref()
                    .map(|tls| tls.problems())
                    .unwrap_or_default();
                served.push(one);
                address
            });
            report.push(Bound {
                configured,
                result,
                certificates,
            });
        }
        (served, fresh, report)
    }

    fn bind(&self, configured: SocketAddr, bind: &Arc<Bind>) -> io::Result<(Served, Fresh)> {
        let sockets = bind::sockets(configured, self.workers.len())?;
        let address = match sockets.first() {
            Some(socket) => socket.local_addr()?,
            None => configured,
        };
        let stop = self.shared.stop.child_token();
        let served = Served {
            configured,
            address,
            bind: bind.clone(),
            tls: Terminating::new(bind, None).map(Arc::new),
            stop: stop.clone(),
        };
        Ok((
            served,
            Fresh {
                sockets,
                address,
                stop,
            },
        ))
    }

    pub(super) fn accept(&self, fresh: Fresh) {
        let Fresh {
            sockets,
            address,
            stop,
        } = fresh;
        for (worker, socket) in self.workers.iter().zip(sockets) {
            let accepting = Accepting {
                socket,
                address,
                stop: stop.clone(),
            };
            if worker.commands.send(Command::Accept(accepting)).is_err() {
                tracing::error!(%address, "a worker has ended and does not accept");
            }
        }
    }
}

/// Sockets that were bound but are not accepted on yet.
#[derive(Debug)]
pub(super) struct Fresh {
    sockets: Vec<std::net::TcpListener>,
    address: SocketAddr,
    stop: CancellationToken,
}
