//! Model names: what the engine is asked for, what the client reads, who is unknown.

use crate::gateway::{Answer, Gateway, get, post, post_with, wait_until};
use crate::scripted::lists;
use crate::servers::{CHAT, Open, Received, Scripted, Server, chat, event_stream, events, json};
use std::time::Duration;

/// A pool where clients say `friendly` and the engine knows `llama`.
fn renaming(server: &Server, args: &[&str]) -> Gateway {
    let pool = format!(
        "pools:\n  - name: chat\n    endpoints: [http://{}]\n    models:\n      - name: friendly\n        targets: [{{name: llama}}]\n      - llama\n",
        server.address
    );
    Gateway::plain(&pool, args)
}

fn last(server: &Server) -> Received {
    server.received().pop().unwrap()
}

/// Sends `body` with `friendly` through the gateway and with `llama` to the server itself.
#[track_caller]
fn same_bytes(gateway: &Gateway, server: &Server, body: &str) {
    let answer = post(gateway.address, CHAT, body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let through = last(server);
    assert_eq!(through.model.as_deref(), Some("llama"));
    let direct_body = body.replacen("\"friendly\"", "\"llama\"", 1);
    assert_ne!(direct_body, body);
    assert_eq!(post(server.address, CHAT, &direct_body).status, 200);
    let direct = last(server);
    assert_eq!(through.body_start, direct.body_start);
    assert_eq!(
        (through.body_bytes, through.body_xxh3),
        (direct.body_bytes, direct.body_xxh3)
    );
}

#[test]
fn only_the_models_name_changes_on_the_way_to_the_engine() {
    let server = Server::llama();
    let gateway = renaming(&server, &[]);
    let message = r#""messages" : [ {"role":"user", "content":"h\u00e9 \"model\": \"no\""}]"#;
    for body in [
        format!(r#"{{"model":"friendly","max_tokens":1,{message}}}"#),
        format!(
            "\n {{ \"zeta\" :1e400 ,\"model\"\t:\r\n \"friendly\" , \"max_tokens\":1,\"seed\":-0.0 , {message}, \"n30\": 123456789012345678901234567890 }} "
        ),
        format!(
            r#"{{{message},"max_tokens":1,"deep":{{"model":"friend","x":[[[{{}}]]]}},"model":"friendly"}}"#
        ),
    ] {
        same_bytes(&gateway, &server, &body);
    }
}

#[test]
fn a_large_body_with_its_model_at_the_end_passes_whole() {
    let server = Server::llama();
    let gateway = renaming(&server, &[]);
    let filler = "odd \\u0041\\\" ".repeat(30_000_000 / 12);
    let body = format!(
        r#"{{"max_tokens":1,"messages":[{{"role":"user","content":"short"}}],"extra":"{filler}","model":"friendly"}}"#
    );
    assert!(body.len() > 29_000_000);
    same_bytes(&gateway, &server, &body);
}

#[test]
fn answers_name_the_model_that_the_client_asked_for() {
    let server = Server::llama();
    let gateway = renaming(&server, &[]);
    let answer = post(gateway.address, CHAT, &chat("friendly", "hello", 3, false));
    assert_eq!(json(&answer.body)["model"], "friendly");
    let answer = post(gateway.address, CHAT, &chat("friendly", "hello", 3, true));
    let mut chunks = 0;
    for event in events(&answer.body) {
        if event != "[DONE]" {
            assert_eq!(json(event)["model"], "friendly");
            chunks += 1;
        }
    }
    assert!(chunks >= 3 && answer.body.ends_with("data: [DONE]\n\n"));
    let body = r#"{"model":"friendly","prompt":"one two","max_tokens":2,"stream":true}"#;
    let answer = post(gateway.address, "/v1/completions", body);
    assert!(answer.body.contains("\"friendly\"") && !answer.body.contains("llama"));
    let body = r#"{"model":"friendly","max_tokens":2,"stream":true,"messages":[{"role":"user","content":"x"}]}"#;
    let answer = post(gateway.address, "/v1/messages", body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("\"friendly\"") && !answer.body.contains("llama"));
    assert!(answer.body.contains("message_stop"));
}

fn targets(server: &Server, first: &str, second: &str) -> Gateway {
    let pool = format!(
        "pools:\n  - name: chat\n    endpoints: [http://{}]\n    models:\n      - name: friendly\n        targets: [{{name: v1{first}}}, {{name: v2{second}}}]\n",
        server.address
    );
    Gateway::plain(&pool, &[])
}

fn versions(server: &Server) -> (usize, usize) {
    let received = server.received();
    let of = |name: &str| {
        let named = received
            .iter()
            .filter(|one| one.model.as_deref() == Some(name));
        named.count()
    };
    (of("v1"), of("v2"))
}

#[test]
fn weights_share_the_requests_out() {
    let server = Server::start(&["--model", "v1", "--model", "v2"]);
    let gateway = targets(&server, ", weight: 3", ", weight: 1");
    for _ in 0..120 {
        let answer = post(gateway.address, CHAT, &chat("friendly", "hello", 1, false));
        assert_eq!(answer.status, 200);
    }
    let (v1, v2) = versions(&server);
    assert_eq!(v1 + v2, 120);
    // 30 expected; five standard deviations each way.
    assert!((7..=53).contains(&v2), "{v1} to {v2}");
}

#[test]
fn without_weights_the_less_used_version_serves() {
    let server = Server::start(&["--model", "v1", "--model", "v2"]);
    let gateway = targets(&server, "", "");
    server.slow(30.0);
    let open: Vec<Open> = (0..6)
        .map(|number| {
            let body = chat("friendly", &format!("number {number}"), 500, true);
            Open::post(gateway.address, &body)
        })
        .collect();
    assert_eq!(versions(&server), (3, 3));
    drop(open);
    gateway.is_quiet();
}

#[test]
fn manifests_name_targets_too() {
    let server = Server::llama();
    let model = "
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: friendly}
spec:
  modelName: friendly
  criticality: Critical
  poolRef: {name: chat}
  targetModels: [{name: llama, weight: 100}]
";
    let gateway = Gateway::manifests(&server, false, model);
    let answer = post(gateway.address, CHAT, &chat("friendly", "hello", 3, false));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(json(&answer.body)["model"], "friendly");
    assert_eq!(last(&server).model.as_deref(), Some("llama"));
}

/// The body of an OpenAI error.
#[track_caller]
fn openai_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let error = &json(&answer.body)["error"];
    assert_eq!(error["code"], code, "{answer:?}");
    assert!(error["message"].is_string() && error["type"].is_string());
}

#[test]
fn a_name_that_can_be_read_in_two_ways_is_refused() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let messages = r#""messages":[{"role":"user","content":"x"}]"#;
    for routed in [
        r#""model":"llama","model":"other""#,
        r#""model":"llama","mod\u0065l":"other""#,
        r#""\u006dodel":"llama""#,
        r#""model":"llama","stream":true,"stream":false"#,
    ] {
        let answer = post(gateway.address, CHAT, &format!("{{{routed},{messages}}}"));
        openai_error(&answer, 400, &code(&answer));
        let body = format!("{{{routed},\"max_tokens\":1,{messages}}}");
        let answer = post(gateway.address, "/v1/messages", &body);
        assert_eq!(answer.status, 400, "{answer:?}");
        let body = json(&answer.body);
        assert_eq!(body["type"], "error");
        assert_eq!(body["error"]["type"], "invalid_request_error");
    }
    assert_eq!(server.count(), 0);
}

fn code(answer: &Answer) -> String {
    let code = json(&answer.body)["error"]["code"].clone();
    code.as_str().unwrap_or_default().to_owned()
}

#[test]
fn unknown_models_are_told_in_the_callers_dialect() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    gateway.knows(&["llama"]);
    let answer = post(gateway.address, CHAT, &chat("lllama", "x", 1, true));
    openai_error(&answer, 404, "model_not_found");
    assert!(answer.body.contains("there is llama"), "{answer:?}");
    let answer = post(
        gateway.address,
        "/v1/messages",
        &chat("lllama", "x", 1, true),
    );
    assert_eq!(answer.status, 404);
    assert_eq!(json(&answer.body)["error"]["type"], "not_found_error");
    assert_eq!(server.count(), 0);
}

#[test]
fn a_server_that_does_not_tell_its_models_gets_unknown_ones() {
    let stream = event_stream(&[
        r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}"#,
        "[DONE]",
    ]);
    let silent = Scripted::start(&[(&stream, Duration::ZERO)]);
    let known = Server::llama();
    let gateway = Gateway::before(&[known.address, silent.address]);
    gateway.knows(&["llama"]);
    wait_until(|| {
        let answer = post(gateway.address, CHAT, &chat("mystery", "x", 1, true));
        // The one that told its models may be tried as well: it answers 404 itself.
        answer.status == 200 || answer.body.contains("does not exist")
    });
    let answer = post_with(gateway.address, CHAT, &chat("mystery", "x", 1, true), &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(silent.received()[0].contains("mystery"));
}

#[test]
fn what_is_no_list_of_models_does_not_tell_them() {
    for (models, status) in [
        ("hello", 200),
        ("", 200),
        ("{}", 200),
        ("[]", 200),
        (r#"{"data": 5}"#, 200),
        (r#"{"data": null}"#, 200),
        (r#"{"object":"list","data":[{"name":"llama"}]}"#, 200),
        (r#"{"object":"list","data":[{"id":"llama"}"#, 200),
        (r#"{"object":"list","data":[{"id":"llama"}]}"#, 404),
        (r#"{"object":"list","data":[]}"#, 404),
    ] {
        let gateway = Gateway::before(&[lists(models)]);
        let answer = post(gateway.address, CHAT, &chat("mystery", "x", 1, false));
        assert_eq!(answer.status, status, "{models}: {answer:?}");
        match status {
            200 => assert_eq!(answer.body, "served", "{models}"),
            _ => openai_error(&answer, 404, "model_not_found"),
        }
    }
}

#[test]
fn the_list_of_models_has_those_of_all_pools() {
    let one = Server::start(&["--model", "llama", "--adapter", "sql"]);
    let two = Server::start(&["--model", "qwen"]);
    let gateway = Gateway::plain(
        &format!(
            "pools:\n  - name: one\n    endpoints: [http://{}]\n    models: [llama, sql, {{name: declared, targets: [{{name: llama}}]}}]\n  - name: two\n    endpoints: [http://{}]\n    models: [qwen]\n",
            one.address, two.address
        ),
        &[],
    );
    gateway.knows(&["llama", "sql", "declared", "qwen"]);
    let list = json(&get(gateway.address, "/v1/models").unwrap().body);
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"].as_array().unwrap().len(), 4);
    for model in ["llama", "sql", "qwen"] {
        let answer = post(gateway.address, CHAT, &chat(model, "x", 1, false));
        assert_eq!(answer.status, 200, "{model}: {answer:?}");
    }
    let answer = post(gateway.address, CHAT, &chat("declared", "x", 1, false));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!((one.count(), two.count()), (3, 1));
}
