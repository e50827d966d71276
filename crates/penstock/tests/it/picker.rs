//! A scripted endpoint picker behind Envoy's ext_proc protocol, written from the protocol: its own
//! protobuf, its own gRPC over the crate h2. And a model server that keeps what it received.
//!
//! What a picker does with a conversation is its [`Play`], which a test changes while it runs.

use crate::certificates::{Authority, Certificate};
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// How a picker takes part in a conversation.
#[derive(Debug, Clone)]
pub(crate) enum Play {
    /// Says nothing before it has the whole request; then this list, as header or metadata only.
    Pick(String, By),
    /// Picks when it has the head, and sends the body back as it comes, 62,000 bytes at a time.
    Early(String),
    /// Answers the client itself, once it has the head.
    Refuse(i32, &'static str),
    /// Picks; answers the client itself when it is told of the response.
    RefuseResponse(String, i32),
    /// Picks; answers the client itself while the server computes.
    Evict(String, i32),
    /// Picks; ends the conversation well after that.
    Leave(String),
    /// Picks; ends the conversation with an error after that.
    FailLater(String),
    /// Picks; never says anything to the response.
    Mute(String),
    /// An answer to the request without a destination.
    Nothing,
    /// A failure of the call.
    Fail(&'static str),
    /// A call that ends well without any answer.
    Shrug,
    /// Never answers.
    Hang,
    /// Closes the connection.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Both,
    Header,
    Metadata,
}

/// How a conversation ended on the proxy's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Well,
    Reset,
}

/// What a picker saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    pub(crate) conversations: AtomicUsize,
    pub(crate) checks: AtomicUsize,
    pub(crate) head: Mutex<Vec<(String, String)>>,
    pub(crate) body: Mutex<Vec<u8>>,
    pub(crate) served: Mutex<Vec<String>>,
    pub(crate) subset: Mutex<Vec<String>>,
    pub(crate) response: Mutex<Vec<(String, String)>>,
    pub(crate) trailers: Mutex<Vec<(String, String)>>,
    pub(crate) ends: Mutex<Vec<End>>,
    pub(crate) first: Mutex<Vec<u8>>,
    /// How the last conversation came: `clear`, `tls`, or the name that was asked for.
    pub(crate) by: Mutex<String>,
}

/// A running picker; its thread ends with the test process.
#[derive(Debug, Clone)]
pub(crate) struct Picker {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    play: Arc<Mutex<Play>>,
    health: Arc<AtomicBool>,
}

impl Picker {
    /// Behind TLS with a certificate that it signed itself, as pickers do.
    pub(crate) fn start(play: Play) -> Self {
        let authority = Authority::new();
        let own = authority.sign(&["picker"]);
        Self::over(play, Some(authority.server(&own, "h2", false)), false)
    }

    /// Behind TLS that can be verified.
    pub(crate) fn proving(play: Play, authority: &Authority, own: &Certificate) -> Self {
        Self::over(play, Some(authority.server(own, "h2", false)), false)
    }

    /// Behind TLS that can be verified, or in the clear: as each connection begins.
    pub(crate) fn either(play: Play, authority: &Authority, own: &Certificate) -> Self {
        Self::over(play, Some(authority.server(own, "h2", false)), true)
    }

    pub(crate) fn plain(play: Play) -> Self {
        Self::over(play, None, true)
    }

    fn over(play: Play, acceptor: Option<TlsAcceptor>, takes_clear: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let picker = Self {
            address,
            seen: Arc::default(),
            play: Arc::new(Mutex::new(play)),
            health: Arc::new(AtomicBool::new(true)),
        };
        let own = picker.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            tokio::task::LocalSet::new()
                .block_on(&runtime, own.accept(listener, acceptor, takes_clear));
        });
        picker
    }

    pub(crate) fn plays(&self, play: Play) {
        *self.play.lock().unwrap() = play;
    }

    /// What it answers to health checks from now on.
    pub(crate) fn serves(&self, serves: bool) {
        self.health.store(serves, SeqCst);
    }

    pub(crate) fn conversations(&self) -> usize {
        self.seen.conversations.load(SeqCst)
    }

    async fn accept(self, listener: TcpListener, acceptor: Option<TlsAcceptor>, takes_clear: bool) {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (own, acceptor) = (self.clone(), acceptor.clone());
            tokio::task::spawn_local(async move {
                let is_clear = takes_clear && !begins_tls(&stream).await;
                match acceptor.filter(|_| !is_clear) {
                    None => own.connection(stream, "clear").await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            let name = stream.get_ref().1.server_name().unwrap_or("tls").to_owned();
                            own.connection(stream, &name).await;
                        }
                    }
                }
            });
        }
    }

    async fn connection(self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static, by: &str) {
        let Ok(mut connection) = h2::server::handshake(stream).await else {
            return;
        };
        self.seen.connections.fetch_add(1, SeqCst);
        while let Some(Ok((request, answer))) = connection.accept().await {
            if request.uri().path() == "/grpc.health.v1.Health/Check" {
                self.seen.checks.fetch_add(1, SeqCst);
                let status = if self.health.load(SeqCst) { 1 } else { 2 };
                let mut call = Call::open(request, answer);
                call.send(&number(1, status));
                call.end("0");
                continue;
            }
            self.seen.conversations.fetch_add(1, SeqCst);
            by.clone_into(&mut self.seen.by.lock().unwrap());
            let play = self.play.lock().unwrap().clone();
            if matches!(play, Play::Close) {
                return;
            }
            let call = Call::open(request, answer);
            tokio::task::spawn_local(converse(self.seen.clone(), play, call));
        }
    }
}

/// Whether what comes first on a connection is a handshake.
pub(crate) async fn begins_tls(stream: &tokio::net::TcpStream) -> bool {
    let mut first = [0];
    stream.peek(&mut first).await.is_ok() && first == [0x16]
}

/// One call of gRPC.
struct Call {
    incoming: RecvStream,
    held: BytesMut,
    send: SendStream<Bytes>,
}

impl Call {
    fn open(request: Request<RecvStream>, mut answer: SendResponse<Bytes>) -> Self {
        let head = Response::builder().header("content-type", "application/grpc");
        let send = answer.send_response(head.body(()).unwrap(), false).unwrap();
        Self {
            incoming: request.into_body(),
            held: BytesMut::new(),
            send,
        }
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, h2::Error> {
        loop {
            if self.held.len() >= 5 {
                let length = u32::from_be_bytes(self.held[1..5].try_into().unwrap()) as usize;
                if self.held.len() >= 5 + length {
                    let _ = self.held.split_to(5);
                    return Ok(Some(self.held.split_to(length).freeze()));
                }
            }
            match self.incoming.data().await {
                None => return Ok(None),
                Some(part) => {
                    let part = part?;
                    let _ = self.incoming.flow_control().release_capacity(part.len());
                    self.held.extend_from_slice(&part);
                }
            }
        }
    }

    fn send(&mut self, message: &[u8]) {
        let mut frame = vec![0];
        frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frame.extend_from_slice(message);
        let _ = self.send.send_data(frame.into(), false);
    }

    fn end(&mut self, status: &str) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_str(status).unwrap());
        trailers.insert("grpc-message", HeaderValue::from_static("said so"));
        let _ = self.send.send_trailers(trailers);
    }
}

async fn converse(seen: Arc<Seen>, play: Play, mut call: Call) {
    let mut is_over = false;
    let end = loop {
        match call.receive().await {
            Err(_) => break End::Reset,
            Ok(None) => break End::Well,
            Ok(Some(message)) if !is_over => is_over = turn(&seen, &play, &mut call, &message),
            Ok(Some(_)) => {}
        }
    };
    seen.ends.lock().unwrap().push(end);
    if !is_over {
        call.end("0");
    }
}

/// One message; true when the picker has ended the conversation.
fn turn(seen: &Seen, play: &Play, call: &mut Call, message: &[u8]) -> bool {
    let all = fields(message);
    let find = |wanted: u64| all.iter().find(|(number, _)| *number == wanted);
    if let Some((_, config)) = find(11) {
        *seen.first.lock().unwrap() = config.clone();
    }
    let metadata = find(8).map(|(_, metadata)| metadata.as_slice());
    if let Some((_, headers)) = find(2) {
        *seen.head.lock().unwrap() = header_map(headers);
        seen.body.lock().unwrap().clear();
        *seen.subset.lock().unwrap() = metadata.map(texts).unwrap_or_default();
        return on_head(play, call, value(headers, 3) == Some(1));
    }
    if let Some((_, body)) = find(4) {
        let part = inside(body, 1);
        seen.body.lock().unwrap().extend_from_slice(&part);
        let is_last = value(body, 2) == Some(1);
        if matches!(play, Play::Early(_)) {
            for piece in part.chunks(62_000) {
                let streamed = [bytes(1, piece), number(2, u64::from(is_last))].concat();
                let common = bytes(3, &bytes(3, &streamed));
                call.send(&bytes(3, &bytes(1, &common)));
            }
        }
        return is_last && on_end(play, call);
    }
    if let Some((_, headers)) = find(3) {
        *seen.response.lock().unwrap() = header_map(headers);
        let served = metadata.map(texts).unwrap_or_default();
        seen.served.lock().unwrap().push(served.join(" "));
        return on_response(play, call, &served);
    }
    if let Some((_, trailers)) = find(7) {
        // Never answered, as the reference picker does.
        *seen.trailers.lock().unwrap() = header_map(trailers);
    }
    false
}

fn on_head(play: &Play, call: &mut Call, is_whole: bool) -> bool {
    match play {
        Play::Early(list) => call.send(&pick(list, By::Both)),
        Play::Refuse(status, text) => {
            call.send(&immediate(*status, text));
            call.end("0");
            return true;
        }
        Play::Fail(status) => {
            call.end(status);
            return true;
        }
        Play::Shrug => {
            call.end("0");
            return true;
        }
        _ if is_whole => return on_end(play, call),
        _ => {}
    }
    false
}

fn on_end(play: &Play, call: &mut Call) -> bool {
    match play {
        Play::Pick(list, by) => call.send(&pick(list, *by)),
        Play::RefuseResponse(list, _) | Play::Mute(list) => call.send(&pick(list, By::Both)),
        Play::Evict(list, status) => {
            call.send(&pick(list, By::Both));
            call.send(&immediate(*status, "evicted"));
        }
        Play::Leave(list) => {
            call.send(&pick(list, By::Both));
            call.end("0");
            return true;
        }
        Play::FailLater(list) => {
            call.send(&pick(list, By::Both));
            call.end("13");
            return true;
        }
        Play::Nothing => call.send(&bytes(1, &bytes(1, &number(5, 1)))),
        _ => {}
    }
    // To the body: nothing that changes it.
    if !matches!(play, Play::Hang | Play::Early(_)) {
        call.send(&bytes(3, &bytes(1, b"")));
    }
    false
}

fn on_response(play: &Play, call: &mut Call, served: &[String]) -> bool {
    match play {
        Play::RefuseResponse(_, status) => {
            call.send(&immediate(*status, "not this one"));
            call.end("0");
            return true;
        }
        Play::Mute(_) => {}
        _ => {
            let set = set_header("x-picker-served", &served.join(" "));
            call.send(&bytes(2, &bytes(1, &bytes(2, &set))));
        }
    }
    false
}

/// An answer to the request's head: this destination, and a field for the server.
fn pick(list: &str, by: By) -> Vec<u8> {
    let mut mutation = set_header("x-from-picker", "yes");
    if by != By::Metadata {
        mutation.extend(set_header("x-gateway-destination-endpoint", list));
    }
    let mut common = bytes(2, &mutation);
    common.extend(number(5, 1));
    let mut response = bytes(1, &bytes(1, &common));
    if by != By::Header {
        let text = bytes(3, list.as_bytes());
        let inner = entry("x-gateway-destination-endpoint", &text);
        let outer = entry("envoy.lb", &bytes(5, &inner));
        response.extend(bytes(8, &outer));
    }
    response
}

fn immediate(status: i32, text: &str) -> Vec<u8> {
    let response = [
        bytes(1, &number(1, status as u64)),
        bytes(2, &set_header("x-why", "picker")),
        bytes(3, text.as_bytes()),
    ];
    bytes(7, &response.concat())
}

fn set_header(name: &str, text: &str) -> Vec<u8> {
    let header = [bytes(1, name.as_bytes()), bytes(3, text.as_bytes())].concat();
    bytes(1, &bytes(1, &header))
}

/// An entry of a map of a `google.protobuf.Struct`.
fn entry(key: &str, value: &[u8]) -> Vec<u8> {
    bytes(1, &[bytes(1, key.as_bytes()), bytes(2, value)].concat())
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn bytes(field: u64, inside: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3 | 2, &mut out);
    varint(inside.len() as u64, &mut out);
    out.extend_from_slice(inside);
    out
}

fn number(field: u64, number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3, &mut out);
    varint(number, &mut out);
    out
}

/// Fields of a message: numbers as eight bytes.
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn take(message: &mut &[u8]) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = message[0];
            *message = &message[1..];
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return number;
            }
        }
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let key = take(&mut message);
        if key & 7 == 2 {
            let length = take(&mut message) as usize;
            found.push((key >> 3, message[..length].to_vec()));
            message = &message[length..];
        } else {
            assert_eq!(key & 7, 0, "no message of this protocol");
            found.push((key >> 3, take(&mut message).to_be_bytes().to_vec()));
        }
    }
    found
}

fn inside(message: &[u8], wanted: u64) -> Vec<u8> {
    let mut all = fields(message).into_iter();
    all.find(|(number, _)| *number == wanted)
        .map_or(Vec::new(), |(_, inside)| inside)
}

fn value(message: &[u8], wanted: u64) -> Option<u64> {
    let bytes = inside(message, wanted);
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Names and values of a message that has a header map as its first field.
fn header_map(message: &[u8]) -> Vec<(String, String)> {
    let map = fields(&inside(message, 1));
    map.iter()
        .map(|(_, one)| (text(inside(one, 1)), text(inside(one, 3))))
        .collect()
}

/// All texts in metadata: of values and of lists of values.
fn texts(metadata: &[u8]) -> Vec<String> {
    let of_namespace = inside(&inside(&inside(metadata, 1), 2), 1);
    let value = inside(&of_namespace, 2);
    match fields(&value).first() {
        Some((3, found)) => vec![text(found.clone())],
        Some((6, list)) => fields(list)
            .iter()
            .map(|(_, one)| text(inside(one, 3)))
            .collect(),
        other => unreachable!("{other:?}"),
    }
}

/// A model server that keeps the last body and head that it received, and answers with its name.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) address: SocketAddr,
    /// Connections that it took, whatever came on them.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Requests but for looks at metrics and models.
    pub(crate) requests: Arc<AtomicUsize>,
    pub(crate) body: Arc<Mutex<Vec<u8>>>,
    pub(crate) head: Arc<Mutex<String>>,
}

impl Kept {
    pub(crate) fn start(name: &'static str) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), name)
    }

    pub(crate) fn start_on(listener: TcpListener, name: &'static str) -> Self {
        let kept = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
            body: Arc::default(),
            head: Arc::default(),
        };
        let own = kept.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                own.connections.fetch_add(1, SeqCst);
                let own = own.clone();
                std::thread::spawn(move || own.serve(name, stream));
            }
        });
        kept
    }

    fn serve(&self, name: &str, mut stream: std::net::TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).ok()? == 0 {
                    return None;
                }
            }
            if head.starts_with("GET /metrics") || head.starts_with("GET /v1/models") {
                let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).ok()?;
                continue;
            }
            let lower = head.to_ascii_lowercase();
            let length = lower
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            reader.read_exact(&mut body).ok()?;
            (*self.head.lock().unwrap(), *self.body.lock().unwrap()) = (head.clone(), body);
            self.requests.fetch_add(1, SeqCst);
            if head.contains("/hang") {
                let _ = reader.read(&mut [0]);
                return None;
            }
            let (length, rest) = if head.contains("/cut") {
                (name.len() + 100, false)
            } else {
                (name.len(), true)
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{name}"
            );
            stream.write_all(answer.as_bytes()).ok()?;
            if !rest {
                return None;
            }
        }
    }
}
