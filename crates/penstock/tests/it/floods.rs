//! What a hostile peer of HTTP/2 may do is bounded and counted, and others are served meanwhile.

use crate::crowd::{Says, server as crowd_server};
use crate::gateway::{Gateway, get, wait_until};
use crate::over2::{GET, Http2, block, frame, goaway, raw, read_frame};
use crate::servers::{CHAT, Server, chat};
use std::io::Write;
use std::net::TcpStream;

const FLOW_CONTROL_ERROR: u32 = 3;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Waits until so many floods were counted: not one more.
#[track_caller]
fn counted(gateway: &Gateway, floods: usize, name: &str) {
    let count = || gateway.metric("penstock_http2_floods_total");
    let until = std::time::Instant::now() + crate::gateway::DEADLINE;
    while count() < floods as f64 && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(count(), floods as f64, "{name}");
}

/// The head of a request with a body still to come.
fn posted(id: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = GET.to_vec();
    fields[0].1 = "POST";
    fields.extend_from_slice(more);
    frame(1, 4, id, &block(&fields))
}

/// Writes until the gateway has had enough; the reason it gives, if it can be read.
fn flooded(mut stream: TcpStream, bytes: &[u8]) -> Option<u32> {
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || goaway(&mut reader));
    let mut sent = 0;
    while sent < 64 << 20 && stream.write_all(bytes).is_ok() {
        sent += bytes.len();
    }
    assert!(sent < 64 << 20, "it takes it all");
    reading.join().unwrap()
}

#[test]
fn floods_of_control_frames_end_the_connection() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let floods = [
        ("pings", frame(6, 0, 0, &[0; 8])),
        ("settings", frame(4, 0, 0, &[])),
        ("window updates", frame(8, 0, 0, &1_u32.to_be_bytes())),
        ("priorities", frame(2, 0, 1, &[0, 0, 0, 0, 7])),
        ("frames of unknown kind", frame(77, 0, 0, &[])),
        ("pieces of nothing", frame(0, 0, 1, &[])),
    ];
    let other = Http2::connect(gateway.address);
    for (number, (name, bytes)) in floods.into_iter().enumerate() {
        let mut stream = raw(gateway.address);
        if name == "pieces of nothing" {
            stream.write_all(&posted(1, &[])).unwrap();
        }
        let reason = flooded(stream, &bytes.repeat(100));
        // Where bytes of ours were still unread, the kernel resets instead.
        assert!(
            matches!(reason, None | Some(ENHANCE_YOUR_CALM)),
            "{name}: {reason:?}"
        );
        counted(&gateway, number + 1, name);
        assert_eq!(other.get("/v1/models").status, 200, "{name}");
    }
    wait_until(|| gateway.metric("penstock_connections_open") <= 2.0);
}

/// Opens streams, each with what `with` makes of its number, until the connection ends; the reason.
fn until_ended(gateway: &Gateway, with: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let mut stream = raw(gateway.address);
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || goaway(&mut reader));
    let ended = (0..200_000_u32).find(|number| stream.write_all(&with(number * 2 + 1)).is_err());
    assert!(ended.is_some(), "it goes on without end");
    reading.join().unwrap()
}

#[test]
fn rapid_resets_end_the_connection_and_leave_nothing_behind() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let whole = block(&GET);
    let reset = |id| {
        [
            frame(1, 5, id, &whole),
            frame(3, 0, id, &8_u32.to_be_bytes()),
        ]
        .concat()
    };
    let reason = until_ended(&gateway, reset);
    assert!(
        matches!(reason, None | Some(ENHANCE_YOUR_CALM)),
        "{reason:?}"
    );
    counted(&gateway, 1, "rapid resets");
    gateway.is_quiet();
}

/// Streams that the gateway itself has to reset, for what the client does to them.
#[test]
fn resets_that_clients_provoke_end_the_connection() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let mut fields = GET;
    fields[2].1 = "no path";
    let broken = block(&fields);
    let whole = block(&GET);
    let much = 0x7FFF_FFFF_u32.to_be_bytes();
    let longer = |id| {
        [
            posted(id, &[("content-length", "1")]),
            frame(0, 0, id, b"  "),
        ]
        .concat()
    };
    let wider = |id| [frame(1, 5, id, &whole), frame(8, 0, id, &much)].concat();
    type With<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let all: [(&str, With<'_>); 3] = [
        ("heads that mean nothing", &|id| frame(1, 5, id, &broken)),
        ("bodies longer than told", &longer),
        ("windows of streams beyond their maximum", &wider),
    ];
    for (number, (name, with)) in all.into_iter().enumerate() {
        let reason = until_ended(&gateway, with);
        assert!(
            matches!(reason, None | Some(ENHANCE_YOUR_CALM)),
            "{name}: {reason:?}"
        );
        counted(&gateway, number + 1, name);
    }
    assert_eq!(get(gateway.address, "/v1/models").unwrap().status, 200);
    gateway.is_quiet();
}

#[test]
fn heads_without_end_and_bombs_are_bounded() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    // HEADERS without END_HEADERS, then continuations for ever.
    let mut stream = raw(gateway.address);
    stream.write_all(&frame(1, 1, 1, &block(&GET))).unwrap();
    let piece = frame(9, 0, 1, &block(&[("x-a", "b"); 20]));
    flooded(stream, &piece.repeat(10));
    counted(&gateway, 1, "continuations");
    // One field in the table, named a hundred thousand times: a byte each.
    let mut stream = raw(gateway.address);
    let mut bomb = block(&GET);
    let value = "v".repeat(120);
    bomb.extend_from_slice(&[0x40, 3]);
    bomb.extend_from_slice(b"x-b");
    bomb.push(120);
    bomb.extend_from_slice(value.as_bytes());
    bomb.extend(std::iter::repeat_n(0xBE, 15_000));
    stream.write_all(&frame(1, 5, 1, &bomb)).unwrap();
    stream.write_all(&frame(6, 0, 0, &[9; 8])).unwrap();
    // Too much to be a request at all: the connection ends, which is all that is waited for.
    goaway(&mut stream);
    counted(&gateway, 2, "a bomb");
    // A name that goes on and on, of a head that is too large already.
    let mut stream = raw(gateway.address);
    let mut large = block(&GET);
    for _ in 0..400 {
        large.extend_from_slice(&block(&[("x-a", &"v".repeat(100))]));
    }
    large.extend_from_slice(&[0, 127, 0x80, 0x80, 0x40]);
    let (first, rest) = large.split_at(16_000);
    stream.write_all(&frame(1, 1, 1, first)).unwrap();
    for piece in rest.chunks(16_000) {
        stream.write_all(&frame(9, 0, 1, piece)).unwrap();
    }
    let reason = flooded(stream, &frame(9, 0, 1, &[b'n'; 16_000]));
    assert!(
        matches!(reason, None | Some(COMPRESSION_ERROR)),
        "{reason:?}"
    );
    counted(&gateway, 3, "a name without end");
    assert_eq!(get(gateway.address, "/v1/models").unwrap().status, 200);
    assert_eq!(server.count(), 0, "none of it reached a server");
    gateway.is_quiet();
}

#[test]
fn window_games_end_or_wait_but_never_grow() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    // A window over its maximum is an error of flow control.
    let mut stream = raw(gateway.address);
    let much = 0x7FFF_FFFF_u32.to_be_bytes();
    stream.write_all(&frame(8, 0, 0, &much)).unwrap();
    assert_eq!(goaway(&mut stream), Some(FLOW_CONTROL_ERROR));
    counted(&gateway, 1, "a window over its maximum");
    // So is a setting that brings a stream's there.
    let mut stream = raw(gateway.address);
    stream.write_all(&posted(1, &[])).unwrap();
    stream
        .write_all(&frame(8, 0, 1, &0x7000_0000_u32.to_be_bytes()))
        .unwrap();
    let setting = [0, 4, 0x7F, 0xFF, 0xFF, 0xFF];
    stream.write_all(&frame(4, 0, 0, &setting)).unwrap();
    assert_eq!(goaway(&mut stream), Some(FLOW_CONTROL_ERROR));
    counted(&gateway, 2, "a setting beyond the maximum");
    // No window at all: the head comes, the body waits; the stream ends when the client leaves.
    let mut stream = raw(gateway.address);
    let setting = [0, 4, 0, 0, 0, 0];
    stream.write_all(&frame(4, 0, 0, &setting)).unwrap();
    stream.write_all(&frame(1, 5, 1, &block(&GET))).unwrap();
    let head = std::iter::from_fn(|| crate::over2::read_frame(&mut stream))
        .find(|(kind, _, id, _)| (*kind, *id) == (1, 1));
    assert!(head.is_some());
    drop(stream);
    wait_until(|| gateway.metric("penstock_connections_open") <= 1.0);
    gateway.is_quiet();
}

#[test]
fn streams_without_a_window_hold_no_more_than_one_read_each() {
    const STREAMS: u64 = 200;
    let gateway = Gateway::before(&[crowd_server(Says::Endless)]);
    let idle = gateway.resident_kib();
    let mut stream = raw(gateway.address);
    stream
        .write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .unwrap();
    let body = chat("llama", "hello", 100, true);
    for number in 0..STREAMS as u32 {
        let id = number * 2 + 1;
        let mut fields = GET;
        (fields[0].1, fields[2].1) = ("POST", CHAT);
        let asked = [
            frame(1, 4, id, &block(&fields)),
            frame(0, 1, id, body.as_bytes()),
        ];
        stream.write_all(&asked.concat()).unwrap();
    }
    let mut heads = 0;
    while heads < STREAMS {
        let (kind, _, id, _) = read_frame(&mut stream).expect("all answers begin");
        assert!(kind != 0 || id == 0, "a body without a window");
        heads += u64::from(kind == 1);
    }
    // All servers are held back: nothing grows any more.
    let held = || gateway.holds("unsent_answers");
    wait_until(|| {
        let before = held();
        std::thread::sleep(std::time::Duration::from_millis(300));
        before > 0 && before == held()
    });
    // A read of 64 KiB, and what its buffer has to spare.
    assert!(held() <= STREAMS * (128 << 10), "{}", gateway.memory());
    let grown = gateway.resident_kib() - idle;
    assert!(grown < STREAMS * 256, "{grown} KiB for {STREAMS} streams");
    let other = Http2::connect(gateway.address);
    assert_eq!(other.get("/v1/models").status, 200);
    drop((stream, other));
    wait_until(|| held() == 0);
    gateway.is_quiet();
}
