//! The external endpoint picker that a pool names, and the pool as such a picker sees it.

use super::lease::{Lease, Lent};
use super::{Endpoint, Pool, Resolved, Tls, Transport, reach};
use crate::clock;
use crate::ext_proc::{Picker, addresses};
use crate::live::Members;
use crate::tls::client::Connecting;
use arc_swap::ArcSwapOption;
use config::{ExternalPicker, PickerKind, PickerTls, PoolConfig};
use parking_lot::Mutex;
use picker::{Ask, Decision, EndpointId, Subsets};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a pool has of an external picker, whether it names one or not.
#[derive(Debug, Default)]
pub(super) struct External {
    picker: ArcSwapOption<Picker>,
    /// How the picker is spoken to, made once per setting.
    transport: Mutex<Option<(PickerTls, Arc<Transport>)>>,
}

impl Transport {
    fn towards_picker(tls: &PickerTls) -> Self {
        let connecting = match tls {
            PickerTls::None => None,
            PickerTls::Unverified => Some(Connecting::unverified(true)),
            PickerTls::Verified(tls) => Some(Connecting::new(tls, true)),
            PickerTls::Unusable(why) => Some(Err(rustls::Error::General(why.clone()))),
        };
        Self {
            is_h2: true,
            tls: match connecting {
                None => Tls::None,
                Some(Ok(connecting)) => Tls::Connect(Box::new(connecting)),
                Some(Err(error)) => {
                    Tls::Unusable(format!("its tls settings cannot be used: {error}").into())
                }
            },
        }
    }
}

impl Endpoint {
    /// Something that is connected to and no member of a pool.
    pub(crate) fn outside(address: SocketAddr, transport: Arc<Transport>) -> Self {
        Self {
            uid: super::NEXT_ENDPOINT.fetch_add(1, Ordering::Relaxed),
            id: EndpointId::default(),
            name: address.to_string().into(),
            address,
            transport,
            announced: super::models::Announced::default(),
            reach: reach::Reach::default(),
            stop: CancellationToken::new(),
            left: AtomicBool::new(false),
        }
    }
}

impl Pool {
    /// Takes over the picker that the pool names, with addresses that can be connected to. What is
    /// known of addresses that stay goes on.
    pub(crate) fn ask_of(&self, config: &PoolConfig, members: &Members, tasks: &TaskTracker) {
        let addresses = members.pickers.get(&config.name);
        let addresses = addresses.map(Vec::as_slice).unwrap_or_default();
        match &config.picker_kind {
            PickerKind::BuiltIn => self.external.picker.store(None),
            PickerKind::External(external) => self.follow(external, addresses, tasks),
        }
    }

    /// The pool is configured no longer: its members leave, and nobody watches its picker.
    pub(crate) fn retire(self: &Arc<Self>) {
        self.sync(&[]);
        self.external.picker.store(None);
    }

    fn follow(&self, config: &ExternalPicker, members: &[Resolved], tasks: &TaskTracker) {
        let mut known = self.external.transport.lock();
        let transport = match known.take() {
            Some((tls, transport)) if tls == config.tls => transport,
            _ => Arc::new(Transport::towards_picker(&config.tls)),
        };
        *known = Some((config.tls.clone(), transport.clone()));
        drop(known);
        let wanted: Vec<SocketAddr> = members.iter().map(|member| member.address).collect();
        let before = self.external.picker.load_full();
        let followed = addresses::follow(before.as_deref(), &wanted, &transport, tasks);
        let picker = Picker::new(config, followed);
        self.external.picker.store(Some(Arc::new(picker)));
    }

    pub(crate) fn external(&self) -> Option<Arc<Picker>> {
        self.external.picker.load_full()
    }

    /// Those of these addresses that are members, each once, in this order.
    pub(crate) fn members_at(&self, addresses: &[SocketAddr]) -> VecDeque<SocketAddr> {
        let mut found: VecDeque<SocketAddr> = VecDeque::new();
        for address in addresses {
            if !found.contains(address) && self.member_at(*address).is_some() {
                found.push_back(*address);
            }
        }
        found
    }

    fn member_at(&self, address: SocketAddr) -> Option<Arc<Endpoint>> {
        let seen = self.seen.load();
        let mut all = seen.endpoints.values();
        all.find(|one| one.address == address).cloned()
    }

    /// The members that are not held for broken, or may be tried out again: those in the first of
    /// `subsets` that has any, else all.
    pub(crate) fn usable(&self, subsets: Subsets) -> Vec<EndpointId> {
        self.state.lock().usable(clock::now(), subsets)
    }

    /// Books a request on a member that somebody else chose; `None` when it has left.
    pub(crate) fn assign(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        address: SocketAddr,
    ) -> Option<(Lease<'_>, Decision)> {
        let mut endpoint = self.member_at(address)?;
        let mut state = self.state.lock();
        let mut decision = state.assign(clock::now(), ask, endpoint.id);
        if decision.is_none() {
            // Replaced at this very moment by one that is spoken to otherwise.
            endpoint = self.member_at(address)?;
            decision = state.assign(clock::now(), ask, endpoint.id);
        }
        drop(state);
        let decision = decision?;
        let lease = Lease::new(self, decision.reservation, Some(Lent::Own(endpoint)));
        Some((lease, decision))
    }
}
