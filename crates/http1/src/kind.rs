//! What a field is to a proxy, told by the length and first letter of its name, then compared once.
//!
//! Everything that the codec treats specially is listed here; every other field is `Other` and is
//! copied without being looked at again.

/// The part that a field plays; computed once when a head is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// End to end, unless the Connection field lists it.
    Other,
    /// End to end, whatever the Connection field says: dropping it would change what is asked.
    Kept,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Expect,
    /// For this hop only (RFC 9110 section 7.6.1).
    Hop,
    /// `Other`, but listed by the Connection field: for this hop only.
    Listed,
}

impl Kind {
    #[inline]
    pub(crate) fn of(name: &[u8]) -> Kind {
        let first = name.first().map_or(0, |first| first | 0x20);
        let (expected, kind): (&[u8], Kind) = match (name.len(), first) {
            (2, b't') => (b"te", Kind::Hop),
            (4, b'h') => (b"host", Kind::Host),
            (6, b'e') => (b"expect", Kind::Expect),
            (7, b't') => (b"trailer", Kind::Hop),
            (7, b'u') => (b"upgrade", Kind::Upgrade),
            (10, b'c') => (b"connection", Kind::Connection),
            (10, b'k') => (b"keep-alive", Kind::Hop),
            (12, b'c') => (b"content-type", Kind::Kept),
            (13, b'a') => (b"authorization", Kind::Kept),
            (14, b'c') => (b"content-length", Kind::ContentLength),
            (14, b'h') => (b"http2-settings", Kind::Hop),
            (16, b'c') => (b"content-encoding", Kind::Kept),
            (16, b'p') => (b"proxy-connection", Kind::Hop),
            (17, b't') => (b"transfer-encoding", Kind::TransferEncoding),
            (18, b'p') => (b"proxy-authenticate", Kind::Hop),
            (19, b'p') => (b"proxy-authorization", Kind::Hop),
            _ => return Kind::Other,
        };
        if name.eq_ignore_ascii_case(expected) {
            kind
        } else {
            Kind::Other
        }
    }

    /// Whether an edit may add or remove such a field: those of framing and of the connection are
    /// written by the codec alone.
    pub(crate) fn is_editable(self) -> bool {
        matches!(self, Kind::Other | Kind::Kept | Kind::Listed)
    }
}

/// A character of a token (RFC 9110 section 5.6.2): methods and field names are made of them.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}
