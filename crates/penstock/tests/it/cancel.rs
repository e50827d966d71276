//! Clients that leave: the server sees it soon, and the books are empty afterwards.

use crate::gateway::{Gateway, connect, free_address, request, wait_until};
use crate::measures::{measured, percentile, promised};
use crate::over2::{Begun, Http2, Open2, block, frame, post, raw, read_frame};
use crate::servers::{CHAT, Open, Server, chat, event_stream, sent};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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

/// What a request of the matrix asks of the server that gets it, as its prompt.
mod asks {
    pub(super) const ANSWER: &str = "answer";
    pub(super) const NO_HEAD: &str = "no head";
    pub(super) const HALF: &str = "half an answer";
    pub(super) const CLOSE: &str = "close";
    pub(super) const QUEUED: &str = "queued";
}

/// One request at a server of the matrix.
#[derive(Debug, Clone)]
struct Asked {
    prompt: &'static str,
    /// When the gateway closed the connection.
    closed: Option<Instant>,
}

/// A server that does what it is asked for and then waits for the gateway to go.
#[derive(Debug)]
struct Engine {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Engine {
    fn start() -> Self {
        let listener = TcpListener::bind(free_address()).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let kept = asked.clone();
        // The thread ends with the test binary: it holds nothing but its socket.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = kept.clone();
                std::thread::spawn(move || engine(stream, &kept));
            }
        });
        Self { address, asked }
    }

    fn count(&self, prompt: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|one| one.prompt == prompt).count()
    }

    /// When the gateway left the last request with this prompt.
    fn closed(&self, prompt: &str) -> Option<Instant> {
        let asked = self.asked.lock().unwrap();
        asked.iter().rfind(|one| one.prompt == prompt)?.closed
    }
}

fn engine(mut stream: TcpStream, kept: &Mutex<Vec<Asked>>) {
    let mut buffer = [0; 16 << 10];
    let mut text = String::new();
    let known = [
        asks::ANSWER,
        asks::NO_HEAD,
        asks::HALF,
        asks::CLOSE,
        asks::QUEUED,
    ];
    let prompt = loop {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
            _ => return,
        }
        if text.starts_with("GET") {
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
            return;
        }
        let found = known
            .iter()
            .find(|one| text.contains(&format!("\"{one}\"")));
        if let Some(prompt) = found.filter(|_| text.ends_with("]}")) {
            break *prompt;
        }
    };
    let at = {
        let mut asked = kept.lock().unwrap();
        asked.push(Asked {
            prompt,
            closed: None,
        });
        asked.len() - 1
    };
    let whole = event_stream(&[EVENT, STOP, "[DONE]"]);
    let begun = event_stream(&[EVENT]);
    let answer = match prompt {
        asks::ANSWER => &whole,
        asks::HALF if text.contains("\"stream\":true") => begun.trim_end_matches("0\r\n\r\n"),
        asks::HALF => {
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
        }
        asks::CLOSE => return,
        _ => "",
    };
    if stream.write_all(answer.as_bytes()).is_ok() {
        let _ = stream.read(&mut buffer);
    }
    kept.lock().unwrap()[at].closed = Some(Instant::now());
}

const EVENT: &str = r#"{"choices":[{"index":0,"delta":{"content":"one"},"finish_reason":null}]}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

/// A client's side of a request that is left.
enum Asking {
    H1(TcpStream, Leaving),
    H2(Box<Http2>, Option<Begun>, Option<Open2>),
}

impl Asking {
    fn begin(address: SocketAddr, way: Option<Leaving>, body: &str) -> Self {
        match way {
            Some(leaving) => Self::H1(sent(address, body), leaving),
            None => {
                let client = Http2::connect(address);
                let begun = client.begin(post(CHAT), body.as_bytes());
                Self::H2(Box::new(client), Some(begun), None)
            }
        }
    }

    /// Waits for the first byte of the body.
    fn has_part(&mut self) {
        match self {
            Self::H1(stream, _) => {
                let mut text = Vec::new();
                while !text.ends_with(b"{") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    text.extend_from_slice(&byte);
                }
            }
            Self::H2(_, begun, open) => {
                let mut answer = begun.take().unwrap().open();
                answer.piece().unwrap().unwrap();
                *open = Some(answer);
            }
        }
    }

    /// Goes; what is left of the client, which must not be dropped before the server has seen it.
    fn leave(self) -> (Option<TcpStream>, Option<Box<Http2>>) {
        match self {
            Self::H1(stream, leaving) => (leave(stream, leaving), None),
            Self::H2(client, begun, open) => {
                begun.into_iter().for_each(Begun::reset);
                open.into_iter().for_each(Open2::reset);
                (None, Some(client))
            }
        }
    }
}

/// When a client of the matrix leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    InTheQueue,
    BeforeTheHead,
    AfterTheHead,
    BetweenRetries,
}

const MOMENTS: [Moment; 4] = [
    Moment::InTheQueue,
    Moment::BeforeTheHead,
    Moment::AfterTheHead,
    Moment::BetweenRetries,
];

/// Two servers that take one request each at a time.
struct Matrix {
    gateway: Gateway,
    engines: [Engine; 2],
}

impl Matrix {
    fn start() -> Self {
        let engines = [Engine::start(), Engine::start()];
        let [one, two] = engines.each_ref().map(|engine| engine.address);
        let plain = format!(
            "pools:\n  - name: chat\n    endpoints: [http://{one}, http://{two}]\n    saturationSeconds: 0.0001\n"
        );
        let gateway = Gateway::plain(&plain, &[]);
        Self { gateway, engines }
    }

    fn count(&self, prompt: &str) -> usize {
        self.engines.iter().map(|engine| engine.count(prompt)).sum()
    }

    /// Takes one of the places there are, until it is dropped.
    fn occupied(&self) -> Open {
        let body = chat("llama", asks::HALF, 9, true);
        let mut open = Open::post(self.gateway.address, &body);
        assert!(open.chunk().is_some());
        open
    }

    fn queued(&self) -> f64 {
        self.gateway.metric("penstock_queue_requests")
    }

    /// One cell: how long it took until the server, or the queue, knew.
    fn leave(&self, moment: Moment, way: Option<Leaving>, stream: bool) -> Duration {
        let (prompt, occupied) = match moment {
            Moment::InTheQueue => (asks::QUEUED, 2),
            Moment::BeforeTheHead => (asks::NO_HEAD, 0),
            Moment::AfterTheHead => (asks::HALF, 0),
            Moment::BetweenRetries => (asks::CLOSE, 1),
        };
        let held: Vec<Open> = (0..occupied).map(|_| self.occupied()).collect();
        if moment == Moment::BetweenRetries {
            // The idle server is held for good, whatever happened before.
            let body = chat("llama", asks::ANSWER, 9, true);
            let answer = crate::gateway::post(self.gateway.address, CHAT, &body);
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let before = self.count(prompt);
        let body = chat("llama", prompt, 9, stream);
        let mut asking = Asking::begin(self.gateway.address, way, &body);
        match moment {
            Moment::AfterTheHead => asking.has_part(),
            Moment::BeforeTheHead => wait_until(|| self.count(prompt) > before),
            _ => wait_until(|| self.queued() == 1.0),
        }
        let left = Instant::now();
        let rest = asking.leave();
        let taken = if occupied == 0 {
            let closed = || {
                self.engines
                    .iter()
                    .filter_map(|one| one.closed(prompt))
                    .max()
            };
            wait_until(|| closed().is_some_and(|closed| closed >= left));
            closed().unwrap() - left
        } else {
            wait_until(|| self.queued() == 0.0);
            left.elapsed()
        };
        drop((rest, held));
        wait_until(|| self.gateway.under_way().is_empty());
        // Whoever still waited would have got one of the places that came free.
        let reached = self.count(prompt) - before;
        assert_eq!(
            reached,
            usize::from(moment != Moment::InTheQueue),
            "{moment:?}"
        );
        taken
    }
}

#[test]
fn whoever_leaves_at_whatever_moment_frees_the_server_at_once() {
    let matrix = Matrix::start();
    let mut taken = Vec::new();
    for round in 0..promised(1, 40) {
        for stream in [true, false] {
            for way in WAYS.map(Some).into_iter().chain([None]) {
                for moment in MOMENTS {
                    let took = matrix.leave(moment, way, stream);
                    // Ten times what is promised.
                    assert!(
                        took < Duration::from_millis(500),
                        "{moment:?}, {way:?}, streams: {stream}, round {round}: {took:?}"
                    );
                    taken.push(took);
                }
            }
        }
    }
    // Nor has any of them come later than its cell was looked at.
    assert_eq!(matrix.count(asks::QUEUED), 0);
    measured(
        "cancel_p99_ms",
        percentile(&mut taken, 99.0).as_secs_f64() * 1e3,
    );
    let cells = (taken.len()) as f64;
    let gone = matrix
        .gateway
        .metric_with("penstock_requests_total", "client_gone");
    assert!(gone >= cells, "{gone} of {cells}");
}

/// Draws that are the same in each run (SplitMix64).
struct Draws(u64);

impl Draws {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % most as u64) as usize
    }
}

/// A request of random length.
fn some_chat(draws: &mut Draws) -> String {
    let stream = draws.below(2) == 0;
    let prompt = "word ".repeat(draws.below(200));
    chat("llama", &prompt, 1 + draws.below(8) as u32, stream)
}

/// Leaves at a random byte of the request or of the answer.
fn abort(address: SocketAddr, draws: &mut Draws) {
    let text = request(CHAT, &some_chat(draws), &[]);
    let mut client = connect(address);
    let whole = draws.below(4) > 0;
    let sent = if whole {
        text.len()
    } else {
        draws.below(text.len())
    };
    let _ = client.write_all(&text.as_bytes()[..sent]);
    if whole {
        let mut part = vec![0; draws.below(600)];
        if draws.below(2) == 0 {
            let _ = client.read(&mut part);
        }
        if draws.below(4) == 0 {
            // Begins the next one: leaves with bytes unread, so that the kernel resets.
            let _ = client.write_all(&text.as_bytes()[..1 + draws.below(50)]);
        }
    }
    if draws.below(4) == 0 {
        let _ = client.shutdown(Shutdown::Write);
        let _ = client.read(&mut [0; 64]);
    }
}

/// Waits for the head of a stream, or for a part of its body; false when the connection ends.
fn has_begun(client: &mut TcpStream, id: u32, with_body: bool) -> bool {
    loop {
        match read_frame(client) {
            Some((1, _, of, _)) if of == id && !with_body => return true,
            Some((0 | 3, _, of, _)) if of == id => return true,
            Some(_) => {}
            None => return false,
        }
    }
}

/// The same over HTTP/2: some streams of one connection, each left by a reset at a random moment,
/// then the connection at a random byte. How many were reset on a connection that went on.
fn abort2(address: SocketAddr, draws: &mut Draws) -> usize {
    const CANCEL: [u8; 4] = 8u32.to_be_bytes();
    let mut client = raw(address);
    let (streams, mut reset) = (1 + draws.below(3), 0);
    for number in 0..streams {
        let body = some_chat(draws);
        let id = 2 * number as u32 + 1;
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", CHAT),
            (":authority", "test"),
        ];
        let mut bytes = frame(1, 4, id, &block(&fields));
        // A body may end with its reset alone.
        let part = draws.below(2 * body.len()).min(body.len());
        let ends = u8::from(part == body.len());
        bytes.extend(frame(0, ends, id, &body.as_bytes()[..part]));
        let is_last = number + 1 == streams;
        if is_last && draws.below(3) == 0 {
            let end = draws.below(bytes.len());
            let _ = client.write_all(&bytes[..end]);
            return reset;
        }
        let _ = client.write_all(&bytes);
        let until = if ends == 1 { draws.below(3) } else { 0 };
        if until > 0 && !has_begun(&mut client, id, until == 2) {
            return reset;
        }
        // What is behind the reset is answered: the connection goes on.
        let mut end = frame(3, 0, id, &CANCEL);
        end.extend(frame(6, 0, 0, &u64::from(id).to_be_bytes()));
        let _ = client.write_all(&end);
        while let Some((kind, flags, ..)) = read_frame(&mut client) {
            if (kind, flags) == (6, 1) {
                reset += 1;
                break;
            }
        }
    }
    reset
}

fn open_files(gateway: &Gateway) -> usize {
    let folder = format!("/proc/{}/fd", gateway.pid());
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

fn resident_kib(gateway: &Gateway) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn random_aborts_leak_nothing() {
    let servers: [Server; 2] = Server::llamas();
    let gateway = Gateway::over(&servers.each_ref());
    gateway.knows(&["llama"]);
    servers[0].fault("slow-head:ms=5,p=0.3");
    servers[1].fault("500:p=0.2");
    let (threads, halves) = (8, 2);
    let fours = promised(2_000, 100_000).div_ceil(threads * halves * 4);
    let aborts = fours * threads * halves * 4;
    let mut kib = Vec::new();
    let reset = AtomicUsize::new(0);
    for half in 0..halves {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (address, reset) = (gateway.address, &reset);
                scope.spawn(move || {
                    let mut draws = Draws((half * threads + thread) as u64);
                    for _ in 0..fours {
                        reset.fetch_add(abort2(address, &mut draws), Relaxed);
                        (0..3).for_each(|_| abort(address, &mut draws));
                    }
                });
            }
        });
        wait_until(|| gateway.under_way().is_empty());
        kib.push(resident_kib(&gateway));
    }
    for server in &servers {
        wait_until(|| server.running() == 0);
    }
    let reset = reset.into_inner();
    measured("aborts", aborts as f64);
    measured("aborts_by_reset", reset as f64);
    assert!(reset > aborts / 8, "{reset} by a reset of a stream");
    measured(
        "aborts_memory_growth_percent",
        (kib[1] / kib[0] - 1.0) * 100.0,
    );
    assert!(kib[1] < kib[0] * 1.2, "{kib:?}");
    assert_eq!(gateway.metric("penstock_panics_total"), 0.0);
    // Its sockets, and what it keeps open to two servers and for their metrics.
    wait_until(|| open_files(&gateway) < 40);
}
