//! Secret, and the sealed string that keeps its values out of logs and debug pages.

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize, Serializer};

use super::meta::Meta;
use super::wire::wire;

wire!(
    /// A core Secret; values are base64 in `data` and plain in `stringData`.
    Secret {
        api_version: String,
        kind: String,
        metadata: Meta;
        #[serde(rename = "type")]
        secret_type: Option<String>,
        data: IndexMap<String, Sealed>,
        string_data: IndexMap<String, Sealed>,
        immutable: Option<bool>,
    }
);

/// A text that prints as a fingerprint. `Debug` and `Serialize` never show the content.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl Sealed {
    /// Seals `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The content, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "hash:{:08x}",
            crate::hash::of_bytes(self.0.as_bytes()) as u32
        )
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Secret {
    /// The decoded value of `key`, from `stringData` or `data`; `None` when absent or not base64.
    pub fn value(&self, key: &str) -> Option<Vec<u8>> {
        match self.string_data.get(key) {
            Some(plain) => Some(plain.reveal().as_bytes().to_vec()),
            None => decode_base64(self.data.get(key)?.reveal()),
        }
    }
}

/// RFC 4648 section 4, with white space between characters allowed and padding required.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut bits: u32 = 0;
    let (mut digits, mut padding) = (0usize, 0usize);
    for byte in text.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                continue;
            }
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        bits = (bits << 6) | u32::from(value);
        digits += 1;
        if digits % 4 == 0 {
            out.extend_from_slice(bits.to_be_bytes().get(1..)?);
            bits = 0;
        }
    }
    match (digits % 4, padding) {
        (0, 0) => {}
        (2, 2) => out.push((bits >> 4) as u8),
        (3, 1) => out.extend_from_slice((bits >> 2).to_be_bytes().get(2..)?),
        _ => return None,
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_strictly() {
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("Zm9v\nYmFy", Some(b"foobar")),
            ("Zg", None),
            ("Z===", None),
            ("Zm9v=", None),
            ("Zg==Zg==", None),
            ("Zm-v", None),
        ] {
            assert_eq!(decode_base64(text).as_deref(), bytes, "{text:?}");
        }
    }

    #[test]
    fn a_sealed_value_is_never_printed() {
        let sealed = Sealed::new("hunter2");
        let shown = format!(
            "{sealed} {sealed:?} {}",
            serde_json::to_string(&sealed).unwrap()
        );
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_ne!(sealed.to_string(), Sealed::new("hunter3").to_string());
    }
}
