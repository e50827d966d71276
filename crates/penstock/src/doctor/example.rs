//! A text that a regular expression matches, so that rules which match by one can be asked too.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Longer than any sensible path or field.
const MOST_BYTES: usize = 1024;

/// The shortest choice at every place of `expression`; nothing where that cannot be sent, or where
/// what stands beside it (`\b`, `$` in the middle) decides.
pub(super) fn matched_by(expression: &str) -> Option<String> {
    let mut text = String::new();
    push(&regex_syntax::parse(expression).ok()?, &mut text)?;
    text.bytes()
        .all(|byte| byte.is_ascii_graphic())
        .then_some(text)
}

fn push(part: &Hir, text: &mut String) -> Option<()> {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(std::str::from_utf8(&literal.0).ok()?),
        HirKind::Class(class) => text.push(one_of(class)?),
        HirKind::Repetition(repetition) => {
            for _ in 0..repetition.min {
                push(&repetition.sub, text)?;
                if text.len() > MOST_BYTES {
                    return None;
                }
            }
        }
        HirKind::Capture(capture) => push(&capture.sub, text)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| push(part, text))?,
        HirKind::Alternation(parts) => push(parts.first()?, text)?,
    }
    Some(())
}

/// A character of the class that stands in a path or a field as it is: a letter where there is one.
fn one_of(class: &Class) -> Option<char> {
    let has = |wanted: char| match class {
        Class::Unicode(class) => {
            let mut ranges = class.iter();
            ranges.any(|range| (range.start()..=range.end()).contains(&wanted))
        }
        Class::Bytes(class) => {
            let mut ranges = class.iter();
            ranges.any(|range| {
                (char::from(range.start())..=char::from(range.end())).contains(&wanted)
            })
        }
    };
    let letters = ('a'..='z').chain('A'..='Z');
    letters
        .chain('0'..='9')
        .chain("-_.~/=".chars())
        .find(|one| has(*one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_finds_matches() {
        for (expression, text) in [
            ("/v[0-9]+/x.*", Some("/v0/x")),
            ("^/(chat|complete)/\\d{3}$", Some("/chat/000")),
            ("[^a-z]?llama-[^a-y]", Some("llama-z")),
            ("(a{2000})", None),
            ("\\s", None),
            ("[", None),
        ] {
            assert_eq!(matched_by(expression).as_deref(), text, "{expression}");
        }
    }
}
