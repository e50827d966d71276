//! TLS with clients: certificates by name, both versions of HTTP, client certificates, reloads,
//! and handshakes that stall.

use crate::certificates::{Authority, Certificate, Tls, get, handshake, hello, is, shown};
use crate::configured::{Configured, route, service};
use crate::gateway::{Ends, Gateway, connect, free_address, wait_until};
use crate::measures::measured;
use crate::over2::{Http2, soon};
use crate::scripted;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

/// A Gateway with HTTPS listeners (name, hostname, Secrets) and a route to an echo server.
pub(crate) fn manifests(listeners: &[(&str, &str, &str)], more: &str) -> String {
    let mut text = String::from(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec:\n  \
        gatewayClassName: penstock\n  addresses: [{value: 127.0.0.1}]\n",
    );
    text.push_str(more);
    text.push_str("  listeners:\n");
    for (name, host, secrets) in listeners {
        let host = if host.is_empty() {
            String::new()
        } else {
            format!("hostname: '{host}', ")
        };
        let secrets: Vec<String> = secrets
            .split(' ')
            .map(|name| format!("{{name: {name}}}"))
            .collect();
        let refs = secrets.join(", ");
        text.push_str(&format!(
            "  - {{name: {name}, port: PORT, protocol: HTTPS, {host}tls: {{certificateRefs: [{refs}]}}}}\n"
        ));
    }
    let echo = scripted::echo("web");
    let rules = "rules: [{backendRefs: [{name: web, port: 80}]}]";
    text + &route("web", rules) + &service("web", &[echo])
}

fn opened(connector: &TlsConnector, address: SocketAddr, host: &'static str) -> Tls {
    soon(handshake(connector.clone(), address, host)).unwrap()
}

#[test]
fn each_name_gets_its_certificate_in_both_versions() {
    let authority = Authority::new();
    let a = authority.sign(&["a.example"]);
    let wild = authority.sign(&["*.wild.example"]);
    let (b, c) = (
        authority.sign(&["b.example"]),
        authority.sign(&["c.example"]),
    );
    let listeners = [
        ("a", "a.example", "a"),
        ("wild", "*.wild.example", "wild"),
        ("rest", "", "b c"),
    ];
    let secrets = [("a", &a), ("wild", &wild), ("b", &b), ("c", &c)];
    let secrets = secrets.map(|(name, certificate)| certificate.secret(name));
    let gateway = Configured::start(&(manifests(&listeners, "") + &secrets.concat()));
    let connector = authority.client("http/1.1", None);
    let expected = [
        ("a.example", &a),
        ("x.wild.example", &wild),
        ("b.example", &b),
        ("c.example", &c),
    ];
    for (host, certificate) in expected {
        let mut stream = opened(&connector, gateway.address, host);
        assert!(is(certificate, &shown(&stream)), "{host}");
        for path in ["/one", "/two"] {
            let answer = soon(get(&mut stream, host, path)).unwrap();
            assert_eq!(answer.status, 200);
            assert!(answer.body.contains(&format!("GET {path} ")), "{answer:?}");
        }
    }
    // A name of nobody: no certificate fits, the client refuses it.
    assert!(soon(handshake(connector.clone(), gateway.address, "z.example")).is_err());
    // HTTP/2 by ALPN; the same connection asked for another listener's host is misdirected.
    let (dial, address) = (authority.client("h2", None), gateway.address);
    let client = Http2::over(async move { handshake(dial, address, "a.example").await.unwrap() });
    for (host, status) in [("a.example", 200), ("b.example", 421), ("a.example", 200)] {
        let request = http::Request::get(format!("https://{host}/x"))
            .body(())
            .unwrap();
        let open = client.begin(request, b"").open();
        assert_eq!(open.status, status, "{host}");
    }
    // Plain HTTP on this port is answered by nobody.
    let plain = crate::gateway::get(gateway.address, "/");
    assert!(plain.is_none(), "{plain:?}");
    let failed = crate::gateway::get(gateway.admin, "/metrics").unwrap().body;
    assert!(
        failed.contains("penstock_tls_handshakes_failed_total"),
        "{failed}"
    );
}

#[test]
fn clients_without_a_certificate_are_turned_away_where_one_is_asked_for() {
    let authority = Authority::new();
    let clients = Authority::new();
    let server = authority.sign(&["a.example"]);
    let tls = "  tls: {frontend: {default: {validation: {caCertificateRefs: \
        [{group: '', kind: ConfigMap, name: clients}]}}}}\n";
    let text = manifests(&[("a", "", "a")], tls) + &server.secret("a");
    let text = text + &clients.config_map("clients");
    let gateway = Configured::start(&text);
    let ask = |own: Option<&Certificate>| {
        let connector = authority.client("http/1.1", own);
        soon(async {
            let mut stream = handshake(connector, gateway.address, "a.example").await?;
            get(&mut stream, "a.example", "/").await
        })
    };
    assert!(ask(None).is_err(), "without one");
    assert!(
        ask(Some(&authority.sign(&["me"]))).is_err(),
        "of another authority"
    );
    assert_eq!(ask(Some(&clients.sign(&["me"]))).unwrap().status, 200);
    // Where it is said so, a client is let in whatever it shows, and the status says that.
    gateway.apply(&text.replace("{caCert", "{mode: AllowInsecureFallback, caCert"));
    assert_eq!(ask(None).unwrap().status, 200);
    assert_eq!(ask(Some(&authority.sign(&["me"]))).unwrap().status, 200);
    let told = gateway.config()["statuses"].to_string();
    assert!(told.contains("InsecureFrontendValidationMode"), "{told}");
    // An authority that cannot be read lets nobody in.
    gateway.apply(&text.replace("name: clients}]}", "name: gone}]}"));
    assert!(ask(Some(&clients.sign(&["me"]))).is_err());
    let told = gateway.condition("Gateway", Some("a"), "Accepted");
    assert!(told.contains("NoValidCACertificate"), "{told}");
}

#[test]
fn a_new_certificate_is_shown_at_once_and_connections_go_on() {
    let authority = Authority::new();
    let (old, new) = (
        authority.sign(&["a.example"]),
        authority.sign(&["a.example"]),
    );
    let listeners = [("a", "a.example", "a")];
    let base = manifests(&listeners, "");
    let gateway = Configured::start(&(base.clone() + &old.secret("a")));
    let connector = authority.client("http/1.1", None);
    let mut before = opened(&connector, gateway.address, "a.example");
    assert!(is(&old, &shown(&before)));
    gateway.apply(&(base.clone() + &new.secret("a")));
    // A fresh client: a resumed session shows nothing.
    let fresh = || {
        opened(
            &authority.client("http/1.1", None),
            gateway.address,
            "a.example",
        )
    };
    assert!(is(&new, &shown(&fresh())));
    assert_eq!(
        soon(get(&mut before, "a.example", "/")).unwrap().status,
        200
    );
    // A key that does not fit changes nothing for traffic, and the status tells.
    let mixed = Certificate {
        chain: old.chain.clone(),
        key: new.key.clone(),
    };
    let status = |wanted| gateway.condition("Gateway", Some("a"), wanted);
    let good = ["True/Programmed", "True/ResolvedRefs"];
    let bad = ["False/Invalid", "False/InvalidCertificateRef"];
    for (secret, told) in [(&mixed, bad), (&new, good)] {
        gateway.apply(&(base.clone() + &secret.secret("a")));
        assert!(is(&new, &shown(&fresh())));
        assert_eq!([status("Programmed"), status("ResolvedRefs")], told);
    }
    assert!(
        gateway.log().contains("cannot be used"),
        "{}",
        gateway.log()
    );
}

#[test]
fn certificates_that_cannot_be_used_are_told() {
    let authority = Authority::new();
    let good = authority.sign(&["a.example"]);
    let listeners = [("good", "a.example", "a"), ("bad", "b.example", "gone")];
    let gateway = Configured::start(&(manifests(&listeners, "") + &good.secret("a")));
    let told = gateway.condition("Gateway", Some("bad"), "ResolvedRefs");
    assert!(told.contains("InvalidCertificateRef"), "{told}");
    let connector = authority.client("http/1.1", None);
    let mut stream = opened(&connector, gateway.address, "a.example");
    assert_eq!(
        soon(get(&mut stream, "a.example", "/")).unwrap().status,
        200
    );
}

#[test]
fn handshakes_that_stall_stop_nobody() {
    let authority = Authority::new();
    let good = authority.sign(&["a.example"]);
    let text = manifests(&[("a", "a.example", "a")], "") + &good.secret("a");
    // None is given up before all has been seen.
    let gateway = Configured::start_with(&text, &["--limit", "handshake=5m"]);
    let connector = authority.client("http/1.1", None);
    let mut established = opened(&connector, gateway.address, "a.example");
    let stalled: Vec<_> = (0..300)
        .map(|number| {
            let mut stream = connect(gateway.address);
            if number % 2 == 0 {
                stream.write_all(&[0x16, 3, 1, 2, 0]).unwrap();
            }
            stream
        })
        .collect();
    for _ in 0..20 {
        let answer = soon(get(&mut established, "a.example", "/")).unwrap();
        assert_eq!(answer.status, 200);
        opened(&connector, gateway.address, "a.example");
    }
    drop(stalled);
    let open = || {
        let metrics = crate::gateway::get(gateway.admin, "/metrics").unwrap().body;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("penstock_connections_open"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    wait_until(|| open().is_some_and(|open| open <= 1.0));
}

/// A gateway in which all is on one thread, a client, and a connection that it has.
struct OneWorker {
    gateway: Gateway,
    connector: TlsConnector,
    open: Tls,
    _files: tempfile::TempDir,
}

impl OneWorker {
    fn start() -> Self {
        let authority = Authority::new();
        let good = authority.sign(&["a.example"]);
        let files = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (certificate, key) = (file("cert.pem", &good.chain), file("key.pem", &good.key));
        let text = format!(
            "tls: {{certificate: {certificate}, key: {key}}}\n\
            pools: [{{name: web, endpoints: ['http://{}']}}]\n",
            scripted::echo("web")
        );
        let gateway = Gateway::plain(&text, &[]);
        let connector = authority.client("http/1.1", None);
        let open = opened(&connector, gateway.address, "a.example");
        Self {
            gateway,
            connector,
            open,
            _files: files,
        }
    }
}

/// Handshakes that are ready at the same moment.
const AT_ONCE: usize = 200;

/// Begins handshakes for as long as `goes_on`, so that `AT_ONCE` of them are under way at any time; counts in `computed` those that were answered. Nothing is computed here: whoever floods is
/// faster than who is flooded.
fn floods(address: SocketAddr, hello: &[u8], goes_on: &AtomicBool, computed: &AtomicUsize) {
    let mut clients = std::collections::VecDeque::new();
    while goes_on.load(Relaxed) {
        while clients.len() < AT_ONCE {
            let mut client = connect(address);
            client.write_all(hello).unwrap();
            client.set_nonblocking(true).unwrap();
            clients.push_back(client);
        }
        let begun = clients.len();
        clients.retain(|client| client.peek(&mut [0]).is_err());
        computed.fetch_add(begun - clients.len(), Relaxed);
    }
}

#[test]
fn a_flood_of_handshakes_stops_no_stream() {
    let mut one = OneWorker::start();
    let hello = hello(&one.connector, "a.example");
    let (goes_on, computed) = (AtomicBool::new(true), AtomicUsize::new(0));
    let mut slowest = Duration::ZERO;
    let mut meanwhile = Vec::new();
    std::thread::scope(|scope| {
        let _ends = Ends(&goes_on);
        scope.spawn(|| floods(one.gateway.address, &hello, &goes_on, &computed));
        wait_until(|| computed.load(Relaxed) > AT_ONCE);
        for _ in 0..100 {
            let (asked, before) = (Instant::now(), computed.load(Relaxed));
            let answer = soon(get(&mut one.open, "a.example", "/")).unwrap();
            assert_eq!(answer.status, 200);
            slowest = slowest.max(asked.elapsed());
            meanwhile.push(computed.load(Relaxed) - before);
        }
    });
    // Two or three where handshakes take turns; all that are ready where they do not.
    meanwhile.sort_unstable();
    let median = meanwhile[meanwhile.len() / 2];
    assert!(median <= 20, "{median} handshakes before an answer");
    measured("tls_flood_handshakes", computed.into_inner() as f64);
    measured("tls_flood_slowest_ms", slowest.as_secs_f64() * 1e3);
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

/// How many handshakes were ready when an open stream asked, and how many of them were computed
/// before it had its answer.
fn computed_meanwhile(gateway: &Gateway, hello: &[u8], open: &mut Tls) -> (usize, usize) {
    let (last, begun) = hello.split_last().unwrap();
    let mut clients: Vec<TcpStream> = (0..AT_ONCE)
        .map(|_| {
            let mut client = connect(gateway.address);
            client.set_nodelay(true).unwrap();
            client.write_all(begun).unwrap();
            client
        })
        .collect();
    wait_until(|| gateway.metric("penstock_connections_open") > AT_ONCE as f64);
    for client in &mut clients {
        client.write_all(&[*last]).unwrap();
        client.set_nonblocking(true).unwrap();
    }
    let computed = || {
        let has_answer = |client: &&TcpStream| client.peek(&mut [0]).is_ok();
        clients.iter().filter(has_answer).count()
    };
    let before = computed();
    // The gateway answers this itself.
    let answer = soon(get(open, "a.example", "/v1/models")).unwrap();
    let after = computed();
    assert_eq!(answer.status, 200);
    drop(clients);
    wait_until(|| gateway.metric("penstock_connections_open") <= 1.0);
    (AT_ONCE - before, after - before)
}

#[test]
fn handshakes_that_come_at_once_take_turns_with_streams() {
    let mut one = OneWorker::start();
    let hello = hello(&one.connector, "a.example");
    // A machine that has no time for the client shows nothing: then once more.
    let mut seen = Vec::new();
    let are_few = |(ready, computed): (usize, usize)| ready > AT_ONCE / 2 && computed < ready / 2;
    while seen.len() < 5 && !seen.last().copied().is_some_and(are_few) {
        seen.push(computed_meanwhile(&one.gateway, &hello, &mut one.open));
    }
    assert!(seen.last().copied().is_some_and(are_few), "{seen:?}");
}

#[test]
fn the_plain_form_reads_files_and_follows_them() {
    let authority = Authority::new();
    let (old, new) = (
        authority.sign(&["a.example"]),
        authority.sign(&["a.example"]),
    );
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let (address, admin) = (free_address(), free_address());
    file("cert.pem", &old.chain);
    file("key.pem", &old.key);
    let config = folder.path().join("penstock.yaml");
    let echo = scripted::echo("web");
    let text = format!(
        "listen: {address}\ntls: {{certificate: cert.pem, key: key.pem}}\n\
        pools: [{{name: web, endpoints: ['http://{echo}']}}]\n"
    );
    std::fs::write(&config, text).unwrap();
    let admin_text = admin.to_string();
    let child =
        crate::gateway::penstock(&["run", config.to_str().unwrap(), "--admin", &admin_text])
            .args(["--watch-interval", "1ms", "--workers", "1"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
    let _process = crate::gateway::Running(child);
    wait_until(|| crate::gateway::get(admin, "/readyz").is_some_and(|ready| ready.status == 200));
    let fresh = || opened(&authority.client("http/1.1", None), address, "a.example");
    let mut stream = fresh();
    assert!(is(&old, &shown(&stream)));
    let answer = soon(get(&mut stream, "a.example", "/x")).unwrap();
    assert!(answer.body.contains("GET /x "), "{answer:?}");
    file("cert.pem", &new.chain);
    file("key.pem", &new.key);
    wait_until(|| is(&new, &shown(&fresh())));
}
