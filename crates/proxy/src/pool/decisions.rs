//! The last decisions of all pools, for `penstock why` and replay: a ring bounded in bytes.
//!
//! A record is what the picker read for the decision and how the request ended; what each candidate
//! cost is computed when somebody asks. The memory of records that leave the ring is used again.
//! Failures live in a ring of their own, so that a flood of successes does not push them out.
//! Nothing of the prompt is in a record.

use parking_lot::Mutex;
use picker::Inputs;
use serde::Serialize;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes kept for requests that went well.
///
/// Small on purpose: every request writes into the ring, so a ring that leaves the processor's
/// cache costs more than the decision.
const MOST_BYTES: usize = 1 << 20;
/// Bytes kept for requests that failed.
const MOST_FAILED_BYTES: usize = 1 << 20;

/// Records that a worker keeps to be used again: as many as may leave the ring between two picks.
const MOST_SPARES: usize = 16;

thread_local! {
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is used again")]
    static SPARES: RefCell<Vec<Box<Inputs>>> = const { RefCell::new(Vec::new()) };
    static SPARE_TEXTS: RefCell<Vec<[String; 2]>> = const { RefCell::new(Vec::new()) };
}

/// Memory for the record of the next decision, if this worker has some.
pub(super) fn spare() -> Option<Box<Inputs>> {
    SPARES.with_borrow_mut(Vec::pop)
}

fn keep_spare(record: Record) {
    SPARES.with_borrow_mut(|spares| {
        if spares.len() < MOST_SPARES {
            spares.push(record.table);
        }
    });
    SPARE_TEXTS.with_borrow_mut(|spares| {
        if spares.len() < MOST_SPARES {
            spares.push([record.id, record.model]);
        }
    });
}

/// Copies of `texts` in memory that is used again.
pub(crate) fn texts(texts: [&str; 2]) -> [String; 2] {
    let mut copies = SPARE_TEXTS.with_borrow_mut(Vec::pop).unwrap_or_default();
    for (copy, text) in copies.iter_mut().zip(texts) {
        copy.clear();
        copy.push_str(text);
    }
    copies
}

/// One decision and what became of it.
#[derive(Debug, Serialize)]
pub struct Record {
    /// The number in `x-penstock-decision`.
    pub decision: u64,
    /// The request's `x-request-id`.
    pub id: String,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: i64,
    /// The pool that decided.
    pub pool: Arc<str>,
    /// The model that the client asked for.
    pub model: String,
    /// Which try of the request this was, from 1.
    pub attempt: u32,
    /// The endpoint that was chosen, as people know it.
    pub endpoint: Arc<str>,
    /// Status that the client got; 0 when this try was followed by another.
    pub status: u16,
    /// Why it failed, by the code of the failure table.
    pub error: Option<&'static str>,
    /// Time in the queue, in microseconds.
    pub queued_us: u64,
    /// From the sent request to the first token, in microseconds.
    pub first_token_us: u64,
    /// From the first byte of the request to the end of its response, in microseconds.
    pub duration_us: u64,
    /// Everything that the decision read; written as its table.
    pub table: Box<Inputs>,
}

impl Record {
    fn bytes(&self) -> usize {
        let texts = self.id.len() + self.model.len();
        std::mem::size_of::<Self>() + texts + self.table.bytes()
    }
}

#[derive(Debug, Default)]
struct Ring {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, record: Record, most: usize) {
        self.bytes += record.bytes();
        self.records.push_back(record);
        while self.bytes > most
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= oldest.bytes();
            keep_spare(oldest);
        }
    }
}

/// The rings of a process.
#[derive(Debug, Default)]
pub struct Decisions {
    fine: Mutex<Ring>,
    failed: Mutex<Ring>,
}

impl Decisions {
    pub(crate) fn push(&self, record: Record) {
        if record.error.is_some() || record.status >= 500 {
            self.failed.lock().push(record, MOST_FAILED_BYTES);
        } else {
            self.fine.lock().push(record, MOST_BYTES);
        }
    }

    /// All records that `wanted` accepts, oldest first, one JSON object a line.
    pub fn json_lines(&self, wanted: impl Fn(&Record) -> bool) -> String {
        let mut lines: Vec<(u64, u32, String)> = Vec::new();
        for ring in [&self.fine, &self.failed] {
            let ring = ring.lock();
            for record in ring.records.iter().filter(|record| wanted(record)) {
                if let Ok(line) = serde_json::to_string(record) {
                    lines.push((record.decision, record.attempt, line));
                }
            }
        }
        lines.sort_by_key(|(decision, attempt, _)| (*decision, *attempt));
        let mut out = String::new();
        for (_, _, line) in lines {
            out.push_str(&line);
            out.push('\n');
        }
        out
    }

    /// Bytes held, for the account of memory.
    pub fn bytes(&self) -> usize {
        self.fine.lock().bytes + self.failed.lock().bytes
    }
}
