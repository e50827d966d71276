//! What single events mean. Recorded streams: `tests/it`.

use super::*;

const CHAT: Api = Api::ChatCompletions;
const ROLE: &str =
    r#"data: {"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
const TEXT: &str = r#"data: {"choices":[{"delta":{"content":"hi"},"finish_reason":null}]}"#;

/// The scan after these events.
fn scan(api: Api, events: &[&str]) -> StreamScan {
    let mut scan = StreamScan::new(api);
    for event in events {
        scan.feed(format!("{event}\n\n").as_bytes());
    }
    scan
}

#[test]
fn tells_opening_content_and_error_apart() {
    use FirstEvent::{Content, Error, Opening};
    let cases: [(Api, &[&str], Option<FirstEvent>); 14] = [
        (CHAT, &[], None),
        (CHAT, &[": ping"], None),
        (CHAT, &[ROLE], Some(Opening)),
        (CHAT, &[ROLE, TEXT], Some(Content)),
        (CHAT, &[TEXT], Some(Content)),
        (
            CHAT,
            &[r#"data: {"choices":[{"text":"a"}]}"#],
            Some(Content),
        ),
        (
            CHAT,
            &[r#"data: {"error":{"code":503}}"#],
            Some(Error { status: 503 }),
        ),
        (
            CHAT,
            &[ROLE, r#"data: {"error":{"code":400}}"#],
            Some(Error { status: 400 }),
        ),
        (
            CHAT,
            &[TEXT, r#"data: {"error":{"code":400}}"#],
            Some(Content),
        ),
        (CHAT, &["data: [DONE]"], Some(Error { status: 503 })),
        (
            Api::Responses,
            &["event: response.created\ndata: {}"],
            Some(Opening),
        ),
        (
            Api::Responses,
            &[r#"data: {"delta":"a","type":"response.output_text.delta"}"#],
            Some(Content),
        ),
        (
            Api::Messages,
            &["event: message_start\ndata: {}", "event: ping\ndata: {}"],
            Some(Opening),
        ),
        (
            Api::Messages,
            &["event: content_block_delta\ndata: {}"],
            Some(Content),
        ),
    ];
    for (api, events, expected) in cases {
        assert_eq!(scan(api, events).first_event(), expected, "{events:?}");
    }
}

const fn error(status: u16) -> Ended {
    Ended::Cut(CutCause::Error { status })
}

const ENDINGS: [(Api, &str, Ended); 27] = [
    (CHAT, "data: [DONE]", Ended::Cut(CutCause::Unfinished)),
    (CHAT, "data:[DONE]", Ended::Cut(CutCause::Unfinished)),
    (
        Api::Completions,
        "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\ndata: [DONE]",
        Ended::Cut(CutCause::Unfinished),
    ),
    (
        CHAT,
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\ndata: [DONE]",
        Ended::Done,
    ),
    (
        CHAT,
        r#"data: {"choices":[{"delta":{"content":"[DONE]"}}]}"#,
        Ended::Open,
    ),
    (
        CHAT,
        r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#,
        Ended::Open,
    ),
    (
        CHAT,
        r#"data: {"choices":[{"delta":{}, "finish_reason": "abort"}]}"#,
        Ended::Cut(CutCause::Abort),
    ),
    (
        CHAT,
        r#"data: {"choices":[{"finish_reason":null},{"finish_reason":"abort"}]}"#,
        Ended::Cut(CutCause::Abort),
    ),
    (
        CHAT,
        r#"data: {"choices":[{"delta":{"finish_reason":"abort"}}]}"#,
        Ended::Open,
    ),
    (
        CHAT,
        r#"data: {"choices":[{"delta":{"content":"\"finish_reason\":\"abort\""}}]}"#,
        Ended::Open,
    ),
    (
        CHAT,
        r#"data: {"choices":[{"delta":{"content":"{\"error\":{}}"}}],"x":{"error":1}}"#,
        Ended::Open,
    ),
    (CHAT, r#"data: {"choices":[],"error":null}"#, Ended::Open),
    (
        CHAT,
        r#"data: {"error": {"message": "x", "code": 500}}"#,
        error(500),
    ),
    (CHAT, r#"data: {"error":"Unauthorized"}"#, error(500)),
    (
        CHAT,
        r#"data: {"error":{"type":"NotFoundError"}}"#,
        error(404),
    ),
    (CHAT, r#"data: {"error":{"code":"429"}}"#, error(429)),
    (CHAT, r#"data: {"error":{"code":200}}"#, error(500)),
    (
        CHAT,
        r#"data: {"object":"error","message":"too long","type":"BadRequestError","code":400}"#,
        error(400),
    ),
    (CHAT, "event: error\ndata: {\"code\":502}", error(502)),
    (
        Api::Responses,
        "event: response.completed\ndata: {}",
        Ended::Done,
    ),
    (
        Api::Responses,
        r#"data: {"type":"response.incomplete"}"#,
        Ended::Done,
    ),
    (
        Api::Responses,
        r#"data: {"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded"}}}"#,
        error(429),
    ),
    (
        Api::Responses,
        r#"data: {"error":{"code":400}}"#,
        error(400),
    ),
    (
        Api::Responses,
        "event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\"}",
        error(500),
    ),
    (
        Api::Messages,
        "event: message_stop\ndata: {\"type\":\"message_stop\"}",
        Ended::Done,
    ),
    (
        Api::Messages,
        r#"data: {"type":"error","error":{"type":"overloaded_error"}}"#,
        error(529),
    ),
    (
        Api::Messages,
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"}}",
        error(500),
    ),
];

#[test]
fn tells_how_a_stream_ended() {
    for (api, event, expected) in ENDINGS {
        assert_eq!(scan(api, &[event]).ended(), expected, "{event}");
    }
}

#[test]
fn points_behind_the_event_that_cut() {
    let abort =
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"abort\"}]}\n\n";
    let piece = format!("{TEXT}\n\n{abort}data: [DONE]\n\n");
    let mut scan = StreamScan::new(CHAT);
    let seen = scan.feed(piece.as_bytes());
    assert_eq!(
        seen,
        Seen {
            events: 2,
            cut_at: Some(TEXT.len() + 2 + abort.len()),
            error_status: None
        }
    );
    assert_eq!(scan.ended(), Ended::Cut(CutCause::Abort));
    let later = scan.feed(b"data: {\"error\":{\"code\":500}}\n\n");
    assert_eq!(later, Seen::default());
}

#[test]
fn an_end_mark_that_ends_nothing_is_not_for_the_client() {
    let mark = b"data: [DONE]\n\n";
    let mut scan = StreamScan::new(CHAT);
    scan.feed(format!("{TEXT}\n\n").as_bytes());
    for (at, byte) in mark.iter().enumerate() {
        assert_eq!(scan.doubtful_bytes(), at);
        let seen = scan.feed(&[*byte]);
        let expected = (at + 1 == mark.len()).then_some(0);
        assert_eq!(seen.cut_at, expected, "at {at}");
    }
    let piece = format!("{TEXT}\n\ndata: [DONE]\n\n");
    let seen = StreamScan::new(CHAT).feed(piece.as_bytes());
    assert_eq!(seen.cut_at, Some(TEXT.len() + 2));
    let mut scan = StreamScan::new(CHAT);
    scan.feed(br#"data: {"choices""#);
    assert_eq!(scan.doubtful_bytes(), 0);
}

#[test]
fn an_end_mark_among_other_lines_is_held_back_from_its_line_on() {
    let id = "id: 5\r\n";
    let event = format!("{id}data: [DONE]\r\nretry: 1\r\n\r\n");
    let seen = StreamScan::new(CHAT).feed(event.as_bytes());
    assert_eq!(seen.cut_at, Some(id.len()));
    for split in 1..event.len() - 2 {
        let (first, rest) = event.split_at(split);
        let mut scan = StreamScan::new(CHAT);
        scan.feed(first.as_bytes());
        assert_eq!(scan.doubtful_bytes(), split.saturating_sub(id.len()));
        let expected = id.len().saturating_sub(split);
        assert_eq!(
            scan.feed(rest.as_bytes()).cut_at,
            Some(expected),
            "split at {split}"
        );
    }
}

#[test]
fn counts_tokens_by_content_where_no_usage_is_told() {
    let last = r#"data: {"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
    let tool = r#"data: {"choices":[{"delta":{"content":null,"tool_calls":[{"index":0}]}}]}"#;
    let scan = scan(CHAT, &[ROLE, TEXT, TEXT, tool, last, "data: [DONE]"]);
    let expected = Usage {
        completion_tokens: 3,
        estimated: true,
        ..Usage::default()
    };
    assert_eq!((scan.usage(), scan.events()), (expected, 3));
}

#[test]
fn adds_up_the_usage_of_messages() {
    let events = [
        r#"data: {"type":"message_start","message":{"model":"m","usage":{"input_tokens":9,"cache_read_input_tokens":32,"output_tokens":1}}}"#,
        r#"data: {"type":"content_block_delta","delta":{"text":"\"usage\":{}"}}"#,
        r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":12}}"#,
        r#"data: {"type":"message_stop"}"#,
    ];
    let scan = scan(Api::Messages, &events);
    let expected = Usage {
        prompt_tokens: 41,
        completion_tokens: 12,
        cached_tokens: Some(32),
        estimated: false,
    };
    assert_eq!(
        (scan.usage(), scan.events(), scan.ended()),
        (expected, 1, Ended::Done)
    );
}

#[test]
fn is_not_fooled_by_generated_text() {
    let text = r#"data: {"choices":[{"delta":{"content":"\"usage\":{\"prompt_tokens\":1}"},"usage":{"prompt_tokens":2}}]}"#;
    let scan = scan(CHAT, &[TEXT, text]);
    assert_eq!(
        scan.usage(),
        Usage {
            completion_tokens: 2,
            estimated: true,
            ..Usage::default()
        }
    );
}

#[test]
fn counts_what_it_does_not_look_into() {
    let long = format!(
        r#"data: {{"choices":[{{"delta":{{"content":"{}"}}}}]}}"#,
        "x".repeat(70_000)
    );
    let scan = scan(CHAT, &[&long, "data: not json", TEXT]);
    assert_eq!((scan.events(), scan.oversized_events()), (3, 1));
}
