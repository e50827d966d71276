//! HTTP/2 with servers (`appProtocol: kubernetes.io/h2c`), and gRPC from end to end.

use crate::configured::{Configured, GATEWAY, pool, route, slice, to_pool};
use crate::gateway::wait_until;
use crate::over2::{Http2, Open2};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// What a server saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    connections: AtomicUsize,
    cancelled: AtomicUsize,
    bytes: AtomicUsize,
    running: AtomicUsize,
    /// Calls of gRPC, not the gateway's own looks at models and metrics.
    calls: AtomicUsize,
    fields: Mutex<HeaderMap>,
}

/// A server of gRPC without TLS that takes `streams` at a time on a connection.
pub(crate) fn server(streams: u32) -> (SocketAddr, Arc<Seen>) {
    let seen = Arc::<Seen>::default();
    let (counted, known) = (seen.clone(), seen.clone());
    let connected = move || {
        counted.connections.fetch_add(1, Relaxed);
    };
    let address = serve(streams, connected, move |request, answer| {
        call(known.clone(), request, answer)
    });
    (address, seen)
}

/// A server of HTTP/2 without TLS that answers with `call`.
pub(crate) fn serve<C, F>(
    streams: u32,
    connected: impl Fn() + Send + 'static,
    call: C,
) -> SocketAddr
where
    C: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connected();
                let mut builder = h2::server::Builder::new();
                builder.max_concurrent_streams(streams);
                let call = call.clone();
                tokio::task::spawn_local(async move {
                    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
                        return;
                    };
                    while let Some(Ok((request, answer))) = connection.accept().await {
                        tokio::task::spawn_local(call(request, answer));
                    }
                });
            }
        });
    });
    address
}

async fn call(seen: Arc<Seen>, request: Request<RecvStream>, mut answer: SendResponse<Bytes>) {
    seen.running.fetch_add(1, Relaxed);
    let path = request.uri().path().to_owned();
    seen.calls
        .fetch_add(usize::from(path.starts_with("/echo/")), Relaxed);
    *seen.fields.lock().unwrap() = request.headers().clone();
    let mut incoming = request.into_body();
    let mut body = Vec::new();
    while let Some(Ok(part)) = incoming.data().await {
        body.extend_from_slice(&part);
        let _ = incoming.flow_control().release_capacity(part.len());
    }
    let head = Response::builder().header("content-type", "application/grpc");
    match path.as_str() {
        "/echo/fail" => {
            let head = head
                .header("grpc-status", "5")
                .header("grpc-message", "gone");
            answer.send_response(head.body(()).unwrap(), true).unwrap();
        }
        "/echo/hang" => {
            let _ = poll_fn(|cx| answer.poll_reset(cx)).await;
            seen.cancelled.fetch_add(1, Relaxed);
        }
        "/plain" => {
            let mut send = answer.send_response(Response::new(()), false).unwrap();
            send.send_data(Bytes::from_static(b"plain text"), true)
                .unwrap();
        }
        "/endless" => {
            let mut send = answer.send_response(Response::new(()), false).unwrap();
            while let Some(Ok(window)) = window(&mut send).await {
                seen.bytes.fetch_add(window, Relaxed);
                send.send_data(vec![b'x'; window].into(), false).unwrap();
            }
            seen.cancelled.fetch_add(1, Relaxed);
        }
        _ => {
            if path == "/late" {
                // Longer than a few pings take.
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            }
            let mut send = answer.send_response(head.body(()).unwrap(), false).unwrap();
            for _ in 0..if path == "/echo/stream" { 3 } else { 1 } {
                send.send_data(body.clone().into(), false).unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            let mut trailers = HeaderMap::new();
            if path == "/echo/late-fail" {
                trailers.insert("grpc-status", HeaderValue::from_static("13"));
                trailers.insert("grpc-message", HeaderValue::from_static("broke%20later"));
            } else {
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
            }
            trailers.insert("x-spent", HeaderValue::from_static("7"));
            send.send_trailers(trailers).unwrap();
        }
    }
    seen.running.fetch_sub(1, Relaxed);
}

async fn window(send: &mut SendStream<Bytes>) -> Option<Result<usize, h2::Error>> {
    send.reserve_capacity(16 << 10);
    poll_fn(|cx| send.poll_capacity(cx)).await
}

/// A gateway before `server` as a Service that speaks h2c.
fn before(server: SocketAddr) -> Configured {
    before_with(server, &[])
}

pub(crate) fn before_with(server: SocketAddr, args: &[&str]) -> Configured {
    Configured::start_with(&manifests(server), args)
}

pub(crate) fn manifests(server: SocketAddr) -> String {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: echo}\n\
        spec: {ports: [{port: 80, appProtocol: kubernetes.io/h2c}]}\n";
    format!(
        "{GATEWAY}{}{service}{}",
        route("echo", "rules: [{backendRefs: [{name: echo, port: 80}]}]"),
        slice("echo", "kubernetes.io/service-name: echo", server)
    )
}

pub(crate) fn call_of(path: &str) -> Request<()> {
    let request = Request::post(format!("http://test{path}"));
    let request = request
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    request.body(()).unwrap()
}

pub(crate) const MESSAGE: &[u8] = b"\0\0\0\0\x05hello";

#[track_caller]
pub(crate) fn ends_well(mut open: Open2, messages: usize) {
    assert_eq!(open.status, 200);
    assert_eq!(open.fields["content-type"], "application/grpc");
    assert_eq!(open.rest().unwrap(), MESSAGE.repeat(messages));
    let trailers = open.trailers().expect("trailers");
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["x-spent"], "7");
}

#[test]
fn grpc_comes_through_a_service_with_its_trailers() {
    let (address, seen) = server(100);
    let gateway = before(address);
    let client = Http2::connect(gateway.address);
    ends_well(client.begin(call_of("/echo/one"), MESSAGE).open(), 1);
    let fields = seen.fields.lock().unwrap().clone();
    assert_eq!(fields["te"], "trailers");
    assert!(fields.contains_key("x-request-id"), "{fields:?}");
    ends_well(client.begin(call_of("/echo/stream"), MESSAGE).open(), 3);
    fails_at_once(&client);
    // A large message, past every window.
    let large = vec![7; 3 << 20];
    let mut open = client.begin(call_of("/echo/one"), &large).open();
    assert_eq!(open.rest().unwrap().len(), large.len());
    assert_eq!(open.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(seen.connections.load(Relaxed), 1, "all on one connection");
}

#[test]
fn grpc_comes_through_a_pool() {
    let (address, seen) = server(100);
    let rest = format!("rules: [{{backendRefs: [{}]}}]", to_pool("echo"));
    let pool = pool("echo", ", appProtocol: kubernetes.io/h2c", &[address]);
    let gateway = Configured::start(&format!("{GATEWAY}{}{pool}", route("echo", &rest)));
    let client = Http2::connect(gateway.address);
    ends_well(client.begin(call_of("/echo/stream"), MESSAGE).open(), 3);
    // A call that fails at once is a head and no more; one that fails later says so at its end.
    fails_at_once(&client);
    let mut late = client.begin(call_of("/echo/late-fail"), MESSAGE).open();
    assert_eq!(late.status, 200);
    assert!(!late.ended_with_head && !late.fields.contains_key("grpc-status"));
    assert_eq!(late.rest().unwrap(), MESSAGE);
    let trailers = late.trailers().expect("trailers");
    assert_eq!(trailers["grpc-status"], "13");
    assert_eq!(trailers["grpc-message"], "broke%20later");
    // What a server says of a call is no failure of the server: it serves on.
    ends_well(client.begin(call_of("/echo/one"), MESSAGE).open(), 1);
    assert_eq!(seen.calls.load(Relaxed), 4, "nothing was tried again");
}

#[track_caller]
fn fails_at_once(client: &Http2) {
    let failed = client.begin(call_of("/echo/fail"), MESSAGE).open();
    assert_eq!(failed.status, 200);
    assert!(failed.ended_with_head, "trailers only: {failed:?}");
    assert_eq!(failed.fields["grpc-status"], "5");
    assert_eq!(failed.fields["grpc-message"], "gone");
    assert!(!failed.fields.contains_key("content-length"), "{failed:?}");
}

#[test]
fn failures_of_the_gateway_are_told_as_grpc_tells_them() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = dead.local_addr().unwrap();
    drop(dead);
    let gateway = before(address);
    let client = Http2::connect(gateway.address);
    let failed = client.begin(call_of("/echo/one"), MESSAGE).open();
    assert!(failed.ended_with_head, "{failed:?}");
    assert_eq!(
        (failed.status, &failed.fields["grpc-status"]),
        (200, &"14".parse().unwrap())
    );
    let message = failed.fields["grpc-message"].to_str().unwrap();
    assert!(message.contains("cannot connect"), "{message}");
    // Others are told in HTTP.
    assert_eq!(client.get("/plain").status, 503);
}

#[test]
fn clients_of_http_1_are_served_from_http_2() {
    let (address, _) = server(100);
    let gateway = before(address);
    for _ in 0..3 {
        let answer = crate::gateway::get(gateway.address, "/plain").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "plain text"));
    }
    let answer = crate::gateway::post(gateway.address, "/echo/one", "hello");
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
}

#[test]
fn a_call_that_is_given_up_is_reset_at_its_server() {
    let (address, seen) = server(100);
    let gateway = before(address);
    let client = Http2::connect(gateway.address);
    let begun = client.begin(call_of("/echo/hang"), MESSAGE);
    wait_until(|| seen.running.load(Relaxed) == 1);
    begun.reset();
    wait_until(|| seen.cancelled.load(Relaxed) == 1 && seen.running.load(Relaxed) == 0);
    let stream = crate::gateway::connect(gateway.address);
    let request = crate::gateway::request("/echo/hang", "hello", &[]);
    std::io::Write::write_all(&mut &stream, request.as_bytes()).unwrap();
    wait_until(|| seen.running.load(Relaxed) == 1);
    drop(stream);
    wait_until(|| seen.cancelled.load(Relaxed) == 2);
    ends_well(client.begin(call_of("/echo/one"), MESSAGE).open(), 1);
    assert!(
        seen.connections.load(Relaxed) <= 2,
        "one for each worker, which go on"
    );
}

#[test]
fn a_slow_client_holds_back_a_stream_of_http_2() {
    let (address, seen) = server(100);
    let gateway = before(address);
    let client = Http2::connect(gateway.address);
    let request = Request::get("http://test/endless").body(()).unwrap();
    let mut open = client.begin(request, b"").open();
    wait_until(|| {
        let before = seen.bytes.load(Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(300));
        before > 0 && before == seen.bytes.load(Relaxed)
    });
    let held = seen.bytes.load(Relaxed);
    assert!(held < 4 << 20, "{held} bytes under way");
    ends_well(client.begin(call_of("/echo/one"), MESSAGE).open(), 1);
    while seen.bytes.load(Relaxed) < held + (1 << 20) {
        open.piece().unwrap().unwrap();
    }
    open.reset();
    wait_until(|| seen.cancelled.load(Relaxed) == 1);
}

#[test]
fn more_calls_than_a_connection_takes_open_another() {
    let (address, seen) = server(4);
    let gateway = before(address);
    let client = Http2::connect(gateway.address);
    // The first teaches how many it takes.
    ends_well(client.begin(call_of("/echo/one"), MESSAGE).open(), 1);
    let begun: Vec<_> = (0..12)
        .map(|_| client.begin(call_of("/echo/stream"), MESSAGE))
        .collect();
    for begun in begun {
        ends_well(begun.open(), 3);
    }
    // Per worker; a client's connection has one. Four would do; calls that come while one is being
    // opened may open one more.
    let connections = seen.connections.load(Relaxed);
    assert!((2..=8).contains(&connections), "{connections}");
}
