//! What goes to standard error beside the access log: events, and where a panic was.
//!
//! Always: nothing that clients or servers say to each other. Crates of others know no such rule
//! (HTTP/2's prints whole paths and what servers say at the end of a connection), so whatever filter
//! the user gives, only the events of crates listed here are written. A panic's words may quote what
//! it was about; its place never does.

use std::io::Write;
use std::panic::PanicHookInfo;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Crates whose events are written if the filter asks for them, and their lowest level.
const HEARD: [(&str, LevelFilter); 14] = [
    // Ours.
    ("config", LevelFilter::TRACE),
    ("control", LevelFilter::TRACE),
    ("http1", LevelFilter::TRACE),
    ("llm", LevelFilter::TRACE),
    ("mock", LevelFilter::TRACE),
    ("penstock", LevelFilter::TRACE),
    ("picker", LevelFilter::TRACE),
    ("proxy", LevelFilter::TRACE),
    ("sim", LevelFilter::TRACE),
    // Connections to the cluster. What it answers is in the warnings of the last one, Secrets too.
    ("hyper_rustls", LevelFilter::WARN),
    ("hyper_util", LevelFilter::WARN),
    ("rustls_platform_verifier", LevelFilter::WARN),
    ("kube_runtime", LevelFilter::WARN),
    ("kube_client", LevelFilter::ERROR),
];

/// Events that `filter` lets through go to standard error from now on, and of panics their place.
pub(crate) fn begin(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .finish()
        .with(FilterFn::new(|event| {
            is_heard(event.target(), *event.level())
        }))
        .init();
    std::panic::set_hook(Box::new(panicked));
}

fn is_heard(target: &str, level: tracing::Level) -> bool {
    let name = target.split("::").next().unwrap_or(target);
    let of = HEARD.iter().find(|(known, _)| *known == name);
    of.is_some_and(|(_, lowest)| level <= *lowest)
}

/// Says which thread panicked, and where. Whoever catches it counts it.
fn panicked(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = info.location().map(ToString::to_string);
    let place = place.as_deref().unwrap_or("an unknown place");
    // A panic here would end the process: where nobody listens, nothing is said.
    let _ = writeln!(
        std::io::stderr(),
        "penstock: thread {name} panicked at {place} (its words are kept back: they may quote a request)"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn crates_of_ours_are_all_heard_and_those_that_quote_are_not() {
        let crates = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        for entry in std::fs::read_dir(crates).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            // A tool that is no part of the product.
            if name != "bench" {
                assert!(is_heard(&format!("{name}::part"), Level::TRACE), "{name}");
            }
        }
        for name in ["h2::server", "h2", "hyper::proto", "rustls::server", "log"] {
            assert!(!is_heard(name, Level::ERROR), "{name}");
        }
        assert!(is_heard("kube_runtime::watcher", Level::WARN));
        assert!(!is_heard("kube_client::client", Level::WARN));
        assert!(!is_heard("proxy2", Level::ERROR));
    }

    const CANARY: &str = "c4n4ry";

    /// Panics as a slip in the data path would: with text of a request in its words.
    #[test]
    #[ignore = "started by the test below, in a process of its own"]
    fn panics_in_a_thread() {
        begin("trace");
        let text = format!("é{CANARY}");
        let slipped = std::thread::Builder::new().name("worker-7".to_owned());
        let slipped = slipped.spawn(move || text[1..].len()).unwrap();
        assert!(slipped.join().is_err());
    }

    #[test]
    fn a_panic_says_where_it_was_and_quotes_nothing() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--nocapture", "--exact"])
            .arg("logging::tests::panics_in_a_thread")
            .env("RUST_BACKTRACE", "1")
            .output()
            .unwrap();
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{told}");
        assert!(told.contains("1 passed"), "{told}");
        let place = "thread worker-7 panicked at crates/penstock/src/logging.rs:";
        assert!(told.contains(place), "{told}");
        assert!(!told.contains(CANARY), "{told}");
    }
}
