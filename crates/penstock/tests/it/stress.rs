//! Everything at once: faults by chance, clients that leave anywhere, several workers. Whatever
//! happens to a request, it ends, is told truly, and leaves nothing behind.

use crate::gateway::{Gateway, post, read_answer, wait_until};
use crate::servers::{CHAT, Open, Server, chat, events, sent};
use std::io::BufReader;
use std::sync::atomic::{AtomicUsize, Ordering};

const CLIENTS: usize = 12;
const REQUESTS: usize = 60;

/// What one client saw.
#[derive(Default)]
struct Seen {
    whole: AtomicUsize,
    cut: AtomicUsize,
    refused: AtomicUsize,
    broken: AtomicUsize,
    left: AtomicUsize,
}

impl Seen {
    fn total(&self) -> usize {
        let all = [
            &self.whole,
            &self.cut,
            &self.refused,
            &self.broken,
            &self.left,
        ];
        all.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

fn one_request(gateway: &Gateway, number: usize, seen: &Seen) {
    let streamed = !number.is_multiple_of(3);
    let prompt = format!("topic {} ", number % 7).repeat(40 + number % 50);
    let body = chat("llama", &prompt, 4, streamed);
    let count = |counter: &AtomicUsize| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    match number % 10 {
        0 => {
            drop(sent(gateway.address, &body));
            return count(&seen.left);
        }
        5 if streamed => {
            let mut open = Open::post(gateway.address, &body);
            if open.status == 200 {
                open.chunk();
            }
            return count(&seen.left);
        }
        _ => {}
    }
    let stream = sent(gateway.address, &body);
    let Some(answer) = read_answer(&mut BufReader::new(stream)) else {
        // Only an answer in one piece may break off without a word.
        assert!(!streamed, "a stream broke off");
        return count(&seen.broken);
    };
    if answer.status != 200 {
        assert!(answer.status >= 500, "{answer:?}");
        count(&seen.refused);
    } else if !streamed || answer.body.ends_with("data: [DONE]\n\n") {
        count(&seen.whole);
    } else {
        let last = events(&answer.body).last().copied().unwrap_or_default();
        assert!(last.contains("stream_cut"), "{answer:?}");
        count(&seen.cut);
    }
}

#[test]
fn nothing_is_left_behind_by_chaos() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.jsonl");
    let servers: [Server; 4] = Server::llamas();
    let urls = servers
        .each_ref()
        .map(|server| format!("http://{}", server.address));
    let mut args: Vec<&str> = urls.iter().flat_map(|url| ["--endpoint", url]).collect();
    args.extend(["--workers", "2", "--access-log", log.to_str().unwrap()]);
    let gateway = Gateway::run(&args);
    for fault in ["500:p=0.1", "refuse:p=0.1", "slow-head:ms=30,p=0.2"] {
        servers[0].fault(fault);
    }
    for fault in ["reset:after=1,p=0.2", "error-event:p=0.1", "metrics-frozen"] {
        servers[1].fault(fault);
    }
    for fault in [
        "abort:after=2,p=0.2",
        "truncate:after=1,p=0.2",
        "metrics-hang",
    ] {
        servers[2].fault(fault);
    }
    let seen = Seen::default();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (gateway, seen) = (&gateway, &seen);
            scope.spawn(move || {
                for number in 0..REQUESTS {
                    one_request(gateway, client + number, seen);
                }
            });
        }
    });
    assert_eq!(seen.total(), CLIENTS * REQUESTS);
    assert!(seen.whole.load(Ordering::Relaxed) > CLIENTS * REQUESTS / 2);
    gateway.is_quiet();
    for server in &servers {
        wait_until(|| server.running() == 0);
        server.cure();
    }
    for _ in 0..8 {
        let answer = post(gateway.address, CHAT, &chat("llama", "at last", 2, true));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    gateway.is_quiet();
    let lines = || {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .lines()
            .count() as f64
    };
    wait_until(|| lines() > 0.0 && lines() == gateway.metric("penstock_requests_total"));
    assert!(lines() <= (CLIENTS * REQUESTS + 8) as f64);
}
