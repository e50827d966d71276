//! Clients that leave: the server sees it soon, and the books are empty afterwards.

use crate::gateway::{Gateway, request, wait_until};
use crate::servers::{CHAT, Open, Server, chat, sent};
use std::io::Write;
use std::net::{Shutdown, TcpStream};

/// How a client goes.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    Closes,
    ClosesItsHalf,
    /// With a request behind the one that runs.
    LeavesABehindByte,
}

const WAYS: [Leaving; 3] = [
    Leaving::Closes,
    Leaving::ClosesItsHalf,
    Leaving::LeavesABehindByte,
];

fn leave(mut stream: TcpStream, leaving: Leaving) -> Option<TcpStream> {
    match leaving {
        Leaving::Closes => return None,
        Leaving::ClosesItsHalf => stream.shutdown(Shutdown::Write).unwrap(),
        Leaving::LeavesABehindByte => {
            stream.write_all(b"P").unwrap();
            stream.shutdown(Shutdown::Both).unwrap();
        }
    }
    Some(stream)
}

#[track_caller]
fn the_server_saw_it(gateway: &Gateway, server: &Server) {
    wait_until(|| server.running() == 0);
    let last = server.received().pop().unwrap();
    assert_eq!(last.end.as_deref(), Some("left"));
    gateway.is_quiet();
}

#[test]
fn a_client_that_leaves_before_the_head_frees_the_server() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    server.slow(100.0);
    for stream in [true, false] {
        for leaving in WAYS {
            let open = sent(gateway.address, &chat("llama", "hello", 2000, stream));
            wait_until(|| server.running() == 1);
            let kept = leave(open, leaving);
            the_server_saw_it(&gateway, &server);
            drop(kept);
        }
    }
    let gone = gateway.metric_with("penstock_requests_total", "client_gone");
    assert_eq!(gone, 6.0);
}

#[test]
fn a_client_that_leaves_in_mid_stream_frees_the_server() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    server.slow(5.0);
    for leaving in WAYS {
        let stream = sent(gateway.address, &chat("llama", "hello", 5000, true));
        let mut open = Open::read(stream.try_clone().unwrap());
        assert!(open.chunk().is_some());
        drop(open);
        let kept = leave(stream, leaving);
        the_server_saw_it(&gateway, &server);
        drop(kept);
    }
}

#[test]
fn an_endless_stream_ends_with_its_client() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    server.fault("endless");
    let mut open = Open::post(gateway.address, &chat("llama", "hello", 3, true));
    for _ in 0..20 {
        assert!(open.chunk().is_some());
    }
    drop(open);
    the_server_saw_it(&gateway, &server);
}

#[test]
fn a_client_that_reads_nothing_holds_no_more_than_its_share() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    server.fault("endless");
    let mut stream = sent(gateway.address, &chat("llama", "hello", 3, true));
    wait_until(|| server.running() == 1);
    stream.write_all(b"x").unwrap();
    // Others are served meanwhile.
    let answer = crate::gateway::get(gateway.address, "/v1/models").unwrap();
    assert_eq!(answer.status, 200);
    drop(stream);
    the_server_saw_it(&gateway, &server);
}

#[test]
fn half_a_request_reaches_nobody() {
    let server = Server::llama();
    let gateway = Gateway::over(&[&server]);
    let whole = request(CHAT, &chat("llama", "hello", 2, true), &[]);
    for part in [10, 60, whole.len() - 3] {
        let mut stream = crate::gateway::connect(gateway.address);
        stream.write_all(&whole.as_bytes()[..part]).unwrap();
        drop(stream);
    }
    wait_until(|| gateway.metric("penstock_connections_open") <= 1.0);
    gateway.is_quiet();
    assert_eq!(server.count(), 0);
}
