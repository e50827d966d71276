//! Configuration of what is in use changes under load: how servers and pickers are spoken to, the
//! certificate of a listener, filters, weights, limits of a route, the policy of a pool. What is
//! under way completes, what comes follows the new version, and nothing is in between.

use crate::certificates::{Authority, Certificate, Tls, get, handshake, is, shown};
use crate::configured::{Configured, pool, service};
use crate::external::{epp, patience};
use crate::gateway::{Ends, connect, read_answer, wait_until};
use crate::measures::{measured, promised};
use crate::over2::soon;
use crate::picker::{By, Picker, Play, begins_tls};
use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

/// The last chunks of a long answer. A head may end like the last of them.
const END: &str = "3\r\nend\r\n0\r\n\r\n";
/// Until a server answers `/late`.
const LATE: Duration = Duration::from_millis(500);

/// A server of HTTP/1.1, over TLS or in the clear as each connection begins, that tells with each
/// answer its name, how it was spoken to, and the field `x-mark` of the request.
fn server(name: &'static str, acceptor: TlsAcceptor, streams: &'static AtomicBool) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let accept = async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::task::spawn_local(async move {
                if !begins_tls(&stream).await {
                    return talk(stream, name, "clear", streams).await;
                }
                let stream = acceptor.accept(stream).await?;
                let by = stream.get_ref().1.server_name().unwrap_or("tls").to_owned();
                talk(stream, name, &by, streams).await
            });
        }
    };
    std::thread::spawn(move || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, accept);
    });
    address
}

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    name: &str,
    by: &str,
    streams: &AtomicBool,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while stream.read_buf(&mut head).await? > 0 {
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        let mark = text.lines().find_map(|line| line.strip_prefix("x-mark: "));
        let told = format!("{name} {by} {}", mark.unwrap_or("none"));
        let length = told.len();
        let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{told}");
        if text.contains("/long ") {
            let begin = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(begin.as_bytes()).await?;
            while streams.load(Relaxed) {
                stream.write_all(b"4\r\nmore\r\n").await?;
                stream.flush().await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            stream.write_all(END.as_bytes()).await?;
        } else {
            if text.contains("/late ") {
                tokio::time::sleep(LATE).await;
            }
            stream.write_all(whole.as_bytes()).await?;
        }
        stream.flush().await?;
        head.clear();
    }
    Ok(())
}

/// What differs from one version to the next; each object has its own turn.
const SPOKEN: [&str; 3] = ["clear", "a.example", "b.example"];
const PICKED: [&str; 4] = ["clear", "tls", "a.example", "b.example"];

/// All that the drill runs with.
struct Bed {
    authority: Authority,
    shown: [Certificate; 2],
    servers: [SocketAddr; 2],
    picker: Picker,
    plain: u16,
}

impl Bed {
    fn start(streams: &'static AtomicBool) -> Self {
        let authority = Authority::new();
        let own = authority.sign(&["a.example", "b.example"]);
        let served = |name| server(name, authority.server(&own, "http/1.1", false), streams);
        let servers = [served("one"), served("two")];
        let play = Play::Pick(servers[0].to_string(), By::Both);
        Self {
            shown: [(); 2].map(|()| authority.sign(&["gw.example"])),
            servers,
            picker: Picker::either(play, &authority, &own),
            authority,
            plain: crate::gateway::free_address().port(),
        }
    }

    /// The configuration of this version.
    fn text(&self, version: usize) -> String {
        let plain = self.plain;
        let gateway = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: gw}}\n\
            spec:\n  gatewayClassName: penstock\n  addresses: [{{value: 127.0.0.1}}]\n  listeners:\n  \
            - {{name: https, port: PORT, protocol: HTTPS, tls: {{certificateRefs: [{{name: own}}]}}}}\n  \
            - {{name: http, port: {plain}, protocol: HTTP}}\n"
        );
        let picked = PICKED[version % 4];
        let protocol = if picked == "clear" {
            "kubernetes.io/h2c"
        } else {
            "http2"
        };
        let reference = ", endpointPickerRef: {name: epp, port: {number: 9002}}";
        let parts = [
            gateway,
            self.shown[version % 2].secret("own"),
            self.authority.config_map("ca"),
            routes(version),
            service("one", &self.servers[..1]),
            service("two", &self.servers[1..]),
            pool("chat", reference, &self.servers[..1]),
            epp(
                &[self.picker.address],
                &format!(", appProtocol: {protocol}"),
            ),
            tls("epp", "{group: '', kind: Service, name: epp}", picked),
            tls("servers", SERVERS, SPOKEN[version % 3]),
            patience(&format!("{}", 5 + version % 3)),
        ];
        parts.concat()
    }
}

const SERVERS: &str = "{group: '', kind: Service, name: one}, {group: '', kind: Service, name: two}, \
    {group: inference.networking.k8s.io, kind: InferencePool, name: chat}";

/// A policy under which `targets` must prove to be `host`; none where nobody must.
fn tls(name: &str, targets: &str, host: &str) -> String {
    if !host.contains('.') {
        return String::new();
    }
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
        metadata: {{name: {name}}}\nspec:\n  targetRefs: [{targets}]\n  validation: {{hostname: {host}, \
        caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}\n"
    )
}

/// A rule for each kind of backend. All mark requests; one moves its weight; one has no patience
/// in every other version.
fn routes(version: usize) -> String {
    let mark = format!(
        "filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: \
        [{{name: x-mark, value: m{version}}}]}}}}]"
    );
    let rule = |path: &str, rest: &str| {
        format!("{{matches: [{{path: {{value: {path}}}}}], {mark}, {rest}}}")
    };
    let both = format!(
        "backendRefs: [{{name: one, port: 80, weight: {}}}, {{name: two, port: 80, weight: {}}}]",
        (version + 1) % 2,
        version % 2
    );
    let timeouts = ["", "timeouts: {request: 50ms}, "][version / 2 % 2];
    let chat = crate::configured::to_pool("chat");
    let rules = [
        rule("/both", &both),
        rule("/pool", &format!("backendRefs: [{chat}]")),
        rule(
            "/late",
            &format!("{timeouts}backendRefs: [{{name: one, port: 80}}]"),
        ),
    ];
    crate::configured::route("all", &format!("rules: [{}]", rules.join(", ")))
}

/// Whether the rule that marked the request also chose the server.
fn is_of_one_version(told: &str) -> bool {
    let words: Vec<&str> = told.split(' ').collect();
    let version: usize = words[2].trim_start_matches('m').parse().unwrap();
    words[0] == ["one", "two"][version % 2]
}

/// Asks on connections in the clear for as long as `goes_on`.
fn asks_in_the_clear(address: SocketAddr, goes_on: &AtomicBool, asked: &AtomicUsize) {
    let mut stream = BufReader::new(connect(address));
    while goes_on.load(Relaxed) {
        for path in ["/pool", "/both"] {
            let head = format!("GET {path} HTTP/1.1\r\nhost: gw.example\r\n\r\n");
            stream.get_mut().write_all(head.as_bytes()).unwrap();
            let answer = read_answer(&mut stream).expect("a whole answer");
            assert_eq!(answer.status, 200, "{path} {answer:?}");
            assert!(
                path == "/pool" || is_of_one_version(&answer.body),
                "{answer:?}"
            );
            asked.fetch_add(1, Relaxed);
        }
    }
}

/// The same over TLS.
fn asks_over_tls(bed: &Bed, address: SocketAddr, goes_on: &AtomicBool, asked: &AtomicUsize) {
    let mut stream = opened(bed, address);
    while goes_on.load(Relaxed) {
        for _ in 0..20 {
            let answer = soon(get(&mut stream, "gw.example", "/both")).unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(is_of_one_version(&answer.body), "{answer:?}");
            asked.fetch_add(1, Relaxed);
        }
        stream = opened(bed, address);
    }
}

fn opened(bed: &Bed, address: SocketAddr) -> Tls {
    let connector = bed.authority.client("http/1.1", None);
    soon(handshake(connector, address, "gw.example")).unwrap()
}

/// What is asked for now is answered by this version and no other.
fn follows(bed: &Bed, gateway: &Configured, version: usize) {
    let mut stream = opened(bed, gateway.address);
    assert!(is(&bed.shown[version % 2], &shown(&stream)), "{version}");
    let by = SPOKEN[version % 3];
    let name = ["one", "two"][version % 2];
    for (path, name) in [("/both", name), ("/pool", "one")] {
        let answer = soon(get(&mut stream, "gw.example", path)).unwrap();
        assert_eq!(answer.body, format!("{name} {by} m{version}"), "{path}");
    }
    // Another conversation may have begun before and be noted after this one.
    wait_until(|| {
        soon(get(
            &mut opened(bed, gateway.address),
            "gw.example",
            "/pool",
        ))
        .unwrap();
        *bed.picker.seen.by.lock().unwrap() == PICKED[version % 4]
    });
    if version % 8 < 4 {
        let status = soon(get(&mut stream, "gw.example", "/late"))
            .unwrap()
            .status;
        assert_eq!(status, [200, 504][version / 2 % 2], "{version}");
    }
}

#[test]
fn what_is_in_use_changes_under_load_and_nothing_falls_in_between() {
    static STREAMS: AtomicBool = AtomicBool::new(true);
    let every = Duration::from_millis(promised(50, 1_000) as u64);
    let versions = promised(24, 60);
    let bed = Bed::start(&STREAMS);
    let gateway = Configured::start(&bed.text(0));
    let plain = SocketAddr::from(([127, 0, 0, 1], bed.plain));
    let (goes_on, asked) = (AtomicBool::new(true), AtomicUsize::new(0));
    let long = std::thread::scope(|scope| {
        let over = Ends(&STREAMS);
        // Begun before all changes, ended after them.
        let long: Vec<_> = ["/both/long", "/pool/long"]
            .repeat(4)
            .into_iter()
            .map(|path| {
                let (bed, address) = (&bed, gateway.address);
                scope.spawn(move || {
                    let mut stream = opened(bed, address);
                    let head = format!("GET {path} HTTP/1.1\r\nhost: gw.example\r\n\r\n");
                    soon(async {
                        stream.write_all(head.as_bytes()).await.unwrap();
                    });
                    let mut text = Vec::new();
                    while !text.ends_with(END.as_bytes()) {
                        assert!(
                            soon(stream.read_buf(&mut text)).unwrap() > 0,
                            "{path} is cut"
                        );
                    }
                    String::from_utf8(text).unwrap()
                })
            })
            .collect();
        wait_until(|| gateway.metric("penstock_connections_open") >= 8.0);
        let ends = Ends(&goes_on);
        for _ in 0..2 {
            scope.spawn(|| asks_in_the_clear(plain, &goes_on, &asked));
            scope.spawn(|| asks_over_tls(&bed, gateway.address, &goes_on, &asked));
        }
        for version in 1..=versions {
            let next = Instant::now() + every;
            gateway.apply(&bed.text(version));
            follows(&bed, &gateway, version);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        drop(ends);
        drop(over);
        let whole = long.into_iter().map(|one| one.join().unwrap());
        whole.filter(|text| text.ends_with(END)).count()
    });
    assert_eq!(long, 8, "streams that were open all the while");
    let asked = asked.into_inner();
    assert!(asked > versions * 4, "{asked}");
    measured("living.versions", versions as f64);
    measured("living.requests_none_failed", asked as f64);
}
