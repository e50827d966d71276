//! `Expect: 100-continue`: a client that waits with its body is told to go on before it has sent any,
//! or why not, in both versions.

use crate::gateway::{Gateway, connect, read_answer};
use crate::over2::{Http2, post};
use crate::servers::{CHAT, Server, chat, json};
use http::HeaderValue;
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

const TOO_LONG: usize = 100_000_000;

/// What is refused by its head alone: expectation, length of the body, status, code.
const REFUSED: [(&str, usize, u16, &str); 2] = [
    ("100-continue", TOO_LONG, 413, "request_too_large"),
    ("wonders", 5, 417, "unknown_expectation"),
];

#[test]
fn who_waits_with_a_body_is_told_to_go_on_or_why_not() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let body = chat("llama", "hello", 3, false);
    let head = |expected: &str, length: usize| {
        format!(
            "POST {CHAT} HTTP/1.1\r\nhost: a\r\nexpect: {expected}\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let mut stream = BufReader::new(connect(gateway.address));
    for expected in ["100-continue", "100-Continue"] {
        let asked = head(expected, body.len());
        stream.get_mut().write_all(asked.as_bytes()).unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
        line.clear();
        stream.read_line(&mut line).unwrap();
        assert_eq!(line, "\r\n");
        // Nothing of a request that is not whole has reached the server.
        let before = server.count();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(server.count(), before);
        stream.get_mut().write_all(body.as_bytes()).unwrap();
        let answer = read_answer(&mut stream).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    // One that does not wait is not told.
    let at_once = head("100-continue", body.len()) + &body;
    stream.get_mut().write_all(at_once.as_bytes()).unwrap();
    assert_eq!(read_answer(&mut stream).unwrap().status, 200);
    for (expected, length, status, code) in REFUSED {
        let mut stream = BufReader::new(connect(gateway.address));
        let asked = head(expected, length);
        stream.get_mut().write_all(asked.as_bytes()).unwrap();
        let answer = read_answer(&mut stream).expect("no body was sent");
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(json(&answer.body)["error"]["code"], code);
    }
    assert_eq!(server.count(), 3);
}

#[test]
fn who_waits_over_http_2_is_told_to_go_on_or_why_not() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let client = Http2::connect(gateway.address);
    let asked = |expected: &'static str, length: usize| {
        let mut request = post(CHAT);
        let fields = request.headers_mut();
        fields.insert("expect", HeaderValue::from_static(expected));
        fields.insert("content-length", HeaderValue::from(length));
        client.begin_unfinished(request)
    };
    let body = chat("llama", "hello", 3, false);
    let mut begun = asked("100-continue", body.len());
    assert_eq!(begun.informed(), Some(100));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(server.count(), 0);
    begun.send.send_data(body.into(), true).unwrap();
    assert_eq!(begun.open().whole().unwrap().status, 200);
    for (expected, length, status, code) in REFUSED {
        let mut begun = asked(expected, length);
        assert_eq!(begun.informed(), None, "{expected}");
        let answer = begun.open().whole().unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(json(&answer.body)["error"]["code"], code);
    }
    assert_eq!(server.count(), 1);
    gateway.is_quiet();
}
