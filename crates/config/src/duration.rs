//! Durations of the Gateway API (GEP-2257): `10s`, `1h30m`, `500ms`.
//!
//! One to four groups of at most five digits and a unit of `h`, `m`, `s`, `ms`; no fractions, no
//! sign, no bare zero. The text is kept, so that an exported manifest says what was written.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Unexpected, Visitor};
use serde::{Serialize, Serializer};

/// A duration as written and as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiDuration {
    text: String,
    value: Duration,
}

impl ApiDuration {
    /// Reads the GEP-2257 form; `None` if `text` is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        parse(text).map(|value| Self {
            text: text.to_owned(),
            value,
        })
    }

    /// The value; zero stands for "no limit" in route timeouts.
    pub fn value(&self) -> Duration {
        self.value
    }
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut groups = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 5 || groups == 4 {
            return None;
        }
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let (millis, after) = if let Some(after) = after.strip_prefix("ms") {
            (1, after)
        } else if let Some(after) = after.strip_prefix('s') {
            (1_000, after)
        } else if let Some(after) = after.strip_prefix('m') {
            (60_000, after)
        } else {
            (3_600_000, after.strip_prefix('h')?)
        };
        total += Duration::from_millis(number * millis);
        rest = after;
        groups += 1;
    }
    (groups > 0).then_some(total)
}

impl fmt::Display for ApiDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for ApiDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for ApiDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = ApiDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 30s, 500ms or 1h30m")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ApiDuration, E> {
                ApiDuration::parse(text)
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forms_of_gep_2257_and_nothing_else() {
        for (text, millis) in [
            ("0s", Some(0)),
            ("1s", Some(1_000)),
            ("500ms", Some(500)),
            ("1h30m", Some(5_400_000)),
            ("1h1m1s1ms", Some(3_661_001)),
            ("99999s", Some(99_999_000)),
            ("", None),
            ("0", None),
            ("1.5s", None),
            ("-1s", None),
            ("1d", None),
            ("100000s", None),
            ("1s1s1s1s1s", None),
            ("10 s", None),
        ] {
            let read = ApiDuration::parse(text).map(|duration| duration.value().as_millis());
            assert_eq!(read, millis, "{text}");
        }
    }
}
