//! Pools whose endpoints an external endpoint picker chooses: what it is told, what is done with
//! what it says, and what happens when it says nothing.

use crate::certificates::Authority;
use crate::configured::{Configured, GATEWAY, pool, route, to_pool};
use crate::gateway::{Answer, connect, get, post, post_with, read_answer, request, wait_until};
use crate::grpc;
use crate::over2::Http2;
use crate::picker::{By, End, Kept, Picker, Play};
use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

const PATH: &str = "/anything";
const OPEN: &str = ", failureMode: FailOpen";

/// The Service of these pickers.
pub(crate) fn epp(pickers: &[SocketAddr], protocol: &str) -> String {
    let mut text = format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: epp}}\n\
        spec: {{ports: [{{port: 9002, name: grpc, targetPort: grpc{protocol}}}]}}\n"
    );
    for (index, picker) in pickers.iter().enumerate() {
        text.push_str(&format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
            metadata: {{name: epp-{index}, labels: {{kubernetes.io/service-name: epp}}}}\n\
            addressType: IPv4\nports: [{{name: grpc, port: {}}}]\nendpoints: [{{addresses: [{}]}}]\n",
            picker.port(),
            picker.ip()
        ));
    }
    text
}

/// A gateway over `servers`, of which these pickers choose.
pub(crate) fn manifests(pickers: &[SocketAddr], servers: &[SocketAddr], mode: &str) -> String {
    let reference = format!(", endpointPickerRef: {{name: epp, port: {{number: 9002}}{mode}}}");
    [
        GATEWAY.to_owned(),
        route(
            "chat",
            &format!("rules: [{{backendRefs: [{}]}}]", to_pool("chat")),
        ),
        pool("chat", &reference, servers),
        epp(pickers, ", appProtocol: http2"),
    ]
    .concat()
}

pub(crate) fn patience(seconds: &str) -> String {
    format!(
        "---\napiVersion: penstock.dev/v1alpha1\nkind: PoolPolicy\nmetadata: {{name: chat}}\nspec:\n  \
        targetRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: chat}}]\n  \
        pickSeconds: {seconds}\n"
    )
}

struct Bed {
    picker: Picker,
    servers: Vec<Kept>,
    gateway: Configured,
}

const NAMES: [&str; 3] = ["one", "two", "three"];

impl Bed {
    fn new(mode: &str) -> Self {
        let picker = Picker::start(Play::Hang);
        let servers: Vec<Kept> = NAMES.map(Kept::start).into();
        let addresses: Vec<SocketAddr> = servers.iter().map(|one| one.address).collect();
        let gateway = Configured::start(&manifests(&[picker.address], &addresses, mode));
        Self {
            picker,
            servers,
            gateway,
        }
    }

    /// With a picker that is given up after so many seconds.
    fn impatient(mode: &str, seconds: &str) -> Self {
        let bed = Self::new(mode);
        let addresses: Vec<SocketAddr> = bed.servers.iter().map(|one| one.address).collect();
        let text = manifests(&[bed.picker.address], &addresses, mode);
        bed.gateway.apply(&(text + &patience(seconds)));
        bed
    }

    fn at(&self, index: usize) -> String {
        self.servers[index].address.to_string()
    }

    fn plays_pick(&self, index: usize) {
        self.picker.plays(Play::Pick(self.at(index), By::Both));
    }

    fn post(&self, body: &str) -> Answer {
        post(self.gateway.address, PATH, body)
    }

    fn requests(&self) -> usize {
        let requests = self.servers.iter();
        requests.map(|one| one.requests.load(SeqCst)).sum()
    }

    fn asked(&self, outcome: &str) -> f64 {
        let text = get(self.gateway.admin, "/metrics").unwrap().body;
        let label = format!("outcome=\"{outcome}\"");
        let mut lines = text.lines().filter(|line| {
            line.starts_with("penstock_picker_requests_total{") && line.contains(&label)
        });
        let line = lines.next().expect("a metric");
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn ends(&self) -> Vec<End> {
        self.picker.seen.ends.lock().unwrap().clone()
    }
}

#[track_caller]
fn field(list: &[(String, String)], name: &str) -> Option<String> {
    let found = list.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.clone())
}

#[test]
fn the_picker_chooses_by_header_or_metadata() {
    let bed = Bed::new("");
    for by in [By::Both, By::Header, By::Metadata] {
        for (index, name) in NAMES.iter().enumerate() {
            bed.picker.plays(Play::Pick(bed.at(index), by));
            let answer = bed.post("hello");
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (200, *name),
                "{by:?}"
            );
            // A request without a body too.
            let answer = bed.gateway.get(PATH);
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (200, *name),
                "{by:?}"
            );
            assert_eq!(
                answer.field("x-picker-served"),
                Some(bed.at(index).as_str())
            );
        }
    }
    assert_eq!(bed.asked("picked"), 18.0);
    wait_until(|| bed.ends().len() == 18);
    assert!(
        bed.ends().iter().all(|end| *end == End::Well),
        "{:?}",
        bed.ends()
    );
    let connections = bed.picker.seen.connections.load(SeqCst);
    assert!(
        connections <= 2 + 2,
        "one per worker, and health checks: {connections}"
    );
}

#[test]
fn the_picker_is_told_everything_and_the_server_gets_the_clients_bytes() {
    let bed = Bed::new("");
    bed.plays_pick(1);
    let fields = [
        ("x-own", "mine"),
        ("x-gateway-destination-endpoint", "192.0.2.1:80"),
        ("x-gateway-destination-endpoint-subset", "192.0.2.1:80"),
    ];
    let answer = post_with(
        bed.gateway.address,
        "/v1/chat/completions",
        r#"{"model": "m"  }"#,
        &fields,
    );
    assert_eq!((answer.status, answer.body.as_str()), (200, "two"));
    let seen = &bed.picker.seen;
    let head = seen.head.lock().unwrap().clone();
    for (name, expected) in [
        (":method", "POST"),
        (":path", "/v1/chat/completions"),
        (":authority", "test"),
        ("x-own", "mine"),
        ("content-length", "16"),
        ("x-gateway-model-name", "m"),
    ] {
        assert_eq!(
            field(&head, name).as_deref(),
            Some(expected),
            "{name} {head:?}"
        );
    }
    assert!(field(&head, "x-request-id").is_some());
    assert_eq!(
        field(&head, "x-gateway-destination-endpoint"),
        None,
        "{head:?}"
    );
    assert_eq!(*seen.body.lock().unwrap(), br#"{"model": "m"  }"#);
    // Full duplex, no response bodies, no waiting for an answer to the head.
    assert_eq!(*seen.first.lock().unwrap(), b"\x08\x04\x18\x01");
    assert_eq!(*seen.served.lock().unwrap(), [bed.at(1)]);
    let response = seen.response.lock().unwrap().clone();
    assert_eq!(field(&response, ":status").as_deref(), Some("200"));
    assert_eq!(
        field(&response, "content-type").as_deref(),
        Some("text/plain")
    );
    assert_eq!(*bed.servers[1].body.lock().unwrap(), br#"{"model": "m"  }"#);
    let head = bed.servers[1].head.lock().unwrap().to_ascii_lowercase();
    assert!(head.contains("\r\nx-from-picker: yes\r\n"), "{head}");
    assert!(!head.contains("x-gateway-destination-endpoint"), "{head}");
    assert!(head.contains("\r\ncontent-length: 16\r\n"), "{head}");
}

fn large(mebibytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..mebibytes << 20).map(|_| next()).collect()
}

fn post_large(address: SocketAddr, body: &[u8]) -> Answer {
    let mut stream = connect(address);
    let head = format!(
        "POST /large HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    read_answer(&mut BufReader::new(stream)).expect("a whole answer")
}

#[test]
fn a_picker_that_waits_for_the_whole_body_gets_it_and_so_does_the_server() {
    let bed = Bed::impatient("", "15");
    let body = large(5);
    // One that says nothing before the end, and one that decides early and sends all of it back.
    for play in [Play::Pick(bed.at(2), By::Both), Play::Early(bed.at(2))] {
        bed.picker.plays(play.clone());
        let answer = post_large(bed.gateway.address, &body);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "three"),
            "{play:?}"
        );
        assert!(
            *bed.servers[2].body.lock().unwrap() == body,
            "the client's bytes"
        );
        assert_eq!(
            answer.field("x-picker-served"),
            Some(bed.at(2).as_str()),
            "{play:?}"
        );
        assert!(*bed.picker.seen.body.lock().unwrap() == body, "all of it");
    }
}

#[test]
fn a_large_body_gets_through_without_its_picker_where_that_may_fail_open() {
    let bed = Bed::impatient(OPEN, "1");
    let body = large(20);
    let gets_through = |what: &str| {
        let answer = post_large(bed.gateway.address, &body);
        assert_eq!(answer.status, 200, "{what} {answer:?}");
        let got = bed.servers.iter().find(|one| one.requests.load(SeqCst) > 0);
        let got = got.unwrap();
        assert!(*got.body.lock().unwrap() == body, "{what}: other bytes");
        got.requests.store(0, SeqCst);
        got.body.lock().unwrap().clear();
    };
    for play in [Play::Hang, Play::Close, Play::Fail("14")] {
        bed.picker.plays(play.clone());
        gets_through(&format!("{play:?}"));
    }
    assert_eq!(bed.asked("failed_open"), 3.0);
    // And with nobody there at all.
    let dead = crate::gateway::free_address();
    let addresses: Vec<SocketAddr> = bed.servers.iter().map(|one| one.address).collect();
    bed.gateway.apply(&manifests(&[dead], &addresses, OPEN));
    gets_through("nobody there");
    bed.gateway.apply(&manifests(&[], &addresses, OPEN));
    gets_through("no address");
    assert_eq!(bed.asked("failed_open"), 5.0);
}

#[test]
fn failures_of_the_picker_are_503_where_it_must_be_asked() {
    let bed = Bed::impatient("", "0.5");
    let outside = Kept::start("outside");
    for (play, code) in [
        (Play::Hang, "picker_timeout"),
        (Play::Close, "picker_unavailable"),
        (Play::Fail("13"), "picker_unavailable"),
        (Play::Shrug, "picker_unavailable"),
        (Play::Nothing, "picker_no_destination"),
        (Play::Pick(String::new(), By::Both), "picker_no_destination"),
        (
            Play::Pick("two:80".to_owned(), By::Both),
            "picker_no_destination",
        ),
        (
            Play::Pick(outside.address.to_string(), By::Both),
            "picker_no_destination",
        ),
    ] {
        // Not held for broken by what was before.
        bed.plays_pick(0);
        wait_until(|| bed.post("hello").status == 200);
        let before = bed.requests();
        bed.picker.plays(play.clone());
        for body in ["hello", ""] {
            let answer = bed.post(body);
            assert_eq!(answer.status, 503, "{play:?} {answer:?}");
            assert!(answer.body.contains(code), "{play:?} {}", answer.body);
            assert_eq!(answer.field("x-penstock-phase"), Some("pick"));
            assert!(answer.field("retry-after").is_some());
        }
        assert_eq!(bed.requests(), before, "{play:?}: a server was asked");
    }
    assert_eq!(outside.connections.load(SeqCst), 0, "and nobody outside");
    assert!(bed.asked("failed_closed") >= 16.0);
}

#[test]
fn the_built_in_picker_chooses_where_a_picker_may_fail_open() {
    let bed = Bed::impatient(OPEN, "0.5");
    let outside = Kept::start("outside");
    let plays = [
        Play::Hang,
        Play::Close,
        Play::Fail("13"),
        Play::Shrug,
        Play::Nothing,
        Play::Pick(outside.address.to_string(), By::Both),
    ];
    for play in &plays {
        bed.picker.plays(play.clone());
        assert_eq!(bed.post("hello").status, 200, "{play:?}");
    }
    assert_eq!(bed.requests(), plays.len());
    assert_eq!(outside.connections.load(SeqCst), 0);
    assert_eq!(bed.asked("failed_open"), plays.len() as f64);
    assert_eq!(bed.asked("picked"), 0.0);
}

#[test]
fn the_pickers_own_answer_is_one_in_both_modes_and_phases() {
    for mode in ["", OPEN] {
        let bed = Bed::new(mode);
        for status in [429, 503] {
            bed.picker.plays(Play::Refuse(status, "no room"));
            for body in ["hello", ""] {
                let answer = bed.post(body);
                assert_eq!(answer.status, status as u16, "{answer:?}");
                assert_eq!(answer.body, "no room");
                assert_eq!(answer.field("x-why"), Some("picker"));
            }
        }
        assert_eq!(bed.requests(), 0);
        assert_eq!(bed.asked("answered"), 4.0);
        bed.picker.plays(Play::RefuseResponse(bed.at(0), 503));
        let answer = bed.post("hello");
        assert_eq!((answer.status, answer.body.as_str()), (503, "not this one"));
        assert_eq!(bed.requests(), 1);
        // While the server computes.
        bed.picker.plays(Play::Evict(bed.at(0), 429));
        let answer = post(bed.gateway.address, "/hang", "hello");
        assert_eq!((answer.status, answer.body.as_str()), (429, "evicted"));
        // The connection to the client goes on.
        let mut stream = connect(bed.gateway.address);
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        bed.picker.plays(Play::Refuse(429, "no"));
        for _ in 0..2 {
            stream
                .write_all(request(PATH, "x", &[]).as_bytes())
                .unwrap();
            assert_eq!(read_answer(&mut reader).unwrap().status, 429);
        }
    }
}

#[test]
fn the_list_is_walked_where_nobody_is_there_and_the_picker_is_asked_once() {
    let picker = Picker::start(Play::Hang);
    let (one, two) = (Kept::start("one"), Kept::start("two"));
    let dead: Vec<SocketAddr> = (0..4).map(|_| crate::gateway::free_address()).collect();
    let mut members = dead.clone();
    members.extend([one.address, two.address]);
    let gateway = Configured::start(&manifests(&[picker.address], &members, ""));
    let outside = Kept::start("outside");
    let mut list: Vec<String> = dead.iter().map(ToString::to_string).collect();
    list.insert(2, outside.address.to_string());
    list.push(two.address.to_string());
    list.push(one.address.to_string());
    picker.plays(Play::Pick(list.join(","), By::Both));
    let answer = post(gateway.address, PATH, "hello");
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "two"),
        "{answer:?}"
    );
    assert_eq!(
        answer.field("x-picker-served"),
        Some(two.address.to_string().as_str())
    );
    assert_eq!(picker.conversations(), 1);
    assert_eq!(one.requests.load(SeqCst), 0);
    assert_eq!(outside.connections.load(SeqCst), 0, "never connected to");
    // A list without anybody ends with the last failure.
    picker.plays(Play::Pick(dead[0].to_string(), By::Both));
    let answer = post(gateway.address, PATH, "hello");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("connect_failed"), "{}", answer.body);
    assert_eq!(picker.conversations(), 2);
    assert_eq!(one.requests.load(SeqCst), 0, "not balanced silently");
    // The picker learns of the failure while the client's connection goes on.
    let mut stream = connect(gateway.address);
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    stream
        .write_all(request(PATH, "x", &[]).as_bytes())
        .unwrap();
    assert_eq!(read_answer(&mut reader).unwrap().status, 503);
    wait_until(|| picker.seen.ends.lock().unwrap().len() == 3);
    drop(stream);
}

#[test]
fn a_picker_that_leaves_after_the_pick_changes_nothing() {
    let bed = Bed::new("");
    for play in [
        Play::Leave(bed.at(1)),
        Play::FailLater(bed.at(1)),
        Play::Mute(bed.at(1)),
    ] {
        bed.picker.plays(play.clone());
        for body in ["hello", ""] {
            let answer = bed.post(body);
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (200, "two"),
                "{play:?}"
            );
        }
    }
}

#[test]
fn a_response_that_is_cut_is_cut_for_client_and_picker() {
    let bed = Bed::new("");
    bed.plays_pick(0);
    let mut stream = connect(bed.gateway.address);
    stream
        .write_all(request("/cut", "hello", &[]).as_bytes())
        .unwrap();
    assert!(
        read_answer(&mut BufReader::new(stream)).is_none(),
        "not whole"
    );
    wait_until(|| bed.ends() == [End::Reset]);
    // A client that leaves is told to the picker the same way.
    let mut stream = connect(bed.gateway.address);
    stream
        .write_all(request("/hang", "hello", &[]).as_bytes())
        .unwrap();
    wait_until(|| bed.servers[0].requests.load(SeqCst) == 2);
    drop(stream);
    wait_until(|| bed.ends() == [End::Reset, End::Reset]);
    bed.picker.plays(Play::Hang);
    let mut stream = connect(bed.gateway.address);
    stream
        .write_all(request(PATH, "hello", &[]).as_bytes())
        .unwrap();
    wait_until(|| bed.picker.conversations() == 3);
    drop(stream);
    wait_until(|| bed.ends().len() == 3);
}

#[test]
fn a_picker_that_is_silent_is_passed_over_for_a_while_and_used_again() {
    let bed = Bed::impatient(OPEN, "0.3");
    for _ in 0..3 {
        assert_eq!(bed.post("hello").status, 200);
    }
    let asked = bed.picker.conversations();
    for _ in 0..20 {
        assert_eq!(bed.post("hello").status, 200);
    }
    let more = bed.picker.conversations() - asked;
    assert!(more <= 2, "{more} of 20 asked a picker that is silent");
    bed.plays_pick(1);
    wait_until(|| {
        bed.post("hello");
        bed.asked("picked") > 0.0
    });
}

#[test]
fn of_several_pickers_those_are_asked_that_are_there_and_serve() {
    let pickers = [Picker::start(Play::Hang), Picker::start(Play::Hang)];
    let server = Kept::start("one");
    let dead = crate::gateway::free_address();
    let addresses = [pickers[0].address, dead, pickers[1].address];
    let gateway = Configured::start(&manifests(&addresses, &[server.address], ""));
    for picker in &pickers {
        picker.plays(Play::Pick(server.address.to_string(), By::Both));
    }
    for _ in 0..30 {
        assert_eq!(post(gateway.address, PATH, "hello").status, 200);
    }
    assert!(pickers.iter().all(|picker| picker.conversations() > 3));
    // One says that it does not serve.
    pickers[0].serves(false);
    wait_until(|| {
        let before = pickers[0].conversations();
        for _ in 0..6 {
            assert_eq!(post(gateway.address, PATH, "hello").status, 200);
        }
        pickers[0].conversations() == before
    });
    assert!(pickers[0].seen.checks.load(SeqCst) > 0);
    pickers[0].serves(true);
    let before = pickers[0].conversations();
    wait_until(|| {
        post(gateway.address, PATH, "hello");
        pickers[0].conversations() > before
    });
}

#[test]
fn pickers_are_reached_in_the_clear_or_verified_where_that_is_said() {
    let server = Kept::start("one");
    let play = Play::Pick(server.address.to_string(), By::Both);
    let plain = Picker::plain(play.clone());
    let text = manifests(&[plain.address], &[server.address], "");
    let gateway = Configured::start(&text.replace("http2", "kubernetes.io/h2c"));
    assert_eq!(post(gateway.address, PATH, "hello").body, "one");
    // Without that word TLS is spoken, and never anything else.
    gateway.apply(&text);
    assert_eq!(post(gateway.address, PATH, "hello").status, 503);

    let authority = Authority::new();
    let own = authority.sign(&["epp.example"]);
    let proving = Picker::proving(play, &authority, &own);
    let policy = |host: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
            metadata: {{name: epp}}\nspec:\n  targetRefs: [{{group: '', kind: Service, name: epp}}]\n  \
            validation: {{hostname: {host}, caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}\n"
        )
    };
    let base = manifests(&[proving.address], &[server.address], "");
    gateway.apply(&(base.clone() + &policy("epp.example") + &authority.config_map("ca")));
    assert_eq!(post(gateway.address, PATH, "hello").body, "one");
    let config = gateway.config();
    let statuses = config["statuses"].as_array().unwrap();
    let policy_status = statuses
        .iter()
        .find(|one| one["kind"] == "BackendTLSPolicy");
    let conditions = policy_status.unwrap()["parents"][0]["conditions"].to_string();
    assert!(
        conditions.contains("Accepted") && !conditions.contains("False"),
        "{conditions}"
    );
    gateway.apply(&(base.clone() + &policy("other.example") + &authority.config_map("ca")));
    let answer = post(gateway.address, PATH, "hello");
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("tls handshake failed"),
        "{}",
        answer.body
    );
    let foreign = Authority::new();
    gateway.apply(&(base.clone() + &policy("epp.example") + &foreign.config_map("ca")));
    assert_eq!(post(gateway.address, PATH, "hello").status, 503);
    // A policy that cannot be used is no reason to trust anybody.
    gateway.apply(&(base + &policy("epp.example")));
    let answer = post(gateway.address, PATH, "hello");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("cannot be used"), "{}", answer.body);
}

#[test]
fn members_that_are_held_for_broken_are_left_out_of_the_subset() {
    let picker = Picker::start(Play::Hang);
    let (one, two) = (Kept::start("one"), Kept::start("two"));
    let dead = crate::gateway::free_address();
    let members = [dead, one.address, two.address];
    let gateway = Configured::start(&manifests(&[picker.address], &members, ""));
    picker.plays(Play::Pick(one.address.to_string(), By::Both));
    assert_eq!(post(gateway.address, PATH, "hello").status, 200);
    assert!(picker.seen.subset.lock().unwrap().is_empty(), "all of them");
    picker.plays(Play::Pick(dead.to_string(), By::Both));
    let told = || picker.seen.subset.lock().unwrap().clone();
    wait_until(|| {
        post(gateway.address, PATH, "hello");
        !told().is_empty()
    });
    let mut told = told();
    told.sort();
    let mut rest = [one.address.to_string(), two.address.to_string()];
    rest.sort();
    assert_eq!(told, rest);
}

#[test]
fn each_gateway_asks_or_passes_over_pickers_for_itself() {
    let picker = Picker::start(Play::Refuse(429, "no"));
    let server = Kept::start("one");
    let other = crate::gateway::free_address();
    let own = format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: own}}\nspec:\n  \
        gatewayClassName: penstock\n  addresses: [{{value: 127.0.0.1}}]\n  \
        infrastructure: {{parametersRef: {{group: penstock.dev, kind: GatewayParameters, name: own}}}}\n  \
        listeners: [{{name: http, port: {}, protocol: HTTP}}]\n\
        ---\napiVersion: penstock.dev/v1alpha1\nkind: GatewayParameters\nmetadata: {{name: own}}\nspec: {{picker: BuiltIn}}\n",
        other.port()
    );
    let text = manifests(&[picker.address], &[server.address], "");
    let both = text.replace(
        "parentRefs: [{name: gw}]",
        "parentRefs: [{name: gw}, {name: own}]",
    );
    let gateway = Configured::start(&(both + &own));
    assert_eq!(post(gateway.address, PATH, "hello").status, 429);
    assert_eq!(post(other, PATH, "hello").body, "one");
    assert_eq!(picker.conversations(), 1);
}

#[test]
fn the_route_waits_no_longer_for_a_pick_than_for_anything_else() {
    let bed = Bed::new(OPEN);
    let addresses: Vec<SocketAddr> = bed.servers.iter().map(|one| one.address).collect();
    let text = manifests(&[bed.picker.address], &addresses, OPEN);
    let text = text.replace("rules: [{", "rules: [{timeouts: {request: 300ms}, ");
    bed.gateway.apply(&text);
    let begun = Instant::now();
    let answer = bed.post("hello");
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(answer.body.contains("request_timeout"), "{}", answer.body);
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "not the pick's own time"
    );
}

#[test]
fn trailers_come_through_to_the_client_and_to_the_picker() {
    let (server, _) = grpc::server(100);
    let picker = Picker::start(Play::Pick(server.to_string(), By::Both));
    let text = manifests(&[picker.address], &[server], "");
    let text = text.replace(
        "endpointPickerRef",
        "appProtocol: kubernetes.io/h2c, endpointPickerRef",
    );
    let gateway = Configured::start(&text);
    let client = Http2::connect(gateway.address);
    for path in ["/echo/one", "/echo/stream"] {
        let open = client.begin(grpc::call_of(path), grpc::MESSAGE).open();
        assert_eq!(open.fields["x-picker-served"], server.to_string());
        grpc::ends_well(open, if path == "/echo/one" { 1 } else { 3 });
    }
    // The picker never says anything to trailers, and nobody waits for that.
    let ends = || picker.seen.ends.lock().unwrap().clone();
    wait_until(|| ends() == [End::Well, End::Well]);
    let trailers = picker.seen.trailers.lock().unwrap().clone();
    assert_eq!(field(&trailers, "x-spent").as_deref(), Some("7"));
    // Failures are told as gRPC tells them.
    picker.plays(Play::Refuse(429, "no room"));
    let failed = client
        .begin(grpc::call_of("/echo/one"), grpc::MESSAGE)
        .open();
    assert_eq!(failed.fields["grpc-status"], "8");
    assert_eq!(failed.fields["grpc-message"], "no room");
}

#[test]
fn a_stream_goes_on_whatever_its_picker_does_and_ends_as_it_should() {
    let (_server, server) = crate::gateway::mock(&["--model", "llama"]);
    let picker = Picker::start(Play::Hang);
    let gateway = Configured::start(&manifests(&[picker.address], &[server], ""));
    let chat = r#"{"model":"llama","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    for play in [
        Play::Pick(server.to_string(), By::Metadata),
        Play::Leave(server.to_string()),
        Play::FailLater(server.to_string()),
        Play::Mute(server.to_string()),
    ] {
        picker.plays(play.clone());
        let answer = post(gateway.address, "/v1/chat/completions", chat);
        assert_eq!(answer.status, 200, "{play:?} {answer:?}");
        assert!(
            answer.body.ends_with("data: [DONE]\n\n"),
            "{play:?} {answer:?}"
        );
    }
    let why = crate::gateway::get(gateway.admin, "/debug/decisions").unwrap();
    assert!(why.body.contains("\"assigned\":true"), "{}", why.body);
}
