//! JSON string text: reading what escapes stand for, and writing a text as a JSON string.
//!
//! Both work on the bytes between the quotes. Reading is strict (RFC 8259 section 7): a bad escape,
//! a raw control character, a lone surrogate or invalid UTF-8 gives `None`.

use std::borrow::Cow;

/// What the raw bytes between two quotes say.
pub(crate) fn unescape(raw: &[u8]) -> Option<Cow<'_, str>> {
    if raw.iter().any(|byte| *byte < 0x20) {
        return None;
    }
    let text = core::str::from_utf8(raw).ok()?;
    if !raw.contains(&b'\\') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let mut chars = after.chars();
        let plain = match chars.next()? {
            'u' => {
                let (unescaped, tail) = unicode(chars.as_str())?;
                out.push(unescaped);
                rest = tail;
                continue;
            }
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            same @ ('"' | '\\' | '/') => same,
            _ => return None,
        };
        out.push(plain);
        rest = chars.as_str();
    }
    out.push_str(rest);
    Some(Cow::Owned(out))
}

/// The character of a `\u` escape (after the `u`), a surrogate pair taken together.
fn unicode(text: &str) -> Option<(char, &str)> {
    let (high, rest) = hex4(text)?;
    if !(0xD800..0xDC00).contains(&high) {
        return Some((char::from_u32(high)?, rest));
    }
    let (low, rest) = hex4(rest.strip_prefix("\\u")?)?;
    let low = low.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
    Some((
        char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + low)?,
        rest,
    ))
}

fn hex4(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    Some((u32::from_str_radix(digits, 16).ok()?, rest))
}

/// Appends `text` as the inside of a JSON string, without quotes.
pub(crate) fn escape(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let hex = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[hex(byte >> 4), hex(byte & 0xF)]);
            }
            _ => out.push(byte),
        }
    }
}

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn quoted(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escape(text, out);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_no_json_text() {
        for raw in [
            &b"\\"[..],
            b"\\x",
            b"\\u12",
            b"\\u+123",
            b"\\ud800",
            b"\\ud800\\u0041",
            b"\\udc00",
            b"a\nb",
            b"\xff",
            b"\\u12\xc3\xa9",
        ] {
            assert_eq!(unescape(raw), None, "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_serde_json_reads(raw in r#"([a-z"\\/bfnrtu0-9dDcC]|\\u[0-9a-f]{4}|\\ud8[0-9a-f]{2}\\udc[0-9a-f]{2}|é){0,12}"#) {
            let mut json = vec![b'"'];
            json.extend_from_slice(raw.as_bytes());
            json.push(b'"');
            // An unescaped quote inside ends the string for serde_json: not our caller's case.
            prop_assume!(!raw.replace("\\\\", "").replace("\\\"", "").contains('"'));
            let theirs: Option<String> = serde_json::from_slice(&json).ok();
            prop_assert_eq!(unescape(raw.as_bytes()).map(Cow::into_owned), theirs);
        }

        #[test]
        fn writes_what_reads_back(text in any::<String>()) {
            let mut json = Vec::new();
            quoted(&text, &mut json);
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text.clone());
            let inside = &json[1..json.len() - 1];
            prop_assert_eq!(unescape(inside).unwrap(), text);
        }
    }
}
