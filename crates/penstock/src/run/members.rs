//! Members with addresses: names are resolved here, off the request path.

use config::{Address, Objects, Snapshot};
use proxy::{Members, Resolved};
use std::net::SocketAddr;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(2);

/// All members of the pools and Services of a snapshot.
pub(crate) async fn resolve(objects: &Objects, snapshot: &Snapshot) -> Members {
    let mut members = Members::default();
    for name in snapshot.pools.keys() {
        let mut resolved = Vec::new();
        for member in config::members(objects, name) {
            add(&mut resolved, member.key, member.name, &member.address).await;
        }
        members.pools.insert(name.clone(), resolved);
    }
    for (port, service) in &snapshot.services {
        let mut resolved = Vec::new();
        for address in &service.endpoints {
            add(
                &mut resolved,
                address.to_string(),
                address.to_string(),
                address,
            )
            .await;
        }
        members.services.insert(port.clone(), resolved);
    }
    members
}

async fn add(into: &mut Vec<Resolved>, key: String, name: String, address: &Address) {
    match address {
        Address::Ip(address) => into.push(Resolved {
            key,
            name,
            address: *address,
        }),
        Address::Fqdn(host, port) => {
            for address in look_up(host, *port).await {
                let key = format!("{key}@{address}");
                into.push(Resolved {
                    key,
                    name: name.clone(),
                    address,
                });
            }
        }
    }
}

async fn look_up(host: &str, port: u16) -> Vec<SocketAddr> {
    let asked = tokio::time::timeout(DEADLINE, tokio::net::lookup_host((host, port))).await;
    match asked {
        Ok(Ok(addresses)) => {
            let mut addresses: Vec<SocketAddr> = addresses.collect();
            // A name that has both kinds of address is one server: take the first family.
            let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
            addresses.retain(|address| address.is_ipv4() == first_is_v4);
            addresses.sort();
            addresses.dedup();
            addresses
        }
        Ok(Err(error)) => {
            tracing::warn!(host, %error, "cannot resolve an endpoint's name");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!(
                host,
                "no answer in time to the question for an endpoint's name"
            );
            Vec::new()
        }
    }
}
