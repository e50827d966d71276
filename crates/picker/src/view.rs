//! An endpoint as people and metrics see it: plain owned numbers, taken at one moment.

use crate::endpoint::EndpointId;
use crate::subset::Subsets;
use serde::Serialize;
use std::sync::Arc;

/// One endpoint at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointView {
    /// Its identity in the pool.
    pub id: EndpointId,
    /// As people know it.
    pub name: Arc<str>,
    /// Requests that this pool sent and whose end it has not seen.
    pub in_flight: u32,
    /// Of those, requests without a first token yet.
    pub prefilling: u32,
    /// Tokens of those that must be computed.
    pub prefilling_tokens: u64,
    /// KV tokens that the requests in flight are expected to fill.
    pub kv_tokens_in_flight: u64,
    /// The engine's last report.
    pub reported: Option<ReportedView>,
    /// `up`, `suspect`, `ejected` or `trial`, with what it means.
    pub health: String,
    /// What its speed is believed to be.
    pub rates: RatesView,
    /// LoRA adapters that are believed to be loaded.
    pub adapters: Vec<String>,
    /// In which of the pool's subsets it is.
    #[serde(skip_serializing_if = "Subsets::is_empty")]
    pub subsets: Subsets,
}

/// The engine's last report, as far as it went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ReportedView {
    /// Requests that it computed.
    pub running: Option<f32>,
    /// Requests in its queue.
    pub waiting: Option<f32>,
    /// Share of its KV cache in use, 0 to 1.
    pub kv_used: Option<f32>,
    /// Size of its KV cache, in tokens.
    pub kv_tokens: Option<u64>,
    /// Requests of others, by the report, when it was taken.
    pub foreign: f32,
    /// Seconds since the report was last believed.
    pub age_seconds: f32,
    /// Scrapes that failed, or were not to be believed, since then.
    pub failures: u32,
}

/// What an endpoint's speed is believed to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RatesView {
    /// Seconds to a first token without any work ahead.
    pub base_seconds: f32,
    /// Seconds per token of prompt that must be computed.
    pub prefill_seconds_per_token: f32,
    /// Seconds per generated token with one sequence alone.
    pub decode_seconds_per_token: f32,
    /// Seconds that each further sequence adds to each generated token.
    pub decode_seconds_per_sequence: f32,
    /// Mean relative error of the predicted time to the first token, 0 to 1.
    pub prefill_error: f32,
    /// Mean relative error of the predicted time per generated token, 0 to 1.
    pub decode_error: f32,
    /// First tokens that were learnt from.
    pub samples: u32,
}
