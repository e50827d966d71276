//! Our own responses and chunks, byte for byte.
use super::*;
use crate::{Limits, ResponseHead};

#[test]
fn writes_chunks_with_plain_sizes() {
    for length in [0, 1, 9, 10, 15, 16, 17, 255, 256, 4095, 4096, 65_536] {
        let payload = vec![b'x'; length];
        let mut expected = format!("{length:x}\r\n").into_bytes();
        expected.extend_from_slice(&payload);
        expected.extend_from_slice(b"\r\n");
        if length == 0 {
            expected.clear();
        }
        let mut out = Vec::new();
        write_chunk(&payload, &mut out);
        assert_eq!(out, expected, "{length}");
    }
}

/// Status, fields, body, keep-alive; bytes out.
type Answer<'a> = (u16, &'a [(&'a str, &'a str)], &'a str, bool, &'a str);

#[test]
fn writes_responses() {
    let cases: [Answer; 5] = [
        (
            200,
            &[("content-type", "text/plain"), ("x", "y")],
            "hi",
            true,
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx: y\r\ncontent-length: 2\r\n\r\nhi",
        ),
        (
            429,
            &[("retry-after", "1")],
            "",
            false,
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\
             connection: close\r\n\r\n",
        ),
        (100, &[], "no", true, "HTTP/1.1 100 Continue\r\n\r\n"),
        (204, &[], "no", true, "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            302,
            &[("location", "/a\r\nx: y")],
            "",
            true,
            "HTTP/1.1 302 Found\r\nlocation: /a  x: y\r\ncontent-length: 0\r\n\r\n",
        ),
    ];
    for (status, fields, body, keep_alive, expected) in cases {
        let mut out = Vec::new();
        write_response(status, fields, body.as_bytes(), keep_alive, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
        let mut head = ResponseHead::new();
        head.parse(&out, false, &Limits::default())
            .expect("reads its own responses");
        assert_eq!((head.status(), head.reason()), (status, reason(status)));
        assert_eq!(head.keep_alive(), keep_alive);
    }
}
