//! HTTP/2 with clients: on the same port as HTTP/1.1, and the same promises.

use crate::configured::{Configured, GATEWAY, route, service};
use crate::gateway::{Gateway, connect, wait_until};
use crate::over2::{Http2, PREFACE, block, frame, post, read_frame, soon};
use crate::servers::{CHAT, Server, chat, json};
use http::Request;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[test]
fn both_versions_are_told_apart_on_one_port() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    gateway.knows(&["llama"]);
    let old = crate::gateway::get(gateway.address, "/v1/models").unwrap();
    let new = Http2::connect(gateway.address).get("/v1/models");
    assert_eq!((old.status, &old.body), (new.status, &new.body));
    // However the preface is cut, and with the first request right behind it.
    for piece in [1, 3, 10, 23, 60] {
        let mut stream = connect(gateway.address);
        let mut all = PREFACE.to_vec();
        all.extend(frame(4, 0, 0, b""));
        all.extend(frame(1, 5, 1, &block(&crate::over2::GET)));
        for part in all.chunks(piece) {
            stream.write_all(part).unwrap();
        }
        let mut data = 0;
        while data == 0 {
            let (kind, _, id, payload) = read_frame(&mut stream).expect("an answer");
            data = usize::from(kind == 0 && id == 1) * payload.len();
        }
        assert_eq!(data, old.body.len(), "in pieces of {piece}");
    }
}

#[test]
fn answers_streams_and_errors_are_the_same() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let client = Http2::connect(gateway.address);
    let whole = client.post(CHAT, &chat("llama", "hello", 3, false));
    assert_eq!(whole.status, 200, "{whole:?}");
    assert_eq!(json(&whole.body)["usage"]["completion_tokens"], 3);
    for name in [
        "x-request-id",
        "x-penstock-endpoint",
        "x-penstock-decision",
        "x-penstock-overhead-us",
        "content-length",
    ] {
        assert!(whole.field(name).is_some(), "{name}: {whole:?}");
    }
    assert_eq!(whole.field("connection"), None);
    let stream = client.post(CHAT, &chat("llama", "hello", 3, true));
    assert!(stream.body.ends_with("data: [DONE]\n\n"), "{stream:?}");
    let unknown = client.post(CHAT, &chat("lama", "hello", 3, true));
    assert_eq!(unknown.status, 404);
    assert_eq!(json(&unknown.body)["error"]["code"], "model_not_found");
    let messages = client.post("/v1/messages", &chat("lama", "hello", 3, true));
    assert_eq!(json(&messages.body)["type"], "error", "{messages:?}");
    let refused = client.post(CHAT, "{\"model\":1}");
    assert_eq!(refused.status, 400);
    assert!(json(&refused.body)["error"]["message"].is_string());
    gateway.is_quiet();
}

#[test]
fn requests_share_a_connection() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let client = Http2::connect(gateway.address);
    let body = chat("llama", "hello", 3, true);
    let begun: Vec<_> = (0..50)
        .map(|_| client.begin(post(CHAT), body.as_bytes()))
        .collect();
    for begun in begun {
        let answer = begun.open().whole().unwrap();
        assert!(answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    }
    assert_eq!(server.count(), 50);
    gateway.is_quiet();
}

#[test]
fn a_client_that_resets_its_stream_or_leaves_frees_the_server() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    server.slow(100.0);
    let client = Http2::connect(gateway.address);
    for stream in [true, false] {
        let body = chat("llama", "hello", 2000, stream);
        let begun = client.begin(post(CHAT), body.as_bytes());
        wait_until(|| server.running() == 1);
        begun.reset();
        wait_until(|| server.running() == 0);
        assert_eq!(
            server.received().pop().unwrap().end.as_deref(),
            Some("left")
        );
    }
    server.slow(5.0);
    let mut open = client.open(CHAT, &chat("llama", "hello", 5000, true));
    assert!(open.piece().is_some());
    open.reset();
    wait_until(|| server.running() == 0);
    // The connection goes on, and its end ends all that is on it.
    let kept: Vec<_> = (0..3)
        .map(|_| client.open(CHAT, &chat("llama", "hello", 5000, true)))
        .collect();
    wait_until(|| server.running() == 3);
    drop((client, kept));
    wait_until(|| server.running() == 0);
    gateway.is_quiet();
    let gone = gateway.metric_with("penstock_requests_total", "client_gone");
    assert_eq!(gone, 6.0);
}

#[test]
fn failures_are_tried_elsewhere_and_cuts_are_told() {
    let servers: [Server; 2] = Server::llamas();
    let gateway = Gateway::over(&[&servers[0], &servers[1]]);
    servers[0].fault("refuse");
    let client = Http2::connect(gateway.address);
    for _ in 0..4 {
        let answer = client.post(CHAT, &chat("llama", "hello", 3, true));
        assert!(answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    }
    for server in &servers {
        server.cure();
        server.fault("reset:after=2");
    }
    let cut = client.post(CHAT, &chat("llama", "hello", 30, true));
    assert!(cut.body.contains("\"stream_cut\""), "{cut:?}");
    assert!(!cut.body.contains("[DONE]"), "{cut:?}");
    gateway.is_quiet();
}

/// A server that writes without end, and how much it could write.
fn endless(head: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let written = Arc::<AtomicUsize>::default();
    let counter = written.clone();
    let serve = move |mut stream: TcpStream| {
        let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
        let _ = stream.write_all(head.as_bytes());
        while let Ok(count) = stream.write(&[b'x'; 16 << 10]) {
            counter.fetch_add(count, Relaxed);
        }
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    (address, written)
}

#[test]
fn a_short_body_is_reset_and_not_taken_for_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        }
    });
    let gateway = web(address);
    let client = Http2::connect(gateway.address);
    let request = Request::get("http://test/file").body(()).unwrap();
    let answered = client.begin(request, b"").answered();
    let cut = answered.and_then(crate::over2::Open2::whole).unwrap_err();
    assert_eq!(cut.reason(), Some(h2::Reason::INTERNAL_ERROR), "{cut}");
}

/// What a client begins with and does not go on, each with how it ends where that can be told.
#[test]
fn beginnings_that_do_not_go_on_end_in_time() {
    let server = Server::llama();
    let limits = ["--limit", "head=300ms", "--limit", "keep-alive=300ms"];
    let endpoint = format!("http://{}", server.address);
    let gateway = Gateway::run(&[&["--endpoint", &endpoint], &limits[..]].concat());
    let settings = frame(4, 0, 0, b"");
    let block = block(&crate::over2::GET);
    let with = |more: &[&[u8]]| [PREFACE, &more.concat()].concat();
    let cases = [
        ("a byte of the preface", PREFACE[..1].to_vec()),
        ("half a preface", PREFACE[..12].to_vec()),
        ("a line of it", PREFACE[..18].to_vec()),
        ("all but its last byte", PREFACE[..23].to_vec()),
        ("no settings", PREFACE.to_vec()),
        ("half a frame of settings", with(&[&settings[..5]])),
        ("no request", with(&[&settings])),
        (
            "a head without end",
            with(&[&settings, &frame(1, 1, 1, &block)]),
        ),
        (
            "a head that ends in a continuation",
            with(&[&settings, &frame(1, 1, 1, &block), &frame(9, 0, 1, b"")]),
        ),
        (
            "half a frame of a head",
            with(&[&settings, &frame(1, 5, 1, &block)[..20]]),
        ),
    ];
    std::thread::scope(|scope| {
        for (name, bytes) in &cases {
            let address = gateway.address;
            scope.spawn(move || {
                let mut stream = connect(address);
                stream.write_all(bytes).unwrap();
                let begun = std::time::Instant::now();
                let read = std::io::copy(&mut stream, &mut std::io::sink());
                let took = begun.elapsed();
                // Twice a limit and the time for a farewell, with slack; without, far longer.
                let is_in_time = took < std::time::Duration::from_secs(9);
                assert!(read.is_ok() && is_in_time, "{name}: {read:?} {took:?}");
            });
        }
    });
    wait_until(|| gateway.metric("penstock_connections_open") == 0.0);
    assert_eq!(server.count(), 0);
}

fn web(address: SocketAddr) -> Configured {
    Configured::start(&format!(
        "{GATEWAY}{}{}",
        route("web", "rules: [{backendRefs: [{name: web, port: 80}]}]"),
        service("web", &[address])
    ))
}

#[test]
fn a_client_that_does_not_read_holds_back_its_server() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n";
    let (address, written) = endless(head);
    let gateway = web(address);
    let client = Http2::connect(gateway.address);
    let request = Request::get("http://test/endless").body(()).unwrap();
    let mut open = client.begin(request.clone(), b"").open();
    // What sockets hold is what it may write: it stops.
    let stopped = || {
        let before = written.load(Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(300));
        before == written.load(Relaxed) && before > 0
    };
    wait_until(stopped);
    let held = written.load(Relaxed);
    assert!(held < 24 << 20, "{held} bytes under way");
    // Another stream of the same connection is served meanwhile, and reading goes on.
    let mut other = client.begin(request, b"").open();
    assert!(other.piece().is_some());
    other.reset();
    for _ in 0..200 {
        open.piece().unwrap().unwrap();
    }
    wait_until(|| written.load(Relaxed) > held);
}

#[test]
fn a_listener_that_goes_says_goodbye_and_lets_streams_end() {
    let server = Server::llama();
    let text = |listeners: &str| {
        let gateway = GATEWAY.replace("{name: http, port: PORT, protocol: HTTP}", listeners);
        let rest = format!(
            "rules: [{{backendRefs: [{}]}}]",
            crate::configured::to_pool("llama")
        );
        let pool = crate::configured::pool("llama", "", &[server.address]);
        format!("{gateway}{}{pool}", route("all", &rest))
    };
    let gateway = Configured::start(&text("{name: http, port: PORT, protocol: HTTP}"));
    let client = Http2::connect(gateway.address);
    let idle = Http2::connect(gateway.address);
    assert_eq!(idle.get("/v1/models").status, 200);
    server.slow(5.0);
    let mut open = client.open(CHAT, &chat("llama", "hello", 20, true));
    assert!(open.piece().is_some());
    let other = crate::gateway::free_address().port();
    gateway.apply(&text(&format!(
        "{{name: http, port: {other}, protocol: HTTP}}"
    )));
    idle.end().unwrap();
    let refused = soon(async {
        let mut sender = client.sender.clone();
        loop {
            // The goodbye may be under way.
            match sender.ready().await {
                Ok(ready) => sender = ready,
                Err(error) => return error,
            }
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    assert!(
        refused.is_go_away() || refused.reason().is_some(),
        "{refused}"
    );
    let rest = String::from_utf8(open.rest().unwrap()).unwrap();
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    client.end().unwrap();
}

#[test]
fn hosts_and_heads_are_as_strict_as_elsewhere() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let client = Http2::connect(gateway.address);
    let request = Request::get("http://test/v1/models");
    let request = request.header("host", "other").body(()).unwrap();
    let answer = client.begin(request, b"").open();
    assert_eq!(answer.status, 400, "two hosts");
    let request = Request::get("http://test/v1/models");
    let request = request.header("host", "test").body(()).unwrap();
    assert_eq!(
        client.begin(request, b"").open().status,
        200,
        "twice the same"
    );
    let head = Request::head("http://test/v1/nothing").body(()).unwrap();
    let head = client.begin(head, b"").open();
    assert!(head.ended_with_head, "{head:?}");
    let mut large = Request::get("http://test/v1/models");
    for n in 0..120 {
        large = large.header(format!("x-{n}"), "y");
    }
    let large = client.begin(large.body(()).unwrap(), b"").open();
    assert_eq!(large.status, 431);
    let huge = Request::get("http://test/v1/models").header("x-big", "y".repeat(40 << 10));
    let huge = client.begin(huge.body(()).unwrap(), b"").open();
    assert_eq!(huge.status, 431);
    assert_eq!(
        client.get("/v1/models").status,
        200,
        "the connection goes on"
    );
}

#[test]
fn errors_to_head_have_no_body_in_any_version() {
    let gateway = Configured::start(GATEWAY);
    let mut stream = connect(gateway.address);
    let ask = |method: &str| format!("{method} /nothing HTTP/1.1\r\nhost: test\r\n\r\n");
    let both = ask("HEAD") + &ask("GET");
    stream.write_all(both.as_bytes()).unwrap();
    let mut reader = std::io::BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    }
    let second = crate::gateway::read_answer(&mut reader).unwrap();
    assert_eq!(json(&second.body)["error"]["code"], "no_route");
    let client = Http2::connect(gateway.address);
    let head = Request::head("http://test/nothing").body(()).unwrap();
    let head = client.begin(head, b"").open();
    assert!(head.ended_with_head && head.status == 404, "{head:?}");
    assert_eq!(
        json(&client.get("/nothing").body)["error"]["code"],
        "no_route"
    );
}

#[test]
fn clients_that_know_no_chunks_get_none() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
            );
        }
    });
    let gateway = web(address);
    let mut stream = connect(gateway.address);
    stream
        .write_all(b"GET /x HTTP/1.0\r\nhost: test\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stream, &mut text).unwrap();
    assert!(text.ends_with("\r\n\r\nhello world"), "{text}");
    assert_eq!(
        Http2::connect(gateway.address).get("/x").body,
        "hello world"
    );
}
