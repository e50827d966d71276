//! From text to typed objects: manifests and the plain form, several documents a file.
//!
//! Each document is decoded on its own, so one bad document does not hide the errors of the next,
//! and each is decoded typed, straight from the text: anything in between would lose lines and
//! columns. Unknown fields of known kinds are errors, as with an API server's strict validation;
//! kinds that are not served are warnings.

use serde::Deserialize;

use crate::error::ConfigError;
use crate::objects::{Kind, Object, Origin, Resource};
use crate::plain::{Plain, expand_plain};

mod locate;
mod message;
mod suggest;
mod validate;

use locate::Tree;
pub(crate) use suggest::nearest;

/// Largest file, in bytes.
pub const FILE_BYTES: usize = 16 << 20;
/// Most documents of one file.
pub const FILE_DOCUMENTS: usize = 10_000;

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// The objects of all documents that are well-formed.
    pub objects: Vec<Object>,
    /// What is wrong with the others; any of them refuses the edit.
    pub errors: Vec<ConfigError>,
    /// What is left aside, such as kinds that are not served.
    pub warnings: Vec<ConfigError>,
}

/// `apiVersion` and `kind`: all that is read before it is known what a document is.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
}

/// One document of a file.
struct Document<'a> {
    file: &'a str,
    /// Lines of the file before this document.
    lines_before: u32,
    text: &'a str,
}

/// Decodes the text of one file. `file` is only named in errors and origins.
pub fn decode(file: &str, text: &str) -> Decoded {
    let mut decoded = Decoded::default();
    if text.len() > FILE_BYTES {
        let message = format!("the file is larger than {} MiB", FILE_BYTES >> 20);
        decoded.errors.push(ConfigError::of_file(file, message));
        return decoded;
    }
    for (count, document) in split(file, text).enumerate() {
        if count == FILE_DOCUMENTS {
            let message = format!("the file has more than {FILE_DOCUMENTS} documents");
            decoded.errors.push(ConfigError::of_file(file, message));
            break;
        }
        document.decode(&mut decoded);
    }
    decoded
}

/// Cuts a file at its `---` lines; each piece starts with its own.
fn split<'a>(file: &'a str, text: &'a str) -> impl Iterator<Item = Document<'a>> {
    let mut rest = Some(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut lines_before = 0;
    std::iter::from_fn(move || {
        let text = rest?;
        let mut end = text.len();
        let mut offset = 0;
        for line in text.split_inclusive('\n') {
            let is_marker = line
                .strip_prefix("---")
                .is_some_and(|after| after.is_empty() || after.starts_with(char::is_whitespace));
            if is_marker && offset > 0 {
                end = offset;
                break;
            }
            offset += line.len();
        }
        let (document, after) = text.split_at(end);
        rest = (!after.is_empty()).then_some(after);
        let document = Document {
            file,
            lines_before,
            text: document,
        };
        lines_before += u32::try_from(document.text.matches('\n').count()).unwrap_or(u32::MAX);
        Some(document)
    })
}

/// How a document is read untyped: bounded in every way.
fn bounded() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: 64,
            max_events: 2_000_000,
            max_nodes: 1_000_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 20_000 },
        with_snippet: false,
    }
}

/// How a document is read typed: with quotes where a text looks like something else, because an
/// API server would refuse it otherwise.
fn typed() -> serde_saphyr::Options {
    let mut options = bounded();
    options.no_schema = true;
    options
}

impl Document<'_> {
    fn decode(&self, decoded: &mut Decoded) {
        let header =
            match serde_saphyr::from_str_with_options::<Option<Header>>(self.text, bounded()) {
                Ok(None) => return,
                Ok(Some(header)) => header,
                Err(error) => return decoded.errors.push(self.error(&error)),
            };
        match (header.api_version.as_deref(), header.kind.as_deref()) {
            (None, None) => self.decode_plain(decoded),
            (Some(api_version), Some(kind)) => self.decode_manifest(api_version, kind, decoded),
            (Some(_), None) => decoded
                .errors
                .push(self.error_at("", "field `kind` is missing")),
            (None, Some(_)) => {
                decoded
                    .errors
                    .push(self.error_at("", "field `apiVersion` is missing"));
            }
        }
    }

    fn decode_manifest(&self, api_version: &str, kind: &str, decoded: &mut Decoded) {
        let known = Kind::ALL.iter().copied().find(|candidate| {
            candidate.as_str() == kind && candidate.api_versions().contains(&api_version)
        });
        let Some(known) = known else {
            return self.unknown_kind(api_version, kind, decoded);
        };
        match Resource::decode(known, self.text, typed()) {
            Err(error) if known == Kind::Secret => {
                let mut error = self.error(&error);
                message::redact(&mut error);
                decoded.errors.push(error);
            }
            Err(error) => decoded.errors.push(self.error(&error)),
            Ok(resource) => {
                let problems = validate::resource(&resource);
                if problems.is_empty() {
                    decoded.objects.push(Object {
                        resource,
                        origin: Some(self.origin()),
                    });
                }
                self.report(problems, decoded);
            }
        }
    }

    fn unknown_kind(&self, api_version: &str, kind: &str, decoded: &mut Decoded) {
        let group = |version: &str| version.rsplit_once('/').map(|(group, _)| group.to_owned());
        let same_kind = Kind::ALL.iter().filter(|known| known.as_str() == kind);
        let versions: Vec<_> = same_kind
            .flat_map(|known| known.api_versions())
            .copied()
            .collect();
        let in_group = Kind::ALL.iter().filter(|known| {
            known
                .api_versions()
                .iter()
                .any(|version| group(version) == group(api_version))
        });
        let message = format!("{kind} of {api_version} is not read");
        if let Some(version) = nearest(api_version, versions.iter().copied()) {
            let mut error = self.error_at("apiVersion", &message);
            error.suggestion = Some(version.to_owned());
            decoded.errors.push(error);
        } else if let Some(near) = nearest(kind, in_group.map(|known| known.as_str())) {
            let mut error = self.error_at("kind", &message);
            error.suggestion = Some(near.to_owned());
            decoded.errors.push(error);
        } else if kind == "List" {
            let message = "lists are not read: write the items as documents, parted by `---` lines";
            decoded.errors.push(self.error_at("kind", message));
        } else {
            decoded.warnings.push(self.error_at("kind", &message));
        }
    }

    fn decode_plain(&self, decoded: &mut Decoded) {
        match serde_saphyr::from_str_with_options::<Plain>(self.text, typed()) {
            Err(error) => decoded.errors.push(self.error(&error)),
            Ok(plain) => {
                let problems = plain.problems();
                if problems.is_empty() {
                    decoded
                        .objects
                        .extend(expand_plain(&plain).into_iter().map(|object| Object {
                            origin: Some(self.origin()),
                            ..object
                        }));
                }
                self.report(problems, decoded);
            }
        }
    }

    fn report(&self, problems: Vec<(String, String)>, decoded: &mut Decoded) {
        let errors = problems
            .iter()
            .map(|(path, message)| self.error_at(path, message));
        decoded.errors.extend(errors);
    }

    fn origin(&self) -> Origin {
        let blank = self.text.lines().take_while(|line| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#') || line.starts_with("---")
        });
        let line = self.lines_before + 1 + u32::try_from(blank.count()).unwrap_or(0);
        Origin {
            file: self.file.into(),
            line,
            document: self.text.into(),
            lines_before: self.lines_before,
        }
    }

    fn error(&self, error: &serde_saphyr::Error) -> ConfigError {
        let (message, suggestion) = message::of(error);
        let (line, column) = message::place(error);
        let path = Tree::read(self.text).and_then(|tree| tree.path_at(line, column));
        ConfigError {
            file: self.file.to_owned(),
            line: if line == 0 {
                0
            } else {
                self.lines_before + line
            },
            column,
            path: path.unwrap_or_default(),
            message,
            suggestion,
        }
    }

    fn error_at(&self, path: &str, message: &str) -> ConfigError {
        let tree = Tree::read(self.text);
        let (line, column) = tree.map_or((1, 1), |tree| tree.place_of(path));
        ConfigError {
            file: self.file.to_owned(),
            line: self.lines_before + line,
            column,
            path: path.to_owned(),
            message: message.to_owned(),
            suggestion: None,
        }
    }
}

impl Origin {
    /// `file:line:column` of a field; of the nearest field above it that is written, if it is not.
    pub fn place(&self, path: &str) -> String {
        match Tree::read(&self.document) {
            Some(tree) if !path.is_empty() => {
                let (line, column) = tree.place_of(path);
                format!("{}:{}:{column}", self.file, self.lines_before + line)
            }
            _ => format!("{}:{}", self.file, self.line),
        }
    }

    /// `file:line:column` of the first line with `text`; where the object begins, if none has it.
    pub(crate) fn place_of_text(&self, text: &str) -> String {
        let place = |(number, line): (usize, &str)| {
            let column = line.get(..line.find(text)?)?.chars().count() + 1;
            let line = self.lines_before as usize + number + 1;
            Some(format!("{}:{line}:{column}", self.file))
        };
        let mut places = self.document.lines().enumerate().filter_map(place);
        places.next().unwrap_or_else(|| self.place(""))
    }
}

#[cfg(test)]
mod tests;
