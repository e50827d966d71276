//! The route table: which rule takes a request. Built once, sorted by the API's precedence; a
//! look-up does not allocate.
//!
//! A socket ([`Bind`]) finds the listener with the most specific hostname, and only that one is
//! asked (listener isolation). In it, rules of more specific hostnames come first; within one
//! hostname: exact path, regular expression, longest prefix; then method, most headers, most query
//! parameters, oldest route, route name, order in the route. Building is in `table/build.rs`.

use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;

use crate::host::{HostBuffer, HostIndex, HostPattern};
use crate::pattern::Pattern;
use crate::rule::Rule;
use crate::snapshot::{Bind, Listener};

mod build;
pub(crate) use build::{RouteTableBuilder, Tie};

#[cfg(test)]
pub(crate) mod tests;

/// What matching reads of a request.
pub trait RequestView {
    /// `GET`, `POST`, ...
    fn method(&self) -> &str;
    /// Host without port, as sent.
    fn host(&self) -> &str;
    /// Path without query.
    fn path(&self) -> &str;
    /// What follows the question mark.
    fn query(&self) -> Option<&str>;
    /// First value of a header; the name is lowercase.
    fn header(&self, lowercase_name: &str) -> Option<&[u8]>;
}

/// What became of a look-up.
#[derive(Clone, Copy, Debug)]
pub enum RouteMatch<'a> {
    /// A rule takes the request.
    Found {
        /// The listener that it came in by.
        listener: &'a Arc<Listener>,
        /// The rule.
        rule: &'a Arc<Rule>,
        /// Bytes of the path that a prefix match covered; 0 for `/` and expressions.
        matched_prefix: usize,
    },
    /// A listener covers the host, but none of its rules matches: 404.
    NoRoute {
        /// The listener.
        listener: &'a Arc<Listener>,
    },
    /// No listener covers the host: 404.
    NoListener,
}

/// The rules of one listener.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct RouteTable {
    hosts: Vec<HostRoutes>,
    #[serde(skip)]
    index: HostIndex,
}

/// The rules of one hostname.
#[derive(Clone, Debug, Serialize)]
struct HostRoutes {
    host: HostPattern,
    /// In order of precedence: exact paths, expressions, prefixes by falling length.
    entries: Vec<Entry>,
    #[serde(skip)]
    exact: FxHashMap<Box<str>, Range<usize>>,
    #[serde(skip)]
    expressions: Range<usize>,
    #[serde(skip)]
    prefixes: FxHashMap<Box<str>, Range<usize>>,
    #[serde(skip)]
    longest_prefix: usize,
}

/// One match of one rule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Entry {
    pub(crate) matches: Arc<Matches>,
    #[serde(serialize_with = "rule_name")]
    pub(crate) rule: Arc<Rule>,
}

fn rule_name<S: serde::Serializer>(rule: &Arc<Rule>, serializer: S) -> Result<S::Ok, S::Error> {
    rule.serialize(serializer)
}

/// A compiled match: all parts must hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Matches {
    pub(crate) path: PathPattern,
    pub(crate) method: Option<Box<str>>,
    pub(crate) headers: Box<[NamedPattern]>,
    pub(crate) query: Box<[NamedPattern]>,
}

/// How the path must be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) enum PathPattern {
    Exact(Box<str>),
    /// Without trailing slash: empty for `/`.
    Prefix(Box<str>),
    Regex(Pattern),
}

/// A header (lowercase name) or query parameter and its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct NamedPattern {
    pub(crate) name: Box<str>,
    pub(crate) value: Pattern,
}

impl PartialEq for RouteTable {
    fn eq(&self, other: &Self) -> bool {
        self.hosts == other.hosts
    }
}

impl PartialEq for HostRoutes {
    fn eq(&self, other: &Self) -> bool {
        // The indexes follow from the entries.
        self.host == other.host && self.entries == other.entries
    }
}

impl Bind {
    /// The rule that takes `request`.
    pub fn route<'a>(&'a self, request: &impl RequestView) -> RouteMatch<'a> {
        let mut buffer = HostBuffer::new();
        let host = buffer.lowercase(request.host());
        let found = self.hosts.covering(host).next();
        let Some(listener) = found.and_then(|position| self.listeners.get(position)) else {
            return RouteMatch::NoListener;
        };
        match listener.routes.find(host, request) {
            Some((rule, matched_prefix)) => RouteMatch::Found {
                listener,
                rule,
                matched_prefix,
            },
            None => RouteMatch::NoRoute { listener },
        }
    }
}

impl Bind {
    /// The base of a model, as the listener that serves `host` knows it.
    pub fn base_model(&self, host: &str, model: &str) -> Option<&str> {
        if !self.has_base_models {
            return None;
        }
        let listener = self.listeners.get(self.listener_of(host)?)?;
        listener.base_models.as_ref()?.of(model)
    }

    /// Position of the listener that serves `host`, such as one named by SNI; empty for none.
    pub fn listener_of(&self, host: &str) -> Option<usize> {
        let mut buffer = HostBuffer::new();
        let host = buffer.lowercase(host);
        self.hosts.covering(host).next()
    }
}

impl RouteTable {
    fn find(&self, host: Option<&str>, request: &impl RequestView) -> Option<(&Arc<Rule>, usize)> {
        self.index
            .covering(host)
            .filter_map(|position| self.hosts.get(position))
            .find_map(|routes| routes.find(request))
    }

    /// Every rule that some match leads to, each as often as it is matched.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.hosts
            .iter()
            .flat_map(|host| host.entries.iter().map(|entry| &entry.rule))
    }
}

impl HostRoutes {
    fn find(&self, request: &impl RequestView) -> Option<(&Arc<Rule>, usize)> {
        let path = request.path();
        let exact = self
            .exact
            .get(path)
            .and_then(|range| self.first(range, request));
        if let Some(rule) = exact {
            return Some((rule, path.len()));
        }
        if let Some(rule) = self.first(&self.expressions, request) {
            return Some((rule, 0));
        }
        let mut prefix = Some(path);
        if path.len() > self.longest_prefix {
            prefix = shorten(path, self.longest_prefix);
        }
        while let Some(candidate) = prefix {
            let range = self.prefixes.get(candidate);
            if let Some(rule) = range.and_then(|range| self.first(range, request)) {
                return Some((rule, candidate.len()));
            }
            prefix = shorten(candidate, usize::MAX);
        }
        None
    }

    fn first(&self, range: &Range<usize>, request: &impl RequestView) -> Option<&Arc<Rule>> {
        let entries = self.entries.get(range.clone())?;
        entries
            .iter()
            .find(|entry| entry.matches.hold(request))
            .map(|entry| &entry.rule)
    }
}

/// `path` cut at its last slash at or before byte `most`.
fn shorten(path: &str, most: usize) -> Option<&str> {
    let bytes = path.as_bytes();
    let window = bytes.get(..=most).unwrap_or(bytes);
    let slash = window.iter().rposition(|byte| *byte == b'/')?;
    path.get(..slash)
}

impl Matches {
    /// Whether all parts hold but the fixed path, which the index has compared already.
    fn hold(&self, request: &impl RequestView) -> bool {
        let path_holds = match &self.path {
            PathPattern::Regex(pattern) => pattern.matches(request.path().as_bytes()),
            _ => true,
        };
        path_holds
            && self
                .method
                .as_deref()
                .is_none_or(|method| method == request.method())
            && self.headers.iter().all(|wanted| {
                request
                    .header(&wanted.name)
                    .is_some_and(|value| wanted.value.matches(value))
            })
            && self
                .query
                .iter()
                .all(|wanted| wanted.holds_in_query(request.query()))
    }
}

impl NamedPattern {
    /// Whether the first parameter of this name has the value, percent-decoded.
    fn holds_in_query(&self, query: Option<&str>) -> bool {
        let pairs = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut room = [0; DECODED_BYTES];
        let found =
            pairs.find(|(name, _)| decode_percent(name, &mut room) == Some(self.name.as_bytes()));
        found.is_some_and(|(_, value)| {
            decode_percent(value, &mut room).is_some_and(|value| self.value.matches(value))
        })
    }
}

/// Longest decoded name or value of a query parameter; longer escaped ones match nothing.
const DECODED_BYTES: usize = 1_024;

/// `text` with `%41` and `+` decoded, in `room` when there is anything to decode.
fn decode_percent<'a>(text: &'a str, room: &'a mut [u8; DECODED_BYTES]) -> Option<&'a [u8]> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Some(text.as_bytes());
    }
    let mut bytes = text.bytes();
    let mut length = 0;
    while let Some(byte) = bytes.next() {
        *room.get_mut(length)? = match byte {
            b'+' => b' ',
            b'%' => {
                let hex = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(hex(bytes.next())? * 16 + hex(bytes.next())?).ok()?
            }
            plain => plain,
        };
        length += 1;
    }
    room.get(..length)
}
