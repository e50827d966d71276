//! Configuration that changes all the time: members come and go under load without a request that
//! fails, and thousands of broken edits are refused with their place or applied, while traffic goes
//! on.

use crate::certificates::Authority;
use crate::configured::{Configured, GATEWAY, pool, route, service, to_pool};
use crate::crowd::{CROWD, Draws, Says, sent, server};
use crate::gateway::{Answer, Ends, connect, free_address, get, read_answer, request, wait_until};
use crate::measures::{measured, promised};
use crate::scripted::echo;
use crate::servers::{CHAT, chat, json};
use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// Asks on one connection for as long as `goes_on`; every answer must be whole.
fn keeps_asking(address: SocketAddr, goes_on: &AtomicBool) -> usize {
    let asked = request(CHAT, &chat("llama", "hello", 100, true), &[]);
    let mut stream = BufReader::new(connect(address));
    let mut count = 0;
    while goes_on.load(Relaxed) {
        stream.get_mut().write_all(asked.as_bytes()).unwrap();
        let answer = read_answer(&mut stream).expect("a whole answer");
        let is_whole = answer.status == 200 && answer.body.ends_with("data: [DONE]\n\n");
        assert!(is_whole, "{answer:?}");
        count += 1;
        if answer.field("connection") == Some("close") {
            stream = BufReader::new(connect(address));
        }
    }
    count
}

/// Whether the stream that is asked for ends with its end mark.
async fn is_whole(address: SocketAddr, asked: &str) -> bool {
    let mut stream = sent(address, asked).await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n0\r\n\r\n") && stream.read_buf(&mut text).await.unwrap() > 0 {}
    String::from_utf8(text).unwrap().contains("data: [DONE]")
}

#[test]
fn reloads_under_load_fail_no_request_and_cut_no_stream() {
    // A reload each second in full; shortened, ten a second.
    let every = Duration::from_millis(promised(100, 1_000) as u64);
    let reloads = promised(25, 60);
    let members: [SocketAddr; 4] =
        std::array::from_fn(|_| server(Says::Events(5, Duration::from_millis(2))));
    let more = free_address().port();
    let text = |reload: usize| {
        let two = [members[reload % 4], members[(reload + 1) % 4]];
        let gateway = match reload % 3 {
            0 => GATEWAY.replace(
                "protocol: HTTP}]",
                &format!("protocol: HTTP}}, {{name: more, port: {more}, protocol: HTTP}}]"),
            ),
            _ => GATEWAY.to_owned(),
        };
        let rules = format!(
            "rules: [{{name: r{reload}, backendRefs: [{}]}}]",
            to_pool("chat")
        );
        [gateway, route("chat", &rules), pool("chat", "", &two)].concat()
    };
    let gateway = Configured::start(&text(0));
    let slow = server(Says::Events((reloads as u32 + 5) * 2, every / 2));
    gateway.apply(&text(0).replace(&members[0].port().to_string(), &slow.port().to_string()));
    let asked = request(CHAT, &chat("llama", "hello", 100, true), &[]);
    // Some of these are on a server that is no member any more from the next reload on.
    let long: Vec<_> = (0..20)
        .map(|_| {
            let (address, asked) = (gateway.address, asked.clone());
            CROWD.spawn(async move { is_whole(address, &asked).await })
        })
        .collect();
    wait_until(|| gateway.metric("penstock_connections_open") >= 20.0);
    let goes_on = AtomicBool::new(true);
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let count = keeps_asking(gateway.address, &goes_on);
                answered.fetch_add(count, Relaxed);
            });
        }
        let ends = Ends(&goes_on);
        for reload in 1..=reloads {
            let next = Instant::now() + every;
            gateway.apply(&text(reload));
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        drop(ends);
    });
    let whole = CROWD.block_on(async {
        let mut whole = 0;
        for one in long {
            whole += usize::from(one.await.unwrap());
        }
        whole
    });
    assert_eq!(whole, 20, "streams that were open all the while");
    let answered = answered.into_inner();
    assert!(answered > reloads * 4, "{answered}");
    measured("churn.reloads", reloads as f64);
    measured("churn.requests_none_failed", answered as f64);
}

/// What is mutated: objects of their own beside those that serve.
const VICTIM: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: victim
spec:
  gatewayClassName: penstock
  addresses: [{value: 127.0.0.77}]
  listeners:
  - {name: http, port: VICTIM_PORT, protocol: HTTP, hostname: '*.victim.example'}
  - name: https
    port: SECURE_PORT
    protocol: HTTPS
    hostname: s.victim.example
    tls: {mode: Terminate, certificateRefs: [{kind: Secret, name: victim}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: victim
  labels: {app: x}
spec:
  parentRefs: [{name: victim, sectionName: http}]
  hostnames: [a.victim.example]
  rules:
  - matches:
    - path: {type: PathPrefix, value: /v1}
      headers: [{name: version, value: two}]
      method: GET
    timeouts: {request: 10s, backendRequest: 2s}
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-a, value: b}], remove: [x-c]}
    - type: URLRewrite
      urlRewrite: {hostname: b.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}
    backendRefs:
    - {name: victim, port: 80, weight: 3}
    - {group: inference.networking.k8s.io, kind: InferencePool, name: nobody}
---
apiVersion: v1
kind: Service
metadata: {name: victim}
spec: {ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: nobody}
spec:
  selector: {matchLabels: {app: nobody}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: picker, port: {number: 9002}, failureMode: FailOpen}
---
apiVersion: v1
kind: Service
metadata: {name: picker}
spec: {ports: [{port: 9002, name: grpc, appProtocol: http2}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: picker, labels: {kubernetes.io/service-name: picker}}
addressType: IPv4
ports: [{name: grpc, port: 9}]
endpoints: [{addresses: [127.0.0.77]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: victim}
spec:
  targetRefs:
  - {group: '', kind: Service, name: picker, sectionName: grpc}
  - {group: '', kind: Service, name: victim}
  validation:
    hostname: picker.victim.example
    caCertificateRefs: [{group: '', kind: ConfigMap, name: authority}]
    subjectAltNames: [{type: Hostname, hostname: b.victim.example}]
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: victim}
spec:
  modelName: victim
  criticality: Critical
  poolRef: {name: nobody}
  targetModels: [{name: one, weight: 10}, {name: two, weight: 20}]
---
apiVersion: penstock.dev/v1alpha1
kind: PoolPolicy
metadata: {name: victim}
spec:
  targetRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: nobody}]
  saturationSeconds: 3
  queue: {requests: 200, seconds: 5, bytes: 100000}
";

/// The same of the plain form; the files that it names are there.
const PLAIN: &str = "
listen: 127.0.0.78:VICTIM_PORT
tls:
  certificate: certificate.pem
  key: key.pem
  clientCa: authority.pem
clientCertificate: client.pem
trustInferenceHeaders: true
pools:
- name: plain-one
  endpoints:
  - http://127.0.0.77:9
  models:
  - name: friendly
    criticality: Critical
    targets:
    - {name: llama, weight: 3}
    - {name: other, weight: 1}
  - llama
  profile: leastRequests
  saturationSeconds: 3
  queue: {requests: 100, seconds: 6, bytes: 1000}
  probes: false
- name: plain-two
  endpoints: ['https://127.0.0.77:9']
  ca: authority.pem
";

/// What gets between things that were right.
const BITS: &[&str] = &[
    "",
    " ",
    "\n",
    "\t",
    ":",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "'",
    "\"",
    "&a ",
    "*a",
    "!!str ",
    "|",
    ">",
    "#",
    "---\n",
    "null",
    "true",
    "-1",
    "0",
    "99999999999999999999",
    "1e999",
    "0x10",
    "é",
    "\u{7f}",
    "\u{feff}",
    "%",
    "?",
    "~",
    ",",
    "..",
    "/../",
    "kind: Secret",
    "a: b",
    "<<: *a",
    "9s",
    "\\",
];

/// One of a fixed sequence of broken texts.
fn mutated(draws: &mut Draws, text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..1 + draws.below(3) {
        let at = draws.below(lines.len());
        let other = draws.below(lines.len());
        // Addresses stay: a test must not call on others' machines.
        let is_address = |line: &String| line.contains("127.0.0.");
        match draws.below(7) {
            // Without an address it would listen where others may.
            0 if !lines[at].starts_with("listen") => drop(lines.remove(at)),
            1 => lines.insert(other, lines[at].clone()),
            2 => lines.swap(at, other),
            3 if !is_address(&lines[at]) => {
                let keep = draws.below(lines[at].len());
                lines[at] = lines[at].chars().take(keep).collect();
            }
            4 => lines.truncate(at.max(1)),
            5 if !is_address(&lines[at]) => {
                let bit = BITS[draws.below(BITS.len())];
                let words: Vec<&str> = lines[at].split_inclusive(' ').collect();
                let word = draws.below(words.len());
                let mut changed: Vec<&str> = words.clone();
                if let Some(place) = changed.get_mut(word) {
                    *place = bit;
                }
                lines[at] = changed.concat();
            }
            6 if !is_address(&lines[at]) => {
                let place = draws.below(lines[at].chars().count() + 1);
                let bit = BITS[draws.below(BITS.len())];
                let place = lines[at].char_indices().nth(place);
                let place = place.map_or(lines[at].len(), |(place, _)| place);
                lines[at].insert_str(place, bit);
            }
            _ => {}
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
    lines.join("\n")
}

/// Whether this edit was applied; else it was refused, with a place.
fn is_applied(gateway: &Configured, before: u64, text: &str) -> bool {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let config = gateway.config();
        if let Some(error) = config["refused"].as_array().unwrap().first() {
            let message = error["message"].as_str().unwrap();
            let in_file = error["file"].as_str().unwrap().ends_with(".yaml");
            let has_place = in_file && error["line"].as_u64() > Some(0);
            // A file that cannot be read is told with the place that names it.
            let is_named = message.contains("victim.yaml:") && message.ends_with(" names it");
            assert!(has_place || is_named, "{error}\n{text}");
            assert!(!message.is_empty());
            return false;
        }
        if config["version"].as_u64() > Some(before) {
            return true;
        }
        assert!(
            Instant::now() < until,
            "neither refused nor applied:\n{text}"
        );
    }
}

/// What is mutated in turn; writes the files that it names.
fn victims(gateway: &Configured) -> [String; 3] {
    let authority = Authority::new();
    let own = authority.sign(&["s.victim.example"]);
    gateway.edit_file("certificate.pem", &own.chain);
    gateway.edit_file("key.pem", &own.key);
    gateway.edit_file("client.pem", &[own.chain.as_str(), &own.key].concat());
    gateway.edit_file("authority.pem", &authority.pem());
    let [port, secure] = [(); 2].map(|()| free_address().port().to_string());
    let objects = VICTIM
        .replace("VICTIM_PORT", &port)
        .replace("SECURE_PORT", &secure);
    let secrets = own.secret("victim") + &authority.config_map("authority");
    let plain = PLAIN.replace("VICTIM_PORT", &port);
    // Secrets are long: of their own, so that the others are hit as often.
    [objects.clone(), secrets + &objects, plain]
}

#[test]
fn broken_edits_are_refused_with_a_place_or_applied_and_traffic_goes_on() {
    let edits = promised(150, 5_000);
    let rules = "rules: [{backendRefs: [{name: web, port: 80}]}]";
    let good = [
        GATEWAY.to_owned(),
        route("all", rules),
        service("web", &[echo("web")]),
    ];
    let mut gateway = Configured::start(&good.concat());
    let victims = victims(&gateway);
    let mut draws = Draws(4);
    let (mut refused, mut applied) = (0, 0);
    let goes_on = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let (address, goes_on) = (gateway.address, &goes_on);
        scope.spawn(move || {
            let mut stream = BufReader::new(connect(address));
            while goes_on.load(Relaxed) {
                let asked = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
                stream.get_mut().write_all(asked).unwrap();
                let answer: Answer = read_answer(&mut stream).expect("a whole answer");
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        });
        let _ends = Ends(goes_on);
        for edit in 0..edits {
            let before = gateway.version();
            // What is applied is always new, so that it is seen.
            let mark = format!(
                "\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: e{edit}}}\nspec: {{ports: [{{port: 80}}]}}\n"
            );
            let text = mutated(&mut draws, &victims[edit % victims.len()]) + &mark;
            gateway.edit_file("victim.yaml", &text);
            if is_applied(&gateway, before, &text) {
                applied += 1;
            } else {
                refused += 1;
            }
            assert!(gateway.process.0.try_wait().unwrap().is_none(), "{text}");
            // Each edit is told from the one before.
            gateway.edit_file("victim.yaml", "");
            wait_until(|| gateway.config()["refused"].as_array().unwrap().is_empty());
        }
    });
    assert!(
        refused > edits / 4 && applied > edits / 20,
        "{refused} {applied}"
    );
    measured("churn.edits", (refused + applied) as f64);
    measured("churn.edits_refused_with_a_place", refused as f64);
    measured("churn.edits_applied", applied as f64);
    let version = json(&get(gateway.admin, "/version").unwrap().body);
    assert!(version["configuration"].as_u64().unwrap() > applied as u64);
}
