//! SGLang (0.5). Ranks of one tensor- or pipeline-parallel group tell the same numbers: only rank 0
//! counts; data-parallel ranks are added. Page size and count are gauges of their own in 0.5.23 and
//! labels of `cache_config_info` elsewhere. `cached_tokens` counts hits of finished requests.
//! Recorded: `tests/recorded/sglang-0.5.23/metrics-*`.

use super::{Dialect, Engine, Sample, add, add_count, add_gauge, count, fullest};

pub(super) const DIALECT: Dialect = Dialect {
    engine: Engine::Sglang,
    prefix: b"sglang:",
    families: &[
        (b"num_running_reqs", |to, sample| {
            if is_first_rank(sample) {
                add_gauge(&mut to.report.running, sample.value);
            }
        }),
        (b"num_queue_reqs", |to, sample| {
            if is_first_rank(sample) {
                add_gauge(&mut to.report.waiting, sample.value);
            }
        }),
        (b"token_usage", |to, sample| {
            fullest(&mut to.report.kv_used, sample.value)
        }),
        (b"page_size", |to, sample| {
            to.report.block_tokens = Some(count(sample.value))
        }),
        (b"num_pages", |to, sample| {
            if is_first_rank(sample) {
                add_count(&mut to.report.kv_blocks, count(sample.value));
            }
        }),
        (b"cache_config_info", |to, sample| {
            to.report.block_tokens = sample
                .labels
                .number(b"page_size")
                .or(to.report.block_tokens);
            to.report.kv_blocks = sample.labels.number(b"num_pages").or(to.report.kv_blocks);
        }),
        (b"prompt_tokens", |to, sample| {
            add(&mut to.report.prompt_tokens, sample.value);
            add(&mut to.report.prefix_queries, sample.value);
        }),
        (b"cached_tokens", |to, sample| {
            add(&mut to.report.prefix_hits, sample.value)
        }),
        (b"generation_tokens", |to, sample| {
            add(&mut to.report.generation_tokens, sample.value)
        }),
        (b"num_retracted_requests", |to, sample| {
            add(&mut to.report.preemptions, sample.value)
        }),
    ],
};

fn is_first_rank(sample: &Sample<'_>) -> bool {
    [&b"tp_rank"[..], b"pp_rank", b"moe_ep_rank"]
        .into_iter()
        .all(|label| sample.labels.get(label).is_none_or(|rank| rank == b"0"))
}
