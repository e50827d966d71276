//! Replaces the model's name in a body; every other byte stays as it was sent.
//!
//! The pieces borrow the body, so a large one need not be copied to be changed.

use crate::peek::Span;
use crate::text;

/// A body with another model: write `before`, `name`, `after`, in that order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spliced<'a> {
    /// The body up to the opening quote of the model, quote included.
    pub before: &'a [u8],
    /// The new name as JSON text, without quotes.
    pub name: Vec<u8>,
    /// The body from the model's closing quote.
    pub after: &'a [u8],
}

impl<'a> Spliced<'a> {
    /// Splits `body` around `model`, a span that `peek` gave for this same body.
    /// `None` when the span does not lie inside the body.
    #[must_use]
    pub fn new(body: &'a [u8], model: &Span, name: &str) -> Option<Self> {
        let before = body.get(..model.start as usize)?;
        let after = body.get(model.end as usize..)?;
        let mut escaped = Vec::with_capacity(name.len());
        text::escape(name, &mut escaped);
        Some(Self {
            before,
            name: escaped,
            after,
        })
    }

    /// Length of the new body in bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        self.before.len() + self.name.len() + self.after.len()
    }
}

/// Appends `body` with its model replaced by `name` to `out`. Returns false, with nothing
/// appended, when the span does not lie inside the body.
pub fn splice_model(body: &[u8], model: &Span, name: &str, out: &mut Vec<u8>) -> bool {
    let Some(spliced) = Spliced::new(body, model, name) else {
        return false;
    };
    out.reserve(spliced.length());
    out.extend_from_slice(spliced.before);
    out.extend_from_slice(&spliced.name);
    out.extend_from_slice(spliced.after);
    true
}

#[cfg(test)]
mod tests;
