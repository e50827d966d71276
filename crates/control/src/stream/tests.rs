//! The stream over real sockets and TLS: differences only, commits only, kept objects, who may ask.

use super::*;
use crate::kube::{Authority, Content, Feeds, Leadership};
use config::{ObjectName, SocketState};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const PATIENCE: Duration = Duration::from_secs(20);

/// Tokens are `NAMESPACE/ACCOUNT/POD`.
struct Believer;

impl Reviewer for Believer {
    fn review(&self, token: String) -> Pin<Box<dyn Future<Output = Option<Caller>> + Send + '_>> {
        let mut parts = token.split('/').map(str::to_owned);
        let caller = (|| {
            Some(Caller {
                namespace: parts.next()?,
                account: parts.next()?,
                pod: parts.next()?,
            })
        })();
        Box::pin(std::future::ready(caller))
    }
}

struct Controller {
    feeds: Arc<Feeds>,
    authority: Authority,
    address: String,
    stop: CancellationToken,
}

impl Controller {
    async fn start() -> Self {
        Self::start_at("127.0.0.1:0", Authority::generate().unwrap()).await
    }

    async fn start_at(address: &str, authority: Authority) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let feeds = Arc::<Feeds>::default();
        let gateway = ObjectName::new("n", "gw");
        feeds.set_accounts(HashMap::from([(
            ("n".to_owned(), "gw-penstock".to_owned()),
            gateway,
        )]));
        let settings = ServeSettings {
            feeds: feeds.clone(),
            reviewer: Arc::new(Believer),
            replicas: ("system".to_owned(), "controller".to_owned()),
            tls: authority.server(vec!["localhost".to_owned()]).unwrap(),
        };
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(serve(listener, settings, stop.clone()));
        let address = format!("localhost:{}", address.port());
        Self {
            feeds,
            authority,
            address,
            stop,
        }
    }

    fn publish(&self, generation: i64, services: &[(&str, u16)]) {
        let objects = services.iter().map(|(name, port)| {
            let json = format!(
                r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}","namespace":"n"}},"spec":{{"ports":[{{"port":{port}}}]}}}}"#
            );
            (format!("Service/n/{name}"), Content::new(json.into_bytes()))
        });
        let objects: BTreeMap<String, Content> = objects.collect();
        self.feeds
            .publish(&ObjectName::new("n", "gw"), generation, objects);
    }

    fn settings(&self, folder: &Path, token: &str) -> StreamSettings {
        std::fs::write(folder.join("ca.crt"), self.authority.certificate()).unwrap();
        std::fs::write(folder.join("token"), token).unwrap();
        StreamSettings {
            controller: self.address.clone(),
            authority: folder.join("ca.crt"),
            token: folder.join("token"),
            state: folder.join("state"),
        }
    }
}

const TOKEN: &str = "n/gw-penstock/pod-1";

fn proxy(settings: StreamSettings) -> (Following, CancellationToken) {
    let stop = CancellationToken::new();
    (follow(settings, stop.clone(), &TaskTracker::new()), stop)
}

/// Waits for what is received to hold exactly these Services.
async fn services(following: &mut Following, wanted: &[(&str, u16)]) -> Received {
    let holds = |received: &Option<Received>| {
        received.as_ref().is_some_and(|received| {
            let services = &received.objects.services;
            let port = |name: &str| {
                let entry = services.get(&ObjectName::new("n", name))?;
                Some(entry.object.spec.as_ref()?.ports[0].port.number())
            };
            services.len() == wanted.len()
                && wanted.iter().all(|(name, want)| port(name) == Some(*want))
        })
    };
    let received = tokio::time::timeout(PATIENCE, following.received.wait_for(holds)).await;
    received.expect("in time").unwrap().clone().unwrap()
}

async fn reported(feeds: &Feeds, wanted: usize) {
    let mut changes = feeds.changes();
    let waiting = async {
        while feeds.own_reports().len() != wanted {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("reported in time");
}

#[tokio::test]
async fn changes_reach_a_proxy_and_its_report_comes_back() {
    let controller = Controller::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (mut following, stop) = proxy(controller.settings(folder.path(), TOKEN));
    controller.publish(1, &[("a", 80), ("b", 81)]);
    services(&mut following, &[("a", 80), ("b", 81)]).await;
    controller.publish(2, &[("b", 82), ("c", 83)]);
    let received = services(&mut following, &[("b", 82), ("c", 83)]).await;

    let applied = Applied {
        listeners: vec![Listener::of("http", &SocketState::Served)],
        ..Applied::default()
    };
    following.report(&received, applied);
    reported(&controller.feeds, 1).await;
    let (gateway, report) = controller.feeds.own_reports().remove(0);
    assert_eq!(gateway, ObjectName::new("n", "gw"));
    assert_eq!((report.pod.as_str(), report.generation), ("pod-1", 2));
    assert_eq!(report.listeners, [("http".to_owned(), SocketState::Served)]);
    // Whoever is gone serves nothing.
    stop.cancel();
    reported(&controller.feeds, 0).await;
}

#[tokio::test]
async fn a_proxy_that_starts_without_a_controller_serves_what_it_had() {
    let controller = Controller::start().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = controller.settings(folder.path(), TOKEN);
    let (mut following, stop) = proxy(settings.clone());
    controller.publish(1, &[("a", 80)]);
    services(&mut following, &[("a", 80)]).await;
    stop.cancel();
    controller.stop.cancel();

    let mode = |name: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join("state").join(name);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("objects.json"), mode("")), (0o600, 0o700));
    let (mut again, _stop) = proxy(settings);
    let received = again.received.borrow_and_update().clone().expect("at once");
    assert_eq!(received.objects.services.len(), 1);
    assert_eq!(received.version, 0);
}

#[tokio::test]
async fn a_proxy_finds_its_controller_again_and_asks_for_the_difference() {
    let first = Controller::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (mut following, _stop) = proxy(first.settings(folder.path(), TOKEN));
    first.publish(1, &[("a", 80)]);
    services(&mut following, &[("a", 80)]).await;
    first.stop.cancel();
    // The port may be taken again only once the old listener is gone.
    let address = first.address.replace("localhost", "127.0.0.1");
    let second = loop {
        let authority = Authority::generate().unwrap();
        if TcpListener::bind(&address).await.is_ok() {
            break Controller::start_at(&address, authority).await;
        }
        tokio::task::yield_now().await;
    };
    second.publish(1, &[("a", 80), ("b", 81)]);
    // Another authority: the proxy reads it again for each attempt.
    second.settings(folder.path(), TOKEN);
    services(&mut following, &[("a", 80), ("b", 81)]).await;
}

#[tokio::test]
async fn only_the_account_of_a_gateways_proxies_gets_its_objects() {
    let controller = Controller::start().await;
    controller.publish(1, &[("secret", 80)]);
    for token in ["n/default/pod", "other/gw-penstock/pod", "nonsense"] {
        let folder = tempfile::tempdir().unwrap();
        let pem = controller.authority.certificate().as_bytes();
        let (http, driver) = connection::open(&controller.address, "localhost", pem)
            .await
            .unwrap();
        let driving = TaskTracker::new();
        driving.spawn(driver);
        let (_say, said) = tokio::sync::mpsc::channel(1);
        let answer = connection::stream(&http, &controller.address, token, said).await;
        assert!(matches!(answer, Err(StreamError::Refused(_))), "{token}");
        drop(folder);
    }
    let stranger = Authority::generate().unwrap();
    let pem = stranger.certificate().as_bytes();
    let opened = connection::open(&controller.address, "localhost", pem).await;
    assert!(matches!(opened, Err(StreamError::Connect { .. })));
}

#[tokio::test]
async fn a_replica_tells_the_leader_what_its_proxies_said() {
    let leader = Controller::start().await;
    let follower = Arc::<Feeds>::default();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "system/controller/replica-2").unwrap();
    let settings = RelaySettings {
        name: "localhost".to_owned(),
        authority: leader.authority.certificate().to_owned(),
        token,
    };
    let leadership = Leadership {
        leads: false,
        holder: Some(format!("leader_{}", leader.address)),
    };
    let (_sender, leadership) = watch::channel(leadership);
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let relaying = relay(settings, follower.clone(), leadership);
    let stopped = stop.clone();
    tasks.spawn(async move { stopped.run_until_cancelled(relaying).await });

    let gateway = ObjectName::new("n", "gw");
    let report = |generation| crate::kube::Report {
        pod: "pod-1".to_owned(),
        generation,
        listeners: vec![("http".to_owned(), SocketState::Served)],
    };
    let mut changes = leader.feeds.changes();
    for generation in [1, 2] {
        follower.report(&gateway, 7, report(generation));
        let relayed = async {
            while leader.feeds.relayed_generations() != [generation] {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, relayed)
            .await
            .expect("relayed in time");
    }
    stop.cancel();
    let forgotten = async {
        while !leader.feeds.relayed_generations().is_empty() {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, forgotten)
        .await
        .expect("forgotten in time");
}
