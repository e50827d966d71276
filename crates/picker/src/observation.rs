//! What was learnt about an endpoint beside its own requests: scrapes and lists of models.
//!
//! A report corrects what the pool knows from its own dispatches, it never replaces it: see
//! `telemetry.rs`. Numbers that make no sense (negative, not finite) are treated as not said.

/// Something learnt about one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// The engine's metrics.
    Report(Report),
    /// The metrics could not be had.
    ScrapeFailed,
    /// The answer of `/v1/models`: all names that the server says it serves.
    Models(Vec<Announced>),
}

/// The load that an engine reports of itself. `None`: it does not say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Requests that it computes.
    pub running: Option<f32>,
    /// Requests in its queue.
    pub waiting: Option<f32>,
    /// Share of its KV cache in use by requests, 0 to 1.
    pub kv_used: Option<f32>,
    /// Size of its KV cache, in tokens.
    pub kv_tokens: Option<u64>,
    /// LoRA adapters of the requests that it computes.
    pub adapters_running: Vec<String>,
    /// LoRA adapters of the requests in its queue.
    pub adapters_waiting: Vec<String>,
    /// How many adapters fit at a time.
    pub max_adapters: Option<u32>,
}

/// One name that a server says it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// The name that requests use.
    pub id: String,
    /// A LoRA adapter, as opposed to the model that is always loaded.
    pub is_adapter: bool,
}
