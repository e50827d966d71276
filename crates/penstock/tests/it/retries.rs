//! Other endpoints for requests that failed, and endpoints that fail: tried little, used again soon.

use crate::gateway::{Gateway, post, wait_until};
use crate::servers::{CHAT, Open, Server, chat, sent};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

fn ask(gateway: &Gateway, stream: bool) -> u16 {
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 2, stream));
    if answer.status == 200 && stream {
        assert!(answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    }
    answer.status
}

#[test]
fn a_few_failures_are_invisible() {
    for fault in [
        "500:count=2",
        "503:count=2",
        "429:count=2",
        "refuse:count=3",
        "dead:count=3",
    ] {
        let [one, two] = Server::llamas();
        let gateway = Gateway::over(&[&one, &two]);
        gateway.knows(&["llama"]);
        one.fault(fault);
        for number in 0..8 {
            assert_eq!(ask(&gateway, number % 2 == 0), 200, "{fault}");
        }
    }
}

#[test]
fn no_request_is_tried_more_than_three_times() {
    let servers: [Server; 4] = Server::llamas();
    let gateway = Gateway::over(&servers.each_ref());
    for server in &servers {
        server.fault("500");
    }
    assert_eq!(ask(&gateway, true), 500);
    let tries: usize = servers.iter().map(Server::count).sum();
    assert_eq!(tries, 3);
    for server in &servers {
        server.cure();
        server.forget();
        server.fault("refuse");
    }
    assert!(ask(&gateway, false) >= 502);
    let tried = servers.iter().map(Server::count);
    let tried: Vec<usize> = tried.filter(|count| *count > 0).collect();
    assert_eq!(tried.len(), 3, "{tried:?}");
    // The second time on a new connection, where a kept one was closed on it.
    assert!(tried.iter().all(|count| *count <= 2), "{tried:?}");
    assert_eq!(gateway.metric("penstock_endpoint_healthy"), 4.0);
}

/// A server that answers on connections that it keeps, and goes at once, with its socket, when it
/// sees a request with the word `poison`.
fn mortal(died: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let mut open: Vec<TcpStream> = Vec::new();
        let mut part = [0; 4096];
        loop {
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).unwrap();
                open.push(stream);
            }
            for stream in &mut open {
                let Ok(count) = stream.read(&mut part) else {
                    continue;
                };
                if part[..count].windows(6).any(|at| at == b"poison") {
                    died.fetch_add(1, Relaxed);
                    return;
                }
                if part[..count].ends_with(b"}") {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    address
}

#[test]
fn a_request_that_servers_die_of_reaches_three_at_most() {
    let died = Arc::<AtomicUsize>::default();
    let servers: Vec<SocketAddr> = (0..6).map(|_| mortal(died.clone())).collect();
    let urls = servers.iter().map(|server| format!("http://{server}"));
    let args = urls.flat_map(|url| ["--endpoint".to_owned(), url]);
    let args: Vec<String> = args.collect();
    let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
    // Connections are kept by worker.
    args.extend(["--workers", "1"]);
    let gateway = Gateway::run(&args);
    let mut kept = HashSet::new();
    for _ in 0..200 {
        let answer = post(gateway.address, CHAT, &chat("llama", "hello", 2, false));
        kept.extend(answer.field("x-penstock-endpoint").map(str::to_owned));
    }
    assert_eq!(kept.len(), servers.len());
    let answer = post(gateway.address, CHAT, &chat("llama", "poison", 2, false));
    assert!(answer.status >= 502, "{answer:?}");
    assert_eq!(died.load(Relaxed), 3);
}

#[test]
fn retries_that_repeat_work_stay_within_a_fifth() {
    let [one, two] = Server::llamas();
    let gateway = Gateway::over(&[&one, &two]);
    one.fault("500");
    two.fault("500");
    for _ in 0..60 {
        assert_eq!(ask(&gateway, false), 500);
    }
    let tries = one.count() + two.count();
    // Ten were saved up, then one for five requests.
    assert!((60 + 10..=60 + 10 + 12 + 1).contains(&tries), "{tries}");
}

#[test]
fn nothing_is_tried_again_after_the_first_byte() {
    let [one, two] = Server::llamas();
    let gateway = Gateway::over(&[&one, &two]);
    one.fault("reset:after=1");
    two.fault("reset:after=1");
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 5, true));
    assert!(answer.body.contains("stream_cut"), "{answer:?}");
    assert_eq!(one.count() + two.count(), 1);
    assert_eq!(gateway.metric("penstock_retries_total"), 0.0);
}

/// A route to a Service of two servers, without any pool.
fn service(servers: &[Server; 2]) -> Gateway {
    let mut text = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: penstock
  listeners: [{name: http, protocol: HTTP, port: LISTEN_PORT}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all}
spec:
  parentRefs: [{name: front}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80}]}
"
    .to_owned();
    for (number, server) in servers.iter().enumerate() {
        text.push_str(&format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-{number}, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: {}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
",
            server.address.port()
        ));
    }
    Gateway::documents(&text)
}

#[test]
fn plain_services_are_not_tried_again() {
    let servers: [Server; 2] = Server::llamas();
    let gateway = service(&servers);
    for _ in 0..2 {
        assert_eq!(ask(&gateway, true), 200);
    }
    assert_eq!(servers.each_ref().map(Server::count), [1, 1]);
    for server in &servers {
        server.fault("500");
    }
    for _ in 0..4 {
        assert_eq!(ask(&gateway, true), 500);
    }
    assert_eq!(servers[0].count() + servers[1].count(), 6);
    assert_eq!(gateway.metric("penstock_retries_total"), 0.0);
}

/// The share of a bad server among `requests`, then the time until it is used again once cured.
fn cost_of(fault: &str, requests: usize) -> (usize, Duration) {
    let [bad, good] = Server::llamas();
    let gateway = Gateway::over(&[&bad, &good]);
    gateway.knows(&["llama"]);
    bad.fault(fault);
    for _ in 0..requests {
        assert_eq!(ask(&gateway, true), 200, "{fault}");
    }
    let cost = bad.count();
    assert!(gateway.metric("penstock_endpoint_healthy") < 2.0);
    bad.cure();
    bad.forget();
    let cured = Instant::now();
    wait_until(|| {
        ask(&gateway, true);
        bad.received()
            .iter()
            .any(|one| one.end.as_deref() == Some("complete"))
    });
    let taken = cured.elapsed();
    gateway.is_quiet();
    (cost, taken)
}

#[test]
fn a_server_that_fails_fast_costs_little_and_is_used_again_soon() {
    for fault in ["500", "refuse", "error-event"] {
        let begun = Instant::now();
        let (cost, taken) = cost_of(fault, 60);
        // Three to be held for broken, then a trial now and then.
        let trials = begun.elapsed().as_millis() / 400;
        assert!(cost <= 4 + trials as usize, "{fault}: {cost} of 60");
        assert!(taken < Duration::from_millis(2200), "{fault}: {taken:?}");
    }
}

#[test]
fn when_all_are_bad_requests_are_still_tried() {
    let servers: [Server; 2] = Server::llamas();
    let gateway = Gateway::over(&servers.each_ref());
    for server in &servers {
        server.fault("500");
    }
    for _ in 0..20 {
        assert_eq!(ask(&gateway, false), 500);
    }
    let before = servers[0].count() + servers[1].count();
    assert_eq!(ask(&gateway, false), 500);
    assert!(servers[0].count() + servers[1].count() > before);
    for server in &servers {
        server.cure();
    }
    assert_eq!(ask(&gateway, false), 200);
}

/// Sends one streamed request; what is left of it when no byte came within a second.
fn hangs(gateway: &Gateway) -> Option<TcpStream> {
    let stream = sent(gateway.address, &chat("llama", "hello", 2, true));
    let patience = Some(Duration::from_millis(1000));
    stream.set_read_timeout(patience).unwrap();
    let read = (&stream).read(&mut [0]);
    (!matches!(read, Ok(1))).then_some(stream)
}

#[test]
fn a_server_that_hangs_costs_few_requests_and_is_used_again_soon() {
    let [bad, good] = Server::llamas();
    let gateway = Gateway::over(&[&bad, &good]);
    gateway.knows(&["llama"]);
    bad.fault("hang");
    good.slow(60.0);
    // Patient clients, who would wait for minutes.
    let mut waiting: Vec<TcpStream> = (0..10)
        .map(|number| {
            sent(
                gateway.address,
                &chat("llama", &format!("number {number}"), 3, true),
            )
        })
        .collect();
    wait_until(|| bad.count() + good.count() == 10);
    let hung = bad.count();
    assert!((3..=6).contains(&hung), "{hung}");
    good.slow(1.0);
    // One after the other: the idle server is preferred, the silent one found out.
    let begun = Instant::now();
    let mut served = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        match hangs(&gateway) {
            None => served += 1,
            Some(stream) => waiting.push(stream),
        }
    }
    let lost = bad.count() - hung;
    assert!(
        lost <= 4 && served >= 20 * lost.max(1),
        "{lost} lost, {served} served"
    );
    assert_eq!(gateway.metric("penstock_endpoint_healthy"), 1.0);
    bad.cure();
    bad.forget();
    let cured = Instant::now();
    wait_until(|| {
        ask(&gateway, true);
        bad.received()
            .iter()
            .any(|one| one.end.as_deref() == Some("complete"))
    });
    assert!(
        cured.elapsed() < Duration::from_millis(2200),
        "{:?}",
        cured.elapsed()
    );
    assert_eq!(gateway.metric("penstock_endpoint_healthy"), 2.0);
    drop(waiting);
    gateway.is_quiet();
}

#[test]
fn a_server_that_went_away_in_mid_stream_leaves_nothing_behind() {
    let [one, two] = Server::llamas();
    let gateway = Gateway::over(&[&one, &two]);
    one.slow(20.0);
    two.slow(20.0);
    let mut open: Vec<Open> = (0..4)
        .map(|number| {
            Open::post(
                gateway.address,
                &chat("llama", &format!("number {number}"), 20, true),
            )
        })
        .collect();
    drop(one);
    two.slow(1.0);
    let ends: Vec<String> = open.iter_mut().map(Open::rest).collect();
    let cut = ends
        .iter()
        .filter(|body| body.contains("stream_cut"))
        .count();
    let whole = ends
        .iter()
        .filter(|body| body.ends_with("data: [DONE]\n\n"))
        .count();
    assert_eq!((cut, whole), (2, 2), "{ends:?}");
    gateway.is_quiet();
}
