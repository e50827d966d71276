//! vLLM (v0.6 to 0.32). Data-parallel servers give one series per `engine` label: counts are added,
//! the fullest cache counts. `lora_requests_info` keeps one series per past combination, whose value
//! is a time: the newest counts. Recorded: `tests/recorded/vllm-0.32.0/metrics-*`.

use super::{Dialect, Engine, add, add_count, add_gauge, fullest};

pub(super) const DIALECT: Dialect = Dialect {
    engine: Engine::Vllm,
    prefix: b"vllm:",
    families: &[
        (b"num_requests_running", |to, sample| {
            add_gauge(&mut to.report.running, sample.value)
        }),
        (b"num_requests_waiting", |to, sample| {
            add_gauge(&mut to.report.waiting, sample.value)
        }),
        (b"kv_cache_usage_perc", |to, sample| {
            fullest(&mut to.report.kv_used, sample.value)
        }),
        // Until v0.9.
        (b"gpu_cache_usage_perc", |to, sample| {
            fullest(&mut to.report.kv_used, sample.value)
        }),
        (b"prefix_cache_hits", |to, sample| {
            add(&mut to.report.prefix_hits, sample.value)
        }),
        (b"prefix_cache_queries", |to, sample| {
            add(&mut to.report.prefix_queries, sample.value)
        }),
        (b"num_preemptions", |to, sample| {
            add(&mut to.report.preemptions, sample.value)
        }),
        (b"generation_tokens", |to, sample| {
            add(&mut to.report.generation_tokens, sample.value)
        }),
        (b"prompt_tokens", |to, sample| {
            add(&mut to.report.prompt_tokens, sample.value)
        }),
        (b"lora_requests_info", |to, sample| {
            to.adapters(
                sample,
                b"running_lora_adapters",
                b"waiting_lora_adapters",
                b"max_lora",
            );
        }),
        (b"cache_config_info", |to, sample| {
            if let Some(tokens) = sample.labels.number(b"block_size") {
                to.report.block_tokens = Some(tokens);
            }
            if let Some(blocks) = sample.labels.number(b"num_gpu_blocks") {
                add_count(&mut to.report.kv_blocks, blocks);
            }
        }),
    ],
};
