//! Refused while still sending: the client sees why, and is not waited for without end.

use crate::gateway::{Answer, DEADLINE, Gateway, connect, read_answer, wait_until};
use crate::over2::{Http2, post};
use crate::servers::{CHAT, Server, json};
use std::io::{BufReader, Write};
use std::net::SocketAddr;

const ANNOUNCED: usize = 70 << 20;

/// Sends a head and then all of a body before it reads, as simple clients do.
fn told_after_sending(address: SocketAddr, head: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(head.as_bytes()).unwrap();
    let piece = vec![b'a'; 1 << 20];
    for _ in 0..ANNOUNCED / piece.len() {
        stream
            .write_all(&piece)
            .expect("the gateway takes what it does not read");
    }
    read_answer(&mut BufReader::new(stream)).expect("an answer")
}

#[track_caller]
fn is_too_large(answer: &Answer) {
    assert_eq!(answer.status, 413, "{answer:?}");
    let body = json(&answer.body);
    assert_eq!(body["error"]["code"], "request_too_large");
    let message = body["error"]["message"].as_str().unwrap();
    for number in [ANNOUNCED, 64 << 20] {
        assert!(message.contains(&number.to_string()), "{message}");
    }
}

#[test]
fn who_sends_too_much_sees_why() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: {ANNOUNCED}\r\n\r\n");
    is_too_large(&told_after_sending(gateway.address, &head));
    let unknown = head.replace("content-length", "x y");
    assert_eq!(told_after_sending(gateway.address, &unknown).status, 400);
    let client = Http2::connect(gateway.address);
    let mut request = post(CHAT);
    let length = http::HeaderValue::from(ANNOUNCED);
    request.headers_mut().insert("content-length", length);
    let mut begun = client.begin_unfinished(request);
    // The refusal may have come first.
    let _ = begun.send.send_data(vec![b'a'; 1 << 20].into(), false);
    is_too_large(&begun.open().whole().unwrap());
    // The connection serves others.
    assert_eq!(client.get("/v1/models").status, 200);
    assert_eq!(server.count(), 0);
    gateway.is_quiet();
}

#[test]
fn who_never_stops_sending_is_not_waited_for() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let mut stream = connect(gateway.address);
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let piece = vec![b'a'; 1 << 20];
    let pieces = 1_000;
    let sent = (0..pieces)
        .take_while(|_| stream.write_all(&piece).is_ok())
        .count();
    assert!(sent < pieces, "it takes it all");
    // One that says nothing more is let go as well.
    let mut silent = connect(gateway.address);
    silent.write_all(b"nonsense\r\n\r\n").unwrap();
    wait_until(|| gateway.metric("penstock_connections_open") == 0.0);
    gateway.is_quiet();
}
