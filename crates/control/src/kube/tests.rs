//! The controller against an API server in this process: what it writes, and when it writes nothing.

use super::*;
use config::SocketState;
use serde_json::Value;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod server;

use server::Server;

const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: penstock}
spec: {controllerName: penstock.dev/gateway-controller}
";
const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: demo}
spec: {gatewayClassName: penstock, listeners: [{name: http, port: 80, protocol: HTTP}]}
";
const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: demo}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [{name: pool, group: inference.networking.k8s.io, kind: InferencePool}]}]
";
const POOL: &str = "
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool, namespace: demo}
spec: {selector: {matchLabels: {app: a}}, targetPorts: [{number: 8000}]}
";
const MODEL: &str = "
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: m, namespace: demo}
spec: {modelName: chat, poolRef: {name: pool}}
";

const GATEWAYS: &str = "gateway.networking.k8s.io/gateways";
const ROUTES: &str = "gateway.networking.k8s.io/httproutes";
const POOLS: &str = "inference.networking.k8s.io/inferencepools";
const MODELS: &str = "inference.networking.x-k8s.io/inferencemodels";
const LEASES: &str = "coordination.k8s.io/leases";

const PATIENCE: Duration = Duration::from_secs(30);

struct Running {
    controller: super::Running,
    stop: CancellationToken,
}

async fn run(client: kube::Client, identity: &str) -> Running {
    let settings = ControllerSettings {
        namespace: "system".to_owned(),
        name: "controller".to_owned(),
        identity: identity.to_owned(),
        proxies: ProxySettings {
            image: "penstock".to_owned(),
            controller: "controller:4002".to_owned(),
            audience: "us".to_owned(),
            authority: String::new(),
            log: "info".to_owned(),
        },
    };
    let stop = CancellationToken::new();
    let tracker = TaskTracker::new();
    let controller = controller(client, settings, stop.clone(), &tracker)
        .await
        .unwrap();
    Running { controller, stop }
}

impl Running {
    async fn ready(&self) {
        let mut ready = self.controller.ready.clone();
        let ready = ready.wait_for(|ready| *ready);
        let ready = tokio::time::timeout(PATIENCE, ready).await;
        ready.expect("ready in time").unwrap();
    }

    async fn leads(&self, wanted: bool) {
        let mut leads = self.controller.leads.clone();
        let leads = leads.wait_for(|leadership| leadership.leads == wanted);
        let leads = tokio::time::timeout(PATIENCE, leads).await;
        leads.expect("in time").unwrap();
    }
}

/// Status and reason of a condition.
fn condition(holder: &Value, name: &str) -> Option<(String, String)> {
    let mut conditions = holder["conditions"].as_array()?.iter();
    let one = conditions.find(|one| one["type"] == name)?;
    Some((
        one["status"].as_str()?.to_owned(),
        one["reason"].as_str()?.to_owned(),
    ))
}

fn is(holder: &Value, name: &str, status: &str, reason: &str) -> bool {
    condition(holder, name) == Some((status.to_owned(), reason.to_owned()))
}

fn gateway_is(server: &Server, name: &str, status: &str, reason: &str) -> bool {
    let gateway = server.get(GATEWAYS, "demo", "gw");
    gateway.is_some_and(|gateway| is(&gateway["status"], name, status, reason))
}

/// What a cluster does for a Gateway: a ready proxy, an address for its Service.
fn play_cluster(server: &Server) {
    server.put(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: proxy-1, namespace: demo}\n\
         status: {phase: Running, podIP: 10.0.0.9, conditions: [{type: Ready, status: 'True'}]}\n",
    );
    let mut service = server.get("/services", "demo", "gw-penstock").unwrap();
    service["status"] = serde_json::json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    server.put(&service.to_string());
}

fn applied(running: &Running, generation: i64) {
    let report = Report {
        pod: "proxy-1".to_owned(),
        generation,
        listeners: vec![("http".to_owned(), SocketState::Served)],
    };
    let gateway = config::ObjectName::new("demo", "gw");
    running.controller.feeds.report(&gateway, 1, report);
}

#[tokio::test]
async fn a_gateway_is_programmed_once_a_ready_proxy_applied_its_generation() {
    let (server, client) = Server::start().await;
    server.put(&[CLASS, GATEWAY, ROUTE, POOL].join("---\n"));
    let running = run(client, "one_127.0.0.1:1").await;
    let made = |server: &Server| server.get("/services", "demo", "gw-penstock").is_some();
    server.until("a service", made).await;
    let waiting = |server: &Server| gateway_is(server, "Programmed", "False", "AddressNotAssigned");
    server.until("no address yet", waiting).await;
    play_cluster(&server);
    let addressed = |server: &Server| {
        let gateway = server.get(GATEWAYS, "demo", "gw").unwrap();
        gateway["status"]["addresses"][0]["value"] == "192.0.2.1"
    };
    server.until("an address", addressed).await;
    assert!(
        !gateway_is(&server, "Programmed", "True", "Programmed"),
        "nobody serves it"
    );
    applied(&running, 1);
    let programmed = |server: &Server| gateway_is(server, "Programmed", "True", "Programmed");
    server.until("programmed", programmed).await;

    // A new generation is not programmed before a proxy says so.
    server.put(&GATEWAY.replace("port: 80", "port: 81"));
    let pending = |server: &Server| !programmed(server);
    server.until("pending", pending).await;
    applied(&running, 2);
    server.until("programmed again", programmed).await;
    // A controller that starts anew takes nothing back.
    running.stop.cancel();
}

#[tokio::test]
async fn nothing_is_written_when_nothing_changed() {
    let (server, client) = Server::start().await;
    server.put(&[CLASS, GATEWAY, ROUTE, POOL, MODEL].join("---\n"));
    let running = run(client.clone(), "one_127.0.0.1:1").await;
    let made = |server: &Server| server.get("/services", "demo", "gw-penstock").is_some();
    server.until("a service", made).await;
    play_cluster(&server);
    applied(&running, 1);
    let done = |server: &Server| {
        let model = server.get(MODELS, "demo", "m").unwrap();
        let pool = server.get(POOLS, "demo", "pool").unwrap();
        let programmed = gateway_is(server, "Programmed", "True", "Programmed");
        programmed
            && is(&model["status"], "Accepted", "True", "Accepted")
            && !pool["status"].is_null()
    };
    server.until("all statuses", done).await;
    running.stop.cancel();
    running.leads(false).await;

    // A second controller finds everything as it would write it.
    let before = server.journal();
    let second = run(client, "two_127.0.0.1:2").await;
    second.leads(true).await;
    second.ready().await;
    // What it would write in vain comes before what it writes for this.
    server.put(&ROUTE.replace("name: r,", "name: second,"));
    let accepted = |server: &Server| {
        let route = server.get(ROUTES, "demo", "second").unwrap();
        is(
            &route["status"]["parents"][0],
            "Accepted",
            "True",
            "Accepted",
        )
    };
    server.until("the second route", accepted).await;
    let counted = |server: &Server| {
        let gateway = server.get(GATEWAYS, "demo", "gw").unwrap();
        gateway["status"]["listeners"][0]["attachedRoutes"] == 2
    };
    server.until("attached", counted).await;
    let journal = server.journal();
    let mut new = journal[before.len()..].to_vec();
    new.sort();
    assert_eq!(
        new,
        [
            format!("PATCH {GATEWAYS}/status demo/gw"),
            format!("PATCH {ROUTES}/status demo/second")
        ]
    );
    assert!(
        gateway_is(&server, "Programmed", "True", "Programmed"),
        "taken back"
    );
}

#[tokio::test]
async fn statuses_of_a_pool_follow_its_routes() {
    let (server, client) = Server::start().await;
    server.put(&[CLASS, GATEWAY, ROUTE, POOL].join("---\n"));
    let _running = run(client, "one_127.0.0.1:1").await;
    let parents = |server: &Server| {
        let pool = server.get(POOLS, "demo", "pool").unwrap();
        pool["status"]["parents"].as_array().map(Vec::len)
    };
    server
        .until("a parent", |server| parents(server) == Some(1))
        .await;
    server.delete(ROUTES, "demo", "r");
    server
        .until("no parent", |server| parents(server) == Some(0))
        .await;
}

const OLDER_POOL: &str = "
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: older, namespace: demo}
spec: {selector: {app: a}, targetPortNumber: 8000}
";
const OLDER_POOLS: &str = "inference.networking.x-k8s.io/inferencepools";

#[tokio::test]
async fn the_older_pool_forgets_a_route_and_a_gateway() {
    let (server, client) = Server::start().await;
    let to_older = ROUTE.replace(
        "networking.k8s.io, kind: InferencePool",
        "networking.x-k8s.io, kind: InferencePool",
    );
    let to_older = to_older.replace("name: pool", "name: older");
    let to_older = to_older.replace("name: r,", "name: to-older,");
    let all = [CLASS, GATEWAY, ROUTE, POOL, OLDER_POOL, &to_older];
    server.put(&all.join("---\n"));
    let running = run(client.clone(), "one_127.0.0.1:1").await;
    let of = |server: &Server, (resource, name): (&str, &str), list: &str| {
        let pool = server.get(resource, "demo", name).unwrap();
        pool["status"][list].as_array().map(Vec::len)
    };
    let are = |server: &Server, older: usize, v1: usize| {
        of(server, (OLDER_POOLS, "older"), "parent") == Some(older)
            && of(server, (POOLS, "pool"), "parents") == Some(v1)
    };
    server.until("both", |server| are(server, 1, 1)).await;
    server.delete(ROUTES, "demo", "to-older");
    server.until("no route", |server| are(server, 0, 1)).await;
    server.put(&to_older);
    server
        .until("a route again", |server| are(server, 1, 1))
        .await;
    // A controller that starts when the Gateway has gone knows its entries too.
    running.stop.cancel();
    running.leads(false).await;
    server.delete(GATEWAYS, "demo", "gw");
    let _second = run(client, "two_127.0.0.1:2").await;
    server.until("no gateway", |server| are(server, 0, 0)).await;
}

const OBJECTIVE: &str = "
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {name: urgent, namespace: demo}
spec: {priority: 10, poolRef: {name: pool}}
";
const OBJECTIVES: &str = "llm-d.ai/inferenceobjectives";
const OLDER_OBJECTIVES: &str = "inference.networking.x-k8s.io/inferenceobjectives";

#[tokio::test]
async fn of_two_objects_of_one_name_the_one_that_is_not_read_says_so() {
    let (server, client) = Server::start().await;
    let older = OBJECTIVE.replace("llm-d.ai", "inference.networking.x-k8s.io");
    server.put(&[CLASS, GATEWAY, ROUTE, POOL, &older].join("---\n"));
    let running = run(client, "one_127.0.0.1:1").await;
    let has = |server: &Server, resource: &str, status: &str, reason: &str| {
        let objective = server.get(resource, "demo", "urgent");
        objective.is_some_and(|one| is(&one["status"], "Accepted", status, reason))
    };
    let alone = |server: &Server| has(server, OLDER_OBJECTIVES, "True", "Accepted");
    server.until("the only one", alone).await;
    server.put(OBJECTIVE);
    let both = |server: &Server| {
        has(server, OBJECTIVES, "True", "Accepted")
            && has(server, OLDER_OBJECTIVES, "False", "Conflicted")
    };
    server.until("both", both).await;
    server.delete(OBJECTIVES, "demo", "urgent");
    server.until("the only one again", alone).await;
    running.stop.cancel();
}

/// Routes that come and go together.
const MANY: usize = 200;

#[tokio::test]
async fn many_routes_get_their_statuses_and_go() {
    let (server, client) = Server::start().await;
    let name = |number: usize| format!("route-{number}");
    let routes =
        (0..MANY).map(|number| ROUTE.replace("name: r,", &format!("name: {},", name(number))));
    let routes: Vec<String> = routes.collect();
    server.put(&[CLASS, GATEWAY, POOL, &routes.join("---\n")].join("---\n"));
    let _running = run(client, "one_127.0.0.1:1").await;
    let attached = |server: &Server| {
        let gateway = server.get(GATEWAYS, "demo", "gw").unwrap();
        gateway["status"]["listeners"][0]["attachedRoutes"].as_u64()
    };
    let written = |server: &Server| {
        let is_status = |line: &&String| line.contains("httproutes/status");
        attached(server) == Some(MANY as u64)
            && server.journal().iter().filter(is_status).count() == MANY
    };
    server.until("all statuses", written).await;
    for number in 0..MANY {
        server.delete(ROUTES, "demo", &name(number));
    }
    server
        .until("none attached", |server| attached(server) == Some(0))
        .await;
    let asked = server.definitions();
    assert!(asked < MANY / 10, "read a definition {asked} times");
}

#[tokio::test]
async fn only_what_the_compiler_reads_is_compiled() {
    let (server, client) = Server::start().await;
    server.put(
        "apiVersion: coordination.k8s.io/v1\nkind: Lease\n\
         metadata: {name: controller, namespace: system}\nspec: {holderIdentity: another}\n",
    );
    server.put(&[CLASS, GATEWAY, ROUTE, POOL].join("---\n"));
    // While another one leads, nothing is provisioned, which would be read too.
    let running = run(client, "one_127.0.0.1:1").await;
    running.ready().await;
    let compilations = || running.controller.counts.compilations.load(Relaxed);
    assert_eq!(compilations(), 1);
    let gateway = config::ObjectName::new("demo", "gw");
    let mut feed = running.controller.feeds.follow(&gateway);
    let mut has = async |key: &str| {
        let fed = feed.wait_for(|feed| feed.objects.contains_key(key));
        tokio::time::timeout(PATIENCE, fed)
            .await
            .expect(key)
            .unwrap();
    };
    server.put(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: member, namespace: demo, labels: {app: a}}\n\
         status: {phase: Running, podIP: 10.0.0.9, conditions: [{type: Ready, status: 'True'}]}\n",
    );
    has("Pod/demo/member").await;
    assert_eq!(compilations(), 1, "where an endpoint is");
    server.set_status(ROUTES, "demo", "r", serde_json::json!({"parents": []}));
    server.put(&ROUTE.replace("name: r,", "name: second,"));
    has("HttpRoute/demo/second").await;
    assert_eq!(compilations(), 2, "a status and a route");
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: member
  namespace: demo
  labels: {app: a}
  annotations: {inference.networking.k8s.io/active-ports: '8000', note: changes-often}
spec: {nodeName: node-1}
status: {phase: Running, podIP: 10.0.0.9, conditions: [{type: Ready, status: 'True'}, {type: Other, status: 'True'}]}
";

#[tokio::test]
async fn proxies_get_of_a_pod_what_makes_it_a_member() {
    let (server, client) = Server::start().await;
    server.put(&[CLASS, GATEWAY, ROUTE, POOL, POD].join("---\n"));
    let running = run(client, "one_127.0.0.1:1").await;
    let gateway = config::ObjectName::new("demo", "gw");
    let mut feed = running.controller.feeds.follow(&gateway);
    let mut fed = async |wanted: Value| {
        let is_wanted = |feed: &Feed| {
            let pod = feed.objects.get("Pod/demo/member");
            let pod = pod.map(|pod| serde_json::from_slice(&pod.json).unwrap());
            pod == Some(wanted.clone())
        };
        let fed = feed.wait_for(is_wanted);
        let is_fed = tokio::time::timeout(PATIENCE, fed).await.is_ok();
        assert!(is_fed, "{wanted}: {:?}", feed.borrow().objects);
    };
    let mut wanted = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "member", "namespace": "demo", "uid": "uid-demo-member", "labels": {"app": "a"},
            "annotations": {"inference.networking.k8s.io/active-ports": "8000"},
        },
        "status": {"phase": "Running", "podIP": "10.0.0.9", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    fed(wanted.clone()).await;
    // Labels of a living Pod say in which subsets of the pool it is.
    let zone = "topology.kubernetes.io/zone";
    server.put(&POD.replace("{app: a}", &format!("{{app: a, {zone}: near}}")));
    let mut moved = wanted.clone();
    moved["metadata"]["labels"][zone] = "near".into();
    fed(moved).await;
    // Until it is gone, that it goes.
    let going = "2026-01-01T00:00:00Z";
    server.put(&POD.replace(
        "name: member",
        &format!("name: member\n  deletionTimestamp: '{going}'"),
    ));
    wanted["metadata"]["deletionTimestamp"] = going.into();
    fed(wanted).await;
}

#[tokio::test]
async fn a_kind_may_come_later_and_its_definition_may_go() {
    let (server, client) = Server::start().await;
    server.serve(MODELS, false);
    server.put(&[CLASS, GATEWAY, ROUTE, POOL].join("---\n"));
    let running = run(client, "one_127.0.0.1:1").await;
    running.ready().await;

    server.put(MODEL);
    server.serve(MODELS, true);
    let accepted = |server: &Server| {
        let model = server.get(MODELS, "demo", "m");
        model.is_some_and(|model| is(&model["status"], "Accepted", "True", "Accepted"))
    };
    server.until("the model", accepted).await;

    // The definition goes, and with it its objects: proxies keep what they say.
    let has_model = |running: &Running| {
        let feed = running
            .controller
            .feeds
            .follow(&config::ObjectName::new("demo", "gw"));
        feed.borrow().objects.contains_key("InferenceModel/demo/m")
    };
    assert!(has_model(&running));
    server.serve(MODELS, false);
    server.delete(MODELS, "demo", "m");
    server.put(&ROUTE.replace("name: r,", "name: later,"));
    let later = |server: &Server| {
        let route = server.get(ROUTES, "demo", "later").unwrap();
        !route["status"].is_null()
    };
    server.until("something later", later).await;
    assert!(has_model(&running), "taken out of service");
}

#[tokio::test]
async fn one_replica_writes_and_the_other_takes_over() {
    let (server, client) = Server::start().await;
    server.put(&[CLASS, GATEWAY].join("---\n"));
    let first = run(client.clone(), "one_127.0.0.1:1").await;
    first.leads(true).await;
    let second = run(client, "two_127.0.0.1:2").await;
    let mut follows = second.controller.leads.clone();
    let known = follows.wait_for(|leadership| leadership.elsewhere().is_some());
    let known = tokio::time::timeout(Duration::from_secs(20), known)
        .await
        .unwrap();
    assert_eq!(known.unwrap().elsewhere().as_deref(), Some("127.0.0.1:1"));
    first.stop.cancel();
    let taken = second.controller.leads.clone();
    let mut taken = taken;
    let taken = taken.wait_for(|leadership| leadership.leads);
    tokio::time::timeout(Duration::from_secs(30), taken)
        .await
        .expect("taken over in time")
        .unwrap();
    server.put(ROUTE);
    let written = |server: &Server| !server.get(ROUTES, "demo", "r").unwrap()["status"].is_null();
    server.until("the second writes", written).await;
}

#[tokio::test]
async fn a_replica_that_was_killed_is_replaced_when_its_lease_has_run_out() {
    let (server, client) = Server::start().await;
    server.put(&[CLASS, GATEWAY].join("---\n"));
    let (says, leading) = tokio::sync::oneshot::channel();
    let (kill, killed) = tokio::sync::oneshot::channel::<()>();
    // As a process that is killed: its runtime goes with all its tasks, and nothing is given up.
    let its_server = server.clone();
    let doomed = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            let first = run(its_server.client(), "one_127.0.0.1:1").await;
            first.leads(true).await;
            says.send(()).unwrap();
            let _ = killed.await;
        });
    });
    leading.await.unwrap();
    let second = run(client, "two_127.0.0.1:2").await;
    second.ready().await;
    assert!(!second.controller.leads.borrow().leads);
    kill.send(()).unwrap();
    doomed.join().unwrap();
    let lease = || server.get(LEASES, "system", "controller").unwrap()["spec"].take();
    let known = lease();
    assert_eq!(known["holderIdentity"], "one_127.0.0.1:1");
    second.leads(true).await;
    let taken = lease();
    assert_eq!(taken["holderIdentity"], "two_127.0.0.1:2");
    let transitions = |lease: &Value| lease["leaseTransitions"].as_i64().unwrap();
    assert_eq!(transitions(&taken), transitions(&known) + 1);
    server.put(ROUTE);
    let written = |server: &Server| !server.get(ROUTES, "demo", "r").unwrap()["status"].is_null();
    server.until("the second writes", written).await;
}
