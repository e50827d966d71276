//! What a rule does to a request and its response besides choosing a backend.
//!
//! One file per filter, applied in the order of the Gateway API: redirect answers at once, the
//! URL is rewritten, then header fields are edited. Rule filters come first, then the backend's.

pub(crate) mod headers;
pub(crate) mod redirect;
pub(crate) mod rewrite;

use crate::exchange::Exchange;
use config::Filters;

/// Applies request filters. `Some`: the request is answered with this redirect.
pub(crate) fn request(filters: &Filters, x: &mut Exchange) -> Option<redirect::Answer> {
    if let Some(redirect) = &filters.redirect {
        return Some(redirect::answer(redirect, x));
    }
    headers::edit_request(&filters.request_headers, &mut x.head);
    if let Some(rewrite) = &filters.rewrite {
        rewrite::apply(rewrite, x);
    }
    None
}
