//! Listeners that stand in each other's way: one protocol a socket, one listener a hostname.

use std::net::{IpAddr, Ipv4Addr};

use rustc_hash::{FxHashMap, FxHashSet};

use super::OurGateway;
use crate::host::HostPattern;
use crate::objects::gateway::ListenerProtocol;
use crate::status::Reason;

/// Marks the listeners that stand behind an older one on the same socket.
pub(super) fn find(gateways: &mut [OurGateway]) {
    let mut protocols: FxHashMap<(IpAddr, u16), ListenerProtocol> = FxHashMap::default();
    let mut hosts: FxHashSet<(IpAddr, u16, HostPattern)> = FxHashSet::default();
    for gateway in gateways
        .iter_mut()
        .filter(|gateway| gateway.refusal.is_none())
    {
        for listener in gateway
            .listeners
            .iter_mut()
            .filter(|listener| listener.accepted.is_ok())
        {
            let port = listener.spec.port.number();
            let protocol = &listener.spec.protocol;
            for address in &gateway.addresses {
                let first = protocols
                    .entry((*address, port))
                    .or_insert_with(|| protocol.clone());
                if first != protocol {
                    let message = format!(
                        "an earlier listener speaks {} on port {port}",
                        first.as_str()
                    );
                    listener.conflict = Some((Reason::ProtocolConflict, message));
                } else if !hosts.insert((*address, port, listener.host.clone())) {
                    let message = format!(
                        "an earlier listener serves hostname {} on port {port}",
                        listener.host
                    );
                    listener.conflict = Some((Reason::HostnameConflict, message));
                }
            }
        }
    }
}

/// Its proxies have every address that they get, and no other Gateway beside them.
pub(super) fn find_alone(gateway: &mut OurGateway) {
    gateway.addresses = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    find(std::slice::from_mut(gateway));
}
