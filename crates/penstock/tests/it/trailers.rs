//! Trailers of servers of HTTP/2 whose answers tell their length too (checksums, the end of a call),
//! and of servers of HTTP/1.1 that answer in chunks.

use crate::configured::{Configured, GATEWAY, pool, route, service, to_pool};
use crate::gateway::{connect, read_answer, wait_until};
use crate::grpc::{manifests, serve};
use crate::over2::{Http2, Open2};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::future::poll_fn;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

const BODY: &str = "hello";

/// What the test tells the server, and what it saw.
#[derive(Debug, Default)]
struct Between {
    /// What comes late may come.
    released: AtomicBool,
    /// Answers that were reset before their end.
    reset: AtomicUsize,
}

fn server() -> (SocketAddr, Arc<Between>) {
    let between = Arc::<Between>::default();
    let shared = between.clone();
    let address = serve(
        100,
        || {},
        move |request, answer| call(shared.clone(), request, answer),
    );
    (address, between)
}

/// An answer that tells its length, and ends as the path says.
async fn call(
    between: Arc<Between>,
    request: Request<RecvStream>,
    mut answer: SendResponse<Bytes>,
) {
    let path = request.uri().path().to_owned();
    let body = if path == "/empty" { "" } else { BODY };
    let mut head = Response::builder().header("content-length", body.len());
    if path == "/grpc" {
        head = head.header("content-type", "application/grpc");
    }
    let mut send = answer.send_response(head.body(()).unwrap(), false).unwrap();
    let has_body = request.method() != "HEAD" && !body.is_empty();
    if has_body {
        send.send_data(body.into(), path == "/none").unwrap();
    }
    if path == "/none" {
        return;
    }
    while path.starts_with("/late") && !between.released.load(Relaxed) {
        let pause = tokio::time::sleep(Duration::from_millis(5));
        tokio::select! {
            _ = poll_fn(|cx| send.poll_reset(cx)) => {
                between.reset.fetch_add(1, Relaxed);
                return;
            }
            () = pause => {}
        }
    }
    match path.as_str() {
        "/late-end" => send.send_data(Bytes::new(), true).unwrap(),
        "/late-reset" => send.send_reset(Reason::INTERNAL_ERROR),
        _ => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", HeaderValue::from_static("5d41402a"));
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            send.send_trailers(trailers).unwrap();
        }
    }
}

/// Behind a Service and behind a pool.
fn gateways(server: SocketAddr) -> [Configured; 2] {
    let rest = format!("rules: [{{backendRefs: [{}]}}]", to_pool("echo"));
    let pool = pool("echo", ", appProtocol: kubernetes.io/h2c", &[server]);
    [
        Configured::start(&manifests(server)),
        Configured::start(&format!("{GATEWAY}{}{pool}", route("echo", &rest))),
    ]
}

fn ask(client: &Http2, method: &str, path: &str) -> Open2 {
    let request = Request::builder().method(method);
    let request = request.uri(format!("http://test{path}"));
    client.begin(request.body(()).unwrap(), b"").open()
}

#[track_caller]
fn ends_with_trailers(mut open: Open2, body: &str) {
    assert!(open.status == 200 && !open.ended_with_head, "{open:?}");
    assert_eq!(open.rest().unwrap(), body.as_bytes());
    let trailers = open.trailers().expect("trailers");
    assert_eq!(trailers["x-checksum"], "5d41402a");
    assert_eq!(trailers["grpc-status"], "0");
}

#[test]
fn trailers_come_behind_a_body_that_told_its_length() {
    let (address, _) = server();
    for gateway in gateways(address) {
        let client = Http2::connect(gateway.address);
        let open = ask(&client, "GET", "/at-once");
        assert_eq!(open.fields["content-length"], "5");
        ends_with_trailers(open, BODY);
        ends_with_trailers(ask(&client, "POST", "/grpc"), BODY);
        let none = ask(&client, "GET", "/empty");
        assert_eq!(none.fields["content-length"], "0");
        ends_with_trailers(none, "");
        let head = ask(&client, "HEAD", "/at-once");
        assert_eq!(head.fields["content-length"], "5");
        ends_with_trailers(head, "");
        let mut without = ask(&client, "GET", "/none");
        assert_eq!(without.rest().unwrap(), BODY.as_bytes());
        assert_eq!(without.trailers(), None);
    }
}

#[test]
fn trailers_may_come_late_and_the_body_does_not_wait_for_them() {
    let (address, between) = server();
    let gateway = Configured::start(&manifests(address));
    let client = Http2::connect(gateway.address);
    let mut begun = ["/late", "/late-end", "/late-reset"].map(|path| {
        let mut open = ask(&client, "GET", path);
        assert_eq!(open.piece().unwrap().unwrap(), BODY, "{path}");
        open
    });
    // A head that there is no body behind does not wait either.
    let head = ask(&client, "HEAD", "/late");
    between.released.store(true, Relaxed);
    let [late, end, reset] = &mut begun;
    assert!(late.rest().unwrap().is_empty() && end.rest().unwrap().is_empty());
    assert_eq!(late.trailers().unwrap()["x-checksum"], "5d41402a");
    assert_eq!(end.trailers(), None);
    ends_with_trailers(head, "");
    // What its server did not end is not ended for the client.
    let cut = reset.piece().unwrap().unwrap_err();
    assert_eq!(cut.reason(), Some(Reason::INTERNAL_ERROR), "{cut}");
    assert_eq!(between.reset.load(Relaxed), 0);
}

#[test]
fn a_client_that_does_not_wait_for_trailers_frees_the_server() {
    let (address, between) = server();
    let gateway = Configured::start(&manifests(address));
    let client = Http2::connect(gateway.address);
    let mut open = ask(&client, "GET", "/late");
    assert_eq!(open.piece().unwrap().unwrap(), BODY);
    open.reset();
    wait_until(|| between.reset.load(Relaxed) == 1);
}

#[test]
fn a_client_of_http_1_is_not_kept_waiting_for_trailers() {
    let (address, _) = server();
    let gateway = Configured::start(&manifests(address));
    let mut stream = BufReader::new(connect(gateway.address));
    for path in ["/at-once", "/late", "/none"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let answer = read_answer(&mut stream).unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, BODY), "{path}");
        assert_eq!(answer.field("content-length"), Some("5"));
    }
}

/// A server of HTTP/1.1 that answers in chunks: a body, and behind it what the path says.
fn chunked() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || in_chunks(stream));
        }
    });
    address
}

fn in_chunks(stream: std::net::TcpStream) {
    let mut stream = BufReader::new(stream);
    stream.get_ref().set_nodelay(true).unwrap();
    let mut head = String::new();
    while stream.read_line(&mut head).is_ok_and(|count| count > 0) {
        if !head.ends_with("\r\n\r\n") {
            continue;
        }
        let path = head.split(' ').nth(1).unwrap();
        let trailers = match path {
            "/none" => String::new(),
            "/too-long" => format!("x-long: {}\r\n", "x".repeat(8 << 10)),
            "/credentials" => "authorization: x\r\n".to_owned(),
            "/framing" => "content-length: 5\r\n".to_owned(),
            _ => "X-Checksum:  5d41402a \r\nset-cookie: a=b\r\nvary: *\r\n\
                grpc-status: 0\r\nx-checksum: second\r\n"
                .to_owned(),
        };
        let answer = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{BODY}\r\n0\r\n{trailers}\r\n"
        );
        let at_once = if path == "/in-pieces" { 1 } else { 1 << 20 };
        for piece in answer.as_bytes().chunks(at_once) {
            if stream.get_mut().write_all(piece).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        head.clear();
    }
}

#[test]
fn trailers_behind_chunks_of_http_1_come_too() {
    let rest = "rules: [{backendRefs: [{name: web, port: 80}]}]";
    let text = format!(
        "{GATEWAY}{}{}",
        route("web", rest),
        service("web", &[chunked()])
    );
    let gateway = Configured::start(&text);
    let client = Http2::connect(gateway.address);
    for path in ["/at-once", "/in-pieces", "/at-once"] {
        let mut open = ask(&client, "GET", path);
        assert_eq!(open.rest().unwrap(), BODY.as_bytes(), "{path}");
        let trailers = open.trailers().expect("trailers");
        // What must not stand behind a body does not.
        assert_eq!(trailers.len(), 3, "{path} {trailers:?}");
        assert_eq!(trailers["grpc-status"], "0");
        let sums: Vec<_> = trailers.get_all("x-checksum").iter().collect();
        assert_eq!(sums, ["5d41402a", "second"]);
    }
    let mut none = ask(&client, "GET", "/none");
    assert_eq!(none.rest().unwrap(), BODY.as_bytes());
    assert_eq!(none.trailers(), None);
    for path in ["/too-long", "/framing", "/credentials"] {
        let mut open = ask(&client, "GET", path);
        // Refused where nothing of it was sent yet, else cut.
        let is_whole = open.status == 200 && open.rest().is_ok();
        assert!(!is_whole, "{path} {open:?}");
    }
    // Who takes chunks gets them as they came.
    let mut stream = BufReader::new(connect(gateway.address));
    let asked = "GET /at-once HTTP/1.1\r\nhost: test\r\nte: trailers\r\nconnection: te\r\n\r\n";
    stream.get_mut().write_all(asked.as_bytes()).unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"second\r\n\r\n") {
        assert!(stream.read_until(b'\n', &mut text).unwrap() > 0);
    }
}
