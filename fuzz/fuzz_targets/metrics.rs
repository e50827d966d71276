//! Metrics and model lists on any bytes: no panic, only sound numbers, a reused report is a fresh one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::{EngineReport, scan_metrics, scan_models};

fuzz_target!(|text: &[u8]| {
    let mut fresh = EngineReport::default();
    let outcome = scan_metrics(text, &mut fresh);
    let mut reused = EngineReport::default();
    let earlier = b"vllm:num_requests_running 3\n\
        vllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\"a\"} 1\n";
    scan_metrics(earlier, &mut reused).expect("this is a report");
    assert_eq!(scan_metrics(text, &mut reused), outcome);
    assert_eq!(reused, fresh);
    assert!(fresh.kv_used.is_none_or(|share| (0.0..=1.0).contains(&share)));
    for gauge in [fresh.running, fresh.waiting].into_iter().flatten() {
        assert!(gauge >= 0.0);
    }
    let counters =
        [fresh.prefix_hits, fresh.prefix_queries, fresh.preemptions, fresh.generation_tokens];
    assert!(counters.into_iter().flatten().all(|count| count >= 0.0));
    for card in scan_models(text).into_iter().flatten() {
        assert!(!card.id.is_empty());
    }
});
