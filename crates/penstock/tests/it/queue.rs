//! A saturated pool: who is shed, who waits, who goes first, and what is left over when they leave.
//!
//! With a saturation time below the cost of any request a server takes one request at a time: one
//! with a request in flight is full, an idle one always accepts.

use crate::gateway::{Answer, Gateway, connect, post_with, read_answer, request, wait_until};
use crate::servers::{CHAT, Open, Server, chat};
use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

/// Names of each criticality on one server, with bounds of the queue.
fn gateway(server: &Server, queue: &str) -> Gateway {
    let mut models = String::new();
    for name in ["critical", "standard", "sheddable"] {
        let criticality = name[..1].to_ascii_uppercase() + &name[1..];
        models.push_str(&format!(
            "      - {{name: {name}, criticality: {criticality}, targets: [{{name: {name}}}]}}\n"
        ));
    }
    let plain = format!(
        "pools:\n  - name: chat\n    endpoints: [http://{}]\n    saturationSeconds: 0.0001\n    queue: {{{queue}}}\n    models:\n{models}",
        server.address
    );
    let gateway = Gateway::plain(&plain, &[]);
    gateway.knows(&["undeclared"]);
    gateway
}

fn server() -> Server {
    let models = ["critical", "standard", "sheddable", "undeclared"];
    let args: Vec<&str> = models.iter().flat_map(|name| ["--model", name]).collect();
    Server::start(&args)
}

/// Takes the one place there is, until it is dropped.
fn occupied(gateway: &Gateway, server: &Server) -> Open {
    server.slow(20.0);
    let mut open = Open::post(gateway.address, &chat("standard", "holds", 100_000, true));
    assert_eq!(open.status, 200);
    assert!(open.chunk().is_some());
    open
}

/// A request that is expected to wait.
fn waiting(gateway: &Gateway, model: &str, fields: &[(&str, &str)]) -> TcpStream {
    let before = gateway.metric("penstock_queue_requests");
    let mut stream = connect(gateway.address);
    let body = chat(model, "waits", 1, false);
    stream
        .write_all(request(CHAT, &body, fields).as_bytes())
        .unwrap();
    wait_until(|| gateway.metric("penstock_queue_requests") == before + 1.0);
    stream
}

fn ask(gateway: &Gateway, model: &str, fields: &[(&str, &str)]) -> Answer {
    post_with(
        gateway.address,
        CHAT,
        &chat(model, "asks", 1, false),
        fields,
    )
}

#[track_caller]
fn dropped(answer: &Answer, reason: &str) {
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.field("x-llm-d-request-dropped-reason"), Some(reason));
    let after: u32 = answer.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&after), "{answer:?}");
    assert!(answer.body.contains("rate_limit_error"), "{answer:?}");
}

fn models(server: &Server) -> Vec<String> {
    let received = server.received();
    received.into_iter().filter_map(|one| one.model).collect()
}

#[test]
fn when_saturated_sheddable_is_shed_and_critical_goes_before_standard() {
    let server = server();
    let gateway = gateway(&server, "");
    // Without load everybody is served.
    for model in ["sheddable", "undeclared", "critical"] {
        assert_eq!(ask(&gateway, model, &[]).status, 200, "{model}");
    }
    server.forget();
    let held = occupied(&gateway, &server);
    let asked = Instant::now();
    dropped(&ask(&gateway, "sheddable", &[]), "saturated");
    // In a pool with models, a name of none is sheddable.
    dropped(&ask(&gateway, "undeclared", &[]), "saturated");
    assert!(asked.elapsed().as_secs() < 5, "at once, not after a wait");
    let standard = waiting(&gateway, "standard", &[]);
    let critical = waiting(&gateway, "critical", &[]);
    assert_eq!(models(&server), ["standard"]);
    server.slow(1.0);
    drop(held);
    for stream in [critical, standard] {
        assert_eq!(
            read_answer(&mut BufReader::new(stream)).unwrap().status,
            200
        );
    }
    assert_eq!(models(&server), ["standard", "critical", "standard"]);
    gateway.is_quiet();
}

#[test]
fn the_queue_is_bounded_in_requests_and_time() {
    let server = server();
    let gateway = gateway(&server, "requests: 2, seconds: 1");
    let held = occupied(&gateway, &server);
    let first = waiting(&gateway, "standard", &[]);
    let second = waiting(&gateway, "critical", &[]);
    dropped(&ask(&gateway, "critical", &[]), "queue_full");
    for stream in [first, second] {
        let answer = read_answer(&mut BufReader::new(stream)).unwrap();
        dropped(&answer, "queue_timeout");
    }
    assert_eq!(models(&server), ["standard"]);
    drop(held);
    gateway.is_quiet();
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    let server = server();
    let gateway = gateway(&server, "bytes: 300");
    let held = occupied(&gateway, &server);
    let first = waiting(&gateway, "standard", &[]);
    assert!(gateway.metric("penstock_queue_bytes") > 50.0);
    let long = chat("standard", &"long ".repeat(60), 1, false);
    dropped(&post_with(gateway.address, CHAT, &long, &[]), "queue_full");
    drop((first, held));
    gateway.is_quiet();
}

#[test]
fn who_leaves_the_queue_never_reaches_the_engine() {
    let server = server();
    let gateway = gateway(&server, "");
    let held = occupied(&gateway, &server);
    let leaving = waiting(&gateway, "critical", &[]);
    let staying = waiting(&gateway, "standard", &[]);
    let half_closed = waiting(&gateway, "critical", &[]);
    drop(leaving);
    half_closed.shutdown(Shutdown::Write).unwrap();
    wait_until(|| gateway.metric("penstock_queue_requests") == 1.0);
    server.slow(1.0);
    drop(held);
    assert_eq!(
        read_answer(&mut BufReader::new(staying)).unwrap().status,
        200
    );
    assert_eq!(models(&server), ["standard", "standard"]);
    gateway.is_quiet();
    assert_eq!(
        gateway.metric_with("penstock_requests_total", "client_gone"),
        3.0
    );
}

#[test]
fn requests_that_wait_go_on_when_their_server_dies() {
    let server = server();
    let gateway = gateway(&server, "seconds: 30");
    let mut held = occupied(&gateway, &server);
    let first = waiting(&gateway, "standard", &[]);
    drop(server);
    assert!(held.rest().contains("stream_cut"));
    let answer = read_answer(&mut BufReader::new(first)).unwrap();
    assert!(answer.status >= 502, "{answer:?}");
    gateway.is_quiet();
}

/// The same priorities by objectives, one of each sign.
fn with_objectives(server: &Server, trusted: bool) -> Gateway {
    let mut more = "
---
apiVersion: penstock.dev/v1alpha1
kind: PoolPolicy
metadata: {name: tight}
spec:
  targetRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: chat}]
  saturationSeconds: 0.0001
"
    .to_owned();
    for (name, priority) in [("batch", -5), ("urgent", 7)] {
        more.push_str(&format!(
            "---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceObjective
metadata: {{name: {name}}}
spec: {{priority: {priority}, poolRef: {{group: inference.networking.k8s.io, name: chat}}}}
"
        ));
    }
    let gateway = Gateway::manifests(server, trusted, &more);
    gateway.knows(&["undeclared"]);
    gateway
}

const OBJECTIVE: &str = "x-gateway-inference-objective";

#[test]
fn a_client_may_lower_its_priority_and_raises_it_only_where_trusted() {
    for trusted in [false, true] {
        let server = server();
        let gateway = with_objectives(&server, trusted);
        let held = occupied(&gateway, &server);
        dropped(
            &ask(&gateway, "standard", &[(OBJECTIVE, "batch")]),
            "saturated",
        );
        let plain = waiting(&gateway, "standard", &[]);
        let urgent = waiting(&gateway, "undeclared", &[(OBJECTIVE, "urgent")]);
        server.slow(1.0);
        drop(held);
        for stream in [plain, urgent] {
            assert_eq!(
                read_answer(&mut BufReader::new(stream)).unwrap().status,
                200
            );
        }
        let expected = if trusted {
            ["standard", "undeclared", "standard"]
        } else {
            ["standard", "standard", "undeclared"]
        };
        assert_eq!(models(&server), expected, "trusted: {trusted}");
    }
}
