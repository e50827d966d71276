//! What is wrong with a piece of configuration text, and where: the errors that refuse an edit.
//!
//! Problems of references between well-formed objects are no errors: see [`crate::status`].

use std::fmt;

use serde::Serialize;

use crate::name::ObjectName;
use crate::objects::{Kind, Origin};

/// One error or warning with its place. Lines and columns count from 1; 0 means unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}", self.text())]
pub struct ConfigError {
    /// Path of the file as it was given.
    pub file: String,
    /// Line in the file.
    pub line: u32,
    /// Column in characters.
    pub column: u32,
    /// Field path in the object, such as `spec.rules[0].matches`; empty if unknown.
    pub path: String,
    /// What is wrong, lowercase, without full stop.
    pub message: String,
    /// What to write instead, if something is near.
    pub suggestion: Option<String>,
}

impl ConfigError {
    /// An error about a whole file.
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            path: String::new(),
            message: message.into(),
            suggestion: None,
        }
    }

    /// A file cannot be read that is named, as `written`, where an object comes from.
    pub fn of_attached(file: &str, why: &str, (written, origin): (&str, Option<&Origin>)) -> Self {
        let place = origin.map(|origin| format!("; {} names it", origin.place_of_text(written)));
        Self::of_file(file, format!("{why}{}", place.unwrap_or_default()))
    }

    pub(crate) fn written_twice(
        kind: Kind,
        name: &ObjectName,
        first: Option<&Origin>,
        second: Option<&Origin>,
    ) -> Self {
        let place = first.map(|origin| format!(", first in {}:{}", origin.file, origin.line));
        Self {
            file: second
                .map(|origin| origin.file.to_string())
                .unwrap_or_default(),
            line: second.map_or(0, |origin| origin.line),
            column: 1,
            path: "metadata.name".to_owned(),
            message: format!(
                "{kind} {name} is written twice{}",
                place.unwrap_or_default()
            ),
            suggestion: None,
        }
    }

    fn text(&self) -> String {
        let mut text = self.file.clone();
        for number in [self.line, self.column] {
            if number > 0 {
                text.push_str(&format!(":{number}"));
            }
        }
        text.push_str(": ");
        if !self.path.is_empty() {
            text.push_str(&format!("{}: ", self.path));
        }
        text.push_str(&self.message);
        if let Some(suggestion) = &self.suggestion {
            text.push_str(&format!(", did you mean `{suggestion}`?"));
        }
        text
    }
}

/// Several errors, one a line.
#[derive(Debug)]
pub struct ErrorList<'a>(pub &'a [ConfigError]);

impl fmt::Display for ErrorList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|error| writeln!(f, "{error}"))
    }
}
