//! RequestRedirect: the gateway answers with a `Location` and no backend is asked.

use super::Answer;
use crate::exchange::Exchange;
use crate::route::View;
use config::Redirect;

pub(crate) fn answer(redirect: &Redirect, x: &Exchange) -> Answer {
    let view = View(&x.head);
    let scheme = if x.over_tls { "https" } else { "http" };
    let location = redirect.location(&view, x.matched_prefix, x.bind.port(), scheme);
    Answer {
        status: redirect.status,
        fields: vec![("location", location)],
    }
}
