//! Finds the values of one key in a JSON object that arrives in pieces, keeping nothing but state.
//!
//! The key counts at the top level and directly inside a member `response` (Responses API events)
//! or `message` (Anthropic's `message_start`); everything else is skipped without looking. What
//! is no JSON object ends the walk quietly: these are bytes that pass through, not ours to refuse.
//! The strict twin for whole slices is `object.rs`; users are `rename.rs` and `usage.rs`.

use crate::object::is_space;
use crate::peek::scan::{Nest, Scanner, Skipped};

/// A border of a wanted value, as an offset in the piece being fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The value's first byte is at `at`.
    Start { at: usize, is_string: bool },
    /// The value ended just before `at`; in the same piece as its start or in a later one.
    End { at: usize },
}

/// The walk's state between two pieces.
#[derive(Debug)]
pub(crate) struct Walk {
    wanted: &'static [u8],
    scanner: Scanner,
    state: State,
    /// Objects entered: 1 at the top level, 2 inside a container.
    level: u8,
    /// The current key, as far as it fits; a longer one matches nothing.
    key: [u8; LONGEST_KEY],
    key_length: usize,
    /// The current value is a wanted one.
    marked: bool,
    nest: Nest,
    escaped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the object.
    Outside,
    /// Before a key, a comma or the object's end.
    Between,
    Key,
    Colon,
    Value,
    Text,
    Nested,
    Literal,
    /// After the object, or after something that cannot stand where it stands.
    Over,
}

const LONGEST_KEY: usize = 12;
const CONTAINERS: [&[u8]; 2] = [b"response", b"message"];

impl Walk {
    /// A walk that marks the values of `wanted`, a key of at most 12 bytes.
    pub(crate) fn new(wanted: &'static [u8]) -> Self {
        Self {
            wanted,
            scanner: Scanner::detect(),
            state: State::Outside,
            level: 0,
            key: [0; LONGEST_KEY],
            key_length: 0,
            marked: false,
            nest: Nest::default(),
            escaped: false,
        }
    }

    /// Starts over, for the next object.
    pub(crate) fn reset(&mut self) {
        self.state = State::Outside;
        self.level = 0;
        self.marked = false;
    }

    /// Reads the next piece; `on` is told of the borders of wanted values, in order.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut on: impl FnMut(Mark)) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.state {
                State::Over => return,
                State::Text => self.text(rest, at, &mut on),
                State::Nested => self.nested(rest, at, &mut on),
                State::Key => self.key(rest),
                State::Literal => self.literal(rest, at, &mut on),
                _ => self.punctuation(rest, at, &mut on),
            };
        }
    }

    /// One byte between tokens.
    fn punctuation(&mut self, rest: &[u8], at: usize, on: &mut impl FnMut(Mark)) -> usize {
        let byte = rest.first().copied().unwrap_or(b' ');
        if is_space(byte) {
            return 1;
        }
        self.state = match (self.state, byte) {
            (State::Outside, b'{') => {
                self.level = 1;
                State::Between
            }
            (State::Between, b',') => State::Between,
            (State::Between, b'"') => {
                self.key_length = 0;
                self.escaped = false;
                State::Key
            }
            (State::Between, b'}') => {
                self.level -= 1;
                if self.level == 0 {
                    State::Over
                } else {
                    State::Between
                }
            }
            (State::Colon, b':') => State::Value,
            (State::Value, _) => return self.value(byte, at, on),
            _ => State::Over,
        };
        1
    }

    /// Collects a key up to its closing quote.
    fn key(&mut self, rest: &[u8]) -> usize {
        for (at, byte) in rest.iter().enumerate() {
            match byte {
                b'"' if !self.escaped => {
                    self.state = State::Colon;
                    return at + 1;
                }
                _ => self.escaped = *byte == b'\\' && !self.escaped,
            }
            if let Some(place) = self.key.get_mut(self.key_length) {
                *place = *byte;
            }
            self.key_length = (self.key_length + 1).min(LONGEST_KEY + 1);
        }
        rest.len()
    }

    /// The first byte of a value: what it will be, and whether it is wanted or entered.
    fn value(&mut self, byte: u8, at: usize, on: &mut impl FnMut(Mark)) -> usize {
        let key = self.key.get(..self.key_length).unwrap_or_default();
        self.marked = key == self.wanted;
        if !self.marked && byte == b'{' && self.level == 1 && CONTAINERS.contains(&key) {
            self.level = 2;
            self.state = State::Between;
            return 1;
        }
        if self.marked {
            on(Mark::Start {
                at,
                is_string: byte == b'"',
            });
        }
        self.escaped = false;
        self.nest = Nest::default();
        let (state, length) = match byte {
            b'"' => (State::Text, 1),
            b'{' | b'[' => (State::Nested, 0),
            _ => (State::Literal, 0),
        };
        self.state = state;
        length
    }

    fn text(&mut self, rest: &[u8], at: usize, on: &mut impl FnMut(Mark)) -> usize {
        let mut length = usize::from(core::mem::take(&mut self.escaped));
        while let Some(text) = rest.get(length..) {
            let Some(offset) = memchr::memchr2(b'"', b'\\', text) else {
                return rest.len();
            };
            length += offset + 1;
            if text.get(offset) == Some(&b'"') {
                self.ended(at + length, on);
                return length;
            }
            if length == rest.len() {
                self.escaped = true;
                return length;
            }
            length += 1;
        }
        rest.len()
    }

    fn nested(&mut self, rest: &[u8], at: usize, on: &mut impl FnMut(Mark)) -> usize {
        match self.scanner.skip_nested(&mut self.nest, rest) {
            Skipped::End(length) => {
                self.ended(at + length, on);
                length
            }
            Skipped::More => rest.len(),
            Skipped::Malformed => {
                self.state = State::Over;
                rest.len()
            }
        }
    }

    fn literal(&mut self, rest: &[u8], at: usize, on: &mut impl FnMut(Mark)) -> usize {
        let ends = |byte: &u8| is_space(*byte) || matches!(byte, b',' | b'}' | b']' | b'"');
        let Some(length) = rest.iter().position(ends) else {
            return rest.len();
        };
        self.ended(at + length, on);
        length
    }

    fn ended(&mut self, at: usize, on: &mut impl FnMut(Mark)) {
        self.state = State::Between;
        if core::mem::take(&mut self.marked) {
            on(Mark::End { at });
        }
    }
}

#[cfg(test)]
mod tests;
