//! Who is connected to: members of the chosen pool, endpoints of the chosen Service and pickers that
//! the configuration names, whatever clients and pickers say. The system tells (strace).

use crate::configured::{Configured, GATEWAY, pool, route, service, to_pool};
use crate::external::epp;
use crate::gateway::{connect, free_address, read_answer, wait_until};
use crate::over2::Http2;
use crate::picker::{By, Kept, Picker, Play};
use http::Request;
use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;

/// Fields by which a client could mean to say where its request goes.
const STEERING: &[&str] = &[
    "x-gateway-destination-endpoint",
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-served",
    "x-prefiller-host-port",
    "x-prefiller-url",
    "x-data-parallel-host-port",
    "x-envoy-original-dst-host",
    "x-forwarded-host",
    "x-forwarded-server",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "x-host",
    "forwarded",
    "alt-svc",
    "referer",
    "via",
];

/// Without the tracer nothing is shown, which a run of all checks must not take for a pass.
fn is_traceable() -> bool {
    let found = Command::new("strace").arg("--version").output();
    let is_there = found.is_ok_and(|found| found.status.success());
    assert!(
        is_there || std::env::var_os("CI").is_none(),
        "strace is not installed (Debian package strace, see .ci/tools)"
    );
    if !is_there {
        eprintln!("nothing shown: strace is not installed");
    }
    is_there
}

/// The same under a tracer that ends with it: the process is the child, its tracer a grandchild.
fn traced(command: &Command, into: &Path) -> Command {
    let mut traced = Command::new("strace");
    let options = ["-D", "-f", "-qq", "-e", "trace=connect", "-o"];
    traced.args(options).arg(into).arg("--");
    traced.arg(command.get_program()).args(command.get_args());
    traced.stdin(Stdio::null());
    traced
}

/// Whom a traced process connected to.
fn dialled(trace: &str) -> BTreeSet<SocketAddr> {
    let between = |line: &str, before: &str, after: &str| {
        let (_, rest) = line.split_once(before)?;
        Some(rest.split_once(after)?.0.to_owned())
    };
    let one = |line: &str| {
        let port = between(line, "_port=htons(", ")")?.parse::<u16>().ok()?;
        let ip = between(line, "inet_addr(\"", "\"").or(between(line, "AF_INET6, \"", "\""))?;
        Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port))
    };
    let calls = trace.lines().filter(|line| line.contains("connect("));
    let told = |line| {
        let found = one(line);
        assert!(found.is_some(), "a connection of another kind: {line}");
        found.unwrap()
    };
    calls.map(told).collect()
}

/// Two pools with a picker of which one may fail open, one without, a Service; and whoever is not
/// to be connected to.
struct Bed {
    picker: Picker,
    open: Kept,
    closed: Kept,
    /// Nobody is there.
    dead: SocketAddr,
    own: Kept,
    web: Kept,
    outside: Kept,
    gateway: Configured,
}

impl Bed {
    fn start(trace: &Path) -> Self {
        let picker = Picker::start(Play::Nothing);
        let [open, closed, own, web] = ["open", "closed", "own", "web"].map(Kept::start);
        let dead = free_address();
        let reference = |mode: &str| {
            format!(", endpointPickerRef: {{name: epp, port: {{number: 9002}}{mode}}}")
        };
        let rule = |path: &str, to: &str| {
            let path = format!("{{path: {{type: PathPrefix, value: /{path}}}}}");
            format!("{{matches: [{path}], backendRefs: [{to}]}}")
        };
        let rules = [
            rule("open", &to_pool("open")),
            rule("closed", &to_pool("closed")),
            rule("own", &to_pool("own")),
            rule("web", "{name: web, port: 80}"),
        ];
        let text = [
            GATEWAY.to_owned(),
            route("all", &format!("rules: [{}]", rules.join(", "))),
            pool(
                "open",
                &reference(", failureMode: FailOpen"),
                &[open.address],
            ),
            pool("closed", &reference(""), &[dead, closed.address]),
            pool("own", "", &[own.address]),
            service("web", &[web.address]),
            epp(&[picker.address], ", appProtocol: http2"),
        ];
        let gateway = Configured::start_by(&text.concat(), &[], |command| traced(&command, trace));
        Self {
            picker,
            open,
            closed,
            dead,
            own,
            web,
            outside: Kept::start("outside"),
            gateway,
        }
    }

    fn configured(&self) -> BTreeSet<SocketAddr> {
        let servers = [&self.open, &self.closed, &self.own, &self.web];
        let servers = servers.map(|server| server.address).into_iter();
        servers.chain([self.dead, self.picker.address]).collect()
    }

    /// The status and the body of an answer, if there is one.
    fn told(&self, text: &str) -> Option<(u16, String)> {
        let mut stream = connect(self.gateway.address);
        stream.write_all(text.as_bytes()).unwrap();
        let answer = read_answer(&mut BufReader::new(stream))?;
        Some((answer.status, answer.body))
    }

    /// All that a client can say of where to go.
    fn steers(&self, path: &str, to: &str, served: (u16, &str)) {
        let fields: String = STEERING
            .iter()
            .map(|name| format!("{name}: {to}\r\n"))
            .collect();
        let body = format!(r#"{{"model":"http://{to}/","base_url":"http://{to}/"}}"#);
        let (length, end) = (body.len(), "connection: close\r\n");
        let post = format!(
            "POST {path} HTTP/1.1\r\nhost: {to}\r\n{fields}content-length: {length}\r\n{end}\r\n{body}"
        );
        let served = Some((served.0, served.1.to_owned()));
        assert_eq!(self.told(&post), served, "{path} {to}");
        for (target, host) in [
            (format!("http://{to}{path}"), to),
            (format!("http://{to}{path}"), "test"),
            (format!("http://test@{to}{path}"), "test"),
            (format!("//{to}{path}"), "test"),
            (format!("{path}?url=http://{to}/"), to),
            (format!("{path}/@{to}/"), "test"),
        ] {
            self.told(&format!(
                "GET {target} HTTP/1.1\r\nhost: {host}\r\n{end}\r\n"
            ));
        }
        self.told(&format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n{end}\r\n"));
        let client = Http2::connect(self.gateway.address);
        let mut request = Request::post(format!("http://{to}{path}"));
        for name in STEERING {
            request = request.header(*name, to);
        }
        let begun = client.begin(request.body(()).unwrap(), body.as_bytes());
        let answer = begun.open().whole().unwrap();
        assert_eq!(Some((answer.status, answer.body)), served, "{path} {to}");
        let tunnel = Request::connect(to).body(()).unwrap();
        // However that ends.
        let _ = client.begin(tunnel, b"").answered();
    }

    /// What a picker says of where to go; who serves where the list names a member behind others.
    fn picks(&self, list: &str, by: By, by_member: bool) {
        self.picker.plays(Play::Pick(list.to_owned(), by));
        let before = self.picker.conversations();
        for (path, name) in [("/open", "open"), ("/closed", "closed")] {
            let text = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
            let (status, body) = self.told(&text).unwrap();
            if by_member || name == "open" {
                assert_eq!((status, body.as_str()), (200, name), "{list} {by:?}");
            } else {
                assert_eq!(status, 503, "{list} {by:?}: {body}");
                assert!(body.contains("picker_no_destination"), "{list}: {body}");
            }
        }
        assert_eq!(self.picker.conversations(), before + 2, "it was not asked");
    }
}

#[test]
fn nobody_outside_is_connected_to_whatever_clients_and_pickers_say() {
    if !is_traceable() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let bed = Bed::start(&trace);
    let outside = bed.outside.address;
    // An address that is nobody's (RFC 5737), and a member of another pool.
    for to in [outside, "192.0.2.1:80".parse().unwrap(), bed.closed.address] {
        let to = to.to_string();
        for (path, served) in [
            ("/open", (200, "open")),
            ("/own", (200, "own")),
            ("/web", (200, "web")),
        ] {
            bed.steers(path, &to, served);
        }
    }
    assert_eq!(
        bed.closed.requests.load(SeqCst),
        0,
        "a member of no chosen pool"
    );
    let (port, members) = (outside.port(), [&bed.open, &bed.closed]);
    let members = members.map(|one| one.address.to_string()).join(",");
    for by in [By::Both, By::Header, By::Metadata] {
        for (list, by_member) in [
            (outside.to_string(), false),
            ("192.0.2.1:80".to_owned(), false),
            (format!("localhost:{port}"), false),
            (format!("outside.example:{port}"), false),
            (format!("[::ffff:127.0.0.1]:{port}"), false),
            (format!("[::1]:{port}"), false),
            (format!("http://{outside}"), false),
            (bed.own.address.to_string(), false),
            (format!("{outside},{members}"), true),
            (format!("{},{outside},{members}", bed.dead), true),
            (format!("{members},{outside}"), true),
        ] {
            bed.picks(&list, by, by_member);
        }
    }
    assert_eq!(bed.outside.connections.load(SeqCst), 0);
    let of_others = bed.own.head.lock().unwrap().clone();
    assert!(
        of_others.contains(" /own"),
        "a pick of another pool's member: {of_others}"
    );
    bed.gateway.is_quiet();
    let (pid, configured) = (bed.gateway.process.0.id(), bed.configured());
    drop(bed);
    // The process that was killed was the gateway, and its tracer has told all.
    let told = || std::fs::read_to_string(&trace).unwrap();
    let is_end = |line: &str| {
        line.starts_with(&pid.to_string()) && line.ends_with("+++ killed by SIGKILL +++")
    };
    wait_until(|| told().lines().any(is_end));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(dialled(&told()), configured);
}
