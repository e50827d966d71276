//! Where requests go: even shares, lying metrics, prefixes, adapters.

use crate::gateway::{Gateway, post, wait_until};
use crate::servers::{CHAT, Open, Server, chat, sent};
use std::net::TcpStream;

/// Opens `count` long streams at once, each with its own short prompt.
fn burst(gateway: &Gateway, count: usize) -> Vec<TcpStream> {
    let open = |number| {
        let body = chat("llama", &format!("burst number {number}"), 400, true);
        sent(gateway.address, &body)
    };
    (0..count).map(open).collect()
}

fn shares<const N: usize>(servers: &[Server; N]) -> [usize; N] {
    servers.each_ref().map(Server::count)
}

#[track_caller]
fn even<const N: usize>(servers: &[Server; N], total: usize) {
    wait_until(|| shares(servers).iter().sum::<usize>() == total);
    let shares = shares(servers);
    let spread = shares.iter().max().unwrap() - shares.iter().min().unwrap();
    assert!(spread <= 1, "{shares:?}");
}

#[test]
fn a_burst_is_shared_evenly() {
    let servers: [Server; 4] = Server::llamas();
    let gateway = Gateway::over(&servers.each_ref());
    gateway.knows(&["llama"]);
    for server in &servers {
        server.slow(100.0);
    }
    let open = burst(&gateway, 200);
    even(&servers, 200);
    drop(open);
    gateway.is_quiet();
}

#[test]
fn a_burst_of_like_prompts_is_shared_evenly() {
    let servers: [Server; 3] = Server::llamas();
    let gateway = Gateway::over(&servers.each_ref());
    for server in &servers {
        server.slow(100.0);
    }
    let body = chat("llama", "all alike", 400, true);
    let open: Vec<TcpStream> = (0..60).map(|_| sent(gateway.address, &body)).collect();
    even(&servers, 60);
    drop(open);
}

/// Requests that each server has from elsewhere.
const OTHERS: usize = 15;

#[test]
fn a_server_whose_metrics_lie_attracts_no_more_than_its_share() {
    std::thread::scope(|scope| {
        for fault in [
            "metrics-missing",
            "metrics-renamed",
            "metrics-frozen",
            "metrics-zeroed",
            "metrics-hang",
        ] {
            scope.spawn(move || check_share(fault));
        }
    });
}

fn check_share(fault: &str) {
    let servers: [Server; 2] = Server::llamas();
    servers[0].fault(fault);
    let gateway = Gateway::over(&servers.each_ref());
    let mut open = Vec::new();
    for server in &servers {
        server.slow(40.0);
        // Load that does not come through the gateway: only metrics tell of it.
        for number in 0..OTHERS {
            let body = chat("llama", &format!("of others {number}"), 400, true);
            open.push(sent(server.address, &body));
        }
        wait_until(|| server.running() == OTHERS);
    }
    // Waves, so that scrapes come between them.
    for wave in 0..4 {
        open.extend(burst(&gateway, 10));
        let total = (wave + 1) * 10 + 2 * OTHERS;
        wait_until(|| shares(&servers).iter().sum::<usize>() == total);
        let scrapes = scraped(&servers[1]);
        wait_until(|| scraped(&servers[1]) > scrapes);
    }
    let shares = shares(&servers).map(|all| all - OTHERS);
    // Both are equally fast: half, and until the lie is seen at most as many more as make up for
    // the others that it hides. A page that froze while others waited keeps requests away, which
    // is the safe side.
    let least = if fault == "metrics-frozen" { 0 } else { 10 };
    let most = 20 + OTHERS.div_ceil(2);
    assert!((least..=most).contains(&shares[0]), "{fault}: {shares:?}");
    drop(open);
    gateway.is_quiet();
}

/// How often the gateway has looked at the metrics.
fn scraped(server: &Server) -> usize {
    let body = crate::gateway::get(server.address, "/mock/requests")
        .unwrap()
        .body;
    body.matches("\"/metrics\"").count()
}

#[test]
fn a_long_prefix_goes_where_it_is_held() {
    let servers: [Server; 3] = Server::llamas();
    let gateway = Gateway::over(&servers.each_ref());
    gateway.knows(&["llama"]);
    let mut homes = Vec::new();
    for subject in ["alpha", "beta", "gamma", "delta"] {
        let prefix = format!("all about {subject} and more ").repeat(400);
        let mut seen = Vec::new();
        for question in 0..5 {
            let body = chat(
                "llama",
                &format!("{prefix} question {question}"),
                2,
                question % 2 == 0,
            );
            let answer = post(gateway.address, CHAT, &body);
            assert_eq!(answer.status, 200);
            seen.push(answer.field("x-penstock-endpoint").unwrap().to_owned());
        }
        assert!(
            seen.iter().all(|one| *one == seen[0]),
            "{subject}: {seen:?}"
        );
        homes.push(seen[0].clone());
    }
    homes.sort();
    homes.dedup();
    assert!(homes.len() >= 2, "all at one server: {homes:?}");
}

#[test]
fn a_request_for_an_adapter_goes_where_the_adapter_is() {
    let with_a = Server::start(&["--model", "llama", "--adapter", "lora-a"]);
    let with_b = Server::start(&["--model", "llama", "--adapter", "lora-b"]);
    let gateway = Gateway::over(&[&with_a, &with_b]);
    gateway.knows(&["lora-a", "lora-b"]);
    // The other server is the idler one, and yet not asked.
    with_a.slow(8.0);
    let open: Vec<Open> = (0..3)
        .map(|number| {
            Open::post(
                gateway.address,
                &chat("lora-a", &format!("hold {number}"), 300, true),
            )
        })
        .collect();
    for number in 0..6 {
        let answer = post(
            gateway.address,
            CHAT,
            &chat("lora-b", &format!("b {number}"), 1, false),
        );
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let named = |server: &Server, name: &str| {
        let received = server.received();
        received
            .iter()
            .filter(|one| one.model.as_deref() == Some(name))
            .count()
    };
    assert_eq!((named(&with_a, "lora-a"), named(&with_a, "lora-b")), (3, 0));
    assert_eq!((named(&with_b, "lora-a"), named(&with_b, "lora-b")), (0, 6));
    drop(open);
    gateway.is_quiet();
}
