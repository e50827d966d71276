//! Edits of a configuration that is served: nothing is dropped, and a bad edit changes nothing.

use crate::configured::{Configured, GATEWAY, pool, route, service, to_pool};
use crate::gateway::{connect, free_address, get, mock, post, read_answer, request, wait_until};
use crate::scripted::{Scripted, echo};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const CHAT: &str = r#"{"model":"llama","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

/// A stream held open through a gateway.
struct Held(BufReader<TcpStream>);

impl Held {
    fn open(address: SocketAddr) -> Self {
        let mut stream = connect(address);
        let asked = request("/v1/chat/completions", CHAT, &[]);
        stream.write_all(asked.as_bytes()).unwrap();
        Self(BufReader::new(stream))
    }

    /// Reads on until an event with `text` has come; returns the events up to it.
    fn until(&mut self, text: &str) -> Vec<String> {
        let mut events = Vec::new();
        loop {
            let mut line = String::new();
            assert!(
                self.0.read_line(&mut line).unwrap() > 0,
                "cut after {events:?}"
            );
            if let Some(event) = line.trim_end().strip_prefix("data: ") {
                events.push(event.to_owned());
                if event == text {
                    return events;
                }
            }
        }
    }
}

fn gauge(admin: SocketAddr, name: &str) -> f64 {
    let text = get(admin, "/metrics").unwrap().body;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_stream_stays_whole_through_a_thousand_edits() {
    let server = Scripted::start();
    let edited = |edit: u32| {
        let backend = to_pool("chat");
        let rules = format!("rules: [{{name: edit-{edit}, backendRefs: [{backend}]}}]");
        route("chat", &rules)
    };
    let gateway = Configured::start(&(GATEWAY.to_owned() + &pool("chat", "", &[server.address])));
    gateway.edit_file("route.yaml", &edited(0));
    wait_until(|| gateway.version() > 1);
    let mut held = Held::open(gateway.address);
    server.say("first");
    held.until("first");
    let mut alive = BufReader::new(connect(gateway.address));
    let mut admin = BufReader::new(connect(gateway.admin));
    let mut version = gateway.version();
    for edit in 1..=1_000 {
        gateway.edit_file("route.yaml", &edited(edit));
        version = next_version(&mut admin, version);
        if edit % 100 == 0 {
            // Both workers take part; a request on a connection that is kept is answered as well.
            let models = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n";
            alive.get_mut().write_all(models).unwrap();
            assert_eq!(read_answer(&mut alive).unwrap().status, 200);
            server.say(&format!("event {edit}"));
            assert_eq!(
                held.until(&format!("event {edit}")),
                [format!("event {edit}")]
            );
        }
    }
    assert!(gateway.version() > 1_000, "{}", gateway.version());
    wait_until(|| gauge(gateway.admin, "penstock_snapshots_alive") <= 2.0);
    server.say("[DONE]");
    server.end();
    held.until("[DONE]");
    let mut rest = [0; 8];
    held.0.read_exact(&mut rest).unwrap();
    assert!(
        rest.ends_with(b"0\r\n\r\n"),
        "the end of the last chunk, then the end: {rest:?}"
    );
}

/// Waits until a newer configuration than `known` is in force.
fn next_version(admin: &mut BufReader<TcpStream>, known: u64) -> u64 {
    loop {
        let asked = b"GET /version HTTP/1.1\r\nhost: a\r\n\r\n";
        admin.get_mut().write_all(asked).unwrap();
        let answer = read_answer(admin).unwrap();
        let version: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        match version["configuration"].as_u64() {
            Some(version) if version > known => return version,
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Routes everything to a Service.
fn to_service(name: &str) -> String {
    let backend = format!("rules: [{{backendRefs: [{{name: {name}, port: 80}}]}}]");
    [GATEWAY.to_owned(), route("all", &backend)].concat()
}

#[test]
fn a_bad_edit_is_refused_with_its_place_and_the_last_good_stays() {
    let good = to_service("web") + &service("web", &[echo("web")]);
    let gateway = Configured::start(&good);
    gateway.edit(&good.replace("backendRefs", "backendRef"));
    wait_until(|| !gateway.config()["refused"].as_array().unwrap().is_empty());
    let config = gateway.config();
    let refused = &config["refused"][0];
    let line = 1 + good
        .lines()
        .position(|line| line.contains("backendRefs"))
        .unwrap();
    assert_eq!(refused["line"], line, "{refused}");
    assert!(refused["column"].as_u64().unwrap() > 1, "{refused}");
    assert_eq!(refused["suggestion"], "backendRefs", "{refused}");
    assert!(
        refused["file"].as_str().unwrap().ends_with("one.yaml"),
        "{refused}"
    );
    assert_eq!(config["version"], 1);
    let log = gateway.log();
    let place = format!("one.yaml:{line}:");
    assert!(
        log.contains(&place) && log.contains("did you mean `backendRefs`?"),
        "{log}"
    );
    assert_eq!(gateway.get("/").status, 200);

    // Back to what it was: nothing is refused any more.
    gateway.apply(&good);
    assert_eq!(gateway.config()["refused"].as_array().unwrap().len(), 0);

    // A reference error is no reason to refuse an edit: it is a status, as in a cluster.
    gateway.apply(&good.replace("name: web, port: 80}]}]", "name: gone, port: 80}]}]"));
    assert_eq!(gateway.get("/").status, 500);
    let statuses = gateway.config()["statuses"].to_string();
    assert!(statuses.contains("BackendNotFound"), "{statuses}");
}

#[test]
fn members_and_routes_follow_an_edit() {
    let (one, two) = (echo("one"), echo("two"));
    let gateway = Configured::start(&(to_service("web") + &service("web", &[one])));
    let mut alive = BufReader::new(connect(gateway.address));
    let mut ask = || {
        let asked = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        alive.get_mut().write_all(asked).unwrap();
        let answer = read_answer(&mut alive).unwrap();
        answer
            .field("x-from")
            .map_or(answer.status.to_string(), str::to_owned)
    };
    assert_eq!(ask(), "one");
    gateway.apply(&(to_service("web") + &service("web", &[two])));
    assert_eq!(ask(), "two");
    gateway.apply(&(to_service("web") + &service("web", &[])));
    assert_eq!(ask(), "503");
    gateway.apply(&(to_service("other") + &service("other", &[one])));
    assert_eq!(ask(), "one");
}

/// A Pod of the pool `chat` at one of its ports.
fn pod(name: &str, server: SocketAddr, more: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  uid: uid-{name}\n  \
        labels: {{app: chat}}\n  annotations: {{inference.networking.k8s.io/active-ports: '{}'}}\n{more}\
        status: {{podIP: {}, conditions: [{{type: Ready, status: 'True'}}]}}\n",
        server.port(),
        server.ip()
    )
}

/// All but the Pods, whose servers listen on these ports.
fn pool_of_pods(servers: [SocketAddr; 2]) -> String {
    let ports = servers.map(|one| format!("{{number: {}}}", one.port()));
    let rules = format!("rules: [{{backendRefs: [{}]}}]", to_pool("chat"));
    let pool = pool("chat", "", &[]).replace("{number: 8000}", &ports.join(", "));
    [GATEWAY.to_owned(), route("chat", &rules), pool].concat()
}

#[test]
fn a_pod_that_is_deleted_gets_no_new_request_and_keeps_its_stream() {
    let (server, other) = (Scripted::start(), echo("other"));
    let base = pool_of_pods([server.address, other]);
    let gateway = Configured::start(&(base.clone() + &pod("first", server.address, "")));
    let mut held = Held::open(gateway.address);
    server.say("first");
    held.until("first");
    let going = "  deletionTimestamp: '2026-01-01T00:00:00Z'\n";
    let going = pod("first", server.address, going);
    gateway.apply(&(base.clone() + &going));
    assert_eq!(gateway.get("/").status, 503, "nobody takes new requests");
    gateway.apply(&(base.clone() + &going + &pod("second", other, "")));
    for _ in 0..10 {
        assert_eq!(gateway.get("/").field("x-from"), Some("other"));
    }
    server.say("second");
    held.until("second");
    // And when the Pod is gone from the API before its last byte.
    gateway.apply(&(base + &pod("second", other, "")));
    server.say("[DONE]");
    server.end();
    held.until("[DONE]");
    let mut rest = [0; 8];
    held.0.read_exact(&mut rest).unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
}

#[test]
fn a_pod_whose_labels_change_moves_between_subsets_and_keeps_its_stream() {
    let (server, other) = (Scripted::start(), echo("other"));
    let policy = crate::subsets::policy("[{matchLabels: {tier: canary}}]");
    let base = pool_of_pods([server.address, other]) + &policy;
    let canary = |text: &str| text.replace("{app: chat}", "{app: chat, tier: canary}");
    let (first, second) = (pod("first", server.address, ""), pod("second", other, ""));
    let gateway = Configured::start(&(base.clone() + &canary(&first) + &second));
    let mut held = Held::open(gateway.address);
    server.say("first");
    held.until("first");
    for _ in 0..10 {
        assert_eq!(gateway.get("/").status, 404, "the canary's answer");
    }
    gateway.apply(&(base.clone() + &first + &canary(&second)));
    for _ in 0..10 {
        assert_eq!(gateway.get("/").field("x-from"), Some("other"));
    }
    server.say("[DONE]");
    server.end();
    held.until("[DONE]");
    let mut rest = [0; 8];
    held.0.read_exact(&mut rest).unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
    gateway.apply(&(base + &canary(&first) + &second));
    assert_eq!(gateway.get("/").status, 404, "the canary again");
}

#[test]
fn listeners_come_and_go_without_cutting_a_stream() {
    let server = Scripted::start();
    let base = [
        GATEWAY.to_owned(),
        route(
            "chat",
            &format!("rules: [{{backendRefs: [{}]}}]", to_pool("chat")),
        ),
        pool("chat", "", &[server.address]),
    ]
    .concat();
    let second = free_address();
    let both = base.replace(
        "protocol: HTTP}]",
        &format!(
            "protocol: HTTP}}, {{name: more, port: {}, protocol: HTTP}}]",
            second.port()
        ),
    );
    let gateway = Configured::start(&base);
    assert_eq!(
        gateway.condition("Gateway", Some("http"), "Programmed"),
        "True/Programmed"
    );
    assert_eq!(
        gateway.condition("Gateway", None, "Programmed"),
        "True/Programmed"
    );
    gateway.apply(&both);
    assert_eq!(
        gateway.condition("Gateway", Some("more"), "Programmed"),
        "True/Programmed"
    );

    let mut held = Held::open(second);
    server.say("first");
    held.until("first");
    let mut idle = connect(second);
    gateway.apply(&base);
    // The idle connection is closed, new ones are refused, the stream goes on.
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    wait_until(|| TcpStream::connect(second).is_err());
    server.say("second");
    held.until("second");
    server.say("[DONE]");
    server.end();
    held.until("[DONE]");
}

#[test]
fn a_taken_port_is_a_status_until_it_is_free() {
    let text = to_service("web") + &service("web", &[echo("web")]);
    let gateway = Configured::start(&text);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let both = text.replace(
        "protocol: HTTP}]",
        &format!("protocol: HTTP}}, {{name: more, port: {port}, protocol: HTTP}}]"),
    );
    gateway.apply(&both);
    let more = |wanted| gateway.condition("Gateway", Some("more"), wanted);
    assert_eq!(more("Programmed"), "False/Invalid");
    assert_eq!(more("Accepted"), "False/PortUnavailable");
    assert_eq!(
        gateway.condition("Gateway", None, "Programmed"),
        "True/Programmed"
    );
    let config = gateway.config()["statuses"].to_string();
    assert!(
        config.contains(&format!("127.0.0.1:{port} is in use by")),
        "{config}"
    );
    assert_eq!(gateway.get("/").status, 200);
    drop(taken);
    wait_until(|| more("Programmed") == "True/Programmed");
}

#[test]
fn a_listener_moves_to_an_address_that_overlaps_its_own() {
    let text = to_service("web") + &service("web", &[echo("web")]);
    let gateway = Configured::start(&text);
    gateway.apply(&text.replace("127.0.0.1", "0.0.0.0"));
    wait_until(|| gateway.condition("Gateway", None, "Programmed") == "True/Programmed");
    wait_until(|| TcpStream::connect(gateway.address).is_ok());
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_hangup_reads_files_at_once_and_ends_nothing() {
    let text = to_service("web") + &service("web", &[echo("web")]);
    let gateway = Configured::start(&text);
    gateway.signal("-HUP");
    gateway.signal("-HUP");
    gateway.apply(&text.replace("name: web, port: 80}]}]", "name: gone, port: 80}]}]"));
    assert_eq!(gateway.get("/").status, 500);
}

#[test]
fn a_request_under_way_ends_before_the_process_does() {
    let server = Scripted::start();
    let text = [
        GATEWAY.to_owned(),
        route(
            "chat",
            &format!("rules: [{{backendRefs: [{}]}}]", to_pool("chat")),
        ),
        pool("chat", "", &[server.address]),
    ];
    let mut gateway = Configured::start(&text.concat());
    let mut held = Held::open(gateway.address);
    server.say("first");
    held.until("first");
    gateway.signal("-TERM");
    wait_until(|| TcpStream::connect(gateway.address).is_err());
    server.say("[DONE]");
    server.end();
    held.until("[DONE]");
    assert!(gateway.process.0.wait().unwrap().success());
}

#[test]
fn a_second_signal_does_not_wait() {
    let server = Scripted::start();
    let text = [
        GATEWAY.to_owned(),
        route(
            "chat",
            &format!("rules: [{{backendRefs: [{}]}}]", to_pool("chat")),
        ),
        pool("chat", "", &[server.address]),
    ];
    let mut gateway = Configured::start(&text.concat());
    let mut held = Held::open(gateway.address);
    server.say("first");
    held.until("first");
    gateway.signal("-TERM");
    wait_until(|| TcpStream::connect(gateway.address).is_err());
    gateway.signal("-TERM");
    assert_eq!(gateway.process.0.wait().unwrap().code(), Some(1));
}

#[test]
fn secrets_are_shown_as_fingerprints() {
    let edit = "filters: [{type: RequestHeaderModifier, requestHeaderModifier: \
        {set: [{name: Authorization, value: Bearer hunter2}, {name: X-Team, value: blue}]}}]";
    let rules = format!("rules: [{{{edit}, backendRefs: [{{name: web, port: 80}}]}}]");
    let text = [
        GATEWAY.to_owned(),
        route("all", &rules),
        service("web", &[echo("web")]),
    ];
    let gateway = Configured::start(&text.concat());
    assert!(
        gateway.get("/").body.contains("Bearer hunter2"),
        "the backend gets it"
    );
    let shown = get(gateway.admin, "/debug/config").unwrap().body;
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(
        shown.contains("\"hash:") && shown.contains("\"blue\""),
        "{shown}"
    );
}

const PLAIN: &str = "listen: 127.0.0.1:PORT\npools: [{name: chat, endpoints: [http://ONE]}]\n";

#[test]
fn a_plain_file_is_followed_as_well() {
    let (_one, one) = mock(&["--model", "llama"]);
    let (_two, two) = mock(&["--model", "qwen"]);
    let gateway = Configured::start(&PLAIN.replace("ONE", &one.to_string()));
    let ask = || {
        let body = CHAT
            .replace("true", "false")
            .replace("\"model\":\"llama\",", "");
        let answer = post(gateway.address, "/v1/chat/completions", &body);
        answer.field("x-penstock-endpoint").map(str::to_owned)
    };
    assert_eq!(ask(), Some(one.to_string()));
    gateway.apply(&PLAIN.replace("ONE", &two.to_string()));
    assert_eq!(ask(), Some(two.to_string()));
}
