//! The page of `/metrics`, with vLLM's names, labels and float format.
//! Only what a gateway may read: engine gauges and counters, cache, adapters, times of requests.

use core::fmt::{Display, Write as _};

use sim::engine::{AdapterId, EngineSpec};

use crate::driver::{Histogram, Report};

/// What the page needs beside the engine's report.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) model: &'a str,
    pub(crate) adapters: &'a [String],
    pub(crate) spec: &'a EngineSpec,
    /// Unix time of the engine's start, in seconds.
    pub(crate) started_unix: f64,
    /// Every value is 0 (a fault).
    pub(crate) zeroed: bool,
}

impl Page<'_> {
    pub(crate) fn render(&self, report: &Report) -> String {
        let mut out = String::with_capacity(16 * 1024);
        let gauges = &report.gauges;
        let totals = &gauges.totals;
        let (running, waiting) = (f64::from(gauges.running), f64::from(gauges.waiting));
        self.one(&mut out, "num_requests_running", "gauge", running);
        self.one(&mut out, "num_requests_waiting", "gauge", waiting);
        self.one(&mut out, "kv_cache_usage_perc", "gauge", gauges.kv_used());
        for (name, value) in [
            ("prefix_cache_queries_total", totals.prefix_queries),
            ("prefix_cache_hits_total", totals.prefix_hits),
            ("num_preemptions_total", totals.preemptions),
            ("prompt_tokens_total", totals.prompt_tokens),
            ("generation_tokens_total", totals.generated_tokens),
        ] {
            self.one(&mut out, name, "counter", value as f64);
        }
        self.ends(&mut out, report);
        for (name, histogram) in [
            ("time_to_first_token_seconds", &report.observed.first_token),
            ("inter_token_latency_seconds", &report.observed.token_gap),
            (
                "request_time_per_output_token_seconds",
                &report.observed.per_token,
            ),
            ("e2e_request_latency_seconds", &report.observed.whole),
        ] {
            self.histogram(&mut out, name, histogram);
        }
        self.adapters(&mut out, report);
        self.cache(&mut out);
        out
    }

    fn one(&self, out: &mut String, name: &str, kind: &str, value: f64) {
        head(out, name, kind);
        let labels = format!("engine=\"0\",model_name=\"{}\"", self.model);
        self.sample(out, name, &labels, value);
    }

    fn ends(&self, out: &mut String, report: &Report) {
        let name = "request_success_total";
        head(out, name, "counter");
        let observed = &report.observed;
        // A client that leaves is not counted: vLLM leaves `abort` at 0 too.
        let reasons = [
            ("stop", observed.stopped),
            ("length", observed.at_length),
            ("abort", 0),
        ];
        for (reason, value) in reasons {
            let labels = format!(
                "engine=\"0\",finished_reason=\"{reason}\",model_name=\"{}\"",
                self.model
            );
            self.sample(out, name, &labels, value as f64);
        }
    }

    fn histogram(&self, out: &mut String, name: &str, histogram: &Histogram) {
        head(out, name, "histogram");
        let labels = format!("engine=\"0\",model_name=\"{}\"", self.model);
        let bucket = |bound: &dyn Display| {
            format!("engine=\"0\",le=\"{bound}\",model_name=\"{}\"", self.model)
        };
        let bucket_name = format!("{name}_bucket");
        for (bound, count) in histogram.buckets() {
            self.sample(
                out,
                &bucket_name,
                &bucket(&format!("{bound:?}")),
                count as f64,
            );
        }
        self.sample(
            out,
            &bucket_name,
            &bucket(&"+Inf"),
            histogram.total() as f64,
        );
        self.sample(
            out,
            &format!("{name}_count"),
            &labels,
            histogram.total() as f64,
        );
        self.sample(
            out,
            &format!("{name}_sum"),
            &labels,
            histogram.sum_seconds(),
        );
    }

    fn adapters(&self, out: &mut String, report: &Report) {
        if self.adapters.is_empty() {
            return;
        }
        let name = "lora_requests_info";
        head(out, name, "gauge");
        let names = |ids: &[AdapterId]| {
            let each: Vec<&str> = ids
                .iter()
                .filter_map(|id| self.adapters.get(id.0 as usize))
                .map(String::as_str)
                .collect();
            each.join(",")
        };
        for past in &report.observed.combinations {
            let labels = format!(
                "max_lora=\"{}\",running_lora_adapters=\"{}\",waiting_lora_adapters=\"{}\"",
                self.spec.adapter_slots,
                names(&past.running),
                names(&past.waiting),
            );
            self.sample(
                out,
                name,
                &labels,
                self.started_unix + past.seen.0 as f64 / 1e6,
            );
        }
    }

    fn cache(&self, out: &mut String) {
        let name = "cache_config_info";
        head(out, name, "gauge");
        let EngineSpec {
            block_tokens,
            blocks,
            prefix_caching,
            ..
        } = self.spec;
        let caching = if *prefix_caching { "True" } else { "False" };
        let labels = format!(
            "block_size=\"{block_tokens}\",cache_dtype=\"auto\",\
             enable_prefix_caching=\"{caching}\",engine=\"0\",\
             kv_cache_size_tokens=\"{}\",num_cpu_blocks=\"None\",num_gpu_blocks=\"{blocks}\"",
            self.spec.kv_tokens(),
        );
        self.sample(out, name, &labels, 1.0);
    }

    fn sample(&self, out: &mut String, name: &str, labels: &str, value: f64) {
        let value = if self.zeroed { 0.0 } else { value };
        // `{:?}` prints 5 as `5.0`, as the Python client does. Writing to a String cannot fail.
        let _ = writeln!(out, "vllm:{name}{{{labels}}} {value:?}");
    }
}

fn head(out: &mut String, name: &str, kind: &str) {
    let _ = writeln!(out, "# HELP vllm:{name} As vLLM's metric of this name.");
    let _ = writeln!(out, "# TYPE vllm:{name} {kind}");
}
