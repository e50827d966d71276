//! A request to match, and the table of the API's precedence.

use std::sync::Arc;

use super::RequestView;
use crate::{Objects, RouteMatch, Snapshot, compile, decode_for_tests as decode};

/// A request of a test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn get(host: &str, target: &str) -> Self {
        Self {
            method: "GET".to_owned(),
            host: host.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
        }
    }
}

impl RequestView for Request {
    fn method(&self) -> &str {
        &self.method
    }
    fn host(&self) -> &str {
        &self.host
    }
    fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }
    fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }
    fn header(&self, lowercase_name: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter();
        headers
            .find(|(name, _)| name == lowercase_name)
            .map(|(_, value)| value.as_bytes())
    }
}

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: penstock
  listeners:
  - {name: any, port: 80, protocol: HTTP}
  - {name: exact, port: 80, protocol: HTTP, hostname: very.specific.com}
  - {name: wild, port: 80, protocol: HTTP, hostname: \"*.wild.io\"}
";

fn snapshot(routes: &str) -> Arc<Snapshot> {
    let objects: Objects = decode(&format!("{GATEWAY}{routes}")).into_iter().collect();
    compile(&objects).snapshot
}

/// A route whose rules redirect, so that it needs no backends.
fn route(name: &str, spec: &str, rules: &[&str]) -> String {
    let mut text = format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: {name}}}\nspec:\n  parentRefs: [{{name: gw}}]\n  {spec}\n  rules:\n"
    );
    for rule in rules {
        text.push_str(&format!(
            "  - matches: {rule}\n    filters: [{{type: RequestRedirect, requestRedirect: {{}}}}]\n"
        ));
    }
    text
}

fn found(snapshot: &Snapshot, request: &Request) -> String {
    match snapshot.binds[0].route(request) {
        RouteMatch::Found {
            rule,
            matched_prefix,
            ..
        } => {
            format!("{}/{} {matched_prefix}", rule.route.name, rule.index)
        }
        RouteMatch::NoRoute { listener } => format!("none in {}", listener.name),
        RouteMatch::NoListener => "no listener".to_owned(),
    }
}

#[test]
fn paths_match_by_element_and_the_most_specific_wins() {
    let snapshot = snapshot(&route(
        "r",
        "",
        &[
            "[{path: {value: /}}]",
            "[{path: {value: /v2/}}]",
            "[{path: {type: Exact, value: /v2}}]",
            "[{path: {value: /v2/deep}}]",
            "[{path: {type: RegularExpression, value: \"/v[0-9]/x.*\"}}]",
            "[{path: {value: /v2}, method: POST}]",
        ],
    ));
    for (method, target, expected) in [
        ("GET", "/", "r/0 0"),
        ("GET", "/v2", "r/2 3"),
        ("POST", "/v2", "r/2 3"),
        ("GET", "/v2/", "r/1 3"),
        ("GET", "/v2/other?q=1", "r/1 3"),
        ("POST", "/v2/other", "r/5 3"),
        ("GET", "/v2example", "r/0 0"),
        ("GET", "/v2/deep", "r/3 8"),
        ("GET", "/v2/deep/er", "r/3 8"),
        ("GET", "/v2/deeper", "r/1 3"),
        ("GET", "/v2/xyz", "r/4 0"),
        ("GET", "/V2", "r/0 0"),
        ("GET", &format!("/v2{}", "/a".repeat(4_000)), "r/1 3"),
    ] {
        let request = Request {
            method: method.to_owned(),
            ..Request::get("a.com", target)
        };
        assert_eq!(found(&snapshot, &request), expected, "{method} {target}");
    }
}

#[test]
fn more_conditions_win_and_ties_go_to_the_first() {
    let snapshot = snapshot(&route(
        "r",
        "",
        &[
            "[{headers: [{name: Version, value: two}]}]",
            "[{headers: [{name: version, value: two}, {name: Color, value: blue}]}]",
            "[{queryParams: [{name: animal, value: whale}]}]",
            "[{headers: [{name: version, value: two}], queryParams: [{name: animal, value: whale}]}]",
            "[{headers: [{name: version, value: two}]}]",
            "[{queryParams: [{name: q, type: RegularExpression, value: \"a.c|d e\"}]}]",
        ],
    ));
    for (headers, target, expected) in [
        (&[("version", "two")][..], "/", "r/0 0"),
        (&[("version", "TWO")], "/", "none in any"),
        (&[("version", "two"), ("color", "blue")], "/", "r/1 0"),
        (
            &[("version", "two"), ("color", "blue")],
            "/?animal=whale",
            "r/1 0",
        ),
        (&[("version", "two")], "/?animal=whale", "r/3 0"),
        (&[], "/?animal=whale", "r/2 0"),
        (&[], "/?animal=dolphin&animal=whale", "none in any"),
        (&[], "/?Animal=whale", "none in any"),
        (&[], "/?x&animal=wh%61le", "r/2 0"),
        (&[], "/?q=abc", "r/5 0"),
        (&[], "/?q=abcd", "none in any"),
        (&[], "/?q=d+e", "r/5 0"),
        (&[], "/?q=d%20e", "r/5 0"),
        (&[], "/?q=%zz", "none in any"),
    ] {
        let mut request = Request::get("a.com", target);
        request.headers = headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        assert_eq!(found(&snapshot, &request), expected, "{headers:?} {target}");
    }
}

#[test]
fn the_listener_of_the_most_specific_host_takes_the_request_alone() {
    let routes = [
        route("all", "", &["[{path: {value: /}}]"]),
        route(
            "exact-only",
            "hostnames: [very.specific.com]",
            &["[{path: {value: /s3}}]"],
        ),
        route(
            "wide",
            "hostnames: [\"*.wild.io\"]",
            &["[{path: {value: /w}}]"],
        ),
        route(
            "narrow",
            "hostnames: [a.wild.io, b.a.wild.io]",
            &["[{path: {value: /w/n}}]"],
        ),
    ];
    // Only where they belong, so that falling through to another listener would show.
    let routes = routes
        .concat()
        .replacen("[{name: gw}]", "[{name: gw, sectionName: any}]", 1);
    let snapshot = snapshot(&routes);
    for (host, target, expected) in [
        ("other.com", "/x", "all/0 0"),
        ("very.specific.com", "/s3", "exact-only/0 3"),
        ("VERY.specific.com.", "/s3", "exact-only/0 3"),
        ("very.specific.com", "/x", "none in exact"),
        ("x.wild.io", "/w", "wide/0 2"),
        ("wild.io", "/w", "all/0 0"),
        ("a.wild.io", "/w/n", "narrow/0 4"),
        ("a.wild.io", "/w", "wide/0 2"),
        ("b.a.wild.io", "/w/n", "narrow/0 4"),
        ("c.wild.io", "/w/n", "wide/0 2"),
        ("x.wild.io", "/other", "none in wild"),
    ] {
        assert_eq!(
            found(&snapshot, &Request::get(host, target)),
            expected,
            "{host} {target}"
        );
    }
}

#[test]
fn rules_of_several_routes_merge_and_the_oldest_wins_ties() {
    let dated = |name: &str, stamp: &str, rule: &str| {
        let metadata = format!("name: {name}, creationTimestamp: \"{stamp}\"");
        route(name, "", &[rule]).replacen(&format!("name: {name}"), &metadata, 1)
    };
    let routes = [
        dated("young", "2024-02-01T00:00:00Z", "[{path: {value: /}}]"),
        dated("old", "2024-01-01T00:00:00Z", "[{path: {value: /}}]"),
        dated("deep", "2024-03-01T00:00:00Z", "[{path: {value: /v2}}]"),
        route("b-undated", "", &["[{path: {value: /u}}]"]),
        route("a-undated", "", &["[{path: {value: /u}}]"]),
    ];
    let snapshot = snapshot(&routes.concat());
    for (target, expected) in [
        ("/", "old/0 0"),
        ("/v2", "deep/0 3"),
        ("/u", "a-undated/0 2"),
    ] {
        assert_eq!(
            found(&snapshot, &Request::get("a.com", target)),
            expected,
            "{target}"
        );
    }
}

/// The table against the API's words, over small random tables.
mod random {
    use super::super::build::{RouteTableBuilder, Tie};
    use super::super::{Matches, NamedPattern, PathPattern, RouteTable};
    use super::*;
    use crate::host::HostPattern;
    use crate::pattern::Pattern;
    use crate::rule::{Filters, Rule, Timeouts};
    use crate::{ObjectName, compile::Age};
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    struct Line {
        host: HostPattern,
        matches: Matches,
        created: Option<u8>,
        route: u8,
    }

    fn path() -> impl Strategy<Value = String> {
        prop::collection::vec(prop_oneof!["a", "b", "ab"], 0..4)
            .prop_map(|elements| format!("/{}", elements.join("/")))
    }

    fn host() -> impl Strategy<Value = HostPattern> {
        prop_oneof![
            Just(HostPattern::Any),
            "(a|b)(\\.(a|b)){0,2}".prop_map(|host| HostPattern::Exact(host.into())),
            "(a|b)(\\.(a|b)){0,1}".prop_map(|host| HostPattern::Wildcard(host.into())),
        ]
    }

    fn named() -> impl Strategy<Value = Box<[NamedPattern]>> {
        prop::collection::btree_map("x|y", "1|2", 0..3).prop_map(|pairs| {
            let pattern = |(name, value): (String, String)| NamedPattern {
                name: name.into(),
                value: Pattern::Exact(value.into()),
            };
            pairs.into_iter().map(pattern).collect()
        })
    }

    fn line() -> impl Strategy<Value = Line> {
        let path = prop_oneof![
            path().prop_map(|path| PathPattern::Exact(path.into())),
            path().prop_map(|path| PathPattern::Prefix(path.trim_end_matches('/').into())),
            prop::sample::select(vec!["/a.*", "/.*b", "/a/.+"])
                .prop_map(|source| PathPattern::Regex(Pattern::regex(source).unwrap())),
        ];
        let method = prop::option::of(prop_oneof!["GET", "POST"]);
        (
            host(),
            path,
            method,
            named(),
            named(),
            prop::option::of(0..3u8),
            0..3u8,
        )
            .prop_map(
                |(host, path, method, headers, query, created, route)| Line {
                    host,
                    matches: Matches {
                        path,
                        method: method.map(Into::into),
                        headers,
                        query,
                    },
                    created,
                    route,
                },
            )
    }

    fn request() -> impl Strategy<Value = Request> {
        let pairs = || prop::collection::btree_map("x|y", "1|2", 0..3);
        let host = "(a|b)(\\.(a|b)){0,3}";
        (path(), prop_oneof!["GET", "POST"], host, pairs(), pairs()).prop_map(
            |(path, method, host, headers, query)| {
                let query: Vec<String> = query
                    .into_iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                let target = if query.is_empty() {
                    path
                } else {
                    format!("{path}?{}", query.join("&"))
                };
                Request {
                    method,
                    host,
                    target,
                    headers: headers.into_iter().collect(),
                }
            },
        )
    }

    fn tie(position: usize, line: &Line) -> Tie {
        let created = line.created.map(|stamp| format!("2024-01-0{stamp}"));
        let meta = crate::objects::Meta {
            creation_timestamp: created,
            ..Default::default()
        };
        Tie {
            age: Age::of(&meta),
            route: ObjectName::new("default", &line.route.to_string()),
            rule: position,
            position: 0,
        }
    }

    fn build(lines: &[Line]) -> RouteTable {
        let mut builder = RouteTableBuilder::default();
        for (position, line) in lines.iter().enumerate() {
            let rule = Arc::new(Rule {
                route: ObjectName::new("default", "r"),
                index: position as u32,
                name: None,
                filters: Filters::default(),
                backends: Vec::new(),
                timeouts: Timeouts::default(),
                retry: None,
                fault: None,
            });
            let matches = Arc::new(line.matches.clone());
            builder.add(&line.host, tie(position, line), &matches, &rule);
        }
        builder.build()
    }

    /// Every line is tried; of those that match, the most specific by the API's list.
    fn naive(lines: &[Line], request: &Request) -> Option<usize> {
        let (path, query) = (request.path(), request.query().unwrap_or_default());
        let has = |wanted: &NamedPattern| {
            query
                .split('&')
                .any(|pair| pair == format!("{}={}", wanted.name, wanted.value.source()))
        };
        let matching = lines.iter().enumerate().filter(|(_, line)| {
            let Matches {
                path: pattern,
                method,
                headers,
                query,
            } = &line.matches;
            (match pattern {
                PathPattern::Exact(exact) => **exact == *path,
                PathPattern::Prefix(prefix) => {
                    format!("{path}/").starts_with(&format!("{prefix}/"))
                }
                PathPattern::Regex(pattern) => pattern.matches(path.as_bytes()),
            }) && method
                .as_deref()
                .is_none_or(|method| *method == *request.method)
                && headers.iter().all(|wanted| {
                    request.header(&wanted.name) == Some(wanted.value.source().as_bytes())
                })
                && query.iter().all(has)
                && line
                    .host
                    .covers(&HostPattern::Exact(request.host.as_str().into()))
        });
        let rank = |(position, line): &(usize, &Line)| {
            let host = match &line.host {
                HostPattern::Exact(host) => (2, host.len()),
                HostPattern::Wildcard(suffix) => (1, suffix.len()),
                HostPattern::Any => (0, 0),
            };
            let path = match &line.matches.path {
                PathPattern::Exact(_) => (2, 0),
                PathPattern::Regex(pattern) => (1, pattern.source().len()),
                PathPattern::Prefix(prefix) => (0, prefix.len()),
            };
            let conditions = (
                line.matches.method.is_some(),
                line.matches.headers.len(),
                line.matches.query.len(),
            );
            let age = std::cmp::Reverse((line.created.is_none(), line.created));
            (
                host,
                path,
                conditions,
                age,
                std::cmp::Reverse((line.route, *position)),
            )
        };
        matching.max_by_key(rank).map(|(position, _)| position)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]
        #[test]
        fn the_table_finds_what_trying_every_line_finds(
            lines in prop::collection::vec(line(), 0..12),
            requests in prop::collection::vec(request(), 1..12),
        ) {
            let table = build(&lines);
            for request in &requests {
                let found = table.find(Some(&request.host), request);
                let found = found.map(|(rule, _)| rule.index as usize);
                prop_assert_eq!(found, naive(&lines, request), "{:?}", request);
            }
        }
    }
}
