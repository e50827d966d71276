//! What goes over the wire in every measurement: requests, answers and the SSE events.
//!
//! The backend sends these bytes and the load generator expects exactly them, so a proxy that drops,
//! doubles or changes a byte shows as a bad response. The shape of an answer is chosen by two request
//! headers, which every proxy passes on.

use std::fmt::Write as _;
use std::time::Duration;

use clap::ValueEnum;

/// How many SSE events a streamed answer has.
pub(crate) const CHUNKS_HEADER: &str = "x-bench-chunks";
/// Microseconds between two SSE events; 0 sends them as fast as the socket takes them.
pub(crate) const PACE_HEADER: &str = "x-bench-pace-us";
/// The one model that the backend serves.
pub(crate) const MODEL: &str = "bench";

/// The streamed answer to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) chunks: u32,
    pub(crate) pace: Duration,
}

/// What the prompt is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Text {
    /// Words, nothing to escape.
    Plain,
    /// Source code: an escape every few bytes, the hard case for a JSON scanner.
    Code,
}

/// One kind of request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Length of the request body, in bytes; at least 256.
    pub(crate) body_bytes: usize,
    pub(crate) stream: Option<Stream>,
    pub(crate) text: Text,
    /// Send the 17 headers of the usual Python client in place of the 3 that HTTP needs.
    pub(crate) python_headers: bool,
}

impl Shape {
    /// A request head and body, ready to send. `seed` makes the prompt: equal seeds, equal bytes.
    pub(crate) fn request(&self, host: &str, seed: u64) -> Vec<u8> {
        let body = self.body(seed);
        let mut head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\n");
        if self.python_headers {
            head.push_str(PYTHON_HEADERS);
        }
        if let Some(Stream { chunks, pace }) = self.stream {
            let pace_us = pace.as_micros();
            // Writing to a String cannot fail.
            let _ = write!(
                head,
                "{CHUNKS_HEADER}: {chunks}\r\n{PACE_HEADER}: {pace_us}\r\n"
            );
        }
        let length = body.len();
        let _ = write!(
            head,
            "content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        head.into_bytes()
    }

    /// The answer's payload, to compare with.
    pub(crate) fn expected(&self) -> Expected {
        match self.stream {
            None => Expected {
                repeated: Vec::new(),
                times: 0,
                last: COMPLETION.as_bytes(),
            },
            Some(stream) => Expected {
                repeated: event().into_bytes(),
                times: stream.chunks as usize,
                last: LAST_EVENTS.as_bytes(),
            },
        }
    }

    fn body(&self, seed: u64) -> String {
        let stream = self.stream.is_some();
        let mut body = format!(
            r#"{{"model":"{MODEL}","stream":{stream},"max_tokens":128,"messages":[{{"role":"user","content":""#
        );
        let end = r#""}]}"#;
        let words: &[&str] = match self.text {
            Text::Plain => &PLAIN_WORDS,
            Text::Code => &CODE_WORDS,
        };
        let mut draw = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let room = self.body_bytes.saturating_sub(end.len());
        while body.len() < room {
            draw ^= draw << 13;
            draw ^= draw >> 7;
            draw ^= draw << 17;
            let index = usize::try_from(draw % words.len() as u64).unwrap_or_default();
            let word = words.get(index).copied().unwrap_or("x");
            // Cutting a word in two could cut an escape: fill with a plain letter instead.
            body.push_str(if body.len() + word.len() <= room {
                word
            } else {
                "x"
            });
        }
        body + end
    }
}

/// The payload of an answer: `times` x `repeated`, then `last`.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    repeated: Vec<u8>,
    times: usize,
    last: &'static [u8],
}

impl Expected {
    /// Length of the payload in bytes.
    pub(crate) fn len(&self) -> usize {
        self.repeated.len() * self.times + self.last.len()
    }

    /// Whether `bytes` are what the payload has at `position`.
    pub(crate) fn matches(&self, mut position: usize, mut bytes: &[u8]) -> bool {
        let events = self.repeated.len() * self.times;
        while !bytes.is_empty() {
            let rest = if position < events {
                self.repeated.get(position % self.repeated.len()..)
            } else {
                self.last.get(position - events..)
            };
            let Some(rest) = rest else { return false };
            let (now, later) = bytes.split_at(rest.len().min(bytes.len()));
            if now.is_empty() || !rest.starts_with(now) {
                return false;
            }
            position += now.len();
            bytes = later;
        }
        true
    }
}

/// The SSE event that a streamed answer repeats.
pub(crate) fn event() -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-bench-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\
         \"created\":1760000000,\"model\":\"{MODEL}\",\"choices\":[{{\"index\":0,\"delta\":\
         {{\"content\":\" token\"}},\"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
    )
}

/// `payload` as one chunk of a chunked body.
pub(crate) fn chunk(payload: &str) -> String {
    format!("{:x}\r\n{payload}\r\n", payload.len())
}

/// How every streamed answer ends: the reason, the usage event and the end mark.
pub(crate) const LAST_EVENTS: &str = concat!(
    r#"data: {"id":"chatcmpl-bench-0123456789abcdef","object":"chat.completion.chunk","#,
    r#""created":1760000000,"model":"bench","choices":[{"index":0,"delta":{"content":""},"#,
    r#""logprobs":null,"finish_reason":"stop"}]}"#,
    "\n\n",
    r#"data: {"id":"chatcmpl-bench-0123456789abcdef","object":"chat.completion.chunk","#,
    r#""created":1760000000,"model":"bench","choices":[],"usage":{"prompt_tokens":200,"#,
    r#""total_tokens":300,"completion_tokens":100,"prompt_tokens_details":{"cached_tokens":128}}}"#,
    "\n\ndata: [DONE]\n\n"
);

/// The answer to a request that does not stream: about 1 KiB.
pub(crate) const COMPLETION: &str = concat!(
    r#"{"id":"chatcmpl-bench-0123456789abcdef","object":"chat.completion","created":1760000000,"#,
    r#""model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"#,
    r#""The gate at the head of the pipe decides how much water reaches each turbine. Open it too "#,
    r"far and the wheel runs away from its governor; close it too early and the river goes over the ",
    r"spillway while the generators idle. A good keeper watches the level, the load and the weather, ",
    r"and moves the gate a little before it must be moved. What the keeper knows is old by the time ",
    r"it arrives, so the keeper also remembers what was sent down the pipe a moment ago, and trusts ",
    r#"that most.","refusal":null,"annotations":null,"audio":null,"function_call":null,"#,
    r#""tool_calls":[],"reasoning":null},"logprobs":null,"finish_reason":"stop","#,
    r#""stop_reason":null}],"service_tier":null,"system_fingerprint":null,"usage":"#,
    r#"{"prompt_tokens":200,"total_tokens":300,"completion_tokens":100,"#,
    r#""prompt_tokens_details":{"cached_tokens":128}},"prompt_logprobs":null,"#,
    r#""kv_transfer_params":null}"#
);

const PYTHON_HEADERS: &str = "accept: application/json\r\n\
    accept-encoding: gzip, deflate\r\n\
    connection: keep-alive\r\n\
    user-agent: OpenAI/Python 2.8.1\r\n\
    x-stainless-lang: python\r\n\
    x-stainless-package-version: 2.8.1\r\n\
    x-stainless-os: Linux\r\n\
    x-stainless-arch: x64\r\n\
    x-stainless-runtime: CPython\r\n\
    x-stainless-runtime-version: 3.12.3\r\n\
    authorization: Bearer sk-0123456789abcdef0123456789abcdef\r\n\
    x-stainless-async: false\r\n\
    x-stainless-retry-count: 0\r\n\
    x-stainless-read-timeout: 600\r\n";

const PLAIN_WORDS: [&str; 16] = [
    "the ", "water ", "behind ", "a ", "gate ", "waits ", "for ", "no ", "turbine ", "and ",
    "every ", "stream ", "finds ", "its ", "own ", "level ",
];

const CODE_WORDS: [&str; 12] = [
    r"fn main() {\n    ",
    r#"println!(\"{}\\n\", "#,
    "value",
    r");\n",
    r"}\n\n",
    r#"let text = \""#,
    r#"\";\n"#,
    r"\t",
    "if a[i] == b { ",
    r"C:\\path\\",
    r#"{\"key\": [1, 2]}"#,
    " // why\\n",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_of_exactly_the_length_asked_for() {
        for text in [Text::Plain, Text::Code] {
            for body_bytes in [256, 1024, 1025, 1026, 32 * 1024] {
                for seed in 0..50 {
                    let stream = (seed % 2 == 0).then_some(Stream {
                        chunks: 1,
                        pace: Duration::from_millis(10),
                    });
                    let shape = Shape {
                        body_bytes,
                        stream,
                        text,
                        python_headers: false,
                    };
                    let body = shape.body(seed);
                    assert_eq!(body.len(), body_bytes, "{text:?}, seed {seed}");
                    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
                    assert_eq!(json["stream"], stream.is_some());
                }
            }
        }
    }

    #[test]
    fn answers_are_json_with_usage() {
        let completion: serde_json::Value = serde_json::from_str(COMPLETION).unwrap();
        assert_eq!(completion["usage"]["completion_tokens"], 100);
        assert!(
            (1000..1400).contains(&COMPLETION.len()),
            "{}",
            COMPLETION.len()
        );
        for text in [event().as_str(), LAST_EVENTS.split("\n\n").next().unwrap()] {
            let json = text.trim().strip_prefix("data: ").unwrap();
            let _: serde_json::Value = serde_json::from_str(json).unwrap();
        }
    }

    #[test]
    fn different_seeds_ask_different_things() {
        let shape = Shape {
            body_bytes: 1024,
            stream: None,
            text: Text::Plain,
            python_headers: false,
        };
        assert_ne!(shape.body(1), shape.body(2));
        assert_eq!(shape.body(1), shape.body(1));
    }
}
