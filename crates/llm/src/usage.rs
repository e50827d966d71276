//! Token counts that an engine reports, in a whole body, in a body passed through, in an event.
//!
//! Only a member `usage` of the top level (or of `response` and `message`, where streams carry it)
//! counts: generated text that spells `"usage":` cannot fool it. Field names are OpenAI's
//! (`prompt_tokens`; `input_tokens` in the Responses API) and Anthropic's, whose `input_tokens`
//! leaves out what came from the cache. Recorded answers of the engines are the tests.

use crate::api::Api;
use crate::object::{self, Members};
use crate::peek::scan::{Nest, Scanner, Skipped};
use crate::walk::{Mark, Walk};
use memchr::memmem::Finder;
use std::sync::LazyLock;

/// Tokens of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt, cached ones included; 0 when the engine did not say.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
    /// Prompt tokens that the engine took from its cache; `None` when it did not say.
    pub cached_tokens: Option<u32>,
    /// Counted by us from the stream's events, for want of the engine's own counts.
    pub estimated: bool,
}

/// Counts of one or several `usage` objects: a later one wins field by field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    prompt: Option<u32>,
    completion: Option<u32>,
    cached: Option<u32>,
    /// Anthropic's names: cached tokens stand beside `input_tokens`, not inside.
    cache_read: Option<u32>,
    cache_written: Option<u32>,
}

impl Counts {
    /// Takes over what the `usage` object at the start of `value` says, and returns its length.
    /// Anything that is no object says nothing.
    pub(crate) fn read(&mut self, value: &[u8]) -> Option<usize> {
        // What was taken over before the usual spelling ended is read again, and is the same then.
        self.read_usual(value).or_else(|| self.read_any(value))
    }

    /// The object as engines mostly write it: known keys, numbers or `null`, at most one space
    /// between two things. `None`: it has something else.
    fn read_usual(&mut self, value: &[u8]) -> Option<usize> {
        let mut rest = value.strip_prefix(b"{")?;
        loop {
            let (field, behind) = self.usual_key(rest)?;
            rest = match behind.strip_prefix(b"null") {
                Some(behind) => behind,
                None => match field {
                    Place::Count(field) => usual_number(behind, field)?,
                    Place::Details(cached) => {
                        let inside = past_space(behind.strip_prefix(b"{\"cached_tokens\":")?);
                        usual_number(inside, Some(cached))?.strip_prefix(b"}")?
                    }
                },
            };
            match rest {
                [b'}', behind @ ..] => return Some(value.len() - behind.len()),
                [b',', behind @ ..] => rest = past_space(behind),
                _ => return None,
            }
        }
    }

    /// Where the value of the key at the start of `text` goes, and what follows key and colon.
    #[inline]
    fn usual_key<'t>(&mut self, text: &'t [u8]) -> Option<(Place<'_>, &'t [u8])> {
        let text = text.strip_prefix(b"\"")?;
        let (place, behind) = if let Some(behind) = text.strip_prefix(b"prompt_tokens\":") {
            (Place::Count(Some(&mut self.prompt)), behind)
        } else if let Some(behind) = text.strip_prefix(b"total_tokens\":") {
            (Place::Count(None), behind)
        } else if let Some(behind) = text.strip_prefix(b"completion_tokens\":") {
            (Place::Count(Some(&mut self.completion)), behind)
        } else if let Some(behind) = text.strip_prefix(b"prompt_tokens_details\":") {
            (Place::Details(&mut self.cached), behind)
        } else if let Some(behind) = text.strip_prefix(b"input_tokens\":") {
            (Place::Count(Some(&mut self.prompt)), behind)
        } else {
            let behind = text.strip_prefix(b"output_tokens\":")?;
            (Place::Count(Some(&mut self.completion)), behind)
        };
        Some((place, past_space(behind)))
    }

    fn read_any(&mut self, value: &[u8]) -> Option<usize> {
        let mut members = Members::new(value, Scanner::detect()).ok()?;
        while let Some(member) = members.next_inside().ok()? {
            let key = value.get(member.key).unwrap_or_default();
            let value = value.get(member.value).unwrap_or_default();
            let (field, value) = match key {
                b"prompt_tokens" | b"input_tokens" => (&mut self.prompt, value),
                b"completion_tokens" | b"output_tokens" => (&mut self.completion, value),
                b"cache_read_input_tokens" => (&mut self.cache_read, value),
                b"cache_creation_input_tokens" => (&mut self.cache_written, value),
                b"prompt_tokens_details" | b"input_tokens_details" => {
                    let Some(cached) = object::find(value, b"cached_tokens") else {
                        continue;
                    };
                    (&mut self.cached, cached)
                }
                _ => continue,
            };
            if let Some(count) = object::integer(value) {
                *field = Some(count);
            }
        }
        Some(members.at())
    }

    /// The sum of it, once either count of tokens is known.
    pub(crate) fn usage(&self) -> Option<Usage> {
        if self.prompt.is_none() && self.completion.is_none() {
            return None;
        }
        let beside = self
            .cache_read
            .unwrap_or(0)
            .saturating_add(self.cache_written.unwrap_or(0));
        Some(Usage {
            prompt_tokens: self.prompt.unwrap_or(0).saturating_add(beside),
            completion_tokens: self.completion.unwrap_or(0),
            cached_tokens: self.cached.or(self.cache_read),
            estimated: false,
        })
    }
}

/// The usage that a whole JSON answer reports; `None` when it reports none or is no JSON object.
#[must_use]
pub fn body_usage(body: &[u8], api: Api) -> Option<Usage> {
    if api != Api::Responses
        && let Some(counts) = last_member(body)
    {
        return counts.usage();
    }
    let mut counts = Counts::default();
    counts.read(object::find(body, b"usage")?);
    counts.usage()
}

/// Where the value of a key goes.
enum Place<'c> {
    /// A number that counts, or one that nobody needs.
    Count(Option<&'c mut Option<u32>>),
    /// An object with the number of cached tokens.
    Details(&'c mut Option<u32>),
}

/// Reads the integer at the start of `text` and returns what follows it.
#[inline]
fn usual_number<'t>(text: &'t [u8], field: Option<&mut Option<u32>>) -> Option<&'t [u8]> {
    let mut rest = text;
    let mut number = 0_u32;
    while let [digit @ b'0'..=b'9', behind @ ..] = rest {
        let digit = u32::from(digit - b'0');
        number = number.saturating_mul(10).saturating_add(digit);
        rest = behind;
    }
    let ends = rest.len() < text.len() && matches!(rest, [b',' | b'}', ..]);
    if ends && let Some(field) = field {
        *field = Some(number);
    }
    ends.then_some(rest)
}

#[inline]
fn past_space(text: &[u8]) -> &[u8] {
    text.strip_prefix(b" ").unwrap_or(text)
}

static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));

/// How near to its end a body's usage is looked for before all members are followed.
const NEAR_END: usize = 512;

/// What `usage` says where it is one of the last members of the body's object, as engines write
/// it. Generated text cannot pass for the key: inside a JSON string every quote has a backslash
/// before it. What follows the key must close the outermost object and nothing else.
fn last_member(body: &[u8]) -> Option<Counts> {
    let near = body.get(body.len().saturating_sub(NEAR_END)..)?;
    // Forwards, as only that search has vector code.
    let at = KEY.find_iter(near).last()?;
    let before = near.get(..at)?;
    let backslashes = before
        .iter()
        .rev()
        .take_while(|byte| **byte == b'\\')
        .count();
    let after = near.get(at + b"\"usage\"".len()..)?.trim_ascii_start();
    let value = after.strip_prefix(b":")?.trim_ascii_start();
    if backslashes % 2 != 0 || value.first() != Some(&b'{') {
        return None;
    }
    let mut counts = Counts::default();
    let behind = value.get(counts.read(value)?..)?;
    closes_one(behind).then_some(counts)
}

/// Whether `rest`, from behind a value on, ends exactly the object that the value is a member of.
fn closes_one(rest: &[u8]) -> bool {
    if rest == b"}" {
        return true;
    }
    let end = Scanner::detect().skip_nested(&mut Nest::inside(), rest);
    let Skipped::End(length) = end else {
        return false;
    };
    rest.get(length..)
        .unwrap_or_default()
        .trim_ascii()
        .is_empty()
}

/// The longest `usage` object that is read, in bytes.
const LONGEST_USAGE: usize = 4096;

/// Finds the usage in a JSON answer that passes through in pieces. Keeps the `usage` object only.
#[derive(Debug)]
pub struct BodyScan {
    walk: Walk,
    capturing: bool,
    captured: Vec<u8>,
    counts: Counts,
}

impl Default for BodyScan {
    fn default() -> Self {
        Self::new()
    }
}

impl BodyScan {
    /// A scan of one body.
    #[must_use]
    pub fn new() -> Self {
        Self {
            walk: Walk::new(b"usage"),
            capturing: false,
            captured: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Reads the next piece of the body.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Self {
            walk,
            capturing,
            captured,
            counts,
        } = self;
        let mut from = 0;
        walk.feed(bytes, |mark| match mark {
            Mark::Start { at, .. } => {
                *capturing = true;
                captured.clear();
                from = at;
            }
            Mark::End { at } => {
                keep(captured, bytes.get(from..at).unwrap_or_default());
                *capturing = false;
                counts.read(captured);
            }
        });
        if *capturing {
            keep(captured, bytes.get(from..).unwrap_or_default());
        }
    }

    /// What the body reported so far.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.counts.usage()
    }
}

/// Appends up to the bound; what is longer is cut and then no JSON object.
fn keep(captured: &mut Vec<u8>, bytes: &[u8]) {
    let room = LONGEST_USAGE.saturating_sub(captured.len());
    captured.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
}

#[cfg(test)]
mod tests;
