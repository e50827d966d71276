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

/// Keys that decide about routing: unique and plainly spelt.
const ROUTED: [&str; 13] = [
    "model",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "stream_options",
    "cache_salt",
    "messages",
    "prompt",
    "input",
    "system",
    "instructions",
    "tools",
];

const MODEL: usize = 0;
const STREAM: usize = 1;
const LIMITS: core::ops::Range<usize> = 2..5;
const STREAM_OPTIONS: usize = 5;
const CACHE_SALT: usize = 6;

/// The longest routed key, spelt with `\uXXXX` throughout.
const LONGEST_ESCAPED: usize = 21 * 6;

/// Peeks at a whole body.
///
/// # Errors
/// When the body is no JSON object at its top level, or a routed key is ambiguous.
pub fn peek(body: &[u8], api: Api) -> Result<Peek, PeekError> {
    peek_with(body, api, Scanner::detect())
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
    /// One bit per entry of `ROUTED`.
    seen: u16,
    /// `max_tokens`, `max_completion_tokens`, `max_output_tokens`.
    limits: [Option<u32>; 3],
}

impl Reading<'_> {
    #[inline]
    fn take(&mut self, member: &Member) -> Result<(), PeekError> {
        let key = self.body.get(member.key.clone()).unwrap_or_default();
        let at = member.key.start;
        let Some(routed) = routed(key) else {
            return match hidden_key(key) {
                Some(key) => Err(PeekError::EscapedKey { key, at }),
                None => Ok(()),
            };
        };
        if self.seen & (1 << routed) != 0 {
            let key = ROUTED.get(routed).copied().unwrap_or_default();
            return Err(PeekError::DuplicateKey { key, at });
        }
        self.seen |= 1 << routed;
        self.value(routed, member)
    }

    #[inline]
    fn value(&mut self, routed: usize, member: &Member) -> Result<(), PeekError> {
        let value = self.body.get(member.value.clone()).unwrap_or_default();
        match routed {
            MODEL => self.peek.model = Some(self.string("model", member)?),
            STREAM => self.peek.stream = value == b"true",
            // Null is the field's absence (pydantic's default).
            CACHE_SALT if value == b"null" => {}
            CACHE_SALT => self.peek.cache_salt = Some(self.string("cache_salt", member)?),
            STREAM_OPTIONS => {
                self.peek.include_usage = object::find(value, b"include_usage") == Some(b"true");
            }
            _ if LIMITS.contains(&routed) => {
                if let Some(limit) = self.limits.get_mut(routed - LIMITS.start) {
                    *limit = object::integer(value);
                }
            }
            _ => self.prompt(routed, member),
        }
        Ok(())
    }

    fn string(&self, key: &'static str, member: &Member) -> Result<Span, PeekError> {
        let at = member.value.start;
        let value = self.body.get(member.value.clone()).unwrap_or_default();
        let text = object::string(value).filter(|raw| text::unescape(raw).is_some());
        text.ok_or(PeekError::NotString { key, at })?;
        Ok(span(at + 1, member.value.end - 1))
    }

    #[inline]
    fn prompt(&mut self, routed: usize, member: &Member) {
        let key = ROUTED.get(routed).copied().unwrap_or_default();
        let slot = match (self.api, key) {
            (Api::ChatCompletions | Api::Responses | Api::Messages, "tools") => 0,
            (Api::Messages, "system") | (Api::Responses, "instructions") => 1,
            (Api::ChatCompletions | Api::Messages, "messages")
            | (Api::Completions, "prompt")
            | (Api::Embeddings | Api::Responses, "input") => 2,
            _ => return,
        };
        if let Some(slot) = self.peek.prompt.get_mut(slot) {
            *slot = Some(span(member.value.start, member.value.end));
        }
    }
}

/// The body's length was checked to fit.
fn span(start: usize, end: usize) -> Span {
    start as u32..end as u32
}

#[inline]
fn routed(key: &[u8]) -> Option<usize> {
    ROUTED.iter().position(|routed| routed.as_bytes() == key)
}

/// The routed key that an escaped spelling stands for.
#[inline]
fn hidden_key(key: &[u8]) -> Option<&'static str> {
    if key.len() > LONGEST_ESCAPED || !key.contains(&b'\\') {
        return None;
    }
    let plain = text::unescape(key)?;
    ROUTED.into_iter().find(|routed| *routed == plain)
}

#[cfg(test)]
mod tests;
