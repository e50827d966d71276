//! Streams whose head is out before the engine fails: until its first event another may take over.

use crate::gateway::{Answer, Gateway, post};
use crate::servers::{CHAT, Scripted, Server, chat, event_stream};
use std::net::SocketAddr;
use std::time::Duration;

/// Longer than a head is held for its first event.
const LATE: Duration = Duration::from_millis(1600);

/// A server that begins a stream and says the rest late.
fn late(rest: &str) -> Scripted {
    let stream = event_stream(&[]);
    let head = stream.strip_suffix("0\r\n\r\n").unwrap();
    Scripted::start(&[(head, Duration::ZERO), (rest, LATE)])
}

fn error_event() -> String {
    let event =
        r#"{"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}"#;
    let stream = event_stream(&[event, "[DONE]"]);
    stream.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Two streams side by side, one for each of two servers.
fn both(gateway: SocketAddr) -> [Answer; 2] {
    let ask = move || post(gateway, CHAT, &chat("llama", "hello", 3, true));
    let other = std::thread::spawn(ask);
    [ask(), other.join().unwrap()]
}

#[test]
fn another_endpoint_gives_the_events_of_a_stream_that_was_only_begun() {
    for rest in [error_event(), "0\r\n\r\n".to_owned(), String::new()] {
        let (bad, good) = (late(&rest), Server::llama());
        let gateway = Gateway::before(&[bad.address, good.address]);
        gateway.knows(&["llama"]);
        for answer in both(gateway.address) {
            assert_eq!(answer.status, 200);
            assert!(
                answer.body.ends_with("data: [DONE]\n\n"),
                "{rest:?}: {answer:?}"
            );
            assert!(!answer.body.contains("error"), "{rest:?}: {answer:?}");
        }
        assert_eq!(bad.received().len(), 1, "{rest:?}");
        gateway.is_quiet();
    }
}

#[test]
fn without_another_the_stream_ends_in_a_typed_error() {
    let bad = late(&error_event());
    let gateway = Gateway::before(&[bad.address]);
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 3, true));
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("engine_error"), "{answer:?}");
    assert!(!answer.body.contains("[DONE]"), "{answer:?}");
    gateway.is_quiet();
}

#[test]
fn comments_pass_while_the_first_event_is_awaited() {
    let comment = ": still there\n\n";
    let bad = late(&format!("{:x}\r\n{comment}\r\n", comment.len()));
    let gateway = Gateway::before(&[bad.address]);
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 3, true));
    assert!(answer.body.starts_with(comment), "{answer:?}");
    assert!(answer.body.contains("stream_cut"), "{answer:?}");
}
