//! Server-sent events from pieces of any size, by the WHATWG rules for event streams.
//!
//! Lines end with LF, CRLF or CR; a byte order mark at the start and comments are skipped; several
//! `data` lines are joined; an event without data is none. An event that lies in one piece is seen
//! in place, without a copy; only an incomplete one is kept, at most `WINDOW_BYTES`. A longer event
//! is reported as `oversized`, without its data, the same however it was cut into pieces.
//! Next: `stream.rs`, which says what the events mean.

use core::ops::Range;

/// The longest event that is looked into, in bytes, line ends included.
pub const WINDOW_BYTES: usize = 64 * 1024;

/// A kept buffer larger than this is given back after its event: most streams are idle.
const RETAINED_BYTES: usize = 4096;

/// A longer name is none that means something.
const LONGEST_NAME: usize = 40;

/// One complete event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// Value of the last `event` line, empty when there was none.
    pub name: &'a [u8],
    /// The `data` lines, joined by LF; empty when `oversized`.
    pub data: &'a [u8],
    /// Offset in the piece where its last `data` line starts; 0 when that is in an earlier piece.
    pub data_line: usize,
    /// Offset in the piece just past the first byte of the blank line's end (so before the LF of a
    /// CRLF: whatever is written there starts a new line).
    pub end: usize,
    /// The event is longer than the window.
    pub oversized: bool,
}

/// The scanner's state between two pieces.
#[derive(Debug, Default)]
pub struct SseScan {
    /// Bytes of the incomplete event from earlier pieces; empty when that outgrew the window.
    held: Vec<u8>,
    /// Length of the incomplete event in earlier pieces.
    length: usize,
    fields: Fields,
    /// The name of an event that outgrew the window, if it is one that some event has.
    long_name: Vec<u8>,
    after_cr: bool,
}

/// What the lines of the current event said so far. Offsets count from the event's start.
#[derive(Debug, Default)]
struct Fields {
    /// Where the current line starts.
    line: usize,
    name: Range<usize>,
    data: Range<usize>,
    /// Where the last `data` line starts.
    data_line: usize,
    data_lines: usize,
    after_first_line: bool,
}

impl SseScan {
    /// Whether no event is incomplete.
    #[must_use]
    pub fn at_event_border(&self) -> bool {
        self.length == 0
    }

    /// The incomplete event from its only `data` line on; without one, the incomplete line. Empty
    /// when the event has several, or outgrew the window.
    pub(crate) fn incomplete_data(&self) -> &[u8] {
        let fields = &self.fields;
        let from = match fields.data_lines {
            0 => fields.line,
            1 => fields.data_line,
            _ => return &[],
        };
        let rest = self.held.get(from..).unwrap_or_default();
        match rest.strip_prefix(MARK) {
            Some(unmarked) if !fields.after_first_line => unmarked,
            _ => rest,
        }
    }

    /// Reads the next piece and calls `on` for each event that it completes.
    pub fn feed(&mut self, bytes: &[u8], mut on: impl FnMut(Event<'_>)) {
        // Everything before `taken` belongs to earlier events, or is counted in `length`.
        let mut taken = 0;
        if self.after_cr && bytes.first() == Some(&b'\n') {
            taken = 1;
            if self.length > 0 {
                self.append(b"\n");
                self.fields.line = self.length;
            }
        }
        self.after_cr &= bytes.is_empty();
        let mut at = taken;
        loop {
            if self.length == 0 && at == taken {
                taken = self.plain_events(bytes, at, &mut on);
                at = taken;
            }
            let Some(line_end) = line_end(bytes, at) else {
                break;
            };
            let after = line_end + 1;
            let mut next = after;
            if bytes.get(line_end) == Some(&b'\r') {
                next += usize::from(bytes.get(after) == Some(&b'\n'));
                self.after_cr = after == bytes.len();
            }
            let end = self.length + (after - taken);
            let fresh = bytes.get(taken..after).unwrap_or_default();
            let is_held = self.length > 0;
            if is_held {
                self.append(fresh);
                taken = after;
            }
            let event = if is_held { &self.held } else { fresh };
            if self.fields.line_ends(event, end) {
                self.dispatch(fresh, after, end, &mut on);
                taken = next;
            } else if is_held && next > after {
                self.append(b"\n");
                taken = next;
            }
            self.fields.line = self.length + (next - taken);
            at = next;
        }
        let rest = bytes.get(taken..).unwrap_or_default();
        if !rest.is_empty() {
            self.append(rest);
        }
    }

    /// Passes over events of the usual form, one `data` line and LFs, that lie in the piece whole.
    /// They mean the same to the general code, at three times the cost. Returns where they end.
    #[inline]
    fn plain_events(&mut self, bytes: &[u8], at: usize, on: &mut impl FnMut(Event<'_>)) -> usize {
        let mut at = at;
        while let Some(line) = bytes
            .get(at..)
            .and_then(|rest| rest.strip_prefix(b"data: "))
        {
            let Some(length) = memchr::memchr2(b'\n', b'\r', line) else {
                break;
            };
            let (data, rest) = line.split_at(length);
            if !rest.starts_with(b"\n\n") || length > WINDOW_BYTES - b"data: \n\n".len() {
                break;
            }
            let data_line = at;
            at += b"data: \n\n".len() + length;
            self.fields.after_first_line = true;
            on(Event {
                name: &[],
                data,
                data_line,
                end: at,
                oversized: false,
            });
        }
        at
    }

    /// Ends the event of length `end`; `fresh` are its bytes when nothing is held.
    #[inline]
    fn dispatch(&mut self, fresh: &[u8], at: usize, end: usize, on: &mut impl FnMut(Event<'_>)) {
        let fields = &self.fields;
        let event = if self.length > 0 { &self.held } else { fresh };
        let name = event.get(fields.name.clone()).unwrap_or_default();
        let data_line = (at + fields.data_line).saturating_sub(end);
        if end > WINDOW_BYTES {
            let name = if self.length > 0 {
                &self.long_name
            } else {
                name
            };
            on(Event {
                name,
                data: &[],
                data_line,
                end: at,
                oversized: true,
            });
        } else if fields.data_lines == 1 {
            let data = event.get(fields.data.clone()).unwrap_or_default();
            on(Event {
                name,
                data,
                data_line,
                end: at,
                oversized: false,
            });
        } else if fields.data_lines > 1 {
            let data = joined(event);
            on(Event {
                name,
                data: &data,
                data_line,
                end: at,
                oversized: false,
            });
        }
        self.fields = Fields {
            after_first_line: true,
            ..Fields::default()
        };
        if self.length > 0 {
            self.length = 0;
            self.held.clear();
            self.long_name.clear();
            if self.held.capacity() > RETAINED_BYTES {
                self.held = Vec::new();
            }
        }
    }

    /// Counts more bytes of the incomplete event, and keeps them while it fits the window.
    fn append(&mut self, bytes: &[u8]) {
        let before = self.length;
        self.length += bytes.len();
        if self.length <= WINDOW_BYTES {
            self.held.extend_from_slice(bytes);
        } else if before <= WINDOW_BYTES {
            let event = if before == 0 { bytes } else { &self.held };
            let name = event.get(self.fields.name.clone()).unwrap_or_default();
            if name.len() <= LONGEST_NAME {
                self.long_name.extend_from_slice(name);
            }
            self.held = Vec::new();
        }
    }
}

impl Fields {
    /// Takes the line that ends (line end included) at `end`, when the event so far fits the
    /// window. Says whether it was the blank line that ends the event.
    #[inline]
    fn line_ends(&mut self, event: &[u8], end: usize) -> bool {
        let mut from = self.line;
        if end > WINDOW_BYTES {
            return end == from + 1;
        }
        let mut line = event.get(from..end - 1).unwrap_or_default();
        if !self.after_first_line {
            self.after_first_line = true;
            if let Some(rest) = line.strip_prefix(MARK) {
                line = rest;
                from += MARK.len();
            }
        }
        if line.is_empty() {
            return true;
        }
        if let Some(offset) = value_of(line, b"data") {
            self.data = from + offset..end - 1;
            self.data_line = from;
            self.data_lines += 1;
        } else if let Some(offset) = value_of(line, b"event") {
            self.name = from + offset..end - 1;
        }
        false
    }
}

/// UTF-8's byte order mark.
const MARK: &[u8] = b"\xEF\xBB\xBF";

#[inline]
fn line_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    match rest.first() {
        // The blank line after an event: no search needed.
        Some(b'\n' | b'\r') => Some(at),
        Some(_) => memchr::memchr2(b'\n', b'\r', rest).map(|offset| at + offset),
        None => None,
    }
}

/// Offset of the value in a line of this field: after the colon and one space.
#[inline]
fn value_of(line: &[u8], field: &[u8]) -> Option<usize> {
    match line.strip_prefix(field)? {
        [] => Some(line.len()),
        [b':', b' ', ..] => Some(field.len() + 2),
        [b':', ..] => Some(field.len() + 1),
        _ => None,
    }
}

/// The `data` lines of an event, joined by LF. Rare: no engine seen sends several.
fn joined(event: &[u8]) -> Vec<u8> {
    let event = event.strip_prefix(MARK).unwrap_or(event);
    let mut data = Vec::with_capacity(event.len());
    for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if let Some(offset) = value_of(line, b"data") {
            data.extend_from_slice(line.get(offset..).unwrap_or_default());
            data.push(b'\n');
        }
    }
    data.pop();
    data
}

#[cfg(test)]
mod tests;
