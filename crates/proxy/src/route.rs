//! Which rule serves a request: asks the bind's route table, which never allocates.

use crate::exchange::Exchange;
use crate::failure::{Cause, Failure, Phase};
use crate::headers;
use crate::live::Live;
use config::{RequestView, RouteMatch, Rule};
use http1::RequestHead;

/// A request head as the route table wants to see it.
#[derive(Debug)]
pub(crate) struct View<'a>(pub(crate) &'a RequestHead);

impl RequestView for View<'_> {
    fn method(&self) -> &str {
        self.0.method()
    }
    fn host(&self) -> &str {
        self.0.host()
    }
    fn path(&self) -> &str {
        self.0.path()
    }
    fn query(&self) -> Option<&str> {
        self.0.query()
    }
    fn header(&self, lowercase_name: &str) -> Option<&[u8]> {
        self.0.get(lowercase_name)
    }
}

/// Finds the rule and notes it in the exchange too.
///
/// # Errors
/// No listener of the bind has this host, or no route matches: 404.
pub(crate) fn find<'a>(live: &'a Live, x: &mut Exchange) -> Result<&'a Rule, Failure> {
    let Some(bind) = live.bind(x.bind) else {
        return Err(Failure::new(
            Phase::Route,
            Cause::NoRoute,
            "this listener is going away",
        ));
    };
    if let Some(named) = &x.server_name
        && bind.listener_of(named) != bind.listener_of(x.head.host())
    {
        let (host, message) = (x.head.host(), "this connection was made to");
        let message = format!("{message} {named}, and {host} is another listener's");
        return Err(Failure::new(Phase::Route, Cause::Misdirected, message));
    }
    if !x.model.is_empty()
        && let Some(base) = bind.base_model(x.head.host(), &x.model)
    {
        x.head.put(headers::BASE_MODEL_NAME, base.as_bytes());
    }
    match bind.route(&View(&x.head)) {
        RouteMatch::Found {
            listener,
            rule,
            matched_prefix,
        } => {
            x.trusted = listener.trust_inference_headers;
            x.asks_picker = !listener.built_in_picker;
            x.matched_prefix = matched_prefix;
            x.rule = Some(rule.clone());
            Ok(rule)
        }
        RouteMatch::NoListener => Err(no_route(x, "no listener has the host")),
        RouteMatch::NoRoute { .. } => Err(no_route(x, "no route matches")),
    }
}

fn no_route(x: &Exchange, what: &str) -> Failure {
    let (method, host, path) = (x.head.method(), x.head.host(), x.head.path());
    Failure::new(
        Phase::Route,
        Cause::NoRoute,
        format!("{what}: {method} {host} {path}"),
    )
}
