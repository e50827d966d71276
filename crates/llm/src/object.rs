//! Members of one JSON object in a complete slice: spans of keys and values, nothing built.
//!
//! Walks one level and skips what is nested, so depth costs no stack. Punctuation, literals' first
//! bytes and brackets' balance are checked; the insides of strings and nested values are not (the
//! engine parses them). Used by `peek.rs`, and on the response side by `usage.rs` and `stream.rs`.

use crate::peek::scan::{Nest, Scanner, Skipped};
use core::ops::Range;

/// One member. Spans are offsets into the walked slice.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Raw bytes between the key's quotes.
    pub(crate) key: Range<usize>,
    /// The whole value, quotes and brackets included.
    pub(crate) value: Range<usize>,
}

/// Where a slice stops being an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed {
    /// Offset of the first byte that does not fit; the length when the slice ends too early.
    pub(crate) at: usize,
}

/// The walk. `next` gives members until the object is closed and only space follows.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    bytes: &'a [u8],
    at: usize,
    scanner: Scanner,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    First,
    Later,
    Over,
}

impl<'a> Members<'a> {
    /// A walk over `bytes`, which must hold one object and white space only.
    ///
    /// # Errors
    /// When the first byte that is no space is not `{`.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8], scanner: Scanner) -> Result<Self, Malformed> {
        let at = skip_space(bytes, 0);
        if bytes.get(at) != Some(&b'{') {
            return Err(Malformed { at });
        }
        Ok(Self {
            bytes,
            at: skip_space(bytes, at + 1),
            scanner,
            state: State::First,
        })
    }

    /// The next member, `None` once at the object's end.
    ///
    /// # Errors
    /// At the first byte that cannot stand there; the walk is over then.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<Member>, Malformed> {
        let is_over = self.state == State::Over;
        match self.next_inside()? {
            None if !is_over => self.end(),
            member => Ok(member),
        }
    }

    /// The same, whatever follows the object: at its end, [`Members::at`] is behind its bracket.
    ///
    /// # Errors
    /// As [`Members::next`].
    #[inline(always)]
    pub(crate) fn next_inside(&mut self) -> Result<Option<Member>, Malformed> {
        let state = core::mem::replace(&mut self.state, State::Over);
        match (self.bytes.get(self.at), state) {
            (_, State::Over) => return Ok(None),
            (Some(b'}'), _) => {
                self.at += 1;
                return Ok(None);
            }
            (Some(b','), State::Later) => self.at = skip_space(self.bytes, self.at + 1),
            (_, State::First) => {}
            _ => return Err(self.here()),
        }
        let member = self.member()?;
        self.at = skip_space(self.bytes, member.value.end);
        self.state = State::Later;
        Ok(Some(member))
    }

    /// Where the walk stands.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    #[inline(always)]
    fn member(&self) -> Result<Member, Malformed> {
        let bytes = self.bytes;
        if bytes.get(self.at) != Some(&b'"') {
            return Err(self.here());
        }
        let key_end = self.string_end(self.at + 1)?;
        let colon = skip_space(bytes, key_end + 1);
        if bytes.get(colon) != Some(&b':') {
            return Err(Malformed { at: colon });
        }
        let from = skip_space(bytes, colon + 1);
        let to = self.value_end(from)?;
        Ok(Member {
            key: self.at + 1..key_end,
            value: from..to,
        })
    }

    #[inline(always)]
    fn value_end(&self, from: usize) -> Result<usize, Malformed> {
        let bytes = self.bytes;
        match bytes.get(from) {
            Some(b'"') => Ok(self.string_end(from + 1)? + 1),
            Some(b'{' | b'[') => {
                let value = bytes.get(from..).unwrap_or_default();
                match self.scanner.skip_nested(&mut Nest::default(), value) {
                    Skipped::End(length) => Ok(from + length),
                    Skipped::More => Err(Malformed { at: bytes.len() }),
                    Skipped::Malformed => Err(Malformed { at: from }),
                }
            }
            // Numbers, true, false, null; NaN and Infinity, which Python's parser takes.
            Some(b'-' | b'0'..=b'9' | b't' | b'f' | b'n' | b'N' | b'I') => {
                Ok(literal_end(bytes, from))
            }
            _ => Err(Malformed { at: from }),
        }
    }

    #[inline]
    fn string_end(&self, from: usize) -> Result<usize, Malformed> {
        let end = self.scanner.string_end(self.bytes, from);
        end.ok_or(Malformed {
            at: self.bytes.len(),
        })
    }

    fn end(&mut self) -> Result<Option<Member>, Malformed> {
        let at = skip_space(self.bytes, self.at);
        if at == self.bytes.len() {
            Ok(None)
        } else {
            Err(Malformed { at })
        }
    }

    fn here(&self) -> Malformed {
        Malformed { at: self.at }
    }
}

#[inline]
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

#[inline]
fn skip_space(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while bytes.get(at).is_some_and(|byte| is_space(*byte)) {
        at += 1;
    }
    at
}

#[inline]
fn literal_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while bytes.get(at).is_some_and(
        |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.'),
    ) {
        at += 1;
    }
    at
}

/// Calls `on` with each element of an array in a complete slice, until it returns false.
/// `None` when the slice is no array up to the point reached.
pub(crate) fn elements<'a>(bytes: &'a [u8], mut on: impl FnMut(&'a [u8]) -> bool) -> Option<()> {
    let walk = Members {
        bytes,
        at: 0,
        scanner: Scanner::detect(),
        state: State::First,
    };
    let mut at = skip_space(bytes, 0);
    if bytes.get(at) != Some(&b'[') {
        return None;
    }
    at = skip_space(bytes, at + 1);
    if bytes.get(at) == Some(&b']') {
        return Some(());
    }
    loop {
        let end = walk.value_end(at).ok()?;
        if !on(bytes.get(at..end)?) {
            return Some(());
        }
        at = skip_space(bytes, end);
        match bytes.get(at) {
            Some(b',') => at = skip_space(bytes, at + 1),
            Some(b']') => return Some(()),
            _ => return None,
        }
    }
}

/// The value of the last member called `key`, if `bytes` are an object up to its end.
pub(crate) fn find<'a>(bytes: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let mut members = Members::new(bytes, Scanner::detect()).ok()?;
    let mut found = None;
    while let Some(member) = members.next().ok()? {
        if bytes.get(member.key) == Some(key) {
            found = bytes.get(member.value);
        }
    }
    found
}

/// A JSON integer of digits only, larger ones saturated; `None` for anything else.
pub(crate) fn integer(value: &[u8]) -> Option<u32> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u32, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

/// The raw bytes between the quotes when `value` is a string.
pub(crate) fn string(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

#[cfg(test)]
mod tests;
