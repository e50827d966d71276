//! Requests: what is refused and why, what is accepted and how it reads, what goes out.
//!
//! Each row is one message. Accepted ones are also read byte by byte.
use proptest::prelude::*;

use super::*;

mod random;

/// Bytes in, status and code out.
#[rustfmt::skip]
pub(crate) const REFUSED: &[(&[u8], u16, &str)] = &[
    // Request line.
    (b"GET /\r\n\r\n", 400, "invalid_request_line"),
    (b"GET\r\n\r\n", 400, "invalid_request_line"),
    (b" GET / HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
    (b"GET  / HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
    (b"GET /  HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
    (b"GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
    (b"GET / HTTP/1.1 \r\nhost: a\r\n\r\n", 400, "invalid_line_end"),
    (b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
    (b"G(T / HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
    (b"G\xC3\x89T / HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
    (b"GET /\x00 HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "invalid_request_line"),
    (b"GET / HTTP/1.2\r\nhost: a\r\n\r\n", 505, "unsupported_version"),
    (b"GET / HTTP/0.9\r\nhost: a\r\n\r\n", 505, "unsupported_version"),
    (b"GET / http/1.1\r\nhost: a\r\n\r\n", 400, "invalid_request_line"),
    (b"GET / HTTP/2\r\nhost: a\r\n\r\n", 505, "unsupported_version"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "unsupported_version"),
    (b"\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", 400, "leading_empty_lines"),
    (b"\nGET / HTTP/1.1\r\nhost: a\r\n\r\n", 400, "bare_line_feed"),
    (b"\rGET / HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_line_end"),
    // Target.
    (b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", 501, "connect_not_supported"),
    (b"CONNECT / HTTP/1.1\r\nhost: a\r\n\r\n", 501, "connect_not_supported"),
    (b"GET http://a/ HTTP/1.1\r\nhost: a\r\n\r\n", 400, "absolute_form"),
    (b"GET https://b/x HTTP/1.1\r\nhost: a\r\n\r\n", 400, "absolute_form"),
    (b"OPTIONS http://a/ HTTP/1.1\r\nhost: a\r\n\r\n", 400, "absolute_form"),
    (b"GET a:80 HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_target"),
    (b"GET x HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_target"),
    (b"GET ?x HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_target"),
    (b"GET * HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_target"),
    (b"OPTIONS *x HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_target"),
    (b"GET /#x HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_target_character"),
    (b"GET /a?b#x HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_target_character"),
    (b"GET /\\..\\x HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_target_character"),
    (b"GET /<x> HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_target_character"),
    (b"GET /\"x HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_target_character"),
    (b"GET /`x HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_target_character"),
    (b"GET /\xC3\xA9 HTTP/1.1\r\nhost: a\r\n\r\n", 400, "invalid_target_character"),
    // Lines and fields.
    (b"GET / HTTP/1.1\nhost: a\r\n\r\n", 400, "bare_line_feed"),
    (b"GET / HTTP/1.1\r\nhost: a\n\r\n", 400, "bare_line_feed"),
    (b"GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", 400, "bare_line_feed"),
    (b"GET / HTTP/1.1\r\nx:\nhost: a\r\n\r\n", 400, "bare_line_feed"),
    (b"GET / HTTP/1.1\r\nhost: a\r\n\n", 400, "bare_line_feed"),
    (b"GET / HTTP/1.1\nhost: a\n\n", 400, "bare_line_feed"),
    (b"GET / HTTP/1.0\n\n", 400, "bare_line_feed"),
    (b"GET / HTTP/1.0\n\r\n", 400, "bare_line_feed"),
    (b"GET / HTTP/1.1\rhost: a\r\n\r\n", 400, "invalid_line_end"),
    (b"GET / HTTP/1.1\r\nhost: a\r\n\rx", 400, "invalid_line_end"),
    (b"GET / HTTP/1.1\r\nhost: a\rx: y\r\n\r\n", 400, "invalid_field_value"),
    (b"GET / HTTP/1.1\r\nhost: a\r\nx: y\x00z\r\n\r\n", 400, "invalid_field_value"),
    (b"GET / HTTP/1.1\r\nhost: a\r\nx: y\x0bz\r\n\r\n", 400, "invalid_field_value"),
    (b"GET / HTTP/1.1\r\nhost: a\r\nx: y\x7f\r\n\r\n", 400, "invalid_field_value"),
    (b"GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400, "invalid_field_name"),
    (b"GET / HTTP/1.1\r\n host: a\r\n\r\n", 400, "invalid_field_name"),
    (b"GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n", 400, "invalid_field_name"),
    (b"GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n\tz\r\n\r\n", 400, "invalid_field_name"),
    (b"GET / HTTP/1.1\r\nhost: a\r\nx\r\n\r\n", 400, "invalid_field_name"),
    (b"GET / HTTP/1.1\r\nhost: a\r\n: y\r\n\r\n", 400, "invalid_field_name"),
    (b"GET / HTTP/1.1\r\nhost: a\r\nx\xE9: y\r\n\r\n", 400, "invalid_field_name"),
    (b"GET / HTTP/1.1\r\nhost: a\r\nx\x00: y\r\n\r\n", 400, "invalid_field_name"),
    (b"GET / HTTP/1.1\r\nhost: a\r\n(x): y\r\n\r\n", 400, "invalid_field_name"),
    // Host.
    (b"GET / HTTP/1.1\r\n\r\n", 400, "missing_host"),
    (b"GET / HTTP/1.1\r\nx-host: a\r\n\r\n", 400, "missing_host"),
    (b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n", 400, "duplicate_host"),
    (b"GET / HTTP/1.1\r\nHost: a\r\nx: y\r\nhOST: b\r\n\r\n", 400, "duplicate_host"),
    (b"GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n", 400, "duplicate_host"),
    (b"GET / HTTP/1.1\r\nhost: a, b\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: u@a\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: a%41\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: \xC3\xA9\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: a:\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: :80\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: a:0\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: a:65536\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: a:000080\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: a:4294967376\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: a:+80\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: a:80:80\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: ::1\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: [::1\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: [a]\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: [::1]x\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: [::1]:0\r\n\r\n", 400, "invalid_host"),
    (b"GET / HTTP/1.1\r\nhost: [fe80::1%25eth0]\r\n\r\n", 400, "invalid_host"),
    // Content-Length.
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\n", 400, "invalid_content_length"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n", 400, "invalid_content_length"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\n", 400, "invalid_content_length"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x5\r\n\r\n", 400, "invalid_content_length"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5 5\r\n\r\n", 400, "invalid_content_length"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 5\r\n\r\n", 400, "invalid_content_length"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5,6\r\n\r\n", 400, "invalid_content_length"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5.0\r\n\r\n", 400, "invalid_content_length"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1_0\r\n\r\n", 400, "invalid_content_length"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: \xB2\r\n\r\n", 400, "invalid_content_length"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9223372036854775808\r\n\r\n", 400, "invalid_content_length"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551621\r\n\r\n", 400, "invalid_content_length"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", 400, "duplicate_content_length"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nContent-Length: 5\r\n\r\n", 400, "duplicate_content_length"),
    // Transfer-Encoding.
    (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", 400, "content_length_with_transfer_encoding"),
    (b"POST / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", 400, "content_length_with_transfer_encoding"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 501, "unsupported_transfer_coding"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n", 501, "unsupported_transfer_coding"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n", 501, "unsupported_transfer_coding"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n", 501, "unsupported_transfer_coding"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n", 501, "unsupported_transfer_coding"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n", 501, "unsupported_transfer_coding"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked;q=1\r\n\r\n", 501, "unsupported_transfer_coding"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n\r\n", 501, "unsupported_transfer_coding"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n", 400, "invalid_field_value"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n", 400, "invalid_field_name"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\r\n chunked\r\n\r\n", 400, "invalid_field_name"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n", 400, "duplicate_transfer_encoding"),
    (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n", 400, "duplicate_transfer_encoding"),
    (b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", 400, "transfer_encoding_in_http_1_0"),
    // The rest.
    (b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 200-ok\r\n\r\n", 417, "unknown_expectation"),
    (b"POST / HTTP/1.1\r\nhost: a\r\nexpect:\r\n\r\n", 417, "unknown_expectation"),
];

#[test]
fn refuses_what_has_no_single_meaning() {
    for (input, status, code) in REFUSED {
        let mut head = RequestHead::new();
        let refusal = head
            .parse(input, &Limits::default())
            .expect_err(&show(input));
        assert_eq!(
            (refusal.status, refusal.code),
            (*status, *code),
            "{}",
            show(input)
        );
        assert_eq!(head.method(), "", "nothing is kept of {}", show(input));
        assert_eq!(
            head.fields().count(),
            0,
            "nothing is kept of {}",
            show(input)
        );
    }
}

/// Makes a request from a field line that is repeated.
fn repeated(line: &str, times: usize) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", line.repeat(times)).into_bytes()
}

/// Inputs too long to be written down, and their codes.
pub(crate) fn refused_by_limit() -> Vec<(Vec<u8>, u16, &'static str)> {
    let long_target = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "x".repeat(8192));
    vec![
        (long_target.into_bytes(), 414, "target_too_long"),
        (
            format!("GET /{}", "x".repeat(9000)).into_bytes(),
            414,
            "target_too_long",
        ),
        ("x".repeat(40_000).into_bytes(), 414, "target_too_long"),
        (repeated("x: y\r\n", 100), 431, "too_many_fields"),
        (
            repeated(&format!("x: {}\r\n", "y".repeat(8000)), 5),
            431,
            "head_too_large",
        ),
        (
            [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'y'; 32_800]].concat(),
            431,
            "head_too_large",
        ),
        (
            repeated(&format!("{}: y\r\n", "x".repeat(32_800)), 1),
            431,
            "head_too_large",
        ),
        (
            repeated("connection: a,b,c,d,e\r\n", 13),
            400,
            "too_many_connection_options",
        ),
        (
            repeated(&format!("connection: {}\r\n", "close,".repeat(65)), 1),
            400,
            "too_many_connection_options",
        ),
    ]
}

#[test]
fn refuses_what_exceeds_a_limit() {
    for (input, status, code) in refused_by_limit() {
        let start = show(&input[..input.len().min(60)]);
        let refusal = RequestHead::new()
            .parse(&input, &Limits::default())
            .expect_err(&start);
        assert_eq!((refusal.status, refusal.code), (status, code), "{start}");
    }
}

#[test]
fn limits_are_inclusive() {
    let input = b"GET /12345 HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n";
    let exact = Limits {
        head_bytes: input.len(),
        fields: 2,
        target_bytes: 6,
        ..Limits::default()
    };
    let parsed = RequestHead::new().parse(input, &exact);
    assert_eq!(
        parsed,
        Ok(Parsed::Complete {
            head_bytes: input.len()
        })
    );
    let tighter = [
        (
            Limits {
                head_bytes: input.len() - 1,
                ..exact
            },
            "head_too_large",
        ),
        (Limits { fields: 1, ..exact }, "too_many_fields"),
        (
            Limits {
                target_bytes: 5,
                ..exact
            },
            "target_too_long",
        ),
    ];
    for (limits, code) in tighter {
        assert_eq!(
            RequestHead::new()
                .parse(input, &limits)
                .map_err(|it| it.code),
            Err(code)
        );
    }
    // Nothing more is waited for once the limit is reached.
    let limits = Limits {
        head_bytes: input.len() - 1,
        ..exact
    };
    let refusal = RequestHead::new().parse(&input[..input.len() - 1], &limits);
    assert_eq!(refusal.map_err(|it| it.code), Err("head_too_large"));
}

/// How an accepted request reads.
struct Expected {
    line: [&'static str; 2],
    host: &'static str,
    framing: Framing,
    keep_alive: bool,
}

fn expected(method: &'static str, target: &'static str, host: &'static str) -> Expected {
    Expected {
        line: [method, target],
        host,
        framing: Framing::None,
        keep_alive: true,
    }
}

#[rustfmt::skip]
fn accepted() -> Vec<(&'static [u8], Expected)> {
    vec![
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", expected("GET", "/", "a")),
        (b"\r\nGET / HTTP/1.1\r\nhost:a\r\n\r\n", expected("GET", "/", "a")),
        (b"get /%2e%2e//;x?a=b?c HTTP/1.1\r\nhost: \t a \t \r\n\r\n", expected("get", "/%2e%2e//;x?a=b?c", "a")),
        (b"OPTIONS * HTTP/1.1\r\nhost: a.b-c_d:8080\r\n\r\n", expected("OPTIONS", "*", "a.b-c_d")),
        (b"GET //x HTTP/1.1\r\nhost: 10.0.0.1:1\r\n\r\n", expected("GET", "//x", "10.0.0.1")),
        (b"GET /{a}|^~?{b}|'() HTTP/1.1\r\nhost: [2001:db8::1]:65535\r\n\r\n", expected("GET", "/{a}|^~?{b}|'()", "[2001:db8::1]")),
        (b"GET /http://b/ HTTP/1.1\r\nhost: [::ffff:1.2.3.4]\r\n\r\n", expected("GET", "/http://b/", "[::ffff:1.2.3.4]")),
        (b"GET / HTTP/1.1\r\nhost:\r\n\r\n", expected("GET", "/", "")),
        (b"GET / HTTP/1.1\r\nx: \xE9\x80\r\nhost: a\r\ny:\r\nz: \t\r\n\r\n", expected("GET", "/", "a")),
        (b"M-SEARCH /x HTTP/1.1\r\nhost: a\r\n\r\n", expected("M-SEARCH", "/x", "a")),
        (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\n\r\n", expected("GET", "/", "a")),
        (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: x, Close\r\n\r\n", Expected { keep_alive: false, ..expected("GET", "/", "a") }),
        (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: x\r\nconnection: ,close ,\r\n\r\n", Expected { keep_alive: false, ..expected("GET", "/", "a") }),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", Expected { framing: Framing::Length(0), ..expected("POST", "/", "a") }),
        (b"POST / HTTP/1.1\r\nhost: a\r\nCONTENT-LENGTH: 0012 \r\n\r\n", Expected { framing: Framing::Length(12), ..expected("POST", "/", "a") }),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9223372036854775807\r\n\r\n", Expected { framing: Framing::Length(i64::MAX as u64), ..expected("POST", "/", "a") }),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\t Chunked\t\r\n\r\n", Expected { framing: Framing::Chunked, ..expected("POST", "/", "a") }),
        (b"GET /x HTTP/1.0\r\n\r\n", Expected { keep_alive: false, ..expected("GET", "/x", "") }),
        (b"POST /x HTTP/1.0\r\nhost: a:1\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\n", Expected { keep_alive: false, framing: Framing::Length(3), ..expected("POST", "/x", "a") }),
    ]
}

fn check_accepted(input: &[u8], expected: &Expected) {
    let mut head = RequestHead::new();
    for end in 0..input.len() {
        let parsed = head.parse(&input[..end], &Limits::default());
        assert_eq!(parsed, Ok(Parsed::Incomplete), "{}", show(&input[..end]));
    }
    let mut with_body = input.to_vec();
    for more in [b"".as_slice(), b"GET ", b"\r\n", b"\0"] {
        with_body.truncate(input.len());
        with_body.extend_from_slice(more);
        let parsed = head.parse(&with_body, &Limits::default());
        assert_eq!(
            parsed,
            Ok(Parsed::Complete {
                head_bytes: input.len()
            }),
            "{}",
            show(input)
        );
        assert_eq!(
            [head.method(), head.target()],
            expected.line,
            "{}",
            show(input)
        );
        assert_eq!(head.host(), expected.host, "{}", show(input));
        assert_eq!(head.framing(), expected.framing, "{}", show(input));
        assert_eq!(head.keep_alive(), expected.keep_alive, "{}", show(input));
    }
}

#[test]
fn accepts_strict_requests_also_byte_by_byte() {
    for (input, expected) in accepted() {
        check_accepted(input, &expected);
    }
}

#[test]
fn splits_target_at_the_first_question_mark() {
    let rows = [
        ("/", "/", None),
        ("/a?", "/a", Some("")),
        ("/a?b?c=/d", "/a", Some("b?c=/d")),
    ];
    for (target, path, query) in rows {
        let mut head = from_parts("GET", target, "a", &[]);
        assert_eq!((head.path(), head.query()), (path, query));
        assert!(head.set_target("/new?q"));
        assert_eq!((head.path(), head.query()), ("/new", Some("q")));
        assert!(head.set_target("/new"));
        assert_eq!((head.path(), head.query()), ("/new", None));
    }
}

#[test]
fn heeds_expect_only_where_a_body_waits() {
    let rows = [
        (
            "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
            true,
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\nExpect: 100-Continue\r\ntransfer-encoding: chunked\r\n\r\n",
            true,
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 0\r\n\r\n",
            false,
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n\r\n",
            false,
        ),
        (
            "POST / HTTP/1.0\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
            false,
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n",
            false,
        ),
    ];
    for (input, expects) in rows {
        assert_eq!(
            parse(input.as_bytes()).expects_continue(),
            expects,
            "{input}"
        );
    }
}

#[test]
fn tells_an_upgrade_only_when_connection_lists_it() {
    let rows = [
        (
            "1.1",
            "connection: keep-alive, Upgrade\r\nupgrade: websocket\r\n",
            Some("websocket"),
        ),
        ("1.1", "upgrade: websocket\r\n", None),
        ("1.1", "connection: upgrade\r\n", None),
        ("1.0", "connection: upgrade\r\nupgrade: websocket\r\n", None),
    ];
    for (version, fields, upgrade) in rows {
        let head = parse(format!("GET / HTTP/{version}\r\nhost: a\r\n{fields}\r\n").as_bytes());
        assert_eq!(head.upgrade(), upgrade, "{version} {fields}");
    }
}

/// Bytes in, framing to write, bytes out; no edits.
#[rustfmt::skip]
const WRITTEN: &[(&str, Framing, &str)] = &[
    // Untouched, also in spelling and order.
    ("GET /a?b HTTP/1.1\r\nHost: a:1\r\nX-y:  Z \r\nx-Y:2\r\n\r\n", Framing::None,
     "GET /a?b HTTP/1.1\r\nHost: a:1\r\nX-y:  Z \r\nx-Y:2\r\n\r\n"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nx: y\r\n\r\n", Framing::Length(5),
     "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nx: y\r\n\r\n"),
    ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n", Framing::Chunked,
     "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n"),
    // Another framing, or an odd spelling of it.
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nx: y\r\n\r\n", Framing::Length(6),
     "POST / HTTP/1.1\r\nHost: a\r\nx: y\r\ncontent-length: 6\r\n\r\n"),
    ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: a\r\n\r\n", Framing::Length(7),
     "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 7\r\n\r\n"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", Framing::Chunked,
     "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", Framing::None,
     "POST / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 05\r\n\r\n", Framing::Length(5),
     "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\n\r\n"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:5\r\n\r\n", Framing::Length(5),
     "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\n\r\n"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 \r\n\r\n", Framing::Length(5),
     "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 5\r\n\r\n"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n", Framing::Chunked,
     "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n"),
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::Length(3),
     "GET / HTTP/1.1\r\nHost: a\r\ncontent-length: 3\r\n\r\n"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Framing::Length(0),
     "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
    // Hop-by-hop fields, first, last, side by side.
    ("GET / HTTP/1.1\r\nConnection: keep-alive\r\nHost: a\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n\
      x: y\r\nTE: trailers\r\nTrailer: z\r\nUpgrade: h2c\r\nHTTP2-Settings: s\r\n\
      Proxy-Authenticate: p\r\nProxy-Authorization: p\r\n\r\n", Framing::None,
     "GET / HTTP/1.1\r\nHost: a\r\nx: y\r\n\r\n"),
    ("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", Framing::Length(5),
     "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"),
    ("GET / HTTP/1.1\r\nHost: a\r\nxhost: b\r\nhos: c\r\nKeep-Aliv_: d\r\n\r\n", Framing::None,
     "GET / HTTP/1.1\r\nHost: a\r\nxhost: b\r\nhos: c\r\nKeep-Aliv_: d\r\n\r\n"),
    // Named by Connection, before or after it, several times, in any case.
    ("GET / HTTP/1.1\r\nx-a: 1\r\nX-B: 2\r\nConnection: x-b ,close\r\nHost: a\r\nx-b: 3\r\n\
      connection: X-A\r\nx-c: 4\r\n\r\n", Framing::None,
     "GET / HTTP/1.1\r\nHost: a\r\nx-c: 4\r\n\r\n"),
    ("POST / HTTP/1.1\r\nConnection: content-length, transfer-encoding, host, content-type, \
      content-encoding, authorization\r\nHost: a\r\nContent-Length: 5\r\nContent-Type: t\r\n\
      Content-Encoding: e\r\nAuthorization: z\r\n\r\n", Framing::Length(5),
     "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Type: t\r\nContent-Encoding: e\r\n\
      Authorization: z\r\n\r\n"),
    ("POST / HTTP/1.1\r\nConnection: transfer-encoding\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
     Framing::Chunked,
     "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
    // HTTP/1.0 and a leading empty line.
    ("GET /x HTTP/1.0\r\nx: y\r\n\r\n", Framing::None, "GET /x HTTP/1.1\r\nx: y\r\nhost: \r\n\r\n"),
    ("GET /x HTTP/1.0\r\n\r\n", Framing::None, "GET /x HTTP/1.1\r\nhost: \r\n\r\n"),
    ("GET /x HTTP/1.0\r\nHost: a\r\nconnection: keep-alive\r\n\r\n", Framing::None,
     "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::None, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
];

#[test]
fn writes_end_to_end_fields_and_one_framing() {
    for (input, body, expected) in WRITTEN {
        let mut out = b"before".to_vec();
        parse(input.as_bytes()).write(*body, &mut out);
        assert_eq!(
            show(&out),
            show(format!("before{expected}").as_bytes()),
            "{input}"
        );
    }
}

const EDITED: &str = "POST /v1 HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nx-two: 2\r\nx-ONE: 3\r\n\
                      Connection: x-hop\r\nx-hop: 4\r\nContent-Length: 5\r\n\r\n";

fn check_edited(edit: impl Fn(&mut RequestHead), line: &str, fields: &str) {
    let mut head = parse(EDITED.as_bytes());
    edit(&mut head);
    let mut out = Vec::new();
    head.write(Framing::Length(5), &mut out);
    assert_eq!(
        show(&out),
        show(format!("{line} HTTP/1.1\r\n{fields}\r\n").as_bytes())
    );
}

#[test]
fn writes_edits_over_what_was_received() {
    let line = "POST /v1";
    let rest = "x-two: 2\r\nContent-Length: 5\r\n";
    check_edited(
        |head| {
            head.remove("x-one");
        },
        line,
        &format!("Host: a\r\n{rest}"),
    );
    check_edited(
        |head| {
            head.set("x-one", b"new");
        },
        line,
        &format!("Host: a\r\n{rest}x-one: new\r\n"),
    );
    check_edited(
        |head| {
            head.add("x-three", b"1");
            head.add("X-Three", b"2");
            head.add("x-four", b"3");
            head.remove("x-one");
            head.set("x-three", b"4");
        },
        line,
        &format!("Host: a\r\n{rest}x-four: 3\r\nx-three: 4\r\n"),
    );
    // The client cannot make a field of ours disappear by listing it.
    check_edited(
        |head| {
            head.remove("x-one");
            head.set("x-hop", b"ours");
        },
        line,
        &format!("Host: a\r\n{rest}x-hop: ours\r\n"),
    );
    check_edited(
        |head| {
            head.remove("x-one");
            head.set_host("b.c:8");
            head.set_target("/v2?x");
        },
        "POST /v2?x",
        &format!("{rest}host: b.c:8\r\n"),
    );
    check_edited(
        |head| {
            head.remove("x-one");
            head.set("Host", b"c");
        },
        line,
        &format!("{rest}host: c\r\n"),
    );
    // No text can add a line.
    check_edited(
        |head| {
            head.remove("x-one");
            head.set("x-evil", "a\r\nx: y\n\0\x7f\t\u{e9}".as_bytes());
        },
        line,
        &format!("Host: a\r\n{rest}x-evil: a  x: y   \t\u{e9}\r\n"),
    );
}

#[test]
fn edits_leave_framing_and_connection_alone() {
    let mut head = parse(EDITED.as_bytes());
    for name in [
        "content-length",
        "Transfer-Encoding",
        "connection",
        "te",
        "upgrade",
        "expect",
    ] {
        assert!(
            !head.set(name, b"1") && !head.add(name, b"1") && !head.remove(name),
            "{name}"
        );
    }
    assert!(!head.remove("host") && !head.add("host", b"b"));
    for name in ["", "a b", "a:", "x\r\ny", "\u{e9}"] {
        assert!(!head.set(name, b"1") && !head.add(name, b"1"), "{name}");
    }
    for host in ["a b", "a:0", "a/b", "a\r\nx: y"] {
        assert!(
            !head.set_host(host) && !head.set("host", host.as_bytes()),
            "{host}"
        );
    }
    for target in ["", "x", "/a b", "/a\r\nx: y", "*", "http://a/", "/\u{e9}"] {
        assert!(!head.set_target(target), "{target}");
    }
    let mut out = Vec::new();
    head.write(Framing::Length(5), &mut out);
    let unchanged = EDITED.replace("Connection: x-hop\r\nx-hop: 4\r\n", "");
    assert_eq!(show(&out), show(unchanged.as_bytes()));
}

#[test]
fn get_sees_edits_and_fields_do_not() {
    let mut head = parse(EDITED.as_bytes());
    assert_eq!(head.get("x-one"), Some(b"1".as_slice()));
    assert_eq!(head.get("host"), Some(b"a".as_slice()));
    assert_eq!(head.get("content-length"), Some(b"5".as_slice()));
    assert_eq!(head.get("x-on"), None);
    head.add("x-new", b"n");
    head.add("x-one", b"later");
    assert_eq!(head.get("x-new"), Some(b"n".as_slice()));
    assert_eq!(
        head.get("x-one"),
        Some(b"1".as_slice()),
        "received ones come first"
    );
    head.set("x-one", b"");
    assert_eq!(head.get("x-one"), Some(b"".as_slice()));
    head.remove("x-one");
    assert_eq!(head.get("x-one"), None);
    head.set_host("[::1]:9");
    assert_eq!(
        (head.host(), head.get("host")),
        ("[::1]", Some(b"[::1]:9".as_slice()))
    );
    let received: Vec<_> = head.fields().map(|(name, _)| name).collect();
    let names = [
        "Host",
        "X-One",
        "x-two",
        "x-ONE",
        "Connection",
        "x-hop",
        "Content-Length",
    ];
    assert_eq!(received, names);
    head.clear();
    assert_eq!(
        (head.get("x-new"), head.host(), head.target()),
        (None, "", "")
    );
}

#[test]
fn makes_heads_from_parts() {
    let head = from_parts(
        "POST",
        "/a?b",
        "h:1",
        &[("x", "1"), ("content-length", "4")],
    );
    let mut out = Vec::new();
    head.write(head.framing(), &mut out);
    assert_eq!(
        show(&out),
        show(b"POST /a?b HTTP/1.1\r\nhost: h:1\r\nx: 1\r\ncontent-length: 4\r\n\r\n")
    );
    let none: [(&str, &[u8]); 0] = [];
    let refused = [
        RequestHead::from_parts("G T", "/", "a", none),
        RequestHead::from_parts("GET", "/ HTTP/1.1\r\nx: y", "a", none),
        RequestHead::from_parts("GET", "/", "a\r\nx: y", none),
        RequestHead::from_parts("GET", "/", "a", [("x\r\ny", b"".as_slice())]),
        RequestHead::from_parts("GET", "/", "a", [("host", b"b".as_slice())]),
    ];
    let codes = refused.map(|it| it.map_err(|refusal| refusal.code).expect_err("refused"));
    assert_eq!(
        codes,
        [
            "invalid_request_line",
            "invalid_target_character",
            "invalid_host",
            "invalid_field_name",
            "duplicate_host"
        ]
    );
}

#[test]
fn shows_no_values() {
    let mut head = from_parts("GET", "/a?key=secret", "a", &[("authorization", "secret")]);
    head.set("x-key", b"secret");
    assert!(!format!("{head:?}").contains("secret"));
    head.release();
    assert_eq!(head.fields().count(), 0);
}

fn parse(input: &[u8]) -> RequestHead {
    let mut head = RequestHead::new();
    let parsed = head.parse(input, &Limits::default());
    assert_eq!(
        parsed,
        Ok(Parsed::Complete {
            head_bytes: input.len()
        }),
        "{}",
        show(input)
    );
    head
}

fn from_parts(method: &str, target: &str, host: &str, fields: &[(&str, &str)]) -> RequestHead {
    let fields = fields.iter().map(|(name, value)| (*name, value.as_bytes()));
    RequestHead::from_parts(method, target, host, fields).expect("valid parts")
}

fn show(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| *byte as char)
        .collect::<String>()
        .replace("\r\n", "\\r\\n\n")
}
