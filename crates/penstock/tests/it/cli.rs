//! The commands as people meet them: help, checks, wrong arguments, and `run` with nothing at all.

use crate::gateway::{Running, connect, free_address, mock, penstock, read_answer, request};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Exit code, standard output, standard error.
fn outcome(args: &[&str]) -> (i32, String, String) {
    let out = penstock(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        out.status.code().unwrap(),
        text(&out.stdout),
        text(&out.stderr),
    )
}

#[test]
fn every_command_has_help_with_examples() {
    let (code, help, _) = outcome(&["--help"]);
    assert_eq!(code, 0);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    for expected in ["run", "mock", "check", "export", "why", "completions"] {
        assert!(commands.contains(&expected), "{expected} is not in {help}");
    }
    for command in commands {
        let (code, help, _) = outcome(&[command, "--help"]);
        assert_eq!(code, 0, "{command}");
        let example = format!("\n  penstock {command}");
        assert!(
            help.contains("Example") && help.contains(&example),
            "{command}: {help}"
        );
    }
}

#[test]
fn the_help_of_mock_lists_its_faults() {
    let (_, help, _) = outcome(&["mock", "--help"]);
    for fault in ["hang", "slow-head (ms)", "reset (after)", "metrics-frozen"] {
        assert!(
            help.contains(&format!("\n  {fault} ")),
            "{fault} is not in {help}"
        );
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script, _) = outcome(&["completions", shell]);
        assert_eq!(code, 0, "{shell}");
        assert!(
            script.contains("penstock") && script.contains("endpoint"),
            "{shell}"
        );
    }
}

#[test]
fn wrong_arguments_end_with_2_and_say_what_to_write() {
    for (args, words) in [
        (
            &["run", "--endpoint", "10.0.0.1:8000"][..],
            "write it as http://HOST:PORT",
        ),
        (
            &["run", "--endpoint", "ftp://10.0.0.1"],
            "the url must start with http:// or https://",
        ),
        (
            &["run", "--endpoint", "http://10.0.0.1:0"],
            "the port must be 1 to 65535",
        ),
        (
            &["run", "--endpoint", "http://10.0.0.1/v1"],
            "without path or user",
        ),
        (
            &["run", "--endpoint", "http://a:1", "file.yaml"],
            "cannot be used with",
        ),
        (
            &["run", "/nowhere/at/all.yaml"],
            "/nowhere/at/all.yaml: no such file or directory",
        ),
        (
            &["run", "--watch-interval", "soon", "a.yaml"],
            "500ms, 2s or 1m",
        ),
        (&["check"], "FILE or DIR"),
        (
            &["export", "--endpoint", "nonsense"],
            "write it as http://HOST:PORT",
        ),
        (&["mock", "--fault", "gremlins"], "gremlins"),
        (&["rum"], "run"),
        (&[], "Usage"),
    ] {
        let mut all = args.to_vec();
        if args.first() == Some(&"run") {
            all.extend(["--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
        }
        let (code, _, error) = outcome(&all);
        assert_eq!(code, 2, "{args:?}: {error}");
        assert!(error.contains(words), "{args:?}: {error}");
    }
}

/// `check` of one file with this text.
fn check(text: &str, flags: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.yaml");
    std::fs::write(&file, text).unwrap();
    let mut args = vec!["check", file.to_str().unwrap()];
    args.extend(flags);
    let (code, out, _) = outcome(&args);
    (code, out)
}

const PLAIN: &str =
    "listen: 127.0.0.1:4000\npools:\n  - name: chat\n    endpoints: [http://10.0.0.1:8000]\n";
const LOST: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: lost}
spec:
  parentRefs: [{name: penstock}]
  rules:
  - backendRefs: [{name: gone, port: 80}]
";

#[test]
fn check_names_places_and_what_was_meant() {
    let (code, out) = check(PLAIN, &[]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("0 errors, 0 problems"), "{out}");

    let (code, out) = check(&PLAIN.replace("endpoints", "endpoint"), &[]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("gateway.yaml:4:5: "), "{out}");
    assert!(out.contains("did you mean `endpoints`?"), "{out}");

    let (code, out) = check(&format!("{PLAIN}---{LOST}"), &[]);
    assert_eq!(code, 2, "{out}");
    assert!(out.contains("gateway.yaml:12:"), "{out}");
    assert!(
        out.contains("ResolvedRefs=False (BackendNotFound)"),
        "{out}"
    );

    let (code, out) = check(&format!("{PLAIN}---{LOST}"), &["--output", "json"]);
    assert_eq!(code, 2, "{out}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["refused"].as_array().unwrap().len(), 0);
    let problem = &report["problems"][0];
    assert!(
        problem["place"]
            .as_str()
            .unwrap()
            .contains("gateway.yaml:12:"),
        "{problem}"
    );
    assert_eq!(
        problem["condition"]["reason"], "BackendNotFound",
        "{problem}"
    );
    assert!(report["statuses"].as_array().unwrap().len() > 1);

    let (code, out) = check("pools: [{name: a, endpoint: []}]", &["--output", "json"]);
    assert_eq!(code, 2, "{out}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let refused = &report["refused"][0];
    assert_eq!(
        (&refused["line"], &refused["suggestion"]),
        (&1.into(), &"endpoints".into())
    );
}

/// `penstock run` that looks for servers on one port only.
struct Bare {
    _process: Running,
    address: SocketAddr,
    banner: String,
}

impl Bare {
    fn run(port: u16, listen: SocketAddr) -> Self {
        let (address, admin) = (listen.to_string(), free_address().to_string());
        let mut child = penstock(&["run", "--listen", &address, "--admin", &admin])
            .args(["--discover", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let process = Running(child);
        let mut banner = String::new();
        let last = |banner: &str| match banner.contains("SIMULATED") {
            true => banner.contains("penstock run --endpoint"),
            false => banner.contains("penstock why last"),
        };
        while !last(&banner) {
            assert!(lines.read_line(&mut banner).unwrap() > 0, "{banner}");
        }
        // Read on, so that later lines have somewhere to go.
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        Self {
            _process: process,
            address: listen,
            banner,
        }
    }

    /// Asks as the banner says; returns when the first event has come.
    fn first_event(&self) -> String {
        let body = self.banner.lines().find_map(|line| line.split_once("-d '"));
        let body = body.unwrap().1.trim_end_matches('\'');
        let mut stream = connect(self.address);
        stream
            .write_all(request("/v1/chat/completions", body, &[]).as_bytes())
            .unwrap();
        let mut lines = BufReader::new(stream).lines();
        let event = lines.find_map(|line| line.unwrap().strip_prefix("data: ").map(str::to_owned));
        event.unwrap()
    }
}

#[test]
fn run_with_nothing_simulates_servers_and_says_so() {
    let started = Instant::now();
    let gateway = Bare::run(free_address().port(), free_address());
    let event = gateway.first_event();
    let took = started.elapsed();
    assert!(event.contains("chat.completion.chunk"), "{event}");
    // Two seconds are promised; a busy machine that builds may take ten times as long.
    assert!(took < Duration::from_secs(20), "{took:?}");
    let banner = &gateway.banner;
    for words in [
        "SIMULATED",
        &format!("Address:  http://{}/v1", gateway.address),
        "Models:   sim-8b",
        "/metrics",
        "curl -N",
        "OPENAI_BASE_URL",
        "penstock run --endpoint",
    ] {
        assert!(banner.contains(words), "{words} is not in {banner}");
    }
}

#[test]
fn run_with_nothing_takes_a_server_that_is_there() {
    let (_server, server) = mock(&["--model", "llama"]);
    let gateway = Bare::run(server.port(), free_address());
    let banner = &gateway.banner;
    assert!(
        banner.contains("Found model servers on this machine"),
        "{banner}"
    );
    assert!(banner.contains(&format!("http://{server}")), "{banner}");
    assert!(!banner.contains("SIMULATED"), "{banner}");
    let mut stream = connect(gateway.address);
    let body = r#"{"model":"llama","max_tokens":2,"messages":[{"role":"user","content":"hi"}]}"#;
    let asked = request("/v1/chat/completions", body, &[]);
    stream.write_all(asked.as_bytes()).unwrap();
    assert_eq!(
        read_answer(&mut BufReader::new(stream)).unwrap().status,
        200
    );
}

#[test]
fn neither_itself_nor_another_gateway_is_taken_for_a_model_server() {
    let listen = free_address();
    let first = Bare::run(listen.port(), listen);
    assert!(first.banner.contains("SIMULATED"), "{}", first.banner);
    let second = Bare::run(listen.port(), free_address());
    assert!(second.banner.contains("SIMULATED"), "{}", second.banner);
}
