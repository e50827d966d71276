//! The tools against each other over real sockets: backend, floor and load carry every kind of request,
//! and the load generator notices when an answer is not the backend's.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests may fail as loudly as tests"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_penstock-bench");

/// Ends with the test, also when it fails.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn backend() -> (Server, SocketAddr) {
    let mut command = Command::new(PROGRAM);
    let mut child = command
        .arg("backend")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line
        .trim()
        .strip_prefix("listening ")
        .unwrap()
        .parse()
        .unwrap();
    (Server(child), address)
}

fn floor(upstream: SocketAddr) -> (Server, SocketAddr) {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut command = Command::new(PROGRAM);
    command.args([
        "floor",
        "--listen",
        &address.to_string(),
        "--upstream",
        &upstream.to_string(),
    ]);
    let mut server = Server(command.spawn().unwrap());
    while TcpStream::connect(address).is_err() {
        assert!(server.0.try_wait().unwrap().is_none(), "the floor ended");
        std::thread::yield_now();
    }
    (server, address)
}

fn load(target: SocketAddr, options: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args([
        "load",
        "--connections",
        "4",
        "--target",
        &target.to_string(),
    ]);
    command.args(options).output().unwrap()
}

#[test]
fn the_floor_carries_every_kind_of_request() {
    let (_backend, upstream) = backend();
    let (_floor, address) = floor(upstream);
    for options in [
        &["--requests", "200"][..],
        &[
            "--requests",
            "50",
            "--body-bytes",
            "32768",
            "--text",
            "code",
        ],
        &["--requests", "50", "--python-headers"],
        &["--requests", "20", "--chunks", "50"],
        &["--requests", "4", "--chunks", "5", "--pace-us", "10000"],
    ] {
        let output = load(address, options);
        let said = String::from_utf8_lossy(&output.stdout);
        let expected = format!("{} good, 0 bad", options[1]);
        assert!(
            output.status.success() && said.starts_with(&expected),
            "{options:?}: {output:?}"
        );
    }
}

#[test]
fn a_wrong_answer_is_counted_as_bad() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        }
    });
    let output = load(address, &["--requests", "8"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("0 good, 8 bad"), "{said}");
}

#[test]
fn the_backend_answers_what_a_gateway_asks_on_the_side() {
    let (_backend, address) = backend();
    for (path, status, part) in [
        ("/v1/models", "200", r#""id":"bench""#),
        ("/metrics", "200", "vllm:num_requests_running{"),
        ("/health", "200", ""),
        ("/nothing", "404", ""),
    ] {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        // The backend resets what it closes; what came before that counts.
        let _ = stream.read_to_end(&mut bytes);
        let answer = String::from_utf8(bytes).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer}"
        );
        assert!(answer.contains(part), "{path}: {answer}");
    }
}
