//! Bytes: what comes through the gateway is what the server said, whatever the framing.

use crate::gateway::{Answer, Gateway, connect, post, read_answer, request};
use crate::servers::{CHAT, Scripted, Server, chat, event_stream};
use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// An answer without what differs from request to request.
fn told(address: SocketAddr, path: &str, body: &str) -> (u16, Option<String>, String) {
    let fields = [("x-request-id", "same-id")];
    let answer = crate::gateway::post_with(address, path, body, &fields);
    let kind = answer.field("content-type").map(str::to_owned);
    (answer.status, kind, without_times(&answer))
}

/// `created` is the server's clock.
fn without_times(answer: &Answer) -> String {
    let mut parts = answer.body.split("\"created\":");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' '));
    }
    text
}

#[test]
fn answers_are_those_of_the_server() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let messages = r#""messages":[{"role":"user","content":"h\u00e9llo \ud83d\ude00"}]"#;
    let usage = r#""stream":true,"stream_options":{"include_usage":true}"#;
    for (path, body) in [
        (CHAT, chat("llama", "hello", 20, false)),
        (CHAT, chat("llama", "hello", 20, true)),
        (
            CHAT,
            format!(r#"{{"model":"llama","n":3,"max_tokens":7,{usage},{messages}}}"#),
        ),
        (CHAT, "{\"model\":\"llama\",\"max_tokens\":-1}".to_owned()),
        (
            "/v1/completions",
            r#"{"model":"llama","prompt":["a","b"],"max_tokens":9}"#.to_owned(),
        ),
        (
            "/v1/completions",
            format!(r#"{{"model":"llama","prompt":"a b","max_tokens":9,{usage}}}"#),
        ),
        (
            "/v1/embeddings",
            r#"{"model":"llama","input":["a","b"]}"#.to_owned(),
        ),
        ("/v1/messages", chat("llama", "hello", 9, true)),
        ("/v1/messages", chat("llama", "hello", 9, false)),
        ("/v1/unheard-of", r#"{"any":"thing"}"#.to_owned()),
    ] {
        let direct = told(server.address, path, &body);
        let through = told(gateway.address, path, &body);
        assert_eq!(through, direct, "{path} {body}");
    }
}

#[test]
fn a_stream_in_any_pieces_gives_the_same_payload() {
    let text = event_stream(&[
        r#"{"choices":[{"index":0,"delta":{"content":"caf\u00e9 é"},"finish_reason":null}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
        "[DONE]",
    ]);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let payload: String = {
        let mut stream = BufReader::new(text.as_bytes());
        read_answer(&mut stream).unwrap().body
    };
    let head = format!("{head}\r\n\r\n");
    for size in [1, 7, 50] {
        let mut pieces = vec![(head.as_str(), Duration::ZERO)];
        let mut rest = body;
        while !rest.is_empty() {
            let mut at = size.min(rest.len());
            while !rest.is_char_boundary(at) {
                at += 1;
            }
            let (piece, after) = rest.split_at(at);
            pieces.push((piece, Duration::from_micros(200)));
            rest = after;
        }
        let server = Scripted::start(&pieces);
        let gateway = Gateway::before(&[server.address]);
        let answer = post(gateway.address, CHAT, &chat("llama", "hello", 5, true));
        assert_eq!(answer.body, payload, "pieces of {size}");
    }
}

#[test]
fn a_client_that_reads_late_gets_every_byte_of_its_stream() {
    // More than both sockets on the way hold.
    let events: Vec<_> = (0..12_000)
        .map(|number| {
            let text = "x".repeat(1000 + number % 700);
            format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{number} {text}"}},"finish_reason":null}}]}}"#)
        })
        .chain([r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#.to_owned()])
        .chain(["[DONE]".to_owned()])
        .collect();
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    let text = event_stream(&events);
    let payload = read_answer(&mut text.as_bytes()).unwrap().body;
    let (first, rest) = text.split_at(text.find(r#"content":"9 "#).unwrap());
    let server = Scripted::start(&[(first, Duration::from_millis(50)), (rest, Duration::ZERO)]);
    let gateway = Gateway::before(&[server.address]);
    let mut stream = connect(gateway.address);
    let asked = request(CHAT, &chat("llama", "hello", 5, true), &[]);
    stream.write_all(asked.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let answer = read_answer(&mut BufReader::new(stream)).unwrap();
    assert_eq!(answer.body.len(), payload.len());
    assert!(answer.body == payload, "the payload is another one");
    gateway.is_quiet();
}

#[test]
fn old_clients_get_a_stream_that_ends_with_the_connection() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let body = chat("llama", "hello", 5, true);
    let text = request(CHAT, &body, &[]).replacen("HTTP/1.1", "HTTP/1.0", 1);
    let mut stream = connect(gateway.address);
    stream.write_all(text.as_bytes()).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.starts_with("HTTP/1.1 200"), "{all}");
    assert!(
        !all.to_ascii_lowercase().contains("transfer-encoding"),
        "{all}"
    );
    assert!(all.ends_with("data: [DONE]\n\n"), "{all}");
}

#[test]
fn requests_on_one_connection_are_answered_in_order() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let mut stream = connect(gateway.address);
    let mut all = String::new();
    for number in 0..6 {
        let body = chat("llama", &format!("number {number}"), 3, number % 2 == 1);
        all.push_str(&request(
            CHAT,
            &body,
            &[("x-request-id", &format!("in-order-{number}"))],
        ));
    }
    stream.write_all(all.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    for number in 0..6 {
        let answer = read_answer(&mut reader).unwrap();
        assert_eq!(answer.status, 200);
        let id = format!("in-order-{number}");
        assert_eq!(answer.field("x-request-id"), Some(id.as_str()));
    }
    // The last one was a stream: it is over, though its client stays.
    gateway.is_quiet();
    drop(reader);
}

#[test]
fn a_chunked_request_reaches_the_engine_whole() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let body = chat("llama", &"long ".repeat(30_000), 1, false);
    let mut text = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(7_001));
        text.push_str(&format!("{:x}\r\n{piece}\r\n", piece.len()));
        rest = after;
    }
    text.push_str("0\r\n\r\n");
    let mut stream = connect(gateway.address);
    stream.write_all(text.as_bytes()).unwrap();
    assert_eq!(
        read_answer(&mut BufReader::new(stream)).unwrap().status,
        200
    );
    assert_eq!(post(server.address, CHAT, &body).status, 200);
    let received = server.received();
    assert_eq!(received[0].body_xxh3, received[1].body_xxh3);
}
