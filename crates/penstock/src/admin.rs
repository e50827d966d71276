//! The admin address: health, metrics, and what the gateway knows.
//!
//! Served by hyper, apart from the data path. It answers anybody who can connect: keep it on
//! loopback or a private network. Secrets never appear; prompts are not kept anywhere.

use bytes::Bytes;
use config::Statuses;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use proxy::Proxy;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

mod gauges;
pub(crate) mod http1;

/// What the admin address shows.
#[derive(Debug)]
pub(crate) struct Admin {
    proxy: Arc<Proxy>,
    registry: Registry,
    ready: AtomicBool,
    configuration: Mutex<Configuration>,
}

/// The last configuration: what became of its objects, and what was refused.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    pub(crate) statuses: Statuses,
    pub(crate) refused: Vec<config::ConfigError>,
}

impl Admin {
    pub(crate) fn new(proxy: Arc<Proxy>) -> Arc<Self> {
        let mut registry = Registry::default();
        proxy.metrics().register(&mut registry);
        registry.register_collector(Box::new(gauges::Gauges(proxy.clone())));
        Arc::new(Self {
            proxy,
            registry,
            ready: AtomicBool::new(false),
            configuration: Mutex::default(),
        })
    }

    /// All listeners are bound, or the process is about to end.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    pub(crate) fn set_configuration(&self, configuration: Configuration) {
        *self.configuration.lock() = configuration;
    }

    /// The objects in force stay; the edit that was refused is shown beside them.
    pub(crate) fn set_refused(&self, refused: Vec<config::ConfigError>) {
        self.configuration.lock().refused = refused;
    }

    /// Serves until `stop`.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        http1::serve(listener, stop, move |request| self.answer(request)).await;
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
        }
        match request.uri().path() {
            "/livez" | "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.ready.load(Ordering::Relaxed) => text(StatusCode::OK, "ok\n"),
            "/readyz" => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "listeners are not bound yet\n",
            ),
            "/metrics" => self.metrics(),
            "/version" => json(&Version {
                version: env!("CARGO_PKG_VERSION"),
                configuration: self.proxy.live().version,
            }),
            "/debug/decisions" => self.decisions(request.uri().query().unwrap_or("")),
            "/debug/config" => self.configuration(),
            "/debug/memory" => json(&self.proxy.memory()),
            "/debug/pools" => json(&self.proxy.live().views()),
            "/" => text(StatusCode::OK, INDEX),
            _ => text(StatusCode::NOT_FOUND, INDEX),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut out = String::new();
        match prometheus_client::encoding::text::encode(&mut out, &self.registry) {
            Ok(()) => with_type(
                out,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }

    /// `id=` selects a decision's number or a request id.
    fn decisions(&self, query: &str) -> Response<Full<Bytes>> {
        let wanted = query.split('&').find_map(|pair| pair.strip_prefix("id="));
        let lines = self.proxy.decisions().json_lines(|record| match wanted {
            None => true,
            Some(id) => record.id == id || record.decision.to_string() == id,
        });
        with_type(lines, "application/jsonl")
    }

    fn configuration(&self) -> Response<Full<Bytes>> {
        let live = self.proxy.live();
        let configuration = self.configuration.lock();
        json(&ConfigView {
            version: live.version,
            alive: self.proxy.alive(),
            snapshot: &live.snapshot,
            statuses: &configuration.statuses,
            refused: &configuration.refused,
        })
    }
}

const INDEX: &str = "\
/livez            the process runs
/readyz           all listeners are bound
/metrics          OpenMetrics
/version          of the program and of its configuration, JSON
/debug/config     snapshot, version and statuses, JSON
/debug/pools      pools and endpoints as the picker sees them, JSON
/debug/memory     who holds how much memory, and the limit, JSON
/debug/decisions  the last decisions, one JSON object a line; ?id= selects one
";

#[derive(Serialize)]
struct Version {
    version: &'static str,
    /// Counts configurations that were put in force.
    configuration: u64,
}

#[derive(Serialize)]
struct ConfigView<'a> {
    version: u64,
    /// Configurations still in memory.
    alive: u64,
    snapshot: &'a config::Snapshot,
    statuses: &'a Statuses,
    refused: &'a [config::ConfigError],
}

pub(crate) fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = with_type(body.to_owned(), "text/plain; charset=utf-8");
    *response.status_mut() = status;
    response
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_string(value) {
        Ok(body) => with_type(body, "application/json"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn with_type(body: String, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let value = http::HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, value);
    response
}
