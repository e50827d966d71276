//! What the machine may do: a full disk, files that go missing, no file descriptors left, time that
//! jumps. Each is named where people look, and survived.

use crate::certificates::{Authority, get as get_over, handshake};
use crate::crowd::{CROWD, Says, sent, server};
use crate::gateway::{
    Gateway, binary, connect, free_address, get, penstock, post, request, wait_until,
};
use crate::servers::{CHAT, Open, Server, chat, json};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A gateway whose words are kept, started by a shell that sets its limits first.
struct Heard {
    gateway: Gateway,
    folder: tempfile::TempDir,
}

impl Heard {
    fn run(limits: &str, args: &[&str]) -> Self {
        let (address, admin) = (free_address(), free_address());
        let folder = tempfile::tempdir().unwrap();
        let words = File::create(folder.path().join("stderr")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{limits} exec \"$0\" \"$@\"")]);
        command.arg(binary());
        command.args(["run", "--workers", "1"]);
        command.args(["--listen", &address.to_string()]);
        command.args(["--admin", &admin.to_string()]);
        command.args(["--watch-interval", "1ms"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(words);
        let gateway = Gateway::started(&mut command, address, admin);
        Self { gateway, folder }
    }

    fn before(server: std::net::SocketAddr, limits: &str, args: &[&str]) -> Self {
        let endpoint = format!("http://{server}");
        Self::run(limits, &[&["--endpoint", &endpoint], args].concat())
    }

    /// Waits until it has said so on standard error.
    #[track_caller]
    fn says(&self, words: &str) {
        let file = self.folder.path().join("stderr");
        wait_until(|| std::fs::read_to_string(&file).unwrap().contains(words));
    }

    fn refused(&self) -> String {
        let config = json(&get(self.gateway.admin, "/debug/config").unwrap().body);
        config["refused"].to_string()
    }
}

#[test]
fn a_full_disk_costs_lines_and_no_request() {
    let heard = Heard::before(server(Says::Little), "", &["--access-log", "/dev/full"]);
    for _ in 0..3 {
        let answer = post(
            heard.gateway.address,
            CHAT,
            &chat("llama", "hello", 3, false),
        );
        assert_eq!(answer.status, 200);
    }
    let dropped = || heard.gateway.metric("penstock_access_log_dropped_total");
    wait_until(|| dropped() == heard.gateway.metric("penstock_requests_total"));
    assert_eq!(dropped(), 3.0);
    heard.says("the access log cannot be written, its lines are dropped: No space left on device");
    // Decisions are read from memory; where they cannot be saved, the command says so.
    let admin = format!("http://{}", heard.gateway.admin);
    let saved = penstock(&["why", "--save", "/dev/full", "--admin", &admin])
        .output()
        .unwrap();
    assert_eq!(saved.status.code(), Some(1));
    let words = String::from_utf8_lossy(&saved.stderr).into_owned();
    assert!(
        words.contains("cannot write /dev/full: No space left"),
        "{words}"
    );
}

#[test]
fn files_that_go_missing_are_named_and_the_last_good_ones_serve() {
    let authority = Authority::new();
    let certificate = authority.sign(&["test.example"]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("cert.pem"), &certificate.chain).unwrap();
    std::fs::write(path("key.pem"), &certificate.key).unwrap();
    let listen = free_address();
    let endpoint = server(Says::Little);
    let text = format!(
        "listen: {listen}\ntls: {{certificate: cert.pem, key: key.pem}}\n\
        pools: [{{name: chat, endpoints: [http://{endpoint}]}}]\n"
    );
    let file = path("gateway.yaml");
    std::fs::write(&file, &text).unwrap();
    let heard = Heard::run("", &[file.to_str().unwrap()]);
    let client = authority.client("", None);
    let serves = || {
        let answer = CROWD.block_on(async {
            let mut stream = handshake(client.clone(), listen, "test.example")
                .await
                .unwrap();
            get_over(&mut stream, "test.example", "/v1/models").await
        });
        assert_eq!(answer.unwrap().status, 200);
    };
    serves();
    for missing in ["cert.pem", "gateway.yaml"] {
        let (here, away) = (path(missing), path("away"));
        std::fs::rename(&here, &away).unwrap();
        wait_until(|| heard.refused().contains(missing));
        heard.says(&named(&here));
        serves();
        std::fs::rename(&away, &here).unwrap();
        wait_until(|| heard.refused() == "[]");
        serves();
    }
}

/// How a file is named in a refusal.
fn named(path: &Path) -> String {
    let refused = "an edit is refused, the last good configuration stays: ";
    format!("{refused}{}", path.display())
}

#[test]
fn without_file_descriptors_it_says_so_and_serves_on() {
    let endless = server(Says::Events(100_000, Duration::from_millis(20)));
    let heard = Heard::before(endless, "ulimit -n 80;", &[]);
    let gateway = &heard.gateway;
    let asked = request(CHAT, &chat("llama", "hello", 100, true), &[]);
    let mut held = Open::read({
        let mut stream = connect(gateway.address);
        stream.write_all(asked.as_bytes()).unwrap();
        stream
    });
    assert!(held.chunk().is_some());
    // More connections than it can have: it takes as many as it can and says why not more.
    let crowd: Vec<_> = (0..120)
        .map(|_| CROWD.block_on(sent(gateway.address, "GET / HTTP/1.1\r\nhost: a\r\n")))
        .collect();
    heard.says("Too many open files");
    for _ in 0..20 {
        assert!(held.chunk().is_some(), "a stream that was there goes on");
    }
    drop(crowd);
    wait_until(|| get(gateway.admin, "/readyz").is_some_and(|answer| answer.status == 200));
    wait_until(|| {
        let answer = get(gateway.address, "/v1/models");
        answer.is_some_and(|answer| answer.status == 200)
    });
    assert!(held.chunk().is_some());
    wait_until(|| gateway.metric("penstock_connections_open") <= 2.0);
    assert_eq!(gateway.metric("penstock_panics_total"), 0.0);
}

#[test]
fn time_that_jumps_ends_nothing() {
    let mock = Server::llama();
    let gateway = Gateway::over(&[&mock]);
    gateway.knows(&["llama"]);
    let slow = server(Says::Events(60, Duration::from_millis(50)));
    let other = Gateway::before(&[slow]);
    let asked = request(CHAT, &chat("llama", "hello", 100, true), &[]);
    let mut stream = connect(other.address);
    stream.write_all(asked.as_bytes()).unwrap();
    let mut held = Open::read(stream);
    assert!(held.chunk().is_some());
    let warm = || post(gateway.address, CHAT, &chat("llama", "hello", 3, true));
    assert_eq!(warm().status, 200);
    // Both stand still, as on a machine that is suspended; when they go on, seconds have passed
    // that nobody saw: reports are old, kept connections were closed, deadlines are due.
    let all = [&gateway, &other];
    all.iter().for_each(|one| one.signal("-STOP"));
    std::thread::sleep(Duration::from_millis(2_500));
    all.iter().for_each(|one| one.signal("-CONT"));
    assert_eq!(warm().status, 200);
    let rest = held.rest();
    assert!(rest.contains("data: [DONE]"), "{rest}");
    gateway.is_quiet();
    let healthy = gateway.metric("penstock_endpoint_healthy");
    assert_eq!(healthy, 1.0);
}

/// A library that lies to one process about the wall clock (Debian: faketime), if this machine has it.
fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists())
}

#[test]
fn a_clock_that_is_set_ends_nothing() {
    let Some(library) = faketime() else {
        // `.ci/tools` installs it: only elsewhere may this be left out, and says so.
        let must_be_there = std::env::var_os("CI").is_some();
        assert!(!must_be_there, "faketime is not installed");
        eprintln!("skipped: faketime is not installed");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let set = |offset: &str| std::fs::write(path("clock"), offset).unwrap();
    set("+0d");
    let (listen, endpoint) = (
        free_address(),
        server(Says::Events(120, Duration::from_millis(50))),
    );
    let text =
        format!("listen: {listen}\npools: [{{name: chat, endpoints: [http://{endpoint}]}}]\n");
    let edit = |text: &str| {
        std::fs::write(path("part"), text).unwrap();
        std::fs::rename(path("part"), path("gateway.yaml")).unwrap();
    };
    edit(&text);
    let lies = format!(
        "export LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1;",
        library.display(),
        path("clock").display()
    );
    let heard = Heard::run(&lies, &[path("gateway.yaml").to_str().unwrap()]);
    let asked = request(CHAT, &chat("llama", "hello", 200, true), &[]);
    let mut stream = connect(listen);
    stream.write_all(asked.as_bytes()).unwrap();
    let mut held = Open::read(stream);
    // Ten years on, then ten back; the next line of the log shows that the process sees it.
    for (offset, year) in [("+3652d", 10), ("-3652d", -10)] {
        set(offset);
        assert!(held.chunk().is_some());
        edit("listen: nowhere\n");
        wait_until(|| heard.refused().contains("nowhere"));
        heard.says(&format!("{}-", this_year() + year));
        edit(&text);
        wait_until(|| heard.refused() == "[]");
        let answer = get(listen, "/v1/models").unwrap();
        assert_eq!(answer.status, 200);
    }
    let rest = held.rest();
    assert!(rest.contains("data: [DONE]"), "{rest}");
    assert_eq!(heard.gateway.metric("penstock_endpoint_healthy"), 1.0);
    assert_eq!(heard.gateway.metric("penstock_panics_total"), 0.0);
}

fn this_year() -> i64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    1970 + (since.as_secs_f64() / (365.2425 * 86_400.0)) as i64
}

/// Wall time is for people alone: nothing that decides reads it, so a clock that is set changes
/// nothing. Certificates are the exception, by their nature.
#[test]
fn nothing_that_decides_reads_the_wall_clock() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../proxy/src");
    let mut reading = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let wall = ["Timestamp::now", "SystemTime::now", "Zoned::now"];
            if wall.iter().any(|word| text.contains(word)) {
                reading.push(path.file_name().unwrap().to_owned());
            }
        }
    }
    assert_eq!(
        reading,
        ["clock.rs"],
        "it reads the wall clock once, at its start"
    );
}
