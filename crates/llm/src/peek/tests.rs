//! Peeks at bodies: what is found, what is refused, and agreement with `serde_json`.

use super::*;
use proptest::prelude::*;
use serde_json::value::RawValue;

const CHAT: Api = Api::ChatCompletions;

fn text<'a>(body: &'a str, span: &Option<Span>) -> Option<&'a str> {
    span.as_ref()
        .map(|span| &body[span.start as usize..span.end as usize])
}

#[test]
fn finds_what_routing_needs() {
    let body = r#" {"temperature":1e400,"model":"a\u0041","stream" : true,
        "max_tokens":30,"stream_options":{"x":{},"include_usage":true},"cache_salt":"s",
        "n":123456789012345678901234567890,"messages":[{"role":"user","content":"\"}{"}],
        "tools":[{}],"input":"no","max_completion_tokens":40} "#;
    let found = peek(body.as_bytes(), CHAT).unwrap();
    assert_eq!(text(body, &found.model), Some("a\\u0041"));
    assert_eq!(found.model_str(body.as_bytes()).unwrap(), "aA");
    assert_eq!(found.cache_salt_str(body.as_bytes()).unwrap(), "s");
    assert!(found.stream && found.include_usage);
    assert_eq!(found.max_tokens, Some(40));
    let prompt: Vec<_> = found.prompt_slices(body.as_bytes()).collect();
    assert_eq!(
        prompt,
        [&b"[{}]"[..], br#"[{"role":"user","content":"\"}{"}]"#]
    );
    assert_eq!(found.prompt_bytes(), 4 + prompt[1].len());
}

#[test]
fn takes_the_prompt_in_the_engines_order() {
    let body =
        r#"{"prompt":"p","input":"i","messages":[1],"instructions":"n","system":"s","tools":[2]}"#;
    let cases = [
        (Api::ChatCompletions, vec!["[2]", "[1]"]),
        (Api::Completions, vec!["\"p\""]),
        (Api::Embeddings, vec!["\"i\""]),
        (Api::Responses, vec!["[2]", "\"n\"", "\"i\""]),
        (Api::Messages, vec!["[2]", "\"s\"", "[1]"]),
        (Api::Other, vec![]),
    ];
    for (api, expected) in cases {
        let found = peek(body.as_bytes(), api).unwrap();
        let prompt: Vec<_> = found
            .prompt_slices(body.as_bytes())
            .map(|s| str::from_utf8(s).unwrap())
            .collect();
        assert_eq!(prompt, expected, "{api:?}");
    }
}

#[test]
fn reads_limits_of_every_name() {
    let cases = [
        (r#"{"max_tokens":5}"#, Some(5)),
        (r#"{"max_completion_tokens":6,"max_tokens":5}"#, Some(6)),
        (r#"{"max_output_tokens":7}"#, Some(7)),
        (r#"{"max_tokens":null}"#, None),
        (r#"{"max_tokens":-1}"#, None),
        (r#"{"max_tokens":99999999999}"#, Some(u32::MAX)),
        (r#"{"max_completion_tokens":null,"max_tokens":5}"#, Some(5)),
    ];
    for (body, expected) in cases {
        assert_eq!(
            peek(body.as_bytes(), CHAT).unwrap().max_tokens,
            expected,
            "{body}"
        );
    }
}

const REFUSED: [(&str, PeekError, &str); 15] = [
    ("", PeekError::NotObject { at: 0 }, "body_not_object"),
    ("[1]", PeekError::NotObject { at: 0 }, "body_not_object"),
    (
        "\u{feff}{}",
        PeekError::NotObject { at: 0 },
        "body_not_object",
    ),
    (
        r#"{"model":"a","messages":[{"role":"user""#,
        PeekError::Truncated { at: 39 },
        "body_truncated",
    ),
    (
        r#"{"model":"a"} {"model":"b"}"#,
        PeekError::NotJson { at: 14 },
        "body_not_json",
    ),
    (
        r#"{"model":"a",}"#,
        PeekError::NotJson { at: 13 },
        "body_not_json",
    ),
    (
        r#"{"model":7}"#,
        PeekError::NotString {
            key: "model",
            at: 9,
        },
        "not_a_string",
    ),
    (
        r#"{"model":null}"#,
        PeekError::NotString {
            key: "model",
            at: 9,
        },
        "not_a_string",
    ),
    (
        "{\"model\":\"a\nb\"}",
        PeekError::NotString {
            key: "model",
            at: 9,
        },
        "not_a_string",
    ),
    (
        r#"{"model":"\ud800"}"#,
        PeekError::NotString {
            key: "model",
            at: 9,
        },
        "not_a_string",
    ),
    (
        r#"{"cache_salt":[]}"#,
        PeekError::NotString {
            key: "cache_salt",
            at: 14,
        },
        "not_a_string",
    ),
    (
        r#"{"model":"a","model":"a"}"#,
        PeekError::DuplicateKey {
            key: "model",
            at: 14,
        },
        "duplicate_key",
    ),
    (
        r#"{"tools":[],"a":1,"tools":[]}"#,
        PeekError::DuplicateKey {
            key: "tools",
            at: 19,
        },
        "duplicate_key",
    ),
    (
        r#"{"mod\u0065l":"a"}"#,
        PeekError::EscapedKey {
            key: "model",
            at: 2,
        },
        "escaped_key",
    ),
    (
        r#"{"\u0073tream":true}"#,
        PeekError::EscapedKey {
            key: "stream",
            at: 2,
        },
        "escaped_key",
    ),
];

#[test]
fn refuses_what_engines_may_read_otherwise() {
    for (body, expected, code) in REFUSED {
        let error = peek(body.as_bytes(), CHAT).unwrap_err();
        assert_eq!(error, expected, "{body}");
        assert_eq!(error.code(), code, "{body}");
        assert_eq!(error.status(), 400, "{body}");
    }
}

#[test]
fn refuses_every_routed_key_twice_or_escaped() {
    for key in ROUTED {
        let value = if matches!(key, "model" | "cache_salt") {
            "\"a\""
        } else {
            "1"
        };
        let twice = format!(r#"{{"{key}":{value},"{key}":{value}}}"#);
        let escaped: String = key.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
        let hidden = format!(r#"{{"{escaped}":{value}}}"#);
        let error = |body: &str| peek(body.as_bytes(), CHAT).unwrap_err();
        assert_eq!(error(&twice).code(), "duplicate_key", "{key}");
        assert_eq!(error(&hidden).code(), "escaped_key", "{key}");
        assert_eq!(error(&hidden).param(), Some(key));
    }
}

#[test]
fn lets_other_keys_be_odd() {
    for body in [
        r#"{"a\n":1,"a\n":2,"x":1,"x":2,"mod\u0065":3}"#,
        r#"{"Model":"other","metadata":{"model":"x","model":"y","mod\u0065l":"z"}}"#,
        r#"{"\":"\\":1}"#,
    ] {
        let found = peek(body.as_bytes(), CHAT);
        match serde_json::from_str::<serde_json::Value>(body) {
            Ok(_) => assert_eq!(found.unwrap().model, None, "{body}"),
            Err(_) => assert!(found.is_err(), "{body}"),
        }
    }
}

#[test]
fn passes_invalid_utf8_outside_the_model() {
    let body = b"{\"messages\":\"\xff\xfe\",\"model\":\"m\"}";
    assert_eq!(peek(body, CHAT).unwrap().model_str(body).unwrap(), "m");
    assert!(peek(b"{\"model\":\"\xff\"}", CHAT).is_err());
}

#[test]
fn finds_the_model_behind_thirty_megabytes() {
    let mut body = br#"{"messages":[{"role":"user","content":""#.to_vec();
    while body.len() < 30 << 20 {
        body.extend_from_slice(br#"fn main() { println!(\"{}\", x[0]); } \\ "#);
    }
    body.extend_from_slice(br#""}],"model":"last"}"#);
    assert_eq!(peek(&body, CHAT).unwrap().model_str(&body).unwrap(), "last");
}

/// Any JSON value as text, with odd spaces, keys from a small set and hard strings.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?",
        string(),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5)
                .prop_map(|all| format!("[{}]", all.join(" ,"))),
            prop::collection::vec((string(), inner), 0..4).prop_map(|all| {
                let all: Vec<_> = all
                    .into_iter()
                    .map(|(k, v)| format!("{k} :\t{v}"))
                    .collect();
                format!("{{{}}}", all.join(","))
            }),
        ]
    })
}

fn string() -> impl Strategy<Value = String> {
    let text = r#"([a-z{}\[\],:é ]|\\["\\/bfnrt]|\\u00[0-9a-f]{2}){0,90}"#;
    text.prop_map(|inside| format!("\"{inside}\""))
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(ROUTED.to_vec()).prop_map(|key| format!("\"{key}\"")),
        1 => Just(r#""mod\u0065l""#.to_owned()),
        2 => string(),
    ]
}

fn object() -> impl Strategy<Value = String> {
    prop::collection::vec((key(), value()), 0..8).prop_map(|members| {
        let all: Vec<_> = members
            .into_iter()
            .map(|(k, v)| format!("{k}: {v}"))
            .collect();
        format!(" {{ {} }}\n", all.join(" , "))
    })
}

/// The top level as `serde_json` reads it: members in order, keys unescaped, values raw.
struct Theirs<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Theirs<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Theirs<'de>;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry::<String, &RawValue>()? {
                    all.push(entry);
                }
                Ok(Theirs(all))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// What must hold between our reading of a body and `serde_json`'s.
fn agree(body: &str) {
    let fast = peek(body.as_bytes(), CHAT);
    assert_eq!(
        fast,
        peek_with(body.as_bytes(), CHAT, Scanner::scalar()),
        "twins: {body}"
    );
    let Ok(Theirs(members)) = serde_json::from_str::<Theirs<'_>>(body) else {
        return;
    };
    let routed: Vec<_> = members
        .iter()
        .filter(|(key, _)| ROUTED.contains(&key.as_str()))
        .collect();
    let get = |wanted: &str| {
        members
            .iter()
            .find(|(key, _)| key == wanted)
            .map(|(_, v)| v.get())
    };
    match fast {
        Ok(found) => {
            let model: Option<String> = get("model").map(|raw| serde_json::from_str(raw).unwrap());
            assert_eq!(
                found.model_str(body.as_bytes()).map(Cow::into_owned),
                model,
                "{body}"
            );
            assert_eq!(found.stream, get("stream") == Some("true"), "{body}");
            assert_eq!(text(body, &found.prompt[2]), get("messages"), "{body}");
            assert_eq!(text(body, &found.prompt[0]), get("tools"), "{body}");
            let mut keys: Vec<_> = routed.iter().map(|(key, _)| key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), routed.len(), "a duplicate passed: {body}");
        }
        Err(PeekError::DuplicateKey { key, .. }) => {
            assert!(
                routed.iter().filter(|(other, _)| other == key).count() > 1,
                "{body}"
            );
        }
        Err(PeekError::EscapedKey { key, .. }) => {
            assert!(body.contains("\\u") && get(key).is_some(), "{body}");
        }
        Err(PeekError::NotString { key, .. }) => {
            assert!(
                serde_json::from_str::<String>(get(key).unwrap()).is_err(),
                "{body}"
            );
        }
        Err(error) => panic!("{error} for valid JSON: {body}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn reads_valid_objects_as_serde_json_does(body in object()) {
        agree(&body);
    }

    #[test]
    fn reads_damaged_objects_no_other_way(body in object(), at in any::<prop::sample::Index>(), with in "[\"\\\\{}\\[\\],:a ]{0,2}") {
        let mut damaged: Vec<char> = body.chars().collect();
        let at = at.index(damaged.len());
        damaged.splice(at..=at, with.chars());
        agree(&damaged.into_iter().collect::<String>());
    }
}
