//! What a hostile peer of HTTP/2 may do is bounded and counted, and others are served meanwhile.

use crate::gateway::{Gateway, get, wait_until};
use crate::over2::{GET, Http2, block, frame, goaway, raw};
use crate::servers::Server;
use std::io::Write;
use std::net::TcpStream;

const ENHANCE_YOUR_CALM: u32 = 11;

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
    ];
    let other = Http2::connect(gateway.address);
    for (number, (name, bytes)) in floods.into_iter().enumerate() {
        let reason = flooded(raw(gateway.address), &bytes.repeat(100));
        // Where bytes of ours were still unread, the kernel resets instead.
        assert!(
            matches!(reason, None | Some(ENHANCE_YOUR_CALM)),
            "{name}: {reason:?}"
        );
        let counted = || gateway.metric("penstock_http2_floods_total") == number as f64 + 1.0;
        wait_until(counted);
        assert_eq!(other.get("/v1/models").status, 200, "{name}");
    }
    wait_until(|| gateway.metric("penstock_connections_open") <= 2.0);
}

#[test]
fn rapid_resets_end_the_connection_and_leave_nothing_behind() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let mut stream = raw(gateway.address);
    let mut reader = stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || goaway(&mut reader));
    let block = block(&GET);
    let ended = (0..200_000_u32).find(|number| {
        let id = number * 2 + 1;
        let mut bytes = frame(1, 5, id, &block);
        bytes.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
        stream.write_all(&bytes).is_err()
    });
    assert!(ended.is_some(), "it takes resets without end");
    let reason = reading.join().unwrap();
    assert!(
        matches!(reason, None | Some(ENHANCE_YOUR_CALM)),
        "{reason:?}"
    );
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
    assert_eq!(goaway(&mut stream), Some(3));
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
