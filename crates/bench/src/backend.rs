//! A model server that costs next to nothing, so that the proxy in front is what a measurement shows.
//!
//! Raw HTTP/1.1 on one thread: answers are ready-made bytes (`wire`), a request is only looked at as far
//! as its length and the two headers that choose the answer. It also answers what a gateway asks a model
//! server on the side: models, metrics under vLLM's names, health, version.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet, yield_now};
use tokio::time::{Instant, sleep_until};

use crate::head::{self, Head};
use crate::say;
use crate::wire::{self, Stream};

/// No request of the load generator is longer.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// How far into the body `"stream":true` is looked for; the load generator puts it first.
const STREAM_FLAG_BYTES: usize = 256;

/// Every answer, rendered once.
#[derive(Debug)]
struct Answers {
    completion: Vec<u8>,
    stream_head: Vec<u8>,
    stream_chunk: Vec<u8>,
    stream_end: Vec<u8>,
}

/// Serves on every address until the process ends; prints `listening ADDRESS` for each.
pub(crate) async fn serve(listen: Vec<SocketAddr>) -> anyhow::Result<()> {
    let answers = Rc::new(Answers::new());
    let mut listeners = JoinSet::new();
    let local = LocalSet::new();
    for address in listen {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot bind {address}"))?;
        say(&format!("listening {}", listener.local_addr()?))?;
        listeners.spawn_local_on(accept(listener, Rc::clone(&answers)), &local);
    }
    let served = local.run_until(async { listeners.join_next().await });
    served.await.context("no address to listen on")??
}

async fn accept(listener: TcpListener, answers: Rc<Answers>) -> anyhow::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                // No TIME_WAIT on either side: thousands of streams a run would use up the ports.
                stream.set_zero_linger()?;
                connections.spawn_local(converse(stream, Rc::clone(&answers)));
            }
            // A broken connection is the other side's business; it only has to be reaped.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(mut stream: TcpStream, answers: Rc<Answers>) -> anyhow::Result<()> {
    let mut buffer = Vec::with_capacity(2048);
    loop {
        let Some(request) = read_request(&mut stream, &mut buffer).await? else {
            return Ok(());
        };
        match request {
            Request::Completion => stream.write_all(&answers.completion).await?,
            Request::Stream(shape) => answers.stream(&mut stream, shape).await?,
            Request::Side(answer) => stream.write_all(&answer).await?,
        }
    }
}

#[derive(Debug)]
enum Request {
    Completion,
    Stream(Stream),
    /// Already answered: not part of the load.
    Side(Vec<u8>),
}

/// The next request, or `None` when the other side has closed between two requests.
async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> anyhow::Result<Option<Request>> {
    loop {
        if let Some(head) = Head::find(buffer) {
            let total = head.len() + content_length(&head)?;
            if buffer.len() >= total {
                let request = understand(&head, buffer.get(head.len()..total).unwrap_or_default());
                buffer.drain(..total);
                return Ok(Some(request));
            }
        }
        if buffer.len() > REQUEST_BYTES_MAX {
            bail!("a request of more than {REQUEST_BYTES_MAX} bytes");
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() {
                Ok(None)
            } else {
                bail!("closed inside a request")
            };
        }
    }
}

fn content_length(head: &Head<'_>) -> anyhow::Result<usize> {
    if head.get("transfer-encoding").is_some() {
        bail!("chunked requests are not understood here");
    }
    head.number("content-length").map(Option::unwrap_or_default)
}

fn understand(head: &Head<'_>, body: &[u8]) -> Request {
    let line = head.first_line();
    if line.starts_with(b"POST ") {
        let start = body.get(..STREAM_FLAG_BYTES).unwrap_or(body);
        if !head::contains(start, br#""stream":true"#) {
            return Request::Completion;
        }
        let number = |name| head.number(name).ok().flatten();
        let chunks = number(wire::CHUNKS_HEADER).unwrap_or(16);
        let pace = Duration::from_micros(number(wire::PACE_HEADER).unwrap_or(0) as u64);
        return Request::Stream(Stream {
            chunks: chunks as u32,
            pace,
        });
    }
    let path = line.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    Request::Side(match path {
        b"/v1/models" => plain("200 OK", "application/json", MODELS),
        b"/metrics" => plain("200 OK", "text/plain; version=0.0.4", METRICS),
        b"/version" => plain("200 OK", "application/json", r#"{"version":"0.32.0"}"#),
        b"/health" => plain("200 OK", "text/plain", ""),
        _ => plain(
            "404 Not Found",
            "application/json",
            r#"{"detail":"Not Found"}"#,
        ),
    })
}

fn plain(status: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

impl Answers {
    fn new() -> Self {
        Self {
            completion: plain("200 OK", "application/json", wire::COMPLETION),
            stream_head: b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
                transfer-encoding: chunked\r\n\r\n"
                .to_vec(),
            stream_chunk: wire::chunk(&wire::event()).into_bytes(),
            stream_end: (wire::chunk(wire::LAST_EVENTS) + "0\r\n\r\n").into_bytes(),
        }
    }

    /// One write per event, as an engine does, in turn with all other streams. The head goes with the
    /// first event.
    async fn stream(&self, stream: &mut TcpStream, shape: Stream) -> anyhow::Result<()> {
        let first = [self.stream_head.as_slice(), &self.stream_chunk].concat();
        stream.write_all(&first).await?;
        let started = Instant::now();
        for index in 1..shape.chunks {
            if shape.pace.is_zero() {
                yield_now().await;
            } else {
                // Paced by the clock, not by the last write: a slow proxy must not slow the pace.
                pause(stream, started + shape.pace * index).await?;
            }
            stream.write_all(&self.stream_chunk).await?;
        }
        Ok(stream.write_all(&self.stream_end).await?)
    }
}

/// Sleeps, but not longer than the other side stays: an idle stream's pace is an hour.
async fn pause(stream: &mut TcpStream, until: Instant) -> anyhow::Result<()> {
    tokio::select! {
        () = sleep_until(until) => Ok(()),
        _ = stream.read_u8() => bail!("the other side left inside a stream"),
    }
}

const MODELS: &str = concat!(
    r#"{"object":"list","data":[{"id":"bench","object":"model","created":1760000000,"#,
    r#""owned_by":"vllm","root":"bench","parent":null,"max_model_len":131072}]}"#
);

/// vLLM's names, with the values of a server that has nothing to do.
const METRICS: &str = r#"# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="bench"} 0.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="bench"} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="bench"} 0.0
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="bench"} 0.0
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="bench"} 0.0
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="bench"} 0.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="bench"} 0.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="bench"} 0.0
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="65536"} 1.0
"#;
