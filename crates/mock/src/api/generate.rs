//! One generation: hands the jobs to the engine and answers whole or as a stream.
//! The faults that strike within an answer are applied here and in `stream`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::Response;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use sim::engine::EventKind;

use super::body::MockBody;
use super::error::Problem;
use super::request::Asked;
use super::stream::Feed;
use super::wire::{Counts, Reason, Shown, Wire};
use super::{Api, json, respond};
use crate::driver::{Generation, SubmitError};
use crate::faults::{Fault, FaultKind, Struck};
use crate::server::{Connection, Server};
use crate::text;

/// Time for what is written to leave before the connection is cut.
pub(super) const FLUSH: Duration = Duration::from_millis(5);

/// Numbers of an embedding.
const DIMENSIONS: u32 = 64;

/// A generation that the engine has taken.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) server: Arc<Server>,
    pub(super) connection: Arc<Connection>,
    pub(super) asked: Asked,
    pub(super) wire: Wire,
    /// The fault that ends the answer before its time.
    pub(super) cut: Option<Fault>,
    /// After how many tokens an event is broken.
    pub(super) broken_at: Option<u32>,
    pub(super) endless: bool,
    pub(super) counts: Counts,
    /// Choices that are not finished.
    pub(super) open: usize,
    generation: Option<Generation>,
}

/// What the engine said next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Next {
    Token {
        index: usize,
        number: u32,
    },
    /// All choices are finished.
    Finished,
    /// The engine has stopped.
    Stopped,
}

impl Running {
    async fn start(&mut self) -> Result<(), SubmitError> {
        let jobs = self
            .asked
            .choices
            .iter()
            .map(|choice| choice.job.clone())
            .collect();
        self.open = self.asked.choices.len();
        self.generation = Some(self.server.engine.submit(jobs, self.asked.ends).await?);
        Ok(())
    }

    /// Takes the jobs out of the engine.
    pub(super) fn leave(&mut self) {
        self.generation = None;
    }

    /// The next token, or the end; counts on the way.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            let Some(generation) = &mut self.generation else {
                return Next::Stopped;
            };
            let Some(progress) = generation.next().await else {
                return Next::Stopped;
            };
            let index = progress.index;
            match progress.event.kind {
                EventKind::FirstToken { cached_tokens } => {
                    self.count_cached(index, cached_tokens);
                    return Next::Token { index, number: 1 };
                }
                EventKind::Token { number } => return Next::Token { index, number },
                EventKind::Finished { cached_tokens } => {
                    if self.asked.api == Api::Embeddings {
                        self.count_cached(index, cached_tokens);
                    }
                    self.open -= 1;
                    if self.open > 0 {
                        continue;
                    }
                    if !self.endless {
                        return Next::Finished;
                    }
                    if self.start().await.is_err() {
                        return Next::Stopped;
                    }
                }
            }
        }
    }

    /// The cut, when as many tokens are out as it waits for.
    pub(super) fn cut_due(&self) -> Option<FaultKind> {
        let cut = self.cut.as_ref()?;
        (cut.after <= self.counts.completion).then_some(cut.kind)
    }

    pub(super) fn reason(&self) -> Reason {
        Reason::Ends(self.asked.ends)
    }

    /// The text of a token, counted as sent.
    pub(super) fn word(&mut self, index: usize, number: u32) -> &'static str {
        self.counts.completion = self.counts.completion.saturating_add(1);
        let seed = self
            .asked
            .choices
            .get(index)
            .map_or(0, |choice| choice.seed);
        text::word(seed, number.saturating_sub(1))
    }

    fn count_cached(&mut self, index: usize, cached_tokens: u32) {
        if self
            .asked
            .choices
            .get(index)
            .is_some_and(|choice| choice.counts_prompt)
        {
            self.counts.cached = self.counts.cached.saturating_add(cached_tokens);
        }
    }
}

/// Answers a request under the faults that struck it; `asked` comes with the answer's id.
pub(super) async fn answer(
    server: &Arc<Server>,
    connection: &Arc<Connection>,
    asked: (String, Asked),
    struck: &Struck,
) -> io::Result<Response<MockBody>> {
    let (id, asked) = asked;
    let (api, streamed) = (asked.api, asked.stream);
    let prompt = asked.choices.iter().filter(|choice| choice.counts_prompt);
    let prompt = prompt
        .map(|choice| choice.job.prompt_tokens)
        .fold(0, u32::saturating_add);
    let shown = match (
        struck.has(FaultKind::NoUsage),
        struck.has(FaultKind::NoCachedTokens),
    ) {
        (true, _) => Shown::Nothing,
        (false, true) => Shown::NoCached,
        (false, false) => Shown::All,
    };
    let wire = Wire {
        api,
        id,
        created: server.created(),
        model: asked.model.clone(),
        shown,
    };
    let mut running = Running {
        server: Arc::clone(server),
        connection: Arc::clone(connection),
        asked,
        wire,
        cut: struck.cut().cloned(),
        broken_at: struck.get(FaultKind::BadJson).map(|fault| fault.after),
        endless: struck.has(FaultKind::Endless) && api != Api::Embeddings,
        counts: Counts {
            prompt,
            ..Counts::default()
        },
        open: 0,
        generation: None,
    };
    if let Err(error) = running.start().await {
        return Ok(Problem::submit(&error).response(api));
    }
    if streamed {
        // As vLLM: the head leaves at once and says nothing about progress.
        let body = MockBody::pieces(Feed::new(running).pieces());
        let mut response = respond(200, "text/event-stream; charset=utf-8", Bytes::new());
        *response.body_mut() = body;
        return Ok(response);
    }
    whole(running).await
}

async fn whole(mut running: Running) -> io::Result<Response<MockBody>> {
    let mut texts = vec![String::new(); running.asked.choices.len()];
    let mut reason = running.reason();
    loop {
        let next = running.next().await;
        match running.cut_due() {
            Some(FaultKind::ErrorEvent) => {
                return Ok(Problem::internal().response(running.asked.api));
            }
            Some(FaultKind::Abort) => {
                reason = Reason::Abort;
                break;
            }
            _ => {}
        }
        match next {
            Next::Token { index, number } => {
                let word = running.word(index, number);
                // Who never stops must not fill the memory either.
                if let Some(text) = texts.get_mut(index).filter(|_| !running.endless) {
                    text.push_str(word);
                }
            }
            Next::Finished => break,
            Next::Stopped => return Ok(Problem::internal().response(running.asked.api)),
        }
    }
    running.leave();
    let body = match running.asked.api {
        Api::Embeddings => {
            let vectors: Vec<Vec<f32>> = running
                .asked
                .choices
                .iter()
                .map(|choice| vector(choice.seed))
                .collect();
            running.wire.embeddings(&vectors, running.counts)
        }
        _ => running.wire.whole(&texts, reason, running.counts),
    };
    if running.broken_at.is_some() {
        let half = body.get(..body.len() / 2).unwrap_or_default();
        return Ok(json(200, half.to_owned()));
    }
    match running.cut_due() {
        Some(FaultKind::Reset) => half(&body, Some(running.connection)),
        Some(FaultKind::Truncate) => half(&body, None),
        _ => Ok(json(200, body)),
    }
}

/// Head and half of the body, then a reset (of `connection`) or a close.
fn half(body: &str, connection: Option<Arc<Connection>>) -> io::Result<Response<MockBody>> {
    let first = Bytes::copy_from_slice(body.as_bytes().get(..body.len() / 2).unwrap_or_default());
    let end = async move {
        tokio::time::sleep(FLUSH).await;
        if let Some(connection) = connection {
            connection.reset();
        }
        Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "a fault cuts the answer",
        ))
    };
    let pieces = stream::iter([Ok(first)]).chain(stream::once(end));
    let mut response = Response::new(MockBody::pieces(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    Ok(response)
}

/// A vector of numbers between -1 and 1, the same for the same input.
fn vector(seed: u64) -> Vec<f32> {
    let number = |index: u32| {
        let draw = twox_hash::XxHash3_64::oneshot_with_seed(seed, &index.to_le_bytes());
        (draw % 2_000_001) as f32 / 1_000_000.0 - 1.0
    };
    (0..DIMENSIONS).map(number).collect()
}
