//! What the doctor sends: for each rule of each listener a request that it matches.

use super::example;
use serde::Deserialize;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The part of `/debug/config` that is needed.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    snapshot: Snapshot,
}

#[derive(Debug, Deserialize)]
struct Snapshot {
    binds: Vec<Bind>,
}

#[derive(Debug, Deserialize)]
struct Bind {
    address: IpAddr,
    port: u16,
    listeners: Vec<Listener>,
}

#[derive(Debug, Deserialize)]
struct Listener {
    name: String,
    tls: Option<Tls>,
    routes: Vec<Host>,
}

#[derive(Debug, Deserialize)]
struct Tls {
    client_certificates: Option<ClientCertificates>,
}

#[derive(Debug, Deserialize)]
struct ClientCertificates {
    required: bool,
}

#[derive(Debug, Deserialize)]
struct Host {
    host: String,
    entries: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    matches: Matches,
    rule: Rule,
}

#[derive(Debug, Deserialize)]
struct Matches {
    path: Value,
    method: Option<String>,
    headers: Vec<Pair>,
    query: Vec<Pair>,
}

#[derive(Debug, Deserialize)]
struct Pair {
    name: String,
    value: String,
}

impl Pair {
    /// A value that matches; nothing where none was found.
    fn example(&self) -> Option<String> {
        match self.value.strip_prefix('~') {
            Some(expression) => example::matched_by(expression),
            None => Some(self.value.clone()),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Rule {
    route: String,
    index: usize,
    backends: Vec<Backend>,
}

#[derive(Debug, Deserialize)]
struct Backend {
    target: Value,
}

/// One pool of `/debug/pools`.
#[derive(Debug, Deserialize)]
pub(super) struct Pool {
    pub(super) name: String,
    models: Vec<String>,
    pub(super) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Endpoint {
    pub(super) name: String,
    pub(super) health: String,
}

/// A request that one rule matches.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) what: String,
    pub(super) address: SocketAddr,
    /// The host that a listener with TLS is asked for.
    pub(super) tls_host: Option<String>,
    pub(super) text: String,
}

#[derive(Debug)]
pub(super) enum Plan {
    Send(Request),
    Skip { what: String, why: &'static str },
}

/// The path that a model is asked by.
const CHAT: &str = "/v1/chat/completions";
const MODEL_NAME: &str = "x-gateway-model-name";

/// One plan for each rule of each listener.
pub(super) fn requests(config: &Config, pools: &[Pool]) -> Vec<Plan> {
    let mut plans = Vec::new();
    for bind in &config.snapshot.binds {
        let address = SocketAddr::new(reachable(bind.address), bind.port);
        for listener in &bind.listeners {
            for host in &listener.routes {
                for entry in &host.entries {
                    plans.push(plan((address, listener, &host.host), entry, pools));
                }
            }
        }
    }
    plans
}

/// Where an address of all interfaces is reached on this machine.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}

fn plan(at: (SocketAddr, &Listener, &str), entry: &Entry, pools: &[Pool]) -> Plan {
    let (address, listener, host) = at;
    let Rule { route, index, .. } = &entry.rule;
    let matches = &entry.matches;
    let what = |path: &str| {
        let host = if host.is_empty() { "*" } else { host };
        format!(
            "listener {} ({address}), host {host}, route {route} rule {index}, {path}",
            listener.name
        )
    };
    let skip = |path: &str, why| Plan::Skip {
        what: what(path),
        why,
    };
    let fields = Fields::of(matches);
    let (Some((path, is_prefix)), Some(fields)) = (path(&matches.path), fields) else {
        let why = "no text was found that its regular expression matches";
        return skip(&matches.path.to_string(), why);
    };
    let wants = |tls: &Tls| {
        let asked = tls.client_certificates.as_ref();
        asked.is_some_and(|asked| asked.required)
    };
    if listener.tls.as_ref().is_some_and(wants) {
        let why = "its clients must have certificates; ask it with `curl --cert`";
        return skip(&path, why);
    }
    let model = model(entry, pools);
    let chats = matches
        .method
        .as_deref()
        .is_none_or(|method| method == "POST")
        && (path == CHAT || is_prefix && begins(CHAT, &path));
    let (method, path, body) = match model {
        Some(model) if chats => ("POST", CHAT, chat(&model)),
        _ => (
            matches.method.as_deref().unwrap_or("GET"),
            path.as_str(),
            String::new(),
        ),
    };
    let host = asked_host(host);
    Plan::Send(Request {
        what: what(&format!("{method} {path}")),
        address,
        text: text((method, path, &body), &host, &fields),
        tls_host: listener.tls.is_some().then_some(host),
    })
}

/// Name and value of the headers and query parameters that a rule wants.
struct Fields<'a> {
    headers: Vec<(&'a str, String)>,
    query: Vec<(&'a str, String)>,
}

impl<'a> Fields<'a> {
    fn of(matches: &'a Matches) -> Option<Self> {
        let examples = |pairs: &'a [Pair]| {
            let example = |pair: &'a Pair| Some((pair.name.as_str(), pair.example()?));
            pairs.iter().map(example).collect::<Option<Vec<_>>>()
        };
        Some(Self {
            headers: examples(&matches.headers)?,
            query: examples(&matches.query)?,
        })
    }
}

/// A path that matches, and whether all below it do.
fn path(of: &Value) -> Option<(String, bool)> {
    let get = |kind: &str| of.get(kind).and_then(Value::as_str);
    let prefix = get("Prefix").map(|path| (path.to_owned(), true));
    let exact = || get("Exact").map(|path| (path.to_owned(), false));
    let regex = || Some((example::matched_by(get("Regex")?)?, false));
    let (path, is_prefix) = prefix.or_else(exact).or_else(regex)?;
    let begins = if path.starts_with('/') { "" } else { "/" };
    Some((format!("{begins}{path}"), is_prefix))
}

/// A host that a listener or route for `host` takes.
fn asked_host(host: &str) -> String {
    match host.strip_prefix("*.") {
        Some(domain) => format!("doctor.{domain}"),
        None if host.is_empty() || host == "*" => "localhost".to_owned(),
        None => host.to_owned(),
    }
}

/// Whether `path` begins with all segments of `prefix`.
fn begins(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A model that the rule's backend has, if that is a pool.
fn model(entry: &Entry, pools: &[Pool]) -> Option<String> {
    let asked = |pair: &&Pair| pair.name.eq_ignore_ascii_case(MODEL_NAME);
    if let Some(asked) = entry.matches.headers.iter().find(asked) {
        return asked.example();
    }
    let backends = entry.rule.backends.iter();
    let mut names = backends.filter_map(|backend| backend.target.get("Pool")?.as_str());
    let name = names.next()?;
    let pool = pools.iter().find(|pool| pool.name == name);
    let model = pool.and_then(|pool| pool.models.first());
    Some(model.cloned().unwrap_or_else(|| "doctor".to_owned()))
}

fn chat(model: &str) -> String {
    let content = serde_json::json!({
        "model": model,
        "max_tokens": 1,
        "messages": [{"role": "user", "content": "Are you well?"}],
    });
    content.to_string()
}

fn text(line: (&str, &str, &str), host: &str, fields: &Fields<'_>) -> String {
    let (method, path, body) = line;
    let query = fields.query.iter();
    let query: Vec<String> = query
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mark = if query.is_empty() { "" } else { "?" };
    let mut text = format!(
        "{method} {path}{mark}{} HTTP/1.1\r\nhost: {host}\r\nuser-agent: penstock-doctor\r\nconnection: close\r\n",
        query.join("&")
    );
    for (name, value) in &fields.headers {
        if !name.eq_ignore_ascii_case(MODEL_NAME) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    if !body.is_empty() {
        text.push_str("content-type: application/json\r\n");
    }
    if !body.is_empty() || method == "POST" || method == "PUT" {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text + "\r\n" + body
}
