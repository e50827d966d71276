//! The models that an engine says it serves: answers of `GET /v1/models`.
//!
//! OpenAI's list with what engines add: vLLM names an adapter's base in `parent` and a model's
//! weights in `root`; llama.cpp tells the context length in `meta.n_ctx`. What is no model with an
//! id is left out; a list is cut at `MOST_MODELS`.

use crate::object::{elements, find, integer, string};
use crate::text;

/// More models than this are not read from one answer.
const MOST_MODELS: usize = 4096;

/// One model of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelCard {
    /// The name that requests use.
    pub id: String,
    /// For a LoRA adapter the model it belongs to (vLLM).
    pub parent: Option<String>,
    /// Path or name of the weights (vLLM, SGLang).
    pub root: Option<String>,
    /// The longest prompt and answer together, in tokens.
    pub max_model_len: Option<u32>,
}

/// Reads a model list; `None` when the body is none: an empty list is one, a list in which nothing
/// is a model is not.
#[must_use]
pub fn scan_models(body: &[u8]) -> Option<Vec<ModelCard>> {
    let mut cards = Vec::new();
    let mut is_empty = true;
    elements(find(body, b"data")?, |model| {
        is_empty = false;
        cards.extend(card(model));
        cards.len() < MOST_MODELS
    })?;
    (is_empty || !cards.is_empty()).then_some(cards)
}

fn card(model: &[u8]) -> Option<ModelCard> {
    let text = |key: &[u8]| {
        let raw = string(find(model, key)?)?;
        text::unescape(raw).map(std::borrow::Cow::into_owned)
    };
    let length = find(model, b"max_model_len").and_then(integer);
    let meta = || find(find(model, b"meta")?, b"n_ctx").and_then(integer);
    Some(ModelCard {
        id: text(b"id").filter(|id| !id.is_empty())?,
        parent: text(b"parent"),
        root: text(b"root"),
        max_model_len: length.or_else(meta),
    })
}

#[cfg(test)]
mod tests;
