//! The driver on a paused clock: the same token times as in the simulator, and leaving.
//! Nothing here waits for real time: the clock moves when every task sleeps.

use std::collections::BTreeMap;

use sim::engine::Profile;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::*;

fn job(prompt_tokens: u32, output_tokens: u32, family: u64) -> Job {
    let blocks = u64::from(prompt_tokens + output_tokens) / 16;
    let block_hashes = (0..blocks)
        .map(|block| (family << 32) | (block + 1))
        .collect();
    Job {
        id: JobId(0),
        prompt_tokens,
        output_tokens,
        block_hashes,
        adapter: None,
    }
}

fn spec() -> EngineSpec {
    EngineSpec {
        blocks: 64,
        budget_tokens: 256,
        ..EngineSpec::new(Profile::default())
    }
}

fn start(spec: EngineSpec) -> (std::sync::Arc<EngineHandle>, Instant, CancellationToken) {
    let (driver, engine) = Driver::new(spec);
    let (epoch, cancel) = (driver.epoch, CancellationToken::new());
    TaskTracker::new().spawn(driver.run(cancel.clone()));
    (std::sync::Arc::new(engine), epoch, cancel)
}

fn micros(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_micros()).expect("small")
}

/// Arrivals in ms with prompt, output and family: bursts, ties, repeats, more than the cache holds.
fn arrivals() -> Vec<(u64, Job)> {
    let each = (0..80_u64).map(|n| {
        let at = (n * n * 7919) % 900;
        let at = if n % 4 == 0 { at / 100 * 100 } else { at };
        let draw = twox_hash::XxHash3_64::oneshot(&n.to_le_bytes());
        (
            at,
            job(
                1 + (draw % 500) as u32,
                1 + (draw >> 32) as u32 % 60,
                n % 11,
            ),
        )
    });
    each.collect()
}

#[tokio::test(start_paused = true)]
async fn token_times_equal_the_simulators() {
    let (engine, epoch, cancel) = start(spec());
    let mut requests = JoinSet::new();
    for (at, job) in arrivals() {
        let engine = std::sync::Arc::clone(&engine);
        requests.spawn(async move {
            tokio::time::sleep_until(epoch + Duration::from_millis(at)).await;
            let arrived = Micros(micros(epoch));
            let mut generation = engine
                .submit(vec![job.clone()], Ends::Length)
                .await
                .expect("fits");
            let id = generation._places[0].job;
            let mut events = Vec::new();
            while let Some(progress) = generation.next().await {
                // Timers tick in milliseconds, so that is how late a token may be.
                assert!(micros(epoch) - progress.event.at.0 <= 2_000);
                events.push(progress.event);
            }
            (id, arrived, job, events)
        });
    }
    let mut real = BTreeMap::new();
    let mut jobs = BTreeMap::new();
    while let Some(done) = requests.join_next().await {
        let (id, arrived, job, events) = done.expect("request");
        real.insert(id, events);
        jobs.insert(id, (arrived, Job { id, ..job }));
    }
    let gauges = engine.look().await.expect("running").gauges;
    assert!(
        gauges.totals.preemptions > 0 && gauges.totals.prefix_hits > 0,
        "{gauges:?}"
    );
    assert_eq!(
        (gauges.running, gauges.waiting, gauges.blocks_used),
        (0, 0, 0)
    );

    let mut simulated: BTreeMap<JobId, Vec<Event>> = BTreeMap::new();
    for event in sim::run(spec(), jobs.into_values()).expect("run") {
        simulated.entry(event.job).or_default().push(event);
    }
    assert_eq!(real, simulated);
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn dropping_a_generation_frees_the_engine() {
    let (engine, _, cancel) = start(spec());
    let jobs = vec![job(100, 500, 1), job(100, 500, 2)];
    let mut generation = engine.submit(jobs, Ends::Length).await.expect("fits");
    generation.next().await.expect("a token");
    assert_eq!(engine.look().await.expect("running").gauges.running, 2);
    drop(generation);
    let gauges = engine.look().await.expect("running").gauges;
    assert_eq!((gauges.running, gauges.blocks_used), (0, 0));
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn one_who_leaves_before_the_answer_never_runs() {
    let (engine, _, cancel) = start(spec());
    tokio::select! {
        biased;
        _ = engine.submit(vec![job(100, 500, 1)], Ends::Length) => panic!("nobody answered yet"),
        () = std::future::ready(()) => {}
    }
    let gauges = engine.look().await.expect("running").gauges;
    assert_eq!((gauges.running, gauges.waiting), (0, 0));
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_job_that_never_fits_is_refused_and_its_siblings_leave() {
    let (engine, _, cancel) = start(spec());
    let jobs = vec![job(100, 500, 1), job(2_000, 1, 2)];
    let refused = engine
        .submit(jobs, Ends::Length)
        .await
        .expect_err("too long");
    assert!(refused.to_string().contains("125 blocks"), "{refused}");
    let gauges = engine.look().await.expect("running").gauges;
    assert_eq!((gauges.running, gauges.waiting), (0, 0));
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_stopped_engine_says_so() {
    let (engine, _, cancel) = start(spec());
    let mut generation = engine
        .submit(vec![job(9, 900, 1)], Ends::Stop)
        .await
        .expect("fits");
    cancel.cancel();
    while generation.next().await.is_some() {}
    let error = engine
        .submit(vec![job(9, 9, 1)], Ends::Stop)
        .await
        .expect_err("stopped");
    assert!(matches!(error, SubmitError::Stopped), "{error}");
}
