//! What an open stream on which nothing happens costs in memory.
//!
//! Every stream has had its first event, so head, pick and bookkeeping are done and held; the next event
//! is an hour away. Resident memory counts what the proxy holds, not the kernel's socket buffers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;

use crate::load::Connection;
use crate::process::Memory;
use crate::wire::{Shape, Stream, Text};

const HOUR: Duration = Duration::from_secs(3600);
/// For allocators and background tasks to come to rest.
const REST: Duration = Duration::from_millis(500);

/// KiB of resident memory per open idle stream of process `pid`, which proxies `target`.
pub(crate) async fn kib_per_stream(
    target: SocketAddr,
    pid: u32,
    streams: usize,
) -> anyhow::Result<f64> {
    let shape = Shape {
        body_bytes: 1024,
        stream: Some(Stream {
            chunks: 2,
            pace: HOUR,
        }),
        text: Text::Plain,
        python_headers: false,
    };
    let host = target.to_string();
    // One stream first: what is made once for all of them is not a cost of each.
    let mut open = vec![idle_stream(target, &shape.request(&host, 0)).await?];
    sleep(REST).await;
    let before = Memory::of(pid)?;
    for seed in 1..=streams {
        let request = shape.request(&host, seed as u64);
        let stream = idle_stream(target, &request).await;
        open.push(stream.with_context(|| format!("stream {seed} of {streams}"))?);
    }
    sleep(REST).await;
    let after = Memory::of(pid)?;
    Ok((after.resident_kib as f64 - before.resident_kib as f64) / streams as f64)
}

async fn idle_stream(target: SocketAddr, request: &[u8]) -> anyhow::Result<Connection> {
    let mut connection = Connection::open(target).await?;
    connection.begin(request).await?;
    Ok(connection)
}
