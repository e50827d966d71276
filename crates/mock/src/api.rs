//! From a request to its answer: routes, faults before the answer, and the small read-only pages.
//!
//! Inference goes on in `generate`, the test's own controls in `admin`. Answers imitate vLLM 0.32,
//! its error bodies included. Every request but those to `/mock/*` is in the journal.

mod admin;
mod body;
mod error;
mod generate;
mod request;
mod stream;
mod wire;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::faults::{FaultKind, Scope, Struck};
use crate::journal::Record;
use crate::metrics::Page;
use crate::server::{Connection, Server};
use body::MockBody;
use error::Problem;

/// Longest request body.
const BODY_BYTES: usize = 64 * 1024 * 1024;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The inference APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Chat,
    Completions,
    Embeddings,
    Messages,
}

#[derive(Debug, Clone, Copy)]
enum Route {
    Inference(Api),
    Models,
    Metrics,
    Empty,
    Version,
    Load,
}

/// The route of a path and the method it takes, as vLLM serves them.
fn route(path: &str) -> Option<(Method, Route)> {
    let post = |api| Some((Method::POST, Route::Inference(api)));
    let get = |route| Some((Method::GET, route));
    match path {
        "/v1/chat/completions" => post(Api::Chat),
        "/v1/completions" => post(Api::Completions),
        "/v1/embeddings" => post(Api::Embeddings),
        "/v1/messages" => post(Api::Messages),
        "/v1/models" => get(Route::Models),
        "/metrics" => get(Route::Metrics),
        "/health" | "/ping" => get(Route::Empty),
        "/version" => get(Route::Version),
        "/load" => get(Route::Load),
        _ => None,
    }
}

/// Answers one request; an error closes the connection without an answer.
pub(crate) async fn answer(
    server: Arc<Server>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> io::Result<Response<MockBody>> {
    let (head, body) = request.into_parts();
    if head.uri.path().starts_with("/mock/") {
        return admin::answer(&server, &head, body).await;
    }
    let record = server.journal.receive(connection.id, &head);
    if server.faults.draw(Scope::All).has(FaultKind::Dead) {
        return Err(reset(&connection));
    }
    let Some((method, route)) = route(head.uri.path()) else {
        return Ok(finish(&server, &head, plain(404, "Not Found"), record));
    };
    if method != head.method {
        let mut response = plain(405, "Method Not Allowed");
        if let Ok(allowed) = HeaderValue::from_str(method.as_str()) {
            response.headers_mut().insert(ALLOW, allowed);
        }
        return Ok(finish(&server, &head, response, record));
    }
    let response = match route {
        Route::Inference(api) => {
            let exchange = Exchange {
                server: &server,
                connection: &connection,
                record: &record,
            };
            exchange.inference(api, &head, body).await?
        }
        Route::Models => json(200, models(&server)),
        Route::Metrics => metrics(&server).await,
        Route::Empty => respond(200, "text/plain", Bytes::new()),
        Route::Version => json(200, r#"{"version":"0.32.0"}"#),
        Route::Load => {
            let load = server.engine.look().await.map_or(0, |report| {
                u64::from(report.gauges.running) + u64::from(report.gauges.waiting)
            });
            json(200, format!(r#"{{"server_load":{load}}}"#))
        }
    };
    Ok(finish(&server, &head, response, record))
}

/// What one inference request works with.
struct Exchange<'a> {
    server: &'a Arc<Server>,
    connection: &'a Arc<Connection>,
    record: &'a Record,
}

impl Exchange<'_> {
    async fn inference(
        &self,
        api: Api,
        head: &Parts,
        body: Incoming,
    ) -> io::Result<Response<MockBody>> {
        let bytes = match read(body).await? {
            Ok(bytes) => bytes,
            Err(problem) => return Ok(problem.response(api)),
        };
        self.record.body(&bytes);
        let struck = self.server.faults.draw(Scope::Inference);
        if let Some(problem) = self.suffer(&struck).await? {
            return Ok(problem.response(api));
        }
        let asked = request::media_type(head)
            .and_then(|()| request::read(&self.server.spec, api, &bytes, self.record));
        match asked {
            Ok(asked) => {
                let id = client_id(head).map_or_else(|| self.server.answer_id(), str::to_owned);
                generate::answer(self.server, self.connection, (id, asked), &struck).await
            }
            Err(problem) => Ok(problem.response(api)),
        }
    }

    /// The faults that strike before the answer.
    async fn suffer(&self, struck: &Struck) -> io::Result<Option<Problem>> {
        if let Some(slow) = struck.get(FaultKind::SlowHead) {
            tokio::time::sleep(slow.delay).await;
        }
        if struck.has(FaultKind::Refuse) {
            return Err(reset(self.connection));
        }
        if struck.has(FaultKind::Hang) {
            std::future::pending::<()>().await;
        }
        let statuses = [
            (FaultKind::Status500, Problem::internal()),
            (FaultKind::Status503, Problem::busy()),
            (FaultKind::Status429, Problem::too_many()),
        ];
        Ok(statuses
            .into_iter()
            .find(|(kind, _)| struck.has(*kind))
            .map(|(_, problem)| problem))
    }
}

async fn read(body: Incoming) -> io::Result<Result<Bytes, Problem>> {
    match Limited::new(body, BODY_BYTES).collect().await {
        Ok(collected) => Ok(Ok(collected.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Ok(Err(Problem::too_large(BODY_BYTES))),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn reset(connection: &Connection) -> io::Error {
    connection.reset();
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "a fault resets the connection",
    )
}

async fn metrics(server: &Server) -> Response<MockBody> {
    let struck = server.faults.draw(Scope::Metrics);
    if struck.has(FaultKind::MetricsHang) {
        std::future::pending::<()>().await;
    }
    if struck.has(FaultKind::MetricsMissing) {
        return plain(404, "Not Found");
    }
    let Some(report) = server.engine.look().await else {
        return plain(500, "the engine has stopped");
    };
    let page = Page {
        model: server.spec.models.first().map_or("", String::as_str),
        adapters: &server.spec.adapters,
        spec: &server.spec.engine,
        started_unix: server.started_unix(),
        zeroed: struck.has(FaultKind::MetricsZeroed),
    };
    let mut text = page.render(&report);
    if struck.has(FaultKind::MetricsRenamed) {
        text = text.replace("vllm:", "renamed:");
    }
    if struck.has(FaultKind::MetricsHuge) {
        text = huge(&text);
    }
    let mut frozen = server.frozen.lock();
    if struck.has(FaultKind::MetricsFrozen) {
        text = frozen.get_or_insert(text).clone();
    } else {
        *frozen = None;
    }
    respond(200, "text/plain; version=1.0.0; charset=utf-8", text)
}

/// The page in the middle of 8 MiB of metrics that nobody asked for.
fn huge(text: &str) -> String {
    let line = "filler_bucket{engine=\"0\",le=\"0.25\",model_name=\"filler\"} 12345.0\n";
    let filler = line.repeat(4 * 1024 * 1024 / line.len());
    [filler.as_str(), text, filler.as_str()].concat()
}

fn models(server: &Server) -> String {
    let spec = &server.spec;
    let created = server.started_unix() as u64;
    let card = |id: &String, parent: Option<&String>| {
        let max_model_len = parent.is_none().then_some(spec.max_model_len);
        serde_json::json!({
            "id": id, "object": "model", "created": created, "owned_by": "vllm",
            "root": id, "parent": parent, "max_model_len": max_model_len,
        })
    };
    let bases = spec.models.iter().map(|id| card(id, None));
    let adapters = spec.adapters.iter().map(|id| card(id, spec.models.first()));
    let cards: Vec<_> = bases.chain(adapters).collect();
    serde_json::json!({ "object": "list", "data": cards }).to_string()
}

fn client_id(head: &Parts) -> Option<&str> {
    head.headers.get(REQUEST_ID)?.to_str().ok()
}

fn finish(
    server: &Server,
    head: &Parts,
    mut response: Response<MockBody>,
    record: Record,
) -> Response<MockBody> {
    let id = head.headers.get(REQUEST_ID).cloned();
    let id = id.or_else(|| HeaderValue::from_str(&server.answer_id()).ok());
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.map(|body| body.recorded(record))
}

fn plain(status: u16, detail: &str) -> Response<MockBody> {
    json(status, serde_json::json!({ "detail": detail }).to_string())
}

fn json(status: u16, body: impl Into<Bytes>) -> Response<MockBody> {
    respond(status, "application/json", body)
}

fn respond(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Response<MockBody> {
    let mut response = Response::new(MockBody::full(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
