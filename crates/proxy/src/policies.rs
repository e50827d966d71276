//! What a rule does to a request and its response besides choosing a backend.
//!
//! One file per filter, applied in the order of the Gateway API: a preflight and a redirect are
//! answered at once, header fields are edited, the URL is rewritten, and copies go to mirrors.
//! Rule filters come first, then the backend's.

pub(crate) mod cors;
pub(crate) mod headers;
pub(crate) mod mirror;
pub(crate) mod redirect;
pub(crate) mod rewrite;

use crate::exchange::Exchange;
use crate::live::{Live, Shared};
use crate::worker::Local;
use config::Filters;
use std::sync::Arc;

/// An answer without a body that a filter gives, ready to be written.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(&'static str, String)>,
}

/// Where a request is served: what filters need that send something themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) local: &'a Local,
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) live: &'a Live,
}

/// Applies request filters. `Some`: the request is answered with this.
pub(crate) fn request(filters: &Filters, x: &mut Exchange, place: Place<'_>) -> Option<Answer> {
    let more = filters.more.as_deref();
    if let Some(cors) = more.and_then(|more| more.cors.as_ref())
        && let Some(answer) = cors::preflight(cors, x)
    {
        return Some(answer);
    }
    if let Some(redirect) = &filters.redirect {
        return Some(redirect::answer(redirect, x));
    }
    headers::edit_request(&filters.request_headers, &mut x.head);
    if let Some(rewrite) = &filters.rewrite {
        rewrite::apply(rewrite, x);
    }
    if let Some(more) = more {
        mirror::send(&more.mirrors, x, place);
    }
    None
}

/// Applies response filters.
pub(crate) fn response(filters: &Filters, x: &Exchange, head: &mut http1::ResponseHead) {
    headers::edit_response(&filters.response_headers, head);
    if let Some(cors) = filters.more.as_deref().and_then(|more| more.cors.as_ref()) {
        cors::edit_response(cors, x, head);
    }
}
