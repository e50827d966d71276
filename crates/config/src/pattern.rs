//! What a match compares a value with: a fixed text, or a regular expression that must match the
//! whole value, compiled once and bounded in size.

use regex::bytes::{Regex, RegexBuilder};
use serde::{Serialize, Serializer};

/// Longest expression, in bytes.
const EXPRESSION_BYTES: usize = 4_096;
/// Largest compiled program and largest lazy automaton, in bytes each.
const PROGRAM_BYTES: usize = 1 << 20;

/// A fixed text or an expression.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Equal byte for byte.
    Exact(Box<str>),
    /// The source and its compiled form, anchored at both ends.
    Regex(Box<str>, Regex),
}

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// A text that says why it is no expression or too large a one.
    pub fn regex(source: &str) -> Result<Self, String> {
        if source.len() > EXPRESSION_BYTES {
            return Err(format!(
                "the expression is longer than {EXPRESSION_BYTES} bytes"
            ));
        }
        RegexBuilder::new(&format!(r"\A(?:{source})\z"))
            .size_limit(PROGRAM_BYTES)
            .dfa_size_limit(PROGRAM_BYTES)
            .nest_limit(64)
            .build()
            .map(|regex| Self::Regex(source.into(), regex))
            .map_err(|error| {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                let cause = last.strip_prefix("error: ").unwrap_or(last);
                format!(
                    "`{source}` is no usable regular expression: {}",
                    cause.to_lowercase()
                )
            })
    }

    /// Whether `value` is the text or matches the expression.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == value,
            Self::Regex(_, regex) => regex.is_match(value),
        }
    }

    /// What was written.
    pub fn source(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Regex(text, _) => text,
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        matches!(self, Self::Exact(_)) == matches!(other, Self::Exact(_))
            && self.source() == other.source()
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Exact(text) => serializer.serialize_str(text),
            Self::Regex(source, _) => serializer.collect_str(&format_args!("~{source}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_the_whole_value() {
        for (source, value, matches) in [
            ("a|b", "a", true),
            ("a|b", "xb", false),
            ("a|b", "ab", false),
            ("/v[0-9]+/.*", "/v12/x", true),
            ("(?i)abc", "ABC", true),
            (".", "é", true),
        ] {
            let pattern = Pattern::regex(source).unwrap();
            assert_eq!(
                pattern.matches(value.as_bytes()),
                matches,
                "{source} on {value}"
            );
        }
    }

    #[test]
    fn broken_or_huge_expressions_are_refused() {
        for source in [
            "(",
            "[a-",
            r"\p{Nothing}",
            &"a".repeat(5_000),
            "(a{1000}){1000}",
        ] {
            assert!(Pattern::regex(source).is_err());
        }
    }
}
