//! Each fault does what it says, by its own words; the list, the book and the admin calls.
//! What a fault does is judged by the bytes and the end that a client sees.

use serde_json::{Value, json};

use super::http::{Connection, Reply, Served, chat, fast, get, mock, post, request};
use super::{events, until_metric};
use crate::faults::{Scope, Struck};
use crate::{FAULTS, Fault, FaultBook, FaultError, FaultKind, MockSpec};

fn served(fault: &str) -> Served {
    let faults = vec![fault.parse().expect(fault)];
    mock(MockSpec { faults, ..fast() })
}

/// A streamed and a whole chat of 8 tokens under a fault.
async fn both(fault: &str) -> (Reply, Reply) {
    let served = served(fault);
    let streamed = chat(served.address, json!({ "max_tokens": 8, "stream": true })).await;
    (
        streamed,
        chat(served.address, json!({ "max_tokens": 8 })).await,
    )
}

fn tokens(reply: &Reply) -> usize {
    reply.body.matches(r#""content":" "#).count()
}

#[tokio::test]
async fn statuses_come_at_once_and_as_often_as_counted() {
    for (status, text) in [
        (500, "EngineCore"),
        (503, "currently busy"),
        (429, "Too many"),
    ] {
        let served = served(&format!("{status}:count=2"));
        for expected in [status, status, 200] {
            let reply = chat(served.address, json!({ "max_tokens": 1, "stream": true })).await;
            assert_eq!(reply.status, expected);
            assert!(
                expected == 200 || reply.body.contains(text),
                "{}",
                reply.body
            );
            assert_eq!(
                reply.head.contains("retry-after: 1"),
                expected == 429,
                "{}",
                reply.head
            );
        }
    }
}

#[tokio::test]
async fn refuse_and_dead_reset_without_a_byte() {
    for (fault, models) in [("refuse", 200), ("dead", 0)] {
        let served = served(fault);
        let reply = chat(served.address, json!({})).await;
        assert!(reply.reset && reply.head.is_empty(), "{fault}: {reply:?}");
        assert_eq!(
            get(served.address, "/v1/models").await.status,
            models,
            "{fault}"
        );
        assert_eq!(
            get(served.address, "/mock/faults").await.status,
            200,
            "{fault}"
        );
    }
}

#[tokio::test]
async fn hang_holds_the_request_until_the_client_leaves() {
    let served = served("hang:count=1");
    let mut client = Connection::open(served.address).await;
    let body = json!({ "model": "base", "prompt": "hi", "max_tokens": 1 }).to_string();
    client
        .send(&request("POST", "/v1/completions", "", &body))
        .await;
    let first = async || get(served.address, "/mock/requests").await.json()["requests"][0].clone();
    while first().await["body_bytes"] != body.len() {
        tokio::task::yield_now().await;
    }
    // The next one passes, and nothing of the first is in the engine.
    assert_eq!(
        post(served.address, "/v1/completions", &body).await.status,
        200
    );
    until_metric(&served, "num_requests_running", 0.0).await;
    assert_eq!(first().await["end"], Value::Null);
    drop(client);
    while first().await["end"] != "left" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_head_waits_as_long_as_told() {
    // On a paused clock only this wait lets a minute pass.
    let served = served("slow-head:ms=60000");
    let before = tokio::time::Instant::now();
    assert_eq!(
        chat(served.address, json!({ "max_tokens": 1 }))
            .await
            .status,
        200
    );
    assert!(before.elapsed() >= std::time::Duration::from_secs(60));
}

#[tokio::test]
async fn reset_cuts_after_the_tokens_it_counts() {
    for after in [0, 1, 5] {
        let (streamed, whole) = both(&format!("reset:after={after}")).await;
        assert!(
            streamed.status == 200 && streamed.reset && !streamed.clean,
            "{streamed:?}"
        );
        assert_eq!(tokens(&streamed), after, "{}", streamed.body);
        assert!(
            whole.status == 200 && whole.reset && !whole.clean,
            "{whole:?}"
        );
        assert!(!whole.body.is_empty());
    }
    let (streamed, whole) = both("reset:after=9").await;
    assert!(streamed.clean && whole.clean, "the answer was over before");
}

#[tokio::test]
async fn truncate_ends_cleanly_but_unfinished() {
    let (streamed, whole) = both("truncate:after=3").await;
    assert!(streamed.clean && !streamed.reset, "{streamed:?}");
    assert_eq!(tokens(&streamed), 3);
    assert!(!streamed.body.contains("[DONE]") && !streamed.body.contains("length"));
    assert!(
        !whole.clean && !whole.reset && whole.status == 200,
        "{whole:?}"
    );
    let (streamed, _) = both("truncate:after=8").await;
    assert!(streamed.body.contains("length") && !streamed.body.contains("[DONE]"));
}

#[tokio::test]
async fn error_events_come_inside_a_good_stream() {
    let error = json!({ "error": {
        "message": "EngineCore encountered an issue. See stack trace (above) for the root cause.",
        "type": "InternalServerError", "param": null, "code": 500,
    }});
    for after in [0, 4] {
        let (streamed, whole) = both(&format!("error-event:after={after}")).await;
        assert_eq!((streamed.status, tokens(&streamed)), (200, after));
        let events = events(&streamed.body);
        assert_eq!(events.last(), Some(&error));
        assert_eq!(events.len(), if after == 0 { 1 } else { after + 2 });
        assert!(streamed.body.ends_with("data: [DONE]\n\n") && streamed.clean);
        assert_eq!((whole.status, whole.json()), (500, error.clone()));
    }
    let served = served("error-event");
    let body = json!({
        "model": "base", "max_tokens": 4, "stream": true,
        "messages": [{ "role": "user", "content": "hello" }],
    });
    let reply = post(served.address, "/v1/messages", &body.to_string()).await;
    assert!(
        reply.body.starts_with("event: error\ndata: {"),
        "{}",
        reply.body
    );
    assert_eq!(events(&reply.body)[0]["error"]["type"], "api_error");
}

#[tokio::test]
async fn abort_is_a_finish_reason_with_a_clean_end() {
    for after in [0, 3, 8] {
        let (streamed, whole) = both(&format!("abort:after={after}")).await;
        assert_eq!(tokens(&streamed), after);
        let events = events(&streamed.body);
        let reasons: Vec<&Value> = events
            .iter()
            .map(|event| &event["choices"][0]["finish_reason"])
            .collect();
        assert_eq!(reasons.last(), Some(&&json!("abort")), "{}", streamed.body);
        assert_eq!(reasons.iter().filter(|reason| !reason.is_null()).count(), 1);
        assert!(streamed.body.ends_with("data: [DONE]\n\n") && streamed.clean);
        assert_eq!(whole.json()["choices"][0]["finish_reason"], "abort");
        assert_eq!(whole.json()["usage"]["completion_tokens"], after);
    }
}

#[tokio::test]
async fn endless_streams_run_until_the_client_leaves() {
    let served = served("endless");
    let body = json!({
        "model": "base", "max_tokens": 3, "stream": true,
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
    // Ten times its limit: each answer of three has the same first word.
    let first = crate::text::word(
        crate::text::seed(b"<|user|>\nhello\n<|assistant|>\n", 0, 0),
        0,
    );
    for _ in 0..10 {
        client.read_until(&format!("\"content\":\"{first}\"")).await;
        client.forget();
    }
    drop(client);
    until_metric(&served, "num_requests_running", 0.0).await;
}

#[tokio::test]
async fn broken_json_is_broken_and_framed_well() {
    let (streamed, whole) = both("bad-json:after=2").await;
    assert!(streamed.clean && streamed.body.ends_with("data: [DONE]\n\n"));
    let broken = |line: &&str| serde_json::from_str::<Value>(line).is_err();
    let data = streamed
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data: {"));
    let lines: Vec<String> = data.map(|data| format!("{{{data}")).collect();
    assert_eq!(lines.iter().map(String::as_str).filter(broken).count(), 1);
    assert!(whole.clean && serde_json::from_str::<Value>(&whole.body).is_err());
}

#[tokio::test]
async fn usage_can_be_left_out() {
    let (_, whole) = both("no-usage").await;
    assert_eq!(whole.json().get("usage"), None);
    let (_, whole) = both("no-cached-tokens").await;
    assert_eq!(whole.json()["usage"]["completion_tokens"], 8);
    assert_eq!(whole.json()["usage"]["prompt_tokens_details"], Value::Null);
    let served = served("no-usage");
    let fields = json!({ "stream": true, "stream_options": { "include_usage": true } });
    assert!(!chat(served.address, fields).await.body.contains("usage"));
}

#[tokio::test]
async fn metrics_can_be_missing_renamed_zeroed_frozen_and_huge() {
    let served = mock(fast());
    let set = async |fault: &str| {
        let body = json!({ "fault": fault }).to_string();
        assert_eq!(
            post(served.address, "/mock/faults", &body).await.status,
            200
        );
        get(served.address, "/metrics").await
    };
    let work = async || {
        chat(served.address, json!({ "max_tokens": 4 })).await;
    };
    let clear = async || {
        let clear = request("DELETE", "/mock/faults", "", "");
        Connection::open(served.address).await.finish(&clear).await;
    };
    work().await;
    assert_eq!(set("metrics-missing").await.status, 404);
    clear().await;
    let renamed = set("metrics-renamed").await.body;
    assert!(!renamed.contains("vllm:") && renamed.contains("renamed:num_requests_running{"));
    clear().await;
    let zeroed = set("metrics-zeroed").await.body;
    assert!(
        zeroed
            .lines()
            .all(|line| line.starts_with('#') || line.ends_with(" 0.0"))
    );
    clear().await;
    let huge = set("metrics-huge").await.body;
    assert!(huge.len() > 8_000_000 && huge.contains("vllm:num_requests_running{"));
    clear().await;
    let frozen = set("metrics-frozen").await.body;
    work().await;
    assert_eq!(get(served.address, "/metrics").await.body, frozen);
    clear().await;
    let thawed = get(served.address, "/metrics").await.body;
    assert!(thawed.contains("generation_tokens_total{engine=\"0\",model_name=\"base\"} 8.0"));
    let body = json!({ "faults": ["metrics-hang", "metrics-huge"] }).to_string();
    post(served.address, "/mock/faults", &body).await;
    tokio::select! {
        biased;
        reply = get(served.address, "/metrics") => panic!("it hangs: {reply:?}"),
        // Ten round trips pass meanwhile.
        () = async { for _ in 0..10 { work().await } } => {}
    }
}

#[tokio::test]
async fn faults_are_set_shown_and_cleared_by_admin_calls() {
    let served = mock(fast());
    let address = served.address;
    let set = post(
        address,
        "/mock/faults",
        r#"{"faults":["500:count=2","reset:after=5,p=0.5"]}"#,
    );
    assert_eq!(
        set.await.json()["active"],
        json!(["500:count=2", "reset:after=5,p=0.5"])
    );
    assert_eq!(chat(address, json!({})).await.status, 500);
    let shown = get(address, "/mock/faults").await.json();
    assert_eq!(
        shown["active"],
        json!(["500:count=1", "reset:after=5,p=0.5"])
    );
    assert_eq!(shown["known"].as_array().map(Vec::len), Some(FAULTS.len()));
    let cleared = request("DELETE", "/mock/faults", "", "");
    let cleared = Connection::open(address).await.finish(&cleared).await;
    assert_eq!(cleared.json()["active"], json!([]));
    assert_eq!(chat(address, json!({})).await.status, 200);
    for (body, text) in [
        ("{", "write"),
        (r#"{"fault":"nope"}"#, "no fault is called `nope`"),
        (r#"{"fault":"hang:after=1"}"#, "has no option `after`"),
        (r#"{"faluts":[]}"#, "unknown field"),
    ] {
        let refused = post(address, "/mock/faults", body).await;
        assert!(
            refused.status == 400 && refused.body.contains(text),
            "{}",
            refused.body
        );
    }
    assert_eq!(get(address, "/mock/nope").await.status, 404);
}

#[test]
fn every_fault_is_listed_and_reads_back() {
    for entry in FAULTS {
        let mut text = entry.name.to_owned();
        let options: Vec<String> = entry
            .options
            .iter()
            .chain(&["count"])
            .map(|option| format!("{option}=7"))
            .collect();
        text.push_str(&format!(":{},p=0.25", options.join(",")));
        let fault: Fault = text.parse().expect(entry.name);
        assert_eq!(fault.kind, entry.kind);
        assert_eq!(fault.to_string(), text);
        assert_eq!((fault.count, fault.probability), (Some(7), 0.25));
        assert_eq!(entry.name.parse(), Ok(Fault::new(entry.kind)));
    }
}

#[test]
fn a_fault_that_cannot_be_read_says_why() {
    let check = |text: &str, words: &[&str]| {
        let error: FaultError = text.parse::<Fault>().expect_err(text);
        for word in words {
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
    };
    check("slow", &["`slow`", "slow-head", "metrics-hang"]);
    check("reset:ms=3", &["`reset`", "`ms`", "after, count, p"]);
    check("500:count", &["`count`", "count=VALUE"]);
    check("500:count=-1", &["`count`", "`-1`"]);
    check("500:p=1.5", &["`p`", "0 to 1"]);
    check("500:p=NaN", &["`p`", "0 to 1"]);
    assert_eq!(
        "RESET:after=5:count=1"
            .parse::<Fault>()
            .map(|fault| fault.after),
        Ok(5)
    );
}

#[test]
fn probabilities_hit_their_share_and_counts_their_number() {
    let draw = |fault: &str, seed: u64| {
        let book = FaultBook::new(vec![fault.parse().expect(fault)], seed);
        let hits = (0..1_000).map(|_| book.draw(Scope::Inference));
        let hits: Vec<bool> = hits
            .map(|struck: Struck| struck.has(FaultKind::Status500))
            .collect();
        assert!(!book.draw(Scope::Metrics).has(FaultKind::Status500));
        hits
    };
    let count = |hits: Vec<bool>| hits.into_iter().filter(|hit| *hit).count();
    assert!((250..350).contains(&count(draw("500:p=0.3", 1))));
    assert_eq!(count(draw("500:p=0.3,count=9", 1)), 9);
    assert_eq!(count(draw("500:p=0", 1)), 0);
    assert_eq!(count(draw("500:count=0", 1)), 0);
    assert_eq!(count(draw("500", 1)), 1_000);
    assert_eq!(draw("500:p=0.3", 1), draw("500:p=0.3", 1));
    assert_ne!(draw("500:p=0.3", 1), draw("500:p=0.3", 2));
}
