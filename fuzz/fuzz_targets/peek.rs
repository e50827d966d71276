//! The body peek against its scalar twin and against `serde_json`, on any bytes.
//!
//! What `serde_json` reads as an object must be read the same, or refused as ambiguous; whatever is
//! found must lie inside the body, survive a splice and be found again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::{Api, PeekError, Span, block_hashes, peek, peek_scalar, splice_model};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

const APIS: [Api; 6] = [
    Api::ChatCompletions,
    Api::Completions,
    Api::Embeddings,
    Api::Responses,
    Api::Messages,
    Api::Other,
];

/// The top level as `serde_json` reads it, in order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = map.next_entry()? {
                    all.push(member);
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

fn text<'a>(body: &'a [u8], span: &Span) -> &'a [u8] {
    &body[span.start as usize..span.end as usize]
}

fuzz_target!(|bytes: &[u8]| {
    let Some((api, body)) = bytes.split_first() else {
        return;
    };
    let api = APIS[usize::from(*api) % APIS.len()];
    let found = peek(body, api);
    assert_eq!(found, peek_scalar(body, api));
    if let Ok(found) = &found {
        let mut hashes = Vec::new();
        block_hashes(1, found.prompt_slices(body), &mut hashes);
        assert_eq!(hashes.len(), found.prompt_bytes() / llm::BLOCK_BYTES);
        if let Some(model) = &found.model {
            let mut spliced = Vec::new();
            assert!(splice_model(body, model, "n\"\\\u{e9}w", &mut spliced));
            let again = peek(&spliced, api).expect("a spliced body is as good as it was");
            assert_eq!(again.model_str(&spliced).as_deref(), Some("n\"\\\u{e9}w"));
        }
    }
    let Ok(Members(members)) = serde_json::from_slice::<Members<'_>>(body) else {
        return;
    };
    let value = |key: &str| members.iter().find(|member| member.0 == key).map(|member| member.1);
    match found {
        Ok(found) => {
            let model = value("model").map(|raw| serde_json::from_str::<String>(raw.get()));
            let model = model.map(|model| model.expect("a model that passed is a string"));
            assert_eq!(found.model_str(body).as_deref(), model.as_deref());
            assert_eq!(found.stream, value("stream").is_some_and(|raw| raw.get() == "true"));
            let last = match api {
                Api::ChatCompletions | Api::Messages => value("messages"),
                Api::Completions => value("prompt"),
                Api::Embeddings | Api::Responses => value("input"),
                Api::Other => None,
            };
            let last = last.map(|raw| raw.get().as_bytes());
            assert_eq!(found.prompt[2].as_ref().map(|span| text(body, span)), last);
        }
        Err(PeekError::DuplicateKey { key, .. }) => {
            assert!(members.iter().filter(|member| member.0 == key).count() > 1);
        }
        Err(PeekError::EscapedKey { key, .. }) => assert!(value(key).is_some()),
        Err(PeekError::NotString { key, .. }) => {
            let raw = value(key).expect("the key is there").get();
            assert!(serde_json::from_str::<String>(raw).is_err());
        }
        Err(error) => panic!("valid JSON refused: {error}"),
    }
});
