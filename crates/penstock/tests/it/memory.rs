//! Memory has a ceiling that is kept, whatever clients do: what does not fit is refused with 503
//! `memory`, who is served stays served, and afterwards nothing is held.

use crate::crowd::{CROWD, Says, deaf, sent, server, verdict};
use crate::gateway::{Gateway, connect, get, post, read_answer, request, wait_until};
use crate::measures::{measured, promised};
use crate::over2::{GET, Http2, PREFACE, block, frame, raw, read_frame};
use crate::servers::{CHAT, chat};
use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const MIB: u64 = 1 << 20;

/// In front of one server, with a ceiling.
fn limited(server: SocketAddr, mib: u64) -> Gateway {
    let endpoint = format!("http://{server}");
    let limit = format!("{mib}MiB");
    let args = ["--endpoint", &endpoint, "--memory-limit", &limit];
    Gateway::run(&[&args[..], &["--workers", "2", "--access-log", "off"]].concat())
}

/// The most that was ever resident, which must be below the ceiling.
#[track_caller]
fn stayed_below(gateway: &Gateway, drill: &str) {
    let memory = gateway.memory();
    let (limit, most) = (&memory["limit"], &memory["resident_most"]);
    let (limit, most) = (limit.as_u64().unwrap(), most.as_u64().unwrap());
    measured(&format!("memory.{drill}.resident_mib"), (most / MIB) as f64);
    measured(&format!("memory.{drill}.limit_mib"), (limit / MIB) as f64);
    let refusals = memory["refusals"].as_f64().unwrap();
    measured(&format!("memory.{drill}.refusals"), refusals);
    assert!(most < limit, "{memory:#}");
}

/// What clients made it hold has gone back.
fn holds_nothing(gateway: &Gateway) {
    for holder in [
        "request_heads",
        "request_bodies",
        "unsent_answers",
        "undecided_answers",
        "read_ahead",
        "queues",
    ] {
        wait_until(|| gateway.holds(holder) == 0);
    }
    wait_until(|| gateway.metric("penstock_connections_open") <= 1.0);
    gateway.is_quiet();
}

/// Clients that do not read: at least so many, and more until one is refused.
fn until_refused(gateway: &Gateway, asked: impl AsRef<[u8]>, least: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    let refuses = || gateway.memory()["refusals"] != 0;
    while streams.len() < least || !refuses() {
        for _ in 0..20 {
            streams.extend(CROWD.block_on(sent(gateway.address, asked.as_ref())));
        }
        // No further ahead of the gateway than it can tell.
        let taken = || gateway.metric("penstock_connections_open") as usize;
        wait_until(|| taken() + 100 >= streams.len() || refuses());
        assert!(streams.len() < 5_000, "{}", gateway.memory());
    }
    streams
}

#[test]
fn clients_that_never_read_are_bounded() {
    let clients = promised(700, 2_000);
    let gateway = limited(server(Says::Endless), promised(64, 96) as u64);
    let asked = request(CHAT, &chat("llama", "hello", 100, true), &[]);
    let streams = until_refused(&gateway, &asked, clients);
    let opened = streams.len();
    // Where clients come faster than answers pile up, connections alone reach the brink, and answers
    // have an eighth of the limit left to grow into.
    wait_until(|| gateway.holds("unsent_answers") > 4 * MIB);
    // Only now do they look at what they got.
    let (mut served, mut refused, mut cut) = (0, 0, 0);
    CROWD.block_on(async {
        for mut stream in streams {
            match verdict(&mut stream).await {
                Some((200, _)) => served += 1,
                Some((503, code)) => {
                    assert_eq!(code.as_deref(), Some("memory"));
                    refused += 1;
                }
                other => {
                    assert_eq!(
                        other, None,
                        "only a stream that was cut while nobody read it"
                    );
                    cut += 1;
                }
            }
        }
    });
    assert!(served > 100 && refused > 0, "{served} {refused} {cut}");
    assert_eq!(served + refused + cut, opened);
    measured("memory.never_read.clients", opened as f64);
    measured("memory.never_read.cut", cut as f64);
    stayed_below(&gateway, "never_read");
    holds_nothing(&gateway);
    assert!(gateway.memory()["held"].as_u64() < gateway.memory()["refuses_above"].as_u64());
}

#[test]
fn streams_of_http_2_that_nobody_reads_are_bounded() {
    const STREAMS: u32 = 20;
    let gateway = limited(server(Says::Endless), 64);
    let body = chat("llama", "hello", 100, true);
    let mut fields = GET;
    (fields[0].1, fields[2].1) = ("POST", CHAT);
    let head = block(&fields);
    let mut asked = [PREFACE, &frame(4, 0, 0, b"")].concat();
    for id in (1..).step_by(2).take(STREAMS as usize) {
        asked.extend(frame(1, 4, id, &head));
        asked.extend(frame(0, 1, id, body.as_bytes()));
    }
    // One after the other, so that it is their answers which fill the memory.
    let is_refused = || gateway.memory()["refusals"] != 0;
    let mut clients = Vec::new();
    while !is_refused() {
        assert!(clients.len() < 100, "{}", gateway.memory());
        let before = gateway.holds("unsent_answers");
        clients.extend(CROWD.block_on(sent(gateway.address, &asked)));
        wait_until(|| is_refused() || gateway.holds("unsent_answers") > before + MIB);
    }
    assert!(gateway.holds("unsent_answers") > 4 * MIB);
    measured("memory.never_read_http2.clients", clients.len() as f64);
    drop(clients);
    stayed_below(&gateway, "never_read_http2");
    holds_nothing(&gateway);
}

/// A client of HTTP/2 with so many requests, whose windows are wide: what is meant for it is held
/// back by nothing but the gateway.
fn many_streams(streams: usize) -> Vec<u8> {
    const WIDE: u32 = 16 << 20;
    let initial_window = [&[0, 4][..], &WIDE.to_be_bytes()].concat();
    let body = chat("llama", "hello", 100, true);
    let mut fields = GET;
    (fields[0].1, fields[2].1) = ("POST", CHAT);
    let head = block(&fields);
    let mut asked = [PREFACE, &frame(4, 0, 0, &initial_window)].concat();
    asked.extend(frame(8, 0, 0, &WIDE.to_be_bytes()));
    for id in (1..).step_by(2).take(streams) {
        asked.extend(frame(1, 4, id, &head));
        asked.extend(frame(0, 1, id, body.as_bytes()));
    }
    asked
}

/// Clients of HTTP/2, each with 20 requests, that read nothing of what they are answered: one after
/// the other until one is refused, so that it is answers which fill the memory, or `at_once`.
fn never_read_of_http_2(
    says: Says,
    at_once: bool,
    drill: &str,
) -> (Gateway, Vec<Option<TcpStream>>) {
    const STREAMS: usize = 20;
    let clients = promised(400, 900);
    let gateway = limited(server(says), 64);
    let asked = many_streams(STREAMS);
    let refusals = || gateway.memory()["refusals"].as_u64().unwrap();
    let mut streams = Vec::new();
    while streams.len() < clients {
        // One that is refused at once may not get to send all.
        streams.push(CROWD.block_on(sent(gateway.address, &asked)));
        if !at_once && refusals() == 0 {
            let begun = (streams.len() * STREAMS) as f64;
            let answered = || gateway.metric("penstock_requests_total") >= begun;
            wait_until(|| refusals() > 0 || answered());
        }
    }
    // All were looked at once nobody is refused any more.
    wait_until(|| {
        let before = refusals();
        std::thread::sleep(Duration::from_millis(500));
        before > 0 && refusals() == before
    });
    measured(&format!("memory.{drill}.clients"), clients as f64);
    assert!(refusals() > clients as u64 / 2, "{}", refusals());
    stayed_below(&gateway, drill);
    (gateway, streams)
}

/// Memory is as it was, and requests are served.
fn has_recovered(gateway: &Gateway) {
    holds_nothing(gateway);
    wait_until(|| gateway.holds("tls_and_http2") == 0);
    assert!(gateway.memory()["held"].as_u64() < gateway.memory()["refuses_above"].as_u64());
    let models = Http2::connect(gateway.address).get("/v1/models");
    assert_eq!(models.status, 200);
}

#[test]
fn short_answers_of_http_2_that_nobody_reads_are_bounded() {
    let says = Says::Body(1 << 10);
    let (gateway, streams) = never_read_of_http_2(says, true, "http2_short");
    // Who was refused does not stay: there is room again, though nobody has left.
    wait_until(|| gateway.memory()["held"].as_u64() < gateway.memory()["refuses_above"].as_u64());
    let answer = Http2::connect(gateway.address).post(CHAT, &chat("llama", "hello", 100, false));
    assert_eq!((answer.status, answer.body.len()), (200, 1 << 10));
    drop(streams);
    has_recovered(&gateway);
}

#[test]
fn long_answers_of_http_2_that_nobody_reads_are_bounded() {
    let says = Says::Body(64 << 10);
    let (gateway, streams) = never_read_of_http_2(says, false, "http2_long");
    assert!(gateway.holds("unsent_answers") > 4 * MIB);
    // What they owe is still there: others are told so.
    let answer = post(gateway.address, CHAT, &chat("llama", "hello", 100, false));
    assert_eq!(answer.status, 503);
    drop(streams);
    has_recovered(&gateway);
}

#[test]
fn event_streams_of_http_2_that_nobody_reads_are_bounded() {
    let (gateway, streams) = never_read_of_http_2(Says::Endless, true, "http2_events");
    drop(streams);
    has_recovered(&gateway);
}

#[test]
fn a_client_of_http_2_that_takes_nothing_is_left_though_its_answers_are_over() {
    let endpoint = format!("http://{}", server(Says::Body(64 << 10)));
    let args = ["--endpoint", &endpoint, "--limit", "write-stall=2s"];
    let gateway = Gateway::run(&args);
    let stream = CROWD.block_on(sent(gateway.address, many_streams(100)));
    let answered = || gateway.metric("penstock_requests_total");
    wait_until(|| answered() == 100.0 && gateway.metric("penstock_connections_open") == 1.0);
    // The places of its streams are kept, and what they owe.
    assert!(gateway.holds("tls_and_http2") > 200 << 10);
    assert!(gateway.holds("unsent_answers") > MIB);
    wait_until(|| gateway.metric("penstock_connections_open") == 0.0);
    drop(stream);
    has_recovered(&gateway);
}

#[test]
fn requests_of_http_2_that_never_end_are_bounded() {
    const STREAMS: usize = 200;
    let clients = promised(120, 150);
    let gateway = limited(server(Says::Little), 64);
    let mut fields = GET;
    (fields[0].1, fields[2].1) = ("POST", CHAT);
    let head = block(&fields);
    let begun = (1..).step_by(2).take(STREAMS);
    let begun: Vec<u8> = begun.flat_map(|id| frame(1, 4, id, &head)).collect();
    // All are connected before the first of them asks for anything.
    let mut streams = Vec::new();
    for _ in 0..clients {
        let asked = [PREFACE, &frame(4, 0, 0, b"")].concat();
        streams.push(CROWD.block_on(sent(gateway.address, asked)).unwrap());
    }
    wait_until(|| gateway.metric("penstock_connections_open") >= clients as f64);
    for stream in &mut streams {
        // One that is closed may not get to send all.
        let _ = CROWD.block_on(stream.write_all(&begun));
    }
    wait_until(|| gateway.memory()["refusals"].as_u64() > Some(clients as u64));
    std::thread::sleep(Duration::from_millis(500));
    stayed_below(&gateway, "http2_half_requests");
    drop(streams);
    has_recovered(&gateway);
}

#[test]
fn a_connection_of_http_2_that_is_refused_is_told_so_and_ended() {
    let gateway = limited(server(Says::Endless), 64);
    let known = Http2::connect(gateway.address);
    assert_eq!(known.get("/v1/models").status, 200);
    let body = chat("llama", "hello", 100, true);
    let crowd = until_refused(&gateway, request(CHAT, &body, &[]), 1);
    let answer = known.post(CHAT, &body);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.field("retry-after"), Some("1"));
    assert!(answer.body.contains("\"memory\""), "{answer:?}");
    assert!(known.end().is_ok(), "GOAWAY, for no error of the client's");
    // A new one is not left without an answer either: 503, or GOAWAY to calm it (11).
    let mut new = raw(gateway.address);
    new.write_all(&frame(1, 5, 1, &block(&GET))).unwrap();
    let told = std::iter::from_fn(|| read_frame(&mut new)).find_map(|frame| match frame {
        (0, _, 1, body) => Some(String::from_utf8(body).unwrap().contains("\"memory\"")),
        (7, _, _, goaway) if goaway[7] == 11 => Some(true),
        _ => None,
    });
    assert_eq!(told, Some(true), "{:#}", gateway.memory());
    drop((known, crowd));
    has_recovered(&gateway);
}

#[test]
fn connections_that_say_nothing_are_bounded() {
    let clients = promised(2_000, 8_000);
    let limit = 60;
    let gateway = limited(server(Says::Little), limit);
    let mut streams = Vec::new();
    for _ in 0..clients {
        // What the gateway does not take waits in the kernel's queue.
        streams.push(CROWD.block_on(sent(gateway.address, b"")).unwrap());
    }
    std::thread::sleep(Duration::from_secs(1));
    let held = gateway.memory()["held"].as_u64().unwrap();
    // Each worker may have taken one more.
    assert!(held < limit * MIB + MIB, "{held}");
    measured("memory.silent.clients", clients as f64);
    stayed_below(&gateway, "silent");
    drop(streams);
    has_recovered(&gateway);
}

#[test]
fn answers_that_never_begin_are_bounded() {
    let gateway = limited(server(Says::HalfAHead), 64);
    let asked = request(CHAT, &chat("llama", "hello", 100, true), &[]);
    let streams = until_refused(&gateway, &asked, 100);
    wait_until(|| gateway.holds("undecided_answers") > 4 * MIB);
    drop(streams);
    stayed_below(&gateway, "half_heads");
    holds_nothing(&gateway);
}

#[test]
fn long_heads_of_streams_count_until_they_are_out() {
    let gateway = limited(server(Says::LongHead), 96);
    let asked = request(CHAT, &chat("llama", "hello", 100, true), &[]);
    let all = (0..100).map(|_| CROWD.block_on(sent(gateway.address, &asked)));
    let streams: Vec<_> = all.collect();
    // Each is held back for a second, in which its first event might come.
    wait_until(|| gateway.holds("undecided_answers") > MIB / 2);
    wait_until(|| gateway.holds("undecided_answers") < MIB / 8);
    drop(streams);
    holds_nothing(&gateway);
}

#[test]
fn long_heads_that_a_server_does_not_take_count_twice() {
    const CLIENTS: usize = 8;
    const HEAD: u64 = 32_000;
    let gateway = limited(deaf(), 512);
    let long = "x".repeat(HEAD as usize);
    // More than the kernel takes, and no prompt, for which it would wait.
    let asked = request("/upload", &"x".repeat(8 << 20), &[("x-long", &long)]);
    let all = (0..CLIENTS).map(|_| CROWD.block_on(sent(gateway.address, &asked)));
    let streams: Vec<_> = all.collect();
    // As they came, and as they go to the server.
    let both = 2 * HEAD * CLIENTS as u64;
    wait_until(|| gateway.holds("request_heads") >= both);
    drop(streams);
    holds_nothing(&gateway);
}

/// A request whose head is almost as long as a head may be.
fn long_headed() -> String {
    let long = "x".repeat(32_000);
    request(
        CHAT,
        &chat("llama", "hello", 1, false),
        &[("x-long", &long)],
    )
}

#[test]
fn long_heads_of_requests_that_wait_are_bounded() {
    let gateway = limited(server(Says::Nothing), promised(96, 64) as u64);
    let mut streams = until_refused(&gateway, long_headed(), promised(2_200, 3_500));
    // All were looked at once nobody is refused any more.
    let refusals = || gateway.memory()["refusals"].as_u64();
    wait_until(|| {
        let before = refusals();
        std::thread::sleep(Duration::from_millis(300));
        before == refusals()
    });
    measured("memory.long_heads.clients", streams.len() as f64);
    assert!(gateway.holds("request_heads") > 4 * MIB);
    stayed_below(&gateway, "long_heads");
    // Some wait for the server, others were told.
    let told = CROWD.block_on(async {
        for stream in streams.iter_mut().rev() {
            let soon = tokio::time::timeout(Duration::from_millis(100), verdict(stream));
            if let Ok(Some(told)) = soon.await {
                return Some(told);
            }
        }
        None
    });
    assert_eq!(told, Some((503, Some("memory".to_owned()))));
    drop(streams);
    holds_nothing(&gateway);
}

#[test]
fn long_heads_are_not_kept_once_they_are_answered() {
    let clients = 1_000;
    let gateway = limited(server(Says::Little), 96);
    let before = gateway.resident_kib();
    let asked = long_headed();
    let mut kept = Vec::new();
    for _ in 0..clients {
        let mut stream = CROWD.block_on(sent(gateway.address, &asked)).unwrap();
        let told = CROWD.block_on(verdict(&mut stream));
        assert_eq!(told, Some((200, None)), "{}", gateway.memory());
        kept.push(stream);
    }
    let each = gateway.resident_kib().saturating_sub(before) as f64 / f64::from(clients);
    measured("memory.long_heads_kept.kib_each", each);
    assert!(each < 24.0, "{each} KiB each: {:#}", gateway.memory());
    stayed_below(&gateway, "long_heads_kept");
    drop(kept);
    holds_nothing(&gateway);
}

#[test]
fn large_bodies_at_once_are_bounded() {
    let (clients, limit) = (promised(16, 200), promised(160, 512) as u64);
    let gateway = limited(server(Says::Little), limit);
    let body = chat("llama", &"many words ".repeat((30 << 20) / 11), 1, false);
    let asked = request(CHAT, &body, &[]);
    let seen = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut stream = connect(gateway.address);
                // One that was refused may be told before it has sent all.
                let sent = stream.write_all(asked.as_bytes());
                let answer = read_answer(&mut BufReader::new(stream));
                let told = answer.map(|answer| (answer.status, answer.body));
                seen.lock().unwrap().push((sent.is_ok(), told));
            });
        }
    });
    let seen = seen.into_inner().unwrap();
    let count = |status: u16| {
        let has = |told: &&(bool, Option<(u16, String)>)| {
            told.1.as_ref().is_some_and(|(known, _)| *known == status)
        };
        seen.iter().filter(has).count()
    };
    assert!(count(200) > 0 && count(503) > 0, "{:?}", count(200));
    for (sent, told) in &seen {
        match told {
            Some((200, _)) => {}
            Some((503, body)) => assert!(body.contains("\"memory\""), "{body}"),
            // Whoever has no place in the queue is told before memory becomes scarce.
            Some((429, body)) => assert!(body.contains("\"queue_full\""), "{body}"),
            // The rest of a body that nobody waited for: the client cannot have sent it all.
            other => assert!(!sent && other.is_none(), "{other:?}"),
        }
    }
    measured("memory.bodies.served", count(200) as f64);
    stayed_below(&gateway, "bodies");
    holds_nothing(&gateway);
    // What was refused was not wrong: alone, it is served.
    let mut stream = connect(gateway.address);
    stream.write_all(asked.as_bytes()).unwrap();
    assert_eq!(
        read_answer(&mut BufReader::new(stream)).unwrap().status,
        200
    );
}

#[test]
fn names_keys_and_prompts_without_end_are_bounded() {
    let requests = promised(6_000, 1_000_000);
    let gateway = limited(server(Says::Little), 64);
    let series = || {
        let page = get(gateway.admin, "/metrics").unwrap().body;
        assert!(!page.contains("model-"), "a client's word is a label");
        page.lines().filter(|line| !line.starts_with('#')).count()
    };
    let clients = 4;
    let prompt = "words of a prompt ".repeat(800);
    let ask = |from: usize, to: usize| {
        std::thread::scope(|scope| {
            for client in 0..clients {
                let (gateway, prompt) = (&gateway, &prompt);
                scope.spawn(move || {
                    let mut stream = BufReader::new(connect(gateway.address));
                    for number in (from + client..to).step_by(clients) {
                        let name = format!("model-{number}");
                        let body = chat(&name, &format!("{number} {prompt}"), 1, false);
                        let key = format!("Bearer key-{number}");
                        let fields = [("authorization", key.as_str())];
                        let asked = request(CHAT, &body, &fields);
                        stream.get_mut().write_all(asked.as_bytes()).unwrap();
                        assert_eq!(read_answer(&mut stream).unwrap().status, 200);
                    }
                });
            }
        });
    };
    ask(0, requests / 2);
    let (labels, indexes) = (series(), gateway.holds("prefix_indexes"));
    ask(requests / 2, requests);
    assert_eq!(series(), labels, "labels grow with what clients say");
    let quarter = gateway.memory()["limit"].as_u64().unwrap() / 4;
    for bytes in [indexes, gateway.holds("prefix_indexes")] {
        // Servers do not hold more than they have room for, nor does what is believed of them.
        assert!((MIB / 8..quarter).contains(&bytes), "{bytes}");
    }
    assert!(gateway.holds("decisions") < 3 * MIB);
    assert!(gateway.holds("metric_series") < MIB);
    measured("memory.names.requests", requests as f64);
    stayed_below(&gateway, "names");
    assert_eq!(gateway.memory()["refusals"], 0);
    holds_nothing(&gateway);
}

#[test]
fn what_there_is_no_memory_for_says_so_and_known_connections_are_served() {
    let endless = server(Says::Endless);
    let plain = format!(
        "pools:\n  - {{name: chat, endpoints: [http://{endless}]}}\n  \
        - {{name: tight, endpoints: [http://{endless}], models: [tight], saturationSeconds: 0.0001}}\n"
    );
    let gateway = Gateway::plain(&plain, &["--memory-limit", "64MiB"]);
    let models = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut kept = BufReader::new(connect(gateway.address));
    let is_served = |kept: &mut BufReader<std::net::TcpStream>| {
        kept.get_mut().write_all(models).unwrap();
        assert_eq!(read_answer(kept).unwrap().status, 200);
    };
    is_served(&mut kept);
    let on_tight = request(CHAT, &chat("tight", "hello", 100, true), &[]);
    let mut held = vec![CROWD.block_on(sent(gateway.address, &on_tight)).unwrap()];
    wait_until(|| gateway.metric("penstock_endpoint_in_flight") == 1.0);
    let body = chat("llama", "hello", 100, true);
    held.extend(until_refused(&gateway, request(CHAT, &body, &[]), 1));
    for path in [CHAT, "/v1/messages"] {
        let answer = post(gateway.address, path, &body);
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.field("retry-after"), Some("1"));
        assert_eq!(answer.field("x-penstock-phase"), Some("request"));
        assert_eq!(answer.field("connection"), Some("close"));
        assert!(
            answer.body.contains("as much memory as it may"),
            "{answer:?}"
        );
    }
    // A connection that was there before is served: it needs nothing more. But nobody waits.
    is_served(&mut kept);
    kept.get_mut().write_all(on_tight.as_bytes()).unwrap();
    let answer = read_answer(&mut kept).unwrap();
    assert_eq!(
        answer.field("x-penstock-phase"),
        Some("queue"),
        "{answer:?}"
    );
    assert!(answer.body.contains("\"memory\""), "{answer:?}");
    drop((held, kept));
    holds_nothing(&gateway);
    assert_eq!(get(gateway.address, "/v1/models").unwrap().status, 200);
}
