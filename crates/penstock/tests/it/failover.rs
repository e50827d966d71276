//! Drills of failover: one of two servers turns bad while clients keep asking, and is cured.
//!
//! A failure that may be tried elsewhere is seen by nobody; one that may not is seen by five clients
//! at most, and the cured server is used again within two seconds. That all servers are bad is in
//! `retries.rs`.

use crate::configured::{GATEWAY, pool, route, to_pool};
use crate::gateway::{Ends, Gateway, read_answer, wait_until};
use crate::measures::{measured, promised};
use crate::servers::{CHAT, Received, Server, chat, sent};
use std::io::BufReader;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Clients that ask one request after the other.
const CLIENTS: usize = 4;
const REQUESTS: usize = 100;
/// A client that has waited for this long has seen a failure.
const PATIENCE: Duration = Duration::from_secs(5);
/// A prompt whose computing can be told from noise.
const WORDS: usize = 2_000;

/// Whether the answer came whole and in time.
fn is_served(gateway: &Gateway, number: usize) -> bool {
    let prompt = format!("{number} ") + &"word ".repeat(WORDS);
    let stream = sent(gateway.address, &chat("llama", &prompt, 4, true));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let answer = read_answer(&mut BufReader::new(stream));
    answer.is_some_and(|answer| answer.status == 200 && answer.body.ends_with("data: [DONE]\n\n"))
}

/// Requests from several clients at once, each with a prompt of its own; how many of them failed.
fn failed(gateway: &Gateway, numbers: Range<usize>) -> usize {
    let (next, failed) = (AtomicUsize::new(numbers.start), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    if !is_served(gateway, number) {
                        failed.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    failed.into_inner()
}

fn is_complete(one: &Received) -> bool {
    one.target == CHAT && one.end.as_deref() == Some("complete")
}

/// Requests of clients that reached the server: the gateway's own ask elsewhere.
fn asked(server: &Server) -> usize {
    let received = server.received();
    received.iter().filter(|one| one.target == CHAT).count()
}

struct Drill {
    /// Failures that clients saw.
    seen: usize,
    /// Requests that went to the bad server.
    sent: usize,
    /// From the cure to the first whole answer.
    used_again: Duration,
}

/// Lets one of two servers turn bad.
fn drill(gateway: impl Fn(&[Server; 2]) -> Gateway, turn: impl Fn(&Server)) -> Drill {
    let servers: [Server; 2] = Server::llamas();
    let gateway = gateway(&servers);
    gateway.knows(&["llama"]);
    let [bad, _] = &servers;
    assert_eq!(failed(&gateway, 0..20), 0);
    bad.forget();
    turn(bad);
    let seen = failed(&gateway, 1_000..1_000 + REQUESTS);
    let sent = asked(bad);
    bad.cure();
    bad.slow(1.0);
    bad.forget();
    let cured = Instant::now();
    let (goes_on, gateway) = (&AtomicBool::new(true), &gateway);
    std::thread::scope(|scope| {
        let _ends = Ends(goes_on);
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for number in 0.. {
                    if !goes_on.load(Relaxed) {
                        return;
                    }
                    is_served(gateway, 10_000 * (client + 1) + number);
                }
            });
        }
        wait_until(|| bad.received().iter().any(is_complete));
    });
    let used_again = cured.elapsed();
    gateway.is_quiet();
    Drill {
        seen,
        sent,
        used_again,
    }
}

fn over(servers: &[Server; 2]) -> Gateway {
    Gateway::over(&servers.each_ref())
}

#[track_caller]
fn holds(name: &str, drill: &Drill, most_seen: usize) {
    measured(&format!("failover_{name}_failures"), drill.seen as f64);
    measured(&format!("failover_{name}_requests"), drill.sent as f64);
    let seconds = drill.used_again.as_secs_f64();
    measured(&format!("failover_{name}_used_again_s"), seconds);
    assert!(
        drill.seen <= most_seen,
        "{name}: {} clients saw it",
        drill.seen
    );
    assert!(drill.sent >= 1, "{name}: it was not even tried");
    // Tenfold slack where nothing is measured.
    let most = promised(20, 2) as f64;
    assert!(seconds < most, "{name}: used again after {seconds} s");
}

#[test]
fn a_server_that_answers_500_is_seen_by_nobody() {
    holds("500", &drill(over, |bad| bad.fault("500")), 0);
}

/// With a patience for each try.
fn impatient(servers: &[Server; 2]) -> Gateway {
    let rule = format!(
        "rules: [{{timeouts: {{backendRequest: 1s}}, backendRefs: [{}]}}]",
        to_pool("chat")
    );
    let members = servers.each_ref().map(|server| server.address);
    let objects = [route("all", &rule), pool("chat", "", &members)].concat();
    Gateway::documents(&(GATEWAY.replace("PORT", "LISTEN_PORT") + &objects))
}

#[test]
fn a_server_that_hangs_is_seen_by_nobody_where_a_try_has_a_limit() {
    holds("hang", &drill(impatient, |bad| bad.fault("hang")), 0);
}

#[test]
fn a_server_that_hangs_is_seen_by_few_without_any_limit() {
    holds("silence", &drill(over, |bad| bad.fault("hang")), 5);
}

#[test]
fn a_server_that_resets_in_mid_stream_is_seen_by_few() {
    holds("reset", &drill(over, |bad| bad.fault("reset:after=2")), 5);
}

#[test]
fn a_server_that_is_ten_times_slower_gets_few_requests() {
    let drill = drill(over, |bad| bad.slow(10.0));
    holds("slow", &drill, 0);
    assert!(drill.sent <= 5, "{} went there", drill.sent);
}
