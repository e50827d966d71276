//! One GET to the admin address of a running gateway.

use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(5);
/// More than the rings of decisions can hold as JSON.
const MOST_BYTES: u64 = 256 << 20;

/// The body of `GET path`.
pub(crate) fn get(admin: &str, path: &str) -> anyhow::Result<String> {
    let host = admin
        .strip_prefix("http://")
        .unwrap_or(admin)
        .trim_end_matches('/');
    let unreachable = || {
        format!("no gateway answers on {admin}; is it running, and is --admin its admin address?")
    };
    let address = host
        .to_socket_addrs()
        .with_context(|| format!("--admin {admin}: write it as http://HOST:PORT"))?
        .next()
        .with_context(unreachable)?;
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).with_context(unreachable)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    // HTTP/1.0: the answer ends with the connection and is not chunked.
    let request = format!("GET {path} HTTP/1.0\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream
        .take(MOST_BYTES)
        .read_to_end(&mut answer)
        .with_context(unreachable)?;
    let answer = String::from_utf8(answer).context("the answer is not text")?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("{admin} did not answer with HTTP; is it the admin address?");
    };
    if head.split(' ').nth(1) != Some("200") {
        let status = head.lines().next().unwrap_or_default();
        bail!("{admin}{path} answered `{status}`; is it the admin address?");
    }
    Ok(body.to_owned())
}
