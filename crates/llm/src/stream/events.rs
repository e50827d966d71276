//! What one event means, for each API.
//!
//! OpenAI's chat and completions chunks carry no event name: `chunk` looks for the few members that
//! matter. Responses and Messages name their events, so most need no look inside. Field names and
//! orders are those of the recorded streams of vLLM, SGLang and llama.cpp.

use super::{CutCause, Ended, FirstEvent, Reading, Seen};
use crate::api::Api;
use crate::errors::anthropic_status;
use crate::object::{self, Members, elements, find, integer, string};
use crate::peek::scan::Scanner;
use crate::sse::Event;

impl Reading {
    /// Takes one event of a stream that has not ended.
    #[inline]
    pub(super) fn take(&mut self, event: &Event<'_>, seen: &mut Seen) {
        if event.name == b"error" {
            self.error(
                find(event.data, b"error").unwrap_or(event.data),
                event,
                seen,
            );
        } else if event.data == b"[DONE]" {
            self.end_mark(event, seen);
        } else {
            match self.api {
                Api::Responses => self.response_event(event, seen),
                Api::Messages => self.message_event(event, seen),
                _ => self.chunk(event, seen),
            }
        }
    }

    /// Whether an end mark now would end nothing. What is in events that are too long to look into
    /// is unknown, so with one of those the mark is believed.
    pub(super) fn lacks_finish(&self) -> bool {
        let marks = matches!(self.api, Api::ChatCompletions | Api::Completions);
        marks && !self.finished && self.oversized == 0
    }

    #[inline(never)]
    fn end_mark(&mut self, event: &Event<'_>, seen: &mut Seen) {
        if self.lacks_finish() {
            self.cut(CutCause::Unfinished, event, seen);
            // The client must not take the mark for an end.
            seen.cut_at = Some(event.data_line);
        } else {
            self.ended = Ended::Done;
        }
    }

    /// A chunk of the chat or completions API.
    #[inline]
    fn chunk(&mut self, event: &Event<'_>, seen: &mut Seen) {
        let opening = self.first != Some(FirstEvent::Content);
        if opening || is_telling(event.data) {
            self.telling_chunk(event, seen);
        } else {
            self.content(seen);
        }
    }

    #[inline(never)]
    fn telling_chunk(&mut self, event: &Event<'_>, seen: &mut Seen) {
        let Some(chunk) = Chunk::read(event.data) else {
            // No JSON, or too long to look into: an event of a kind that we do not know.
            return self.content(seen);
        };
        if let Some(error) = chunk.error {
            return self.error(error, event, seen);
        }
        if let Some(usage) = chunk.usage {
            self.counts.read(usage);
        }
        let choices = chunk.choices.map(Choices::read);
        match choices {
            Some(choices) if choices.text => self.content(seen),
            Some(_) => self.opening(),
            None if chunk.usage.is_none() => self.content(seen),
            None => {}
        }
        self.finished |= choices.is_some_and(|choices| choices.finished);
        if choices.is_some_and(|choices| choices.aborted) {
            self.cut(CutCause::Abort, event, seen);
        }
    }

    fn response_event(&mut self, event: &Event<'_>, seen: &mut Seen) {
        match type_of(event) {
            kind if kind.ends_with(b".delta") => self.content(seen),
            b"response.completed" | b"response.incomplete" => {
                self.usage_in(event, b"response");
                self.ended = Ended::Done;
            }
            b"response.failed" => {
                let response = find(event.data, b"response").unwrap_or_default();
                self.error(find(response, b"error").unwrap_or_default(), event, seen);
            }
            b"response.created" | b"response.queued" | b"response.in_progress" => self.opening(),
            b"error" => self.error(event.data, event, seen),
            b"" => self.chunk(event, seen),
            _ => {}
        }
    }

    fn message_event(&mut self, event: &Event<'_>, seen: &mut Seen) {
        match type_of(event) {
            b"content_block_delta" => self.content(seen),
            b"message_start" => {
                self.usage_in(event, b"message");
                self.opening();
            }
            b"message_delta" => {
                if let Some(usage) = find(event.data, b"usage") {
                    self.counts.read(usage);
                }
            }
            b"message_stop" => self.ended = Ended::Done,
            b"error" => {
                self.error(find(event.data, b"error").unwrap_or_default(), event, seen);
            }
            b"" => self.chunk(event, seen),
            _ => {}
        }
    }

    fn usage_in(&mut self, event: &Event<'_>, container: &[u8]) {
        let usage = find(event.data, container).and_then(|inside| find(inside, b"usage"));
        if let Some(usage) = usage {
            self.counts.read(usage);
        }
    }

    #[inline]
    fn content(&mut self, seen: &mut Seen) {
        self.first = Some(FirstEvent::Content);
        self.events += 1;
        seen.events = seen.events.saturating_add(1);
    }

    fn opening(&mut self) {
        self.first.get_or_insert(FirstEvent::Opening);
    }

    fn error(&mut self, error: &[u8], event: &Event<'_>, seen: &mut Seen) {
        let status = status_of(error);
        seen.error_status = Some(status);
        self.cut(CutCause::Error { status }, event, seen);
    }

    fn cut(&mut self, cause: CutCause, event: &Event<'_>, seen: &mut Seen) {
        let status = match cause {
            CutCause::Error { status } => status,
            CutCause::Abort | CutCause::Unfinished => 503,
        };
        if self.first != Some(FirstEvent::Content) {
            self.first = Some(FirstEvent::Error { status });
        }
        self.ended = Ended::Cut(cause);
        seen.cut_at = Some(event.end);
    }
}

/// The event's name; where an engine leaves it out, its `type`.
fn type_of<'a>(event: &Event<'a>) -> &'a [u8] {
    if event.name.is_empty() {
        find(event.data, b"type")
            .and_then(string)
            .unwrap_or_default()
    } else {
        event.name
    }
}

/// Whether a chunk must be looked into: it may hold an error, a usage or a finish reason. Most
/// hold the latter two as null. A key's quotes are bare, so generated text seldom matches.
#[inline]
fn is_telling(data: &[u8]) -> bool {
    Scanner::detect().any_quoted(data, *b"uef", |rest| {
        let value = match rest.first() {
            Some(b'u') => rest.strip_prefix(b"usage\""),
            Some(b'f') => rest.strip_prefix(b"finish_reason\""),
            _ => return rest.starts_with(b"error\""),
        };
        value.is_some_and(|value| !matches!(value, [b':', b'n', ..] | [b':', b' ', b'n', ..]))
    })
}

/// The members of a chunk that matter.
#[derive(Default)]
struct Chunk<'a> {
    error: Option<&'a [u8]>,
    usage: Option<&'a [u8]>,
    choices: Option<&'a [u8]>,
}

impl<'a> Chunk<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let mut members = Members::new(data, Scanner::detect()).ok()?;
        let mut chunk = Self::default();
        while let Some(member) = members.next().ok()? {
            let value = data.get(member.value)?;
            match data.get(member.key)? {
                b"error" if value != b"null" => chunk.error = Some(value),
                // SGLang's flat form.
                b"object" if value == b"\"error\"" => chunk.error = Some(data),
                b"usage" if value != b"null" => chunk.usage = Some(value),
                b"choices" => chunk.choices = Some(value),
                _ => {}
            }
        }
        Some(chunk)
    }
}

/// What the choices of a chunk say together.
#[derive(Clone, Copy, Default)]
struct Choices {
    /// One carries generated content.
    text: bool,
    /// One was aborted.
    aborted: bool,
    /// One told why it is finished.
    finished: bool,
}

impl Choices {
    fn read(choices: &[u8]) -> Self {
        let mut all = Self::default();
        elements(choices, |choice| {
            let reason = find(choice, b"finish_reason");
            all.aborted |= reason == Some(b"\"abort\"");
            all.finished |= reason.is_some_and(|reason| reason != b"null");
            all.text |= find(choice, b"delta").is_some_and(delta_has_content)
                || find(choice, b"text").is_some_and(|text| text != b"\"\"");
            true
        });
        all
    }
}

/// Whether a delta has more than a role: text, reasoning, tool calls.
fn delta_has_content(delta: &[u8]) -> bool {
    let Ok(mut members) = Members::new(delta, Scanner::detect()) else {
        return false;
    };
    while let Ok(Some(member)) = members.next() {
        let key = delta.get(member.key).unwrap_or_default();
        let value = delta.get(member.value).unwrap_or_default();
        if key != b"role" && !matches!(value, b"null" | b"\"\"" | b"[]") {
            return true;
        }
    }
    false
}

/// The status that an error object tells: `code` or `status` when it is one, else by its type.
fn status_of(error: &[u8]) -> u16 {
    let number = |key: &[u8]| {
        let value = find(error, key)?;
        let status = u16::try_from(integer(string(value).unwrap_or(value))?).ok()?;
        (400..600).contains(&status).then_some(status)
    };
    let text = |key: &[u8]| find(error, key).and_then(object::string);
    number(b"code")
        .or_else(|| number(b"status"))
        .or_else(|| text(b"type").and_then(status_of_kind))
        .or_else(|| text(b"code").and_then(status_of_kind))
        .unwrap_or(500)
}

fn status_of_kind(kind: &[u8]) -> Option<u16> {
    anthropic_status(kind).or(match kind {
        b"BadRequestError" | b"invalid_prompt" => Some(400),
        b"NotFoundError" | b"model_not_found" => Some(404),
        b"rate_limit_exceeded" => Some(429),
        b"server_error" | b"InternalServerError" => Some(500),
        _ => None,
    })
}
