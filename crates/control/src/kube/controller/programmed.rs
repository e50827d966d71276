//! Whether a Gateway is programmed: a ready proxy applied this very generation, and there is an address.
//!
//! What the status says of the generation already stays while no proxy says otherwise, so a controller
//! that starts anew, or loses its proxies for a moment, takes nothing back.

use super::super::manifests::MOST_ADDRESSES;
use super::super::resources::position;
use super::super::store::Stored;
use super::{Controller, texts};
use config::{Kind, ObjectName, ObjectStatus, SocketState};
use serde_json::{Value, json};
use std::net::IpAddr;

impl Controller {
    /// Completes a Gateway's status; its addresses.
    pub(super) fn program(&self, status: &mut ObjectStatus) -> Vec<Value> {
        let Some((_, gateway)) = self.store.of_kind(Kind::Gateway, &status.name) else {
            return Vec::new();
        };
        let addresses = self.addresses(&status.name);
        let listeners = self.listener_states(&status.name, gateway);
        let asked = gateway
            .spec
            .get("addresses")
            .map_or(Vec::new(), |list| texts(list, "value"));
        let has = |value: &str| addresses.iter().any(|one| one["value"] == value);
        let problem =
            if let Some(missing) = asked.iter().find(|value| !value.is_empty() && !has(value)) {
                let message = format!("address {missing} is not assigned to the gateway's service");
                Some(SocketState::AddressNotUsable(message))
            } else if addresses.is_empty() {
                Some(SocketState::AddressNotAssigned(
                    "the gateway's service has no address yet".to_owned(),
                ))
            } else {
                None
            };
        status.take_proxies(&listeners, problem.as_ref());
        addresses
    }

    fn addresses(&self, name: &ObjectName) -> Vec<Value> {
        let index = position("", "Service").unwrap_or(usize::MAX);
        let mut values: Vec<(&str, &str)> = Vec::new();
        let provisioned = self.provisioned(name);
        let services = provisioned.map_or(Vec::new(), |one| one.service_names());
        for (service, _) in services {
            let service = ObjectName::new(&name.namespace, &service);
            let Some(service) = self.store.get(index, &service) else {
                continue;
            };
            if service.spec["type"] == "LoadBalancer" {
                let ingress = &service.status["loadBalancer"]["ingress"];
                let ips = texts(ingress, "ip");
                values.extend(ips.into_iter().map(|ip| ("IPAddress", ip)));
                let names = texts(ingress, "hostname");
                values.extend(names.into_iter().map(|name| ("Hostname", name)));
            } else if let Some(ip) = service.spec["clusterIP"].as_str()
                && ip.parse::<IpAddr>().is_ok()
            {
                values.push(("IPAddress", ip));
            }
        }
        values.truncate(MOST_ADDRESSES);
        let values = values.into_iter();
        values
            .map(|(kind, value)| json!({"type": kind, "value": value}))
            .collect()
    }

    /// Of each listener what ready proxies of this generation say; else what the status says of it.
    fn listener_states(&self, name: &ObjectName, gateway: &Stored) -> Vec<(String, SocketState)> {
        let mut reports = self.feeds.reports(name);
        reports.retain(|report| {
            report.generation == gateway.generation && self.is_ready(&name.namespace, &report.pod)
        });
        if reports.is_empty() {
            return standing(gateway);
        }
        let mut states: Vec<(String, SocketState)> = Vec::new();
        for (listener, state) in reports.into_iter().flat_map(|report| report.listeners) {
            match states.iter_mut().find(|(known, _)| *known == listener) {
                Some((_, SocketState::Served)) | None if state != SocketState::Served => {
                    states.retain(|(known, _)| *known != listener);
                    states.push((listener, state));
                }
                Some(_) => {}
                None => states.push((listener, state)),
            }
        }
        states
    }

    fn is_ready(&self, namespace: &str, pod: &str) -> bool {
        let name = ObjectName::new(namespace, pod);
        let pod = self.store.objects.pods.get(&name);
        pod.is_some_and(|entry| entry.object.takes_requests())
    }
}

/// Listeners that the status of this generation calls programmed.
fn standing(gateway: &Stored) -> Vec<(String, SocketState)> {
    let listeners = gateway.status["listeners"].as_array().into_iter().flatten();
    let programmed = |conditions: &Value| {
        let mut conditions = conditions.as_array().into_iter().flatten();
        conditions.any(|one| {
            one["type"] == "Programmed"
                && one["status"] == "True"
                && one["observedGeneration"] == gateway.generation
        })
    };
    let listeners = listeners.filter(|listener| programmed(&listener["conditions"]));
    let names = listeners.filter_map(|listener| listener["name"].as_str());
    names
        .map(|name| (name.to_owned(), SocketState::Served))
        .collect()
}
