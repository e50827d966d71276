//! `Upgrade`: after 101 the connection is the two ends' own, both ways, with back-pressure.

use crate::configured::{Configured, GATEWAY, route, service};
use crate::gateway::{connect, wait_until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// A server that grants every upgrade, greets at once, and echoes; on `/endless` it writes as much
/// as it can, on `/deaf` it reads nothing before the test says so. Counts bytes and connections that ended.
fn server() -> (SocketAddr, Arc<[AtomicUsize; 2]>) {
    let counted = Arc::<[AtomicUsize; 2]>::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let counts = counted.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counts = counts.clone();
            std::thread::spawn(move || {
                let _ = talk(stream, &counts[0]);
                counts[1].fetch_add(1, Relaxed);
            });
        }
    });
    (address, counted)
}

/// Whether the server reads on `/deaf`.
static HEARS: AtomicBool = AtomicBool::new(false);

fn talk(mut stream: TcpStream, bytes: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let lower = head.to_ascii_lowercase();
    let asks = lower.contains("upgrade: websocket") && lower.contains("connection: upgrade");
    if !asks {
        let body = head.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {body}\r\n\r\n{head}");
        return stream.write_all(answer.as_bytes());
    }
    // The greeting in one write with the head: it must not be lost.
    stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\ngreetings",
    )?;
    if head.contains("/endless") {
        loop {
            bytes.fetch_add(stream.write(&[7; 16 << 10])?, Relaxed);
        }
    }
    if head.contains("/deaf") {
        wait_until(|| HEARS.load(Relaxed));
        let mut buffer = vec![0; 64 << 10];
        loop {
            match reader.read(&mut buffer)? {
                0 => return stream.write_all(b"bye"),
                count => bytes.fetch_add(count, Relaxed),
            };
        }
    }
    let mut buffer = [0; 4096];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return stream.write_all(b"bye");
        }
        stream.write_all(&buffer[..count])?;
    }
}

fn before(server: SocketAddr) -> Configured {
    let rules = "rules: [{backendRefs: [{name: web, port: 80}]}]";
    let text = format!(
        "{GATEWAY}{}{}",
        route("web", rules),
        service("web", &[server])
    );
    Configured::start(&text)
}

/// Asks for an upgrade; the head of the answer.
fn upgraded(address: SocketAddr, path: &str, protocol: &str, ahead: &str) -> (TcpStream, String) {
    let mut stream = connect(address);
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: keep-alive, Upgrade\r\n\
        upgrade: {protocol}\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n{ahead}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap())
}

fn expect(stream: &mut TcpStream, text: &str) {
    let mut room = vec![0; text.len()];
    stream.read_exact(&mut room).unwrap();
    assert_eq!(String::from_utf8_lossy(&room), text);
}

#[test]
fn bytes_go_both_ways_until_one_side_ends() {
    let (address, counted) = server();
    let gateway = before(address);
    let (mut stream, head) = upgraded(gateway.address, "/echo", "websocket", "early");
    let lower = head.to_ascii_lowercase();
    assert!(lower.starts_with("http/1.1 101 "), "{head}");
    for line in [
        "upgrade: websocket\r\n",
        "connection: upgrade\r\n",
        "sec-websocket-accept: ",
    ] {
        assert!(lower.contains(line), "{line}: {head}");
    }
    assert!(!lower.contains("content-length"), "{head}");
    expect(&mut stream, "greetings");
    expect(&mut stream, "early");
    let large = "abcdefgh".repeat(64 << 10);
    let mut writer = stream.try_clone().unwrap();
    let sent = large.clone();
    let writing = std::thread::spawn(move || writer.write_all(sent.as_bytes()).unwrap());
    expect(&mut stream, &large);
    writing.join().unwrap();
    // Our half ends; what the server still says arrives.
    stream.shutdown(Shutdown::Write).unwrap();
    expect(&mut stream, "bye");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    wait_until(|| counted[1].load(Relaxed) == 1);
    // One that breaks off is noticed at the server.
    let (stream, _) = upgraded(gateway.address, "/endless", "websocket", "");
    drop(stream);
    wait_until(|| counted[1].load(Relaxed) == 2);
}

#[test]
fn a_client_that_does_not_read_holds_back_the_tunnel() {
    let (address, counted) = server();
    let gateway = before(address);
    let (mut stream, _) = upgraded(gateway.address, "/endless", "websocket", "");
    wait_until(|| {
        let before = counted[0].load(Relaxed);
        std::thread::sleep(Duration::from_millis(300));
        before > 0 && before == counted[0].load(Relaxed)
    });
    let held = counted[0].load(Relaxed);
    assert!(held < 24 << 20, "{held} bytes under way");
    let mut room = vec![0; 1 << 20];
    while counted[0].load(Relaxed) == held {
        stream.read_exact(&mut room).unwrap();
    }
}

#[test]
fn a_server_that_does_not_read_holds_back_the_client() {
    let (address, counted) = server();
    let gateway = before(address);
    let (mut stream, _) = upgraded(gateway.address, "/deaf", "websocket", "");
    expect(&mut stream, "greetings");
    // What sockets hold is what it may write: it stops.
    let mut sent = 0;
    stream
        .set_write_timeout(Some(Duration::from_millis(700)))
        .unwrap();
    let stopped = loop {
        match stream.write(&[7; 16 << 10]) {
            Ok(count) => sent += count,
            Err(error) => break error.kind(),
        }
        assert!(sent < 64 << 20, "it takes it all");
    };
    assert_eq!(stopped, std::io::ErrorKind::WouldBlock);
    assert!(sent < 24 << 20, "{sent} bytes under way");
    // Then it reads, and all of it comes.
    HEARS.store(true, Relaxed);
    stream.shutdown(Shutdown::Write).unwrap();
    expect(&mut stream, "bye");
    assert_eq!(counted[0].load(Relaxed), sent);
}

#[test]
fn no_other_http_is_smuggled_in() {
    let (address, _) = server();
    let gateway = before(address);
    for protocol in ["h2c", "HTTP/2.0", "TLS/1.2", "websocket, h2c"] {
        let (mut stream, head) = upgraded(gateway.address, "/echo", protocol, "");
        assert!(head.starts_with("HTTP/1.1 200 "), "{protocol}: {head}");
        let mut body = vec![0; 40];
        stream.read_exact(&mut body).unwrap();
        assert!(
            !String::from_utf8_lossy(&body)
                .to_lowercase()
                .contains("upgrade:")
        );
    }
}

#[test]
fn a_listener_that_goes_ends_its_tunnels() {
    let (address, counted) = server();
    let gateway = before(address);
    let (mut stream, _) = upgraded(gateway.address, "/echo", "websocket", "");
    expect(&mut stream, "greetings");
    gateway.signal("-TERM");
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    wait_until(|| counted[1].load(Relaxed) == 1);
}
