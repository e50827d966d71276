//! The mock server over real sockets: API, cache, leaving clients. Faults are in `tests/faults`.
//! Servers run 200 times as fast as their profile; waiting is asking again, never sleeping.

mod faults;
mod http;

use serde_json::{Value, json};

use crate::{EngineSpec, MockSpec, Profile};
use http::{Connection, Served, chat, fast, get, mock, post, request};

/// A prompt of 40 words; 4 bytes each with the space.
fn prompt(tag: &str) -> String {
    format!("{tag} ").repeat(40)
}

fn contents(body: &str) -> String {
    let deltas = events(body).into_iter().filter_map(|event| {
        event["choices"][0]["delta"]["content"]
            .as_str()
            .map(str::to_owned)
    });
    deltas.collect()
}

/// The JSON of all events but `[DONE]`.
fn events(body: &str) -> Vec<Value> {
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    let json = data
        .filter(|data| *data != "[DONE]")
        .map(serde_json::from_str);
    json.collect::<Result<_, _>>().expect("events are JSON")
}

/// The value of the first series of a metric.
async fn metric(served: &Served, name: &str) -> f64 {
    let page = get(served.address, "/metrics").await.body;
    let line = page
        .lines()
        .find(|line| line.starts_with(&format!("vllm:{name}{{")));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value
        .unwrap_or_else(|| panic!("no {name} in {page}"))
        .parse()
        .expect("number")
}

/// Asks until the metric has the value; the test's own time limit ends it otherwise.
async fn until_metric(served: &Served, name: &str, wanted: f64) {
    let reached = async {
        while metric(served, name).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    let reached = tokio::time::timeout(limit, reached).await;
    reached.unwrap_or_else(|_| panic!("{name} never became {wanted}"));
}

#[tokio::test]
async fn a_streamed_chat_says_what_the_whole_one_says() {
    let served = mock(fast());
    let whole = chat(served.address, json!({ "max_tokens": 7 }))
        .await
        .json();
    let stream = json!({
        "max_tokens": 7, "stream": true, "stream_options": { "include_usage": true },
    });
    let streamed = chat(served.address, stream).await;
    assert_eq!(streamed.status, 200);
    assert!(
        streamed.head.contains("text/event-stream"),
        "{}",
        streamed.head
    );
    assert!(
        streamed.clean && streamed.body.ends_with("data: [DONE]\n\n"),
        "{}",
        streamed.body
    );
    assert_eq!(
        whole["choices"][0]["message"]["content"],
        contents(&streamed.body)
    );
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    assert_eq!(whole["usage"]["completion_tokens"], 7);

    let events = events(&streamed.body);
    // Role, seven tokens, usage.
    assert_eq!(events.len(), 9);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events[7]["choices"][0]["finish_reason"], "length");
    assert_eq!(events[6]["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(events[8]["choices"], json!([]));
    assert_eq!(
        events[8]["usage"]["total_tokens"],
        whole["usage"]["total_tokens"]
    );
}

#[tokio::test]
async fn without_a_limit_an_answer_ends_by_itself_and_usage_only_on_demand() {
    let served = mock(fast());
    let streamed = chat(served.address, json!({ "stream": true })).await;
    let events = events(&streamed.body);
    assert_eq!(
        events.last().expect("events")["choices"][0]["finish_reason"],
        "stop"
    );
    assert!(events.iter().all(|event| event.get("usage").is_none()));
    assert!((18..=130).contains(&(events.len() + 1)), "{}", events.len());
}

#[tokio::test]
async fn a_repeated_prompt_and_the_next_turn_are_found_in_the_cache() {
    let served = mock(fast());
    let ask = |messages: Value| {
        chat(
            served.address,
            json!({ "messages": messages, "max_tokens": 64 }),
        )
    };
    let user = json!({ "role": "user", "content": prompt("one") });
    let first = ask(json!([user])).await.json();
    let tokens = first["usage"]["prompt_tokens"].as_u64().expect("count");
    assert_eq!(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    let again = ask(json!([user])).await.json();
    let cached = again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    assert_eq!(cached, Some((tokens - 1) / 16 * 16));
    assert_eq!(again["choices"], first["choices"]);

    let answer = &first["choices"][0]["message"];
    let more = json!({ "role": "user", "content": "go on" });
    let next =
        ask(json!([user, { "role": "assistant", "content": answer["content"] }, more])).await;
    let cached = next.json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    assert_eq!(
        cached,
        Some((tokens + 63) / 16 * 16),
        "prompt and answer are found"
    );
    assert!(metric(&served, "prefix_cache_hits_total").await > 0.0);
}

#[tokio::test]
async fn adapters_and_salts_have_caches_of_their_own() {
    let served = mock(MockSpec {
        adapters: vec!["lora-a".into()],
        ..fast()
    });
    let cases = [
        (json!({}), 0),
        (json!({ "model": "lora-a" }), 0),
        (json!({ "cache_salt": "tenant" }), 0),
        (json!({ "cache_salt": "tenant" }), 32),
        (json!({ "model": "lora-a" }), 32),
    ];
    for (mut fields, cached) in cases {
        fields["messages"] = json!([{ "role": "user", "content": prompt("one") }]);
        fields["max_tokens"] = json!(1);
        let answer = chat(served.address, fields.clone()).await.json();
        let found = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
        assert_eq!(found, cached, "{fields}: {answer}");
    }
    let page = get(served.address, "/metrics").await.body;
    assert!(
        page.contains("lora_requests_info{max_lora=\"4\",running_lora_adapters=\"\""),
        "{page}"
    );
}

#[tokio::test]
async fn models_are_listed_and_unknown_ones_refused_as_by_vllm() {
    let served = mock(MockSpec {
        models: vec!["base".into(), "other".into()],
        adapters: vec!["lora-a".into()],
        ..fast()
    });
    let models = get(served.address, "/v1/models").await.json();
    let cards = models["data"].as_array().expect("list");
    let shown: Vec<_> = cards
        .iter()
        .map(|card| (&card["id"], &card["parent"]))
        .collect();
    let expected = [
        ("base", Value::Null),
        ("other", Value::Null),
        ("lora-a", json!("base")),
    ];
    for ((id, parent), (name, base)) in shown.into_iter().zip(expected) {
        assert_eq!((id, parent), (&json!(name), &base));
    }
    assert_eq!(cards[0]["max_model_len"], 131_072);

    let unknown = chat(served.address, json!({ "model": "nope", "stream": true })).await;
    assert_eq!(unknown.status, 404);
    let error = json!({ "error": {
        "message": "The model `nope` does not exist. Valid aliases: base, other.",
        "type": "NotFoundError", "param": "model", "code": 404,
    }});
    assert_eq!(unknown.json(), error);
}

/// (path, body, status, text in the answer)
const BAD: &[(&str, &str, u16, &str)] = &[
    ("/v1/chat/completions", "{", 400, "EOF"),
    ("/v1/chat/completions", "", 400, "Field required"),
    (
        "/v1/chat/completions",
        r#"{"model":"base"}"#,
        400,
        "body.messages",
    ),
    (
        "/v1/chat/completions",
        r#"{"model":"base","messages":[]}"#,
        400,
        "empty conv",
    ),
    ("/v1/completions", r#"{"model":"base"}"#, 400, "body.prompt"),
    (
        "/v1/completions",
        r#"{"model":"base","prompt":[]}"#,
        400,
        "body.prompt",
    ),
    (
        "/v1/completions",
        r#"{"prompt":"a","max_tokens":0}"#,
        400,
        "at least 1",
    ),
    (
        "/v1/completions",
        r#"{"prompt":"a","max_tokens":9999}"#,
        400,
        "max_model_len=1024",
    ),
    (
        "/v1/completions",
        r#"{"prompt":"a","n":129}"#,
        400,
        "at most 128 choices",
    ),
    (
        "/v1/messages",
        r#"{"model":"nope","messages":[]}"#,
        404,
        r#""type":"error""#,
    ),
    ("/v1/nope", "{}", 404, r#"{"detail":"Not Found"}"#),
    ("/health", "{}", 405, r#"{"detail":"Method Not Allowed"}"#),
];

#[tokio::test]
async fn bad_requests_are_refused_with_the_reason() {
    let engine = EngineSpec {
        blocks: 64,
        ..EngineSpec::new(Profile::default())
    };
    let served = mock(MockSpec { engine, ..fast() });
    for (path, body, status, text) in BAD {
        let reply = post(served.address, path, body).await;
        assert_eq!(reply.status, *status, "{path} {body}: {}", reply.body);
        assert!(reply.body.contains(text), "{path} {body}: {}", reply.body);
    }
    let plain = request(
        "POST",
        "/v1/chat/completions",
        "content-type: text/plain\r\n",
        "{}",
    );
    let reply = Connection::open(served.address).await.ask(&plain).await;
    assert!(
        reply.status == 400 && reply.body.contains("Unsupported Media Type"),
        "{}",
        reply.body
    );
}

#[tokio::test]
async fn a_prompt_is_held_to_the_context() {
    let engine = EngineSpec {
        blocks: 64,
        ..EngineSpec::new(Profile::default())
    };
    let served = mock(MockSpec { engine, ..fast() });
    let long = prompt("long").repeat(30);
    let ask = async |content: &str| {
        let messages = json!([{ "role": "user", "content": content }]);
        chat(served.address, json!({ "messages": messages })).await
    };
    let refused = ask(&long).await;
    assert_eq!(refused.status, 400);
    assert!(
        refused.body.contains("maximum context length is 1024"),
        "{}",
        refused.body
    );
    let cut = ask(&long[..4_000]).await.json();
    assert_eq!(cut["choices"][0]["finish_reason"], "length", "{cut}");
    assert_eq!(cut["usage"]["total_tokens"], 1_024);
}

#[tokio::test]
async fn completions_take_batches_copies_and_token_ids() {
    let served = mock(fast());
    let cases = [
        (json!({ "prompt": "hello world" }), 1, 3),
        (json!({ "prompt": ["hello", "world"] }), 2, 4),
        (json!({ "prompt": [10, 11, 12] }), 1, 3),
        (json!({ "prompt": [[10, 11], [12]] }), 2, 3),
        (json!({ "prompt": "hello", "n": 3 }), 3, 2),
    ];
    for (mut body, choices, prompt_tokens) in cases {
        body["model"] = json!("base");
        body["max_tokens"] = json!(2);
        let whole = post(served.address, "/v1/completions", &body.to_string())
            .await
            .json();
        assert_eq!(
            whole["choices"].as_array().map(Vec::len),
            Some(choices),
            "{body}"
        );
        assert_eq!(whole["usage"]["prompt_tokens"], prompt_tokens, "{body}");
        assert_eq!(whole["usage"]["completion_tokens"], 2 * choices, "{body}");
        body["stream"] = json!(true);
        let streamed = post(served.address, "/v1/completions", &body.to_string())
            .await
            .body;
        for (index, choice) in whole["choices"]
            .as_array()
            .expect("choices")
            .iter()
            .enumerate()
        {
            let mine = events(&streamed)
                .into_iter()
                .filter(|e| e["choices"][0]["index"] == index);
            let texts: Vec<Value> = mine
                .map(|event| event["choices"][0]["text"].clone())
                .collect();
            let text: String = texts.iter().filter_map(Value::as_str).collect();
            assert_eq!(choice["text"], text, "{body}");
        }
    }
}

#[tokio::test]
async fn embeddings_are_the_same_for_the_same_input() {
    let served = mock(fast());
    let body = json!({ "model": "base", "input": ["a", "b", "a"] }).to_string();
    let answer = post(served.address, "/v1/embeddings", &body).await.json();
    let vector = |index: usize| &answer["data"][index]["embedding"];
    assert_eq!(vector(0), vector(2));
    assert_ne!(vector(0), vector(1));
    assert_eq!(vector(0).as_array().map(Vec::len), Some(64));
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
    assert_eq!(answer["usage"]["completion_tokens"], 0);
}

#[tokio::test]
async fn anthropic_messages_speak_their_own_dialect() {
    let served = mock(fast());
    let mut body = json!({
        "model": "base", "max_tokens": 5, "system": "be brief",
        "messages": [{ "role": "user", "content": [{ "type": "text", "text": prompt("one") }] }],
    });
    let whole = post(served.address, "/v1/messages", &body.to_string())
        .await
        .json();
    assert_eq!(
        (&whole["type"], &whole["stop_reason"]),
        (&json!("message"), &json!("max_tokens"))
    );
    body["stream"] = json!(true);
    let streamed = post(served.address, "/v1/messages", &body.to_string()).await;
    let kinds: Vec<&str> = streamed
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    assert_eq!(kinds[..2], ["message_start", "content_block_start"]);
    assert_eq!(kinds[2..7], ["content_block_delta"; 5]);
    assert_eq!(
        kinds[7..],
        ["content_block_stop", "message_delta", "message_stop"]
    );
    let events = events(&streamed.body);
    assert!(
        events
            .iter()
            .zip(&kinds)
            .all(|(event, kind)| event["type"] == *kind)
    );
    let text: String = events
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str())
        .collect();
    assert_eq!(whole["content"][0]["text"], text);
    // The repeat found three of its blocks; Anthropic counts them beside the input.
    let (first, again) = (&whole["usage"], &events[0]["message"]["usage"]);
    assert_eq!(again["cache_read_input_tokens"], 48);
    assert_eq!(
        first["input_tokens"].as_u64(),
        again["input_tokens"].as_u64().map(|tokens| tokens + 48)
    );
    assert_eq!(events[8]["usage"]["output_tokens"], 5);
}

#[tokio::test]
async fn metrics_have_vllms_names_and_count() {
    let served = mock(fast());
    chat(served.address, json!({ "max_tokens": 5 })).await;
    let page = get(served.address, "/metrics").await.body;
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect("series and value");
        assert!(
            series.starts_with("vllm:") && series.ends_with('}'),
            "{line}"
        );
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    for series in [
        "vllm:num_requests_running{engine=\"0\",model_name=\"base\"} 0.0",
        "vllm:num_requests_waiting{engine=\"0\",model_name=\"base\"} 0.0",
        "vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"base\"} 0.0",
        "vllm:num_preemptions_total{engine=\"0\",model_name=\"base\"} 0.0",
        "vllm:generation_tokens_total{engine=\"0\",model_name=\"base\"} 5.0",
        "vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_name=\"base\"} 1.0",
        "vllm:time_to_first_token_seconds_count{engine=\"0\",model_name=\"base\"} 1.0",
        "vllm:inter_token_latency_seconds_count{engine=\"0\",model_name=\"base\"} 4.0",
        "vllm:request_time_per_output_token_seconds_count{engine=\"0\",model_name=\"base\"} 1.0",
    ] {
        assert!(page.contains(series), "no {series} in {page}");
    }
    assert!(page.contains("block_size=\"16\"") && page.contains("num_gpu_blocks=\"25250\""));
    assert_eq!(
        get(served.address, "/load").await.body,
        r#"{"server_load":0}"#
    );
    assert_eq!(
        get(served.address, "/version").await.body,
        r#"{"version":"0.32.0"}"#
    );
    assert_eq!(get(served.address, "/health").await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_engine() {
    let served = mock(MockSpec {
        speed: 1.0,
        ..fast()
    });
    for (name, stream) in [("a stream", true), ("an answer", false)] {
        let body = json!({
            "model": "base", "max_tokens": 100_000, "stream": stream,
            "messages": [{ "role": "user", "content": "hello" }],
        });
        let mut client = Connection::open(served.address).await;
        client
            .send(&request(
                "POST",
                "/v1/chat/completions",
                "",
                &body.to_string(),
            ))
            .await;
        if stream {
            client.read_until("content\":\" ").await;
        }
        until_metric(&served, "num_requests_running", 1.0).await;
        drop(client);
        until_metric(&served, "num_requests_running", 0.0).await;
        assert_eq!(metric(&served, "kv_cache_usage_perc").await, 0.0, "{name}");
    }
    // The engine's own counter of aborts stays at 0, as vLLM's does.
    let requests = get(served.address, "/mock/requests").await.json();
    let all = requests["requests"].as_array().expect("list");
    let ends: Vec<_> = all
        .iter()
        .filter(|r| r["method"] == "POST")
        .map(|r| &r["end"])
        .collect();
    assert_eq!(ends, ["left", "left"]);
}

#[tokio::test]
async fn the_journal_shows_what_was_received() {
    let served = mock(fast());
    let body = json!({ "model": "base", "prompt": "hi", "max_tokens": 1 }).to_string();
    let mut client = Connection::open(served.address).await;
    for _ in 0..2 {
        let bytes = request(
            "POST",
            "/v1/completions?a=b",
            "x-request-id: mine\r\n",
            &body,
        );
        let reply = client.ask(&bytes).await;
        assert!(reply.head.contains("x-request-id: mine") && reply.body.contains("cmpl-mine"));
    }
    let journal = get(served.address, "/mock/requests").await.json();
    let received = journal["requests"].as_array().expect("list");
    assert_eq!(received.len(), 2, "the mock's own pages are not in it");
    let (first, second) = (&received[0], &received[1]);
    assert_eq!((&first["id"], &second["id"]), (&json!(1), &json!(2)));
    assert_eq!(first["connection"], second["connection"]);
    assert_eq!(first["target"], "/v1/completions?a=b");
    assert_eq!(first["model"], "base");
    assert_eq!(first["body_start"], body);
    assert_eq!(first["body_bytes"], body.len());
    assert!(
        first["headers"]
            .to_string()
            .contains(r#"["x-request-id","mine"]"#)
    );
    assert_eq!(first["end"], "complete");
    let cleared = Connection::open(served.address).await;
    cleared
        .finish(&request("DELETE", "/mock/requests", "", ""))
        .await;
    assert_eq!(
        get(served.address, "/mock/requests").await.json(),
        json!({ "requests": [] })
    );
}

#[tokio::test]
async fn slowing_down_stretches_every_step() {
    let served = mock(MockSpec {
        speed: 1.0,
        ..fast()
    });
    let mut sums = vec![0.0];
    for (tag, slow) in [
        ("aaa", None),
        ("bbb", Some("{\"factor\": 4}")),
        ("ccc", Some("{\"factor\": 1}")),
    ] {
        if let Some(slow) = slow {
            assert_eq!(post(served.address, "/mock/slow", slow).await.status, 200);
        }
        let messages = json!([{ "role": "user", "content": prompt(tag) }]);
        chat(
            served.address,
            json!({ "messages": messages, "max_tokens": 1 }),
        )
        .await;
        sums.push(metric(&served, "time_to_first_token_seconds_sum").await);
    }
    let first: Vec<f64> = sums.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Engine time, not wall time: exact but for rounding to a microsecond.
    assert!((first[1] / first[0] - 4.0).abs() < 0.01, "{first:?}");
    assert!((first[2] / first[0] - 1.0).abs() < 0.01, "{first:?}");
    let refused = post(served.address, "/mock/slow", "{\"factor\": -1}").await;
    assert!(
        refused.status == 400 && refused.body.contains("factor"),
        "{}",
        refused.body
    );
}

#[tokio::test]
async fn cancelling_ends_the_server_and_frees_the_port() {
    let served = mock(fast());
    let idle = Connection::open(served.address).await;
    assert_eq!(get(served.address, "/health").await.status, 200);
    served.stop().await;
    drop(idle);
    let gone = tokio::net::TcpStream::connect(served.address).await;
    assert_eq!(
        gone.expect_err("closed").kind(),
        std::io::ErrorKind::ConnectionRefused
    );
}

#[tokio::test]
async fn a_server_without_models_or_port_is_refused() {
    let spec = MockSpec {
        models: Vec::new(),
        ..MockSpec::default()
    };
    let error = crate::Mock::bind(spec).expect_err("no model");
    assert!(error.to_string().contains("name at least one"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let listen = crate::Listen::Address(taken.local_addr().expect("address"));
    let error = crate::Mock::bind(MockSpec {
        listen,
        ..MockSpec::default()
    })
    .expect_err("taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let bound = crate::Mock::bind(MockSpec {
        listen: crate::Listen::Bound(taken),
        ..MockSpec::default()
    });
    assert!(bound.is_ok(), "a bound socket is taken over");
}
