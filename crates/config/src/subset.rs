//! Subsets of a pool: members with some labels, to which requests with some headers are kept.
//!
//! A PoolPolicy lists them; a subset's number is its place among those of the list that can be
//! used, and means the same to [`crate::members()`] and to the pool's requests. An entry that cannot
//! be used is left out, and the policy's status says why.

use serde::Serialize;

use crate::compile::header_name;
use crate::objects::meta::Labels;
use crate::objects::penstock::SubsetSpec;
use crate::table::RequestView;
use picker::Subsets;

/// Labels and headers that one subset may name.
const MOST_PAIRS: usize = 16;
/// Characters of a label's name and of its value.
const MOST_LABEL: usize = 63;
/// Characters of a header's value, as in HTTPRoutes.
const MOST_VALUE: usize = 4096;

/// Some members of a pool, and the requests that are kept to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subset {
    /// What all of these members have.
    pub labels: Labels,
    /// Lowercase names and values that all of these requests have; empty: every request.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub headers: Box<[(Box<str>, Box<str>)]>,
}

impl Subset {
    /// The numbers of the subsets that a request may be kept to.
    pub fn of_request(subsets: &[Self], request: &impl RequestView) -> Subsets {
        let wants = |subset: &Self| {
            let mut headers = subset.headers.iter();
            headers.all(|(name, value)| request.header(name) == Some(value.as_bytes()))
        };
        numbers(subsets, wants)
    }

    /// The numbers of the subsets that a member with these labels is in.
    pub(crate) fn of_labels<'a>(
        subsets: &[Self],
        label: impl Fn(&str) -> Option<&'a str>,
    ) -> Subsets {
        let has = |subset: &Self| {
            let mut labels = subset.labels.iter();
            labels.all(|(name, value)| label(name) == Some(value))
        };
        numbers(subsets, has)
    }

    /// Those of the list that can be used.
    pub(crate) fn of_specs(specs: &[SubsetSpec]) -> Vec<Self> {
        let usable = specs.iter().take(Subsets::MOST).enumerate();
        let usable = usable.filter(|(index, spec)| problem(*index, spec).is_none());
        let subset = |(_, spec): (usize, &SubsetSpec)| Self {
            labels: spec.match_labels.clone(),
            headers: spec
                .headers
                .iter()
                .map(|header| {
                    let name = header.name.to_ascii_lowercase();
                    (name.into(), header.value.as_str().into())
                })
                .collect(),
        };
        usable.map(subset).collect()
    }
}

fn numbers(subsets: &[Subset], is_in: impl Fn(&Subset) -> bool) -> Subsets {
    let numbered = subsets.iter().enumerate();
    let found = numbered.filter(|(_, subset)| is_in(subset));
    found.map(|(number, _)| number).collect()
}

/// What is wrong with a list of subsets: pairs of field path and message.
pub(crate) fn problems(specs: &[SubsetSpec]) -> Vec<(String, String)> {
    let entries = specs.iter().enumerate();
    let mut problems: Vec<_> = entries
        .filter_map(|(index, spec)| problem(index, spec))
        .collect();
    if specs.len() > Subsets::MOST {
        let message = format!("a pool has at most {} subsets", Subsets::MOST);
        problems.push(("spec.subsets".to_owned(), message));
    }
    problems
}

/// The first thing that is wrong with one entry.
fn problem(index: usize, spec: &SubsetSpec) -> Option<(String, String)> {
    let path = format!("spec.subsets[{index}]");
    let labels = format!("{path}.matchLabels");
    if spec.match_labels.is_empty() {
        let message = "a subset needs at least one label, such as topology.kubernetes.io/zone";
        return Some((labels, message.to_owned()));
    }
    if spec.match_labels.len() > MOST_PAIRS || spec.headers.len() > MOST_PAIRS {
        let message = format!("a subset has at most {MOST_PAIRS} labels and {MOST_PAIRS} headers");
        return Some((path, message));
    }
    for (name, value) in &spec.match_labels {
        if !is_label_name(name) {
            return Some((labels, format!("`{name}` is no name of a label")));
        }
        if !value.is_empty() && !is_word(value) {
            let message = format!(
                "`{value}` is no value of a label: at most {MOST_LABEL} letters, digits, dashes, \
                 underscores and dots, with a letter or digit at both ends"
            );
            return Some((labels, message));
        }
    }
    header_problem(spec, &path)
}

fn header_problem(spec: &SubsetSpec, path: &str) -> Option<(String, String)> {
    for (position, header) in spec.headers.iter().enumerate() {
        let path = format!("{path}.headers[{position}]");
        let name = match header_name(&header.name, &format!("{path}.name")) {
            Ok(name) => name,
            Err(problem) => return Some(problem),
        };
        let mut earlier = spec.headers.iter().take(position);
        if earlier.any(|other| other.name.eq_ignore_ascii_case(&name)) {
            return Some((format!("{path}.name"), format!("`{name}` is written twice")));
        }
        let value = &header.value;
        if value.is_empty() || value.len() > MOST_VALUE || value.chars().any(char::is_control) {
            let message =
                format!("a value has 1 to {MOST_VALUE} characters, none of control among them");
            return Some((format!("{path}.value"), message));
        }
    }
    None
}

/// `name` or `domain/name`, as the API machinery wants it.
fn is_label_name(text: &str) -> bool {
    let (domain, name) = match text.split_once('/') {
        Some((domain, name)) => (Some(domain), name),
        None => (None, text),
    };
    let is_part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let inside = !part.starts_with('-') && !part.ends_with('-');
        !part.is_empty() && inside && part.bytes().all(plain)
    };
    let is_domain = |domain: &str| domain.len() <= 253 && domain.split('.').all(is_part);
    domain.is_none_or(is_domain) && is_word(name)
}

fn is_word(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    text.len() <= MOST_LABEL
        && bytes.iter().copied().all(is_inner)
        && ends
            .iter()
            .all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
}

#[cfg(test)]
mod tests;
