//! TensorRT-LLM, from its documentation (no recording): `trtllm-serve` and the Triton backend, which
//! tells several values by one family and a label. Names as the reference endpoint picker reads them.

use super::{Dialect, Draft, Engine, Sample, add_count, add_gauge, count, fullest};

/// `trtllm-serve`.
pub(super) const SERVE: Dialect = Dialect {
    engine: Engine::TensorRtLlm,
    prefix: b"trtllm_",
    families: &[
        (b"num_requests_running", |to, sample| {
            add_gauge(&mut to.report.running, sample.value)
        }),
        (b"num_requests_waiting", |to, sample| {
            add_gauge(&mut to.report.waiting, sample.value)
        }),
        (b"kv_cache_utilization", |to, sample| {
            fullest(&mut to.report.kv_used, sample.value)
        }),
        (b"kv_cache_tokens_per_block", |to, sample| {
            to.report.block_tokens = Some(count(sample.value));
        }),
        (b"kv_cache_max_blocks", |to, sample| {
            add_count(&mut to.report.kv_blocks, count(sample.value));
        }),
    ],
};

/// Triton's TensorRT-LLM backend.
pub(super) const TRITON: Dialect = Dialect {
    engine: Engine::TensorRtLlm,
    prefix: b"nv_trt_llm_",
    families: &[
        (b"request_metrics", requests),
        (b"kv_cache_block_metrics", blocks),
    ],
};

fn requests(to: &mut Draft<'_>, sample: &Sample<'_>) {
    match sample.labels.get(b"request_type") {
        Some(b"waiting") => add_gauge(&mut to.report.waiting, sample.value),
        Some(b"scheduled") => add_gauge(&mut to.report.running, sample.value),
        _ => {}
    }
}

fn blocks(to: &mut Draft<'_>, sample: &Sample<'_>) {
    match sample.labels.get(b"kv_cache_block_type") {
        Some(b"fraction") => fullest(&mut to.report.kv_used, sample.value),
        Some(b"tokens_per") => to.report.block_tokens = Some(count(sample.value)),
        Some(b"max") => add_count(&mut to.report.kv_blocks, count(sample.value)),
        _ => {}
    }
}
