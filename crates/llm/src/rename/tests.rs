//! The asked-for name in bodies and streams, all else untouched.

use super::*;

fn renamed(text: &str, is_stream: bool, size: usize) -> String {
    let mut rename = ModelRename::new(Api::ChatCompletions, "as\"ked", is_stream);
    let mut out = Vec::new();
    for piece in text.as_bytes().chunks(size) {
        rename.feed(piece, &mut out);
    }
    rename.finish(&mut out);
    String::from_utf8(out).unwrap()
}

fn check(cases: &[(&str, &str)], is_stream: bool) {
    for (text, expected) in cases {
        for size in 1..=text.len() {
            assert_eq!(
                renamed(text, is_stream, size),
                *expected,
                "{text} by {size}"
            );
        }
    }
}

#[test]
fn renames_in_a_body() {
    check(
        &[
            (
                r#"{"model":"m","x":"model"}"#,
                r#"{"model":"as\"ked","x":"model"}"#,
            ),
            (
                r#"{"choices":[{"model":"m"}],"model": "m"}"#,
                r#"{"choices":[{"model":"m"}],"model": "as\"ked"}"#,
            ),
            (r#"{"model":null}"#, r#"{"model":null}"#),
            (
                r#"{"model":"m"}  trailing {"model":"m"}"#,
                r#"{"model":"as\"ked"}  trailing {"model":"m"}"#,
            ),
            ("<html>\"model\":\"m\"", "<html>\"model\":\"m\""),
        ],
        false,
    );
}

#[test]
fn renames_in_each_event() {
    check(
        &[
            (
                "data: {\"model\":\"m\"}\n\ndata:{\"model\":\"m\"}\r\n\r\ndata: [DONE]\n\n",
                "data: {\"model\":\"as\\\"ked\"}\n\ndata:{\"model\":\"as\\\"ked\"}\r\n\r\ndata: [DONE]\n\n",
            ),
            (
                "event: response.created\ndata: {\"response\":{\"model\":\"m\"}}\r\rdata: {\"model\":\"m\"}\r\r",
                "event: response.created\ndata: {\"response\":{\"model\":\"as\\\"ked\"}}\r\rdata: {\"model\":\"as\\\"ked\"}\r\r",
            ),
            (
                "data: {\"type\":\"message_start\",\"message\":{\"model\":\"m\"}}\n\n",
                "data: {\"type\":\"message_start\",\"message\":{\"model\":\"as\\\"ked\"}}\n\n",
            ),
            (
                "data: {\"delta\":{\"model\":\"m\"},\ndata: \"model\":\"m\"}\n\n",
                "data: {\"delta\":{\"model\":\"m\"},\ndata: \"model\":\"as\\\"ked\"}\n\n",
            ),
            (
                ": {\"model\":\"m\"}\ndatax: {\"model\":\"m\"}\n\n",
                ": {\"model\":\"m\"}\ndatax: {\"model\":\"m\"}\n\n",
            ),
            (
                "\u{feff}data: {\"model\":\"m\"}\n\n",
                "\u{feff}data: {\"model\":\"as\\\"ked\"}\n\n",
            ),
            (
                "data: broken {\n\ndata: {\"model\":\"m\"}\n\n",
                "data: broken {\n\ndata: {\"model\":\"as\\\"ked\"}\n\n",
            ),
        ],
        true,
    );
}

#[test]
fn serves_the_next_response_after_the_end() {
    let mut rename = ModelRename::new(Api::Completions, "b", false);
    let mut out = Vec::new();
    for _ in 0..2 {
        rename.feed(b"{\"model\":\"a\"}", &mut out);
        rename.finish(&mut out);
    }
    assert_eq!(out, b"{\"model\":\"b\"}{\"model\":\"b\"}");
}
