//! Servers that shut down badly: no more connections, and not a word on those that are open.

use crate::gateway::{DEADLINE, Gateway, free_address, post};
use crate::grpc::{MESSAGE, before_with, call_of, ends_well, server};
use crate::over2::{Http2, PREFACE, frame, read_frame};
use crate::servers::{CHAT, Server, chat, event_stream, sent};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

/// Takes one chat request, closes its listener, and says nothing more on the connection than `begun`.
fn vanishing(begun: String) -> (SocketAddr, mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind(free_address()).unwrap();
    let address = listener.local_addr().unwrap();
    let (taken, kept) = mpsc::channel();
    // The thread ends with its listener, at the first chat request.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut start = [0; 4];
            if stream.read_exact(&mut start).is_err() || &start != b"POST" {
                continue;
            }
            stream.write_all(begun.as_bytes()).unwrap();
            let _ = taken.send(stream);
            return;
        }
    });
    (address, kept)
}

#[test]
fn what_a_vanished_server_leaves_unanswered_is_answered_by_another() {
    let server = Server::llama();
    let (address, kept) = vanishing(String::new());
    let gateway = Gateway::before(&[address, server.address]);
    gateway.knows(&["llama"]);
    // Two at a time go to two servers.
    let body = chat("llama", "hello", 2, false);
    let other = sent(gateway.address, &body);
    let answer = post(gateway.address, CHAT, &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let _silent = kept.recv_timeout(DEADLINE).unwrap();
    let mut start = [0; 12];
    (&other).read_exact(&mut start).unwrap();
    assert_eq!(start.as_slice(), b"HTTP/1.1 200");
    gateway.is_quiet();
}

#[test]
fn a_stream_of_a_vanished_server_is_cut() {
    let event = r#"{"choices":[{"delta":{"content":"one"}}]}"#;
    let begun = event_stream(&[event]).replace("\r\n0\r\n\r\n", "\r\n");
    let (address, kept) = vanishing(begun);
    let gateway = Gateway::before(&[address]);
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 9, true));
    let _silent = kept.recv_timeout(DEADLINE).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("stream_cut"), "{answer:?}");
    assert!(!answer.body.contains("[DONE]"), "{answer:?}");
    gateway.is_quiet();
}

/// A server as it is just after its start: nobody gets its metrics, and a stream pauses for longer
/// than one of a vanished server is waited for.
fn busy_with_its_start(listener: TcpListener) {
    let [first, last] = [
        r#"{"choices":[{"delta":{"content":"one"}}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
    ];
    let text = event_stream(&[first, last, "[DONE]"]);
    // Between two chunks: the last event's begins with its length, a line of four bytes.
    let (begun, rest) = text.split_at(text.find(last).unwrap() - "data: ".len() - 4);
    let mut silent = Vec::new();
    for mut stream in listener.incoming().flatten() {
        let mut start = [0; 4];
        if stream.read_exact(&mut start).is_ok() && &start == b"POST" {
            stream.write_all(begun.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_secs(7));
            stream.write_all(rest.as_bytes()).unwrap();
            return;
        }
        silent.push(stream);
    }
}

#[test]
fn a_server_that_was_away_may_be_silent_once_it_takes_connections() {
    let address = free_address();
    let gateway = Gateway::before(&[address]);
    let body = chat("llama", "hello", 9, true);
    assert_eq!(post(gateway.address, CHAT, &body).status, 503);
    // Its telemetry has been refused for as long as proves that it is away.
    std::thread::sleep(Duration::from_secs(6));
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || busy_with_its_start(listener));
    let answer = post(gateway.address, CHAT, &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("[DONE]"), "{answer:?}");
    gateway.is_quiet();
}

/// A server of HTTP/2 that takes a request and then neither reads nor says anything.
fn silent2() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let mut preface = [0; PREFACE.len()];
            if stream.read_exact(&mut preface).is_err() {
                continue;
            }
            stream.write_all(&frame(4, 0, 0, b"")).unwrap();
            while read_frame(&mut stream).is_some_and(|(kind, ..)| kind != 1) {}
            kept.push(stream);
        }
    });
    address
}

const SOON: [&str; 4] = ["--limit", "ping=200ms", "--limit", "ping-answer=300ms"];

#[test]
fn a_server_of_http_2_that_answers_no_ping_is_given_up() {
    let gateway = before_with(silent2(), &SOON);
    // Without a ping it would be waited for ten minutes.
    let client = Http2::connect(gateway.address);
    let call = client.begin(call_of("/echo/one"), MESSAGE).open();
    assert_eq!(call.fields["grpc-status"], "14", "{call:?}");
    let answer = gateway.get("/plain");
    assert_eq!(answer.status, 502, "{answer:?}");
}

#[test]
fn a_server_of_http_2_that_answers_pings_may_be_silent() {
    let (address, _) = server(100);
    let gateway = before_with(address, &SOON);
    let client = Http2::connect(gateway.address);
    let begun = client.begin(call_of("/late"), MESSAGE);
    ends_well(begun.open(), 1);
}
