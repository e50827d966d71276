//! Trust: bytes with two meanings are refused, and what passes reaches a server as one request that
//! every reader reads alike.
//!
//! Each case is followed by a second request on the same connection. Of a refused case neither may
//! reach the server: that is what smuggling is.

mod cases;
mod streams;

use self::cases::Fate::{self, Answered, Ends, Passes, Refused};
use self::cases::{CHUNKS, Case, FRAMING, HEADS};
use self::streams::STREAMS;
use crate::gateway::{Answer, Gateway, connect, read_answer};
use crate::over2::{block, frame, raw, read_frame};
use crate::servers::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The request behind each case; it ends the connection.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nhost: next\r\nconnection: close\r\n\r\n";

/// A request as the server received it, byte by byte.
#[derive(Debug, Clone)]
struct Seen {
    head: String,
    body: Vec<u8>,
}

impl Seen {
    fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.head.split("\r\n").skip(1);
        let fields = fields.filter_map(|line| line.split_once(':'));
        fields
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim_matches(' '))
    }

    /// Why two readers could disagree about it.
    fn doubt(&self) -> Option<String> {
        let lines: Vec<&str> = self.head.split("\r\n").collect();
        let words = lines[0].split(' ').count();
        let broken = |line: &&&str| {
            line.chars().any(|c| c.is_control() && c != '\t')
                || line.starts_with([' ', '\t'])
                || line.split_once(':').is_none_or(|(name, _)| {
                    name.is_empty() || name.contains(|c: char| !c.is_ascii_graphic())
                })
        };
        let lengths: Vec<&str> = self.values("content-length").collect();
        let length = self.body.len().to_string();
        let is_wrong = match lengths[..] {
            [] => !self.body.is_empty(),
            [one] => one != length,
            _ => true,
        };
        let coded = self.values("transfer-encoding").count();
        let hosts = self.values("host").count();
        if words != 3 || !lines[0].ends_with(" HTTP/1.1") {
            Some(format!("request line {:?}", lines[0]))
        } else if let Some(line) = lines.iter().skip(1).find(broken) {
            Some(format!("field line {line:?}"))
        } else if is_wrong || coded > 0 || hosts != 1 {
            Some(format!(
                "lengths {lengths:?} of {length}, {coded} transfer codings, {hosts} hosts"
            ))
        } else {
            None
        }
    }
}

/// A server that keeps what it received; it takes a body for as long as its Content-Length says.
#[derive(Debug)]
struct Recorder {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let kept = seen.clone();
        // The thread ends with the test binary: it holds nothing but its socket.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = kept.clone();
                std::thread::spawn(move || record(stream, &kept));
            }
        });
        Self { address, seen }
    }

    fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn record(mut stream: TcpStream, kept: &Mutex<Vec<Seen>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if reader.read_until(b'\n', &mut head).ok()? == 0 {
                return None;
            }
        }
        head.truncate(head.len() - 4);
        let mut seen = Seen {
            head: String::from_utf8_lossy(&head).into_owned(),
            body: Vec::new(),
        };
        // The gateway's own looks at models and metrics.
        if ["/v1/models", "/metrics"].contains(&seen.target()) && seen.head.starts_with("GET") {
            stream
                .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                .ok()?;
            continue;
        }
        let length = seen.values("content-length").next();
        seen.body = vec![0; length.map_or(0, |length| length.parse().unwrap_or(0))];
        reader.read_exact(&mut seen.body).ok()?;
        kept.lock().unwrap().push(seen);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            .ok()?;
    }
}

/// All that comes back on one connection for these bytes, sent so many at a time.
fn answers(address: SocketAddr, bytes: &[u8], at_a_time: usize) -> Vec<Answer> {
    let mut stream = connect(address);
    stream.set_nodelay(true).unwrap();
    for piece in bytes.chunks(at_a_time) {
        // Refused in the middle: the rest has no reader.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let mut all = Vec::new();
    // A broken connection is no answer; what came before it counts.
    let ended = stream.read_to_end(&mut all);
    let mut rest = BufReader::new(all.as_slice());
    let mut found = Vec::new();
    while let Ok(false) = rest.fill_buf().map(<[u8]>::is_empty) {
        let answer = read_answer(&mut rest);
        let text = String::from_utf8_lossy(&all);
        assert!(
            answer.is_some(),
            "{ended:?} {text:?} to {:?}",
            String::from_utf8_lossy(bytes)
        );
        found.extend(answer);
    }
    found
}

/// What is wrong with how a case ended.
fn judge(fate: Fate, answers: &[Answer], seen: &[Seen]) -> Result<(), String> {
    let (targets, statuses): (Vec<&str>, Vec<u16>) = match fate {
        Refused(status, _) => (vec![], vec![status]),
        Passes(target, _) => (vec![target, "/next"], vec![200, 200]),
        Ends(target) => (vec![target], vec![200]),
        Answered(status) => (vec!["/next"], vec![status, 200]),
    };
    let found: Vec<&str> = seen.iter().map(Seen::target).collect();
    let told: Vec<u16> = answers.iter().map(|one| one.status).collect();
    if (&found, &told) != (&targets, &statuses) {
        return Err(format!("the server saw {found:?}, the client {answers:?}"));
    }
    if let Some(doubt) = seen.iter().find_map(Seen::doubt) {
        return Err(doubt);
    }
    match fate {
        Passes(_, body) if seen[0].body != body => Err(format!("{seen:?}")),
        Refused(_, code) => {
            let error = &json(&answers[0].body)["error"];
            let is_told = error["code"] == code
                && error["type"] == "invalid_request_error"
                && error["message"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty())
                && answers[0].field("content-type") == Some("application/json")
                && answers[0].field("connection") == Some("close")
                && answers[0].field("x-penstock-phase") == Some("request");
            is_told
                .then_some(())
                .ok_or_else(|| format!("{:?}", answers[0]))
        }
        _ => Ok(()),
    }
}

/// Sends every case to one gateway, so many bytes at a time.
fn check(cases: &[(&str, Vec<u8>, Fate)], at_a_time: usize) {
    let server = Recorder::start();
    let gateway = Gateway::before(&[server.address]);
    let mut wrong = Vec::new();
    for (name, bytes, fate) in cases {
        let bytes = [bytes.as_slice(), NEXT].concat();
        let answers = answers(gateway.address, &bytes, at_a_time);
        if let Err(why) = judge(*fate, &answers, &server.take()) {
            wrong.push(format!("{name}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    gateway.is_quiet();
}

fn table(cases: &[Case]) {
    let cases: Vec<_> = cases
        .iter()
        .map(|(name, bytes, fate)| (*name, bytes.to_vec(), *fate))
        .collect();
    for at_a_time in [usize::MAX, 1] {
        check(&cases, at_a_time);
    }
}

#[test]
fn a_body_has_one_length_or_none() {
    table(FRAMING);
}

#[test]
fn a_head_has_one_meaning_or_none() {
    table(HEADS);
}

#[test]
fn chunks_have_one_meaning_or_none() {
    table(CHUNKS);
}

/// Sends one request of HTTP/2 and waits for its end, whatever that is.
fn streamed(address: SocketAddr, fields: &[(&str, &str)], body: &[u8]) {
    let mut stream = raw(address);
    let ends = u8::from(body.is_empty());
    let mut bytes = frame(1, 4 | ends, 1, &block(fields));
    if !body.is_empty() {
        bytes.extend(frame(0, 1, 1, body));
    }
    stream.write_all(&bytes).unwrap();
    while let Some((kind, flags, id, _)) = read_frame(&mut stream) {
        // The end of the answer, a reset, or the end of the connection.
        if id == 1 && (kind == 3 || kind <= 1 && flags & 1 == 1) || kind == 7 {
            return;
        }
    }
}

#[test]
fn a_request_over_http2_has_one_meaning_or_none() {
    let server = Recorder::start();
    let gateway = Gateway::before(&[server.address]);
    let mut wrong = Vec::new();
    for (name, fields, body, passes) in STREAMS {
        streamed(gateway.address, fields, body);
        let seen = server.take();
        let steers = |one: &Seen| {
            let names = WITHHELD.split_terminator("\r\n");
            let mut names = names.map(|line| line.split(':').next().unwrap());
            names.any(|name| one.values(name).count() > 0)
        };
        let is_right = match &seen[..] {
            [] => !passes,
            [one] => {
                *passes && one.body == *body && one.target() == "/x" && !steers(one) && {
                    one.doubt().is_none()
                }
            }
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{name}: {seen:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    gateway.is_quiet();
}

#[test]
fn what_exceeds_a_limit_has_its_own_status() {
    let get = |fields: &str| format!("GET /x HTTP/1.1\r\nhost: test\r\n{fields}\r\n").into_bytes();
    let target = |bytes: usize| {
        let name = "a".repeat(bytes - 1);
        format!("GET /{name} HTTP/1.1\r\nhost: test\r\n\r\n").into_bytes()
    };
    let chunked = |rest: &str| {
        let head = "POST /x HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
        format!("{head}{rest}").into_bytes()
    };
    let long = |bytes: usize| format!("x: {}\r\n", "a".repeat(bytes));
    let large = Refused(431, "head_too_large");
    let cases = [
        ("a large field", get(&long(33 << 10)), large),
        (
            "a large field without end",
            get(&long(40 << 10))[..36 << 10].to_vec(),
            large,
        ),
        ("many large fields", get(&long(2 << 10).repeat(17)), large),
        (
            "101 fields",
            get(&"x: y\r\n".repeat(100)),
            Refused(431, "too_many_fields"),
        ),
        ("100 fields", get(&"x: y\r\n".repeat(99)), Passes("/x", b"")),
        ("31 KiB of fields", get(&long(31 << 10)), Passes("/x", b"")),
        (
            "a long target",
            target((8 << 10) + 1),
            Refused(414, "target_too_long"),
        ),
        (
            "a longer target",
            target(20 << 10),
            Refused(414, "target_too_long"),
        ),
        (
            "long trailers",
            chunked(&format!("0\r\n{}\r\n", long(4 << 10))),
            Refused(431, "trailers_too_large"),
        ),
        (
            "many trailers",
            chunked(&format!("0\r\n{}\r\n", "x: y\r\n".repeat(700))),
            Refused(431, "trailers_too_large"),
        ),
        (
            "trailers within the limit",
            chunked(&format!("0\r\n{}\r\n", long(4 << 9))),
            Passes("/x", b""),
        ),
        (
            "a long extension",
            chunked(&format!("0;{}\r\n\r\n", "a".repeat(257))),
            Refused(400, "chunk_extension_too_large"),
        ),
    ];
    for at_a_time in [usize::MAX, 1_000] {
        check(&cases, at_a_time);
    }
}

/// Fields that must not pass, in spellings that a careless filter misses.
const WITHHELD: &str = "\
X-GATEWAY-DESTINATION-ENDPOINT: 10.0.0.1:1\r\n\
x-gateway-destination-endpoint:10.0.0.1:1\r\n\
x-gateway-destination-endpoint-subset: 10.0.0.1:1\r\n\
x-gateway-destination-endpoint-served: 10.0.0.1:1\r\n\
X-Prefiller-Host-Port: 10.0.0.1:1\r\n\
x-prefiller-: 10.0.0.1:1\r\n\
Connection: X-One , close-by,, x-two\r\n\
connection:\tauthorization, content-type, content-length, host, x-three\r\n\
X-ONE: 1\r\nx-two: 2\r\nclose-by: 3\r\nx-three: 4\r\n\
Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic abc\r\n\
TE: trailers\r\nTrailer: x-prefiller-url\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";

/// Fields that must pass, although the connection lists some of them.
const KEPT: &str =
    "host: test\r\nauthorization: Bearer own\r\ncontent-type: text/plain\r\nx-four: 5\r\n";

#[test]
fn fields_that_steer_or_belong_to_the_connection_never_reach_a_server() {
    let server = Recorder::start();
    let gateway = Gateway::before(&[server.address]);
    for (framing, body) in [
        ("content-length: 5\r\n", "hello"),
        (
            "transfer-encoding: chunked\r\n",
            "5\r\nhello\r\n0\r\nx-prefiller-url: x\r\nx-gateway-destination-endpoint: x\r\n\r\n",
        ),
    ] {
        for fields in [format!("{KEPT}{WITHHELD}"), format!("{WITHHELD}{KEPT}")] {
            let text = format!("POST /x HTTP/1.1\r\n{framing}{fields}\r\n{body}");
            let answers = answers(
                gateway.address,
                &[text.as_bytes(), NEXT].concat(),
                usize::MAX,
            );
            assert_eq!(answers.len(), 2, "{answers:?}");
            let seen = server.take();
            let targets: Vec<&str> = seen.iter().map(Seen::target).collect();
            assert_eq!(targets, ["/x", "/next"]);
            assert_eq!(seen[0].doubt(), None);
            assert_eq!(seen[0].body, b"hello");
            let names: Vec<&str> = seen[0].head.split("\r\n").skip(1).collect();
            for line in WITHHELD.split_terminator("\r\n") {
                let name = line.split(':').next().unwrap();
                assert_eq!(seen[0].values(name).count(), 0, "{name}: {names:?}");
            }
            for line in KEPT.split_terminator("\r\n") {
                let (name, value) = line.split_once(": ").unwrap();
                assert!(seen[0].values(name).eq([value]), "{name}: {names:?}");
            }
        }
    }
}
