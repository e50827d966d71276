//! Silence: comments that keep an event stream alive, and the limits that end one, named to the
//! client and in the log.

use crate::configured::{Configured, GATEWAY, pool, route, to_pool};
use crate::gateway::{Gateway, post, wait_until};
use crate::over2::Http2;
use crate::servers::{CHAT, Open, Scripted, chat, event_stream, events, json, sent};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const HELLO: &str = r#"{"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}"#;
const COMMENT: &str = ": \n\n";
const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const AT_ONCE: Duration = Duration::ZERO;
/// Several heartbeats long, where one comes after a fifth of a second.
const PAUSE: Duration = Duration::from_millis(900);

fn limited(server: SocketAddr, limits: &str, more: &[&str]) -> Gateway {
    let url = format!("http://{server}");
    let mut args = vec!["--endpoint", &url, "--limit", limits];
    args.extend_from_slice(more);
    Gateway::run(&args)
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// A head, nothing for longer than it is held, an event, a pause, and an event with a pause inside.
fn slow() -> (Scripted, String) {
    let payloads = [HELLO, STOP, "[DONE]"].map(|payload| format!("data: {payload}\n\n"));
    let (half, rest) = payloads[1].split_at(20);
    let server = Scripted::start(&[
        (HEAD, AT_ONCE),
        (&chunk(&payloads[0]), Duration::from_millis(1800)),
        (&chunk(half), PAUSE),
        (&chunk(rest), PAUSE),
        (&chunk(&payloads[2]), AT_ONCE),
        ("0\r\n\r\n", AT_ONCE),
    ]);
    (server, payloads.concat())
}

#[track_caller]
fn has_comments_between_events(body: &str, payload: &str) {
    assert_eq!(body.replace(COMMENT, ""), payload, "{body}");
    for event in payload.split_inclusive("\n\n") {
        assert!(body.contains(event), "a comment inside {event:?}: {body}");
    }
    let first = body.find("data: ").unwrap();
    let second = first + body[first..].find("\n\n").unwrap() + 2;
    let third = body.find(STOP).unwrap();
    let comments = |text: &str| text.matches(COMMENT).count();
    assert!(comments(&body[..first]) >= 2, "{body}");
    assert!(comments(&body[second..third]) >= 2, "{body}");
    assert_eq!(comments(&body[third..]), 0, "{body}");
}

#[test]
fn comments_come_in_silences_after_the_head_and_between_events() {
    let (server, payload) = slow();
    let gateway = limited(server.address, "heartbeat=200ms", &[]);
    let body = chat("llama", "hello", 5, true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let answer = Http2::connect(gateway.address).post(CHAT, &body);
            has_comments_between_events(&answer.body, &payload);
        });
        let answer = post(gateway.address, CHAT, &body);
        has_comments_between_events(&answer.body, &payload);
    });
    gateway.is_quiet();
}

#[test]
fn who_did_not_ask_for_a_stream_gets_no_comments() {
    let (server, payload) = slow();
    let gateway = limited(server.address, "heartbeat=200ms", &[]);
    let late = Scripted::start(&[
        ("HTTP/1.1 200 OK\r\n", AT_ONCE),
        ("content-type: application/json\r\n", PAUSE),
        ("content-length: 2\r\n\r\n{", PAUSE),
        ("}", PAUSE),
    ]);
    let other = limited(late.address, "heartbeat=200ms", &[]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let unasked = post(gateway.address, CHAT, &chat("llama", "hello", 5, false));
            assert_eq!(unasked.body, payload);
        });
        for stream in [false, true] {
            let other = &other;
            scope.spawn(move || {
                let answer = post(other.address, CHAT, &chat("llama", "hello", 5, stream));
                assert_eq!(answer.body, "{}");
            });
        }
    });
}

/// The line of the only chat request.
fn logged(log: &Path) -> String {
    let read = || std::fs::read_to_string(log).unwrap_or_default();
    let is_chat = |line: &&str| line.contains(CHAT);
    wait_until(|| read().lines().any(|line| is_chat(&line)));
    read().lines().find(is_chat).unwrap().to_owned()
}

#[test]
fn the_silence_that_ends_a_stream_is_named() {
    let events_until_then = chunk(&format!("data: {HELLO}\n\n"));
    let server = Scripted::start(&[
        (HEAD, AT_ONCE),
        (&events_until_then, AT_ONCE),
        ("0\r\n\r\n", Duration::from_secs(10)),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let more = ["--access-log", log.to_str().unwrap()];
    // Comments do not prolong the patience.
    let gateway = limited(server.address, "heartbeat=200ms,stream-idle=700ms", &more);
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 5, true));
    let last = json(events(&answer.body).last().unwrap());
    assert_eq!(last["error"]["code"], "stream_idle_timeout", "{answer:?}");
    let message = last["error"]["message"].as_str().unwrap();
    assert!(message.contains("700ms"), "{message}");
    assert!(answer.body.contains(COMMENT), "{answer:?}");
    assert!(!answer.body.contains("[DONE]"), "{answer:?}");
    let line = logged(&log);
    assert!(
        line.contains(r#""error":"stream_idle_timeout","phase":"stream""#),
        "{line}"
    );
    gateway.is_quiet();
}

#[test]
fn a_routes_timeout_that_ends_a_stream_is_named() {
    let begun = chunk(&format!("data: {HELLO}\n\n"));
    let server = Scripted::start(&[
        (HEAD, AT_ONCE),
        (&begun, AT_ONCE),
        ("0\r\n\r\n", Duration::from_secs(10)),
    ]);
    let rule = format!(
        "rules: [{{timeouts: {{request: 500ms}}, backendRefs: [{}]}}]",
        to_pool("one")
    );
    let text = format!(
        "{GATEWAY}{}{}",
        route("all", &rule),
        pool("one", "", &[server.address])
    );
    let gateway = Configured::start(&text);
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 5, true));
    let last = json(events(&answer.body).last().unwrap());
    assert_eq!(last["error"]["code"], "request_timeout", "{answer:?}");
    assert!(!answer.body.contains("[DONE]"), "{answer:?}");
}

/// A client that reads nothing of 32 MB.
fn stalls(over_http2: bool) {
    let event = format!("data: {}\n\n", HELLO.replace("hello", &"x".repeat(60_000)));
    let long = event_stream(&[]).replace("0\r\n\r\n", &chunk(&event).repeat(550));
    let server = Scripted::start(&[(&long, AT_ONCE)]);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let more = ["--access-log", log.to_str().unwrap()];
    let gateway = limited(server.address, "write-stall=500ms", &more);
    let body = chat("llama", "hello", 5, true);
    let line = if over_http2 {
        let client = Http2::connect(gateway.address);
        let _open = client.open(CHAT, &body);
        logged(&log)
    } else {
        let _open = Open::read(sent(gateway.address, &body));
        logged(&log)
    };
    assert!(line.contains(r#""error":"client_stalled""#), "{line}");
    gateway.is_quiet();
}

#[test]
fn a_client_that_takes_nothing_is_named() {
    stalls(false);
    stalls(true);
}
