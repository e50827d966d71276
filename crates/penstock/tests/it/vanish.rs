//! Servers that shut down badly: no more connections, and not a word on those that are open.

use crate::gateway::{DEADLINE, Gateway, free_address, post};
use crate::servers::{CHAT, Server, chat, event_stream, sent};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;

/// Takes one chat request, closes its listener, and says nothing more on the connection than `begun`.
fn vanishing(begun: String) -> (SocketAddr, mpsc::Receiver<TcpStream>) {
    let listener = TcpListener::bind(free_address()).unwrap();
    let address = listener.local_addr().unwrap();
    let (taken, kept) = mpsc::channel();
    // The thread ends with its listener, at the first chat request.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut start = [0; 4];
            if stream.read_exact(&mut start).is_err() || &start != b"POST" {
                continue;
            }
            stream.write_all(begun.as_bytes()).unwrap();
            let _ = taken.send(stream);
            return;
        }
    });
    (address, kept)
}

#[test]
fn what_a_vanished_server_leaves_unanswered_is_answered_by_another() {
    let server = Server::llama();
    let (address, kept) = vanishing(String::new());
    let gateway = Gateway::before(&[address, server.address]);
    gateway.knows(&["llama"]);
    // Two at a time go to two servers.
    let body = chat("llama", "hello", 2, false);
    let other = sent(gateway.address, &body);
    let answer = post(gateway.address, CHAT, &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let _silent = kept.recv_timeout(DEADLINE).unwrap();
    let mut start = [0; 12];
    (&other).read_exact(&mut start).unwrap();
    assert_eq!(start.as_slice(), b"HTTP/1.1 200");
    gateway.is_quiet();
}

#[test]
fn a_stream_of_a_vanished_server_is_cut() {
    let event = r#"{"choices":[{"delta":{"content":"one"}}]}"#;
    let begun = event_stream(&[event]).replace("\r\n0\r\n\r\n", "\r\n");
    let (address, kept) = vanishing(begun);
    let gateway = Gateway::before(&[address]);
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 9, true));
    let _silent = kept.recv_timeout(DEADLINE).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("stream_cut"), "{answer:?}");
    assert!(!answer.body.contains("[DONE]"), "{answer:?}");
    gateway.is_quiet();
}
