//! A route on its own: matches, filters and timeouts compiled, references left as they are.
//!
//! Depends on the route alone, so the result is kept as long as the object does not change. A rule
//! whose match is unusable is left out; one whose filter is unusable stays and answers 500, since
//! a filter must never be skipped.

use std::sync::Arc;
use std::time::Duration;

use super::filters;
use crate::host::HostPattern;
use crate::objects::HttpRoute;
use crate::objects::http_route::{
    HttpNamedMatch, HttpPathMatch, HttpRouteMatch, HttpRouteRetry, HttpRouteRule,
    HttpRouteTimeouts, PathMatchType, ValueMatchType,
};
use crate::pattern::Pattern;
use crate::rule::{Filters, RouteRetry, Timeouts};
use crate::table::{Matches, NamedPattern, PathPattern};
use crate::yaml::nearest;

/// A field that cannot be used: path and message.
pub(super) type Unusable = (String, String);

/// A route without its references.
#[derive(Debug)]
pub(super) struct LoweredRoute {
    /// Empty means those of the listener.
    pub(super) hosts: Vec<HostPattern>,
    pub(super) rules: Vec<LoweredRule>,
    /// What cannot be used, in the order of the fields.
    pub(super) unusable: Vec<Unusable>,
    /// Rules without any unusable field.
    pub(super) usable_rules: usize,
    /// Fields that are passed over while their rule is served.
    pub(super) ignored: Vec<Unusable>,
}

/// A rule without its references.
#[derive(Debug)]
pub(super) struct LoweredRule {
    /// Position in the route.
    pub(super) index: u32,
    pub(super) name: Option<Box<str>>,
    pub(super) matches: Vec<Arc<Matches>>,
    pub(super) filters: Filters,
    pub(super) timeouts: Timeouts,
    pub(super) retry: Option<RouteRetry>,
    /// Filters of each backend, in order; the message if they cannot be used.
    pub(super) backend_filters: Vec<Result<Filters, String>>,
    pub(super) fault: Option<Box<str>>,
}

impl LoweredRoute {
    pub(super) fn lower(route: &HttpRoute) -> Self {
        let mut unusable = Vec::new();
        let mut hosts = Vec::new();
        for (index, text) in route.spec.hostnames.iter().enumerate() {
            match HostPattern::parse(text) {
                Some(host) => hosts.push(host),
                None => unusable.push((
                    format!("spec.hostnames[{index}]"),
                    format!("`{text}` is no hostname"),
                )),
            }
        }
        // The API's default for absent rules is one that matches everything.
        let default_rules = [HttpRouteRule::default()];
        let rules = route.spec.rules.as_deref().unwrap_or(&default_rules);
        let mut lowered = Vec::with_capacity(rules.len());
        let mut usable_rules = 0;
        let mut ignored = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let before = unusable.len();
            let path = format!("spec.rules[{index}]");
            lowered.extend(lower_rule(index, rule, &path, &mut unusable));
            usable_rules += usize::from(unusable.len() == before);
            note_ignored(rule, &path, &mut ignored);
        }
        // Hostnames of which none is usable must not turn into "every host".
        if hosts.is_empty() && !route.spec.hostnames.is_empty() {
            lowered.clear();
            usable_rules = 0;
        }
        Self {
            hosts,
            rules: lowered,
            unusable,
            usable_rules,
            ignored,
        }
    }
}

fn lower_rule(
    index: usize,
    rule: &HttpRouteRule,
    path: &str,
    unusable: &mut Vec<Unusable>,
) -> Option<LoweredRule> {
    let default_matches = [HttpRouteMatch::default()];
    let matches = if rule.matches.is_empty() {
        default_matches.as_slice()
    } else {
        rule.matches.as_slice()
    };
    let mut compiled = Vec::with_capacity(matches.len());
    for (position, one) in matches.iter().enumerate() {
        match lower_match(one, &format!("{path}.matches[{position}]")) {
            Ok(matches) => compiled.push(Arc::new(matches)),
            Err(found) => unusable.push(found),
        }
    }
    if compiled.is_empty() {
        return None;
    }
    let (filters, fault) = match filters::lower(&rule.filters, matches, &format!("{path}.filters"))
    {
        Ok(filters) => (filters, None),
        Err((field, message)) => {
            unusable.push((field, message.clone()));
            (Filters::default(), Some(message.into()))
        }
    };
    let backend_filters = rule
        .backend_refs
        .iter()
        .enumerate()
        .map(|(position, backend)| {
            let path = format!("{path}.backendRefs[{position}].filters");
            filters::lower(&backend.filters, matches, &path).map_err(|(field, message)| {
                unusable.push((field, message.clone()));
                message
            })
        });
    let backend_filters = backend_filters.collect();
    Some(LoweredRule {
        index: u32::try_from(index).unwrap_or(u32::MAX),
        name: rule.name.as_deref().map(Into::into),
        matches: compiled,
        filters,
        timeouts: lower_timeouts(rule.timeouts.as_ref()),
        retry: rule.retry.as_ref().map(lower_retry),
        backend_filters,
        fault,
    })
}

/// Fields that change nothing yet, without harm to what the rule is for.
fn note_ignored(rule: &HttpRouteRule, path: &str, ignored: &mut Vec<Unusable>) {
    if rule.session_persistence.is_some() {
        let message = "sessions are not kept yet".to_owned();
        ignored.push((format!("{path}.sessionPersistence"), message));
    }
}

/// Tries after the first where the route does not say how many, and the least time between two.
const DEFAULT_RETRIES: u32 = 2;
const DEFAULT_BACKOFF: Duration = Duration::from_millis(25);
/// More tries than this would only multiply a failure.
const MOST_RETRIES: u32 = 20;

fn lower_retry(retry: &HttpRouteRetry) -> RouteRetry {
    let backoff = retry.backoff.as_ref().map(crate::ApiDuration::value);
    RouteRetry {
        codes: retry.codes.clone(),
        attempts: retry.attempts.unwrap_or(DEFAULT_RETRIES).min(MOST_RETRIES),
        backoff: backoff.unwrap_or(DEFAULT_BACKOFF),
    }
}

/// Zero disables a timeout (HTTPRouteTimeouts).
fn lower_timeouts(timeouts: Option<&HttpRouteTimeouts>) -> Timeouts {
    let limit = |duration: Option<&crate::ApiDuration>| {
        duration
            .map(crate::ApiDuration::value)
            .filter(|value| !value.is_zero())
    };
    timeouts.map_or_else(Timeouts::default, |timeouts| Timeouts {
        request: limit(timeouts.request.as_ref()),
        backend_request: limit(timeouts.backend_request.as_ref()),
    })
}

fn lower_match(one: &HttpRouteMatch, path: &str) -> Result<Matches, Unusable> {
    let default_path = HttpPathMatch::default();
    let path_match = one.path.as_ref().unwrap_or(&default_path);
    let method = one.method.as_deref();
    if let Some(method) = method
        && !METHODS.contains(&method)
    {
        let hint = hint(method, METHODS);
        return Err((
            format!("{path}.method"),
            format!("unknown method `{method}`{hint}"),
        ));
    }
    Ok(Matches {
        path: lower_path(path_match, &format!("{path}.path"))?,
        method: method.map(Into::into),
        headers: lower_named(
            &one.headers,
            &format!("{path}.headers"),
            str::to_ascii_lowercase,
        )?,
        query: lower_named(
            &one.query_params,
            &format!("{path}.queryParams"),
            str::to_owned,
        )?,
    })
}

/// HTTPMethod of the API.
const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// `, did you mean ...` or nothing.
pub(super) fn hint(word: &str, known: &[&'static str]) -> String {
    nearest(word, known.iter().copied())
        .map(|near| format!(", did you mean `{near}`?"))
        .unwrap_or_default()
}

fn lower_path(path_match: &HttpPathMatch, path: &str) -> Result<PathPattern, Unusable> {
    let value = path_match.value.as_deref().unwrap_or("/");
    let match_type = path_match
        .match_type
        .as_ref()
        .unwrap_or(&PathMatchType::PathPrefix);
    let at_value = |message: String| (format!("{path}.value"), message);
    let absolute = || {
        let starts = value.starts_with('/');
        starts
            .then_some(value)
            .ok_or_else(|| at_value(format!("path `{value}` must start with /")))
    };
    match match_type {
        PathMatchType::Exact => Ok(PathPattern::Exact(absolute()?.into())),
        PathMatchType::PathPrefix => Ok(PathPattern::Prefix(
            absolute()?.trim_end_matches('/').into(),
        )),
        PathMatchType::RegularExpression => Pattern::regex(value)
            .map(PathPattern::Regex)
            .map_err(at_value),
        PathMatchType::Unknown(word) => {
            let hint = hint(word, PathMatchType::KNOWN);
            Err((
                format!("{path}.type"),
                format!("unknown path match type `{word}`{hint}"),
            ))
        }
    }
}

/// Of several matches of one name only the first counts (HTTPRouteMatch).
fn lower_named(
    list: &[HttpNamedMatch],
    path: &str,
    normalise: fn(&str) -> String,
) -> Result<Box<[NamedPattern]>, Unusable> {
    let mut lowered: Vec<NamedPattern> = Vec::with_capacity(list.len());
    for (index, one) in list.iter().enumerate() {
        let name = normalise(&one.name);
        if lowered.iter().any(|earlier| *earlier.name == *name) {
            continue;
        }
        let value = match one.match_type.as_ref().unwrap_or(&ValueMatchType::Exact) {
            ValueMatchType::Exact => Pattern::Exact(one.value.as_str().into()),
            ValueMatchType::RegularExpression => Pattern::regex(&one.value)
                .map_err(|message| (format!("{path}[{index}].value"), message))?,
            ValueMatchType::Unknown(word) => {
                let hint = hint(word, ValueMatchType::KNOWN);
                let message = format!("unknown match type `{word}`{hint}");
                return Err((format!("{path}[{index}].type"), message));
            }
        };
        lowered.push(NamedPattern {
            name: name.into(),
            value,
        });
    }
    Ok(lowered.into())
}
