//! Answers that the gateway gives itself: redirects, preflights and the list of models.

use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::headers;
use crate::listener::client::Client;
use crate::live::{Live, Shared};
use crate::policies::Answer;
use crate::worker::OutBuffer;
use serde::Serialize;

/// Sends what a filter answers: fields and no body.
pub(crate) async fn short(
    client: &mut Client,
    x: &mut Exchange,
    answer: &Answer,
) -> Result<(), Failure> {
    let mut out = OutBuffer::take();
    let own = answer.fields.iter();
    let own = own.map(|(name, value)| (*name, value.as_str()));
    let fields: Vec<_> = own.chain(headers::own_fields(x)).collect();
    http1::write_response(answer.status, &fields, b"", x.keep_alive, &mut out);
    x.response.status = answer.status;
    x.response.head_sent = true;
    client.offer(&out, b"").await
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u32,
    owned_by: &'a str,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

/// Whether the request is for the list of models, `GET /v1/models`.
pub(crate) fn is_models_list(live: &Live, x: &Exchange) -> bool {
    x.head.method() == "GET" && x.head.path() == "/v1/models" && live.has_pools()
}

/// Answers with all models of all pools.
pub(crate) async fn models_list(
    shared: &Shared,
    live: &Live,
    client: &mut Client,
    x: &mut Exchange,
) -> Result<(), Failure> {
    let names = live.model_names();
    let data = names
        .iter()
        .map(|(id, pool)| Model {
            id,
            object: "model",
            created: 0,
            owned_by: pool,
        })
        .collect();
    let body = serde_json::to_vec(&List {
        object: "list",
        data,
    })
    .unwrap_or_default();
    let mut out = OutBuffer::take();
    let [id] = headers::own_fields(x);
    // By this name another gateway that looks for model servers knows that here is none.
    let fields = [
        ("content-type", "application/json"),
        ("server", "penstock"),
        id,
    ];
    http1::write_response(200, &fields, &body, x.keep_alive, &mut out);
    x.response.status = 200;
    x.response.head_sent = true;
    x.response.bytes = body.len() as u64;
    client.offer(&out, b"").await?;
    drop(out);
    client.flush(&shared.limits).await
}
