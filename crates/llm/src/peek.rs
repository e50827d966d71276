//! What routing needs from a request body, as spans: model, stream, limits, the prompt's bytes.
//!
//! Walks the top level only; nothing is parsed to a tree, copied or rewritten, so what an engine
//! gets is what the client sent. The peek and the engine must not read different values: a routed
//! key that occurs twice, or whose spelling hides behind an escape, is refused (parsers differ on
//! which one wins). Other keys may be anything. What is wrong inside a value is left to the engine.
//! Next: `peek/scan.rs` (skipping), `object.rs` (the walk), `splice.rs` (changing the model).

pub(crate) mod scan;

use crate::api::Api;
use crate::object::{self, Malformed, Member, Members};
use crate::text;
use scan::Scanner;
use std::borrow::Cow;

/// Offsets into a body, end exclusive.
pub type Span = core::ops::Range<u32>;

/// What a body asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peek {
    /// Raw bytes between the quotes of `model`; they are valid JSON text (`model_str` reads it).
    pub model: Option<Span>,
    /// `"stream": true`. A hint: how the answer is framed, its content type says.
    pub stream: bool,
    /// `max_completion_tokens`, else `max_tokens`, else `max_output_tokens`, when a plain integer;
    /// more than `u32::MAX` is `u32::MAX`.
    pub max_tokens: Option<u32>,
    /// `stream_options.include_usage` is true.
    pub include_usage: bool,
    /// Raw bytes between the quotes of `cache_salt` (vLLM: blocks are shared within a salt only).
    pub cache_salt: Option<Span>,
    /// Raw values in the order in which engines put them in the prompt: `tools`; `system` or
    /// `instructions`; `messages`, `prompt` or `input`, as the API has them.
    pub prompt: [Option<Span>; 3],
}

/// Why a body cannot be routed. The answer is 400 (413 for `TooLarge`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeekError {
    /// The first byte that is no white space is not `{`.
    #[error("the body is not a JSON object (at byte {at})")]
    NotObject {
        /// Offset of that byte.
        at: usize,
    },
    /// A byte cannot stand where it stands.
    #[error("the body is not valid JSON at byte {at}")]
    NotJson {
        /// Offset of the first byte that does not fit.
        at: usize,
    },
    /// The body ends inside the object.
    #[error("the body ends at byte {at} before its JSON object is complete")]
    Truncated {
        /// Length of the body.
        at: usize,
    },
    /// `model` or `cache_salt` is not a string of valid JSON text.
    #[error("the value of {key:?} at byte {at} must be a JSON string")]
    NotString {
        /// The key.
        key: &'static str,
        /// Offset of the value.
        at: usize,
    },
    /// A key that decides about routing occurs twice.
    #[error("the key {key:?} occurs a second time at byte {at}; send it once")]
    DuplicateKey {
        /// The key.
        key: &'static str,
        /// Offset of the second occurrence.
        at: usize,
    },
    /// A key that decides about routing is spelt with an escape.
    #[error("the key {key:?} at byte {at} is written with an escape; write it plainly")]
    EscapedKey {
        /// The key that it stands for.
        key: &'static str,
        /// Offset of the key.
        at: usize,
    },
    /// More than 4 GiB.
    #[error("the body of {length} bytes is larger than 4 GiB")]
    TooLarge {
        /// Length of the body.
        length: usize,
    },
}

impl PeekError {
    /// A stable name for clients and metrics, e.g. `duplicate_key`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotObject { .. } => "body_not_object",
            Self::NotJson { .. } => "body_not_json",
            Self::Truncated { .. } => "body_truncated",
            Self::NotString { .. } => "not_a_string",
            Self::DuplicateKey { .. } => "duplicate_key",
            Self::EscapedKey { .. } => "escaped_key",
            Self::TooLarge { .. } => "body_too_large",
        }
    }

    /// Status of the answer.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            _ => 400,
        }
    }

    /// The key that is at fault, for an error's `param`.
    #[must_use]
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::NotString { key, .. }
            | Self::DuplicateKey { key, .. }
            | Self::EscapedKey { key, .. } => Some(key),
            _ => None,
        }
    }
}

impl Peek {
    /// The model's name as text; borrowed unless it holds escapes. `body` is the peeked one.
    #[must_use]
    pub fn model_str<'a>(&self, body: &'a [u8]) -> Option<Cow<'a, str>> {
        text::unescape(slice(body, self.model.as_ref()?)?)
    }

    /// The salt as text, like `model_str`.
    #[must_use]
    pub fn cache_salt_str<'a>(&self, body: &'a [u8]) -> Option<Cow<'a, str>> {
        text::unescape(slice(body, self.cache_salt.as_ref()?)?)
    }

    /// The prompt's bytes in engine order, for `block_hashes`.
    pub fn prompt_slices<'a>(&self, body: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + Clone {
        let spans = self.prompt.clone();
        spans
            .into_iter()
            .flatten()
            .filter_map(move |span| slice(body, &span))
    }

    /// Bytes of the prompt, for `estimate_tokens`.
    #[must_use]
    pub fn prompt_bytes(&self) -> usize {
        self.prompt
            .iter()
            .flatten()
            .map(ExactSizeIterator::len)
            .sum()
    }
}

fn slice<'a>(body: &'a [u8], span: &Span) -> Option<&'a [u8]> {
    body.get(span.start as usize..span.end as usize)
}

/// A key that decides about routing: unique and plainly spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Model,
    Stream,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    StreamOptions,
    CacheSalt,
    Messages,
    Prompt,
    Input,
    System,
    Instructions,
    Tools,
}

/// The longest routed key, spelt with `\uXXXX` throughout.
const LONGEST_ESCAPED: usize = 21 * 6;

/// Peeks at a whole body.
///
/// # Errors
/// When the body is no JSON object at its top level, or a routed key is ambiguous.
pub fn peek(body: &[u8], api: Api) -> Result<Peek, PeekError> {
    peek_with(body, api, Scanner::detect())
}

/// `peek` with the scalar twin of the scan: the fuzz target holds one to the other.
///
/// # Errors
/// As `peek`.
#[cfg(feature = "fuzzing")]
pub fn peek_scalar(body: &[u8], api: Api) -> Result<Peek, PeekError> {
    peek_with(body, api, Scanner::scalar())
}

fn peek_with(body: &[u8], api: Api, scanner: Scanner) -> Result<Peek, PeekError> {
    if u32::try_from(body.len()).is_err() {
        return Err(PeekError::TooLarge { length: body.len() });
    }
    let mut members =
        Members::new(body, scanner).map_err(|Malformed { at }| PeekError::NotObject { at })?;
    let mut reading = Reading {
        body,
        api,
        peek: Peek::default(),
        seen: 0,
        limits: [None; 3],
    };
    while let Some(member) = members
        .next()
        .map_err(|malformed| broken(body, malformed))?
    {
        reading.take(&member)?;
    }
    let [tokens, completion_tokens, output_tokens] = reading.limits;
    reading.peek.max_tokens = completion_tokens.or(tokens).or(output_tokens);
    Ok(reading.peek)
}

fn broken(body: &[u8], Malformed { at }: Malformed) -> PeekError {
    if at >= body.len() {
        PeekError::Truncated { at }
    } else {
        PeekError::NotJson { at }
    }
}

struct Reading<'a> {
    body: &'a [u8],
    api: Api,
    peek: Peek,
    /// One bit per `Key`.
    seen: u16,
    /// `max_tokens`, `max_completion_tokens`, `max_output_tokens`.
    limits: [Option<u32>; 3],
}

impl Reading<'_> {
    #[inline]
    fn take(&mut self, member: &Member) -> Result<(), PeekError> {
        let spelt = self.body.get(member.key.clone()).unwrap_or_default();
        let at = member.key.start;
        let Some(key) = Key::of(spelt) else {
            return match hidden_key(spelt) {
                Some(key) => Err(PeekError::EscapedKey {
                    key: key.name(),
                    at,
                }),
                None => Ok(()),
            };
        };
        let bit = 1 << key as u16;
        if self.seen & bit != 0 {
            return Err(PeekError::DuplicateKey {
                key: key.name(),
                at,
            });
        }
        self.seen |= bit;
        self.value(key, member)
    }

    #[inline]
    fn value(&mut self, key: Key, member: &Member) -> Result<(), PeekError> {
        let value = self.body.get(member.value.clone()).unwrap_or_default();
        let [tokens, completion_tokens, output_tokens] = &mut self.limits;
        match key {
            Key::Model => self.peek.model = Some(self.string("model", member)?),
            Key::Stream => self.peek.stream = value == b"true",
            Key::MaxTokens => *tokens = object::integer(value),
            Key::MaxCompletionTokens => *completion_tokens = object::integer(value),
            Key::MaxOutputTokens => *output_tokens = object::integer(value),
            Key::StreamOptions => {
                self.peek.include_usage = object::find(value, b"include_usage") == Some(b"true");
            }
            // Null is the field's absence (pydantic's default).
            Key::CacheSalt if value == b"null" => {}
            Key::CacheSalt => self.peek.cache_salt = Some(self.string("cache_salt", member)?),
            Key::Messages
            | Key::Prompt
            | Key::Input
            | Key::System
            | Key::Instructions
            | Key::Tools => self.prompt(key, member),
        }
        Ok(())
    }

    fn string(&self, key: &'static str, member: &Member) -> Result<Span, PeekError> {
        let at = member.value.start;
        let value = self.body.get(member.value.clone()).unwrap_or_default();
        match object::string(value) {
            Some(raw) if text::is_valid(raw) => Ok(span(at + 1, member.value.end - 1)),
            _ => Err(PeekError::NotString { key, at }),
        }
    }

    #[inline]
    fn prompt(&mut self, key: Key, member: &Member) {
        let [tools, system, text] = &mut self.peek.prompt;
        let slot = match (self.api, key) {
            (Api::ChatCompletions | Api::Responses | Api::Messages, Key::Tools) => tools,
            (Api::Messages, Key::System) | (Api::Responses, Key::Instructions) => system,
            (Api::ChatCompletions | Api::Messages, Key::Messages)
            | (Api::Completions, Key::Prompt)
            | (Api::Embeddings | Api::Responses, Key::Input) => text,
            _ => return,
        };
        *slot = Some(span(member.value.start, member.value.end));
    }
}

impl Key {
    #[inline]
    fn of(spelt: &[u8]) -> Option<Self> {
        Some(match spelt {
            b"model" => Self::Model,
            b"stream" => Self::Stream,
            b"max_tokens" => Self::MaxTokens,
            b"max_completion_tokens" => Self::MaxCompletionTokens,
            b"max_output_tokens" => Self::MaxOutputTokens,
            b"stream_options" => Self::StreamOptions,
            b"cache_salt" => Self::CacheSalt,
            b"messages" => Self::Messages,
            b"prompt" => Self::Prompt,
            b"input" => Self::Input,
            b"system" => Self::System,
            b"instructions" => Self::Instructions,
            b"tools" => Self::Tools,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Stream => "stream",
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
            Self::StreamOptions => "stream_options",
            Self::CacheSalt => "cache_salt",
            Self::Messages => "messages",
            Self::Prompt => "prompt",
            Self::Input => "input",
            Self::System => "system",
            Self::Instructions => "instructions",
            Self::Tools => "tools",
        }
    }
}

/// The body's length was checked to fit.
fn span(start: usize, end: usize) -> Span {
    start as u32..end as u32
}

/// The routed key that an escaped spelling stands for.
#[inline]
fn hidden_key(spelt: &[u8]) -> Option<Key> {
    if spelt.len() > LONGEST_ESCAPED || !spelt.contains(&b'\\') {
        return None;
    }
    Key::of(text::unescape(spelt)?.as_bytes())
}

#[cfg(test)]
mod tests;
