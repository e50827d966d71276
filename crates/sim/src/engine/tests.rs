//! Behaviour of one engine: times, cache, preemption, adapters, and conservation of blocks.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::run;

fn job(id: u64, prompt_tokens: u32, output_tokens: u32) -> Job {
    // Blocks of their own for every id: nothing is shared unless a test says so.
    let blocks = u64::from(prompt_tokens + output_tokens) / 16;
    Job {
        id: JobId(id),
        prompt_tokens,
        output_tokens,
        block_hashes: (0..blocks).map(|block| (id << 32) | (block + 1)).collect(),
        adapter: None,
    }
}

fn first_token(events: &[Event], id: u64) -> u64 {
    let first = |event: &&Event| matches!(event.kind, EventKind::FirstToken { .. });
    events
        .iter()
        .filter(first)
        .find(|event| event.job == JobId(id))
        .expect("first token")
        .at
        .0
}

fn finished(events: &[Event]) -> BTreeMap<u64, u32> {
    let finished = events.iter().filter_map(|event| match event.kind {
        EventKind::Finished { cached_tokens } => Some((event.job.0, cached_tokens)),
        _ => None,
    });
    finished.collect()
}

fn spec() -> EngineSpec {
    EngineSpec::new(Profile::default())
}

/// What `advance` does when an arrival ends each piece of time.
fn idle(engine: &mut Engine) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(at) = engine.next_event() {
        engine.advance(at, &mut events);
    }
    events
}

#[test]
fn one_token_of_one_prompt_takes_what_the_profile_says() {
    for (name, prompt, micros) in [
        // base + 100 tokens + attention of 100 x 50 pairs, from 1 us on, rounded up.
        ("p1", 100, 1 + 5_750 + 1_725 + 6),
        ("p2", 100, 1 + 13_000 + 4_880 + 11),
        ("p3", 100, 1 + 16_000 + 5_500 + 7),
        ("p4", 100, 1 + 9_700 + 6_670 + 17),
    ] {
        let spec = EngineSpec::new(name.parse().expect("profile"));
        let events = run(spec, [(Micros(0), job(1, prompt, 1))]).expect("run");
        assert_eq!(first_token(&events, 1), micros, "{name}");
    }
}

#[test]
fn a_decode_step_costs_base_sequence_and_context() {
    let events = run(spec(), [(Micros(0), job(1, 100, 2))]).expect("run");
    let gap = events[1].at.since(events[0].at);
    // 5,750 us + 6 us + 101 tokens x 76 ns, rounded up.
    assert_eq!(gap, 5_764);
    assert_eq!(events[1].kind, EventKind::Token { number: 2 });
    assert_eq!(events[2].kind, EventKind::Finished { cached_tokens: 0 });
}

#[test]
fn a_long_prompt_delays_the_one_behind_it() {
    let spec = EngineSpec {
        budget_tokens: 2_048,
        ..spec()
    };
    for second_arrives in [0, 1] {
        let arrivals = [
            (Micros(0), job(1, 8_000, 4)),
            (Micros(second_arrives), job(2, 8_000, 4)),
        ];
        let events = run(spec, arrivals).expect("run");
        let (first, second) = (first_token(&events, 1), first_token(&events, 2));
        assert!(second * 10 >= first * 19, "first {first}, second {second}");
    }
}

#[test]
fn a_repeated_prompt_is_computed_once() {
    let spec = EngineSpec {
        budget_tokens: 2_048,
        ..spec()
    };
    let again = Job {
        id: JobId(2),
        ..job(1, 8_000, 4)
    };
    let start = 10_000_000;
    let events = run(
        spec,
        [(Micros(0), job(1, 8_000, 4)), (Micros(start), again)],
    )
    .expect("run");
    let (first, second) = (first_token(&events, 1), first_token(&events, 2) - start);
    assert!(second * 5 <= first, "first {first}, second {second}");
    // The last block stays uncached: one token at least must be computed.
    assert_eq!(finished(&events), BTreeMap::from([(1, 0), (2, 7_984)]));
}

#[test]
fn the_next_turn_finds_the_generated_tokens_too() {
    let turn = job(1, 160, 160);
    let next = Job {
        id: JobId(2),
        prompt_tokens: 400,
        output_tokens: 1,
        block_hashes: turn.block_hashes.iter().copied().chain(900..905).collect(),
        adapter: None,
    };
    let events = run(spec(), [(Micros(0), turn), (Micros(5_000_000), next)]).expect("run");
    // 319 of the 320 tokens were computed: the last one came out and was never read.
    assert_eq!(finished(&events)[&2], 304);
}

#[test]
fn nothing_is_found_with_prefix_caching_off() {
    let spec = EngineSpec {
        prefix_caching: false,
        ..spec()
    };
    let again = Job {
        id: JobId(2),
        ..job(1, 800, 4)
    };
    let events = run(
        spec,
        [(Micros(0), job(1, 800, 4)), (Micros(5_000_000), again)],
    )
    .expect("run");
    assert_eq!(finished(&events)[&2], 0);
}

#[test]
fn a_small_cache_preempts_and_everybody_finishes() {
    let mut engine = Engine::new(EngineSpec {
        blocks: 64,
        ..spec()
    });
    for id in 1..=8 {
        engine.submit(Micros(0), job(id, 100, 200)).expect("submit");
    }
    let events = idle(&mut engine);
    let gauges = engine.gauges();
    assert!(gauges.totals.preemptions > 0, "{gauges:?}");
    assert_eq!(finished(&events).len(), 8);
    for id in 1..=8 {
        let tokens = events
            .iter()
            .filter(|e| e.job == JobId(id) && e.kind.is_token());
        assert_eq!(tokens.count(), 200, "job {id}");
    }
    assert_eq!(
        (gauges.blocks_used, gauges.running, gauges.waiting),
        (0, 0, 0)
    );
    assert_eq!(gauges.totals.generated_tokens, 1_600);
    assert_eq!(gauges.totals.prompt_tokens, 800);
}

#[test]
fn least_recently_used_content_is_evicted_first_and_a_head_last() {
    // Room for 20 blocks; three prompts of 10 blocks: the first one's content goes.
    let spec = EngineSpec {
        blocks: 20,
        ..spec()
    };
    let again = |id, of| Job {
        id: JobId(id),
        ..job(of, 160, 1)
    };
    let at = |second: u64| Micros(second * 1_000_000);
    let arrivals = [
        (at(0), job(1, 160, 1)),
        (at(1), job(2, 160, 1)),
        (at(2), job(3, 80, 1)),
        // Five of the ten blocks of prompt 1 went, its tail first: the head is still there.
        (at(3), again(4, 1)),
        // The call before took five blocks: those of prompt 2, now the oldest, its tail first.
        (at(4), again(5, 2)),
    ];
    let events = run(spec, arrivals).expect("run");
    assert_eq!(finished(&events)[&4], 80);
    assert_eq!(finished(&events)[&5], 80);
}

#[test]
fn one_that_does_not_fit_blocks_those_behind_it() {
    let spec = EngineSpec {
        blocks: 64,
        ..spec()
    };
    let mut engine = Engine::new(spec);
    engine.submit(Micros(0), job(1, 800, 100)).expect("submit");
    engine.advance(Micros(10), &mut Vec::new());
    engine.submit(Micros(10), job(2, 800, 1)).expect("submit");
    engine.submit(Micros(10), job(3, 16, 1)).expect("submit");
    let events = idle(&mut engine);
    assert!(first_token(&events, 3) >= first_token(&events, 2));
}

#[test]
fn seats_bound_the_batch() {
    let mut engine = Engine::new(EngineSpec { seats: 3, ..spec() });
    for id in 1..=5 {
        engine.submit(Micros(0), job(id, 10, 50)).expect("submit");
    }
    engine.advance(Micros(30_000), &mut Vec::new());
    assert_eq!((engine.gauges().running, engine.gauges().waiting), (3, 2));
}

#[test]
fn adapters_wait_for_slots_and_let_others_pass() {
    let spec = EngineSpec {
        adapter_slots: 1,
        ..spec()
    };
    let with = |id, adapter: u32| Job {
        adapter: Some(AdapterId(adapter)),
        ..job(id, 100, 20)
    };
    let mut engine = Engine::new(spec);
    for job in [with(1, 7), with(2, 8), job(3, 100, 20), with(4, 7)] {
        engine.submit(Micros(0), job).expect("submit");
    }
    let mut events = Vec::new();
    engine.advance(Micros(2), &mut events);
    let gauges = engine.gauges();
    assert_eq!((gauges.running, gauges.waiting), (3, 1));
    assert_eq!(gauges.adapters_running, [AdapterId(7)]);
    assert_eq!(gauges.adapters_waiting, [AdapterId(8)]);
    events.extend(idle(&mut engine));
    // The load is in the first step, and again when the slot changes hands.
    assert!(first_token(&events, 1) > 200_000);
    assert!(first_token(&events, 2) - first_token(&events, 1) > 200_000);
    assert_eq!(finished(&events).len(), 4);
}

#[test]
fn an_aborted_job_leaves_at_once_and_says_nothing_more() {
    let mut engine = Engine::new(spec());
    engine
        .submit(Micros(0), job(1, 1_000, 500))
        .expect("submit");
    engine.submit(Micros(0), job(2, 1_000, 5)).expect("submit");
    let mut events = Vec::new();
    engine.advance(Micros(100_000), &mut events);
    assert_eq!(engine.gauges().running, 1, "job 2 is done");
    assert!(engine.abort(JobId(1)));
    assert!(!engine.abort(JobId(1)));
    assert_eq!(
        (engine.gauges().running, engine.gauges().blocks_used),
        (0, 0)
    );
    let after = idle(&mut engine);
    assert_eq!(after, []);
}

#[test]
fn half_the_speed_takes_twice_the_time() {
    let mut engine = Engine::new(spec());
    engine.set_speed(500);
    engine.submit(Micros(0), job(1, 100, 1)).expect("submit");
    let slow = first_token(&idle(&mut engine), 1) - 1;
    let normal = first_token(&run(spec(), [(Micros(0), job(1, 100, 1))]).expect("run"), 1) - 1;
    assert!(slow.abs_diff(2 * normal) <= 1, "{slow} and {normal}");
}

#[test]
fn a_job_without_output_finishes_with_its_prompt() {
    let events = run(spec(), [(Micros(0), job(1, 64, 0))]).expect("run");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].kind, EventKind::Finished { cached_tokens: 0 });
}

#[test]
fn impossible_jobs_are_refused_with_the_reason() {
    let mut engine = Engine::new(EngineSpec {
        blocks: 4,
        adapter_slots: 0,
        ..spec()
    });
    engine.submit(Micros(0), job(1, 10, 10)).expect("submit");
    let cases = [
        (job(2, 0, 1), Refused::EmptyPrompt),
        (
            job(2, 60, 6),
            Refused::NeverFits {
                needed: 5,
                total: 4,
            },
        ),
        (
            Job {
                adapter: Some(AdapterId(1)),
                ..job(2, 10, 1)
            },
            Refused::NoAdapterSlot,
        ),
        (job(1, 10, 1), Refused::Duplicate),
    ];
    for (job, refused) in cases {
        assert_eq!(engine.submit(Micros(0), job), Err(refused));
    }
    engine
        .submit(Micros(0), job(3, 60, 5))
        .expect("64 tokens fit in 4 blocks");
    assert_eq!(finished(&idle(&mut engine)).len(), 2);
}

#[test]
fn profiles_are_found_by_name_and_alias() {
    for profile in PROFILES {
        assert_eq!(profile.name.parse(), Ok(*profile));
        assert_eq!(profile.alias.to_uppercase().parse(), Ok(*profile));
    }
    let error = "h100".parse::<Profile>().expect_err("unknown").to_string();
    assert!(
        error.contains("`h100`") && error.contains("8b-a100 (p4)"),
        "{error}"
    );
}

#[derive(Debug, Clone)]
enum Op {
    Submit {
        prompt: u32,
        output: u32,
        family: u64,
        adapter: Option<u32>,
    },
    Wait {
        micros: u64,
    },
    Abort {
        id: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1..300u32, 0..60u32, 0..3u64, proptest::option::of(0..4u32))
            .prop_map(|(prompt, output, family, adapter)| Op::Submit { prompt, output, family, adapter }),
        4 => (0..60_000u64).prop_map(|micros| Op::Wait { micros }),
        1 => (0..40u64).prop_map(|id| Op::Abort { id }),
    ]
}

/// Runs `ops`; `late` submits before it lets time pass, the other way round otherwise.
fn play(ops: &[Op], late: bool) -> (Vec<Event>, Gauges) {
    let mut engine = Engine::new(EngineSpec {
        blocks: 24,
        budget_tokens: 128,
        seats: 6,
        adapter_slots: 2,
        ..spec()
    });
    let (mut now, mut events) = (0, Vec::new());
    for (id, op) in ops.iter().enumerate() {
        match op {
            Op::Wait { micros } => now += micros,
            Op::Abort { id } => {
                engine.advance(Micros(now), &mut events);
                engine.abort(JobId(*id));
            }
            Op::Submit {
                prompt,
                output,
                family,
                adapter,
            } => {
                let mut job = job(id as u64, *prompt, *output);
                job.block_hashes
                    .iter_mut()
                    .for_each(|hash| *hash = *hash & 0xffff | family << 32);
                job.adapter = adapter.map(AdapterId);
                if !late {
                    engine.advance(Micros(now), &mut events);
                }
                engine.submit(Micros(now), job).expect("fits");
                engine.advance(Micros(now), &mut events);
            }
        }
        let gauges = engine.gauges();
        assert!(gauges.running <= 6 && gauges.adapters_running.len() <= 2);
        assert!(gauges.running > 0 || gauges.blocks_used == 0, "{gauges:?}");
    }
    events.extend(idle(&mut engine));
    (events, engine.gauges())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn blocks_are_conserved_and_every_job_ends_once(ops in proptest::collection::vec(op(), 1..40)) {
        let (events, gauges) = play(&ops, false);
        prop_assert_eq!((gauges.running, gauges.waiting, gauges.blocks_used), (0, 0, 0));
        prop_assert!(events.windows(2).all(|pair| pair[0].at <= pair[1].at));
        let finished = finished(&events);
        for (id, op) in ops.iter().enumerate() {
            let Op::Submit { output, .. } = op else { continue };
            let id = id as u64;
            let tokens = events.iter().filter(|e| e.job.0 == id && e.kind.is_token()).count();
            let aborted = ops.iter().skip(id as usize)
                .any(|op| matches!(op, Op::Abort { id: other } if *other == id));
            prop_assert!(aborted || finished.contains_key(&id));
            prop_assert!(aborted || tokens == *output as usize);
        }
    }

    #[test]
    fn submitting_and_letting_time_pass_commute(ops in proptest::collection::vec(op(), 1..40)) {
        prop_assert_eq!(play(&ops, false), play(&ops, true));
    }
}
