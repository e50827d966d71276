//! Reads a streamed answer on the side: progress, usage, and whether it truly ended.
//!
//! A clean end of bytes proves nothing: engines that die send an error event or a chunk with
//! `finish_reason: "abort"`, then `[DONE]`. So the ending is judged by the events. The usual event
//! costs one pass over its bytes; JSON is walked only where that hits, and only members in their
//! right places count, so that generated text cannot fool the scan. Window: `sse.rs`.
//! Next: `stream/events.rs`, which knows each API's events.

mod events;

use crate::api::Api;
use crate::sse::SseScan;
use crate::usage::{Counts, Usage};

/// What a piece of the stream completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Events with generated content.
    pub events: u32,
    /// Offset in this piece where what the client may see ends: just past the event that cut the
    /// stream, or before the line of an end mark that ends nothing.
    pub cut_at: Option<usize>,
    /// Status told by the error event that cut the stream, 400 to 599.
    pub error_status: Option<u16>,
}

/// The most telling event so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstEvent {
    /// Only events that come before any content: `response.created`, `message_start`, a chunk with
    /// a role and no text. `Content` or `Error` replaces it.
    Opening,
    /// Generated content, before any error.
    Content,
    /// The engine's error, or an end of its answer, before any content.
    Error {
        /// Its status, 400 to 599; 500 when it told none, 503 for an end.
        status: u16,
    },
}

/// How a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// No last event yet. Bytes that end here end too early.
    Open,
    /// `[DONE]`, `message_stop`, `response.completed` or `response.incomplete`.
    Done,
    /// The engine gave up.
    Cut(CutCause),
}

/// Why an engine gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutCause {
    /// An error event.
    Error {
        /// Its status, 400 to 599; 500 when it told none.
        status: u16,
    },
    /// A chunk with `finish_reason: "abort"`.
    Abort,
    /// `[DONE]` of a chat or completions stream in which no choice was finished: so vLLM ends its
    /// streams when it is told to stop.
    Unfinished,
}

/// The last event of OpenAI's streams, as all engines write it.
const END_MARK: &[u8] = b"data: [DONE]";
/// The same without the space that the format allows to leave out.
const DENSE_END_MARK: &[u8] = b"data:[DONE]";

/// The scan of one response.
#[derive(Debug)]
pub struct StreamScan {
    sse: SseScan,
    reading: Reading,
}

/// What the events said so far.
#[derive(Debug)]
struct Reading {
    api: Api,
    counts: Counts,
    events: u64,
    first: Option<FirstEvent>,
    ended: Ended,
    /// A choice told why it is finished.
    finished: bool,
    oversized: u64,
}

impl StreamScan {
    /// A scan of one stream.
    #[must_use]
    pub fn new(api: Api) -> Self {
        let reading = Reading {
            api,
            counts: Counts::default(),
            events: 0,
            first: None,
            ended: Ended::Open,
            finished: false,
            oversized: 0,
        };
        Self {
            sse: SseScan::default(),
            reading,
        }
    }

    /// Reads the next piece of payload (chunk framing removed).
    pub fn feed(&mut self, bytes: &[u8]) -> Seen {
        let Self { sse, reading } = self;
        let mut seen = Seen::default();
        sse.feed(bytes, |event| {
            if reading.ended != Ended::Open {
                return;
            }
            reading.oversized += u64::from(event.oversized);
            reading.take(&event, &mut seen);
        });
        seen
    }

    /// The engine's counts; without them the content events, marked estimated, and prompt 0.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.reading.counts.usage().unwrap_or(Usage {
            completion_tokens: u32::try_from(self.reading.events).unwrap_or(u32::MAX),
            estimated: true,
            ..Usage::default()
        })
    }

    /// Events with generated content so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.reading.events
    }

    /// Events longer than the window so far: counted as content, but not looked into.
    #[must_use]
    pub fn oversized_events(&self) -> u64 {
        self.reading.oversized
    }

    /// What the stream began with.
    #[must_use]
    pub fn first_event(&self) -> Option<FirstEvent> {
        self.reading.first
    }

    /// Whether the bytes so far end with an event, so that another event may follow them.
    #[must_use]
    pub fn at_event_border(&self) -> bool {
        self.sse.at_event_border()
    }

    /// How many of the last bytes may begin an end mark that ends nothing: the client must not see
    /// them before it is known.
    #[must_use]
    pub fn doubtful_bytes(&self) -> usize {
        if self.reading.ended != Ended::Open || !self.reading.lacks_finish() {
            return 0;
        }
        let data = self.sse.incomplete_data();
        let is_line_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let line = data.split(is_line_end).next().unwrap_or_default();
        if END_MARK.starts_with(line) || DENSE_END_MARK.starts_with(line) {
            data.len()
        } else {
            0
        }
    }

    /// How the stream stands.
    #[must_use]
    pub fn ended(&self) -> Ended {
        self.reading.ended
    }
}

#[cfg(test)]
mod tests;
