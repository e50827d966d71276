//! Privacy: what clients and engines say to each other stays between them.
//!
//! A word stands in every place where secrets stand; it may be in no log at any level, on no page of
//! the admin address, in no decision, in no file and in no answer to anybody else.

use crate::gateway::{
    Running, connect, free_address, get, penstock, post_with, read_answer, request, wait_until,
};
use crate::servers::{CHAT, Open, Scripted, Server, chat, event_stream};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What must not be found.
const SECRET: &str = "c4n4ry";

const FIELDS: [(&str, &str); 6] = [
    ("authorization", "Bearer c4n4ry-key"),
    ("x-api-key", "c4n4ry-other-key"),
    ("cookie", "session=c4n4ry-cookie"),
    ("proxy-authorization", "Basic c4n4ry-proxy"),
    ("x-forwarded-user", "c4n4ry-user"),
    ("x-request-id", "c4n4ry unusable id"),
];

/// A path with a secret in its query.
const ASKED: &str = "/v1/chat/completions?key=c4n4ry-query";

/// A gateway that logs all it can, in a folder of its own.
#[derive(Debug)]
struct Watched {
    process: Running,
    address: SocketAddr,
    admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Watched {
    fn start(servers: &[SocketAddr]) -> Self {
        let (address, admin) = (free_address(), free_address());
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create(folder.path().join(name)).unwrap();
        let log = folder.path().join("access.jsonl");
        let mut command = penstock(&["--log", "trace", "run", "--workers", "2"]);
        command
            .args(["--listen", &address.to_string()])
            .args(["--admin", &admin.to_string()])
            .arg("--access-log")
            .arg(&log);
        for server in servers {
            command.args(["--endpoint", &format!("http://{server}")]);
        }
        let child = command
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap();
        let process = Running(child);
        wait_until(|| get(admin, "/readyz").is_some_and(|answer| answer.status == 200));
        Self {
            process,
            address,
            admin,
            folder,
        }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn why(&self, args: &[&str]) -> String {
        let admin = format!("http://{}", self.admin);
        let output = penstock(&["why", "--admin", &admin]).args(args).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    /// Everything that others than the client and the engine can read, by its place.
    fn told(&self) -> Vec<(String, String)> {
        let saved = self.folder.path().join("decisions.jsonl");
        let mut all = vec![
            ("why".to_owned(), self.why(&["last"])),
            (
                "why, JSON".to_owned(),
                self.why(&["last", "--output", "json"]),
            ),
        ];
        self.why(&["--save", saved.to_str().unwrap()]);
        for page in [
            "/",
            "/metrics",
            "/version",
            "/debug/config",
            "/debug/pools",
            "/debug/decisions",
        ] {
            let answer = get(self.admin, page).unwrap();
            assert_eq!(answer.status, 200, "{page}");
            all.push((page.to_owned(), answer.body));
        }
        let mut files = Vec::new();
        list(self.folder.path(), &mut files);
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            all.push((file.display().to_string(), text));
        }
        all.extend(self.told_to_others());
        all
    }

    /// What a client gets that has said nothing secret.
    fn told_to_others(&self) -> Vec<(String, String)> {
        let known = chat("llama", "hello", 2, false);
        let texts = [
            ("served", request(CHAT, &known, &[])),
            (
                "unknown model",
                request(CHAT, &chat("none", "hello", 2, false), &[]),
            ),
            ("no object", request(CHAT, "[]", &[])),
            ("no JSON", request(CHAT, "{\"model\" \"llama\"}", &[])),
            (
                "cut short",
                request(CHAT, "{\"model\":\"llama\",\"messages\":[", &[]),
            ),
            ("too large", too_large("")),
            (
                "no head",
                "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(),
            ),
            (
                "long head",
                format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(33 << 10)),
            ),
            (
                "models",
                "GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
            ),
        ];
        texts
            .into_iter()
            .map(|(name, text)| {
                let mut stream = connect(self.address);
                stream.write_all(text.as_bytes()).unwrap();
                let answer = read_answer(&mut BufReader::new(stream));
                (format!("another client, {name}"), format!("{answer:?}"))
            })
            .collect()
    }

    /// Looks everywhere, once `requests` are in the log.
    fn kept_quiet(&self, requests: usize) {
        // A line that is written tells that the admin address, too, logs what it is sent.
        let mut garbage = connect(self.admin);
        garbage
            .write_all(b"GET /c4n4ry?c4n4ry HTTP/7.7\r\ncookie: c4n4ry\r\n\r\n")
            .unwrap();
        let _ = garbage.read_to_end(&mut Vec::new());
        wait_until(|| self.read("access.jsonl").lines().count() >= requests);
        wait_until(|| self.read("stderr").contains("DEBUG"));
        let told = self.told();
        let files = told.iter().filter(|(place, _)| place.starts_with('/'));
        assert!(
            files.count() >= 6 + 4,
            "pages, logs and the saved decisions"
        );
        for place in ["why", "/metrics", "/debug/decisions", "/debug/pools"] {
            let found = told.iter().find(|(name, _)| name == place).unwrap();
            assert!(found.1.len() > 200, "{found:?}");
        }
        for (place, text) in told {
            let found = text
                .lines()
                .find(|line| line.to_ascii_lowercase().contains(SECRET));
            assert_eq!(found, None, "in {place}");
        }
        self.writes_nowhere_else();
    }

    /// All files that the process has open are in its folder.
    fn writes_nowhere_else(&self) {
        let Ok(open) = std::fs::read_dir(format!("/proc/{}/fd", self.process.0.id())) else {
            return;
        };
        let folder = self.folder.path().canonicalize().unwrap();
        // Whoever started the tests may have handed files down.
        let handed_down: Vec<PathBuf> = std::fs::read_dir("/proc/self/fd")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|file| std::fs::read_link(file.path()).ok())
            .collect();
        for file in open.flatten() {
            let Ok(path) = std::fs::read_link(file.path()) else {
                continue;
            };
            let is_own =
                path.is_file() && !path.starts_with("/dev") && !handed_down.contains(&path);
            assert!(!is_own || path.starts_with(&folder), "{}", path.display());
        }
    }
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(&path, files);
        } else {
            files.push(path);
        }
    }
}

fn too_large(field: &str) -> String {
    format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\n{field}content-length: 100000000\r\n\r\n")
}

fn prompt(model: &str, stream: bool) -> String {
    let body = chat(model, "my c4n4ry-prompt", 2, stream);
    let more = r#"{"user":"c4n4ry-user","metadata":{"c4n4ry-key":"c4n4ry"},"#;
    body.replacen('{', more, 1)
}

/// Requests whose bodies or heads are refused, each with the status that it gets.
fn refused() -> Vec<(String, u16)> {
    let whole = prompt("llama", false);
    let post = |body: &str| request(ASKED, body, &FIELDS);
    let get = |fields: &str| format!("GET {ASKED} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    let long = format!("x: c4n4ry{}\r\n", "a".repeat(33 << 10));
    let chunk = "transfer-encoding: chunked\r\n\r\nc4n4ry-chunk";
    vec![
        (post(&prompt("none", false)), 404),
        (post("c4n4ry"), 400),
        (post("{\"c4n4ry\" \"c4n4ry\"}"), 400),
        (post(&whole[..whole.len() - 9]), 400),
        (post(&whole.replace("\"llama\"", "[\"c4n4ry\"]")), 400),
        (post(&whole.replacen('{', "{\"model\":\"c4n4ry\",", 1)), 400),
        (too_large("authorization: Bearer c4n4ry\r\n"), 413),
        (get("authorization: Bearer c4n4ry\0\r\n"), 400),
        (get("c4n4ry (: x\r\n"), 400),
        (get("host: c4n4ry\r\n"), 400),
        (get("expect: c4n4ry\r\n"), 417),
        (get("transfer-encoding: c4n4ry\r\n"), 501),
        (get("content-length: c4n4ry\r\n"), 400),
        (get(&long), 431),
        (get(&"cookie: c4n4ry\r\n".repeat(101)), 431),
        (
            get("").replace("c4n4ry-query", &"c4n4ry".repeat(2_000)),
            414,
        ),
        (get("").replace("/v1", "http://user:c4n4ry@a/v1"), 400),
        (get("").replace("c4n4ry-query", "c4n4ry#c4n4ry"), 400),
        (get(chunk), 400),
    ]
}

#[test]
fn secrets_of_clients_are_told_to_nobody_else() {
    let servers: [Server; 2] = Server::llamas();
    let gateway = Watched::start(&servers.each_ref().map(|server| server.address));
    let ask = |stream: bool| post_with(gateway.address, ASKED, &prompt("llama", stream), &FIELDS);
    wait_until(|| ask(false).status == 200);
    assert_eq!(ask(true).status, 200);
    servers[0].fault("500:count=1");
    servers[1].fault("500:count=1");
    assert_eq!((ask(true).status, ask(false).status), (500, 200));
    for fault in [
        "reset:count=3,after=1",
        "error-event:count=3",
        "refuse:count=3",
        "truncate:count=3,after=1",
    ] {
        for server in &servers {
            server.fault(fault);
        }
        ask(true);
        for server in &servers {
            server.cure();
        }
    }
    let mut requests = 8;
    for (text, status) in refused() {
        let mut stream = connect(gateway.address);
        stream.write_all(text.as_bytes()).unwrap();
        let answer = read_answer(&mut BufReader::new(stream)).expect("an answer");
        assert_eq!(
            answer.status,
            status,
            "{:?} {answer:?}",
            text.get(..200).unwrap_or(&text)
        );
        requests += 1;
    }
    for server in &servers {
        server.slow(50.0);
    }
    let mut open = Open::post(gateway.address, &prompt("llama", true));
    open.chunk().unwrap();
    drop(open);
    let mut half = connect(gateway.address);
    let whole = request(ASKED, &prompt("llama", false), &FIELDS);
    half.write_all(&whole.as_bytes()[..whole.len() - 5])
        .unwrap();
    drop(half);
    requests += 2;
    for server in &servers {
        server.slow(1.0);
    }
    gateway.kept_quiet(requests);
}

/// An answer with a status line and fields, and its length.
fn answer(head: &str, body: &str) -> String {
    format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn what_engines_say_is_told_to_the_client_alone() {
    let event = r#"{"choices":[{"index":0,"delta":{"content":"c4n4ry"},"finish_reason":null}]}"#;
    let stream = event_stream(&[event]);
    let error = r#"{"error":{"message":"c4n4ry","type":"c4n4ry","code":500}}"#;
    let ok = "HTTP/1.1 200 OK\r\nset-cookie: c4n4ry\r\ncontent-type: application/json";
    for said in [
        answer(ok, r#"{"choices":[{"message":{"content":"c4n4ry"}}]}"#),
        answer("HTTP/1.1 500 c4n4ry\r\nx: c4n4ry", error),
        answer("HTTP/1.1 400 Bad\r\ncontent-type: c4n4ry", error),
        answer("HTTP/1.1 200 OK\r\nc4n4ry : c4n4ry", "c4n4ry"),
        "c4n4ry is no HTTP\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nc4n4ry\r\n".to_owned(),
        event_stream(&[error]),
        event_stream(&[event, "[DONE]"]),
        stream[..stream.len() - 20].to_owned(),
    ] {
        let server = Scripted::start(&[(&said, Duration::ZERO)]);
        let gateway = Watched::start(&[server.address]);
        for stream in [false, true] {
            let _ = sent_to(gateway.address, &chat("llama", "hello", 2, stream));
        }
        assert_eq!(server.received().len(), 2, "{said}");
        wait_until(|| gateway.read("access.jsonl").lines().count() >= 2);
        let told = gateway.told();
        for (place, text) in told {
            // To others the engine may say the same.
            if ["another client, served", "another client, unknown model"].contains(&place.as_str())
            {
                continue;
            }
            assert!(!text.contains(SECRET), "{said}\n in {place}: {text}");
        }
    }
}

/// Sends a request and reads what comes, whole or not.
fn sent_to(address: SocketAddr, body: &str) -> Vec<u8> {
    let mut stream = connect(address);
    let text = request(CHAT, body, &[("connection", "close")]);
    stream.write_all(text.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}
