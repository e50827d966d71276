//! Who serves a pool or a Service, from EndpointSlices.
//!
//! For pools this is the way of files: slices of the pool's namespace whose labels satisfy its
//! selector. (In a cluster, members are Pods.) A slice's own ports narrow the pool's target ports;
//! a slice without ports takes them all. Addresses that cannot be used are passed over.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::compile;
use crate::name::ObjectName;
use crate::objects::meta::selects;
use crate::objects::service::{SliceAddressType, SliceEndpoint};
use crate::objects::{EndpointSlice, Objects, Service};
use crate::snapshot::{Address, ServicePort};

/// Ties an EndpointSlice to its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// One endpoint of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Who it is across edits: UID of what the endpoint stands for and port, else its URL.
    pub key: String,
    /// Shown: `10.0.0.3:8000`.
    pub name: String,
    /// Where it listens.
    pub address: Address,
}

/// The members of a pool, in the order of slices, endpoints and target ports; none twice.
pub fn members(objects: &Objects, pool: &ObjectName) -> Vec<Member> {
    let Some(spec) = compile::find_pool(objects, pool) else {
        return Vec::new();
    };
    let wanted = &spec.selector.match_labels;
    let mut members: indexmap::IndexMap<String, Member> = Default::default();
    for (name, entry) in &objects.endpoint_slices {
        let slice = &entry.object;
        let selected = name.namespace == pool.namespace
            && !wanted.is_empty()
            && selects(wanted, &slice.metadata.labels);
        if !selected {
            continue;
        }
        let of_slice: Vec<u16> = slice
            .ports
            .iter()
            .filter_map(|port| port.port)
            .map(|port| port.number())
            .collect();
        let ports = spec.target_ports.iter().map(|port| port.number.number());
        let ports: Vec<u16> = ports
            .filter(|port| slice.ports.is_empty() || of_slice.contains(port))
            .collect();
        for endpoint in slice
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.takes_requests())
        {
            for port in &ports {
                if let Some(member) = member(slice, endpoint, *port) {
                    members.entry(member.key.clone()).or_insert(member);
                }
            }
        }
    }
    members.into_values().collect()
}

fn member(slice: &EndpointSlice, endpoint: &SliceEndpoint, port: u16) -> Option<Member> {
    let address = address(slice, endpoint, port)?;
    let uid = endpoint
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.as_deref());
    let key = match uid {
        Some(uid) => format!("{uid}:{port}"),
        None => format!("http://{address}"),
    };
    Some(Member {
        key,
        name: address.to_string(),
        address,
    })
}

/// The endpoint's first address; the API says that the others are the same endpoint.
fn address(slice: &EndpointSlice, endpoint: &SliceEndpoint, port: u16) -> Option<Address> {
    let text = endpoint.addresses.first()?;
    match slice.address_type {
        SliceAddressType::Ipv4 | SliceAddressType::Ipv6 => {
            let ip: IpAddr = text.parse().ok()?;
            Some(Address::Ip(SocketAddr::new(ip, port)))
        }
        SliceAddressType::Fqdn => Some(Address::Fqdn(text.to_ascii_lowercase(), port)),
        SliceAddressType::Unknown(_) => None,
    }
}

/// The ready endpoints behind a port of a Service: by the port's name, else by its target number.
pub(crate) fn of_service(
    objects: &Objects,
    wanted: &ServicePort,
    service: &Service,
) -> Vec<Address> {
    let mut ports = service.spec.iter().flat_map(|spec| &spec.ports);
    let Some(port) = ports.find(|port| port.port.number() == wanted.port) else {
        return Vec::new();
    };
    let name = port.name.as_deref().unwrap_or_default();
    let target = port
        .target_port
        .as_ref()
        .and_then(serde_json::Value::as_u64);
    let target = target.unwrap_or(u64::from(wanted.port));
    let mut endpoints = Vec::new();
    for (slice_name, entry) in &objects.endpoint_slices {
        let slice = &entry.object;
        let of_service = slice.metadata.labels.get(SERVICE_LABEL);
        if slice_name.namespace != wanted.name.namespace
            || of_service.is_none_or(|service| **service != *wanted.name.name)
        {
            continue;
        }
        let by_name = slice
            .ports
            .iter()
            .find(|port| port.name.as_deref().unwrap_or_default() == name);
        let number = by_name
            .or_else(|| {
                slice.ports.iter().find(|port| {
                    port.port
                        .is_some_and(|port| u64::from(port.number()) == target)
                })
            })
            .and_then(|port| port.port);
        let Some(number) = number else { continue };
        let ready = slice
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.takes_requests());
        endpoints.extend(ready.filter_map(|endpoint| address(slice, endpoint, number.number())));
    }
    endpoints.sort();
    endpoints.dedup();
    endpoints
}

#[cfg(test)]
mod tests;
