//! An answer as server-sent events: one event per token, as soon as the engine has it.
//! The client's leaving drops the feed, and with it the jobs.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use futures_util::{Stream, stream};

use super::generate::{FLUSH, Next, Running};
use super::wire::Reason;
use crate::faults::FaultKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing was sent.
    Silent,
    Talking,
    /// What is queued is the end.
    Ending,
    /// After what is queued the connection is reset.
    Resetting,
}

/// The events of one answer.
#[derive(Debug)]
pub(super) struct Feed {
    running: Running,
    queue: VecDeque<Bytes>,
    stage: Stage,
}

impl Feed {
    pub(super) fn new(running: Running) -> Self {
        Self {
            running,
            queue: VecDeque::new(),
            stage: Stage::Silent,
        }
    }

    /// The events as a body's pieces; an error means that the connection must be cut.
    pub(super) fn pieces(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::unfold(self, |mut feed| async move {
            let piece = feed.piece().await?;
            Some((piece, feed))
        })
    }

    async fn piece(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if let Some(piece) = self.queue.pop_front() {
                return Some(Ok(piece));
            }
            match self.stage {
                Stage::Silent | Stage::Talking => self.step().await,
                Stage::Ending => return None,
                Stage::Resetting => {
                    tokio::time::sleep(FLUSH).await;
                    self.running.connection.reset();
                    self.stage = Stage::Ending;
                    let kind = io::ErrorKind::ConnectionReset;
                    return Some(Err(io::Error::new(kind, "a fault resets the connection")));
                }
            }
        }
    }

    /// Turns what the engine says next into events.
    async fn step(&mut self) {
        let next = self.running.next().await;
        if let Some(cut) = self.running.cut_due() {
            self.cut(cut);
            return;
        }
        match next {
            Next::Token { index, number } => self.token(index, number),
            Next::Finished => self.close(self.running.reason()),
            Next::Stopped => self.fail(),
        }
    }

    fn token(&mut self, index: usize, number: u32) {
        self.open();
        if self.running.broken_at == Some(self.running.counts.completion) {
            self.running.broken_at = None;
            self.queue.push_back(self.running.wire.broken());
        }
        let job = self
            .running
            .asked
            .choices
            .get(index)
            .map(|choice| &choice.job);
        let is_last = job.is_some_and(|job| job.output_tokens == number) && !self.running.endless;
        let word = self.running.word(index, number);
        // An abort right after this token gives the reason itself.
        let is_last = is_last && self.running.cut_due() != Some(FaultKind::Abort);
        let last = is_last.then(|| self.running.reason());
        self.queue
            .push_back(self.running.wire.token(index, word, last));
    }

    fn open(&mut self) {
        if self.stage == Stage::Silent {
            self.stage = Stage::Talking;
            let choices = self.running.asked.choices.len();
            self.queue
                .extend(self.running.wire.opening(choices, self.running.counts));
        }
    }

    fn cut(&mut self, cut: FaultKind) {
        self.running.leave();
        match cut {
            FaultKind::Reset => self.stage = Stage::Resetting,
            FaultKind::ErrorEvent => self.fail(),
            FaultKind::Abort => {
                self.open();
                if self.running.asked.api != super::Api::Messages {
                    for index in 0..self.running.asked.choices.len() {
                        let event = self.running.wire.token(index, "", Some(Reason::Abort));
                        self.queue.push_back(event);
                    }
                }
                self.close(Reason::Abort);
            }
            // A truncated stream: nothing more, and a clean end of the chunked body.
            _ => self.stage = Stage::Ending,
        }
    }

    fn fail(&mut self) {
        self.queue.extend(self.running.wire.failure());
        self.stage = Stage::Ending;
    }

    fn close(&mut self, reason: Reason) {
        let usage = self.running.asked.include_usage;
        self.queue.extend(
            self.running
                .wire
                .closing(reason, self.running.counts, usage),
        );
        self.stage = Stage::Ending;
    }
}
