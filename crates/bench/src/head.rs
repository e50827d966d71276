//! The little of an HTTP/1.1 head that the backend and the load generator read.
//!
//! Lenient on purpose: strictness is what is being measured, not what measures.

use anyhow::Context as _;

/// A whole head, its blank line included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a>(&'a [u8]);

impl<'a> Head<'a> {
    /// The head at the start of `bytes`, once all of it is there.
    pub(crate) fn find(bytes: &'a [u8]) -> Option<Self> {
        let mut from = 0;
        loop {
            let rest = bytes.get(from..)?;
            let at = from + rest.iter().position(|&byte| byte == b'\n')?;
            if bytes.get(..=at)?.ends_with(b"\r\n\r\n") {
                return Some(Self(bytes.get(..=at)?));
            }
            from = at + 1;
        }
    }

    /// Bytes of the head.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn first_line(&self) -> &'a [u8] {
        self.lines().next().unwrap_or_default()
    }

    /// First value of the header `name` (lowercase), without the space around it.
    pub(crate) fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            found
                .eq_ignore_ascii_case(name.as_bytes())
                .then(|| value.trim_ascii())
        })
    }

    /// The header `name` as a number; an error when it is there and is none.
    pub(crate) fn number(&self, name: &str) -> anyhow::Result<Option<usize>> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(value).unwrap_or_default();
        text.parse()
            .map(Some)
            .with_context(|| format!("{name} is {text:?}, not a number"))
    }

    fn lines(&self) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .split(|&byte| byte == b'\n')
            .map(<[u8]>::trim_ascii_end)
    }
}

/// Whether `needle` stands somewhere in `haystack`; for short haystacks.
pub(crate) fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_head_only_when_it_is_whole() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length:  12 \r\nx-a: b\r\n\r\nhello";
        for end in 0..bytes.len() {
            let found = Head::find(&bytes[..end]).map(|head| head.len());
            assert_eq!(found, (end >= 50).then_some(50), "{end} bytes");
        }
        let head = Head::find(bytes).unwrap();
        assert_eq!(head.first_line(), b"HTTP/1.1 200 OK");
        assert_eq!(head.number("content-length").unwrap(), Some(12));
        assert_eq!(head.get("x-a"), Some(b"b".as_slice()));
        assert_eq!(head.get("x"), None);
        assert!(head.number("x-a").is_err());
    }
}
