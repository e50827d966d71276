//! Sorts matches into a [`RouteTable`] by the API's precedence.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Entry, HostRoutes, Matches, PathPattern, RouteTable};
use crate::host::{HostIndex, HostPattern};
use crate::name::ObjectName;
use crate::rule::Rule;

/// What decides between matches that are equally specific: the oldest route, then its name, then
/// the order of rules and matches in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tie {
    pub(crate) age: crate::compile::Age,
    pub(crate) route: ObjectName,
    pub(crate) rule: usize,
    pub(crate) position: usize,
}

/// Collects the matches of a listener.
#[derive(Debug, Default)]
pub(crate) struct RouteTableBuilder {
    hosts: FxHashMap<HostPattern, Vec<(Tie, Entry)>>,
}

impl RouteTableBuilder {
    pub(crate) fn add(
        &mut self,
        host: &HostPattern,
        tie: Tie,
        matches: &Arc<Matches>,
        rule: &Arc<Rule>,
    ) {
        let entry = Entry {
            matches: Arc::clone(matches),
            rule: Arc::clone(rule),
        };
        self.hosts
            .entry(host.clone())
            .or_default()
            .push((tie, entry));
    }

    pub(crate) fn build(self) -> RouteTable {
        let mut hosts: Vec<_> = self
            .hosts
            .into_iter()
            .map(|(host, entries)| HostRoutes::new(host, entries))
            .collect();
        hosts.sort_by(|a, b| a.host.precedence().cmp(&b.host.precedence()));
        let index = HostIndex::new(hosts.iter().map(|routes| &routes.host));
        RouteTable { hosts, index }
    }
}

impl HostRoutes {
    fn new(host: HostPattern, mut entries: Vec<(Tie, Entry)>) -> Self {
        entries.sort_by(|(tie_a, a), (tie_b, b)| {
            precedence(&a.matches)
                .cmp(&precedence(&b.matches))
                .then_with(|| tie_a.cmp(tie_b))
        });
        let entries: Vec<Entry> = entries.into_iter().map(|(_, entry)| entry).collect();
        let mut routes = Self {
            host,
            entries,
            exact: FxHashMap::default(),
            expressions: 0..0,
            prefixes: FxHashMap::default(),
            longest_prefix: 0,
        };
        for (position, entry) in routes.entries.iter().enumerate() {
            let one = position..position + 1;
            match &entry.matches.path {
                PathPattern::Exact(path) => {
                    extend(routes.exact.entry(path.clone()).or_default(), one)
                }
                PathPattern::Prefix(path) => {
                    routes.longest_prefix = routes.longest_prefix.max(path.len());
                    extend(routes.prefixes.entry(path.clone()).or_default(), one);
                }
                PathPattern::Regex(_) => extend(&mut routes.expressions, one),
            }
        }
        routes
    }
}

/// Entries of one path stand together, so a range grows at its end.
fn extend(range: &mut Range<usize>, one: Range<usize>) {
    if range.start >= range.end {
        *range = one;
    } else {
        range.end = one.end;
    }
}

/// Smaller comes first. Paths of one class and length are kept apart by their text, which no
/// request can tell, except for expressions, of which several may match.
fn precedence(matches: &Matches) -> impl Ord + use<'_> {
    let (class, length, text) = match &matches.path {
        PathPattern::Exact(path) => (0, path.len(), &**path),
        PathPattern::Regex(pattern) => (1, pattern.source().len(), ""),
        PathPattern::Prefix(path) => (2, path.len(), &**path),
    };
    (
        (class, Reverse(length), text),
        matches.method.is_none(),
        Reverse(matches.headers.len()),
        Reverse(matches.query.len()),
    )
}
