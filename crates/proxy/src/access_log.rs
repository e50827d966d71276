//! The access log: one JSON line a request, a projection of its `Exchange`.
//!
//! Each worker formats into its own buffer; full buffers go to one writer thread over a bounded
//! channel. When the reader of the log is too slow, lines are dropped and counted, and requests do
//! not wait. Prompts, keys and query strings are never written.

use crate::clock;
use crate::exchange::Exchange;
use crate::pool::Pool;
use config::Rule;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// A worker hands its buffer over when it holds this many bytes, or at the next tick.
const FLUSH_BYTES: usize = 32 << 10;
/// A line is rarely longer than this.
const MOST_LINE_BYTES: usize = 2 << 10;
/// Buffers that may wait for the writer.
const WAITING_BUFFERS: usize = 64;
/// How long the writer rests after it wrote all there was: what it finds then costs nobody a wake.
const REST: Duration = Duration::from_millis(10);

/// How long the end of the process waits for the reader of the log.
const LAST_LINES: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Where lines go; cheap to clone.
#[derive(Debug, Clone)]
pub struct AccessLog {
    sender: Option<SyncSender<ToWriter>>,
    counts: Arc<Counts>,
}

/// What the writer is told.
#[derive(Debug)]
enum ToWriter {
    Lines(Vec<u8>),
    /// Tell when everything before this is written.
    Tell(SyncSender<()>),
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
}

impl AccessLog {
    /// No log at all.
    pub fn off() -> Self {
        Self {
            sender: None,
            counts: Arc::default(),
        }
    }

    /// Lines go to `sink` from a thread of their own, which ends with the last clone.
    pub fn to(sink: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel::<ToWriter>(WAITING_BUFFERS);
        let counts = Arc::<Counts>::default();
        let counted = counts.clone();
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(sink, &receiver, &counted))?;
        Ok(Self {
            sender: Some(sender),
            counts,
        })
    }

    /// Waits until all lines that were handed over are written, for at most [`LAST_LINES`]. Blocks.
    pub fn finish(&self) {
        let Some(sender) = &self.sender else { return };
        let (done, written) = sync_channel(1);
        let mut message = ToWriter::Tell(done);
        let mut left = LAST_LINES;
        while let Err(TrySendError::Full(back)) = sender.try_send(message) {
            if left.is_zero() {
                break;
            }
            message = back;
            std::thread::sleep(LOOK_AGAIN);
            left = left.saturating_sub(LOOK_AGAIN);
        }
        if written.recv_timeout(left).is_err() {
            tracing::error!("the reader of the access log is stuck; its last lines are lost");
        }
    }

    /// Lines written so far.
    pub fn written(&self) -> u64 {
        self.counts.written.load(Ordering::Relaxed)
    }

    /// Lines dropped because the writer was behind or failed.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    pub(crate) fn lines(&self) -> Lines {
        Lines {
            log: self.clone(),
            buffer: Vec::new(),
            count: 0,
            named: Named::default(),
        }
    }
}

/// What the writer does next; `None` when nobody is left to tell it.
fn next(receiver: &Receiver<ToWriter>) -> Option<ToWriter> {
    if let Ok(message) = receiver.try_recv() {
        return Some(message);
    }
    std::thread::sleep(REST);
    receiver.recv().ok()
}

fn write_all(mut sink: impl Write, receiver: &Receiver<ToWriter>, counts: &Counts) {
    let mut works = true;
    while let Some(message) = next(receiver) {
        let buffer = match message {
            ToWriter::Lines(buffer) => buffer,
            ToWriter::Tell(done) => {
                // Whoever asked may have lost patience.
                let _ = done.try_send(());
                continue;
            }
        };
        let lines = memchr::memchr_iter(b'\n', &buffer).count() as u64;
        let written = sink.write_all(&buffer).and_then(|()| sink.flush());
        match &written {
            Err(error) if works => {
                tracing::error!("the access log cannot be written, its lines are dropped: {error}");
            }
            Ok(()) if !works => tracing::warn!("the access log is written again"),
            _ => {}
        }
        works = written.is_ok();
        let counter = if works {
            &counts.written
        } else {
            &counts.dropped
        };
        counter.fetch_add(lines, Ordering::Relaxed);
    }
}

/// The lines of one worker.
#[derive(Debug)]
pub(crate) struct Lines {
    log: AccessLog,
    buffer: Vec<u8>,
    count: u64,
    named: Named,
}

/// What a line says of route, pool and model, and whose names they are: mostly those of the line
/// before.
#[derive(Debug, Default)]
struct Named {
    rule: Option<Arc<Rule>>,
    pool: Option<Arc<Pool>>,
    model: String,
    text: Vec<u8>,
}

impl Named {
    /// The text for this request.
    #[inline]
    fn of(&mut self, x: &Exchange) -> &[u8] {
        fn at<T>(of: &Option<Arc<T>>) -> *const T {
            of.as_ref().map_or(std::ptr::null(), Arc::as_ptr)
        }
        let is_same =
            at(&self.rule) == at(&x.rule) && at(&self.pool) == at(&x.pool) && self.model == x.model;
        if !is_same {
            self.write(x);
        }
        &self.text
    }

    fn write(&mut self, x: &Exchange) {
        self.rule.clone_from(&x.rule);
        self.pool.clone_from(&x.pool);
        self.model.clone_from(&x.model);
        self.text.clear();
        let mut line = Line::new(&mut self.text);
        if let Some(rule) = &x.rule {
            line.text(",\"route\":\"", rule.route.name.as_bytes());
        }
        if let Some(pool) = &x.pool {
            line.text(",\"pool\":\"", pool.name().as_bytes());
        }
        if !x.model.is_empty() {
            line.text(",\"model\":\"", truncated(x.model.as_bytes(), 128));
        }
    }
}

impl Lines {
    pub(crate) fn push(&mut self, exchange: &Exchange) {
        if self.log.sender.is_none() {
            return;
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(FLUSH_BYTES + MOST_LINE_BYTES);
        }
        let named = self.named.of(exchange);
        write_line(exchange, named, &mut self.buffer);
        self.count += 1;
        if self.buffer.len() >= FLUSH_BYTES {
            self.flush();
        }
    }

    /// Hands over the lines so far, and lets go of the configuration that they were written with.
    pub(crate) fn flush(&mut self) {
        self.named = Named::default();
        let Some(sender) = &self.log.sender else {
            return;
        };
        if self.buffer.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut self.buffer);
        let count = std::mem::take(&mut self.count);
        if sender.try_send(ToWriter::Lines(buffer)).is_err() {
            self.log.counts.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Appends the parts of one JSON object.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    number: itoa::Buffer,
}

/// Inlined, so that the length of each key is known and its copy is a few stores.
impl<'a> Line<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            number: itoa::Buffer::new(),
        }
    }

    #[inline(always)]
    fn number(&mut self, key: &str, value: u64) {
        self.out.extend_from_slice(key.as_bytes());
        self.out
            .extend_from_slice(self.number.format(value).as_bytes());
    }

    /// Text that is printable ASCII without quote and backslash by the rules of its origin.
    #[inline(always)]
    fn plain(&mut self, key: &str, value: &str) {
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
    }

    #[inline(always)]
    fn text(&mut self, key: &str, value: &[u8]) {
        self.out.extend_from_slice(key.as_bytes());
        escape(value, self.out);
        self.out.push(b'"');
    }
}

/// Keys are given with their punctuation, so that each part is one copy.
fn write_line(exchange: &Exchange, named: &[u8], out: &mut Vec<u8>) {
    let x = exchange;
    let t = &x.timings;
    out.extend_from_slice(b"{\"ts\":\"");
    clock::write_stamp(t.ended, out);
    let mut line = Line::new(out);
    // An id is checked when it is taken over, method and target when the head is read.
    line.plain("\",\"id\":\"", &x.id);
    if let Some(trace) = x.head.get("traceparent").and_then(trace_id) {
        line.text(",\"trace\":\"", trace);
    }
    line.plain(",\"method\":\"", x.head.method());
    let path = x.head.path();
    line.plain(",\"path\":\"", path.get(..256).unwrap_or(path));
    line.number(",\"status\":", u64::from(x.response.status));
    line.out.extend_from_slice(named);
    if let Some(attempt) = x.attempts.last() {
        line.text(",\"endpoint\":\"", attempt.name.as_bytes());
        line.number(",\"attempts\":", x.attempts.len() as u64);
        line.number(",\"decision\":", x.decision);
    }
    line.number(",\"bytes_in\":", x.body_bytes as u64);
    line.number(",\"bytes_out\":", x.response.bytes);
    line.number(",\"queued_us\":", t.queued_us);
    line.number(",\"overhead_us\":", x.overhead_us());
    if t.first_token.0 > 0 {
        line.number(
            ",\"first_token_us\":",
            t.first_token.0.saturating_sub(t.started.0),
        );
    }
    line.number(",\"duration_us\":", t.ended.0.saturating_sub(t.started.0));
    if x.response.is_stream {
        line.number(",\"events\":", x.response.events);
    }
    write_usage(exchange, &mut line);
    if let Some(failure) = &x.failure {
        line.plain(",\"error\":\"", failure.cause.row().code);
        line.plain(",\"phase\":\"", failure.phase.name());
    }
    line.out.extend_from_slice(b"}\n");
}

fn write_usage(exchange: &Exchange, line: &mut Line<'_>) {
    let Some(usage) = &exchange.response.usage else {
        return;
    };
    line.number(",\"prompt_tokens\":", u64::from(usage.prompt_tokens));
    line.number(
        ",\"completion_tokens\":",
        u64::from(usage.completion_tokens),
    );
    if let Some(cached) = usage.cached_tokens {
        line.number(",\"cached_tokens\":", u64::from(cached));
    }
    if usage.estimated {
        line.out.extend_from_slice(b",\"usage_estimated\":true");
    }
}

/// The trace id of a `traceparent` (W3C Trace Context, section 3.2): `00-<32 hex>-<16 hex>-<2 hex>`.
fn trace_id(parent: &[u8]) -> Option<&[u8]> {
    let id = parent.get(3..35)?;
    let framed = parent.get(2) == Some(&b'-') && parent.get(35) == Some(&b'-');
    (framed && id.iter().all(u8::is_ascii_hexdigit)).then_some(id)
}

fn truncated(bytes: &[u8], most: usize) -> &[u8] {
    bytes.get(..most).unwrap_or(bytes)
}

/// Whether text stands in a JSON string as it is: printable ASCII but quote and backslash. Told by
/// the word, as most texts are short.
fn is_plain(text: &[u8]) -> bool {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    // High bits of bytes that are 0; only whether there are any is exact.
    let zero = |word: u64| word.wrapping_sub(EACH) & !word;
    let suspect = |word: [u8; 8]| {
        let word = u64::from_ne_bytes(word);
        let control = word.wrapping_sub(EACH * 0x20) | zero(word ^ (EACH * 0x7f));
        let marks = zero(word ^ (EACH * 0x22)) | zero(word ^ (EACH * 0x5c));
        (control | marks | word) & (EACH * 0x80)
    };
    let (words, rest) = text.as_chunks::<8>();
    let last = text.last_chunk::<8>().copied().unwrap_or_else(|| {
        let mut last = [b' '; 8];
        for (slot, byte) in last.iter_mut().zip(rest) {
            *slot = *byte;
        }
        last
    });
    words
        .iter()
        .fold(suspect(last), |all, word| all | suspect(*word))
        == 0
}

/// JSON string content; bytes that are not printable ASCII are written as `\u00xx` (Latin-1).
pub(crate) fn escape(text: &[u8], out: &mut Vec<u8>) {
    if is_plain(text) {
        out.extend_from_slice(text);
        return;
    }
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0x20..=0x7e => out.push(*byte),
            _ => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_traceparent_has_a_trace_id() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let whole = format!("00-{id}-00f067aa0ba902b7-01");
        assert_eq!(trace_id(whole.as_bytes()), Some(id.as_bytes()));
        for parent in [
            "",
            "00",
            &whole[..35],
            &whole.replace('-', "_"),
            &whole.replace('4', "x"),
        ] {
            assert_eq!(trace_id(parent.as_bytes()), None, "{parent}");
        }
    }

    #[test]
    fn text_is_escaped_as_json() {
        for (text, json) in [
            ("plain", "plain"),
            ("a\"b", "a\\\"b"),
            ("a\\b", "a\\\\b"),
            ("\n", "\\u000a"),
        ] {
            let mut out = Vec::new();
            escape(text.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), json);
        }
    }

    #[test]
    fn every_byte_is_told_at_every_place() {
        for byte in 0..=u8::MAX {
            let plain = matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\');
            for length in 1..20 {
                for at in 0..length {
                    let mut text = vec![b'a'; length];
                    text[at] = byte;
                    assert_eq!(is_plain(&text), plain, "{byte} at {at} of {length}");
                }
            }
        }
    }
}
