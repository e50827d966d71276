//! llama.cpp's llama-server (with `--metrics`). Its `prompt_tokens_total` leaves cached tokens out,
//! so both counters together are the prompts. The share of the cache in use is told by older
//! versions only. Recorded: `tests/recorded/llama-server-b1-0c1e570/metrics-*`.

use super::{Dialect, Engine, add, add_gauge, fullest};

pub(super) const DIALECT: Dialect = Dialect {
    engine: Engine::LlamaCpp,
    prefix: b"llamacpp:",
    families: &[
        (b"requests_processing", |to, sample| {
            add_gauge(&mut to.report.running, sample.value)
        }),
        (b"requests_deferred", |to, sample| {
            add_gauge(&mut to.report.waiting, sample.value)
        }),
        (b"kv_cache_usage_ratio", |to, sample| {
            fullest(&mut to.report.kv_used, sample.value)
        }),
        (b"prompt_tokens", |to, sample| {
            add(&mut to.report.prompt_tokens, sample.value);
            add(&mut to.report.prefix_queries, sample.value);
        }),
        (b"prompt_tokens_cached", |to, sample| {
            add(&mut to.report.prompt_tokens, sample.value);
            add(&mut to.report.prefix_queries, sample.value);
            add(&mut to.report.prefix_hits, sample.value);
        }),
        (b"tokens_predicted", |to, sample| {
            add(&mut to.report.generation_tokens, sample.value)
        }),
    ],
};
