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
    /// Like `Kept`.
    ContentType,
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
        match (name.len(), first) {
            (2, b't') if is_name(name, b"te") => Kind::Hop,
            (4, b'h') if is_name(name, b"host") => Kind::Host,
            (6, b'e') if is_name(name, b"expect") => Kind::Expect,
            (7, b't') if is_name(name, b"trailer") => Kind::Hop,
            (7, b'u') if is_name(name, b"upgrade") => Kind::Upgrade,
            (10, b'c') if is_name(name, b"connection") => Kind::Connection,
            (10, b'k') if is_name(name, b"keep-alive") => Kind::Hop,
            (12, b'c') if is_name(name, b"content-type") => Kind::ContentType,
            (13, b'a') if is_name(name, b"authorization") => Kind::Kept,
            (14, b'c') if is_name(name, b"content-length") => Kind::ContentLength,
            (14, b'h') if is_name(name, b"http2-settings") => Kind::Hop,
            (16, b'c') if is_name(name, b"content-encoding") => Kind::Kept,
            (16, b'p') if is_name(name, b"proxy-connection") => Kind::Hop,
            (17, b't') if is_name(name, b"transfer-encoding") => Kind::TransferEncoding,
            (18, b'p') if is_name(name, b"proxy-authenticate") => Kind::Hop,
            (19, b'p') if is_name(name, b"proxy-authorization") => Kind::Hop,
            _ => Kind::Other,
        }
    }

    /// Whether an edit may add or remove such a field: those of framing and of the connection are
    /// written by the codec alone.
    pub(crate) fn is_editable(self) -> bool {
        matches!(
            self,
            Kind::Other | Kind::Kept | Kind::ContentType | Kind::Listed
        )
    }
}

/// Compares a token with a lower-case name: among tokens only letters differ in the bit of case.
/// The length is known when this is compiled and there is no early exit, so it is a few
/// instructions of vector code.
#[inline]
fn is_name<const LENGTH: usize>(name: &[u8], expected: &[u8; LENGTH]) -> bool {
    let Ok(name) = <&[u8; LENGTH]>::try_from(name) else {
        return false;
    };
    let difference = name
        .iter()
        .zip(expected)
        .map(|(byte, expected)| (byte | 0x20) ^ expected);
    difference.fold(0, |all, one| all | one) == 0
}

/// Which bytes a token is made of (RFC 9110 section 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::indexing_slicing, reason = "evaluated when this is compiled")]
        {
            table[byte] = matches!(
                byte as u8,
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-'
                    | b'.' | b'^'..=b'`' | b'|' | b'~'
            );
        }
        byte += 1;
    }
    table
};

/// A character of a token: methods and field names are made of them.
#[inline]
pub(crate) fn is_token_byte(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

pub(crate) fn is_token(text: &[u8]) -> bool {
    // Letters, digits and hyphens are what names are made of; this loop becomes vector code.
    let plain = |byte: &u8| {
        (byte | 0x20).wrapping_sub(b'a') < 26 || byte.wrapping_sub(b'0') < 10 || *byte == b'-'
    };
    let usual = text.iter().fold(true, |all, byte| all & plain(byte));
    !text.is_empty() && (usual || text.iter().all(|byte| is_token_byte(*byte)))
}

/// Whether a value has a control character, told eight bytes at a time where it has none.
pub(crate) fn has_control(value: &[u8]) -> bool {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    let suspect = |word: [u8; 8]| {
        let word = u64::from_ne_bytes(word);
        let below_space = word.wrapping_sub(EACH * 0x20) & !word;
        let delete = word ^ (EACH * 0x7F);
        (below_space | (delete.wrapping_sub(EACH) & !delete)) & (EACH * 0x80)
    };
    let (words, rest) = value.as_chunks::<8>();
    let last = value.last_chunk::<8>().copied().unwrap_or_else(|| {
        let mut last = [b' '; 8];
        for (slot, byte) in last.iter_mut().zip(rest) {
            *slot = *byte;
        }
        last
    });
    let found = words
        .iter()
        .fold(suspect(last), |all, word| all | suspect(*word));
    found != 0 && value.iter().any(|byte| is_control(*byte))
}

/// What may not stand in a value: it could end the line or confuse a reader.
pub(crate) fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7F
}

#[cfg(test)]
mod tests;
