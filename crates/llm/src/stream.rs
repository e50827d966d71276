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
    /// Offset in this piece just past the event that cut the stream.
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
    /// The engine's error, before any content.
    Error {
        /// Its status, 400 to 599; 500 when it told none.
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
}

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

    /// How the stream stands.
    #[must_use]
    pub fn ended(&self) -> Ended {
        self.reading.ended
    }
}

#[cfg(test)]
mod tests;
