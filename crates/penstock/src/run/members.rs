//! Members with addresses: names are resolved here, off the request path and beside the loop that
//! applies edits.
//!
//! What is known of a name holds until there is an answer: a failing or silent name server takes no
//! endpoint out of service and holds up no edit. A name is looked up again when its time to live is
//! over; one that was never resolved has no addresses.

use super::dns;
use config::{Address, ObjectName, Objects, PickerKind, ServicePort, Snapshot};
use picker::Subsets;
use proxy::{Members, Resolved};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(2);
/// How long addresses hold whose name no name server knows, and how long a failure does.
const UNTOLD: Duration = Duration::from_secs(30);
/// Bounds of how long they hold otherwise.
const LEAST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(300);

type Name = (String, u16);
/// Addresses and, where that is told, how long they hold.
type Told = (Vec<SocketAddr>, Option<Duration>);

/// Addresses of endpoints that are known by name, and questions for them that are under way.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: BTreeMap<Name, Known>,
    questions: JoinSet<Option<Told>>,
    /// Who is asked for them; nobody: the system's resolver.
    servers: Arc<[SocketAddr]>,
}

#[derive(Debug)]
struct Known {
    addresses: Vec<SocketAddr>,
    until: Instant,
    /// The question under way: answers to earlier ones do not count.
    question: Option<task::Id>,
    /// Nobody has waited for its first answer yet.
    is_new: bool,
}

/// Which names to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookUp {
    /// Those whose time is over.
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

/// All endpoints of a configuration, by what they are the members of.
struct Configured {
    pools: Vec<(ObjectName, Vec<Wanted>)>,
    services: Vec<(ServicePort, Vec<Wanted>)>,
    pickers: Vec<(ObjectName, Vec<Wanted>)>,
}

impl Names {
    pub(crate) fn new(servers: &[SocketAddr]) -> Self {
        Self {
            servers: servers.into(),
            ..Self::default()
        }
    }

    /// All members of the pools and Services of a snapshot. Names that it is the first to have are
    /// waited for, but not for longer than `patience`: else an edit that moves a pool to another
    /// name would leave it without members for as long as a look-up takes.
    pub(crate) async fn resolve(
        &mut self,
        objects: &Objects,
        snapshot: &Snapshot,
        patience: Duration,
    ) -> Members {
        let configured = Configured::of(objects, snapshot);
        self.want(configured.all());
        let _ = tokio::time::timeout(patience, self.new_are_told()).await;
        for known in self.known.values_mut() {
            known.is_new = false;
        }
        self.addresses_of(configured)
    }

    /// The same as far as it is known now.
    pub(crate) fn members(&self, objects: &Objects, snapshot: &Snapshot) -> Members {
        self.addresses_of(Configured::of(objects, snapshot))
    }

    /// When the next name is to be looked up, if there are names.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.known.values().map(|known| known.until).min()
    }

    /// Asks for names again.
    pub(crate) fn look_up(&mut self, which: LookUp) {
        let now = Instant::now();
        for (name, known) in &mut self.known {
            let is_due = known.until <= now && known.question.is_none();
            if which == LookUp::All || is_due {
                known.ask(name, &self.servers, &mut self.questions);
            }
        }
    }

    /// Waits for answers and takes those that are there; tells whether a name has other addresses
    /// now. Never returns where nothing is asked.
    pub(crate) async fn told(&mut self) -> bool {
        let Some(first) = self.questions.join_next_with_id().await else {
            return std::future::pending().await;
        };
        let mut has_moved = self.take(first);
        while let Some(next) = self.questions.try_join_next_with_id() {
            has_moved |= self.take(next);
        }
        has_moved
    }

    async fn new_are_told(&mut self) {
        let is_open = |known: &Known| known.is_new && known.question.is_some();
        while self.known.values().any(is_open) {
            self.told().await;
        }
    }

    fn take(&mut self, ended: Result<(task::Id, Option<Told>), JoinError>) -> bool {
        let (id, told) = ended.unwrap_or_else(|error| (error.id(), None));
        let mut all = self.known.values_mut();
        let Some(known) = all.find(|known| known.question == Some(id)) else {
            return false;
        };
        known.question = None;
        let Some((addresses, time)) = told else {
            return false;
        };
        known.until = Instant::now() + time.unwrap_or(UNTOLD).clamp(LEAST, MOST);
        let has_moved = known.addresses != addresses;
        known.addresses = addresses;
        has_moved
    }

    /// Asks for names that are new or without an address; forgets those that are not wanted any
    /// more.
    fn want<'a>(&mut self, wanted: impl Iterator<Item = &'a Wanted>) {
        let mut before = std::mem::take(&mut self.known);
        for one in wanted {
            let Address::Fqdn(host, port) = &one.address else {
                continue;
            };
            let name = (host.clone(), *port);
            if self.known.contains_key(&name) {
                continue;
            }
            let mut known = before.remove(&name).unwrap_or_else(Known::nothing);
            if known.addresses.is_empty() && known.question.is_none() {
                known.ask(&name, &self.servers, &mut self.questions);
            }
            self.known.insert(name, known);
        }
    }

    fn addresses_of(&self, configured: Configured) -> Members {
        Members {
            pools: self.each(configured.pools).collect(),
            services: self.each(configured.services).collect(),
            pickers: self.each(configured.pickers).collect(),
        }
    }

    fn each<Of>(
        &self,
        wanted: Vec<(Of, Vec<Wanted>)>,
    ) -> impl Iterator<Item = (Of, Vec<Resolved>)> {
        let of_one = |(of, wanted)| (of, self.addresses(wanted));
        wanted.into_iter().map(of_one)
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

impl Known {
    fn nothing() -> Self {
        Self {
            addresses: Vec::new(),
            until: Instant::now(),
            question: None,
            is_new: true,
        }
    }

    fn ask(&mut self, name: &Name, servers: &Arc<[SocketAddr]>, to: &mut JoinSet<Option<Told>>) {
        let (name, servers) = (name.clone(), servers.clone());
        let question = to.spawn(async move { ask(&name, &servers).await });
        self.question = Some(question.id());
        self.until = Instant::now() + UNTOLD;
    }
}

impl Configured {
    fn of(objects: &Objects, snapshot: &Snapshot) -> Self {
        let pools = snapshot.pools.keys();
        let services = snapshot.services.iter();
        let pickers = snapshot.pools.iter();
        Self {
            pools: pools
                .map(|name| (name.clone(), of_pool(objects, name)))
                .collect(),
            services: services
                .map(|(port, service)| (port.clone(), listed(&service.endpoints)))
                .collect(),
            pickers: pickers
                .filter_map(|(name, pool)| match &pool.picker_kind {
                    PickerKind::External(picker) => Some((name.clone(), listed(&picker.endpoints))),
                    PickerKind::BuiltIn => None,
                })
                .collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Wanted> {
        let of_pools = self.pools.iter().chain(&self.pickers);
        let of_services = self.services.iter().flat_map(|(_, wanted)| wanted);
        of_pools.flat_map(|(_, wanted)| wanted).chain(of_services)
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

/// What is told of a name; `None` when there is no usable answer.
async fn ask((host, port): &Name, servers: &[SocketAddr]) -> Option<Told> {
    let (mut found, time) = if host.eq_ignore_ascii_case("localhost") {
        // What this name means is no question for name servers (RFC 6761).
        (of_system(host, *port).await?, None)
    } else if servers.is_empty() {
        // Name servers that are silent do not keep back what, say, the hosts file knows.
        let time = tokio::time::timeout(DEADLINE, dns::time_of(host));
        let (found, time) = tokio::join!(of_system(host, *port), time);
        (found?, time.ok().flatten())
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
            ..Known::nothing()
        };
        names.known.insert((host.to_owned(), 80), known);
        names.look_up(LookUp::Due);
        assert!(!names.told().await);
        assert_eq!(names.addresses(vec![wanted(host)])[0].address, address);
        assert!(names.due().unwrap() > Instant::now() + UNTOLD / 2);
        names.want([].into_iter());
        assert!(names.addresses(vec![wanted(host)]).is_empty(), "forgotten");
    }

    #[tokio::test]
    async fn an_answer_to_an_earlier_question_does_not_count() {
        let mut names = Names::default();
        names.want([wanted("localhost")].iter());
        let name = ("localhost".to_owned(), 80);
        let earlier = names.known[&name].question.unwrap();
        names.look_up(LookUp::All);
        let stale: SocketAddr = "10.0.0.1:80".parse().unwrap();
        assert!(!names.take(Ok((earlier, Some((vec![stale], None))))));
        assert!(names.known[&name].addresses.is_empty());
        while !names.told().await {}
        assert!(names.known[&name].addresses[0].ip().is_loopback());
    }

    /// What comes of a question that was asked for this name.
    fn answers(names: &mut Names, question: task::Id, address: &str) -> bool {
        let addresses = vec![address.parse().unwrap()];
        names.take(Ok((question, Some((addresses, None)))))
    }

    #[tokio::test]
    async fn a_late_answer_does_not_count_whatever_came_before_it() {
        let name = ("engine.invalid".to_owned(), 80);
        let wants = || [wanted(&name.0)];
        let mut names = Names::default();
        names.want(wants().iter());
        let asked = |names: &Names| names.known[&name].question.unwrap();
        let first = asked(&names);
        names.look_up(LookUp::All);
        let second = asked(&names);
        // The newer answer has come before it.
        assert!(answers(&mut names, second, "10.0.0.2:80"));
        assert!(!answers(&mut names, first, "10.0.0.1:80"));
        // The name is wanted no longer, then again.
        names.look_up(LookUp::All);
        let third = asked(&names);
        names.want([].into_iter());
        assert!(!answers(&mut names, third, "10.0.0.3:80"));
        assert!(names.known.is_empty());
        names.want(wants().iter());
        assert!(!answers(&mut names, third, "10.0.0.3:80"));
        assert!(names.addresses(wants().into()).is_empty());
        // Its own answer still comes, and of two names each gets its own.
        names.want(
            wants()
                .into_iter()
                .chain([wanted("other.invalid")])
                .collect::<Vec<_>>()
                .iter(),
        );
        let fourth = asked(&names);
        assert!(answers(&mut names, fourth, "10.0.0.4:80"));
        let found = names.addresses(vec![wanted("other.invalid"), wanted(&name.0)]);
        let found: Vec<_> = found.iter().map(|one| one.address.to_string()).collect();
        assert_eq!(found, ["10.0.0.4:80"]);
    }
}
