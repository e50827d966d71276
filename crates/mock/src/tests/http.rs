//! A small HTTP/1.1 client that shows how an answer ended, and a server to ask.
//! Written by hand on purpose: client libraries hide resets and half bodies.

use std::io::ErrorKind;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Mock, MockSpec};

/// A running mock server; ends when dropped.
pub(super) struct Served {
    pub(super) address: SocketAddr,
    cancel: CancellationToken,
    tracker: TaskTracker,
}

impl Served {
    pub(super) async fn stop(&self) {
        self.cancel.cancel();
        self.tracker.wait().await;
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// A server of the model `base`, 200 times as fast as its profile.
pub(super) fn fast() -> MockSpec {
    MockSpec {
        models: vec!["base".to_owned()],
        speed: 200.0,
        ..MockSpec::default()
    }
}

pub(super) fn mock(spec: MockSpec) -> Served {
    let mock = Mock::bind(spec).expect("bind");
    let (address, cancel, tracker) = (mock.address(), CancellationToken::new(), TaskTracker::new());
    tracker.spawn(mock.serve(cancel.clone()));
    tracker.close();
    Served {
        address,
        cancel,
        tracker,
    }
}

/// An answer, as far as it came.
#[derive(Debug)]
pub(super) struct Reply {
    /// 0 when no head came.
    pub(super) status: u16,
    pub(super) head: String,
    /// Without chunk framing.
    pub(super) body: String,
    /// The body ended where its framing says.
    pub(super) clean: bool,
    /// The connection was reset.
    pub(super) reset: bool,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn parse(bytes: &[u8], reset: bool) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, rest) = text.split_once("\r\n\r\n").unwrap_or_default();
        let head = head.to_ascii_lowercase();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        let (body, clean) = match length(&head) {
            Some(length) => (rest.to_owned(), rest.len() == length),
            None => unchunk(rest),
        };
        Self {
            status,
            head,
            body,
            clean,
            reset,
        }
    }
}

fn length(head: &str) -> Option<usize> {
    head.lines()
        .find_map(|line| line.strip_prefix("content-length: "))?
        .parse()
        .ok()
}

fn unchunk(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("chunk size");
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = tail.get(..size) else {
            return (body + tail, false);
        };
        body.push_str(chunk);
        rest = tail.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}

pub(super) fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let json = if headers.contains("content-type") {
        ""
    } else {
        "content-type: application/json\r\n"
    };
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: mock\r\n{json}{headers}content-length: {length}\r\n\r\n{body}"
    )
}

/// One client connection.
pub(super) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect");
        Self {
            stream,
            read: Vec::new(),
        }
    }

    pub(super) async fn send(&mut self, request: &str) {
        self.stream
            .write_all(request.as_bytes())
            .await
            .expect("write");
    }

    /// Reads until `text` has come.
    pub(super) async fn read_until(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.read).contains(text) {
            assert!(
                self.piece().await.expect("read") > 0,
                "ended without {text}"
            );
        }
    }

    /// Forgets what was read.
    pub(super) fn forget(&mut self) {
        self.read.clear();
    }

    /// Sends a request and reads its answer, which has a content-length; stays open.
    pub(super) async fn ask(&mut self, request: &str) -> Reply {
        self.send(request).await;
        self.read.clear();
        loop {
            let reply = Reply::parse(&self.read, false);
            if reply.status > 0 && reply.clean {
                return reply;
            }
            assert!(
                self.piece().await.expect("read") > 0,
                "ended within an answer"
            );
        }
    }

    /// Sends a request and reads until the answer or the connection ends.
    pub(super) async fn finish(mut self, request: &str) -> Reply {
        self.send(request).await;
        loop {
            let reply = Reply::parse(&self.read, false);
            if reply.status > 0 && reply.clean {
                return reply;
            }
            match self.piece().await {
                Ok(0) => return reply,
                Ok(_) => {}
                Err(error) => {
                    return Reply::parse(&self.read, error.kind() == ErrorKind::ConnectionReset);
                }
            }
        }
    }

    async fn piece(&mut self) -> std::io::Result<usize> {
        self.stream.read_buf(&mut self.read).await
    }
}

pub(super) async fn get(address: SocketAddr, path: &str) -> Reply {
    Connection::open(address)
        .await
        .finish(&request("GET", path, "", ""))
        .await
}

pub(super) async fn post(address: SocketAddr, path: &str, body: &str) -> Reply {
    Connection::open(address)
        .await
        .finish(&request("POST", path, "", body))
        .await
}

/// A chat with `fields` in place of the usual ones.
pub(super) async fn chat(address: SocketAddr, fields: Value) -> Reply {
    let mut body = json!({ "model": "base", "messages": [{ "role": "user", "content": "hello" }] });
    for (name, value) in fields.as_object().expect("fields") {
        body[name] = value.clone();
    }
    post(address, "/v1/chat/completions", &body.to_string()).await
}
