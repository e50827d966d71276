//! Errors: every row of the failure table that can be provoked from outside, in both dialects.
//!
//! The rows are those of `docs/errors.md`; each is tested here or names the file that tests it.

use crate::configured::{Configured, GATEWAY, pool, route, service, to_pool};
use crate::gateway::{
    Answer, Gateway, connect, free_address, post_with, read_answer, request, wait_until,
};
use crate::over2::{Http2, post};
use crate::servers::{Open, Scripted, Server, chat, json};
use std::collections::BTreeSet;
use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Both dialects.
const OPENAI: &str = "/v1/chat/completions";
const ANTHROPIC: &str = "/v1/messages";

/// Whether `Retry-After` is promised.
const WAIT: bool = true;
const NO_WAIT: bool = false;

/// A row: what is asked for, status, code, phase, `Retry-After`.
type Row = (&'static str, u16, &'static str, &'static str, bool);

/// Each names its rule in the field `x-case`.
const ROWS: &[Row] = &[
    ("nowhere", 404, "no_route", "route", NO_WAIT),
    ("models", 404, "model_not_found", "route", NO_WAIT),
    ("weightless", 500, "no_backend", "route", NO_WAIT),
    ("missing", 500, "invalid_backend", "route", NO_WAIT),
    ("filtered", 500, "invalid_backend", "route", NO_WAIT),
    ("empty-pool", 503, "no_endpoints", "queue", WAIT),
    ("empty-service", 503, "no_endpoints", "queue", WAIT),
    ("dead", 503, "connect_failed", "connect", NO_WAIT),
    ("dead-service", 503, "connect_failed", "connect", NO_WAIT),
    ("closes", 502, "closed_early", "head", NO_WAIT),
    ("resets", 502, "closed_early", "head", NO_WAIT),
    ("breaks-off", 502, "reset", "head", NO_WAIT),
    ("babbles", 502, "bad_response", "head", NO_WAIT),
    ("smuggles", 502, "bad_response", "head", NO_WAIT),
    ("slow-try", 504, "response_timeout", "head", NO_WAIT),
    ("slow", 504, "request_timeout", "head", NO_WAIT),
];

/// Codes of `docs/errors.md` that other tests provoke, and the words by which they do.
const EXTERNAL: &str = include_str!("external.rs");

const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("client_gone", include_str!("books.rs"), "\"client_gone\""),
    ("misdirected_request", include_str!("tls.rs"), "421"),
    (
        "engine_error",
        include_str!("events.rs"),
        "\"engine_error\"",
    ),
    ("stream_cut", include_str!("events.rs"), "\"stream_cut\""),
    ("picker_unavailable", EXTERNAL, "\"picker_unavailable\""),
    ("picker_timeout", EXTERNAL, "\"picker_timeout\""),
    (
        "picker_no_destination",
        EXTERNAL,
        "\"picker_no_destination\"",
    ),
    // Its text is the picker's.
    ("picker_answer", EXTERNAL, "asked(\"answered\")"),
    ("memory", include_str!("memory.rs"), "\"memory\""),
    (
        "stream_idle_timeout",
        include_str!("silence.rs"),
        "\"stream_idle_timeout\"",
    ),
    (
        "client_stalled",
        include_str!("silence.rs"),
        "\"client_stalled\"",
    ),
];

/// A code that only bytes beyond the limit of the body would bring.
const NOT_FROM_OUTSIDE: &[&str] = &["body_too_large"];

fn asked(case: &str, path: &str) -> (String, String) {
    let model = match case {
        "models" => "unheard-of",
        _ => "llama",
    };
    (path.to_owned(), chat(model, "hello", 3, false))
}

#[derive(Debug)]
struct Failing {
    gateway: Configured,
    _servers: [Server; 3],
    _scripted: [Scripted; 4],
}

/// One rule for each row but the first, found by its name.
fn rules() -> Vec<String> {
    let rule = |case: &str, rest: &str| {
        format!("{{matches: [{{headers: [{{name: x-case, value: {case}}}]}}], {rest}}}")
    };
    let to = |case: &str| rule(case, &format!("backendRefs: [{}]", to_pool(case)));
    let timed = |case: &str, timeout: &str| {
        let backend = to_pool("hangs");
        rule(
            case,
            &format!("timeouts: {{{timeout}}}, backendRefs: [{backend}]"),
        )
    };
    let web = |case: &str, service: &str| {
        rule(
            case,
            &format!("backendRefs: [{{name: {service}, port: 80}}]"),
        )
    };
    let filtered = "filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP}}], \
        backendRefs: [{name: empty-service, port: 80}]";
    vec![
        to("models"),
        rule(
            "weightless",
            "backendRefs: [{name: empty-service, port: 80, weight: 0}]",
        ),
        web("missing", "gone"),
        rule("filtered", filtered),
        to("empty-pool"),
        web("empty-service", "empty-service"),
        to("dead"),
        web("dead-service", "dead-service"),
        to("closes"),
        to("resets"),
        to("breaks-off"),
        to("babbles"),
        to("smuggles"),
        timed("slow-try", "backendRequest: 200ms"),
        timed("slow", "request: 200ms"),
    ]
}

fn failing() -> Failing {
    let servers = [
        Server::llama(),
        Server::start(&["--model", "llama", "--fault", "refuse"]),
        Server::start(&["--model", "llama", "--fault", "hang"]),
    ];
    let says = |text: &str| Scripted::start(&[(text, Duration::ZERO)]);
    let scripted = [
        says(""),
        says("HTTP/1.1 200 OK\r\ncontent-type: "),
        says("<html>no HTTP</html>\r\n\r\n"),
        says("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ];
    let [fine, resets, hangs] = servers.each_ref().map(|server| server.address);
    let [closes, breaks_off, babbles, smuggles] = scripted.each_ref().map(|server| server.address);
    let dead = free_address();
    let pools: [(&str, &[SocketAddr]); 9] = [
        ("models", &[fine]),
        ("empty-pool", &[]),
        ("dead", &[dead]),
        ("closes", &[closes]),
        ("resets", &[resets]),
        ("breaks-off", &[breaks_off]),
        ("babbles", &[babbles]),
        ("smuggles", &[smuggles]),
        ("hangs", &[hangs]),
    ];
    let mut text = GATEWAY.to_owned() + &route("all", &format!("rules: [{}]", rules().join(", ")));
    text.push_str(&service("empty-service", &[]));
    text.push_str(&service("dead-service", &[dead]));
    for (name, members) in pools {
        text.push_str(&pool(name, "", members));
    }
    Failing {
        gateway: Configured::start(&text),
        _servers: servers,
        _scripted: scripted,
    }
}

/// The error in the words of `path`'s dialect, with everything that is promised of it.
#[track_caller]
fn is_error(answer: &Answer, path: &str, (case, status, code, phase, waits): Row) {
    assert_eq!(answer.status, status, "{case} {path}: {answer:?}");
    assert_eq!(
        answer.field("content-type"),
        Some("application/json"),
        "{case} {answer:?}"
    );
    assert_eq!(
        answer.field("x-penstock-phase"),
        Some(phase),
        "{case} {path}: {answer:?}"
    );
    let id = answer.field("x-request-id").unwrap_or_default();
    assert!(!id.is_empty(), "{case} {path}: {answer:?}");
    let after = answer.field("retry-after").map(str::parse::<u32>);
    assert_eq!(after.is_some(), waits, "{case} {path}: {answer:?}");
    assert!(
        after.is_none_or(|after| after.is_ok_and(|after| after >= 1)),
        "{answer:?}"
    );
    assert!(!answer.body.contains('<'), "{case} {path}: {answer:?}");
    let body = json(&answer.body);
    let error = &body["error"];
    for key in ["message", "type"] {
        let text = error[key].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{case} {path}: {answer:?}");
    }
    if path == ANTHROPIC {
        assert_eq!(body["type"], "error", "{case} {path}: {answer:?}");
        assert!(error.get("code").is_none(), "{case} {path}: {answer:?}");
    } else {
        assert_eq!(error["code"], code, "{case} {path}: {answer:?}");
        assert!(body.get("type").is_none(), "{case} {path}: {answer:?}");
    }
}

#[test]
fn every_failure_has_its_status_code_and_phase_in_both_dialects() {
    let failing = failing();
    let gateway = &failing.gateway;
    for row in ROWS {
        for path in [OPENAI, ANTHROPIC] {
            let (path, body) = asked(row.0, path);
            // The first request may find a server whose models are not known yet.
            let mut answer = post_with(gateway.address, &path, &body, &[("x-case", row.0)]);
            if row.0 == "models" {
                let ask = || post_with(gateway.address, &path, &body, &[("x-case", row.0)]);
                wait_until(|| ask().status == 404);
                answer = ask();
            }
            is_error(&answer, &path, *row);
        }
    }
}

#[test]
fn an_error_of_head_is_its_head_alone() {
    let failing = failing();
    for row in ROWS {
        let mut stream = connect(failing.gateway.address);
        let head = format!("HEAD /x HTTP/1.1\r\nhost: a\r\nx-case: {}\r\n\r\n", row.0);
        let next = "GET /v1/models HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        stream.write_all((head + next).as_bytes()).unwrap();
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        let (first, rest) = all.split_once("\r\n\r\n").unwrap();
        // Without a body nothing names a model, and scripted servers answer no HEAD.
        let status: u16 = first.split(' ').nth(1).unwrap().parse().unwrap();
        assert!((400..600).contains(&status), "{} {all}", row.0);
        assert!(rest.starts_with("HTTP/1.1 200 OK\r\n"), "{} {all}", row.0);
        assert_eq!(all.matches("HTTP/1.1 ").count(), 2, "{} {all}", row.0);
        // Some clients parse by the type, even where nothing comes.
        if first.contains("x-penstock-phase") {
            assert!(!first.contains("content-type"), "{} {all}", row.0);
        }
    }
}

#[test]
fn a_body_that_is_too_large_is_told_both_numbers() {
    let server = Server::llama();
    too_large(&Gateway::over(&[&server]), 64 << 20);
    let endpoint = format!("http://{}", server.address);
    let gateway = Gateway::run(&["--endpoint", &endpoint, "--max-body", "1MiB"]);
    too_large(&gateway, 1 << 20);
    assert_eq!(server.count(), 0);
    // One that just fits is taken.
    let frame = chat("llama", "", 1, false);
    let body = chat("llama", &"a".repeat((1 << 20) - frame.len()), 1, false);
    assert_eq!(body.len(), 1 << 20);
    assert_ne!(
        crate::gateway::post(gateway.address, OPENAI, &body).status,
        413
    );
    let client = Http2::connect(gateway.address);
    assert_eq!(client.post(OPENAI, &(body + " ")).status, 413);
}

fn too_large(gateway: &Gateway, most: usize) {
    for path in [OPENAI, ANTHROPIC] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nx-request-id: large\r\ncontent-length: {}\r\n\r\n",
            most + 7
        );
        let mut stream = connect(gateway.address);
        stream.write_all(head.as_bytes()).unwrap();
        let answer = read_answer(&mut BufReader::new(stream)).unwrap();
        is_error(
            &answer,
            path,
            ("large", 413, "request_too_large", "body", NO_WAIT),
        );
        for number in [most, most + 7] {
            assert!(answer.body.contains(&number.to_string()), "{answer:?}");
        }
        assert_eq!(answer.field("x-request-id"), Some("large"));
        assert_eq!(answer.field("connection"), Some("close"));
    }
    gateway.is_quiet();
}

#[test]
fn bodies_that_are_not_understood_are_told_in_both_dialects() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    for (code, body) in [
        ("body_not_object", ""),
        ("body_not_object", "[]"),
        ("body_not_object", "<html></html>"),
        ("body_not_json", "{\"model\" \"llama\"}"),
        ("not_a_string", "{\"model\":[\"llama\"]}"),
        ("duplicate_key", "{\"model\":\"llama\",\"model\":\"other\"}"),
        ("escaped_key", "{\"mod\\u0065l\":\"llama\"}"),
        (
            "model_too_long",
            &format!("{{\"model\":\"{}\"}}", "l".repeat(1025)),
        ),
        ("body_truncated", "{\"model\":\"llama\",\"messages\":["),
    ] {
        for path in [OPENAI, ANTHROPIC] {
            let answer = post_with(gateway.address, path, body, &[]);
            is_error(&answer, path, (code, 400, code, "request", NO_WAIT));
        }
    }
    assert_eq!(server.count(), 0);
}

/// What a client gets that sends this and then nothing, or a byte of `drops` now and then.
fn slow(address: SocketAddr, text: &str, drops: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(text.as_bytes()).unwrap();
    let mut dripping = stream.try_clone().unwrap();
    let answered = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ended = &answered;
        scope.spawn(move || {
            for drop in drops.bytes().cycle() {
                std::thread::sleep(Duration::from_millis(50));
                let is_gone = dripping.write_all(&[drop]).is_err();
                if is_gone || ended.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let answer = read_answer(&mut BufReader::new(stream));
        answered.store(true, Ordering::Relaxed);
        answer.expect("an answer")
    })
}

#[test]
fn clients_that_do_not_finish_are_told_so() {
    let server = Server::llama();
    let url = format!("http://{}", server.address);
    let limits = "head=700ms,body-idle=900ms";
    let gateway = Gateway::run(&["--endpoint", &url, "--limit", limits]);
    let head = "GET /x HTTP/1.1\r\nhost: a\r\n".to_owned();
    let unfinished = |path: &str| {
        let whole = request(path, &chat("llama", &"hello".repeat(99), 3, false), &[]);
        whole[..whole.len() - 400].to_owned()
    };
    let in_head = ("head", 408, "head_timeout", "request", NO_WAIT);
    let in_body = ("body", 408, "body_timeout", "body", NO_WAIT);
    std::thread::scope(|scope| {
        for (path, text, drops, row) in [
            (OPENAI, head.clone(), "", in_head),
            (OPENAI, head, "x: y\r\n", in_head),
            (OPENAI, unfinished(OPENAI), "", in_body),
            (OPENAI, unfinished(OPENAI), "l", in_body),
            (ANTHROPIC, unfinished(ANTHROPIC), "", in_body),
        ] {
            let gateway = &gateway;
            scope.spawn(move || is_error(&slow(gateway.address, &text, drops), path, row));
        }
        scope.spawn(|| {
            let client = Http2::connect(gateway.address);
            let mut begun = client.begin_unfinished(post(OPENAI));
            begun.send.send_data(vec![b'{'].into(), false).unwrap();
            let answer = begun.open().whole().unwrap();
            is_error(&answer, OPENAI, in_body);
        });
    });
    assert_eq!(server.count(), 0);
    gateway.is_quiet();
}

#[test]
fn a_saturated_pool_is_told_in_both_dialects() {
    let server = Server::llama();
    let plain = format!(
        "pools:\n  - name: chat\n    endpoints: [http://{}]\n    saturationSeconds: 0.0001\n    \
        queue: {{requests: 1, seconds: 1}}\n    models:\n      \
        - {{name: llama, criticality: Critical, targets: [{{name: llama}}]}}\n      \
        - {{name: cheap, criticality: Sheddable, targets: [{{name: llama}}]}}\n",
        server.address
    );
    let gateway = Gateway::plain(&plain, &[]);
    gateway.knows(&["llama"]);
    server.slow(20.0);
    let mut held = Open::post(gateway.address, &chat("llama", "holds", 100_000, true));
    assert!(held.chunk().is_some());
    for path in [OPENAI, ANTHROPIC] {
        let ask = |model: &str| post_with(gateway.address, path, &chat(model, "a", 1, false), &[]);
        let is_dropped = |answer: &Answer, code: &'static str| {
            is_error(answer, path, (code, 429, code, "queue", WAIT));
            assert_eq!(answer.field("x-llm-d-request-dropped-reason"), Some(code));
        };
        is_dropped(&ask("cheap"), "saturated");
        let mut waits = connect(gateway.address);
        let text = request(path, &chat("llama", "waits", 1, false), &[]);
        waits.write_all(text.as_bytes()).unwrap();
        wait_until(|| gateway.metric("penstock_queue_requests") == 1.0);
        is_dropped(&ask("llama"), "queue_full");
        let late = read_answer(&mut BufReader::new(waits)).unwrap();
        is_dropped(&late, "queue_timeout");
    }
    drop(held);
    gateway.is_quiet();
}

#[test]
fn every_code_of_the_page_is_provoked_somewhere() {
    let page = include_str!("../../../../docs/errors.md");
    let listed: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    assert!(listed.len() > 25, "{listed:?}");
    let own = include_str!("errors.rs");
    let (rows, rest) = own.split_once("const ELSEWHERE").unwrap();
    let (_, tests) = rest.split_once("fn asked").unwrap();
    let (tests, _) = tests.split_once("fn every_code_of_the_page").unwrap();
    for code in listed {
        let quoted = format!("\"{code}\"");
        let ways = [
            rows.contains(&quoted) || tests.contains(&quoted),
            ELSEWHERE
                .iter()
                .any(|(known, file, words)| *known == code && file.contains(words)),
            NOT_FROM_OUTSIDE.contains(&code),
        ];
        let count = ways.into_iter().filter(|way| *way).count();
        assert_eq!(count, 1, "{code}");
    }
}
