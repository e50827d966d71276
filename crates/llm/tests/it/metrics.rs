//! Recorded metrics of each engine, idle and under load.

use crate::recorded::{answers, file};
use llm::{Engine, EngineReport, scan_metrics};

/// What one recording must say.
struct Expected {
    name: &'static str,
    engine: Engine,
    running: f32,
    waiting: f32,
    kv_used: Option<f32>,
    /// Tokens of a block, and blocks.
    blocks: Option<(u32, u32)>,
    prefix: (Option<f64>, f64),
    preemptions: Option<f64>,
    generated: f64,
    prompts: f64,
    /// Adapters running and waiting, and how many fit.
    adapters: (
        &'static [&'static str],
        &'static [&'static str],
        Option<u32>,
    ),
}

const VLLM: Expected = Expected {
    name: "vllm-0.32.0/metrics-idle",
    engine: Engine::Vllm,
    running: 0.0,
    waiting: 0.0,
    kv_used: Some(0.0),
    blocks: Some((32, 128)),
    prefix: (Some(0.0), 0.0),
    preemptions: Some(0.0),
    generated: 0.0,
    prompts: 0.0,
    adapters: (&[], &[], None),
};

const SGLANG: Expected = Expected {
    name: "sglang-0.5.23/metrics-idle",
    engine: Engine::Sglang,
    prefix: (None, 19.0),
    preemptions: None,
    generated: 8.0,
    prompts: 19.0,
    ..VLLM
};

const LLAMA: Expected = Expected {
    name: "llama-server-b1-0c1e570/metrics-idle",
    engine: Engine::LlamaCpp,
    kv_used: None,
    blocks: None,
    prefix: (Some(36.0), 79.0),
    preemptions: None,
    generated: 52.0,
    prompts: 79.0,
    ..VLLM
};

const RECORDED: [Expected; 8] = [
    VLLM,
    Expected {
        name: "vllm-0.32.0/metrics-under-load",
        running: 5.0,
        waiting: 19.0,
        kv_used: Some(0.866_141_74),
        prefix: (Some(0.0), 6476.0),
        generated: 4884.0,
        prompts: 6476.0,
        adapters: (&["lora-b", "lora-a"], &["lora-b", "lora-a"], Some(2)),
        ..VLLM
    },
    Expected {
        name: "vllm-0.32.0/metrics-after-prefix-hits",
        prefix: (Some(608.0), 20059.0),
        preemptions: Some(21.0),
        generated: 21426.0,
        prompts: 20059.0,
        adapters: (&[], &[], Some(2)),
        ..VLLM
    },
    SGLANG,
    Expected {
        name: "sglang-0.5.23/metrics-under-load",
        running: 5.0,
        waiting: 19.0,
        kv_used: Some(0.43),
        prefix: (Some(448.0), 13948.0),
        generated: 12693.0,
        prompts: 13948.0,
        ..SGLANG
    },
    Expected {
        name: "sglang-0.5.23/metrics-after-prefix-hits",
        kv_used: Some(0.05),
        prefix: (Some(448.0), 884.0),
        generated: 3406.0,
        prompts: 884.0,
        ..SGLANG
    },
    LLAMA,
    Expected {
        name: "llama-server-b1-0c1e570/metrics-under-load",
        running: 2.0,
        waiting: 1.0,
        prefix: (Some(4071.0), 5077.0),
        generated: 2123.0,
        prompts: 5077.0,
        ..LLAMA
    },
];

fn check(name: &str, report: &EngineReport) {
    let expected = RECORDED.iter().find(|expected| expected.name == name);
    let expected = expected.unwrap_or_else(|| panic!("{name} has no row"));
    let adapters = (
        report.adapters_running.iter().collect::<Vec<_>>(),
        report.adapters_waiting.iter().collect::<Vec<_>>(),
        report.max_adapters,
    );
    assert_eq!(report.engine, expected.engine, "{name}");
    assert_eq!(report.running, Some(expected.running), "{name}");
    assert_eq!(report.waiting, Some(expected.waiting), "{name}");
    assert_eq!(report.kv_used, expected.kv_used, "{name}");
    assert_eq!(
        report.block_tokens.zip(report.kv_blocks),
        expected.blocks,
        "{name}"
    );
    assert_eq!(report.prefix_hits, expected.prefix.0, "{name}");
    assert_eq!(report.prefix_queries, Some(expected.prefix.1), "{name}");
    assert_eq!(report.preemptions, expected.preemptions, "{name}");
    assert_eq!(report.generation_tokens, Some(expected.generated), "{name}");
    assert_eq!(report.prompt_tokens, Some(expected.prompts), "{name}");
    let (running, waiting, most) = expected.adapters;
    assert_eq!(
        adapters,
        (running.to_vec(), waiting.to_vec(), most),
        "{name}"
    );
}

/// All recorded metrics: name and text.
fn texts() -> Vec<(String, Vec<u8>)> {
    let answers = answers()
        .into_iter()
        .filter(|answer| answer.name.contains("/metrics-"));
    let mut all: Vec<_> = answers.map(|answer| (answer.name, answer.body)).collect();
    for server in ["vllm-0.32.0", "sglang-0.5.23"] {
        let name = format!("{server}/metrics-after-prefix-hits");
        all.push((name.clone(), file(&format!("{name}.txt"))));
    }
    assert_eq!(all.len(), RECORDED.len());
    all
}

#[test]
fn reads_recorded_metrics_with_one_reused_report() {
    let mut report = EngineReport::default();
    for (name, text) in texts() {
        scan_metrics(&text, &mut report).unwrap();
        check(&name, &report);
    }
}

#[test]
fn bears_recorded_metrics_cut_anywhere() {
    for (_, text) in texts() {
        let step = (text.len() / 2000).max(1);
        for end in (0..text.len()).step_by(step) {
            let mut report = EngineReport::default();
            let _ = scan_metrics(&text[..end], &mut report);
            assert!(
                report
                    .kv_used
                    .is_none_or(|share| (0.0..=1.0).contains(&share))
            );
            assert!(report.running.is_none_or(|running| running <= 5.0));
        }
    }
}
