//! A hostile mix for as long as one likes (`just soak`): slow readers, clients that leave anywhere,
//! broken requests, large bodies and reloads. Memory does not grow, and nothing is left behind.

use crate::crowd::{CROWD, Draws, Says, sent, server, sip};
use crate::gateway::{Gateway, request, wait_until};
use crate::measures::measured;
use crate::servers::{CHAT, chat};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const CLIENTS: u64 = 40;
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
const RELOAD_EVERY: Duration = Duration::from_millis(500);

/// How long, and how much more the last half may hold than the half before, in percent.
fn wanted() -> (Duration, f64) {
    let seconds = std::env::var("PENSTOCK_SOAK_SECONDS");
    match seconds.ok().and_then(|seconds| seconds.parse().ok()) {
        Some(seconds) => (Duration::from_secs(seconds), 2.0),
        // So short a time says little; a leak by the request would still show.
        None => (Duration::from_secs(6), 15.0),
    }
}

/// What follows `listen` in the file, different for each reload.
fn pools(reload: usize, members: [SocketAddr; 3], endless: SocketAddr) -> String {
    let (one, two) = (members[reload % 3], members[(reload + 1) % 3]);
    format!(
        "pools:\n  - {{name: chat, endpoints: [http://{one}, http://{two}], saturationSeconds: {}}}\n  \
        - {{name: endless, endpoints: [http://{endless}], models: [endless]}}\n",
        5 + reload % 2
    )
}

/// One thing that a client does.
async fn act(address: SocketAddr, draws: &mut Draws) {
    let prompt = format!("topic {} ", draws.below(500)).repeat(1 + draws.below(400));
    let ask = |model: &str, prompt: &str| request(CHAT, &chat(model, prompt, 5, true), &[]);
    let (text, bytes, pause, most) = match draws.below(10) {
        // Reads slowly, or not at all, and leaves.
        0 | 1 => (ask("endless", &prompt), 1000, 20, 100_000),
        2 => (ask("endless", &prompt), 1, 300, 2),
        // Leaves at once, or in mid-answer, or within its request.
        3 => (ask("llama", &prompt), 1, 0, 0),
        4 => (ask("llama", &prompt), 50, 0, 100),
        5 => {
            let whole = ask("llama", &prompt);
            let end = draws.below(whole.len());
            (whole[..end].to_owned(), 1, draws.below(20) as u64, 0)
        }
        6 => (ask("llama", &"much ".repeat(40_000)), 4096, 0, 600),
        7 => (
            "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(),
            4096,
            0,
            200,
        ),
        // Waits for its answer.
        _ => (ask("llama", &prompt), 4096, 0, 600),
    };
    if let Some(mut stream) = sent(address, &text).await {
        let pause = Duration::from_millis(pause);
        let reading = sip(&mut stream, bytes, pause, most);
        let _ = tokio::time::timeout(Duration::from_secs(3), reading).await;
    }
}

fn mean(samples: &[u64]) -> f64 {
    samples.iter().sum::<u64>() as f64 / samples.len().max(1) as f64
}

#[test]
fn memory_does_not_grow_and_nothing_is_left_behind() {
    let (time, most_percent) = wanted();
    let members = std::array::from_fn(|_| server(Says::Events(5, Duration::from_millis(2))));
    let endless = server(Says::Endless);
    let args = ["--workers", "2", "--watch-interval", "20ms"];
    let limits = ["--memory-limit", "256MiB", "--access-log", "/dev/null"];
    let gateway = Gateway::plain(&pools(0, members, endless), &[args, limits].concat());
    let goes_on = Arc::new(AtomicBool::new(true));
    let acts = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|seed| {
            let (address, goes_on, acts) = (gateway.address, goes_on.clone(), acts.clone());
            CROWD.spawn(async move {
                let mut draws = Draws(seed);
                while goes_on.load(Relaxed) {
                    act(address, &mut draws).await;
                    acts.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let file = gateway.folder.as_ref().unwrap().path().join("gateway.yaml");
    let (begun, mut reloads) = (Instant::now(), 0);
    let mut samples = Vec::new();
    while begun.elapsed() < time {
        if begun.elapsed() > RELOAD_EVERY * (reloads as u32 + 1) {
            reloads += 1;
            let text = pools(reloads, members, endless);
            std::fs::write(&file, format!("listen: {}\n{text}", gateway.address)).unwrap();
        }
        samples.push(gateway.resident_kib());
        std::thread::sleep(SAMPLE_EVERY);
    }
    goes_on.store(false, Relaxed);
    for client in clients {
        CROWD.block_on(client).unwrap();
    }
    // The first fifth fills pools of buffers and tables.
    let rest = &samples[samples.len() / 5..];
    let (before, last) = rest.split_at(rest.len() / 2);
    let (before, last) = (mean(before), mean(last));
    let growth = (last - before) / before * 100.0;
    measured("soak.seconds", time.as_secs_f64());
    measured("soak.acts", acts.load(Relaxed) as f64);
    measured("soak.reloads", reloads as f64);
    measured("soak.mib_before", before / 1024.0);
    measured("soak.mib_last", last / 1024.0);
    measured("soak.growth_percent", growth);
    assert!(growth <= most_percent, "{growth:.2} %");
    gateway.is_quiet();
    for holder in ["request_bodies", "unsent_answers", "read_ahead", "queues"] {
        wait_until(|| gateway.holds(holder) == 0);
    }
    wait_until(|| gateway.metric("penstock_connections_open") == 0.0);
    wait_until(|| gateway.metric("penstock_snapshots_alive") <= 2.0);
    let applied = gateway.metric("penstock_config_version");
    assert!(applied > reloads as f64 / 2.0, "{applied} of {reloads}");
}
