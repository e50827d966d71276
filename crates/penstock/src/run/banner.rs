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
    let mut out = String::new();
    let mut say = |line: &str| {
        out.push_str(line);
        out.push('\n');
    };
    match source.origin() {
        Origin::Files => say("Serving the configuration in the given files."),
        Origin::Endpoints => say("Serving the given endpoints."),
        Origin::Found(found) => {
            say("Found model servers on this machine:");
            for one in found {
                say(&format!(
                    "  http://{} (the usual port of {})",
                    one.address, one.usual
                ));
            }
        }
        Origin::Simulated(servers) => {
            say("No model server answered on this machine's usual ports,");
            say("so two SIMULATED servers were started. They answer with made-up words:");
            for address in servers {
                say(&format!("  http://{address}"));
            }
        }
    }
    let addresses: Vec<SocketAddr> = applied
        .binds
        .iter()
        .filter_map(|bound| bound.result.as_ref().ok())
        .map(|a| reachable(*a))
        .collect();
    say("");
    for address in &addresses {
        say(&format!("Address:  http://{address}/v1"));
    }
    if !models.is_empty() {
        say(&format!("Models:   {}", models.join(", ")));
    }
    say(&format!("Metrics:  http://{}/metrics", reachable(admin)));
    if let Some(address) = addresses.first() {
        let model = models.first().map_or("MODEL", String::as_str);
        say("");
        say("Try:");
        say(&format!(
            "  curl -N http://{address}/v1/chat/completions -H 'content-type: application/json' \\"
        ));
        say(&format!(
            "    -d '{{\"model\":\"{model}\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"hello\"}}]}}'"
        ));
        say(&format!(
            "  export OPENAI_BASE_URL=http://{address}/v1 OPENAI_API_KEY=none"
        ));
    }
    say("Next:");
    let admin_flag = if admin.port() == 4001 {
        String::new()
    } else {
        format!(" --admin http://{}", reachable(admin))
    };
    say(&format!(
        "  penstock why last{admin_flag}        why the last request went where it went"
    ));
    if matches!(source.origin(), Origin::Simulated(_)) {
        say("  penstock run --endpoint http://HOST:PORT ...   your own model servers");
    }
    out
}

/// An address that can be pasted: a wildcard becomes loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}
