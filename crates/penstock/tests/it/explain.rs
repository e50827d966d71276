//! What a request leaves behind for people: headers, `why`, the access log, counters.

use crate::gateway::{
    Gateway, connect, get, penstock, post, post_with, read_answer, request, wait_until,
};
use crate::servers::{CHAT, Open, Scripted, Server, chat, event_stream, json, sent};
use serde_json::Value;
use std::io::{BufReader, Write};
use std::net::Shutdown;
use std::process::Output;
use std::time::Duration;

fn why(gateway: &Gateway, args: &[&str]) -> Output {
    let admin = format!("http://{}", gateway.admin);
    let mut all = vec!["why", "--admin", &admin];
    all.extend_from_slice(args);
    penstock(&all).output().unwrap()
}

fn text(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    out + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn why_finds_a_decision_by_number_and_by_request_id() {
    let servers: [Server; 2] = Server::llamas();
    let gateway = Gateway::over(&servers.each_ref());
    let body = chat("llama", "hello", 2, false);
    assert_eq!(why(&gateway, &["last"]).status.code(), Some(1));
    let first = post_with(
        gateway.address,
        CHAT,
        &body,
        &[("x-request-id", "my-own.id")],
    );
    let last = post(gateway.address, CHAT, &body);
    let (id, number) = ("my-own.id", first.field("x-penstock-decision").unwrap());
    assert_eq!(first.field("x-request-id"), Some(id));
    for which in [id, number] {
        let found = why(&gateway, &[which]);
        let shown = text(&found);
        assert!(found.status.success(), "{shown}");
        assert!(
            shown.contains(&format!("decision {number}, request {id}, try 1")),
            "{shown}"
        );
        assert!(
            shown.contains("<- winner") && shown.contains("<- runner-up"),
            "{shown}"
        );
        for server in &servers {
            assert!(shown.contains(&server.address.to_string()), "{shown}");
        }
        for term in ["queue", "prefill", "decode", "adapter", "reuse"] {
            assert!(shown.contains(term), "{term}: {shown}");
        }
    }
    let shown = text(&why(&gateway, &["last"]));
    assert!(
        shown.contains(last.field("x-penstock-decision").unwrap()),
        "{shown}"
    );
    assert!(
        shown.contains(last.field("x-request-id").unwrap()),
        "{shown}"
    );
    let none = why(&gateway, &["no-such-id"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none).contains("no decision no-such-id"));
    let lines = text(&why(&gateway, &["last", "--output", "json"]));
    assert_eq!(json(&lines)["table"]["rows"].as_array().unwrap().len(), 2);
}

#[test]
fn every_try_of_a_request_is_told() {
    let servers: [Server; 2] = Server::llamas();
    let gateway = Gateway::over(&servers.each_ref());
    for server in &servers {
        server.fault("500:count=1");
    }
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 2, true));
    // Each server fails once, and there is no third.
    assert_eq!(answer.status, 500);
    let shown = text(&why(&gateway, &["last"]));
    assert!(
        shown.contains("try 1") && shown.contains("try 2"),
        "{shown}"
    );
    assert!(
        shown.contains("failed with engine_error, tried elsewhere"),
        "{shown}"
    );
}

#[test]
fn a_tampered_decision_does_not_replay() {
    let servers: [Server; 3] = Server::llamas();
    let gateway = Gateway::over(&servers.each_ref());
    for number in 0..12 {
        let prompt = format!("number {} ", number % 3).repeat(300);
        post(
            gateway.address,
            CHAT,
            &chat("llama", &prompt, 2, number % 2 == 0),
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("decisions.jsonl");
    let path = file.to_str().unwrap();
    assert!(why(&gateway, &["--save", path]).status.success());
    let replayed = penstock(&["why", "--replay", path]).output().unwrap();
    assert!(replayed.status.success(), "{}", text(&replayed));
    assert!(text(&replayed).contains("12 decisions replayed"));
    let saved = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<Value> = saved.lines().map(json).collect();
    let tampered = &mut lines[7]["table"];
    let winner = tampered["winner"].as_u64().unwrap();
    tampered["winner"] = ((winner + 1) % 3).into();
    let number = lines[7]["decision"].as_u64().unwrap();
    lines[9]["table"]["winner"] = 77.into();
    let changed: Vec<String> = lines.iter().map(Value::to_string).collect();
    std::fs::write(&file, changed.join("\n")).unwrap();
    let replayed = penstock(&["why", "--replay", path]).output().unwrap();
    assert_eq!(replayed.status.code(), Some(1), "{}", text(&replayed));
    assert!(
        text(&replayed).contains(&format!("decision {number},")),
        "{}",
        text(&replayed)
    );
    std::fs::write(&file, "{\"decision\":1}\n").unwrap();
    assert_eq!(
        penstock(&["why", "--replay", path])
            .output()
            .unwrap()
            .status
            .code(),
        Some(1)
    );
}

/// What a client says and the engine reads.
const KEPT: [(&str, &str); 4] = [
    ("X-Request-Id", "kept-1"),
    (
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    ("authorization", "Bearer secret"),
    ("X-Custom", "Stays  As-It is"),
];

/// What a client may not say to an engine.
const WITHHELD: [(&str, &str); 13] = [
    ("x-gateway-destination-endpoint", "10.0.0.1:1"),
    ("X-Gateway-Destination-Endpoint-Subset", "10.0.0.1:1"),
    ("x-prefiller-host-port", "10.0.0.1:1"),
    ("X-Prefiller-Url", "http://10.0.0.1"),
    ("x-gateway-model-name", "spoofed"),
    ("connection", "keep-alive, x-hop"),
    ("x-hop", "1"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("proxy-authorization", "Basic abc"),
    ("te", "trailers"),
    ("trailer", "x-later"),
    ("upgrade", "websocket"),
];

#[test]
fn only_what_an_engine_may_see_reaches_it() {
    let stream = event_stream(&[
        r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
        "[DONE]",
    ]);
    let server = Scripted::start(&[(&stream, Duration::ZERO)]);
    let gateway = Gateway::before(&[server.address]);
    let body = chat("llama", "hello", 2, true);
    let fields = [KEPT.as_slice(), &WITHHELD].concat();
    let answer = post_with(gateway.address, CHAT, &body, &fields);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.field("x-request-id"), Some("kept-1"));
    let received = server.received().remove(0);
    let (head, engine_body) = received.split_once("\r\n\r\n").unwrap();
    assert_eq!(engine_body, body);
    let lower = head.to_ascii_lowercase();
    for (name, value) in KEPT {
        assert!(head.contains(&format!("{name}: {value}")), "{name}: {head}");
    }
    for (name, _) in WITHHELD {
        let name = name.to_ascii_lowercase();
        // The model's name is ours to tell, as read from the body.
        if name == "x-gateway-model-name" {
            assert!(!lower.contains("spoofed"), "{head}");
            continue;
        }
        assert!(!lower.contains(&format!("\n{name}:")), "{name}: {head}");
    }
}

#[test]
fn a_request_without_a_usable_id_gets_one() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let long = "x".repeat(300);
    for id in ["", "two words", &long] {
        let body = chat("llama", "hello", 2, false);
        let answer = post_with(gateway.address, CHAT, &body, &[("x-request-id", id)]);
        let made = answer.field("x-request-id").unwrap();
        let is_hex = made.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(made.len() == 32 && is_hex, "{made}");
        // The server answers with the id that it was given.
        assert!(answer.body.contains(made), "{answer:?}");
    }
}

fn log_lines(file: &std::path::Path) -> Vec<Value> {
    let log = std::fs::read_to_string(file).unwrap_or_default();
    log.lines().map(json).collect()
}

/// Ten requests that end in all ways; their number, and the usage that the first was told.
fn mixed_run(gateway: &Gateway, server: &Server) -> (u32, Value) {
    let ask = |stream: bool, id: &str| {
        let body = chat("llama", "hello there", 3, stream);
        post_with(gateway.address, CHAT, &body, &[("x-request-id", id)])
    };
    let usage = json(&ask(false, "whole").body)["usage"].clone();
    ask(true, "streamed");
    server.fault("no-usage");
    ask(false, "untold");
    server.cure();
    server.fault("500:count=1");
    assert_eq!(ask(false, "failed").status, 500);
    server.fault("reset:after=1");
    assert!(ask(true, "cut").body.contains("stream_cut"));
    server.cure();
    assert_eq!(post(gateway.address, CHAT, "{\"model\":").status, 400);
    let unknown = chat("none", "x", 1, false);
    assert_eq!(post(gateway.address, CHAT, &unknown).status, 404);
    let mut refused = connect(gateway.address);
    let two_hosts = b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n";
    refused.write_all(two_hosts).unwrap();
    let answer = read_answer(&mut BufReader::new(refused)).unwrap();
    assert_eq!(answer.status, 400);
    server.slow(50.0);
    let mut open = Open::post(gateway.address, &chat("llama", "leaves", 500, true));
    open.chunk().unwrap();
    drop(open);
    let early = sent(gateway.address, &chat("llama", "leaves early", 500, false));
    wait_until(|| server.running() == 1);
    early.shutdown(Shutdown::Both).unwrap();
    gateway.is_quiet();
    (10, usage)
}

#[test]
fn lines_of_the_log_are_the_requests_and_the_counter() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.jsonl");
    let server = Server::llama();
    let url = format!("http://{}", server.address);
    let gateway = Gateway::run(&["--endpoint", &url, "--access-log", file.to_str().unwrap()]);
    gateway.knows(&["llama"]);
    // A request is counted just after its last byte; so far each had a connection of its own.
    let count = |name: &str| gateway.metric(name);
    wait_until(|| count("penstock_requests_total") == count("penstock_connections_total"));
    let listed = count("penstock_requests_total");
    let (sent_count, usage) = mixed_run(&gateway, &server);
    let total = listed + f64::from(sent_count);
    wait_until(|| gateway.metric("penstock_requests_total") == total);
    let all = gateway.metric("penstock_requests_total");
    wait_until(|| log_lines(&file).len() as f64 >= all);
    let lines = log_lines(&file);
    assert_eq!(lines.len() as f64, all);
    assert_eq!(gateway.metric("penstock_access_log_lines_total"), all);
    assert_eq!(gateway.metric("penstock_access_log_dropped_total"), 0.0);
    let line = |id: &str| lines.iter().find(|line| line["id"] == id).unwrap();
    for key in ["prompt_tokens", "completion_tokens"] {
        assert_eq!(line("whole")[key], usage[key], "{key}");
    }
    assert!(line("whole").get("usage_estimated").is_none());
    // Nobody asked for usage in the stream: it is counted, and marked so.
    assert_eq!(line("streamed")["completion_tokens"], 3);
    assert_eq!(line("streamed")["usage_estimated"], true);
    assert_eq!(
        (&line("failed")["status"], &line("failed")["attempts"]),
        (&500.into(), &1.into())
    );
    assert_eq!(line("cut")["error"], "stream_cut");
    let gone = lines.iter().filter(|line| line["error"] == "client_gone");
    assert_eq!(gone.count(), 2);
    assert_eq!(
        gateway.metric_with("penstock_requests_total", "client_gone"),
        2.0
    );
    assert_eq!(gateway.metric("penstock_refused_heads_total"), 1.0);
}

#[test]
fn usage_that_the_engine_tells_is_counted_as_told() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    gateway.knows(&["llama"]);
    let prompt = "a prompt of some length ".repeat(40);
    let (mut input, mut output, mut cached) = (0, 0, 0);
    for _ in 0..2 {
        let body = chat("llama", &prompt, 4, true).replacen(
            '{',
            r#"{"stream_options":{"include_usage":true},"#,
            1,
        );
        let answer = post(gateway.address, CHAT, &body);
        let told = crate::servers::events(&answer.body)
            .into_iter()
            .filter(|event| event.contains("\"prompt_tokens\""))
            .map(json)
            .next_back()
            .unwrap();
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        input += number(&told["usage"]["prompt_tokens"]);
        output += number(&told["usage"]["completion_tokens"]);
        cached += number(&told["usage"]["prompt_tokens_details"]["cached_tokens"]);
    }
    assert!(cached > 0);
    // One whose engine tells none: its events are counted, and marked so.
    let answer = post(gateway.address, CHAT, &chat("llama", &prompt, 4, true));
    assert!(!answer.body.contains("prompt_tokens"), "{answer:?}");
    let page = || get(gateway.admin, "/metrics").unwrap().body;
    let counted = |kind: &str, estimated: bool| {
        let labels = format!("gen_ai_token_type=\"{kind}\",estimated=\"{estimated}\"}} ");
        let page = page();
        let counts = page.lines().filter_map(|line| line.split_once(&labels));
        counts
            .map(|(_, count)| count.parse::<u64>().unwrap())
            .sum::<u64>()
    };
    // What a request used is counted after its last byte went out.
    wait_until(|| counted("output", true) == 4);
    assert_eq!(counted("input", false), input);
    assert_eq!(counted("output", false), output);
    assert_eq!(counted("input_cached", false), cached);
    assert_eq!(counted("input", true), 0);
}

#[test]
fn pools_are_measured_under_the_extensions_names() {
    let servers: [Server; 2] = Server::llamas();
    let gateway = Gateway::over(&servers.each_ref());
    servers[0].slow(30.0);
    servers[1].slow(30.0);
    let open: Vec<Open> = (0..2)
        .map(|number| {
            Open::post(
                gateway.address,
                &chat("llama", &format!("number {number}"), 500, true),
            )
        })
        .collect();
    assert_eq!(gateway.metric("inference_pool_ready_pods"), 2.0);
    wait_until(|| gateway.metric("inference_pool_average_running_requests") == 1.0);
    wait_until(|| gateway.metric("inference_pool_average_kv_cache_utilization") > 0.0);
    let page = get(gateway.admin, "/metrics").unwrap().body;
    assert!(
        page.contains("\ninference_pool_average_queue_size{name=\"default/default\"} 0"),
        "{page}"
    );
    drop(open);
    gateway.is_quiet();
}

#[test]
fn bytes_that_are_no_request_are_refused_and_told() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let mut stream = connect(gateway.address);
    let doubled = request(CHAT, "{}", &[("content-length", "3")]);
    stream.write_all(doubled.as_bytes()).unwrap();
    let answer = read_answer(&mut BufReader::new(stream)).unwrap();
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(json(&answer.body)["error"]["message"].is_string());
    assert_eq!(server.count(), 0);
}
