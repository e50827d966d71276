//! The end of the process: nothing new is taken, what is under way ends as it began, and the log
//! has every line.

use crate::crowd::{CROWD, Says, sent, server};
use crate::gateway::{Gateway, connect, free_address, penstock, read_answer, request, wait_until};
use crate::measures::{measured, promised};
use crate::over2::Http2;
use crate::servers::{CHAT, Server, chat};
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

const DONE: &[u8] = b"data: [DONE]\n\n\r\n0\r\n\r\n";

fn logged(server: SocketAddr, log: &Path, more: &[&str]) -> Gateway {
    let endpoint = format!("http://{server}");
    let log = log.to_str().unwrap();
    let args = ["--endpoint", &endpoint, "--access-log", log];
    Gateway::run(&[&args[..], &["--workers", "2"], more].concat())
}

fn lines(log: &Path) -> usize {
    std::fs::read_to_string(log).unwrap().lines().count()
}

/// Reads an answer to its end: `None` where it was cut.
async fn whole(mut stream: tokio::net::TcpStream) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while !text.ends_with(DONE) {
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    }
    Some(text)
}

#[test]
fn five_hundred_streams_end_before_the_process_does() {
    let streams = promised(300, 500);
    let over_h2 = 20;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.jsonl");
    let server = server(Says::Events(
        promised(30, 100) as u32,
        Duration::from_millis(50),
    ));
    let mut gateway = logged(server, &log, &[]);
    let body = chat("llama", "hello", 100, true);
    let asked = request(CHAT, &body, &[]);
    let client = Http2::connect(gateway.address);
    let open: Vec<_> = (0..over_h2).map(|_| client.open(CHAT, &body)).collect();
    let reading: Vec<_> = (0..streams)
        .map(|_| {
            let (address, asked) = (gateway.address, asked.clone());
            CROWD.spawn(async move { whole(sent(address, &asked).await?).await })
        })
        .collect();
    let all = (streams + over_h2) as f64;
    wait_until(|| gateway.metric("penstock_endpoint_in_flight") == all);
    let told = Instant::now();
    gateway.signal("-TERM");
    wait_until(|| TcpStream::connect(gateway.address).is_err());
    let ended = CROWD.block_on(async {
        let mut ended = 0;
        for one in reading {
            ended += usize::from(one.await.unwrap().is_some());
        }
        ended
    });
    assert_eq!(ended, streams);
    for mut open in open {
        let rest = open.rest().unwrap();
        assert!(rest.ends_with(b"data: [DONE]\n\n"));
    }
    client.end().unwrap();
    assert_eq!(gateway.ended(), Some(0));
    measured("drain.streams_whole", (streams + over_h2) as f64);
    measured("drain.seconds_to_the_end", told.elapsed().as_secs_f64());
    assert_eq!(lines(&log), streams + over_h2, "every line is in the log");
}

#[test]
fn patience_is_bounded_and_the_log_has_what_ended() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.jsonl");
    let events = server(Says::Events(100_000, Duration::from_millis(10)));
    let mut gateway = logged(events, &log, &["--drain-timeout", "300ms"]);
    let asked = request(CHAT, &chat("llama", "hello", 100, true), &[]);
    let mut refused = connect(gateway.address);
    let endless = CROWD.block_on(sent(gateway.address, &asked)).unwrap();
    wait_until(|| gateway.metric("penstock_endpoint_in_flight") == 1.0);
    refused
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n")
        .unwrap();
    let answer = read_answer(&mut BufReader::new(refused)).unwrap();
    assert_eq!(answer.status, 400);
    gateway.signal("-TERM");
    assert_eq!(gateway.ended(), Some(1));
    assert_eq!(CROWD.block_on(whole(endless)), None);
    assert_eq!(lines(&log), 1, "what ended before has its line");
}

#[test]
fn lines_that_their_reader_has_not_taken_are_waited_for() {
    let (address, admin) = (free_address(), free_address());
    let listen = [address.to_string(), admin.to_string()];
    let endpoint = format!("http://{}", server(Says::Little));
    let mut command = penstock(&["run", "--endpoint", &endpoint, "--workers", "1"]);
    command.args(["--listen", &listen[0], "--admin", &listen[1]]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut gateway = Gateway::started(&mut command, address, admin);
    // More than a pipe holds.
    let requests = 800;
    let mut kept = BufReader::new(connect(address));
    for _ in 0..requests {
        let models = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n";
        kept.get_mut().write_all(models).unwrap();
        assert_eq!(read_answer(&mut kept).unwrap().status, 200);
    }
    gateway.signal("-TERM");
    wait_until(|| TcpStream::connect(address).is_err());
    let mut log = String::new();
    let mut pipe = gateway.process.0.stdout.take().unwrap();
    pipe.read_to_string(&mut log).unwrap();
    let lines = log
        .lines()
        .filter(|line| line.starts_with("{\"ts\""))
        .count();
    assert_eq!(lines, requests);
    assert_eq!(gateway.ended(), Some(0));
}

#[test]
fn the_log_has_what_ended_just_before_a_second_signal() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.jsonl");
    let events = server(Says::Events(100_000, Duration::from_millis(10)));
    let mut gateway = logged(events, &log, &[]);
    let asked = request(CHAT, &chat("llama", "hello", 100, true), &[]);
    let _endless = CROWD.block_on(sent(gateway.address, &asked)).unwrap();
    wait_until(|| gateway.metric("penstock_endpoint_in_flight") == 1.0);
    let mut kept = BufReader::new(connect(gateway.address));
    for _ in 0..3 {
        let models = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n";
        kept.get_mut().write_all(models).unwrap();
        assert_eq!(read_answer(&mut kept).unwrap().status, 200);
    }
    gateway.signal("-TERM");
    gateway.signal("-TERM");
    // The two may count as one; then patience is tried once more.
    while gateway.process.0.try_wait().unwrap().is_none() {
        gateway.signal("-TERM");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(gateway.ended(), Some(1));
    assert_eq!(lines(&log), 3);
}

#[test]
fn who_asked_before_the_end_is_told_that_the_connection_goes() {
    let mock = Server::llama();
    mock.fault("slow-head:ms=500");
    let mut gateway = Gateway::over(&[&mock]);
    gateway.knows(&["llama"]);
    let mut stream = connect(gateway.address);
    let asked = request(CHAT, &chat("llama", "hello", 3, false), &[]);
    stream.write_all(asked.as_bytes()).unwrap();
    wait_until(|| mock.running() == 1);
    gateway.signal("-TERM");
    let answer = read_answer(&mut BufReader::new(stream)).unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(gateway.ended(), Some(0));
}

#[test]
fn who_waits_for_a_turn_is_served_before_the_end() {
    let server = server(Says::Events(10, Duration::from_millis(50)));
    let plain = format!(
        "pools: [{{name: chat, endpoints: [http://{server}], saturationSeconds: 0.0001}}]\n"
    );
    let mut gateway = Gateway::plain(&plain, &[]);
    let asked = request(CHAT, &chat("llama", "hello", 100, true), &[]);
    let ask = || {
        let (address, asked) = (gateway.address, asked.clone());
        CROWD.spawn(async move { whole(sent(address, &asked).await?).await })
    };
    let first = ask();
    wait_until(|| gateway.metric("penstock_endpoint_in_flight") == 1.0);
    let second = ask();
    wait_until(|| gateway.metric("penstock_queue_requests") == 1.0);
    gateway.signal("-TERM");
    for (name, one) in [("first", first), ("second", second)] {
        assert!(CROWD.block_on(one).unwrap().is_some(), "{name}");
    }
    assert_eq!(gateway.ended(), Some(0));
}
