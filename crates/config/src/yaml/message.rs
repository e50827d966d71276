//! Turns the YAML reader's errors into one lowercase line and a suggestion.

use serde_saphyr::Error;

use super::suggest::nearest;
use crate::error::ConfigError;

/// Line and column in the document, from 1; zeros if unknown.
pub(super) fn place(error: &Error) -> (u32, u32) {
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    error.location().map_or((0, 0), |found| {
        (number(found.line()), number(found.column()))
    })
}

/// What is wrong, and what to write instead.
pub(super) fn of(error: &Error) -> (String, Option<String>) {
    let near = |word: &str, words: &[&'static str]| {
        nearest(word, words.iter().copied()).map(str::to_owned)
    };
    match error.without_snippet() {
        Error::SerdeUnknownField {
            field, expected, ..
        } => (format!("unknown field `{field}`"), near(field, expected)),
        Error::SerdeUnknownVariant {
            variant, expected, ..
        } => (
            format!(
                "unknown value `{variant}`, expected one of {}",
                expected.join(", ")
            ),
            near(variant, expected),
        ),
        Error::SerdeMissingField { field, .. } => (format!("field `{field}` is missing"), None),
        Error::SerdeInvalidType {
            unexpected,
            expected,
            ..
        }
        | Error::SerdeInvalidValue {
            unexpected,
            expected,
            ..
        } => (format!("expected {expected}, found {unexpected}"), None),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("field `{key}` is written twice"), None)
        }
        Error::QuotingRequired { value, .. } => (
            format!("expected text, found `{value}`, which needs quotes to be text"),
            Some(format!("\"{value}\"")),
        ),
        Error::Unexpected { expected, .. } => (format!("expected {}", form(expected)), None),
        Error::InvalidScalar { ty, .. } => (format!("expected {}", form(ty)), None),
        other => (plain(&other.to_string()), None),
    }
}

/// Takes values out of an error about a Secret; names of fields may stay.
pub(super) fn redact(error: &mut ConfigError) {
    let names_a_field = ["unknown field `", "field `"];
    if !names_a_field
        .iter()
        .any(|start| error.message.starts_with(start))
    {
        error.message = "expected text in quotes (values of a Secret are not shown)".to_owned();
        error.suggestion = None;
    }
}

/// The reader's word for a form, in words that people use.
fn form(word: &'static str) -> &'static str {
    match word {
        "mapping start" => "a mapping of fields",
        "sequence start" => "a list",
        "bool" => "true or false",
        "f32" | "f64" => "a number",
        "i8" | "i16" | "i32" | "i64" | "u8" | "u16" | "u32" | "u64" => "a whole number",
        other => other,
    }
}

/// The first line, lowercase at its start, without the place that is reported beside it.
fn plain(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let line = line
        .split(" at line ")
        .next()
        .unwrap_or(line)
        .trim_end_matches('.');
    if line.starts_with("tabs disallowed") {
        return "tabs cannot indent: use spaces".to_owned();
    }
    let mut chars = line.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => "the document cannot be read".to_owned(),
    }
}
