//! Sends one request of the doctor and says which hop failed, with the remedy.

use super::plan::Request;
use super::secure;
use serde::Serialize;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tokio::time::Instant;

/// What one request showed.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// Listener, host, route and request.
    pub(super) what: String,
    /// Where it failed; nothing when it did not.
    pub(super) hop: Option<&'static str>,
    pub(super) skipped: bool,
    /// What was seen.
    pub(super) said: String,
    /// What to do about it.
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn failed(what: String, hop: &'static str, said: String, remedy: &str) -> Self {
        Self {
            what,
            hop: Some(hop),
            skipped: false,
            said,
            remedy: Some(remedy.to_owned()),
        }
    }

    pub(super) fn skipped(what: String, why: &str) -> Self {
        Self {
            what,
            hop: None,
            skipped: true,
            said: why.to_owned(),
            remedy: None,
        }
    }
}

/// Codes of the gateway's errors: the hop that failed, and what to do.
const REMEDIES: &[(&str, &str, &str)] = &[
    (
        "no_route",
        "route",
        "another rule or listener takes this request: `penstock check` lists routes",
    ),
    (
        "no_backend",
        "route",
        "give one of the rule's backendRefs a weight above zero",
    ),
    (
        "invalid_backend",
        "route",
        "the backendRef or a filter cannot be used: see the route's status in `penstock check`",
    ),
    (
        "model_not_found",
        "model",
        "start a server with this model, or declare it: `GET /v1/models` lists all",
    ),
    (
        "no_endpoints",
        "pool",
        "the pool has no members: check its selector and target ports, and that Pods are ready",
    ),
    (
        "saturated",
        "pool",
        "the pool has too much to do: add servers",
    ),
    (
        "queue_full",
        "pool",
        "the pool has too much to do: add servers",
    ),
    (
        "queue_timeout",
        "pool",
        "the pool has too much to do: add servers",
    ),
    (
        "request_timeout",
        "endpoint",
        "the route's `timeouts.request` is too short, or the server too slow",
    ),
    (
        "connect_failed",
        "endpoint",
        "is the server running, and are address and port right?",
    ),
    (
        "closed_early",
        "endpoint",
        "the server closes connections: does it speak HTTP without TLS on this port?",
    ),
    (
        "reset",
        "endpoint",
        "the server breaks off: look at its log",
    ),
    (
        "bad_response",
        "endpoint",
        "what listens there does not speak HTTP/1.1: is it the right port?",
    ),
    (
        "response_timeout",
        "endpoint",
        "the server takes the request and does not answer: look at its log",
    ),
    (
        "engine_error",
        "endpoint",
        "the server answers with an error: look at its log",
    ),
];

/// Most bytes of an answer that are looked at.
const MOST_BYTES: u64 = 1 << 20;

/// Sends it and judges the answer.
pub(super) fn send(request: &Request, timeout: Duration) -> Finding {
    let what = request.what.clone();
    let begun = Instant::now();
    let connected = TcpStream::connect_timeout(&request.address, timeout);
    let stream = match connected.and_then(|stream| limited(stream, timeout)) {
        Ok(stream) => stream,
        Err(error) => {
            let said = format!("nothing listens there: {error}");
            let remedy =
                "is the port bound (see the listener's status), and may this machine reach it?";
            return Finding::failed(what, "listener", said, remedy);
        }
    };
    let answer = match &request.tls_host {
        None => answered(stream, &request.text),
        Some(host) => match secure::connect(stream, host) {
            Ok(stream) => answered(stream, &request.text),
            Err(error) => {
                let said = format!("no TLS for {host}: {error}");
                let remedy = "has the listener a certificate for this host (certificateRefs)?";
                return Finding::failed(what, "listener", said, remedy);
            }
        },
    };
    match answer {
        Ok(answer) => judge(what, &answer, begun.elapsed()),
        Err(error) => {
            let said = format!("no answer within {timeout:?}: {error}");
            let remedy =
                "is it a penstock that listens there? `--timeout` waits longer for slow servers";
            Finding::failed(what, "listener", said, remedy)
        }
    }
}

fn limited(stream: TcpStream, timeout: Duration) -> std::io::Result<TcpStream> {
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

fn answered(mut stream: impl Read + Write, text: &str) -> std::io::Result<String> {
    stream.write_all(text.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES).read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn judge(what: String, answer: &str, taken: Duration) -> Finding {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    let status: u16 = status.unwrap_or(0);
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known
                .eq_ignore_ascii_case(name)
                .then(|| value.trim().to_owned())
        })
    };
    let by = field("x-penstock-endpoint").map_or(String::new(), |name| format!(" by {name}"));
    if field("x-penstock-phase").is_some() {
        let error: Value = serde_json::from_str(body).unwrap_or_default();
        let error = error.get("error").unwrap_or(&Value::Null);
        let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
        let said = format!("{status} {}{by}: {}", text("code"), text("message"));
        let known = REMEDIES.iter().find(|(code, _, _)| *code == text("code"));
        let (hop, remedy) = known.map_or(("route", "see docs/errors.md"), |(_, hop, remedy)| {
            (*hop, *remedy)
        });
        return Finding::failed(what, hop, said, remedy);
    }
    let said = format!("{status}{by} in {} ms", taken.as_millis());
    match status {
        0 => Finding::failed(
            what,
            "listener",
            "no HTTP".to_owned(),
            "is it a penstock that listens there?",
        ),
        500.. => Finding::failed(
            what,
            "endpoint",
            said,
            "the server answers with an error: look at its log",
        ),
        _ => Finding {
            what,
            hop: None,
            skipped: false,
            said,
            remedy: None,
        },
    }
}
