//! One compiled rule of a route: what is changed on the way, where requests go and how long they
//! may take. Everything is resolved here, so that a request looks nothing up.
//!
//! A rule that must answer 500 (no backends, an unusable filter) has no backends and says why in
//! `fault`. The filters themselves are in `rule/filters.rs` and `rule/more.rs`.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::name::ObjectName;
use crate::snapshot::{PoolConfig, ServiceConfig};

mod filters;
mod more;
pub use filters::{Filters, HeaderEdits, HeaderValue, PathEdit, Redirect, UrlRewrite};
pub use more::{Allowed, Cors, Mirror, MoreFilters, OriginPattern, RouteRetry};

/// A rule as requests meet it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rule {
    /// The HTTPRoute that it stands in.
    pub route: ObjectName,
    /// Position in the route's rules.
    pub index: u32,
    /// The rule's own name.
    pub name: Option<Box<str>>,
    /// Applied before a backend is chosen.
    pub filters: Filters,
    /// Candidates by weight.
    pub backends: Vec<Backend>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Whether and when the route wants requests to be tried again.
    pub retry: Option<RouteRetry>,
    /// Why every request of the rule is answered 500, if so; then there are no backends.
    pub fault: Option<Box<str>>,
}

/// Deadlines of a rule; `None` means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// For the whole request, retries included.
    pub request: Option<Duration>,
    /// For each try.
    pub backend_request: Option<Duration>,
}

/// One place where requests of a rule go.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Backend {
    /// Share of the rule's requests, 0 to 1,000,000.
    pub weight: u32,
    /// Applied after the rule's filters.
    pub filters: Filters,
    /// Where to.
    pub target: Target,
}

/// What a backend reference resolved to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Target {
    /// A pool, whose picker chooses the endpoint.
    Pool(#[serde(serialize_with = "pool_name")] Arc<PoolConfig>),
    /// A plain Service: any endpoint.
    Service(#[serde(serialize_with = "service_name")] Arc<ServiceConfig>),
    /// Nothing usable: its share of requests is answered 500.
    Invalid {
        /// For the log.
        reason: Box<str>,
    },
}

impl Rule {
    /// The backend that `draw`, a uniformly random number, stands for; `None` if there is no
    /// weight at all, which is answered 500.
    pub fn choose(&self, draw: u64) -> Option<&Backend> {
        if let [only] = self.backends.as_slice() {
            return (only.weight > 0).then_some(only);
        }
        let total: u64 = self
            .backends
            .iter()
            .map(|backend| u64::from(backend.weight))
            .sum();
        let mut left = draw.checked_rem(total)?;
        self.backends.iter().find(|backend| {
            let weight = u64::from(backend.weight);
            let found = left < weight;
            left = left.saturating_sub(weight);
            found
        })
    }
}

fn pool_name<S: serde::Serializer>(
    pool: &Arc<PoolConfig>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    pool.name.serialize(serializer)
}

fn service_name<S: serde::Serializer>(
    service: &Arc<ServiceConfig>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}:{}", service.name, service.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(weights: &[u32]) -> Rule {
        Rule {
            route: ObjectName::new("default", "route"),
            index: 0,
            name: None,
            filters: Filters::default(),
            backends: weights
                .iter()
                .map(|weight| Backend {
                    weight: *weight,
                    filters: Filters::default(),
                    target: Target::Invalid {
                        reason: weight.to_string().into(),
                    },
                })
                .collect(),
            timeouts: Timeouts::default(),
            retry: None,
            fault: None,
        }
    }

    #[test]
    fn each_backend_gets_its_share_of_draws() {
        for (weights, counts) in [
            (&[1, 3][..], &[250, 750][..]),
            (&[0, 2], &[0, 1000]),
            (&[5], &[1000]),
            (&[7, 0, 3], &[700, 0, 300]),
        ] {
            let rule = rule(weights);
            let mut found = vec![0; weights.len()];
            for draw in 0..1_000 {
                let chosen = rule.choose(draw).unwrap();
                let position = rule
                    .backends
                    .iter()
                    .position(|one| std::ptr::eq(one, chosen));
                found[position.unwrap()] += 1;
            }
            assert_eq!(found, counts, "{weights:?}");
        }
    }

    #[test]
    fn no_weight_at_all_chooses_nothing() {
        for weights in [&[][..], &[0], &[0, 0]] {
            assert_eq!(rule(weights).choose(7), None, "{weights:?}");
        }
    }
}
