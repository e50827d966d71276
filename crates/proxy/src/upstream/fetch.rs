//! One small request over a connection that is kept: for scrapes, model lists and probes, off the
//! request path.

use crate::pool::{Endpoint, Tls};
use crate::socket::Socket;
use crate::upstream;
use http1::{BodyReader, Limits, Parsed, ResponseHead};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A client for one endpoint. Not for requests of users: no streaming, bodies are bounded.
#[derive(Debug)]
pub(crate) struct Fetcher {
    endpoint: Arc<Endpoint>,
    kept: Option<Socket>,
    received: Vec<u8>,
    body: Vec<u8>,
}

impl Fetcher {
    pub(crate) fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            kept: None,
            received: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Status and body of `GET path`, all within `deadline`. A kept connection that turns out to
    /// be closed is replaced once.
    ///
    /// # Errors
    /// Connect and read errors, a response that HTTP/1.1 forbids, a body over `most` bytes, and
    /// `TimedOut`.
    pub(crate) async fn get(
        &mut self,
        path: &str,
        most: usize,
        deadline: Duration,
    ) -> io::Result<(u16, &[u8])> {
        let kept = self.kept.is_some();
        let request = format!("GET {path} {}\r\n", self.fields());
        let first = self.bounded(&request, most, deadline).await;
        let status = match first {
            Err(error) if kept && error.kind() != io::ErrorKind::TimedOut => {
                self.bounded(&request, most, deadline).await?
            }
            other => other?,
        };
        Ok((status, &self.body))
    }

    /// Status and body of `POST path` with `json`, all within `deadline`, tried once.
    ///
    /// # Errors
    /// As for [`Fetcher::get`].
    pub(crate) async fn post(
        &mut self,
        path: &str,
        json: &str,
        most: usize,
        deadline: Duration,
    ) -> io::Result<(u16, &[u8])> {
        let (fields, length) = (self.fields(), json.len());
        let request = format!(
            "POST {path} {fields}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{json}"
        );
        let status = self.bounded(&request, most, deadline).await?;
        Ok((status, &self.body))
    }

    fn fields(&self) -> String {
        let host = self.endpoint.address;
        format!("HTTP/1.1\r\nhost: {host}\r\nuser-agent: penstock\r\naccept: */*\r\n")
    }

    async fn bounded(&mut self, request: &str, most: usize, deadline: Duration) -> io::Result<u16> {
        match tokio::time::timeout(deadline, self.attempt(request, most)).await {
            Ok(done) => done,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
        }
    }

    async fn connect(&self) -> io::Result<Socket> {
        let stream = upstream::connect(&self.endpoint).await?;
        match &self.endpoint.transport.tls {
            Tls::None => Ok(Socket::Tcp(stream)),
            Tls::Connect(tls) => Box::pin(tls.connect(stream)).await,
            Tls::Unusable(why) => Err(io::Error::other(why.to_string())),
        }
    }

    async fn attempt(&mut self, request: &str, most: usize) -> io::Result<u16> {
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        self.received.clear();
        self.body.clear();
        let limits = Limits::default();
        let mut head = ResponseHead::new();
        let head_bytes = loop {
            if stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match head
                .parse(&self.received, false, &limits)
                .map_err(invalid)?
            {
                Parsed::Complete { head_bytes } if head.status() < 200 => {
                    self.received.drain(..head_bytes);
                }
                Parsed::Complete { head_bytes } => break head_bytes,
                Parsed::Incomplete => {}
            }
        };
        self.received.drain(..head_bytes);
        let mut reader = BodyReader::new(head.framing(), &limits);
        let mut extra = false;
        loop {
            let body = &mut self.body;
            let used = reader
                .feed(&self.received, |part| body.extend_from_slice(part))
                .map_err(invalid)?;
            extra |= used < self.received.len();
            self.received.clear();
            if self.body.len() > most {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the body is too large",
                ));
            }
            if reader.is_done() {
                break;
            }
            if stream.read_buf(&mut self.received).await? == 0 {
                if reader.ends_at_close() {
                    return Ok(head.status());
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if head.keep_alive() && !extra {
            self.kept = Some(stream);
        }
        Ok(head.status())
    }
}

fn invalid(refusal: http1::Refusal) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, refusal.to_string())
}
