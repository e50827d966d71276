//! Errors in each dialect, as official clients compare them.

use super::*;
use serde_json::{Value, json};

fn body(dialect: Dialect, error: &ErrorText<'_>) -> Value {
    let mut out = Vec::new();
    error_body(dialect, error, &mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn speaks_openai() {
    let error = ErrorText {
        param: Some("model"),
        ..ErrorText::new(404, "model_not_found", "no \"x\"\nhere")
    };
    let expected = json!({"error": {"message": "no \"x\"\nhere", "type": "not_found_error",
        "param": "model", "code": "model_not_found"}});
    assert_eq!(body(Dialect::OpenAi, &error), expected);
    let plain = ErrorText {
        status: 429,
        kind: Some("tokens"),
        code: None,
        message: "m",
        param: None,
    };
    let expected =
        json!({"error": {"message": "m", "type": "tokens", "param": null, "code": null}});
    assert_eq!(body(Dialect::OpenAi, &plain), expected);
}

#[test]
fn names_the_kind_by_status() {
    let cases = [
        (400, "invalid_request_error", "invalid_request_error"),
        (401, "authentication_error", "authentication_error"),
        (403, "permission_error", "permission_error"),
        (404, "not_found_error", "not_found_error"),
        (408, "invalid_request_error", "invalid_request_error"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_error"),
        (500, "server_error", "api_error"),
        (502, "server_error", "api_error"),
        (503, "server_error", "overloaded_error"),
        (504, "server_error", "timeout_error"),
        (529, "server_error", "overloaded_error"),
    ];
    for (status, openai, anthropic) in cases {
        let error = ErrorText::new(status, "c", "m");
        assert_eq!(
            body(Dialect::OpenAi, &error)["error"]["type"],
            openai,
            "{status}"
        );
        let expected = json!({"type": "error", "error": {"type": anthropic, "message": "m"}});
        assert_eq!(body(Dialect::Anthropic, &error), expected, "{status}");
    }
}

#[test]
fn ends_a_stream_with_an_event_of_its_dialect() {
    let error = ErrorText::new(502, "upstream_cut", "m");
    let event = |dialect| {
        let mut out = Vec::new();
        error_event(dialect, &error, &mut out);
        String::from_utf8(out).unwrap()
    };
    let openai = event(Dialect::OpenAi);
    assert!(
        openai.starts_with("data: {\"error\":{") && openai.ends_with("}}\n\n"),
        "{openai}"
    );
    let anthropic = event(Dialect::Anthropic);
    assert!(
        anthropic.starts_with("event: error\ndata: {\"type\":\"error\","),
        "{anthropic}"
    );
    assert!(anthropic.ends_with("}}\n\n"));
}

#[test]
fn our_own_error_events_read_as_cuts() {
    use crate::{Api, CutCause, Ended, StreamScan};
    for (dialect, api, status) in [
        (Dialect::OpenAi, Api::ChatCompletions, 500),
        (Dialect::Anthropic, Api::Messages, 529),
    ] {
        let mut out = Vec::new();
        error_event(dialect, &ErrorText::new(529, "c", "m"), &mut out);
        let mut scan = StreamScan::new(api);
        assert_eq!(scan.feed(&out).cut_at, Some(out.len()));
        assert_eq!(scan.ended(), Ended::Cut(CutCause::Error { status }));
    }
}
