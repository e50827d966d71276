//! What tests see of the other side: simulated servers with their journals, servers that answer
//! with given bytes, gateways from plain files, and clients that read a stream piece by piece.

use crate::gateway::{
    DEADLINE, Gateway, Running, connect, free_address, get, mock, request, wait_until,
};
use serde::Deserialize;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A gateway, a route and a pool as in a cluster.
const MANIFESTS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: front}
spec:
  gatewayClassName: penstock
  infrastructure:
    parametersRef: {group: penstock.dev, kind: GatewayParameters, name: front}
  listeners: [{name: http, protocol: HTTP, port: LISTEN_PORT}]
---
apiVersion: penstock.dev/v1alpha1
kind: GatewayParameters
metadata: {name: front}
spec: {trustInferenceHeaders: TRUSTED}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: all}
spec:
  parentRefs: [{name: front}]
  rules:
    - backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: chat}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: chat}
spec:
  selector: {matchLabels: {app: llama}}
  targetPorts: [{number: POOL_PORT}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: members, labels: {app: llama}}
addressType: IPv4
endpoints: [{addresses: [127.0.0.1]}]
";

/// A simulated model server.
#[derive(Debug)]
pub(crate) struct Server {
    _process: Running,
    pub(crate) address: SocketAddr,
}

/// One request as a simulated server received it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Received {
    pub(crate) target: String,
    pub(crate) model: Option<String>,
    pub(crate) body_bytes: usize,
    pub(crate) body_xxh3: String,
    pub(crate) body_start: String,
    pub(crate) end: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Journal {
    requests: Vec<Received>,
}

impl Server {
    pub(crate) fn start(args: &[&str]) -> Self {
        let (process, address) = mock(args);
        Self {
            _process: process,
            address,
        }
    }

    /// A server of the model `llama`.
    pub(crate) fn llama() -> Self {
        Self::start(&["--model", "llama"])
    }

    pub(crate) fn llamas<const N: usize>() -> [Self; N] {
        std::array::from_fn(|_| Self::llama())
    }

    fn control(&self, method: &str, path: &str, body: &str) {
        let mut stream = connect(self.address);
        let length = body.len();
        let head = format!(
            "{method} /mock/{path} HTTP/1.1\r\nhost: mock\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let answer = crate::gateway::read_answer(&mut BufReader::new(stream)).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    pub(crate) fn fault(&self, fault: &str) {
        self.control("POST", "faults", &format!(r#"{{"fault":"{fault}"}}"#));
    }

    pub(crate) fn cure(&self) {
        self.control("DELETE", "faults", "");
    }

    /// How many times slower than at its start.
    pub(crate) fn slow(&self, factor: f64) {
        self.control("POST", "slow", &format!(r#"{{"factor":{factor}}}"#));
    }

    /// Forgets what it received.
    pub(crate) fn forget(&self) {
        self.control("DELETE", "requests", "");
    }

    /// What it received, without the gateway's own looks at models and metrics.
    pub(crate) fn received(&self) -> Vec<Received> {
        let body = get(self.address, "/mock/requests").unwrap().body;
        let mut journal: Journal = serde_json::from_str(&body).unwrap();
        journal
            .requests
            .retain(|one| !["/v1/models", "/metrics"].contains(&one.target.as_str()));
        journal.requests
    }

    pub(crate) fn count(&self) -> usize {
        self.received().len()
    }

    /// Requests that have not ended.
    pub(crate) fn running(&self) -> usize {
        self.received()
            .iter()
            .filter(|one| one.end.is_none())
            .count()
    }
}

impl Gateway {
    /// In front of these simulated servers.
    pub(crate) fn over(servers: &[&Server]) -> Self {
        let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
        Self::before(&addresses)
    }

    /// From a plain file: what follows its `listen`.
    pub(crate) fn plain(rest: &str, args: &[&str]) -> Self {
        let listen = free_address();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.yaml");
        std::fs::write(&file, format!("listen: {listen}\n{rest}")).unwrap();
        let mut all = vec![file.to_str().unwrap()];
        all.extend_from_slice(args);
        let mut gateway = Self::run(&all);
        gateway.address = listen;
        gateway.folder = Some(folder);
        gateway
    }

    /// From manifests: one pool `chat` with one member, and `more` documents that speak of it.
    pub(crate) fn manifests(server: &Server, trusted: bool, more: &str) -> Self {
        let text = MANIFESTS
            .replace("POOL_PORT", &server.address.port().to_string())
            .replace("TRUSTED", &trusted.to_string());
        Self::documents(&(text + more))
    }

    /// From documents of which one has a listener at `LISTEN_PORT`.
    pub(crate) fn documents(text: &str) -> Self {
        let listen = free_address();
        let text = text.replace("LISTEN_PORT", &listen.port().to_string());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("all.yaml"), text).unwrap();
        let mut gateway = Self::run(&[folder.path().to_str().unwrap()]);
        gateway.address = listen;
        gateway.folder = Some(folder);
        gateway
    }

    /// The sum of a metric over its labels; 0 when it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.metric_with(name, "")
    }

    /// The sum of a metric over the series whose labels contain `part`.
    pub(crate) fn metric_with(&self, name: &str, part: &str) -> f64 {
        self.accounts.metric(name, part)
    }

    /// Waits until it knows the models of all its servers.
    pub(crate) fn knows(&self, models: &[&str]) {
        wait_until(|| {
            let list = get(self.address, "/v1/models").unwrap().body;
            models
                .iter()
                .all(|model| list.contains(&format!("\"{model}\"")))
        });
    }

    /// Every number of the books that must be zero when nothing is under way, and is not.
    pub(crate) fn under_way(&self) -> Vec<(String, f64)> {
        self.accounts.under_way()
    }

    /// Nothing waits and nothing is in flight any more, and all that ended is accounted for.
    #[track_caller]
    pub(crate) fn is_quiet(&self) {
        self.accounts.is_quiet();
    }
}

/// A chat request.
pub(crate) fn chat(model: &str, content: &str, tokens: u32, stream: bool) -> String {
    format!(
        r#"{{"model":"{model}","stream":{stream},"max_tokens":{tokens},"messages":[{{"role":"user","content":"{content}"}}]}}"#
    )
}

pub(crate) const CHAT: &str = "/v1/chat/completions";

/// A response that is read piece by piece.
#[derive(Debug)]
pub(crate) struct Open {
    reader: BufReader<TcpStream>,
    pub(crate) status: u16,
}

impl Open {
    /// Sends a request and reads the head of its answer.
    pub(crate) fn post(address: SocketAddr, body: &str) -> Self {
        Self::read(sent(address, body))
    }

    pub(crate) fn read(stream: TcpStream) -> Self {
        let mut reader = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 0, "closed early");
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let status = head[0].split(' ').nth(1).unwrap().parse().unwrap();
        Self { reader, status }
    }

    /// The next chunk; `None` at the end or when the connection breaks.
    pub(crate) fn chunk(&mut self) -> Option<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line).ok()?;
        let size = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).ok()?;
        (size > 0).then(|| String::from_utf8_lossy(&chunk[..size]).into_owned())
    }

    /// The rest of the body.
    pub(crate) fn rest(&mut self) -> String {
        std::iter::from_fn(|| self.chunk()).collect()
    }
}

/// A connection with a chat request on it.
pub(crate) fn sent(address: SocketAddr, body: &str) -> TcpStream {
    let mut stream = connect(address);
    stream
        .write_all(request(CHAT, body, &[]).as_bytes())
        .unwrap();
    stream
}

/// The payloads of the events of a stream.
pub(crate) fn events(body: &str) -> Vec<&str> {
    body.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .collect()
}

pub(crate) fn json(text: &str) -> Value {
    let parsed = serde_json::from_str(text);
    assert!(parsed.is_ok(), "{parsed:?}: {text}");
    parsed.unwrap()
}

/// A server that answers every POST with the same bytes, then closes; it has no metrics and says
/// nothing about its models.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// `pieces` are written one after the other, each after its pause.
    pub(crate) fn start(pieces: &[(&str, Duration)]) -> Self {
        let listener = TcpListener::bind(free_address()).unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let pieces: Vec<(String, Duration)> = pieces
            .iter()
            .map(|(text, pause)| ((*text).to_owned(), *pause))
            .collect();
        let (pieces, kept) = (Arc::new(pieces), heads.clone());
        // The thread ends with the test binary: it holds nothing but its socket.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (pieces, heads) = (pieces.clone(), kept.clone());
                std::thread::spawn(move || answer(stream, &pieces, &heads));
            }
        });
        Self { address, heads }
    }

    /// Head and body of every POST.
    pub(crate) fn received(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, pieces: &[(String, Duration)], heads: &Mutex<Vec<String>>) {
    let _ = stream.set_read_timeout(Some(DEADLINE));
    let mut text = String::new();
    let mut buffer = [0; 65_536];
    loop {
        let Ok(count) = stream.read(&mut buffer) else {
            return;
        };
        if count == 0 {
            return;
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break;
        }
    }
    if !text.starts_with("POST") {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        return;
    }
    heads.lock().unwrap().push(text);
    for (piece, pause) in pieces {
        std::thread::sleep(*pause);
        if stream.write_all(piece.as_bytes()).is_err() {
            return;
        }
    }
}

/// An event stream as bytes on the wire: a head and one chunk for each payload.
pub(crate) fn event_stream(payloads: &[&str]) -> String {
    let mut text =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            .to_owned();
    for payload in payloads {
        let event = format!("data: {payload}\n\n");
        text.push_str(&format!("{:x}\r\n{event}\r\n", event.len()));
    }
    text + "0\r\n\r\n"
}
