//! The test's own controls under `/mock/`: faults, speed, and what was received.
//! They never suffer from faults and are not in the journal.

use std::io;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, Response};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;

use super::body::MockBody;
use super::{json as respond_json, plain, read};
use crate::faults::{FAULTS, Fault};
use crate::server::Server;
use crate::spec::per_mille;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Faults {
    fault: Option<String>,
    #[serde(default)]
    faults: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slow {
    factor: f64,
}

pub(super) async fn answer(
    server: &Arc<Server>,
    head: &Parts,
    body: Incoming,
) -> io::Result<Response<MockBody>> {
    let Ok(body) = read(body).await? else {
        return Ok(plain(413, "the body is too long"));
    };
    let response = match (&head.method, head.uri.path()) {
        (&Method::GET, "/mock/faults") => faults(server),
        (&Method::POST, "/mock/faults") => match set_faults(server, &body) {
            Ok(()) => faults(server),
            Err(message) => plain(400, &message),
        },
        (&Method::DELETE, "/mock/faults") => {
            server.faults.clear();
            faults(server)
        }
        (&Method::POST, "/mock/slow") => slow(server, &body).await,
        (&Method::GET, "/mock/requests") => {
            let requests = server.journal.entries();
            respond_json(200, json!({ "requests": requests }).to_string())
        }
        (&Method::DELETE, "/mock/requests") => {
            server.journal.clear();
            respond_json(200, r#"{"requests":[]}"#)
        }
        _ => plain(
            404,
            "there are GET, POST, DELETE /mock/faults, POST /mock/slow, GET, DELETE /mock/requests",
        ),
    };
    Ok(response)
}

fn faults(server: &Server) -> Response<MockBody> {
    let active: Vec<String> = server
        .faults
        .active()
        .iter()
        .map(ToString::to_string)
        .collect();
    let known: Vec<_> = FAULTS
        .iter()
        .map(|entry| json!({ "name": entry.name, "options": entry.options, "what": entry.what }))
        .collect();
    respond_json(200, json!({ "active": active, "known": known }).to_string())
}

fn set_faults(server: &Server, body: &[u8]) -> Result<(), String> {
    let asked: Faults = serde_json::from_slice(body).map_err(|error| {
        format!("{error}: write {{\"fault\": \"500:count=3\"}} or {{\"faults\": [..]}}")
    })?;
    let parsed: Result<Vec<Fault>, _> = asked
        .fault
        .iter()
        .chain(&asked.faults)
        .map(|text| text.parse())
        .collect();
    for fault in parsed.map_err(|error| error.to_string())? {
        server.faults.set(fault);
    }
    Ok(())
}

async fn slow(server: &Server, body: &[u8]) -> Response<MockBody> {
    match serde_json::from_slice(body) {
        Ok(Slow { factor }) if factor > 0.0 => {
            server
                .engine
                .set_speed(per_mille(server.spec.speed / factor))
                .await;
            respond_json(200, json!({ "factor": factor }).to_string())
        }
        _ => plain(
            400,
            "write {\"factor\": 2.5}: how much slower than at the start, above 0",
        ),
    }
}
