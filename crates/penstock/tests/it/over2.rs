//! A client of HTTP/2 for tests: requests one by one, streams piece by piece, resets, and raw
//! frames for what no decent client sends.
//!
//! A thread of its own drives each connection, so that nothing waits for the test.

use crate::gateway::{Answer, DEADLINE, connect};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};
use std::future::{Future, poll_fn};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

thread_local! {
    /// Sockets belong to the runtime that made them: one for all of a test.
    static RUNTIME: tokio::runtime::Runtime = runtime();
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// Runs `future` to its end, which must come soon.
#[track_caller]
pub(crate) fn soon<T>(future: impl Future<Output = T>) -> T {
    let bounded = async { tokio::time::timeout(DEADLINE, future).await };
    RUNTIME.with(|runtime| runtime.block_on(bounded).expect("it takes too long"))
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Http2 {
    pub(crate) sender: SendRequest<Bytes>,
    /// How the connection ended.
    ended: Receiver<Result<(), h2::Error>>,
}

impl Http2 {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::over(async move {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream
        })
    }

    /// Over whatever stream `dial` gives.
    pub(crate) fn over<S>(dial: impl Future<Output = S> + Send + 'static) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (senders, sender) = channel();
        let (ends, ended) = channel();
        std::thread::spawn(move || {
            runtime().block_on(async {
                let stream = dial.await;
                let mut builder = h2::client::Builder::new();
                // One stream that is not read must not stop the others.
                builder.initial_connection_window_size(1 << 20);
                let (sender, connection) = builder.handshake(stream).await.unwrap();
                senders.send(sender).unwrap();
                let _ = ends.send(connection.await);
            });
        });
        Self {
            sender: sender.recv_timeout(DEADLINE).unwrap(),
            ended,
        }
    }

    /// Begins a request; its response comes later. The body may be of any size: what the
    /// gateway has no window for is sent when it has.
    pub(crate) fn begin(&self, request: Request<()>, body: &[u8]) -> Begun {
        let mut sender = soon(self.sender.clone().ready()).unwrap();
        let (response, mut send) = sender.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            send.send_data(Bytes::copy_from_slice(body), true).unwrap();
        }
        Begun { response, send }
    }

    /// Begins a request whose body the test sends.
    pub(crate) fn begin_unfinished(&self, request: Request<()>) -> Begun {
        let mut sender = soon(self.sender.clone().ready()).unwrap();
        let (response, send) = sender.send_request(request, false).unwrap();
        Begun { response, send }
    }

    pub(crate) fn open(&self, path: &str, body: &str) -> Open2 {
        self.begin(post(path), body.as_bytes()).open()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.open(path, body).whole().expect("a whole answer")
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        let request = Request::get(format!("http://test{path}")).body(()).unwrap();
        let open = self.begin(request, b"").open();
        open.whole().expect("a whole answer")
    }

    /// Waits for the end of the connection.
    pub(crate) fn end(&self) -> Result<(), h2::Error> {
        self.ended.recv_timeout(DEADLINE).unwrap()
    }
}

pub(crate) fn post(path: &str) -> Request<()> {
    let request = Request::post(format!("http://test{path}"));
    request
        .header("content-type", "application/json")
        .body(())
        .unwrap()
}

/// A request whose answer has not begun.
#[derive(Debug)]
pub(crate) struct Begun {
    response: h2::client::ResponseFuture,
    pub(crate) send: SendStream<Bytes>,
}

impl Begun {
    pub(crate) fn open(self) -> Open2 {
        self.answered().unwrap()
    }

    pub(crate) fn answered(self) -> Result<Open2, h2::Error> {
        let response = soon(self.response)?;
        let (parts, body) = response.into_parts();
        Ok(Open2 {
            status: parts.status.as_u16(),
            fields: parts.headers,
            ended_with_head: body.is_end_stream(),
            body,
            send: self.send,
        })
    }

    /// The status of what comes before the answer; `None` when the answer is what comes.
    pub(crate) fn informed(&mut self) -> Option<u16> {
        let told = soon(poll_fn(|cx| self.response.poll_informational(cx)));
        told.map(|told| told.unwrap().status().as_u16())
    }

    pub(crate) fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

/// A response that is read piece by piece.
#[derive(Debug)]
pub(crate) struct Open2 {
    pub(crate) status: u16,
    pub(crate) fields: HeaderMap,
    pub(crate) ended_with_head: bool,
    pub(crate) body: RecvStream,
    pub(crate) send: SendStream<Bytes>,
}

impl Open2 {
    /// The next piece; `None` at the end.
    pub(crate) fn piece(&mut self) -> Option<Result<Bytes, h2::Error>> {
        let piece = soon(poll_fn(|cx| self.body.poll_data(cx)));
        if let Some(Ok(piece)) = &piece {
            let _ = self.body.flow_control().release_capacity(piece.len());
        }
        piece
    }

    pub(crate) fn trailers(&mut self) -> Option<HeaderMap> {
        soon(poll_fn(|cx| self.body.poll_trailers(cx))).unwrap()
    }

    pub(crate) fn rest(&mut self) -> Result<Vec<u8>, h2::Error> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece() {
            body.extend_from_slice(&piece?);
        }
        Ok(body)
    }

    pub(crate) fn whole(mut self) -> Result<Answer, h2::Error> {
        let body = String::from_utf8(self.rest()?).unwrap();
        let fields = self.fields.iter();
        let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
        Ok(Answer {
            status: self.status,
            fields: fields
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            body,
        })
    }

    pub(crate) fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

/// A frame, whatever it says.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A connection on which frames are written by hand, settings exchanged.
pub(crate) fn raw(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(4, 0, 0, b"")).unwrap();
    stream
}

/// The next frame: kind, flags, stream, payload. `None` when the connection ends.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).ok()?;
    let stream_id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], head[4], stream_id, payload))
}

/// Reads until a GOAWAY; its reason. `None` if the connection just ended.
pub(crate) fn goaway(stream: &mut TcpStream) -> Option<u32> {
    let mut last = None;
    while let Some((kind, _, _, payload)) = read_frame(stream) {
        if kind == 7 {
            last = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
        }
    }
    last
}

/// A header block of these fields, none of them compressed.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        assert!(name.len() < 127 && value.len() < 127);
        block.extend_from_slice(&[0, name.len() as u8]);
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// The fields that begin a GET.
pub(crate) const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/v1/models"),
    (":authority", "test"),
];
