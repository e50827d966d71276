//! Lines good and bad. Recorded metrics: `tests/it`.

use super::*;

fn report(text: &str) -> EngineReport {
    let mut report = EngineReport::default();
    scan_metrics(text.as_bytes(), &mut report).unwrap();
    report
}

#[test]
fn adds_up_data_parallel_engines() {
    let found = report(
        "vllm:num_requests_running{engine=\"0\"} 2\nvllm:num_requests_running{engine=\"1\"} 3.0\n\
         vllm:num_requests_waiting{engine=\"0\"} 0\nvllm:num_requests_waiting{engine=\"1\"} 7\n\
         vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.5\n\
         vllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"100\"} 1.0\n\
         vllm:cache_config_info{block_size=\"16\",engine=\"1\",num_gpu_blocks=\"50\"} 1.0\n",
    );
    let expected = EngineReport {
        engine: Engine::Vllm,
        running: Some(5.0),
        waiting: Some(7.0),
        kv_used: Some(0.5),
        block_tokens: Some(16),
        kv_blocks: Some(150),
        ..EngineReport::default()
    };
    assert_eq!(found, expected);
}

#[test]
fn takes_counters_with_and_without_total() {
    for name in ["vllm:prefix_cache_hits_total", "vllm:prefix_cache_hits"] {
        assert_eq!(
            report(&format!("{name}{{a=\"b\"}} 1.5e3 1700000000\n")).prefix_hits,
            Some(1500.0)
        );
    }
    assert_eq!(
        report("vllm:prefix_cache_hits_created 1.7e9\n").prefix_hits,
        None
    );
}

#[test]
fn takes_the_newest_adapters() {
    let line = |names: &str, at: &str| {
        format!(
            "vllm:lora_requests_info{{max_lora=\"2\",running_lora_adapters=\"{names}\",waiting_lora_adapters=\"w{names}\"}} {at}\n"
        )
    };
    let text = [
        line("a", "1.7953657339788733e+09"),
        line("b, c\\\"d", "1.7953658913848443e+09"),
        line("", "1.7953658849660969e+09"),
        line("z", "NaN"),
    ]
    .concat();
    let found = report(&text);
    assert_eq!(
        found.adapters_running.iter().collect::<Vec<_>>(),
        ["b", "c\"d"]
    );
    assert!(found.adapters_waiting.contains("wb") && !found.adapters_waiting.contains("w"));
    assert_eq!(found.max_adapters, Some(2));
}

#[test]
fn counts_only_the_first_rank_of_a_group() {
    let text = "sglang:num_running_reqs{tp_rank=\"0\",dp_rank=\"0\"} 3\n\
                sglang:num_running_reqs{tp_rank=\"1\",dp_rank=\"0\"} 3\n\
                sglang:num_running_reqs{tp_rank=\"0\",dp_rank=\"1\"} 4\n";
    assert_eq!(report(text).running, Some(7.0));
}

#[test]
fn reads_both_forms_of_tensorrt_llm() {
    let serve = report(
        "# TYPE trtllm_num_requests_running gauge\ntrtllm_num_requests_running 4\ntrtllm_num_requests_waiting 5\n\
         trtllm_kv_cache_utilization 0.75\ntrtllm_kv_cache_tokens_per_block 32\ntrtllm_kv_cache_max_blocks 900\n",
    );
    let triton = report(
        "nv_inference_exec_count{model=\"m\"} 9\n\
         nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\",version=\"1\"} 5\n\
         nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\",version=\"1\"} 4\n\
         nv_trt_llm_request_metrics{model=\"m\",request_type=\"max\",version=\"1\"} 64\n\
         nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.75\n\
         nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"tokens_per\"} 32\n\
         nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\"} 900\n\
         nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"free\"} 100\n",
    );
    let expected = EngineReport {
        engine: Engine::TensorRtLlm,
        running: Some(4.0),
        waiting: Some(5.0),
        kv_used: Some(0.75),
        block_tokens: Some(32),
        kv_blocks: Some(900),
        ..EngineReport::default()
    };
    assert_eq!((&serve, &triton), (&expected, &expected));
}

#[test]
fn refuses_values_that_cannot_be() {
    for value in ["NaN", "+Inf", "-Inf", "-1", "", "x", "1e999"] {
        let found = report(&format!("vllm:num_requests_running {value}\n"));
        assert_eq!(found.running, None, "{value}");
        assert_eq!(found.engine, Engine::Vllm);
    }
    assert_eq!(report("vllm:kv_cache_usage_perc 1.5\n").kv_used, Some(1.0));
}

#[test]
fn bears_broken_lines() {
    for line in [
        "vllm:num_requests_running{",
        "vllm:num_requests_running{a=\"}",
        "vllm:num_requests_running{a=\"\\\"} 5",
        "vllm:num_requests_running",
        "vllm:num_requests_runningx 5",
        "vllm:cache_config_info{block_size} 1",
        "vllm:cache_config_info{block_size=16} 1",
        "vllm:",
        "{} 1",
    ] {
        let found = report(&format!(
            "vllm:num_requests_waiting 1\n{line}\nvllm:num_requests_waiting 1"
        ));
        let expected = EngineReport {
            engine: Engine::Vllm,
            waiting: Some(2.0),
            ..EngineReport::default()
        };
        assert_eq!(found, expected, "{line}");
    }
}

#[test]
fn tells_what_is_no_metrics_text() {
    let mut report = report("vllm:num_requests_running 1\n");
    let scan = |text: &[u8], report: &mut EngineReport| scan_metrics(text, report);
    let html = b"<html>\n<body>not_found</body>\n";
    assert_eq!(
        scan(html, &mut report),
        Err(MetricsError::NoSamples { bytes: html.len() })
    );
    assert_eq!(report, EngineReport::default());
    assert_eq!(
        scan(b"", &mut report),
        Err(MetricsError::NoSamples { bytes: 0 })
    );
    let long = vec![b'\n'; MAX_METRICS_BYTES + 1];
    assert_eq!(
        scan(&long, &mut report),
        Err(MetricsError::TooLarge { bytes: long.len() })
    );
    assert_eq!(scan(b"go_goroutines 12\n", &mut report), Ok(()));
    assert_eq!(report, EngineReport::default());
}

#[test]
fn forgets_the_earlier_reading() {
    let mut report = report(
        "vllm:num_requests_running 1\nvllm:lora_requests_info{max_lora=\"1\",running_lora_adapters=\"a\"} 1\n",
    );
    scan_metrics(b"vllm:num_requests_waiting 2\n", &mut report).unwrap();
    let expected = EngineReport {
        engine: Engine::Vllm,
        waiting: Some(2.0),
        ..EngineReport::default()
    };
    assert_eq!(report, expected);
}
