//! The books: what clients saw, the access log and the counters tell the same story, request by
//! request, and nothing stays counted as under way.

use crate::gateway::{Answer, Gateway, connect, get, read_answer, request, wait_until};
use crate::servers::{CHAT, Open, Server, chat, events, json};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufReader, Write};
use std::path::Path;
use std::sync::Mutex;

const CLIENTS: usize = 8;
/// A multiple of the number of ways to ask.
const REQUESTS: usize = 27;

/// What a client saw at the end: the status and the code of the error, or nothing when it left.
type Seen = Mutex<BTreeMap<String, Option<(u16, Option<String>)>>>;

/// How a client asks.
const WAYS: usize = 9;

fn send(gateway: &Gateway, text: &str) -> Option<Answer> {
    let mut stream = connect(gateway.address);
    stream.write_all(text.as_bytes()).unwrap();
    read_answer(&mut BufReader::new(stream))
}

/// The error of an answer, as a body or as the last event of a stream.
fn code(answer: &Answer) -> Option<String> {
    let text = match events(&answer.body).last() {
        Some(event) => (*event).to_owned(),
        None => answer.body.clone(),
    };
    let parsed: Value = serde_json::from_str(&text).ok()?;
    parsed["error"]["code"].as_str().map(str::to_owned)
}

fn one_request(gateway: &Gateway, id: String, way: usize, seen: &Seen) {
    let with_id = [("x-request-id", id.as_str())];
    let ask = |model: &str, stream: bool| {
        let prompt = format!("about {id} ").repeat(20);
        request(CHAT, &chat(model, &prompt, 3, stream), &with_id)
    };
    let outcome = match way {
        0 => send(gateway, &ask("llama", false)),
        1 | 2 => send(gateway, &ask("llama", true)),
        3 => send(gateway, &ask("cheap", true)),
        4 => send(gateway, &ask("none", false)),
        5 => send(gateway, &request(CHAT, "{\"model\":", &with_id)),
        6 => {
            let mut stream = connect(gateway.address);
            stream.write_all(ask("llama", true).as_bytes()).unwrap();
            None
        }
        7 => {
            let mut stream = connect(gateway.address);
            stream.write_all(ask("llama", true).as_bytes()).unwrap();
            let mut open = Open::read(stream);
            if open.status == 200 {
                open.chunk();
            }
            None
        }
        _ => {
            let text = ask("llama", false);
            let mut stream = connect(gateway.address);
            stream
                .write_all(&text.as_bytes()[..text.len() - 3])
                .unwrap();
            None
        }
    };
    if let Some(answer) = &outcome {
        assert_eq!(
            answer.field("x-request-id"),
            Some(id.as_str()),
            "{answer:?}"
        );
    }
    let outcome = outcome.map(|answer| (answer.status, code(&answer)));
    assert!(seen.lock().unwrap().insert(id, outcome).is_none());
}

/// Two servers that fail now and then behind a small queue, without a request so far.
fn gateway(servers: &[Server; 2], log: &Path) -> Gateway {
    let endpoints: Vec<String> = servers
        .iter()
        .map(|server| format!("http://{}", server.address))
        .collect();
    let plain = format!(
        "pools:\n  - name: chat\n    endpoints: [{}]\n    saturationSeconds: 0.0001\n    \
        queue: {{requests: 3, seconds: 1}}\n    models:\n      \
        - {{name: llama, criticality: Critical, targets: [{{name: llama}}]}}\n      \
        - {{name: cheap, criticality: Sheddable, targets: [{{name: llama}}]}}\n",
        endpoints.join(", ")
    );
    let args = ["--workers", "2", "--access-log", log.to_str().unwrap()];
    let gateway = Gateway::plain(&plain, &args);
    // Not by a request: each would be in the books.
    wait_until(|| {
        let pools = get(gateway.admin, "/debug/pools").unwrap().body;
        json(&pools)[0]["endpoints"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["models"][0] == "llama")
    });
    for fault in ["500:p=0.15", "refuse:p=0.1", "slow-head:ms=40,p=0.3"] {
        servers[0].fault(fault);
    }
    for fault in [
        "reset:after=1,p=0.3",
        "error-event:p=0.1",
        "truncate:after=1,p=0.25",
    ] {
        servers[1].fault(fault);
    }
    gateway
}

fn log_lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(json).collect()
}

/// The outcome that a line of the log stands for, by the table in `docs/errors.md`.
fn outcome(line: &Value) -> &'static str {
    let page = include_str!("../../../../docs/errors.md");
    let Some(error) = line["error"].as_str() else {
        return match line["status"].as_u64().unwrap() {
            500.. => "engine_error",
            400.. => "client_error",
            _ => "ok",
        };
    };
    if error == "client_gone" {
        return "client_gone";
    }
    let is_of = |row: &&str| row.starts_with(&format!("| `{error}` |"));
    let Some(row) = page.lines().find(is_of) else {
        // What HTTP forbids is the client's.
        let refusals = include_str!("../../../../docs/http.md");
        assert!(refusals.lines().any(|row| is_of(&row)), "{error}");
        return "client_error";
    };
    match row.split('|').nth(3).unwrap().trim() {
        "gateway" => "gateway_error",
        "engine" => "engine_error",
        // The second table has no side: what is not understood is the client's.
        _ => "client_error",
    }
}

#[test]
fn clients_log_and_counters_tell_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.jsonl");
    let servers: [Server; 2] = Server::llamas();
    let gateway = gateway(&servers, &log);
    let seen = Seen::default();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (gateway, seen) = (&gateway, &seen);
            scope.spawn(move || {
                for number in 0..REQUESTS {
                    let id = format!("client-{client}.{number}");
                    one_request(gateway, id, (client + number) % WAYS, seen);
                }
            });
        }
    });
    let heads = 3;
    for _ in 0..heads {
        let answer = send(&gateway, "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n").unwrap();
        assert_eq!(answer.status, 400);
        assert_eq!(
            answer.field("x-request-id").unwrap().len(),
            32,
            "{answer:?}"
        );
    }
    let seen = seen.into_inner().unwrap();
    let total = seen.len() + heads;
    assert_eq!(seen.len(), CLIENTS * REQUESTS);
    wait_until(|| gateway.metric("penstock_requests_total") >= total as f64);
    wait_until(|| log_lines(&log).len() >= total);
    wait_until(|| gateway.under_way().is_empty());

    let lines = log_lines(&log);
    assert_eq!(lines.len(), total);
    assert_eq!(gateway.metric("penstock_requests_total"), total as f64);
    assert_eq!(
        gateway.metric("penstock_access_log_lines_total"),
        total as f64
    );
    assert_eq!(gateway.metric("penstock_access_log_dropped_total"), 0.0);
    assert_eq!(gateway.metric("penstock_panics_total"), 0.0);
    // Clients that left and bodies that JSON forbids are no fault of HTTP.
    assert_eq!(gateway.metric("penstock_refused_heads_total"), heads as f64);
    by_outcome(&gateway, &lines);
    by_request(&lines, &seen);
    let tries: u64 = lines
        .iter()
        .filter_map(|line| line["attempts"].as_u64())
        .sum();
    let tried = lines
        .iter()
        .filter(|line| line["attempts"].is_u64())
        .count();
    let again = gateway.metric("penstock_retries_total");
    assert_eq!(
        (tries - tried as u64) as f64,
        again,
        "tries after the first"
    );
    assert!(again > 0.0, "a mix without a retry shows less");
}

/// The counter by outcome is the log by outcome; and the mix was one.
fn by_outcome(gateway: &Gateway, lines: &[Value]) {
    let mut known = 0.0;
    for name in [
        "ok",
        "client_error",
        "client_gone",
        "gateway_error",
        "engine_error",
    ] {
        let logged = lines.iter().filter(|line| outcome(line) == name).count() as f64;
        let label = format!("outcome=\"{name}\"");
        let counted = gateway.metric_with("penstock_requests_total", &label);
        assert_eq!(counted, logged, "{name}");
        assert!(counted > 0.0, "{name}");
        known += counted;
    }
    assert_eq!(known, lines.len() as f64);
}

/// What a client saw is what its line says; each has one.
fn by_request(lines: &[Value], seen: &BTreeMap<String, Option<(u16, Option<String>)>>) {
    for (id, saw) in seen {
        let own: Vec<&Value> = lines
            .iter()
            .filter(|line| line["id"] == id.as_str())
            .collect();
        assert_eq!(own.len(), 1, "{id}: {own:?}");
        let line = own[0];
        let Some((status, code)) = saw else {
            continue;
        };
        assert_eq!(line["status"], *status, "{line} {code:?}");
        // What an engine says in its own words has our code in the log alone.
        let logged = line["error"].as_str();
        assert!(
            logged == code.as_deref() || logged == Some("engine_error") || code.is_none(),
            "{line} {code:?}"
        );
        assert!(
            code.is_none() || *status != 200 || logged.is_some(),
            "{line}"
        );
        assert!(
            *status != 200 || code.is_some() || logged.is_none() || line["events"].is_null(),
            "{line}"
        );
    }
}
