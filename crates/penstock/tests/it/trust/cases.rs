//! Requests with no meaning or more than one, and what has to become of each.

/// What has to become of a case.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// This status and code, and nothing reaches the server.
    Refused(u16, &'static str),
    /// The server sees one request with this target and this body, then the next one.
    Passes(&'static str, &'static [u8]),
    /// The same, and the connection ends with it.
    Ends(&'static str),
    /// The gateway answers this status itself; then the next one passes.
    Answered(u16),
}

use Fate::{Answered, Ends, Passes, Refused};

/// A case: its name, its bytes, its fate.
pub(crate) type Case = (&'static str, &'static [u8], Fate);

macro_rules! get {
    ($($line:expr),*) => { concat!("GET /x HTTP/1.1\r\nhost: test\r\n", $($line, "\r\n",)* "\r\n").as_bytes() };
}

/// A POST with these lines and `0CRLFCRLF` as its body: five bytes, or an empty chunked body.
macro_rules! post {
    ($($line:expr),*) => {
        concat!("POST /x HTTP/1.1\r\nhost: test\r\n", $($line, "\r\n",)* "\r\n0\r\n\r\n").as_bytes()
    };
}

macro_rules! chunks {
    ($body:expr) => {
        concat!(
            "POST /x HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n",
            $body
        )
        .as_bytes()
    };
}

macro_rules! line {
    ($line:expr) => {
        concat!($line, "\r\nhost: test\r\n\r\n").as_bytes()
    };
}

macro_rules! host {
    ($($line:expr),*) => { concat!("GET /x HTTP/1.1\r\n", $($line, "\r\n",)* "\r\n").as_bytes() };
}

const BOTH: Fate = Refused(400, "content_length_with_transfer_encoding");
const CODING: Fate = Refused(501, "unsupported_transfer_coding");
const TWICE: Fate = Refused(400, "duplicate_transfer_encoding");
const NAME: Fate = Refused(400, "invalid_field_name");
const VALUE: Fate = Refused(400, "invalid_field_value");
const LENGTH: Fate = Refused(400, "invalid_content_length");
const LENGTHS: Fate = Refused(400, "duplicate_content_length");
const FEED: Fate = Refused(400, "bare_line_feed");
const LINE: Fate = Refused(400, "invalid_request_line");
const TARGET: Fate = Refused(400, "invalid_target");
const CHARACTER: Fate = Refused(400, "invalid_target_character");
const HOST: Fate = Refused(400, "invalid_host");
const SIZE: Fate = Refused(400, "invalid_chunk_size");
const TRAILER: Fate = Refused(400, "invalid_trailer");
const FORBIDDEN: Fate = Refused(400, "forbidden_trailer");

pub(crate) const FRAMING: &[Case] = &[
    (
        "CL.TE",
        post!("content-length: 5", "transfer-encoding: chunked"),
        BOTH,
    ),
    (
        "TE.CL",
        post!("transfer-encoding: chunked", "content-length: 5"),
        BOTH,
    ),
    (
        "CL 0 and TE",
        post!("content-length: 0", "Transfer-Encoding: chunked"),
        BOTH,
    ),
    (
        "TE.TE",
        post!("transfer-encoding: chunked", "transfer-encoding: chunked"),
        TWICE,
    ),
    (
        "TE chunked, then identity",
        post!("transfer-encoding: chunked", "transfer-encoding: identity"),
        TWICE,
    ),
    (
        "TE identity, then chunked",
        post!("transfer-encoding: identity", "transfer-encoding: chunked"),
        CODING,
    ),
    (
        "TE cow, then CL",
        post!("transfer-encoding: cow", "content-length: 5"),
        CODING,
    ),
    (
        "TE chunked, identity",
        post!("transfer-encoding: chunked, identity"),
        CODING,
    ),
    (
        "TE identity, chunked",
        post!("transfer-encoding: identity, chunked"),
        CODING,
    ),
    (
        "TE gzip, chunked",
        post!("transfer-encoding: gzip, chunked"),
        CODING,
    ),
    (
        "TE chunked, chunked",
        post!("transfer-encoding: chunked, chunked"),
        CODING,
    ),
    (
        "TE chunked with a comma behind",
        post!("transfer-encoding: chunked,"),
        CODING,
    ),
    (
        "TE comma in front",
        post!("transfer-encoding: ,chunked"),
        CODING,
    ),
    ("TE xchunked", post!("transfer-encoding: xchunked"), CODING),
    ("TE chunkedx", post!("transfer-encoding: chunkedx"), CODING),
    ("TE quoted", post!("transfer-encoding: \"chunked\""), CODING),
    (
        "TE with a parameter",
        post!("transfer-encoding: chunked;q=1"),
        CODING,
    ),
    (
        "TE with a space inside",
        post!("transfer-encoding: chun ked"),
        CODING,
    ),
    ("TE empty", post!("transfer-encoding:"), CODING),
    (
        "TE with a vertical tab",
        post!("transfer-encoding: \x0bchunked"),
        VALUE,
    ),
    (
        "TE with a form feed",
        post!("transfer-encoding: chunked\x0c"),
        VALUE,
    ),
    ("TE with NUL", post!("transfer-encoding: chunked\0"), VALUE),
    (
        "TE with a space before the colon",
        post!("transfer-encoding : chunked"),
        NAME,
    ),
    (
        "TE with a tab before the colon",
        post!("transfer-encoding\t: chunked"),
        NAME,
    ),
    ("TE folded", post!("transfer-encoding:", " chunked"), NAME),
    (
        "TE behind a space",
        post!("x: y", " transfer-encoding: chunked"),
        NAME,
    ),
    (
        "TE behind a lone CR",
        post!("x: y\rtransfer-encoding: chunked"),
        VALUE,
    ),
    (
        "TE behind a lone LF",
        post!("x: y\ntransfer-encoding: chunked"),
        FEED,
    ),
    (
        "TE with NUL in its name",
        post!("transfer-encoding\0: chunked"),
        NAME,
    ),
    (
        "TE with a letter that is none",
        post!("transfer-encod\u{131}ng: chunked"),
        NAME,
    ),
    (
        "TE of HTTP/1.0",
        b"POST /x HTTP/1.0\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400, "transfer_encoding_in_http_1_0"),
    ),
    (
        "CL twice",
        post!("content-length: 5", "content-length: 5"),
        LENGTHS,
    ),
    (
        "CL twice, not the same",
        post!("content-length: 5", "Content-Length: 0"),
        LENGTHS,
    ),
    ("CL as a list", post!("content-length: 5, 5"), LENGTH),
    ("CL with plus", post!("content-length: +5"), LENGTH),
    ("CL with minus", post!("content-length: -5"), LENGTH),
    (
        "CL below zero by little",
        post!("content-length: -0"),
        LENGTH,
    ),
    ("CL in hexadecimal", post!("content-length: 0x5"), LENGTH),
    ("CL with a fraction", post!("content-length: 5.0"), LENGTH),
    ("CL with an exponent", post!("content-length: 5e0"), LENGTH),
    (
        "CL with a space inside",
        post!("content-length: 5 0"),
        LENGTH,
    ),
    ("CL with underscore", post!("content-length: 1_0"), LENGTH),
    ("CL empty", post!("content-length:"), LENGTH),
    ("CL in words", post!("content-length: five"), LENGTH),
    (
        "CL in other digits",
        post!("content-length: \u{665}"),
        LENGTH,
    ),
    (
        "CL of 2^63",
        post!("content-length: 9223372036854775808"),
        LENGTH,
    ),
    (
        "CL of 2^64 and 5",
        post!("content-length: 18446744073709551621"),
        LENGTH,
    ),
    (
        "CL with a space before the colon",
        post!("content-length : 5"),
        NAME,
    ),
    ("CL folded", post!("content-length: 5", "\t0"), NAME),
    (
        "CL with a vertical tab",
        post!("content-length: 5\x0b"),
        VALUE,
    ),
    (
        "CL plain",
        post!("content-length: 5"),
        Passes("/x", b"0\r\n\r\n"),
    ),
    (
        "CL in tabs",
        post!("content-length:\t5 \t"),
        Passes("/x", b"0\r\n\r\n"),
    ),
    (
        "CL with zeros in front",
        post!("content-length: 0005"),
        Passes("/x", b"0\r\n\r\n"),
    ),
    (
        "TE plain",
        post!("transfer-encoding: chunked"),
        Passes("/x", b""),
    ),
    (
        "TE in any case",
        post!("tRANSFER-eNCODING: cHUNKED"),
        Passes("/x", b""),
    ),
    (
        "TE in tabs",
        post!("transfer-encoding:\tchunked \t"),
        Passes("/x", b""),
    ),
    (
        "TE and a look-alike",
        post!("transfer-encoding: chunked", "transfer_encoding: identity"),
        Passes("/x", b""),
    ),
];

pub(crate) const HEADS: &[Case] = &[
    (
        "LF behind the request line",
        b"GET /x HTTP/1.1\nhost: test\r\n\r\n",
        FEED,
    ),
    (
        "LF behind a field",
        b"GET /x HTTP/1.1\r\nhost: test\nx: y\r\n\r\n",
        FEED,
    ),
    (
        "LF for the blank line",
        b"GET /x HTTP/1.1\r\nhost: test\r\n\n",
        FEED,
    ),
    ("LF everywhere", b"GET /x HTTP/1.1\nhost: test\n\n", FEED),
    (
        "LF in front",
        b"\nGET /x HTTP/1.1\r\nhost: test\r\n\r\n",
        FEED,
    ),
    (
        "two empty lines in front",
        b"\r\n\r\nGET /x HTTP/1.1\r\nhost: test\r\n\r\n",
        Refused(400, "leading_empty_lines"),
    ),
    (
        "one empty line in front",
        b"\r\nGET /x HTTP/1.1\r\nhost: test\r\n\r\n",
        Passes("/x", b""),
    ),
    ("a folded field", get!("x: y", " z"), NAME),
    ("a field folded by a tab", get!("x: y", "\tz"), NAME),
    ("NUL in a value", get!("x: a\0b"), VALUE),
    ("NUL in a name", get!("x\0y: a"), NAME),
    ("a bell in a value", get!("x: \x07"), VALUE),
    ("DEL in a value", get!("x: \x7f"), VALUE),
    ("a lone CR in a value", get!("x: a\rb"), VALUE),
    ("a space before the colon", get!("x : y"), NAME),
    ("no name", get!(": y"), NAME),
    ("no colon", get!("x"), NAME),
    (
        "65 options of the connection",
        get!(concat!(
            "connection: ",
            "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,",
            "a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a"
        )),
        Refused(400, "too_many_connection_options"),
    ),
    (
        "an expectation nobody knows",
        get!("expect: 200-ok"),
        Refused(417, "unknown_expectation"),
    ),
    (
        "two spaces before the target",
        line!("GET  /x HTTP/1.1"),
        LINE,
    ),
    (
        "two spaces before the version",
        line!("GET /x  HTTP/1.1"),
        LINE,
    ),
    ("a tab before the target", line!("GET\t/x HTTP/1.1"), LINE),
    (
        "a space behind the version",
        line!("GET /x HTTP/1.1 "),
        Refused(400, "invalid_line_end"),
    ),
    ("a space in front", line!(" GET /x HTTP/1.1"), LINE),
    ("no version", line!("GET /x"), LINE),
    ("a method that is no token", line!("G(T /x HTTP/1.1"), LINE),
    (
        "the version in small letters",
        line!("GET /x http/1.1"),
        LINE,
    ),
    (
        "HTTP/1.2",
        line!("GET /x HTTP/1.2"),
        Refused(505, "unsupported_version"),
    ),
    (
        "HTTP/0.9",
        line!("GET /x HTTP/0.9"),
        Refused(505, "unsupported_version"),
    ),
    (
        "HTTP/2.0 by name",
        line!("GET /x HTTP/2.0"),
        Refused(505, "unsupported_version"),
    ),
    (
        "a tunnel",
        line!("CONNECT test:443 HTTP/1.1"),
        Refused(501, "connect_not_supported"),
    ),
    (
        "an absolute target",
        line!("GET http://other/x HTTP/1.1"),
        Refused(400, "absolute_form"),
    ),
    (
        "an absolute target of another scheme",
        line!("GET ftp://other/x HTTP/1.1"),
        Refused(400, "absolute_form"),
    ),
    ("a target without slash", line!("GET x HTTP/1.1"), TARGET),
    ("a target that is a query", line!("GET ?x HTTP/1.1"), TARGET),
    ("an asterisk of GET", line!("GET * HTTP/1.1"), TARGET),
    ("an authority of GET", line!("GET test:80 HTTP/1.1"), TARGET),
    ("a fragment", line!("GET /x#y HTTP/1.1"), CHARACTER),
    ("a backslash", line!("GET /x\\y HTTP/1.1"), CHARACTER),
    ("a quote", line!("GET /x\" HTTP/1.1"), CHARACTER),
    (
        "a letter beyond ASCII",
        line!("GET /\u{e9} HTTP/1.1"),
        CHARACTER,
    ),
    ("a NUL in the target", line!("GET /x\0 HTTP/1.1"), LINE),
    (
        "an asterisk of OPTIONS",
        line!("OPTIONS * HTTP/1.1"),
        Answered(404),
    ),
    (
        "dots",
        line!("GET /a/../b/%2e%2E/./c HTTP/1.1"),
        Passes("/a/../b/%2e%2E/./c", b""),
    ),
    (
        "two slashes",
        line!("GET //other/x HTTP/1.1"),
        Passes("//other/x", b""),
    ),
    (
        "an encoded line end",
        line!("GET /x%0d%0aa:b?c=%00 HTTP/1.1"),
        Passes("/x%0d%0aa:b?c=%00", b""),
    ),
    ("no Host", host!(), Refused(400, "missing_host")),
    (
        "two Hosts",
        host!("host: a", "host: b"),
        Refused(400, "duplicate_host"),
    ),
    (
        "the same Host twice",
        host!("host: a", "HOST: a"),
        Refused(400, "duplicate_host"),
    ),
    ("a list of Hosts", host!("host: a, b"), HOST),
    ("a Host with a user", host!("host: user@a"), HOST),
    ("a Host with a path", host!("host: a/b"), HOST),
    ("a Host with a scheme", host!("host: http://a"), HOST),
    ("a Host with a space", host!("host: a b"), HOST),
    ("an encoded Host", host!("host: a%2eb"), HOST),
    ("a port too large", host!("host: a:65536"), HOST),
    ("port zero", host!("host: a:0"), HOST),
    ("a port with a sign", host!("host: a:+80"), HOST),
    ("a port in words", host!("host: a:http"), HOST),
    ("two ports", host!("host: a:80:80"), HOST),
    ("half an address", host!("host: [::1"), HOST),
    ("more than an address", host!("host: [::1]a"), HOST),
    (
        "Host with a space before the colon",
        host!("host : a"),
        NAME,
    ),
    ("an empty Host", host!("host:"), Passes("/x", b"")),
    (
        "an address with a port",
        host!("host: [::1]:80"),
        Passes("/x", b""),
    ),
    (
        "HTTP/1.0 without Host",
        b"GET /x HTTP/1.0\r\n\r\n",
        Ends("/x"),
    ),
];

pub(crate) const CHUNKS: &[Case] = &[
    (
        "a size with a space behind",
        chunks!("5 \r\nhello\r\n0\r\n\r\n"),
        SIZE,
    ),
    (
        "a size with a space in front",
        chunks!(" 5\r\nhello\r\n0\r\n\r\n"),
        SIZE,
    ),
    ("a size with 0x", chunks!("0x5\r\nhello\r\n0\r\n\r\n"), SIZE),
    (
        "a size with plus",
        chunks!("+5\r\nhello\r\n0\r\n\r\n"),
        SIZE,
    ),
    (
        "a size with minus",
        chunks!("-5\r\nhello\r\n0\r\n\r\n"),
        SIZE,
    ),
    ("no size", chunks!("\r\nhello\r\n0\r\n\r\n"), SIZE),
    (
        "the preface of HTTP/2 for a size",
        chunks!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        SIZE,
    ),
    ("its first letter for a size", chunks!("P"), SIZE),
    (
        "no size before an extension",
        chunks!(";a=b\r\nhello\r\n0\r\n\r\n"),
        SIZE,
    ),
    ("a size before LF", chunks!("5\nhello\r\n0\r\n\r\n"), SIZE),
    (
        "a size before CR alone",
        chunks!("5\rhello\r\n0\r\n\r\n"),
        SIZE,
    ),
    (
        "a size beyond 2^64",
        chunks!("10000000000000005\r\nhello\r\n0\r\n\r\n"),
        Refused(400, "chunk_size_overflow"),
    ),
    (
        "a size with many zeros",
        chunks!("0000000000000005\r\nhello\r\n0\r\n\r\n"),
        Refused(400, "chunk_size_overflow"),
    ),
    (
        "an extension with LF",
        chunks!("5;a\nb\r\nhello\r\n0\r\n\r\n"),
        Refused(400, "invalid_chunk_extension"),
    ),
    (
        "a chunk longer than its size",
        chunks!("4\r\nhello\r\n0\r\n\r\n"),
        Refused(400, "invalid_chunk_end"),
    ),
    (
        "a chunk before LF",
        chunks!("5\r\nhello\n0\r\n\r\n"),
        Refused(400, "invalid_chunk_end"),
    ),
    (
        "a trailer without colon",
        chunks!("0\r\nx\r\n\r\n"),
        TRAILER,
    ),
    ("a trailer before LF", chunks!("0\r\nx: y\n\r\n"), TRAILER),
    (
        "a folded trailer",
        chunks!("0\r\nx: y\r\n z\r\n\r\n"),
        TRAILER,
    ),
    (
        "a length as trailer",
        chunks!("0\r\ncontent-length: 5\r\n\r\n"),
        FORBIDDEN,
    ),
    (
        "a coding as trailer",
        chunks!("0\r\ntransfer-encoding: chunked\r\n\r\n"),
        FORBIDDEN,
    ),
    (
        "a Host as trailer",
        chunks!("0\r\nhost: other\r\n\r\n"),
        FORBIDDEN,
    ),
    (
        "a key as trailer",
        chunks!("0\r\nauthorization: Bearer other\r\n\r\n"),
        FORBIDDEN,
    ),
    (
        "chunks with extension and trailer",
        chunks!("5;a=b\r\nhello\r\n1\r\n!\r\n0;c\r\nx: y\r\n\r\n"),
        Passes("/x", b"hello!"),
    ),
    (
        "sizes with zeros and capitals",
        chunks!("00A\r\n0123456789\r\n000\r\n\r\n"),
        Passes("/x", b"0123456789"),
    ),
];
