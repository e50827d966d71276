//! What `penstock run` says once it serves: address, models, a line to paste, and what comes next.

use super::source::{Origin, Source};
use config::Snapshot;
use proxy::Applied;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Prints to standard error: standard output may be the access log.
pub(crate) fn print(source: &Source, snapshot: &Snapshot, applied: &Applied, admin: SocketAddr) {
    let text = text(source, &source.models(snapshot), applied, admin);
    // A closed terminal is no reason to stop serving.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn text(source: &Source, models: &[String], applied: &Applied, admin: SocketAddr) -> String {
    let served = applied
        .binds
        .iter()
        .filter_map(|bound| bound.result.as_ref().ok());
    let addresses: Vec<SocketAddr> = served.map(|address| reachable(*address)).collect();
    let mut lines = where_from(source.origin());
    lines.push(String::new());
    let address = |address| format!("Address:  http://{address}/v1");
    lines.extend(addresses.iter().map(address));
    if addresses.is_empty() {
        lines.push("Address:  none, no listener is served; `penstock check` tells why".to_owned());
    }
    if !models.is_empty() {
        lines.push(format!("Models:   {}", models.join(", ")));
    }
    lines.push(format!("Metrics:  http://{}/metrics", reachable(admin)));
    if let Some(address) = addresses.first() {
        let model = models.first().map_or("MODEL", String::as_str);
        lines.extend(to_try(*address, model));
    }
    lines.extend(what_next(source.origin(), admin));
    lines.push(String::new());
    lines.join("\n")
}

fn where_from(origin: &Origin) -> Vec<String> {
    match origin {
        Origin::Files => vec!["Serving the configuration in the given files.".to_owned()],
        Origin::Controller => vec!["Serving what the controller says.".to_owned()],
        Origin::Endpoints => vec!["Serving the given endpoints.".to_owned()],
        Origin::Found(found) => {
            let mut lines = vec!["Found model servers on this machine:".to_owned()];
            lines.extend(found.iter().map(|one| match one.usual {
                Some(usual) => format!("  http://{} (the usual port of {usual})", one.address),
                None => format!("  http://{}", one.address),
            }));
            lines
        }
        Origin::Simulated(servers) => {
            let mut lines = vec![
                "No model server answered on this machine's usual ports,".to_owned(),
                "so two SIMULATED servers were started. They answer with made-up words:".to_owned(),
            ];
            lines.extend(servers.iter().map(|address| format!("  http://{address}")));
            lines
        }
    }
}

fn to_try(address: SocketAddr, model: &str) -> Vec<String> {
    let body = format!(
        r#"{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"hello"}}]}}"#
    );
    vec![
        String::new(),
        "Try:".to_owned(),
        format!("  curl -N http://{address}/v1/chat/completions \\"),
        format!("    -H 'content-type: application/json' -d '{body}'"),
        format!("  export OPENAI_BASE_URL=http://{address}/v1 OPENAI_API_KEY=none"),
    ]
}

fn what_next(origin: &Origin, admin: SocketAddr) -> Vec<String> {
    let flag = if admin.port() == 4001 {
        String::new()
    } else {
        format!(" --admin http://{}", reachable(admin))
    };
    let mut lines = vec![
        "Next:".to_owned(),
        format!("  penstock why last{flag}   # why the last request went where it went"),
    ];
    if matches!(origin, Origin::Simulated(_)) {
        let own = "  penstock run --endpoint http://HOST:PORT   # your own model servers";
        lines.push(own.to_owned());
    }
    lines
}

/// An address that can be pasted: a wildcard becomes loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}
