//! Members with addresses: names are resolved here, off the request path.
//!
//! A name that cannot be resolved keeps the addresses that it had: a failing name server takes no
//! endpoint out of service. It is looked up again when its time to live is over.

use super::dns;
use config::{Address, Objects, PickerKind, Snapshot};
use picker::Subsets;
use proxy::{Members, Resolved};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(2);
/// How long addresses hold whose name no name server knows, and how long a failure does.
const UNTOLD: Duration = Duration::from_secs(30);
/// Bounds of how long they hold otherwise.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(300);

type Name = (String, u16);

/// Addresses of endpoints that are known by name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: BTreeMap<Name, Known>,
    /// Who is asked for them; nobody: the system's resolver.
    servers: Arc<[SocketAddr]>,
}

#[derive(Debug)]
struct Known {
    addresses: Vec<SocketAddr>,
    until: Instant,
}

/// Which names to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookUp {
    /// Those that are new, without an address, or whose time is over.
    Due,
    All,
}

/// An endpoint as configured.
struct Wanted {
    key: String,
    name: String,
    address: Address,
    subsets: Subsets,
}

impl Names {
    pub(crate) fn new(servers: &[SocketAddr]) -> Self {
        Self {
            known: BTreeMap::new(),
            servers: servers.into(),
        }
    }

    /// All members of the pools and Services of a snapshot.
    pub(crate) async fn resolve(
        &mut self,
        objects: &Objects,
        snapshot: &Snapshot,
        which: LookUp,
    ) -> Members {
        let pools: Vec<_> = snapshot
            .pools
            .keys()
            .map(|name| (name.clone(), of_pool(objects, name)))
            .collect();
        let services: Vec<_> = snapshot
            .services
            .iter()
            .map(|(port, service)| (port.clone(), listed(&service.endpoints)))
            .collect();
        let pickers: Vec<_> = snapshot
            .pools
            .iter()
            .filter_map(|(name, pool)| match &pool.picker_kind {
                PickerKind::External(picker) => Some((name.clone(), listed(&picker.endpoints))),
                PickerKind::BuiltIn => None,
            })
            .collect();
        let of_pools = pools.iter().chain(&pickers).flat_map(|(_, wanted)| wanted);
        let of_services = services.iter().flat_map(|(_, wanted)| wanted);
        self.look_up(of_pools.chain(of_services), which).await;
        Members {
            pools: pools
                .into_iter()
                .map(|(name, wanted)| (name, self.addresses(wanted)))
                .collect(),
            services: services
                .into_iter()
                .map(|(port, wanted)| (port, self.addresses(wanted)))
                .collect(),
            pickers: pickers
                .into_iter()
                .map(|(name, wanted)| (name, self.addresses(wanted)))
                .collect(),
        }
    }

    /// When the next name is to be looked up, if there are names.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.known.values().map(|known| known.until).min()
    }

    /// Asks for all names at once; forgets those that are not wanted any more.
    async fn look_up(&mut self, wanted: impl Iterator<Item = &Wanted>, which: LookUp) {
        let now = Instant::now();
        let mut known = BTreeMap::new();
        let mut asking = JoinSet::new();
        for one in wanted {
            let Address::Fqdn(host, port) = &one.address else {
                continue;
            };
            let name = (host.clone(), *port);
            if known.contains_key(&name) {
                continue;
            }
            let mut before = self.known.remove(&name).unwrap_or_else(|| Known {
                addresses: Vec::new(),
                until: now,
            });
            let is_due = before.addresses.is_empty() || before.until <= now;
            if which == LookUp::All || is_due {
                before.until = now + UNTOLD;
                let (name, servers) = (name.clone(), self.servers.clone());
                asking.spawn(async move { (ask(&name, &servers).await, name) });
            }
            known.insert(name, before);
        }
        while let Some(asked) = asking.join_next().await {
            let Ok((Some((addresses, time)), name)) = asked else {
                continue;
            };
            if let Some(known) = known.get_mut(&name) {
                known.until = now + time.unwrap_or(UNTOLD).clamp(LEAST, MOST);
                known.addresses = addresses;
            }
        }
        self.known = known;
    }

    fn addresses(&self, wanted: Vec<Wanted>) -> Vec<Resolved> {
        let mut resolved = Vec::new();
        for one in wanted {
            let (key, name, subsets) = (one.key, one.name, one.subsets);
            match one.address {
                Address::Ip(address) => resolved.push(Resolved {
                    key,
                    name,
                    address,
                    subsets,
                }),
                Address::Fqdn(host, port) => {
                    let known = self.known.get(&(host, port));
                    let addresses = known.into_iter().flat_map(|known| &known.addresses);
                    resolved.extend(addresses.map(|&address| Resolved {
                        key: format!("{key}@{address}"),
                        name: name.clone(),
                        address,
                        subsets,
                    }));
                }
            }
        }
        resolved
    }
}

fn of_pool(objects: &Objects, name: &config::ObjectName) -> Vec<Wanted> {
    let wanted = |member: config::Member| Wanted {
        key: member.key,
        name: member.name,
        address: member.address,
        subsets: member.subsets,
    };
    let members = config::members(objects, name);
    members.into_iter().map(wanted).collect()
}

fn listed(endpoints: &[Address]) -> Vec<Wanted> {
    let wanted = |address: &Address| Wanted {
        key: address.to_string(),
        name: address.to_string(),
        address: address.clone(),
        subsets: Subsets::NONE,
    };
    endpoints.iter().map(wanted).collect()
}

/// The addresses of a name and, where that is told, how long they hold; `None` when there is no
/// usable answer.
async fn ask(
    (host, port): &Name,
    servers: &[SocketAddr],
) -> Option<(Vec<SocketAddr>, Option<Duration>)> {
    // What this name means is no question for name servers (RFC 6761).
    let (mut found, time) = if servers.is_empty() || host.eq_ignore_ascii_case("localhost") {
        (of_system(host, *port).await?, dns::time_of(host).await)
    } else {
        let Some(told) = dns::of(servers, host).await else {
            tracing::warn!(host, "no name server knows an endpoint's name");
            return None;
        };
        (told.addresses, Some(told.time))
    };
    // Nobody's model server, but what tells secrets to whoever asks on machines in clouds.
    found.retain(|address| !is_link_local(*address));
    // A name that has both kinds of address is one server: take the first family.
    let first_is_v4 = found.first()?.is_ipv4();
    found.retain(|address| address.is_ipv4() == first_is_v4);
    let at_port = |address| SocketAddr::new(address, *port);
    let mut addresses: Vec<SocketAddr> = found.into_iter().map(at_port).collect();
    addresses.sort();
    addresses.dedup();
    Some((addresses, time))
}

async fn of_system(host: &str, port: u16) -> Option<Vec<IpAddr>> {
    let lookup = tokio::net::lookup_host((host, port));
    match tokio::time::timeout(DEADLINE, lookup).await {
        Ok(Ok(addresses)) => Some(addresses.map(|address| address.ip()).collect()),
        Ok(Err(error)) => {
            tracing::warn!(host, %error, "cannot resolve an endpoint's name");
            None
        }
        Err(_) => {
            tracing::warn!(
                host,
                "no answer in time to the question for an endpoint's name"
            );
            None
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(host: &str) -> Wanted {
        Wanted {
            key: host.to_owned(),
            name: host.to_owned(),
            address: Address::Fqdn(host.to_owned(), 80),
            subsets: Subsets::NONE,
        }
    }

    #[tokio::test]
    async fn a_name_that_fails_keeps_its_addresses() {
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let mut names = Names::default();
        // No name server knows names under `invalid` (RFC 6761).
        let host = "engine.invalid";
        let known = Known {
            addresses: vec![address],
            until: Instant::now(),
        };
        names.known.insert((host.to_owned(), 80), known);
        names
            .look_up([&wanted(host)].into_iter(), LookUp::All)
            .await;
        assert_eq!(names.addresses(vec![wanted(host)])[0].address, address);
        assert!(names.due().unwrap() > Instant::now() + UNTOLD / 2);
        names.look_up([].into_iter(), LookUp::Due).await;
        assert!(names.addresses(vec![wanted(host)]).is_empty(), "forgotten");
    }
}
