//! What the server received: a bounded ring of requests, so that a test can judge what a gateway
//! sent, on which connection, and when the server saw it end or leave.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;

/// Requests that are remembered.
const REQUESTS: usize = 1_024;
/// Bytes of a body that are kept as text.
const BODY_BYTES: usize = 4_096;

/// One request as it arrived.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Received {
    /// Counts from 1 since the start.
    pub(crate) id: u64,
    /// Which connection; counts from 1.
    pub(crate) connection: u64,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) model: Option<String>,
    pub(crate) body_bytes: usize,
    /// xxh3-64 of the body, in hex.
    pub(crate) body_xxh3: String,
    /// The first bytes of the body.
    pub(crate) body_start: String,
    /// Microseconds since the server's start.
    pub(crate) received_us: u64,
    /// When the answer was out, or the client was seen leaving.
    pub(crate) ended_us: Option<u64>,
    /// How it ended; null while it runs.
    pub(crate) end: Option<End>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum End {
    /// The whole answer was handed to the connection.
    Complete,
    /// The client left, or a fault cut the answer.
    Left,
}

#[derive(Debug, Default)]
struct Ring {
    next: u64,
    entries: VecDeque<Received>,
}

/// The ring.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    ring: Arc<Mutex<Ring>>,
    start: Instant,
}

impl Journal {
    pub(crate) fn new() -> Self {
        Self {
            ring: Arc::default(),
            start: Instant::now(),
        }
    }

    /// Remembers a request; the record notes its end, at the latest when it is dropped.
    pub(crate) fn receive(&self, connection: u64, head: &http::request::Parts) -> Record {
        let headers = head.headers.iter().map(|(name, value)| {
            (
                name.to_string(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        });
        let mut ring = self.ring.lock();
        ring.next += 1;
        let id = ring.next;
        if ring.entries.len() >= REQUESTS {
            ring.entries.pop_front();
        }
        ring.entries.push_back(Received {
            id,
            connection,
            method: head.method.to_string(),
            target: head.uri.to_string(),
            headers: headers.collect(),
            model: None,
            body_bytes: 0,
            body_xxh3: String::new(),
            body_start: String::new(),
            received_us: self.micros(),
            ended_us: None,
            end: None,
        });
        Record {
            journal: self.clone(),
            id,
            ended: false,
        }
    }

    /// All remembered requests, oldest first.
    pub(crate) fn entries(&self) -> Vec<Received> {
        self.ring.lock().entries.iter().cloned().collect()
    }

    /// Forgets all requests; ids go on.
    pub(crate) fn clear(&self) {
        self.ring.lock().entries.clear();
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Received)) {
        let mut ring = self.ring.lock();
        if let Some(entry) = ring.entries.iter_mut().rev().find(|entry| entry.id == id) {
            change(entry);
        }
    }
}

/// One running request in the journal.
#[derive(Debug)]
pub(crate) struct Record {
    journal: Journal,
    id: u64,
    ended: bool,
}

impl Record {
    pub(crate) fn body(&self, body: &[u8]) {
        let start = body.get(..body.len().min(BODY_BYTES)).unwrap_or_default();
        self.journal.change(self.id, |entry| {
            entry.body_bytes = body.len();
            entry.body_xxh3 = format!("{:016x}", twox_hash::XxHash3_64::oneshot(body));
            entry.body_start = String::from_utf8_lossy(start).into_owned();
        });
    }

    pub(crate) fn model(&self, model: &str) {
        self.journal
            .change(self.id, |entry| entry.model = Some(model.to_owned()));
    }

    /// The whole answer is out.
    pub(crate) fn complete(&mut self) {
        self.end(End::Complete);
    }

    fn end(&mut self, end: End) {
        if core::mem::replace(&mut self.ended, true) {
            return;
        }
        let now = self.journal.micros();
        self.journal.change(self.id, |entry| {
            entry.ended_us = Some(now);
            entry.end = Some(end);
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.end(End::Left);
    }
}
