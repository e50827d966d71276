//! `penstock proxy`: what a controller fed it once, it serves whoever is gone.

use crate::gateway::{Running, free_address, get, penstock, wait_until};
use crate::scripted::echo;
use control::kube::{Authority, Content, Feeds};
use control::stream::{Caller, Reviewer, ServeSettings, serve};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the controller sends for `demo/gw`: a route to one pool, whose only Pod is at MEMBER.
const OBJECTS: &[(&str, &str)] = &[
    (
        "GatewayClass/penstock",
        r#"{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "penstock"},
        "spec": {"controllerName": "penstock.dev/gateway-controller"}}"#,
    ),
    (
        "Gateway/demo/gw",
        r#"{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "gw", "namespace": "demo", "generation": 1},
        "spec": {"gatewayClassName": "penstock", "addresses": [{"value": "127.0.0.1"}],
        "listeners": [{"name": "http", "port": LISTEN, "protocol": "HTTP"}]}}"#,
    ),
    (
        "HttpRoute/demo/chat",
        r#"{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "chat", "namespace": "demo"},
        "spec": {"parentRefs": [{"name": "gw"}], "rules": [{"matches": [{"path": {"value": "PATH"}}],
        "backendRefs": [{"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "pool"}]}]}}"#,
    ),
    (
        "InferencePool/demo/pool",
        r#"{"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": "pool", "namespace": "demo"},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "targetPorts": [{"number": MEMBER}]}}"#,
    ),
    (
        "Pod/demo/member",
        r#"{"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "member", "namespace": "demo", "uid": "u", "labels": {"app": "a"}},
        "status": {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}}"#,
    ),
];

/// Takes every token for that of the one Gateway's proxies.
struct Trusting;

impl Reviewer for Trusting {
    fn review(&self, _: String) -> Pin<Box<dyn Future<Output = Option<Caller>> + Send + '_>> {
        Box::pin(std::future::ready(Some(Caller {
            namespace: "demo".to_owned(),
            account: "gw-penstock".to_owned(),
            pod: "proxy-1".to_owned(),
        })))
    }
}

/// Serves the object stream at an address until it is dropped, as a process that is killed would.
struct Controller(Option<Runtime>);

impl Controller {
    fn start(bed: &Bed, path: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let feeds = Arc::<Feeds>::default();
        let gateway = config::ObjectName::new("demo", "gw");
        let account = ("demo".to_owned(), "gw-penstock".to_owned());
        feeds.set_accounts(HashMap::from([(account, gateway.clone())]));
        let objects = OBJECTS.iter().map(|(key, json)| {
            let json = json.replace("LISTEN", &bed.address.port().to_string());
            let json = json.replace("MEMBER", &bed.member.port().to_string());
            let json = json.replace("PATH", path);
            ((*key).to_owned(), Content::new(json.into_bytes()))
        });
        let objects: BTreeMap<String, Content> = objects.collect();
        feeds.publish(&gateway, 1, objects);
        let authority = Authority::generate().unwrap();
        std::fs::write(bed.file("ca.crt"), authority.certificate()).unwrap();
        let settings = ServeSettings {
            feeds,
            reviewer: Arc::new(Trusting),
            replicas: ("system".to_owned(), "controller".to_owned()),
            tls: authority.server(vec!["localhost".to_owned()]).unwrap(),
        };
        let listening = tokio::net::TcpListener::bind(bed.controller);
        let listener = runtime.block_on(listening).unwrap();
        let serving = serve(listener, settings, CancellationToken::new());
        TaskTracker::new().spawn_on(serving, runtime.handle());
        Self(Some(runtime))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

struct Bed {
    folder: tempfile::TempDir,
    controller: SocketAddr,
    address: SocketAddr,
    admin: SocketAddr,
    member: SocketAddr,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "a token").unwrap();
        std::fs::write(folder.path().join("ca.crt"), "").unwrap();
        Self {
            folder,
            controller: free_address(),
            address: free_address(),
            admin: free_address(),
            member: echo("member"),
        }
    }

    fn file(&self, name: &str) -> String {
        let path: &Path = self.folder.path();
        path.join(name).to_str().unwrap().to_owned()
    }

    fn proxy(&self, state: &str) -> Running {
        let controller = format!("localhost:{}", self.controller.port());
        let (authority, token) = (self.file("ca.crt"), self.file("token"));
        let (state, admin) = (self.file(state), self.admin.to_string());
        let mut args = vec![
            "proxy",
            "--controller",
            &controller,
            "--authority",
            &authority,
        ];
        args.extend(["--token", &token, "--state", &state, "--admin", &admin]);
        args.extend(["--workers", "1", "--access-log", "off"]);
        let mut command = penstock(&args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().unwrap())
    }

    fn is_ready(&self) -> bool {
        get(self.admin, "/readyz").is_some_and(|answer| answer.status == 200)
    }

    /// The status of an answer of the proxy, and who served it.
    fn ask(&self, path: &str) -> (u16, String) {
        let answer = get(self.address, path).expect("a whole answer");
        let from = answer.field("x-from").unwrap_or_default();
        (answer.status, from.to_owned())
    }
}

#[test]
fn a_proxy_that_is_killed_serves_again_while_every_controller_is_gone() {
    let bed = Bed::new();
    let controller = Controller::start(&bed, "/first");
    let first = bed.proxy("state");
    wait_until(|| bed.is_ready());
    let served = (200, "member".to_owned());
    assert_eq!(bed.ask("/first"), served);
    drop(controller);
    wait_until(|| std::net::TcpStream::connect(bed.controller).is_err());
    assert_eq!(bed.ask("/first"), served, "it keeps what it has");
    // Killed, not told to end.
    drop(first);
    assert!(get(bed.address, "/first").is_none());
    let second = bed.proxy("state");
    wait_until(|| bed.is_ready());
    assert_eq!(bed.ask("/first"), served, "and across its own restart");
    assert_eq!(bed.ask("/second").0, 404);

    // A controller that is there again is followed again.
    let _controller = Controller::start(&bed, "/second");
    wait_until(|| bed.ask("/second") == served);
    drop(second);
}

#[test]
fn a_proxy_that_was_never_fed_is_not_ready() {
    let bed = Bed::new();
    let _proxy = bed.proxy("nothing");
    wait_until(|| get(bed.admin, "/livez").is_some_and(|answer| answer.status == 200));
    assert!(!bed.is_ready());
    let _controller = Controller::start(&bed, "/first");
    wait_until(|| bed.is_ready());
    assert_eq!(bed.ask("/first").0, 200);
}
