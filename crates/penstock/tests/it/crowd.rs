//! Clients and servers by the hundred: tasks instead of threads, with small buffers in the kernel,
//! so that what a drill holds is held by the gateway. And what a drill needs to know of a process.

use crate::gateway::{Gateway, get};
use crate::servers::json;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;

/// A fixed order of pseudo-random numbers (SplitMix64).
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Where tasks of drills run.
pub(crate) static CROWD: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
});

/// A client's socket whose buffer and segments are small, so that the kernel keeps little for it.
fn small() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.set_tcp_mss(1000).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// A connection with a request on it.
pub(crate) async fn sent(address: SocketAddr, request: impl AsRef<[u8]>) -> Option<TcpStream> {
    let socket = TcpSocket::from_std_stream(small().into());
    let mut stream = socket.connect(address).await.ok()?;
    stream.write_all(request.as_ref()).await.ok()?;
    Some(stream)
}

/// Reads what comes, `bytes` at a time with a pause between, until `most` or the end.
pub(crate) async fn sip(stream: &mut TcpStream, bytes: usize, pause: Duration, most: usize) {
    let mut part = vec![0; bytes];
    let mut had = 0;
    while had < most {
        match stream.read(&mut part).await {
            Ok(count) if count > 0 => had += count,
            _ => return,
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// The status of an answer and the code of its error; `None` when nothing comes.
pub(crate) async fn verdict(stream: &mut TcpStream) -> Option<(u16, Option<String>)> {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        let head = text.windows(4).position(|at| at == b"\r\n\r\n");
        if let Some(head) = head {
            let head = String::from_utf8_lossy(&text[..head]).into_owned();
            let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
            if status == 200 {
                return Some((200, None));
            }
            let body = text.windows(9).any(|at| at == b"\"message\"");
            if body && text.ends_with(b"}}") {
                let text = String::from_utf8_lossy(&text).into_owned();
                let (_, body) = text.split_once("\r\n\r\n")?;
                let code = json(body)["error"]["code"].as_str().map(str::to_owned);
                return Some((status, code));
            }
        }
        match stream.read(&mut part).await {
            Ok(count) if count > 0 => text.extend_from_slice(&part[..count]),
            _ => return None,
        }
    }
}

/// How a server of a crowd answers a POST.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Says {
    /// An event stream, as fast as it is taken, without end.
    Endless,
    /// A head of 24 KiB that does not end.
    HalfAHead,
    /// The long head of an event stream, and no event.
    LongHead,
    /// Nothing at all, whatever was asked.
    Nothing,
    /// Nothing but `{}`, once the body has come.
    Little,
    /// An answer with a body of so many bytes.
    Body(usize),
    /// An event stream of so many events, so far apart, with its end mark.
    Events(u32, Duration),
    /// An event stream that goes on until the test says that it is over.
    Until(&'static AtomicBool),
}

/// A server that answers every POST so and knows nothing else.
pub(crate) fn server(says: Says) -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_send_buffer_size(64 << 10).unwrap();
    socket.set_nonblocking(true).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(4096).unwrap();
    serve_on(socket.into(), says)
}

/// A server whose connections take a few KiB, which it never reads.
pub(crate) fn deaf() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.set_tcp_mss(536).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(4096).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    address
}

fn serve_on(listener: std::net::TcpListener, says: Says) -> SocketAddr {
    let address = listener.local_addr().unwrap();
    CROWD.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn(answer(stream, says));
        }
    });
    address
}

/// Reads requests, whole, and answers them.
async fn answer(mut stream: TcpStream, says: Says) -> Option<()> {
    let _ = stream.set_nodelay(true);
    let mut text = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        let end = loop {
            if let Some(at) = text.windows(4).position(|at| at == b"\r\n\r\n") {
                break at + 4;
            }
            match stream.read(&mut part).await.ok()? {
                0 => return None,
                count => text.extend_from_slice(&part[..count]),
            }
        };
        let head = String::from_utf8_lossy(&text[..end]).into_owned();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut left = length.unwrap_or(0usize).saturating_sub(text.len() - end);
        text.clear();
        while left > 0 {
            match stream.read(&mut part).await.ok()? {
                0 => return None,
                count => left = left.saturating_sub(count),
            }
        }
        let nothing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let little =
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        if !head.starts_with("POST") {
            stream.write_all(nothing.as_bytes()).await.ok()?;
            continue;
        }
        match says {
            Says::Nothing => return given_up(&mut stream).await,
            Says::Little => stream.write_all(little.as_bytes()).await.ok()?,
            Says::Body(bytes) => stream.write_all(whole(bytes).as_bytes()).await.ok()?,
            Says::HalfAHead | Says::LongHead => {
                let field = format!("x-filler: {}\r\n", "x".repeat(1000));
                let mut head = "HTTP/1.1 200 OK\r\n".to_owned() + &field.repeat(24);
                if matches!(says, Says::LongHead) {
                    head += "content-type: text/event-stream\r\n\r\n";
                }
                stream.write_all(head.as_bytes()).await.ok()?;
                return given_up(&mut stream).await;
            }
            Says::Endless => events(&mut stream, u32::MAX, 16 << 10, Duration::ZERO).await?,
            Says::Events(count, apart) => events(&mut stream, count, 40, apart).await?,
            Says::Until(over) => until(&mut stream, over).await?,
        }
    }
}

/// Waits until the other side gives up.
async fn given_up(stream: &mut TcpStream) -> Option<()> {
    let _ = stream.read(&mut [0; 64]).await;
    None
}

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A whole answer with a body of so many bytes.
fn whole(bytes: usize) -> String {
    let body = format!("{{\"text\":\"{}\"}}", "x".repeat(bytes.saturating_sub(11)));
    let length = body.len();
    let json = "content-type: application/json";
    format!("HTTP/1.1 200 OK\r\n{json}\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// One event with so many bytes of text, as a chunk.
fn event(bytes: usize) -> String {
    let content = "x".repeat(bytes);
    let event = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{content}\"}}}}]}}\n\n"
    );
    format!("{:x}\r\n{event}\r\n", event.len())
}

/// The end of an event stream, with its mark.
fn last_chunks() -> String {
    let last = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
        data: [DONE]\n\n";
    format!("{:x}\r\n{last}\r\n0\r\n\r\n", last.len())
}

async fn events(stream: &mut TcpStream, count: u32, bytes: usize, apart: Duration) -> Option<()> {
    stream.write_all(HEAD.as_bytes()).await.ok()?;
    let event = event(bytes);
    for _ in 0..count {
        stream.write_all(event.as_bytes()).await.ok()?;
        if !apart.is_zero() {
            tokio::time::sleep(apart).await;
        }
    }
    stream.write_all(last_chunks().as_bytes()).await.ok()
}

async fn until(stream: &mut TcpStream, over: &AtomicBool) -> Option<()> {
    stream.write_all(HEAD.as_bytes()).await.ok()?;
    while !over.load(Relaxed) {
        stream.write_all(event(40).as_bytes()).await.ok()?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stream.write_all(last_chunks().as_bytes()).await.ok()
}

impl Gateway {
    /// What is resident now, in KiB, as the system says.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = format!("/proc/{}/status", self.process.0.id());
        let text = std::fs::read_to_string(status).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap().trim().strip_suffix(" kB").unwrap();
        number.trim().parse().unwrap()
    }

    /// `/debug/memory`.
    pub(crate) fn memory(&self) -> Value {
        json(&get(self.admin, "/debug/memory").unwrap().body)
    }

    /// What it holds for one use.
    pub(crate) fn holds(&self, name: &str) -> u64 {
        let memory = self.memory();
        let holders = memory["holders"].as_array().unwrap();
        let holder = holders.iter().find(|holder| holder["name"] == name);
        holder.unwrap()["bytes"].as_u64().unwrap()
    }
}
