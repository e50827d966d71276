//! Privacy: what clients and engines say to each other stays between them.
//!
//! A word stands in every place where secrets stand; it may be in no log at any level, on no page of
//! the admin address, in no decision, in no file and in no answer to anybody else.

use crate::certificates::{self, Authority, handshake};
use crate::gateway::{
    Running, connect, free_address, get, penstock, post_with, read_answer, request, wait_until,
};
use crate::over2::{Http2, block, frame, raw, read_frame, soon};
use crate::picker::{By, Kept, Picker, Play};
use crate::servers::{CHAT, Open, Scripted, Server, chat, event_stream};
use crate::{external, grpc, tls};
use http::Request;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
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
        let address = free_address();
        let mut args = vec!["--listen".to_owned(), address.to_string()];
        for server in servers {
            args.extend(["--endpoint".to_owned(), format!("http://{server}")]);
        }
        Self::run(address, tempfile::tempdir().unwrap(), &args)
    }

    /// From manifests with a listener on `PORT`.
    fn manifests(text: &str) -> Self {
        let address = free_address();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("all.yaml");
        std::fs::write(&file, text.replace("PORT", &address.port().to_string())).unwrap();
        Self::run(address, folder, &[file.to_str().unwrap().to_owned()])
    }

    fn run(address: SocketAddr, folder: tempfile::TempDir, args: &[String]) -> Self {
        let admin = free_address();
        let file = |name: &str| File::create(folder.path().join(name)).unwrap();
        let log = folder.path().join("access.jsonl");
        // Whoever asks for all that there is, crate by crate, gets no more.
        let filter = "trace,h2=trace,h2::server=trace,hyper=trace,rustls=trace";
        let mut command = penstock(&["--log", filter, "run", "--workers", "2"]);
        let child = command
            .args(args)
            .args(["--admin", &admin.to_string()])
            .arg("--access-log")
            .arg(&log)
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
            "/debug/memory",
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
                // Where only TLS is spoken, nobody may be listening any more.
                let _ = stream.write_all(text.as_bytes());
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
            files.count() >= 7 + 4,
            "pages, logs and the saved decisions"
        );
        for place in ["why", "/metrics", "/debug/decisions", "/debug/pools"] {
            let found = told.iter().find(|(name, _)| name == place).unwrap();
            assert!(found.1.len() > 200, "{found:?}");
        }
        has_no_secret(&told);
        self.writes_nowhere_else();
    }

    /// The same where nothing is decided for a model.
    fn kept_quiet_without_models(&self, requests: usize) {
        wait_until(|| self.read("access.jsonl").lines().count() >= requests);
        has_no_secret(&self.told());
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

#[track_caller]
fn has_no_secret(told: &[(String, String)]) {
    for (place, text) in told {
        let found = text
            .lines()
            .find(|line| line.to_ascii_lowercase().contains(SECRET));
        assert_eq!(found, None, "in {place}");
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

/// A request over HTTP/2 with secrets in all its fields.
fn secret2(method: &str, target: &str) -> Request<()> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in FIELDS {
        request = request.header(name, value);
    }
    request.body(()).unwrap()
}

/// Frames of HTTP/2 that are no request: heads that mean nothing, and what else has room for words.
fn odd_frames() -> Vec<(&'static str, Vec<u8>)> {
    let head = |number: usize, value: &'static str| {
        let mut fields = vec![
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/v1/models?key=c4n4ry-query"),
            (":authority", "test"),
        ];
        fields[number].1 = value;
        frame(1, 5, 1, &block(&fields))
    };
    let with = |name: &'static str, value: &'static str| {
        let mut fields = crate::over2::GET.to_vec();
        fields.push((name, value));
        frame(1, 5, 1, &block(&fields))
    };
    vec![
        ("method", head(0, "c4n4ry (")),
        ("scheme", head(1, "c4n4ry c4n4ry")),
        ("path", head(2, "/v1/models?key=c4n4ry query")),
        ("relative path", head(2, "c4n4ry")),
        ("path with a control character", head(2, "/x?c4n4ry\x01")),
        ("authority", head(3, "c4n4ry@@[c4n4ry")),
        ("te", with("te", "c4n4ry")),
        ("expect", with("expect", "c4n4ry")),
        ("connection", with("connection", "c4n4ry")),
        ("length", with("content-length", "c4n4ry")),
        ("status", with(":status", "c4n4ry")),
        ("protocol", with(":protocol", "c4n4ry")),
        ("an unknown pseudo field", with(":c4n4ry", "c4n4ry")),
        ("an upper-case name", with("C4n4ry", "c4n4ry")),
        ("a control character", with("x-a", "c4n4ry\0")),
        ("two hosts", with("host", "c4n4ry")),
        ("a broken block", frame(1, 5, 1, b"\x00\x7fc4n4ry")),
        ("a ping", frame(6, 0, 0, b"c4n4ry-p")),
        ("an answer to no ping", frame(6, 1, 0, b"c4n4ry-p")),
        ("a goodbye", frame(7, 0, 0, b"\0\0\0\0\0\0\0\x01c4n4ry")),
        ("a frame of no kind", frame(77, 0, 0, b"c4n4ry")),
        ("a setting", frame(4, 0, 0, b"c4n4ry")),
    ]
}

#[test]
fn secrets_over_http_2_are_told_to_nobody_else() {
    let server = Server::llama();
    let gateway = Watched::start(&[server.address]);
    let client = Http2::connect(gateway.address);
    let target = format!("http://test{ASKED}");
    let mut requests = 0;
    for stream in [false, true] {
        let body = prompt("llama", stream);
        let open = client.begin(secret2("POST", &target), body.as_bytes());
        assert_eq!(open.open().whole().unwrap().status, 200);
        requests += 1;
    }
    for body in [prompt("none", true), "{\"c4n4ry\" 1".to_owned()] {
        let open = client.begin(secret2("POST", &target), body.as_bytes());
        assert!(open.open().whole().unwrap().status >= 400);
        requests += 1;
    }
    // One that is given up, and trailers.
    let mut begun = client.begin_unfinished(secret2("POST", &target));
    let part = prompt("llama", false).into_bytes();
    begun.send.send_data(part.into(), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-c4n4ry", "c4n4ry".parse().unwrap());
    begun.send.send_trailers(trailers).unwrap();
    assert_eq!(begun.open().whole().unwrap().status, 200);
    let begun = client.begin_unfinished(secret2("POST", &target));
    begun.reset();
    requests += 1;
    for (_, bytes) in odd_frames() {
        let mut stream = raw(gateway.address);
        stream.write_all(&bytes).unwrap();
        // So that there is an end to wait for.
        let _ = stream.write_all(&frame(6, 0, 0, b"the end."));
        let is_over =
            |(kind, flags, _, _): &(u8, u8, u32, Vec<u8>)| *kind == 7 || (*kind, *flags) == (6, 1);
        let _ = std::iter::from_fn(|| read_frame(&mut stream)).find(is_over);
    }
    gateway.kept_quiet(requests);
}

/// A server of HTTP/2 that says goodbye to every request, before or after its head, in words that
/// it took from it.
fn parting(after_head: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move |mut stream: TcpStream| {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).ok()?;
        stream.write_all(&frame(4, 0, 0, b"")).ok()?;
        let (_, _, id, _) =
            std::iter::from_fn(|| read_frame(&mut stream)).find(|(kind, ..)| *kind == 1)?;
        let mut answer = Vec::new();
        if after_head {
            // `:status: 200`, and `content-type` by its number in the table.
            let head = [&[0x88, 0x0F, 0x10, 17][..], b"text/event-stream"].concat();
            answer.extend(frame(1, 4, id, &head));
            let event = r#"{"choices":[{"index":0,"delta":{"content":"hello"}}]}"#;
            answer.extend(frame(0, 0, id, format!("data: {event}\n\n").as_bytes()));
        }
        // The last stream that counts is none; the reason: it has enough.
        let words = [&[0; 4][..], &11_u32.to_be_bytes(), b"c4n4ry"].concat();
        answer.extend(frame(7, 0, 0, &words));
        stream.write_all(&answer).ok()?;
        // What still comes is read, or the kernel would take the words back.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
        Some(())
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

#[test]
fn what_engines_say_at_the_end_of_a_connection_is_told_to_nobody() {
    for after_head in [false, true] {
        let gateway = Watched::manifests(&grpc::manifests(parting(after_head)));
        let client = Http2::connect(gateway.address);
        for _ in 0..2 {
            let asked = secret2("POST", &format!("http://test{ASKED}"));
            let begun = client.begin(asked, prompt("llama", true).as_bytes());
            let answer = begun.open().whole().unwrap();
            // Not even to who asked: others are on the connection too.
            assert!(!format!("{answer:?}").contains(SECRET), "{answer:?}");
            let (status, words) = if after_head {
                (200, "excessive load")
            } else {
                (502, "closed_early")
            };
            assert_eq!(answer.status, status, "{answer:?}");
            assert!(answer.body.contains(words), "{answer:?}");
        }
        let ended = "an http/2 connection to an endpoint ended";
        wait_until(|| gateway.read("stderr").contains(ended));
        gateway.kept_quiet_without_models(2);
    }
}

#[test]
fn secrets_over_tls_are_told_to_nobody_else() {
    let authority = Authority::new();
    let own = authority.sign(&["a.example"]);
    let text = tls::manifests(&[("a", "a.example", "a")], "") + &own.secret("a");
    let gateway = Watched::manifests(&text);
    let old = authority.client("http/1.1", None);
    let mut old = soon(handshake(old, gateway.address, "a.example")).unwrap();
    for (path, status) in [("/x?key=c4n4ry", 200), ("/x?c4n4ry#c4n4ry", 400)] {
        let answer = soon(certificates::get(&mut old, "a.example", path)).unwrap();
        assert_eq!(answer.status, status);
    }
    let (dial, address) = (authority.client("h2", None), gateway.address);
    let new = Http2::over(async move { handshake(dial, address, "a.example").await.unwrap() });
    for (host, status) in [("a.example", 200), ("c4n4ry.example", 421)] {
        let request = secret2("GET", &format!("https://{host}/x?key=c4n4ry"));
        assert_eq!(
            new.begin(request, b"").open().whole().unwrap().status,
            status
        );
    }
    // What is no handshake, one that is for nobody, and one that breaks off.
    let mut plain = connect(gateway.address);
    plain.write_all(b"GET /?c4n4ry HTTP/1.1\r\n\r\n").unwrap();
    let _ = plain.read_to_end(&mut Vec::new());
    let connector = authority.client("h2", None);
    assert!(soon(handshake(connector, gateway.address, "c4n4ry.example")).is_err());
    gateway.kept_quiet_without_models(4);
}

#[test]
fn secrets_of_grpc_are_told_to_nobody_else() {
    let (server, _) = grpc::server(100);
    let gateway = Watched::manifests(&grpc::manifests(server));
    let client = Http2::connect(gateway.address);
    let message = b"\0\0\0\0\x06c4n4ry";
    for path in ["/echo/one", "/echo/stream", "/echo/fail"] {
        let mut call = secret2("POST", &format!("http://test{path}?c4n4ry"));
        for (name, value) in grpc::call_of(path).headers() {
            call.headers_mut().insert(name, value.clone());
        }
        let metadata = "c4n4ry".parse().unwrap();
        call.headers_mut().insert("x-c4n4ry-bin", metadata);
        client.begin(call, message).open().rest().unwrap();
    }
    let mut call = secret2("POST", "http://test/echo/hang?c4n4ry");
    call.headers_mut()
        .insert("content-type", "application/grpc".parse().unwrap());
    client.begin(call, message).reset();
    gateway.kept_quiet_without_models(3);
}

#[test]
fn secrets_that_pickers_are_told_stay_with_them() {
    let picker = Picker::start(Play::Hang);
    let server = Kept::start("one");
    let manifests = external::manifests(&[picker.address], &[server.address], "");
    let gateway = Watched::manifests(&(manifests + &external::patience("2")));
    let picks = Play::Pick(server.address.to_string(), By::Both);
    let mut requests = 0;
    for (play, status) in [
        (picks.clone(), 200),
        (Play::Refuse(429, "c4n4ry"), 429),
        (Play::Fail("13"), 503),
        (picks.clone(), 200),
        (Play::Pick("c4n4ry:80".to_owned(), By::Both), 503),
        (Play::Nothing, 503),
        (picks.clone(), 200),
        (Play::Close, 503),
    ] {
        picker.plays(play.clone());
        let ask = || post_with(gateway.address, ASKED, &prompt("llama", false), &FIELDS);
        requests += 1;
        if status == 200 {
            // It may be held for broken by what was before.
            wait_until(|| ask().status == 200);
            continue;
        }
        let answer = ask();
        assert_eq!(answer.status, status, "{play:?} {answer:?}");
    }
    picker.plays(picks);
    gateway.kept_quiet_without_models(requests);
}
