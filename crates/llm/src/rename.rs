//! Puts the name that the client asked for into a response, where the engine wrote another.
//!
//! The value of `model` is replaced at the top level of a JSON body or of each event, and inside
//! `response` (Responses API) and `message` (Anthropic's `message_start`). All other bytes pass
//! unchanged and at once: nothing is held back, whatever the borders of the pieces. What is no
//! JSON object passes as it is, and so does a `model` that is no string.

use crate::api::Api;
use crate::text;
use crate::walk::{Mark, Walk};

/// The rename of one response.
#[derive(Debug)]
pub struct ModelRename {
    /// The name as a JSON string, quotes included.
    name: Vec<u8>,
    walk: Walk,
    /// Inside a value that is being replaced.
    replacing: bool,
    /// Lines of an event stream; `None` for a JSON body.
    lines: Option<Lines>,
}

/// Where in an event stream's lines we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lines {
    line: Line,
    after_cr: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// So many bytes of `data:` were matched since the line's start.
    Start(usize),
    /// After the field name: one space more, or data.
    Space,
    Data,
    Other,
}

const FIELD: &[u8] = b"data:";

impl ModelRename {
    /// A rename to `name`, of an event stream or of a JSON body.
    #[must_use]
    pub fn new(_api: Api, name: &str, is_stream: bool) -> Self {
        let mut quoted = Vec::with_capacity(name.len() + 2);
        text::quoted(name, &mut quoted);
        Self {
            name: quoted,
            walk: Walk::new(b"model"),
            replacing: false,
            lines: is_stream.then_some(Lines::default()),
        }
    }

    /// Takes the next piece of payload and appends what the client gets for it.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(mut lines) = self.lines else {
            return self.json(bytes, out);
        };
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let from = at;
            match (lines.line, byte) {
                (_, b'\n' | b'\r') => {
                    at += 1;
                    self.line_end(&mut lines, *byte);
                }
                (Line::Start(matched), byte) => {
                    at += 1;
                    lines.line = match FIELD.get(matched) {
                        // A byte order mark at the stream's start is no part of the line.
                        _ if matched == 0 && b"\xEF\xBB\xBF".contains(byte) => Line::Start(0),
                        Some(wanted) if wanted != byte => Line::Other,
                        _ if matched + 1 == FIELD.len() => Line::Space,
                        _ => Line::Start(matched + 1),
                    };
                }
                (Line::Space, b' ') => {
                    at += 1;
                    lines.line = Line::Data;
                }
                (Line::Space | Line::Data, _) => {
                    lines.line = Line::Data;
                    at = line_end(bytes, at);
                    self.json(bytes.get(from..at).unwrap_or_default(), out);
                    continue;
                }
                (Line::Other, _) => at = line_end(bytes, at),
            }
            lines.after_cr = *byte == b'\r';
            out.extend_from_slice(bytes.get(from..at).unwrap_or_default());
        }
        self.lines = Some(lines);
    }

    /// Ends the response. Nothing is ever held back, so nothing is appended; the rename may then
    /// serve the next response of the same kind.
    pub fn finish(&mut self, _out: &mut Vec<u8>) {
        self.walk.reset();
        self.replacing = false;
        self.lines = self.lines.map(|_| Lines::default());
    }

    fn line_end(&mut self, lines: &mut Lines, byte: u8) {
        if byte == b'\n' && lines.after_cr {
            return;
        }
        if lines.line == Line::Start(0) {
            // The blank line: the next event is another object.
            self.walk.reset();
            self.replacing = false;
        }
        lines.line = Line::Start(0);
    }

    fn json(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Self {
            name,
            walk,
            replacing,
            ..
        } = self;
        let mut copied = 0;
        walk.feed(bytes, |mark| match mark {
            Mark::Start {
                at,
                is_string: true,
            } => {
                out.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
                out.extend_from_slice(name);
                *replacing = true;
            }
            Mark::End { at } if *replacing => {
                copied = at;
                *replacing = false;
            }
            _ => {}
        });
        if !*replacing {
            out.extend_from_slice(bytes.get(copied..).unwrap_or_default());
        }
    }
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            line: Line::Start(0),
            after_cr: false,
        }
    }
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    at + memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests;
