//! RequestRedirect: the gateway answers with a `Location` and no backend is asked.

use crate::exchange::Exchange;
use crate::route::View;
use config::Redirect;

/// A redirect, ready to be written.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: String,
}

pub(crate) fn answer(redirect: &Redirect, x: &Exchange) -> Answer {
    let view = View(&x.head);
    let scheme = if x.over_tls { "https" } else { "http" };
    let location = redirect.location(&view, x.matched_prefix, x.bind.port(), scheme);
    Answer {
        status: redirect.status,
        location,
    }
}
