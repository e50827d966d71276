//! Who serves a pool or a Service.
//!
//! Members of a pool are the ready Pods of its namespace whose labels satisfy its selector, one
//! endpoint for each target port; and, for files, the EndpointSlices that do, unless Kubernetes made
//! them for a Service. A slice's own ports narrow the pool's target ports, and so does a Pod's
//! annotation; without any, all are taken. Addresses that cannot be used are passed over. The labels of
//! the Pod or slice, and the zone of a slice's endpoint, say in which subsets of the pool a member is.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::compile;
use crate::name::ObjectName;
use crate::objects::meta::selects;
use crate::objects::service::{SliceAddressType, SliceEndpoint};
use crate::objects::{EndpointSlice, Objects, Pod, Service};
use crate::snapshot::{Address, ServicePort};
use crate::subset::Subset;
use picker::Subsets;

/// Ties an EndpointSlice to its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Who made a slice; those of Kubernetes stand for Services and copy their labels.
const MANAGED_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// In which zone a Pod runs; an endpoint of a slice has a field for it.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// Narrows the target ports of one Pod: `8000,8002`.
const ACTIVE_PORTS: &str = "inference.networking.k8s.io/active-ports";

/// One endpoint of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Who it is across edits: UID of what the endpoint stands for and port, else its URL.
    pub key: String,
    /// Shown: `10.0.0.3:8000`.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// In which of the pool's subsets it is, by its labels.
    #[serde(skip_serializing_if = "Subsets::is_empty")]
    pub subsets: Subsets,
}

/// The members of a pool, in the order of Pods or slices, endpoints and target ports; none twice.
pub fn members(objects: &Objects, pool: &ObjectName) -> Vec<Member> {
    let Some(spec) = compile::find_pool(objects, pool) else {
        return Vec::new();
    };
    let wanted = &spec.selector.match_labels;
    let mut members: indexmap::IndexMap<String, Member> = Default::default();
    let all_ports = spec.target_ports.iter().map(|port| port.number.number());
    let all_ports: Vec<u16> = all_ports.collect();
    let subsets = compile::subsets_of(objects, pool);
    for (name, entry) in &objects.pods {
        let pod = &entry.object;
        if name.namespace == pool.namespace
            && pod.takes_requests()
            && !wanted.is_empty()
            && selects(wanted, &pod.metadata.labels)
        {
            let found = of_pod(pod, &all_ports, &subsets);
            members.extend(found.map(|member| (member.key.clone(), member)));
        }
    }
    for (name, entry) in &objects.endpoint_slices {
        let slice = &entry.object;
        let selected = name.namespace == pool.namespace
            && !wanted.is_empty()
            && !slice.metadata.labels.contains_key(MANAGED_LABEL)
            && selects(wanted, &slice.metadata.labels);
        if !selected {
            continue;
        }
        for member in of_slice(slice, &all_ports, &subsets) {
            members.entry(member.key.clone()).or_insert(member);
        }
    }
    members.into_values().collect()
}

/// Each target port of each endpoint that takes requests.
fn of_slice<'a>(
    slice: &'a EndpointSlice,
    ports: &[u16],
    subsets: &'a [Subset],
) -> impl Iterator<Item = Member> {
    let named = slice.ports.iter().filter_map(|port| port.port);
    let named: Vec<u16> = named.map(|port| port.number()).collect();
    let is_named = |port: &u16| slice.ports.is_empty() || named.contains(port);
    let ports: Vec<u16> = ports.iter().copied().filter(is_named).collect();
    let endpoints = slice.endpoints.iter();
    let ready = endpoints.filter(|endpoint| endpoint.takes_requests());
    ready.flat_map(move |endpoint| {
        let label = |name: &str| match &endpoint.zone {
            Some(zone) if name == ZONE_LABEL => Some(zone.as_str()),
            _ => slice.metadata.labels.get(name).map(String::as_str),
        };
        let subsets = Subset::of_labels(subsets, label);
        let member = |port: &u16| member(slice, endpoint, *port, subsets);
        ports.iter().filter_map(member).collect::<Vec<_>>()
    })
}

/// Each target port of a Pod that is active.
fn of_pod(pod: &Pod, ports: &[u16], subsets: &[Subset]) -> impl Iterator<Item = Member> {
    let label = |name: &str| pod.metadata.labels.get(name).map(String::as_str);
    let subsets = Subset::of_labels(subsets, label);
    let active = pod.metadata.annotations.get(ACTIVE_PORTS);
    let active: Option<Vec<u16>> = active.map(|text| {
        let numbers = text.split(',').filter_map(|word| word.trim().parse().ok());
        numbers.collect()
    });
    let address = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.as_deref());
    let ip: Option<IpAddr> = address.and_then(|text| text.parse().ok());
    let name = ObjectName::new(
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        &pod.metadata.name,
    );
    let who = pod.metadata.uid.clone().unwrap_or_else(|| name.to_string());
    let ports = ports
        .iter()
        .copied()
        .filter(move |port| active.as_ref().is_none_or(|active| active.contains(port)));
    let ports: Vec<u16> = ports.collect();
    ip.into_iter().flat_map(move |ip| {
        let who = who.clone();
        ports.clone().into_iter().map(move |port| {
            let address = Address::Ip(SocketAddr::new(ip, port));
            Member {
                key: format!("{who}:{port}"),
                name: address.to_string(),
                address,
                subsets,
            }
        })
    })
}

fn member(
    slice: &EndpointSlice,
    endpoint: &SliceEndpoint,
    port: u16,
    subsets: Subsets,
) -> Option<Member> {
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
        subsets,
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
