//! Event streams: when the head leaves, how errors are told, and that a cut never looks like an end.

use crate::gateway::{Answer, Gateway, post};
use crate::servers::{CHAT, Open, Scripted, Server, chat, event_stream, events, json};
use std::time::{Duration, Instant};

const HELLO: &str = r#"{"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":null}]}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}"#;

/// The answer to a streamed chat request at a server that says exactly this.
fn told(wire: &str) -> Answer {
    let server = Scripted::start(&[(wire, Duration::ZERO)]);
    let gateway = Gateway::before(&[server.address]);
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 5, true));
    gateway.is_quiet();
    answer
}

/// A stream that was under way and ended in our error event, without an end mark.
#[track_caller]
fn is_cut(body: &str) {
    ends_in(body, "stream_cut");
}

#[track_caller]
fn ends_in(body: &str, code: &str) {
    assert!(!body.contains("[DONE]"), "{body}");
    let last = json(events(body).last().expect("events"));
    assert_eq!(last["error"]["code"], code, "{body}");
    assert!(body.ends_with("\n\n"), "{body}");
}

#[test]
fn a_stream_that_the_engine_does_not_finish_ends_in_an_error_event() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    for fault in [
        "reset:after=2",
        "truncate:after=2",
        "error-event:after=2",
        "abort:after=2",
    ] {
        server.fault(fault);
        let answer = post(gateway.address, CHAT, &chat("llama", "hello", 5, true));
        assert_eq!(answer.status, 200, "{fault}: {answer:?}");
        is_cut(&answer.body);
        let body = r#"{"model":"llama","prompt":"one","max_tokens":5,"stream":true}"#;
        let answer = post(gateway.address, "/v1/completions", body);
        is_cut(&answer.body);
        server.cure();
    }
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 5, true));
    assert!(answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    gateway.is_quiet();
}

#[test]
fn an_end_mark_without_a_finish_reason_is_a_cut() {
    let whole = told(&event_stream(&[HELLO, STOP, "[DONE]"]));
    assert!(whole.body.ends_with("data: [DONE]\n\n"), "{whole:?}");
    // vLLM ends running streams like this when it is told to stop.
    is_cut(&told(&event_stream(&[HELLO, "[DONE]"])).body);
    is_cut(&told(&event_stream(&[HELLO, STOP])).body);
    is_cut(&told(&event_stream(&[HELLO])).body);
    let closed = event_stream(&[HELLO, STOP, "[DONE]"]);
    is_cut(&told(&closed[..closed.len() - 40]).body);
    let aborted = STOP.replace("stop", "abort");
    is_cut(&told(&event_stream(&[HELLO, &aborted, "[DONE]"])).body);
}

#[test]
fn a_false_end_mark_is_held_back_in_any_pieces() {
    let wire = event_stream(&[HELLO, "[DONE]"]);
    let split = wire.find("data: [DONE]").unwrap();
    let mut pieces = vec![(&wire[..split], Duration::ZERO)];
    for at in split..wire.len() {
        pieces.push((&wire[at..=at], Duration::from_millis(2)));
    }
    let server = Scripted::start(&pieces);
    let gateway = Gateway::before(&[server.address]);
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 5, true));
    is_cut(&answer.body);
    assert_eq!(events(&answer.body).len(), 2, "{answer:?}");
}

#[test]
fn a_stream_without_any_content_is_tried_elsewhere() {
    let good = Server::llama();
    for payloads in [
        &["[DONE]"][..],
        &[],
        &[r#"{"error":{"code":503}}"#, "[DONE]"],
    ] {
        let bad = Scripted::start(&[(&event_stream(payloads), Duration::ZERO)]);
        let gateway = Gateway::before(&[bad.address, good.address]);
        for _ in 0..4 {
            let answer = post(gateway.address, CHAT, &chat("llama", "hello", 5, true));
            assert_eq!(answer.status, 200, "{payloads:?}: {answer:?}");
            assert!(answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
        }
        assert!(!bad.received().is_empty());
    }
}

#[test]
fn an_error_that_is_the_clients_fault_is_told_at_once() {
    let wire = event_stream(&[r#"{"error":{"message":"too long","code":400}}"#, "[DONE]"]);
    let servers: [Scripted; 2] =
        std::array::from_fn(|_| Scripted::start(&[(&wire, Duration::ZERO)]));
    let gateway = Gateway::before(&servers.each_ref().map(|server| server.address));
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 5, true));
    assert_eq!(answer.status, 400, "{answer:?}");
    let tries: usize = servers.iter().map(|server| server.received().len()).sum();
    assert_eq!(tries, 1);
}

#[test]
fn anthropic_streams_are_cut_in_their_own_words() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    for fault in ["reset:after=2", "truncate:after=2", "error-event:after=2"] {
        server.fault(fault);
        let answer = post(
            gateway.address,
            "/v1/messages",
            &chat("llama", "hello", 5, true),
        );
        assert!(!answer.body.contains("message_stop"), "{fault}: {answer:?}");
        let tail = answer.body.rsplit("event: error\n").next().unwrap();
        let event = json(events(tail)[0]);
        assert_eq!(event["type"], "error", "{fault}: {answer:?}");
        assert!(event["error"]["message"].is_string());
        server.cure();
    }
}

#[test]
fn streams_of_responses_are_cut_too() {
    const CREATED: &str = r#"{"type":"response.created","response":{"status":"in_progress"}}"#;
    const DELTA: &str = r#"{"type":"response.output_text.delta","delta":"hello"}"#;
    const COMPLETED: &str = r#"{"type":"response.completed","response":{"status":"completed"}}"#;
    const FAILED: &str =
        r#"{"type":"response.failed","response":{"error":{"code":"server_error"}}}"#;
    let told = |wire: &str| {
        let server = Scripted::start(&[(wire, Duration::ZERO)]);
        let gateway = Gateway::before(&[server.address]);
        let body = r#"{"model":"llama","input":"hello","stream":true}"#;
        let answer = post(gateway.address, "/v1/responses", body);
        gateway.is_quiet();
        let counted = |outcome| gateway.metric_with("penstock_requests_total", outcome);
        (answer.body, counted("engine_error"))
    };
    let whole = event_stream(&[CREATED, DELTA, COMPLETED]);
    let (body, failed) = told(&whole);
    assert_eq!(events(&body), [CREATED, DELTA, COMPLETED]);
    assert_eq!(failed, 0.0);
    let broken = &whole[..whole.find("response.completed").unwrap()];
    for wire in [
        event_stream(&[CREATED, DELTA]),
        event_stream(&[CREATED, DELTA, FAILED]),
        broken.to_owned(),
    ] {
        let (body, failed) = told(&wire);
        is_cut(&body);
        assert!(body.contains("hello") && !body.contains("response.completed"));
        assert_eq!(failed, 1.0, "{wire}");
    }
}

#[test]
fn the_head_of_a_stream_waits_for_the_first_event_but_not_for_long() {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let whole = event_stream(&[HELLO, STOP, "[DONE]"]);
    let rest = whole.strip_prefix(head).unwrap();
    let server = Scripted::start(&[(head, Duration::ZERO), (rest, Duration::from_millis(2500))]);
    let gateway = Gateway::before(&[server.address]);
    let asked = Instant::now();
    let mut open = Open::post(gateway.address, &chat("llama", "hello", 5, true));
    let head_after = asked.elapsed();
    assert!(open.rest().ends_with("data: [DONE]\n\n"));
    let end_after = asked.elapsed();
    assert!(head_after >= Duration::from_millis(900), "{head_after:?}");
    assert!(
        end_after - head_after >= Duration::from_millis(500),
        "{head_after:?} {end_after:?}"
    );
    assert_eq!(open.status, 200);
}

#[test]
fn an_error_event_after_the_head_had_to_leave_ends_the_stream() {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let whole = event_stream(&[r#"{"error":{"message":"no","code":503}}"#, "[DONE]"]);
    let rest = whole.strip_prefix(head).unwrap();
    let server = Scripted::start(&[(head, Duration::ZERO), (rest, Duration::from_millis(3000))]);
    let gateway = Gateway::before(&[server.address]);
    let mut open = Open::post(gateway.address, &chat("llama", "hello", 5, true));
    assert_eq!(open.status, 200);
    // Nobody else could take it, so the client is told, in the stream that it has.
    ends_in(&open.rest(), "engine_error");
}

#[test]
fn an_error_event_in_place_of_the_first_token_becomes_a_status() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    server.fault("error-event");
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 5, true));
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_eq!(json(&answer.body)["error"]["code"], "engine_error");
    let answer = post(
        gateway.address,
        "/v1/messages",
        &chat("llama", "hello", 5, true),
    );
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_eq!(json(&answer.body)["type"], "error");
    let refused = told(&event_stream(&[
        r#"{"error":{"message":"too long","type":"BadRequestError","code":400}}"#,
        "[DONE]",
    ]));
    assert_eq!(refused.status, 400, "{refused:?}");
}

#[test]
fn an_error_event_in_place_of_the_first_token_is_tried_elsewhere() {
    let [bad, good] = Server::llamas();
    let gateway = Gateway::over(&[&bad, &good]);
    bad.fault("error-event");
    for _ in 0..6 {
        let answer = post(gateway.address, CHAT, &chat("llama", "hello", 5, true));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.ends_with("data: [DONE]\n\n"));
    }
    assert!(bad.count() >= 1);
    assert_eq!(good.count(), 6);
}

#[test]
fn a_json_answer_that_breaks_off_is_not_taken_for_whole() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    for fault in ["reset", "truncate"] {
        server.fault(fault);
        let mut stream = crate::servers::sent(gateway.address, &chat("llama", "hello", 5, false));
        let mut bytes = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
            .unwrap();
        assert!(body.len() < length, "{fault}: {text}");
        server.cure();
    }
    gateway.is_quiet();
}
