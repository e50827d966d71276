//! The bytes of a head, an index of its fields, and edits laid over them.
//!
//! The bytes are copied in once and never changed: an edit marks a field as removed or appends a
//! ready-made line to the overlay, and writing copies what lies between the fields that are cut in
//! as few runs as possible. Nothing is allocated per field once the vectors have grown.
//! `request.rs` and `response.rs` add the first line and the rules of framing.

mod again;

use core::fmt;

use httparse::Header;

use crate::Framing;
use crate::kind::{Kind, has_control, is_control, is_token};
use crate::name::FieldName;
use crate::reading::{Reading, connection_options};
use crate::refusal::{self, Refusal};

/// Fields that a head may have at most, whatever the limits say.
pub(crate) const MAX_FIELDS: usize = 128;
/// Bytes that a head may have at most, whatever the limits say; offsets are `u32`.
pub(crate) const MAX_HEAD_BYTES: usize = 16 << 20;

/// One field of the received head; offsets into `Fields::bytes`.
#[derive(Clone, Copy, Debug)]
struct Field {
    start: u32,
    value_start: u32,
    value_end: u32,
    /// After the line feed.
    line_end: u32,
    name_bytes: u16,
    kind: Kind,
    is_removed: bool,
}

/// One line of the overlay, `name: value` with its line end; offsets into `Fields::overlay`.
#[derive(Clone, Copy, Debug)]
struct Line {
    start: u32,
    name_end: u32,
    end: u32,
}

/// What `Fields::copy` does with those lines that the caller rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copying {
    /// The first line goes out as it came in.
    pub(crate) first_line: bool,
    pub(crate) host: bool,
    /// Content-Length or Transfer-Encoding goes out as it came in.
    pub(crate) framing: bool,
}

/// See the module's text.
#[derive(Clone, Default)]
pub(crate) struct Fields {
    /// First line and fields, without the blank line.
    bytes: Vec<u8>,
    index: Vec<Field>,
    overlay: Vec<u8>,
    lines: Vec<Line>,
    /// The overlay holds no line that was removed again.
    overlay_is_whole: bool,
    /// A bit for each name that is there or was: most names that are asked for are not.
    names: u64,
    /// The same of the received fields alone.
    received_names: u64,
    /// Where the value of the Content-Length field lies.
    length: Option<(u32, u32)>,
    /// What was received is put away: it may be compared with, and is not there for anybody else.
    is_hidden: bool,
    /// The framing field is spelt as we would spell it.
    framing_is_canonical: bool,
}

impl Fields {
    /// Takes over a head that httparse read: `head` begins with the first line and ends with the
    /// blank line, and the headers lie in it.
    pub(crate) fn fill(&mut self, head: &[u8], headers: &[Header]) -> Result<Reading, Refusal> {
        // httparse takes a line feed alone for a line end. It has made sure that each line feed
        // ends a line, so looking before each line's start finds all that lack a carriage return.
        let lines = head.strip_suffix(b"\r\n").ok_or(refusal::BARE_LINE_FEED)?;
        if !lines.ends_with(b"\r\n") {
            return Err(refusal::BARE_LINE_FEED);
        }
        self.bytes.extend_from_slice(lines);
        self.index.reserve(headers.len());
        let mut reading = Reading::default();
        for (number, header) in headers.iter().enumerate() {
            let start = offset_in(head, header.name.as_bytes());
            if !lines.get(..start).unwrap_or_default().ends_with(b"\r\n") {
                return Err(refusal::BARE_LINE_FEED);
            }
            if let Some(previous) = self.index.last_mut() {
                previous.line_end = start as u32;
            }
            self.names |= name_bit(header.name.as_bytes());
            let kind = Kind::of(header.name.as_bytes());
            let value_start = offset_in(head, header.value);
            self.index.push(Field {
                start: start as u32,
                value_start: value_start as u32,
                value_end: (value_start + header.value.len()) as u32,
                line_end: lines.len() as u32,
                name_bytes: u16::try_from(header.name.len())
                    .map_err(|_| refusal::HEAD_TOO_LARGE)?,
                kind,
                is_removed: false,
            });
            if kind != Kind::Other {
                reading.note(kind, header.value, number as u32)?;
            }
        }
        if reading.lists_fields {
            self.mark_listed();
        }
        self.framing_is_canonical = self.has_canonical_framing(&reading);
        self.received_names = self.names;
        let is_length = |field: &&Field| field.kind == Kind::ContentLength;
        let length = self.index.iter().find(is_length);
        self.length = length.map(|field| (field.value_start, field.value_end));
        Ok(reading)
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.index.clear();
        self.overlay.clear();
        self.lines.clear();
        self.overlay_is_whole = true;
        self.names = 0;
        self.is_hidden = false;
    }

    /// The memory that the received head takes; edits are few.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.index.capacity() * size_of::<Field>()
    }

    /// Bytes of the received first line up to the end of its line.
    pub(crate) fn first_line(&self) -> &[u8] {
        self.slice(0, self.first_line_end())
    }

    pub(crate) fn slice(&self, start: u32, end: u32) -> &[u8] {
        self.bytes
            .get(start as usize..end as usize)
            .unwrap_or_default()
    }

    /// Where the value of a field lies.
    pub(crate) fn value_range(&self, number: u32) -> Option<(u32, u32)> {
        let field = self.index.get(number as usize)?;
        Some((field.value_start, field.value_end))
    }

    /// First value under this name, removed ones left out, added ones after received ones.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        if self.lacks(name) {
            return None;
        }
        let field = self
            .index()
            .iter()
            .find(|field| !field.is_removed && self.is_named(field, name));
        if let Some(field) = field {
            return Some(self.slice(field.value_start, field.value_end));
        }
        let line = self
            .lines
            .iter()
            .find(|line| self.is_line_named(line, name))?;
        // Behind the name stand a colon and a space, before the end a line end.
        let value = line.name_end as usize + 2..(line.end as usize).saturating_sub(2);
        self.overlay.get(value)
    }

    /// Names and values as received.
    pub(crate) fn received(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.received_bytes()
            .map(|(name, value)| (core::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// The same with names as bytes.
    pub(crate) fn received_bytes(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.index().iter().map(|field| {
            (
                self.name(field),
                self.slice(field.value_start, field.value_end),
            )
        })
    }

    /// Removes all fields of this name; `false` when no edit may touch it.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        if !Kind::of(name.as_bytes()).is_editable() {
            return false;
        }
        self.cut(name);
        true
    }

    /// Removes all fields of a name that edits may touch.
    #[inline]
    fn cut(&mut self, name: &str) {
        if !self.lacks(name) {
            self.cut_known(name);
        }
    }

    fn cut_known(&mut self, name: &str) {
        let bytes = &self.bytes;
        for field in &mut self.index {
            let name_end = field.start as usize + usize::from(field.name_bytes);
            let field_name = bytes
                .get(field.start as usize..name_end)
                .unwrap_or_default();
            if field_name.eq_ignore_ascii_case(name.as_bytes()) {
                field.is_removed = true;
            }
        }
        let Fields { overlay, lines, .. } = self;
        let before = lines.len();
        lines.retain(|line| {
            let line_name = overlay.get(line.start as usize..line.name_end as usize);
            !line_name
                .unwrap_or_default()
                .eq_ignore_ascii_case(name.as_bytes())
        });
        self.overlay_is_whole &= self.lines.len() == before;
    }

    /// Appends a field; `false` when the name is no token or no edit may touch it.
    pub(crate) fn add(&mut self, name: &str, value: &[u8]) -> bool {
        if !Kind::of(name.as_bytes()).is_editable() || !is_token(name.as_bytes()) {
            return false;
        }
        self.append_any(name, value);
        true
    }

    /// Replaces all fields of this name by one. Inlined, so that the name is known and its copy is a
    /// few stores.
    #[inline(always)]
    pub(crate) fn put(&mut self, name: FieldName, value: &[u8]) {
        self.cut(name.as_str());
        self.append(name.as_str(), value);
    }

    #[inline(never)]
    fn append_any(&mut self, name: &str, value: &[u8]) {
        self.append(name, value);
    }

    #[inline(always)]
    fn append(&mut self, name: &str, value: &[u8]) {
        let start = self.overlay.len();
        push_known_line(name, value, &mut self.overlay);
        self.names |= name_bit(name.as_bytes());
        self.lines.push(Line {
            start: start as u32,
            name_end: (start + name.len()) as u32,
            end: self.overlay.len() as u32,
        });
    }

    /// Copies the lines that go on to the next hop: received ones in runs, then the overlay.
    pub(crate) fn copy(&self, copying: Copying, out: &mut Vec<u8>) {
        let mut run = if copying.first_line {
            0
        } else {
            self.first_line_end()
        };
        for field in self.index() {
            let is_copied = match field.kind {
                Kind::Other | Kind::Kept | Kind::ContentType => !field.is_removed,
                Kind::Host => copying.host,
                Kind::ContentLength | Kind::TransferEncoding => copying.framing,
                _ => false,
            };
            if !is_copied {
                out.extend_from_slice(self.slice(run, field.start));
                run = field.line_end;
            }
        }
        out.extend_from_slice(self.bytes.get(run as usize..).unwrap_or_default());
        if self.overlay_is_whole {
            out.extend_from_slice(&self.overlay);
            return;
        }
        for line in &self.lines {
            let line = self.overlay.get(line.start as usize..line.end as usize);
            out.extend_from_slice(line.unwrap_or_default());
        }
    }

    /// The received framing field may go out as it is.
    pub(crate) fn framing_is_canonical(&self) -> bool {
        self.framing_is_canonical
    }

    /// Bytes that `copy` writes at most.
    pub(crate) fn size_hint(&self) -> usize {
        self.bytes.len() + self.overlay.len()
    }

    fn index(&self) -> &[Field] {
        if self.is_hidden { &[] } else { &self.index }
    }

    /// Whether a look at the fields would find none of this name.
    fn lacks(&self, name: &str) -> bool {
        self.names & name_bit(name.as_bytes()) == 0
    }

    fn first_line_end(&self) -> u32 {
        self.index
            .first()
            .map_or(self.bytes.len() as u32, |field| field.start)
    }

    fn name(&self, field: &Field) -> &[u8] {
        self.slice(field.start, field.start + u32::from(field.name_bytes))
    }

    fn is_named(&self, field: &Field, name: &str) -> bool {
        usize::from(field.name_bytes) == name.len()
            && self.name(field).eq_ignore_ascii_case(name.as_bytes())
    }

    fn is_line_named(&self, line: &Line, name: &str) -> bool {
        let line_name = self
            .overlay
            .get(line.start as usize..line.name_end as usize);
        line_name
            .unwrap_or_default()
            .eq_ignore_ascii_case(name.as_bytes())
    }

    /// Rare: the Connection field lists names of other fields, which then end here.
    #[cold]
    fn mark_listed(&mut self) {
        let Fields { bytes, index, .. } = self;
        let slice =
            |start: u32, end: u32| bytes.get(start as usize..end as usize).unwrap_or_default();
        for number in 0..index.len() {
            let Some(connection) = index.get(number).filter(|it| it.kind == Kind::Connection)
            else {
                continue;
            };
            let value = slice(connection.value_start, connection.value_end);
            for option in connection_options(value) {
                for field in index.iter_mut().filter(|field| field.kind == Kind::Other) {
                    let name = slice(field.start, field.start + u32::from(field.name_bytes));
                    if name.eq_ignore_ascii_case(option) {
                        field.kind = Kind::Listed;
                    }
                }
            }
        }
    }

    /// `name: value` with one space and no leading zero, `chunked` in lower case.
    fn has_canonical_framing(&self, reading: &Reading) -> bool {
        if !reading.is_chunked && reading.content_length.is_none() {
            return true;
        }
        let is_framing =
            |field: &&Field| matches!(field.kind, Kind::ContentLength | Kind::TransferEncoding);
        self.index.iter().find(is_framing).is_some_and(|field| {
            let value = self.slice(field.value_start, field.value_end);
            let spelling = if reading.is_chunked {
                value == b"chunked"
            } else {
                value.len() == 1 || value.first() != Some(&b'0')
            };
            let name_end = field.start + u32::from(field.name_bytes);
            spelling
                && self.slice(name_end, field.value_start) == b": "
                && field.value_end + 2 == field.line_end
        })
    }
}

/// Values can be secrets: only sizes are shown.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields")
            .field("bytes", &self.bytes.len())
            .field("fields", &self.index.len())
            .field("added", &self.lines.len())
            .finish_non_exhaustive()
    }
}

/// One of 64 bits, by length, first and last letter: by those, the names that a gateway adds itself
/// differ from each other and from usual ones.
#[inline]
fn name_bit(name: &[u8]) -> u64 {
    let [first, last] = [name.first(), name.last()].map(|byte| byte.map_or(0, |byte| byte | 0x20));
    let mixed = (name.len() as u8).wrapping_mul(5) ^ first;
    1 << (mixed.wrapping_add(last.wrapping_mul(11)) % 64)
}

/// Where `part` begins in `whole`; it must be a slice of it.
pub(crate) fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize)
}

/// Writes a field; bytes that could end the line or confuse a reader become spaces.
#[inline(never)]
pub(crate) fn push_line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    push_known_line(name, value, out);
}

/// The same where the name is known when this is compiled.
#[inline(always)]
fn push_known_line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    if has_control(value) {
        push_without_control(value, out);
    } else {
        out.extend_from_slice(value);
    }
    out.extend_from_slice(b"\r\n");
}

#[cold]
fn push_without_control(value: &[u8], out: &mut Vec<u8>) {
    let replaced = |byte: &u8| if is_control(*byte) { b' ' } else { *byte };
    out.extend(value.iter().map(replaced));
}

/// Writes the field that `framing` needs, if any.
pub(crate) fn push_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::None | Framing::Close => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}
