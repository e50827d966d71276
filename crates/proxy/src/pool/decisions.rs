//! The last decisions of all pools, for `penstock why` and replay: a ring bounded in bytes.
//!
//! A record is what the picker read for the decision and how the request ended; what each candidate
//! cost is computed when somebody asks. Failures live in a ring of their own, so that a flood of
//! successes does not push them out. Nothing of the prompt is in a record.
//!
//! Every request writes a record, over memory that was touched last long ago. So a ring is a few
//! long tapes that are written from one end to the other, which the processor sees coming, and no
//! record has memory of its own.

mod tape;

use parking_lot::Mutex;
use picker::{Candidate, Inputs, MemberNames, Numbers};
use serde::Serialize;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use tape::{Tape, growth};

/// Bytes kept for requests that went well.
///
/// Small on purpose: every request writes into the ring, so a ring that leaves the processor's
/// cache costs more than the decision.
const MOST_BYTES: usize = 1 << 20;
/// Bytes kept for requests that failed.
const MOST_FAILED_BYTES: usize = 1 << 20;

/// Inputs that a worker keeps to be used again: as many as may be returned between two picks, where
/// requests come in batches.
const MOST_SPARES: usize = 64;
/// Among so many pools and lists of members, the latest, a record's own is looked for.
const LOOKED_AT: usize = 4;

thread_local! {
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is used again")]
    static SPARES: RefCell<Vec<Box<Inputs>>> = const { RefCell::new(Vec::new()) };
}

/// Memory for the inputs of the next decision, if this worker has some.
pub(super) fn spare() -> Option<Box<Inputs>> {
    SPARES.with_borrow_mut(Vec::pop)
}

fn keep_spare(inputs: Box<Inputs>) {
    SPARES.with_borrow_mut(|spares| {
        if spares.len() < MOST_SPARES {
            spares.push(inputs);
        }
    });
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
    pub table: Inputs,
}

/// The numbers of a record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) decision: u64,
    pub(crate) unix_ms: i64,
    pub(crate) attempt: u32,
    pub(crate) status: u16,
    pub(crate) error: Option<&'static str>,
    pub(crate) queued_us: u64,
    pub(crate) first_token_us: u64,
    pub(crate) duration_us: u64,
}

/// A record to be kept: what of it is shared or somebody else's is borrowed.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) ended: Ended,
    pub(crate) id: &'a str,
    pub(crate) model: &'a str,
    pub(crate) pool: &'a Arc<str>,
    pub(crate) endpoint: &'a Arc<str>,
    pub(crate) table: Box<Inputs>,
}

/// A record in its ring: its numbers, and how much of each tape is its own.
#[derive(Debug)]
struct Kept {
    ended: Ended,
    numbers: Numbers,
    id_bytes: u32,
    model_bytes: u32,
    candidates: u32,
    /// Number of its shared names.
    names: u64,
    /// The name of the endpoint where it is not the one among those names.
    endpoint: Option<Arc<str>>,
    targets: Box<[String]>,
}

impl Kept {
    fn text_bytes(&self) -> usize {
        self.id_bytes as usize + self.model_bytes as usize
    }

    fn bytes(&self) -> usize {
        let text = |name: &String| name.len() + size_of::<String>();
        let targets: usize = self.targets.iter().map(text).sum();
        let candidates = self.candidates as usize * size_of::<Candidate>();
        size_of::<Self>() + self.text_bytes() + candidates + targets
    }
}

/// The names that records share, mostly all of them.
#[derive(Debug)]
struct Names {
    pool: Arc<str>,
    members: MemberNames,
    /// How many records were pushed before the latest that has them.
    used_at: u64,
}

#[derive(Debug, Default)]
struct Ring {
    records: VecDeque<Kept>,
    texts: Tape<u8>,
    candidates: Tape<Candidate>,
    names: VecDeque<Names>,
    /// Records and names that have left.
    records_gone: u64,
    names_gone: u64,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, new: New<'_>, most: usize) {
        let table = &new.table;
        let kept = Kept {
            ended: new.ended,
            numbers: table.numbers(),
            id_bytes: new.id.len() as u32,
            model_bytes: new.model.len() as u32,
            candidates: table.candidates.len() as u32,
            names: self.names_of(new.pool, table),
            endpoint: (table.winner_name() != Some(new.endpoint)).then(|| new.endpoint.clone()),
            targets: table.targets.as_slice().into(),
        };
        self.bytes += kept.bytes();
        while self.bytes > most && self.pop() {}
        self.texts.put(new.id.as_bytes());
        self.texts.put(new.model.as_bytes());
        self.candidates.put(&table.candidates);
        if self.records.len() == self.records.capacity() {
            self.records.reserve_exact(growth(self.records.len()));
        }
        self.records.push_back(kept);
        keep_spare(new.table);
    }

    /// The number of the names that the next record has.
    fn names_of(&mut self, pool: &Arc<str>, table: &Inputs) -> u64 {
        let used_at = self.records_gone + self.records.len() as u64;
        let mut at = self.names.len();
        for names in self.names.iter_mut().rev().take(LOOKED_AT) {
            at -= 1;
            if names.members.are_those_of(table) && Arc::ptr_eq(&names.pool, pool) {
                names.used_at = used_at;
                return self.names_gone + at as u64;
            }
        }
        self.names.push_back(Names {
            pool: pool.clone(),
            members: table.member_names(),
            used_at,
        });
        self.names_gone + self.names.len() as u64 - 1
    }

    /// Drops the oldest record, if there is one.
    fn pop(&mut self) -> bool {
        let Some(oldest) = self.records.pop_front() else {
            return false;
        };
        self.records_gone += 1;
        self.bytes -= oldest.bytes();
        self.texts.cut(oldest.text_bytes());
        self.candidates.cut(oldest.candidates as usize);
        while let Some(names) = self.names.front()
            && names.used_at < self.records_gone
        {
            self.names.pop_front();
            self.names_gone += 1;
        }
        true
    }

    /// Appends those that `wanted` accepts, each as JSON with its decision and its try.
    #[inline(never)]
    fn write(&self, wanted: &dyn Fn(&Record) -> bool, lines: &mut Vec<(u64, u32, String)>) {
        for record in self.records().filter(wanted) {
            if let Ok(line) = serde_json::to_string(&record) {
                lines.push((record.decision, record.attempt, line));
            }
        }
    }

    /// All records, oldest first.
    fn records(&self) -> impl Iterator<Item = Record> {
        let mut texts = self.texts.iter();
        let mut candidates = self.candidates.iter();
        self.records.iter().filter_map(move |kept| {
            let mut text = |bytes: u32| {
                let bytes = texts.by_ref().take(bytes as usize).collect();
                String::from_utf8(bytes).unwrap_or_default()
            };
            let (id, model) = (text(kept.id_bytes), text(kept.model_bytes));
            let candidates = candidates.by_ref().take(kept.candidates as usize).collect();
            let names = self.names.get((kept.names - self.names_gone) as usize)?;
            let targets = kept.targets.to_vec();
            let table = Inputs::restored(kept.numbers, candidates, targets, &names.members);
            let endpoint = kept.endpoint.as_ref().or(table.winner_name());
            Some(Record {
                decision: kept.ended.decision,
                id,
                unix_ms: kept.ended.unix_ms,
                pool: names.pool.clone(),
                model,
                attempt: kept.ended.attempt,
                endpoint: endpoint.cloned().unwrap_or_default(),
                status: kept.ended.status,
                error: kept.ended.error,
                queued_us: kept.ended.queued_us,
                first_token_us: kept.ended.first_token_us,
                duration_us: kept.ended.duration_us,
                table,
            })
        })
    }
}

/// The rings of a process.
#[derive(Debug, Default)]
pub struct Decisions {
    fine: Mutex<Ring>,
    failed: Mutex<Ring>,
}

impl Decisions {
    pub(crate) fn push(&self, new: New<'_>) {
        if new.ended.error.is_some() || new.ended.status >= 500 {
            self.failed.lock().push(new, MOST_FAILED_BYTES);
        } else {
            self.fine.lock().push(new, MOST_BYTES);
        }
    }

    /// All records that `wanted` accepts, oldest first, one JSON object a line.
    pub fn json_lines(&self, wanted: impl Fn(&Record) -> bool) -> String {
        self.lines(&wanted)
    }

    fn lines(&self, wanted: &dyn Fn(&Record) -> bool) -> String {
        let mut lines: Vec<(u64, u32, String)> = Vec::new();
        for ring in [&self.fine, &self.failed] {
            ring.lock().write(wanted, &mut lines);
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
