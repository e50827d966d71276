//! Responses: what is refused, how bodies are framed, what the client gets.
use proptest::prelude::*;

use super::*;

/// Bytes in, code out; the status is always 502.
#[rustfmt::skip]
pub(crate) const REFUSED: &[(&[u8], &str)] = &[
    (b"HTTP/1.1 20 OK\r\n\r\n", "invalid_status_line"),
    (b"HTTP/1.1 2000 OK\r\n\r\n", "invalid_status_line"),
    (b"HTTP/1.1 2x0 OK\r\n\r\n", "invalid_status_line"),
    (b"HTTP/1.1  200 OK\r\n\r\n", "invalid_status_line"),
    (b"HTTP/1.1 099 OK\r\n\r\n", "invalid_status_line"),
    (b"HTTP/1.1 600 OK\r\n\r\n", "invalid_status_line"),
    (b"HTTP/1.1 200 O\x00K\r\n\r\n", "invalid_status_line"),
    (b"HTTP/1.1 200 O\rK\r\n\r\n", "invalid_status_line"),
    (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "invalid_status_line"),
    (b"\nHTTP/1.1 200 OK\r\n\r\n", "invalid_status_line"),
    (b"HTTP/2 200\r\n\r\n", "unsupported_version"),
    (b"ICY 200 OK\r\n\r\n", "unsupported_version"),
    (b"HTTP/1.1 200 OK\nx: y\r\n\r\n", "bare_line_feed"),
    (b"HTTP/1.1 200 OK\r\nx: y\n\r\n", "bare_line_feed"),
    (b"HTTP/1.1 200 OK\r\nx: y\r\n\n", "bare_line_feed"),
    (b"HTTP/1.1 200 OK\r\n\rx", "invalid_line_end"),
    (b"HTTP/1.1 200 OK\r\nx: y\r\n z\r\n\r\n", "invalid_field_name"),
    (b"HTTP/1.1 200 OK\r\nx : y\r\n\r\n", "invalid_field_name"),
    (b"HTTP/1.1 200 OK\r\nx: \x01\r\n\r\n", "invalid_field_value"),
    (b"HTTP/1.1 200 OK\r\nx: y\rz: 1\r\n\r\n", "invalid_field_value"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n", "invalid_content_length"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", "invalid_content_length"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n", "duplicate_content_length"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", "content_length_with_transfer_encoding"),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", "unsupported_transfer_coding"),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", "duplicate_transfer_encoding"),
    (b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "transfer_encoding_in_http_1_0"),
];

#[test]
fn refuses_what_has_no_single_meaning() {
    let field = format!("x: {}\r\n", "y".repeat(200));
    let large = format!("HTTP/1.1 200 OK\r\n{}\r\n", field.repeat(99));
    let cut = Limits {
        head_bytes: 1000,
        ..Limits::default()
    };
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(101));
    let rows = REFUSED
        .iter()
        .map(|(input, code)| (*input, *code, Limits::default()));
    let limited = [
        (large.as_bytes(), "head_too_large", cut),
        (&large.as_bytes()[..1000], "head_too_large", cut),
        (many.as_bytes(), "too_many_fields", Limits::default()),
    ];
    for (input, code, limits) in rows.chain(limited) {
        let refusal = parse_with(input, false, &limits).expect_err(&show(input));
        assert_eq!(
            (refusal.status, refusal.code),
            (502, code),
            "{}",
            show(input)
        );
    }
}

/// Status line and fields, whether the request was HEAD; framing and keep-alive.
#[rustfmt::skip]
const FRAMED: &[(&str, bool, Framing, bool)] = &[
    ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", false, Framing::Length(5), true),
    ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", true, Framing::None, true),
    ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false, Framing::Length(0), true),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", false, Framing::Chunked, true),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, Framing::None, true),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nconnection: close\r\n\r\n", false, Framing::Chunked, false),
    ("HTTP/1.1 200 OK\r\n\r\n", false, Framing::Close, false),
    ("HTTP/1.1 200 OK\r\n\r\n", true, Framing::None, true),
    ("HTTP/1.1 200\r\ncontent-length: 1\r\n\r\n", false, Framing::Length(1), true),
    ("HTTP/1.1 200 \r\ncontent-length: 1\r\n\r\n", false, Framing::Length(1), true),
    ("HTTP/1.1 404 Nicht \u{e9}\r\ncontent-length: 1\r\n\r\n", false, Framing::Length(1), true),
    ("HTTP/1.1 204 No Content\r\n\r\n", false, Framing::None, true),
    ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", false, Framing::None, true),
    ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", false, Framing::None, true),
    ("HTTP/1.1 100 Continue\r\n\r\n", false, Framing::None, true),
    ("HTTP/1.1 103 Early Hints\r\nlink: x\r\ntransfer-encoding: chunked\r\n\r\n", false, Framing::None, true),
    ("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", false, Framing::None, true),
    ("HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\n", false, Framing::Length(5), false),
    ("HTTP/1.0 200 OK\r\n\r\n", false, Framing::Close, false),
    ("HTTP/1.1 500 Internal Server Error\r\nx: y\r\ncontent-length: 17\r\n\r\n", false, Framing::Length(17), true),
];

#[test]
fn frames_bodies_also_byte_by_byte() {
    for (input, request_was_head, framing, keep_alive) in FRAMED {
        let input = input.as_bytes();
        for end in 0..input.len() {
            let parsed = ResponseHead::new().parse(&input[..end], *request_was_head, &LIMITS);
            assert_eq!(parsed, Ok(Parsed::Incomplete), "{}", show(&input[..end]));
        }
        let head = parse(input, *request_was_head);
        assert_eq!(
            (head.framing(), head.keep_alive()),
            (*framing, *keep_alive),
            "{}",
            show(input)
        );
    }
}

#[test]
fn tells_status_reason_and_version() {
    let rows = [
        ("HTTP/1.1 200 OK\r\n\r\n", 200, "OK", 1),
        ("HTTP/1.0 404 Not Found\r\n\r\n", 404, "Not Found", 0),
        ("HTTP/1.1 599\r\n\r\n", 599, "", 1),
        ("HTTP/1.1 100 \r\n\r\n", 100, "", 1),
    ];
    for (input, status, reason, version) in rows {
        let head = parse(input.as_bytes(), false);
        assert_eq!(
            (head.status(), head.reason(), head.version_minor()),
            (status, reason, version)
        );
    }
}

#[test]
fn tells_media_types() {
    let rows = [
        ("text/event-stream", true, false),
        ("Text/Event-Stream ; charset=utf-8", true, false),
        ("text/event-streams", false, false),
        ("application/json", false, true),
        ("application/json;charset=UTF-8", false, true),
        ("application/problem+JSON", false, true),
        ("application/jsonl", false, false),
        ("json", false, false),
        ("", false, false),
    ];
    for (value, is_event_stream, is_json) in rows {
        let input = format!("HTTP/1.1 200 OK\r\nContent-Type: {value}\r\n\r\n");
        let head = parse(input.as_bytes(), false);
        assert_eq!(
            (head.is_event_stream(), head.is_json()),
            (is_event_stream, is_json),
            "{value}"
        );
    }
    assert!(!parse(b"HTTP/1.1 200 OK\r\n\r\n", false).is_json());
}

/// Bytes in, whether the request was HEAD, framing and keep-alive to write; bytes out.
#[rustfmt::skip]
const WRITTEN: &[(&str, bool, Framing, bool, &str)] = &[
    ("HTTP/1.1 200 Fine\r\nServer: x\r\nContent-Length: 5\r\nDate: d\r\n\r\n", false, Framing::Length(5), true,
     "HTTP/1.1 200 Fine\r\nServer: x\r\nContent-Length: 5\r\nDate: d\r\n\r\n"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nDate: d\r\n\r\n", false, Framing::Chunked, false,
     "HTTP/1.1 200 OK\r\nDate: d\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, Framing::Chunked, true,
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, Framing::Close, true,
     "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"),
    ("HTTP/1.0 200 OK\r\nConnection: x-a\r\nx-a: b\r\nKeep-Alive: 5\r\nx: y\r\n\r\n", false, Framing::Close, false,
     "HTTP/1.1 200 OK\r\nx: y\r\nconnection: close\r\n\r\n"),
    ("HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n", false, Framing::Length(1), true,
     "HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\n"),
    // No body: the length of what GET would bring stays, where it may.
    ("HTTP/1.1 200 OK\r\nContent-Length: 05\r\n\r\n", true, Framing::None, true,
     "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, Framing::None, true,
     "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, Framing::None, true,
     "HTTP/1.1 200 OK\r\n\r\n"),
    ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, Framing::None, true,
     "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false, Framing::None, true,
     "HTTP/1.1 204 No Content\r\n\r\n"),
    ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", false, Framing::Chunked, true,
     "HTTP/1.1 204 No Content\r\n\r\n"),
    ("HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 5\r\n\r\n", false, Framing::None, true,
     "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
    // A body could be there and is not.
    ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, Framing::None, true,
     "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
];

#[test]
fn writes_end_to_end_fields_and_one_framing() {
    for (input, request_was_head, body, keep_alive, expected) in WRITTEN {
        let mut out = Vec::new();
        parse(input.as_bytes(), *request_was_head).write(*body, *keep_alive, &mut out);
        assert_eq!(show(&out), show(expected.as_bytes()), "{input}");
    }
}

#[test]
fn writes_edits_over_what_was_received() {
    let mut head = parse(
        b"HTTP/1.1 200 OK\r\nServer: x\r\nx-a: 1\r\ncontent-length: 2\r\n\r\n",
        false,
    );
    assert!(head.remove("server") && head.set("x-a", b"2") && head.add("x-b", b"3"));
    for name in [
        "content-length",
        "connection",
        "transfer-encoding",
        "",
        "a b",
    ] {
        assert!(!head.set(name, b"1") && !head.add(name, b"1"), "{name}");
    }
    assert!(!head.remove("content-length"));
    assert_eq!(head.get("x-a"), Some(b"2".as_slice()));
    assert_eq!(head.fields().count(), 3);
    let mut out = Vec::new();
    head.write(Framing::Length(2), true, &mut out);
    assert_eq!(
        show(&out),
        show(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-a: 2\r\nx-b: 3\r\n\r\n")
    );
    assert!(!format!("{head:?}").contains("x-a"));
    head.release();
    assert_eq!((head.status(), head.fields().count()), (0, 0));
}

/// What a head looks like from outside.
fn seen(head: &ResponseHead) -> String {
    let mut out = Vec::new();
    if head.status() > 0 {
        head.write(head.framing(), head.keep_alive(), &mut out);
    }
    let told = (head.status(), head.reason(), head.version_minor());
    let body = (
        head.framing(),
        head.keep_alive(),
        head.is_event_stream(),
        head.is_json(),
    );
    let fields: Vec<_> = head.fields().collect();
    format!("{told:?} {body:?} {fields:?} {}", show(&out))
}

#[test]
fn a_head_is_read_as_if_none_had_come_before() {
    let head = |status: &str, length: &str, more: &str| {
        format!("HTTP/1.1 {status}\r\nx-a: 1\r\nContent-Length:{length}\r\n{more}\r\n").into_bytes()
    };
    let mut inputs = Vec::new();
    for status in ["200 OK", "200 No", "204 ", "304 Not", "500 OK"] {
        for length in [
            " 17",
            " 18",
            "017",
            " 0",
            " 5",
            " 00",
            " 1x",
            "999",
            " 99999999999999999999",
        ] {
            for more in [
                "",
                "content-type: text/event-stream\r\n",
                "connection: x-a\r\n",
            ] {
                inputs.push(head(status, length, more));
            }
        }
    }
    inputs.push(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec());
    inputs.push(b"HTTP/1.1 200 OK\r\n\r\n".to_vec());
    let mut one = ResponseHead::new();
    for (input, was_head) in inputs
        .iter()
        .flat_map(|input| [(input, false), (input, true)])
    {
        for other in &inputs {
            let _ = one.parse(other, was_head, &LIMITS);
            one.set("x-a", b"2");
            one.set("x-b", b"2");
            let mut alone = ResponseHead::new();
            let parsed = alone.parse(input, was_head, &LIMITS);
            assert_eq!(one.parse(input, was_head, &LIMITS), parsed);
            assert_eq!(seen(&one), seen(&alone), "{}", show(other));
            one.clear();
            assert_eq!(seen(&one), seen(&ResponseHead::new()));
        }
    }
}

const LIMITS: Limits = Limits {
    head_bytes: 32 << 10,
    fields: 100,
    target_bytes: 100,
    chunk_extension_bytes: 100,
    trailer_bytes: 100,
};

fn parse_with(input: &[u8], was_head: bool, limits: &Limits) -> Result<ResponseHead, Refusal> {
    let mut head = ResponseHead::new();
    let parsed = head.parse(input, was_head, limits)?;
    assert_eq!(
        parsed,
        Parsed::Complete {
            head_bytes: input.len()
        },
        "{}",
        show(input)
    );
    Ok(head)
}

fn parse(input: &[u8], request_was_head: bool) -> ResponseHead {
    parse_with(input, request_was_head, &LIMITS).expect("valid response")
}

fn show(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| *byte as char)
        .collect::<String>()
        .replace("\r\n", "\\r\\n\n")
}

proptest! {
    #[test]
    fn what_is_written_reads_as_the_same_response(
        status in 200u16..=599,
        minor in 0..=1u8,
        reason in "[ -~]{0,20}",
        fields in prop::collection::vec(("x-[a-d]{1,3}|[Cc]onnection|keep-alive", "x-[a-d]|close|[ -~]{0,20}"), 0..6),
        framing in prop::sample::select(vec!["", "Content-Length: 7\r\n", "transfer-encoding: CHUNKED\r\n"]),
        was_head in any::<bool>(),
        keep_alive in any::<bool>(),
    ) {
        let framing = if minor == 0 && framing.starts_with('t') { "" } else { framing };
        let mut input = format!("HTTP/1.{minor} {status} {reason}\r\n{framing}");
        for (name, value) in fields {
            input.push_str(&format!("{name}: {value}\r\n"));
        }
        input.push_str("\r\n");
        let head = parse(input.as_bytes(), was_head);
        let mut out = Vec::new();
        head.write(head.framing(), keep_alive, &mut out);
        let next = parse(&out, was_head);
        prop_assert_eq!(next.status(), head.status());
        prop_assert_eq!(next.reason(), head.reason());
        prop_assert_eq!(next.framing(), head.framing());
        let stays = keep_alive && head.framing() != Framing::Close;
        prop_assert_eq!(next.keep_alive(), stays);
        let mut again = Vec::new();
        next.write(next.framing(), keep_alive, &mut again);
        prop_assert_eq!(again, out);
    }
}
