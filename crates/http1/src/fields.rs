//! Header fields: owned bytes, an index into them, and edits as an overlay.
//!
//! The bytes are those that arrived. A field that is removed is only marked; one that is set is
//! appended as a ready line. Writing copies runs of lines that stay, so the usual head is one copy.

use crate::{Framing, Refusal};
use memchr::memchr_iter;

/// What a field means to the framing and to a proxy. Computed once, by length and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    EndToEnd,
    /// Hop-by-hop, or named by `Connection`: never goes on.
    HopByHop,
    Connection,
    ContentLength,
    TransferEncoding,
    Host,
    Expect,
    ContentType,
    Upgrade,
    /// Removed by the overlay.
    Removed,
}

/// One field: offsets into the bytes it was parsed from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    name: u16,
    name_end: u16,
    value: u16,
    value_end: u16,
    pub(crate) kind: Kind,
}

/// The fields of a head and their edits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fields {
    /// The head as it came, with its first line and the empty line.
    pub(crate) bytes: Vec<u8>,
    pub(crate) list: Vec<Field>,
    /// Ready lines that were set or added, each with CRLF.
    added: Vec<u8>,
    added_list: Vec<Field>,
}

/// What a walk over the fields found out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Walked {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) length: Option<u64>,
    pub(crate) codings: u32,
    pub(crate) chunked: bool,
    pub(crate) hosts: u32,
    pub(crate) expect: bool,
    names_fields: bool,
}

fn is(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn kind(name: &str) -> Kind {
    match name.len() {
        2 if is(name, "te") => Kind::HopByHop,
        4 if is(name, "host") => Kind::Host,
        6 if is(name, "expect") => Kind::Expect,
        7 if is(name, "trailer") => Kind::HopByHop,
        7 if is(name, "upgrade") => Kind::Upgrade,
        10 if is(name, "connection") => Kind::Connection,
        10 if is(name, "keep-alive") => Kind::HopByHop,
        12 if is(name, "content-type") => Kind::ContentType,
        14 if is(name, "content-length") => Kind::ContentLength,
        14 if is(name, "http2-settings") => Kind::HopByHop,
        16 if is(name, "proxy-connection") => Kind::HopByHop,
        17 if is(name, "transfer-encoding") => Kind::TransferEncoding,
        _ => Kind::EndToEnd,
    }
}

/// A decimal number of at most 18 digits, without sign or list (RFC 9110 section 8.6).
fn number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

/// Whether a line ends in LF alone. httparse accepts that; two parsers in a row may not agree.
pub(crate) fn has_bare_lf(head: &[u8]) -> bool {
    memchr_iter(b'\n', head).any(|at| at == 0 || head.get(at - 1) != Some(&b'\r'))
}

impl Fields {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
        self.added.clear();
        self.added_list.clear();
    }

    /// Takes over parsed fields. `input` is what httparse borrowed from.
    pub(crate) fn take(
        &mut self,
        input: &[u8],
        head_bytes: usize,
        headers: &[httparse::Header<'_>],
    ) -> Result<Walked, Refusal> {
        self.clear();
        self.bytes.extend_from_slice(input.get(..head_bytes).unwrap_or_default());
        let base = input.as_ptr() as usize;
        let mut walked = Walked::default();
        for header in headers {
            let kind = kind(header.name);
            note(kind, header.value, &mut walked)?;
            let name = (header.name.as_ptr() as usize).wrapping_sub(base);
            let value = (header.value.as_ptr() as usize).wrapping_sub(base);
            self.list.push(Field {
                name: name as u16,
                name_end: (name + header.name.len()) as u16,
                value: value as u16,
                value_end: (value + header.value.len()) as u16,
                kind,
            });
        }
        if walked.length.is_some() && walked.codings > 0 {
            return Err(Refusal::LENGTH_AND_CODING);
        }
        if walked.names_fields {
            self.cut_listed();
        }
        Ok(walked)
    }

    /// Marks the fields that `Connection` names. What frames or routes the message is never cut.
    fn cut_listed(&mut self) {
        let Self { bytes, list, .. } = self;
        let named: Vec<Vec<u8>> = list
            .iter()
            .filter(|field| field.kind == Kind::Connection)
            .flat_map(|field| slice(bytes, field.value, field.value_end).split(|byte| *byte == b','))
            .map(|name| name.trim_ascii().to_ascii_lowercase())
            .collect();
        for field in list.iter_mut().filter(|field| {
            matches!(field.kind, Kind::EndToEnd | Kind::ContentType | Kind::Expect)
        }) {
            let name = slice(bytes, field.name, field.name_end);
            if named.iter().any(|listed| name.eq_ignore_ascii_case(listed)) {
                field.kind = Kind::HopByHop;
            }
        }
    }

    pub(crate) fn name(&self, field: &Field) -> &str {
        text(slice(&self.bytes, field.name, field.name_end))
    }

    pub(crate) fn value(&self, field: &Field) -> &[u8] {
        slice(&self.bytes, field.value, field.value_end)
    }

    pub(crate) fn first(&self, kind: Kind) -> Option<&[u8]> {
        self.list.iter().find(|field| field.kind == kind).map(|field| self.value(field))
    }

    /// The first value of a field by its lowercase name; edits count.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let matches = |bytes: &[u8], field: &&Field| {
            usize::from(field.name_end - field.name) == name.len()
                && field.kind != Kind::Removed
                && slice(bytes, field.name, field.name_end).eq_ignore_ascii_case(name.as_bytes())
        };
        if let Some(field) = self.list.iter().find(|field| matches(&self.bytes, field)) {
            return Some(self.value(field));
        }
        let field = self.added_list.iter().find(|field| matches(&self.added, field))?;
        Some(slice(&self.added, field.value, field.value_end))
    }

    /// Name and value of all fields as they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.list.iter().map(|field| (self.name(field), self.value(field)))
    }

    pub(crate) fn remove(&mut self, name: &str) {
        for (bytes, list) in
            [(&self.bytes, &mut self.list), (&self.added, &mut self.added_list)]
        {
            for field in list.iter_mut().filter(|field| !field.kind.frames()) {
                if slice(bytes, field.name, field.name_end).eq_ignore_ascii_case(name.as_bytes()) {
                    field.kind = Kind::Removed;
                }
            }
        }
    }

    /// Appends a field. Bytes that would end the line or the head are replaced by spaces. A name
    /// that is no token, and a field past 64 KiB of edits, is not added.
    pub(crate) fn add(&mut self, name: &str, value: &[u8]) {
        let token = !name.is_empty() && name.bytes().all(is_token);
        if !token || self.added.len() + name.len() + value.len() + 4 > usize::from(u16::MAX) {
            return;
        }
        let at = self.added.len();
        self.added.extend_from_slice(name.as_bytes());
        self.added.extend_from_slice(b": ");
        let from = self.added.len();
        self.added.extend_from_slice(value);
        let control = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
        if value.iter().any(control) {
            let written = self.added.get_mut(from..).unwrap_or_default();
            written.iter_mut().filter(|byte| control(byte)).for_each(|byte| *byte = b' ');
        }
        self.added.extend_from_slice(b"\r\n");
        self.added_list.push(Field {
            name: at as u16,
            name_end: (at + name.len()) as u16,
            value: from as u16,
            value_end: (from + value.len()) as u16,
            kind: Kind::EndToEnd,
        });
    }

    /// Copies the field lines that go on, in runs, then the edits. `keeps` says which kinds stay.
    pub(crate) fn write(&self, keeps: impl Fn(Kind) -> bool, out: &mut Vec<u8>) {
        let end = self.bytes.len().saturating_sub(2);
        let mut run = self.list.first().map_or(end, |field| usize::from(field.name));
        for (index, field) in self.list.iter().enumerate() {
            if !keeps(field.kind) {
                out.extend_from_slice(self.bytes.get(run..usize::from(field.name)).unwrap_or_default());
                run = self.list.get(index + 1).map_or(end, |next| usize::from(next.name));
            }
        }
        out.extend_from_slice(self.bytes.get(run..end).unwrap_or_default());
        if self.added_list.iter().all(|field| field.kind != Kind::Removed) {
            out.extend_from_slice(&self.added);
            return;
        }
        for field in self.added_list.iter().filter(|field| field.kind != Kind::Removed) {
            let line_end = usize::from(field.value_end) + 2;
            let line = self.added.get(usize::from(field.name)..line_end);
            out.extend_from_slice(line.unwrap_or_default());
        }
    }
}

impl Kind {
    /// Fields that no edit may touch: they decide where a message ends.
    fn frames(self) -> bool {
        matches!(self, Self::ContentLength | Self::TransferEncoding | Self::Connection)
    }
}

fn note(kind: Kind, value: &[u8], walked: &mut Walked) -> Result<(), Refusal> {
    match kind {
        Kind::Connection => {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                match option {
                    _ if option.eq_ignore_ascii_case(b"close") => walked.close = true,
                    _ if option.eq_ignore_ascii_case(b"keep-alive") => walked.keep_alive = true,
                    b"" => {}
                    _ => walked.names_fields = true,
                }
            }
        }
        Kind::ContentLength => {
            let length = number(value).ok_or(Refusal::BAD_CONTENT_LENGTH)?;
            if walked.length.replace(length).is_some() {
                return Err(Refusal::DUPLICATE_CONTENT_LENGTH);
            }
        }
        Kind::TransferEncoding => {
            walked.codings += 1;
            walked.chunked = value.eq_ignore_ascii_case(b"chunked");
            if walked.codings > 1 || !walked.chunked {
                return Err(Refusal::BAD_CODING);
            }
        }
        Kind::Host => walked.hosts += 1,
        Kind::Expect => walked.expect |= value.eq_ignore_ascii_case(b"100-continue"),
        _ => {}
    }
    Ok(())
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Appends the framing fields of a message.
pub(crate) fn write_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::None | Framing::Close => {}
    }
}

/// Maps what httparse says to our refusals.
pub(crate) fn refuse(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::TOO_MANY_FIELDS,
        httparse::Error::HeaderName => Refusal::BAD_NAME,
        httparse::Error::HeaderValue => Refusal::BAD_VALUE,
        httparse::Error::Version => Refusal::BAD_VERSION,
        _ => Refusal::MALFORMED,
    }
}

fn slice(bytes: &[u8], from: u16, to: u16) -> &[u8] {
    bytes.get(usize::from(from)..usize::from(to)).unwrap_or_default()
}

/// Names and targets are visible ASCII once parsed.
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
