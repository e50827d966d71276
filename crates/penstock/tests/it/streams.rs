//! Requests through the gateway to simulated servers: answers, streams, failures, explanations.

use crate::gateway::{Gateway, get, mock, penstock, post, wait_until};

fn chat(model: &str, content: &str, stream: bool) -> String {
    format!(
        r#"{{"model":"{model}","stream":{stream},"max_tokens":5,"messages":[{{"role":"user","content":"{content}"}}]}}"#
    )
}

#[test]
fn an_answer_comes_through_and_tells_how() {
    let (_server, server) = mock(&["--model", "llama"]);
    let gateway = Gateway::before(&[server]);
    let answer = post(
        gateway.address,
        "/v1/chat/completions",
        &chat("llama", "hello", false),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer.body.contains("\"chat.completion\""),
        "{}",
        answer.body
    );
    assert_eq!(
        answer.field("x-penstock-endpoint"),
        Some(server.to_string().as_str())
    );
    assert!(answer.field("x-request-id").is_some());
    assert!(answer.field("x-penstock-overhead-us").is_some());
}

#[test]
fn a_stream_comes_through_to_its_end_mark() {
    let (_server, server) = mock(&["--model", "llama"]);
    let gateway = Gateway::before(&[server]);
    let answer = post(
        gateway.address,
        "/v1/chat/completions",
        &chat("llama", "hello", true),
    );
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer
            .field("content-type")
            .map(|t| t.starts_with("text/event-stream")),
        Some(true)
    );
    assert!(
        answer.body.trim_end().ends_with("data: [DONE]"),
        "{}",
        answer.body
    );
}

#[test]
fn models_of_all_servers_are_listed() {
    let (_one, one) = mock(&["--model", "llama"]);
    let (_two, two) = mock(&["--model", "llama", "--adapter", "sql"]);
    let gateway = Gateway::before(&[one, two]);
    wait_until(|| {
        let models = get(gateway.address, "/v1/models").unwrap().body;
        models.contains("\"llama\"") && models.contains("\"sql\"")
    });
}

#[test]
fn an_unknown_model_is_refused_with_near_names() {
    let (_server, server) = mock(&["--model", "llama"]);
    let gateway = Gateway::before(&[server]);
    let answer = post(
        gateway.address,
        "/v1/chat/completions",
        &chat("lama", "hello", false),
    );
    assert_eq!(answer.status, 404, "{answer:?}");
    assert!(
        answer.body.contains("model_not_found") && answer.body.contains("llama"),
        "{}",
        answer.body
    );
}

#[test]
fn a_dead_server_costs_no_request() {
    let (server, address) = mock(&["--model", "llama"]);
    let (_other, other) = mock(&["--model", "llama"]);
    let gateway = Gateway::before(&[address, other]);
    drop(server);
    for _ in 0..10 {
        let answer = post(
            gateway.address,
            "/v1/chat/completions",
            &chat("llama", "hello", true),
        );
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            answer.field("x-penstock-endpoint"),
            Some(other.to_string().as_str())
        );
    }
}

#[test]
fn a_stream_that_the_server_cuts_ends_in_an_error_event() {
    let (_server, server) = mock(&["--model", "llama", "--fault", "reset:after=2"]);
    let gateway = Gateway::before(&[server]);
    let answer = post(
        gateway.address,
        "/v1/chat/completions",
        &chat("llama", "hello", true),
    );
    assert!(!answer.body.contains("[DONE]"), "{}", answer.body);
    assert!(answer.body.contains("\"stream_cut\""), "{}", answer.body);
}

#[test]
fn why_explains_the_last_request_and_replays_it() {
    let (_one, one) = mock(&["--model", "llama"]);
    let (_two, two) = mock(&["--model", "llama"]);
    let gateway = Gateway::before(&[one, two]);
    for _ in 0..5 {
        post(
            gateway.address,
            "/v1/chat/completions",
            &chat("llama", "hello", false),
        );
    }
    let admin = format!("http://{}", gateway.admin);
    let out = penstock(&["why", "last", "--admin", &admin])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{out:?}");
    assert!(
        text.contains(&one.to_string()) && text.contains(&two.to_string()),
        "{text}"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("decisions.jsonl");
    let file = file.to_str().unwrap();
    assert!(
        penstock(&["why", "--admin", &admin, "--save", file])
            .status()
            .unwrap()
            .success()
    );
    let out = penstock(&["why", "--replay", file]).output().unwrap();
    assert!(out.status.success(), "{out:?}");
}

#[test]
fn a_busy_port_names_its_holder() {
    let (_server, server) = mock(&[]);
    let listen = server.to_string();
    let out = penstock(&[
        "run",
        "--listen",
        &listen,
        "--admin",
        "127.0.0.1:0",
        "--endpoint",
        "http://127.0.0.1:1",
    ])
    .output()
    .unwrap();
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1));
    assert!(error.contains("is in use by penstock (pid"), "{error}");
}
