//! How answers look on the wire: vLLM's bodies and events, field order included, for the OpenAI
//! APIs, and Anthropic's messages.

use bytes::Bytes;
use serde_json::json;

use super::Api;
use super::error::Problem;
use crate::driver::Ends;

const FINGERPRINT: &str = "vllm-0.32.0-mock";
const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");

/// How much of usage is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    All,
    NoCached,
    Nothing,
}

/// Tokens of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) prompt: u32,
    pub(crate) completion: u32,
    pub(crate) cached: u32,
}

/// Why a choice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Ends(Ends),
    Abort,
}

/// One answer's way to the wire.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) api: Api,
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) shown: Shown,
}

impl Wire {
    /// Events before the first token.
    pub(crate) fn opening(&self, choices: usize, counts: Counts) -> Vec<Bytes> {
        match self.api {
            Api::Chat => {
                let role = r#""delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null"#;
                let tail = r#","prompt_token_ids":null,"prompt_text":null"#;
                (0..choices)
                    .map(|index| self.chunk(index, role, tail))
                    .collect()
            }
            Api::Messages => {
                let message = json!({
                    "type": "message_start",
                    "message": {
                        "id": self.answer_id(), "type": "message", "role": "assistant",
                        "content": [], "model": self.model, "stop_reason": null,
                        "stop_sequence": null, "usage": self.anthropic_usage(counts),
                    },
                });
                let block = json!({
                    "type": "content_block_start", "index": 0,
                    "content_block": { "type": "text", "text": "" },
                });
                vec![
                    named("message_start", &message),
                    named("content_block_start", &block),
                ]
            }
            Api::Completions | Api::Embeddings => Vec::new(),
        }
    }

    /// The event of one token; `last` says why it is the last one.
    pub(crate) fn token(&self, index: usize, text: &str, last: Option<Reason>) -> Bytes {
        let text = quoted(text);
        let reason = last.map_or_else(|| "null".to_owned(), |reason| quoted(openai(reason)));
        let fingerprint = format!(r#","system_fingerprint":"{FINGERPRINT}""#);
        let (stop, tail) = match last {
            Some(_) => (r#","stop_reason":null"#, fingerprint.as_str()),
            None => ("", ""),
        };
        match self.api {
            Api::Chat => {
                let delta = if text == "\"\"" {
                    String::new()
                } else {
                    format!(r#""content":{text}"#)
                };
                let choice = format!(
                    r#""delta":{{{delta}}},"logprobs":null,"finish_reason":{reason}{stop},"token_ids":null"#
                );
                self.chunk(index, &choice, tail)
            }
            Api::Messages => named(
                "content_block_delta",
                &format!(
                    r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":{text}}}}}"#
                ),
            ),
            Api::Completions | Api::Embeddings => {
                let choice = format!(
                    r#""text":{text},"logprobs":null,"finish_reason":{reason},"stop_reason":null,"prompt_token_ids":null,"token_ids":null"#
                );
                self.chunk(index, &choice, tail)
            }
        }
    }

    /// Events after the last token.
    pub(crate) fn closing(&self, reason: Reason, counts: Counts, usage: bool) -> Vec<Bytes> {
        if self.api == Api::Messages {
            let delta = json!({
                "type": "message_delta",
                "delta": { "stop_reason": anthropic(reason), "stop_sequence": null },
                "usage": self.anthropic_usage(counts),
            });
            return vec![
                named(
                    "content_block_stop",
                    &r#"{"type":"content_block_stop","index":0}"#,
                ),
                named("message_delta", &delta),
                named("message_stop", &r#"{"type":"message_stop"}"#),
            ];
        }
        let usage = (usage && self.shown != Shown::Nothing).then(|| {
            let usage = self.usage(counts);
            data(&format!(
                r#"{},"choices":[],"usage":{usage},"system_fingerprint":"{FINGERPRINT}"}}"#,
                self.start(".chunk")
            ))
        });
        usage.into_iter().chain([DONE]).collect()
    }

    /// What an engine that dies says in a stream whose head is out.
    pub(crate) fn failure(&self) -> Vec<Bytes> {
        let error = Problem::internal().json(self.api);
        match self.api {
            Api::Messages => vec![named("error", &error)],
            _ => vec![data(&error), DONE],
        }
    }

    /// An event with broken JSON.
    pub(crate) fn broken(&self) -> Bytes {
        data(&format!(
            r#"{},"choices":[{{"index":0,"delta":{{"content":"#,
            self.start(".chunk")
        ))
    }

    /// A whole answer.
    pub(crate) fn whole(&self, texts: &[String], reason: Reason, counts: Counts) -> String {
        if self.api == Api::Messages {
            let usage = self.anthropic_usage(counts);
            let text = texts.first().map(String::as_str).unwrap_or_default();
            return format!(
                r#"{{"id":{},"type":"message","role":"assistant","content":[{{"type":"text","text":{}}}],"model":{},"stop_reason":"{}","stop_sequence":null,"usage":{usage}}}"#,
                quoted(&self.answer_id()),
                quoted(text),
                quoted(&self.model),
                anthropic(reason),
            );
        }
        let reason = quoted(openai(reason));
        let choice = |(index, text): (usize, &String)| {
            let text = quoted(text);
            let content = match self.api {
                Api::Chat => format!(
                    r#""message":{{"role":"assistant","content":{text},"refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null}}"#
                ),
                _ => format!(r#""text":{text}"#),
            };
            format!(
                r#"{{"index":{index},{content},"logprobs":null,"finish_reason":{reason},"stop_reason":null,"token_ids":null}}"#
            )
        };
        let choices: Vec<String> = texts.iter().enumerate().map(choice).collect();
        let usage = match self.shown {
            Shown::Nothing => String::new(),
            _ => format!(r#","usage":{}"#, self.usage(counts)),
        };
        format!(
            r#"{},"choices":[{}],"service_tier":null,"system_fingerprint":"{FINGERPRINT}"{usage},"prompt_logprobs":null,"kv_transfer_params":null}}"#,
            self.start(""),
            choices.join(","),
        )
    }

    /// The answer to an embeddings request.
    pub(crate) fn embeddings(&self, vectors: &[Vec<f32>], counts: Counts) -> String {
        let item = |(index, vector): (usize, &Vec<f32>)| json!({ "index": index, "object": "embedding", "embedding": vector });
        let items: Vec<_> = vectors.iter().enumerate().map(item).collect();
        let usage = match self.shown {
            Shown::Nothing => String::new(),
            _ => format!(r#","usage":{}"#, self.usage(counts)),
        };
        format!(
            r#"{{"id":{},"object":"list","created":{},"model":{},"data":{}{usage}}}"#,
            quoted(&self.answer_id()),
            self.created,
            quoted(&self.model),
            json!(items),
        )
    }

    fn answer_id(&self) -> String {
        let kind = match self.api {
            Api::Chat | Api::Messages => "chatcmpl",
            Api::Completions => "cmpl",
            Api::Embeddings => "embd",
        };
        format!("{kind}-{}", self.id)
    }

    fn start(&self, suffix: &str) -> String {
        let object = match self.api {
            Api::Chat => format!("chat.completion{suffix}"),
            _ => "text_completion".to_owned(),
        };
        format!(
            r#"{{"id":{},"object":"{object}","created":{},"model":{}"#,
            quoted(&self.answer_id()),
            self.created,
            quoted(&self.model),
        )
    }

    fn chunk(&self, index: usize, choice: &str, tail: &str) -> Bytes {
        let start = self.start(".chunk");
        data(&format!(
            r#"{start},"choices":[{{"index":{index},{choice}}}]{tail}}}"#
        ))
    }

    fn usage(&self, counts: Counts) -> String {
        let Counts {
            prompt,
            completion,
            cached,
        } = counts;
        let details = match self.shown {
            Shown::All => format!(r#"{{"cached_tokens":{cached},"created_cache_tokens":0}}"#),
            _ => "null".to_owned(),
        };
        format!(
            r#"{{"prompt_tokens":{prompt},"total_tokens":{},"completion_tokens":{completion},"prompt_tokens_details":{details}}}"#,
            prompt.saturating_add(completion),
        )
    }

    /// Anthropic counts cached tokens beside `input_tokens`, not in it.
    fn anthropic_usage(&self, counts: Counts) -> serde_json::Value {
        match self.shown {
            Shown::All => json!({
                "input_tokens": counts.prompt.saturating_sub(counts.cached),
                "output_tokens": counts.completion,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": counts.cached,
            }),
            Shown::NoCached => json!({
                "input_tokens": counts.prompt, "output_tokens": counts.completion,
            }),
            Shown::Nothing => serde_json::Value::Null,
        }
    }
}

fn openai(reason: Reason) -> &'static str {
    match reason {
        Reason::Ends(Ends::Stop) => "stop",
        Reason::Ends(Ends::Length) => "length",
        Reason::Abort => "abort",
    }
}

fn anthropic(reason: Reason) -> &'static str {
    match reason {
        Reason::Ends(Ends::Stop) => "end_turn",
        Reason::Ends(Ends::Length) => "max_tokens",
        Reason::Abort => "abort",
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn data(json: &str) -> Bytes {
    format!("data: {json}\n\n").into()
}

fn named(event: &str, json: &impl core::fmt::Display) -> Bytes {
    format!("event: {event}\ndata: {json}\n\n").into()
}
