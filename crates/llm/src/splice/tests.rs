//! A changed model, and nothing else changed.

use super::*;
use crate::{Api, peek};

#[test]
fn changes_the_name_and_nothing_else() {
    let cases = [
        (
            r#"{"a":1e400, "model" :  "old","n":1234567890123456789012345678901}"#,
            "new",
        ),
        (r#"{"model":"a\u0041","z":[ 1 , 2 ]}"#, "quo\"te\\ü\n"),
        (r#"{"messages":"x","model":""}"#, "was-empty"),
        (r#"{"model":"to-empty"}"#, ""),
    ];
    for (body, name) in cases {
        let span = peek(body.as_bytes(), Api::Other).unwrap().model.unwrap();
        let mut out = b"kept".to_vec();
        assert!(splice_model(body.as_bytes(), &span, name, &mut out));
        let escaped = serde_json::to_string(name).unwrap();
        let (before, after) = (&body[..span.start as usize], &body[span.end as usize..]);
        let expected = format!("kept{before}{}{after}", &escaped[1..escaped.len() - 1]);
        assert_eq!(String::from_utf8(out.clone()).unwrap(), expected, "{body}");
        let again = peek(&out[4..], Api::Other).unwrap();
        assert_eq!(again.model_str(&out[4..]).unwrap(), name, "{body}");
        let spliced = Spliced::new(body.as_bytes(), &span, name).unwrap();
        assert_eq!(spliced.length(), out.len() - 4, "{body}");
    }
}

#[test]
fn refuses_a_span_of_another_body() {
    let mut out = Vec::new();
    assert!(!splice_model(b"{}", &(1..9), "x", &mut out));
    assert!(out.is_empty());
}
