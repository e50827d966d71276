//! Hostnames: exact, wildcard or any; their intersection, and an index that finds the most
//! specific one of a request's host without allocating.
//!
//! A wildcard covers one or more labels, never the bare domain. Comparison is by lowercase ASCII.

use std::fmt;

use rustc_hash::FxHashMap;
use serde::{Serialize, Serializer};

/// What a listener or a route says about hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// One host, lowercase.
    Exact(Box<str>),
    /// `*.suffix`: the suffix without star and dot, lowercase.
    Wildcard(Box<str>),
    /// Every host.
    Any,
}

impl HostPattern {
    /// Reads a hostname of the API; `None` if it is none (empty, an address, a star elsewhere).
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let (wildcard, rest) = match lower.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, lower.as_str()),
        };
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_address = rest.parse::<std::net::Ipv4Addr>().is_ok();
        if rest.len() > 253 || is_address || !rest.split('.').all(is_label) {
            return None;
        }
        Some(if wildcard {
            Self::Wildcard(rest.into())
        } else {
            Self::Exact(rest.into())
        })
    }

    /// The hosts that both cover: the more specific of the two, or none.
    pub fn intersect<'a>(&'a self, other: &'a Self) -> Option<&'a Self> {
        if self.covers(other) {
            Some(other)
        } else {
            other.covers(self).then_some(self)
        }
    }

    /// Whether every host of `other` is one of these.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Exact(host), Self::Exact(other)) => host == other,
            (Self::Wildcard(suffix), Self::Wildcard(other)) => {
                suffix == other || is_below(other, suffix)
            }
            (Self::Wildcard(suffix), Self::Exact(host)) => is_below(host, suffix),
            _ => false,
        }
    }

    /// Most specific first: exact hosts, then longer wildcards, then any.
    pub(crate) fn precedence(&self) -> (u8, std::cmp::Reverse<usize>, &str) {
        match self {
            Self::Exact(host) => (0, std::cmp::Reverse(host.len()), host),
            Self::Wildcard(suffix) => (1, std::cmp::Reverse(suffix.len()), suffix),
            Self::Any => (2, std::cmp::Reverse(0), ""),
        }
    }
}

fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix)
        .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Room for a host in lowercase on the stack.
pub(crate) struct HostBuffer([u8; 256]);

impl HostBuffer {
    pub(crate) fn new() -> Self {
        Self([0; 256])
    }

    /// `host` in lowercase without a final dot; `None` if it is longer than any hostname.
    pub(crate) fn lowercase<'a>(&'a mut self, host: &'a str) -> Option<&'a str> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Some(host);
        }
        let room = self.0.get_mut(..host.len())?;
        room.copy_from_slice(host.as_bytes());
        room.make_ascii_lowercase();
        std::str::from_utf8(room).ok()
    }
}

/// Finds the patterns that cover a host, most specific first.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostIndex {
    exact: FxHashMap<Box<str>, usize>,
    wildcard: FxHashMap<Box<str>, usize>,
    any: Option<usize>,
}

impl HostIndex {
    /// An index of the positions of `patterns`; the first of equal ones counts.
    pub(crate) fn new<'a>(patterns: impl Iterator<Item = &'a HostPattern>) -> Self {
        let mut index = Self::default();
        for (position, pattern) in patterns.enumerate() {
            match pattern {
                HostPattern::Exact(host) => {
                    index.exact.entry(host.clone()).or_insert(position);
                }
                HostPattern::Wildcard(suffix) => {
                    index.wildcard.entry(suffix.clone()).or_insert(position);
                }
                HostPattern::Any => {
                    index.any.get_or_insert(position);
                }
            }
        }
        index
    }

    /// Positions of the patterns that cover `host` (lowercase), most specific first.
    pub(crate) fn covering<'a>(
        &'a self,
        host: Option<&'a str>,
    ) -> impl Iterator<Item = usize> + 'a {
        let exact = host.and_then(|host| self.exact.get(host));
        let suffixes = std::iter::successors(host, |rest| Some(rest.split_once('.')?.1)).skip(1);
        let wildcard = suffixes
            .take(if self.wildcard.is_empty() { 0 } else { 128 })
            .filter_map(|suffix| self.wildcard.get(suffix));
        exact.into_iter().chain(wildcard).chain(&self.any).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        if text == "*" {
            HostPattern::Any
        } else {
            HostPattern::parse(text).unwrap()
        }
    }

    #[test]
    fn intersection_is_the_more_specific_host() {
        for (one, other, both) in [
            ("a.example.com", "a.example.com", Some("a.example.com")),
            ("a.example.com", "b.example.com", None),
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "a.b.example.com", Some("a.b.example.com")),
            ("*.example.com", "example.com", None),
            ("*.example.com", "badexample.com", None),
            ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
            ("*.example.com", "*.other.com", None),
            ("*", "*.other.com", Some("*.other.com")),
            ("*", "*", Some("*")),
        ] {
            let (one, other) = (pattern(one), pattern(other));
            let found = one.intersect(&other).map(ToString::to_string);
            assert_eq!(found.as_deref(), both);
            assert_eq!(
                other.intersect(&one).map(ToString::to_string).as_deref(),
                both
            );
        }
    }

    #[test]
    fn names_that_are_no_hostnames_are_refused() {
        for text in [
            "", "*", "*.", "a.*.com", "10.0.0.1", "a..b", "-a.com", "a_b.com", "a/b",
        ] {
            assert_eq!(HostPattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_most_specific_pattern_comes_first() {
        let patterns = ["*", "*.com", "*.example.com", "a.example.com"].map(pattern);
        let index = HostIndex::new(patterns.iter());
        for (host, found) in [
            ("a.example.com", &[3, 2, 1, 0][..]),
            ("b.example.com", &[2, 1, 0]),
            ("x.b.example.com", &[2, 1, 0]),
            ("example.com", &[1, 0]),
            ("com", &[0]),
            ("", &[0]),
        ] {
            assert_eq!(
                index.covering(Some(host)).collect::<Vec<_>>(),
                found,
                "{host}"
            );
        }
        let mut buffer = HostBuffer::new();
        assert_eq!(buffer.lowercase("A.Example.COM."), Some("a.example.com"));
        assert_eq!(HostBuffer::new().lowercase(&"A".repeat(300)), None);
    }
}
