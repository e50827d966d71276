//! Requests of HTTP/2 with no meaning or more than one, and whether they may reach a server.

/// A request of HTTP/2: its fields, its body, and whether it may reach a server.
pub(super) type Stream = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [u8],
    bool,
);

const METHOD: (&str, &str) = (":method", "POST");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/x");
const AUTHORITY: (&str, &str) = (":authority", "test");

/// The same over HTTP/2, where lengths and fields are bytes that could say anything once they are
/// written as HTTP/1.1.
pub(super) const STREAMS: &[Stream] = &[
    ("plain", &[METHOD, SCHEME, PATH, AUTHORITY], b"hello", true),
    (
        "the right length",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("content-length", "5")],
        b"hello",
        true,
    ),
    (
        "a length too large",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("content-length", "6")],
        b"hello",
        false,
    ),
    (
        "a length too small",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("content-length", "4")],
        b"hello",
        false,
    ),
    (
        "two lengths",
        &[
            METHOD,
            SCHEME,
            PATH,
            AUTHORITY,
            ("content-length", "5"),
            ("content-length", "4"),
        ],
        b"hello",
        false,
    ),
    (
        "a length that is no number",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("content-length", "+5")],
        b"hello",
        false,
    ),
    (
        "transfer-encoding",
        &[
            METHOD,
            SCHEME,
            PATH,
            AUTHORITY,
            ("transfer-encoding", "chunked"),
        ],
        b"0\r\n\r\n",
        false,
    ),
    (
        "connection",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("connection", "x-a")],
        b"",
        false,
    ),
    (
        "keep-alive",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("keep-alive", "5")],
        b"",
        false,
    ),
    (
        "upgrade",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("upgrade", "h2c")],
        b"",
        false,
    ),
    (
        "te",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("te", "gzip")],
        b"",
        false,
    ),
    (
        "an expectation nobody knows",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("expect", "200-ok")],
        b"hello",
        false,
    ),
    (
        "a capital in a name",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("X-a", "b")],
        b"",
        false,
    ),
    (
        "a space in a name",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("x a", "b")],
        b"",
        false,
    ),
    (
        "a colon in a name",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("x:a", "b")],
        b"",
        false,
    ),
    (
        "a line end in a name",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("x\r\nb", "b")],
        b"",
        false,
    ),
    (
        "an empty name",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("", "b")],
        b"",
        false,
    ),
    (
        "a line end in a value",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("x-a", "b\r\nx-c: d")],
        b"",
        false,
    ),
    (
        "a line feed in a value",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("x-a", "b\nc")],
        b"",
        false,
    ),
    (
        "a NUL in a value",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("x-a", "b\0c")],
        b"",
        false,
    ),
    (
        "a line end in the path",
        &[
            METHOD,
            SCHEME,
            (":path", "/x HTTP/1.1\r\nx-a: b\r\n\r\n"),
            AUTHORITY,
        ],
        b"",
        false,
    ),
    (
        "a space in the path",
        &[METHOD, SCHEME, (":path", "/x y"), AUTHORITY],
        b"",
        false,
    ),
    (
        "an absolute path",
        &[METHOD, SCHEME, (":path", "http://other/x"), AUTHORITY],
        b"",
        false,
    ),
    (
        "an empty path",
        &[METHOD, SCHEME, (":path", ""), AUTHORITY],
        b"",
        false,
    ),
    (
        "two paths",
        &[METHOD, SCHEME, PATH, PATH, AUTHORITY],
        b"",
        false,
    ),
    ("no path", &[METHOD, SCHEME, AUTHORITY], b"", false),
    ("no method", &[SCHEME, PATH, AUTHORITY], b"", false),
    (
        "a method of two words",
        &[(":method", "POST /y"), SCHEME, PATH, AUTHORITY],
        b"",
        false,
    ),
    (
        "an unknown pseudo field",
        &[METHOD, SCHEME, PATH, AUTHORITY, (":x", "y")],
        b"",
        false,
    ),
    (
        "a pseudo field after others",
        &[METHOD, SCHEME, ("x-a", "b"), PATH, AUTHORITY],
        b"",
        false,
    ),
    (
        "two authorities",
        &[METHOD, SCHEME, PATH, AUTHORITY, AUTHORITY],
        b"",
        false,
    ),
    (
        "an authority with a user",
        &[METHOD, SCHEME, PATH, (":authority", "a@test")],
        b"",
        false,
    ),
    (
        "an authority that is no host",
        &[METHOD, SCHEME, PATH, (":authority", "a b")],
        b"",
        false,
    ),
    (
        "another host beside the authority",
        &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "other")],
        b"",
        false,
    ),
    (
        "two hosts",
        &[METHOD, SCHEME, PATH, ("host", "a"), ("host", "b")],
        b"",
        false,
    ),
    (
        "fields that steer",
        &[
            METHOD,
            SCHEME,
            PATH,
            AUTHORITY,
            ("x-gateway-destination-endpoint", "10.0.0.1:1"),
            ("x-prefiller-url", "x"),
            ("proxy-authorization", "x"),
        ],
        b"",
        true,
    ),
];
