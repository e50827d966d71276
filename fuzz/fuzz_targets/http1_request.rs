//! Requests, read by us and by hyper's server: whatever we accept, hyper accepts with the same
//! method, target, host and body; and what we write for the next hop is exactly one request with
//! the same body, for us and for hyper.
//!
//! hyper accepts more than we do, so nothing is asked about what we refuse.
#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http_body_util::{BodyExt, Empty};
use http1::{BodyReader, Framing, Limits, Parsed, RequestHead};
use hyper::body::{Bytes, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1 as hyper_http1;
use hyper::service::service_fn;
use libfuzzer_sys::fuzz_target;

/// What a reader saw of the first request: everything that routing and framing depend on.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    method: String,
    target: String,
    host: Vec<u8>,
    body: Vec<u8>,
}

fuzz_target!(|input: &[u8]| {
    let mut head = RequestHead::new();
    let limits = Limits::default();
    let parsed = head.parse(input, &limits);
    check_steps(input, parsed);
    check_again(&mut head, input, &limits);
    let Ok(Parsed::Complete { head_bytes }) = parsed else {
        return;
    };
    check_lines(&input[..head_bytes]);

    let Some((body, used)) = read_body(head.framing(), &input[head_bytes..]) else {
        return;
    };
    let message = &input[..head_bytes + used];
    let ours = seen(&head, &body);
    assert_eq!(
        read_by_hyper(message),
        [ours.clone()],
        "hyper reads it otherwise"
    );

    // As a proxy forwards it: as it came, re-framed with a length, re-framed as chunks.
    let length = Framing::Length(body.len() as u64);
    let as_it_came = (head.framing(), &input[head_bytes..head_bytes + used]);
    let mut chunks = Vec::new();
    http1::write_chunk(&body, &mut chunks);
    chunks.extend_from_slice(http1::LAST_CHUNK);
    for (framing, body) in [as_it_came, (length, &body), (Framing::Chunked, &chunks)] {
        check_forwarded(&head, framing, body, &ours);
    }
});

/// The same however the head arrives; a refusal may come early, but it is not taken back.
fn check_steps(input: &[u8], whole: Result<Parsed, http1::Refusal>) {
    let limits = Limits::default();
    let head_bytes = match whole {
        Ok(Parsed::Complete { head_bytes }) => head_bytes,
        _ => input.len().min(300),
    };
    for end in 0..head_bytes.min(300) {
        let parsed = RequestHead::new().parse(&input[..end], &limits);
        match whole {
            Ok(_) => assert_eq!(parsed, Ok(Parsed::Incomplete), "at {end}"),
            Err(_) => assert!(!matches!(parsed, Ok(Parsed::Complete { .. })), "at {end}"),
        }
    }
}

/// A head behind others of its connection is read as one alone: the same, one that differs in a byte,
/// and the first again.
fn check_again(head: &mut RequestHead, input: &[u8], limits: &Limits) {
    let mut other = input.to_vec();
    let at = input
        .iter()
        .fold(0usize, |sum, byte| sum * 31 % 8191 + usize::from(*byte));
    if let Some(byte) = other.get_mut(at % input.len().max(1)) {
        *byte = byte.wrapping_add(1);
    }
    for text in [input, &other, input] {
        let mut alone = RequestHead::new();
        let parsed = alone.parse(text, limits);
        assert_eq!(head.parse(text, limits), parsed);
        if matches!(parsed, Ok(Parsed::Complete { .. })) {
            assert_eq!(told(head), told(&alone));
        }
    }
}

/// All that depends on a head, and what is sent on.
fn told(head: &RequestHead) -> impl PartialEq + std::fmt::Debug {
    let mut text = Vec::new();
    head.write(head.framing(), &mut text);
    let line = [head.method(), head.target(), head.host()].map(str::to_owned);
    let flags = (
        head.keep_alive(),
        head.expects_continue(),
        head.version_minor(),
    );
    (
        line,
        flags,
        head.framing(),
        head.upgrade().map(str::to_owned),
        text,
    )
}

/// No other line end than CRLF, and no NUL.
fn check_lines(head: &[u8]) {
    for line_feed in memchr::memchr_iter(b'\n', head) {
        assert!(
            line_feed > 0 && head[line_feed - 1] == b'\r',
            "bare line feed"
        );
    }
    let returns = memchr::memchr_iter(b'\r', head).count();
    assert_eq!(
        returns,
        memchr::memchr_iter(b'\n', head).count(),
        "bare carriage return"
    );
    assert!(!head.contains(&0), "NUL");
}

/// The written message is one request with the same meaning and nothing behind it.
fn check_forwarded(head: &RequestHead, framing: Framing, body: &[u8], ours: &Seen) {
    let mut out = Vec::new();
    head.write(framing, &mut out);
    let written_head_bytes = out.len();
    out.extend_from_slice(body);
    let mut next = RequestHead::new();
    let parsed = next.parse(
        &out,
        // A request of HTTP/1.0 gets the Host that it lacked, and a body its length.
        &Limits {
            head_bytes: 64 << 10,
            fields: Limits::default().fields + 2,
            ..Limits::default()
        },
    );
    assert_eq!(
        parsed,
        Ok(Parsed::Complete {
            head_bytes: written_head_bytes
        })
    );
    assert_eq!(next.framing(), framing);
    let (body, used) = read_body(framing, &out[written_head_bytes..]).expect("whole body");
    assert_eq!(
        written_head_bytes + used,
        out.len(),
        "bytes behind the request"
    );
    assert_eq!(
        &seen(&next, &body),
        ours,
        "the written request has another meaning"
    );
    assert_eq!(
        &read_by_hyper(&out),
        std::slice::from_ref(ours),
        "hyper reads it otherwise"
    );
    for name in [
        "connection",
        "keep-alive",
        "te",
        "upgrade",
        "proxy-connection",
        "expect",
    ] {
        assert_eq!(next.get(name), None, "{name} went on");
    }
}

fn seen(head: &RequestHead, body: &[u8]) -> Seen {
    Seen {
        method: head.method().to_owned(),
        target: head.target().to_owned(),
        host: head.get("host").unwrap_or_default().to_vec(),
        body: body.to_vec(),
    }
}

/// Payload and bytes used; `None` when the body is refused or not whole.
fn read_body(framing: Framing, bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut reader = BodyReader::new(framing, &Limits::default());
    let mut payload = Vec::new();
    let used = reader
        .feed(bytes, |piece| payload.extend_from_slice(piece))
        .ok()?;
    reader.is_done().then_some((payload, used))
}

/// All requests that hyper's server finds in these bytes. Nothing here ever waits, so the
/// connection is polled by hand until it ends.
fn read_by_hyper(bytes: &[u8]) -> Vec<Seen> {
    let requests = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let requests = Rc::clone(&requests);
        async move {
            let (parts, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                requests.borrow_mut().push(Seen {
                    method: parts.method.as_str().to_owned(),
                    target: parts.uri.to_string(),
                    host: parts
                        .headers
                        .get("host")
                        .map_or_else(Vec::new, |it| it.as_bytes().to_vec()),
                    body: body.to_bytes().to_vec(),
                });
            }
            Ok::<_, Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
        }
    });
    let io = Memory { input: bytes };
    {
        // Without half_close hyper drops the request as soon as it sees that no more can come.
        let mut builder = hyper_http1::Builder::new();
        // Limits are no meaning: what is forwarded may have a field or two more than what may come
        // in, and trailers are limited by their bytes.
        builder.half_close(true).max_headers(1100);
        let mut connection = pin!(builder.serve_connection(io, service));
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..1000 {
            if connection.as_mut().poll(&mut context).is_ready() {
                break;
            }
        }
    }
    requests.take()
}

/// A connection that has sent all it has to say; what is written to it is forgotten.
struct Memory<'a> {
    input: &'a [u8],
}

impl Read for Memory<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let length = self.input.len().min(buffer.remaining());
        let (now, later) = self.input.split_at(length);
        buffer.put_slice(now);
        self.input = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Memory<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
