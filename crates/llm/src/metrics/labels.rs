//! Labels of one metrics line, looked up in place.
//!
//! `key="value"` pairs with `\\`, `\"` and `\n` escaped in values, as the text format has it.

/// The text between the braces; known to be well formed up to the closing one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Labels<'a>(&'a [u8]);

/// Longer values are not copied.
const LONGEST_VALUE: usize = 64 * 1024;

impl<'a> Labels<'a> {
    /// Splits what follows the opening brace into labels and what follows the closing one.
    pub(super) fn parse(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (mut quoted, mut escaped) = (false, false);
        let end = text.iter().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ => {}
            }
            *byte == b'}' && !quoted
        })?;
        let (labels, rest) = text.split_at(end);
        Some((Self(labels), rest.get(1..)?))
    }

    /// The raw value of a label.
    pub(super) fn get(&self, key: &[u8]) -> Option<&'a [u8]> {
        let mut rest = self.0;
        loop {
            let name_end = memchr::memchr(b'=', rest)?;
            let name = rest.get(..name_end)?.trim_ascii();
            let value = rest
                .get(name_end + 1..)?
                .trim_ascii_start()
                .strip_prefix(b"\"")?;
            let mut escaped = false;
            let end = value.iter().position(|byte| {
                let ends = *byte == b'"' && !escaped;
                escaped = *byte == b'\\' && !escaped;
                ends
            })?;
            if name == key {
                return value.get(..end);
            }
            rest = value
                .get(end + 1..)?
                .trim_ascii_start()
                .strip_prefix(b",")?;
        }
    }

    /// The value of a label as a whole number.
    pub(super) fn number(&self, key: &[u8]) -> Option<u32> {
        core::str::from_utf8(self.get(key)?).ok()?.parse().ok()
    }

    /// Copies a label's value, unescaped, over `out`; empties it when there is none.
    pub(super) fn copy(&self, key: &[u8], out: &mut String) {
        out.clear();
        let value = self.get(key).filter(|value| value.len() <= LONGEST_VALUE);
        let Some(text) = value.and_then(|value| core::str::from_utf8(value).ok()) else {
            return;
        };
        let mut escaped = false;
        for letter in text.chars() {
            match letter {
                '\\' if !escaped => {
                    escaped = true;
                    continue;
                }
                'n' if escaped => out.push('\n'),
                _ => out.push(letter),
            }
            escaped = false;
        }
    }
}
