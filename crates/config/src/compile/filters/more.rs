//! CORS and mirrors, lowered. What a mirror leads to is filled in when references are resolved.

use super::{Unusable, header_name};
use crate::objects::http_route::{CorsFilter, RequestMirror};
use crate::rule::{Allowed, Cors, Mirror, OriginPattern, Target};

/// Seconds for which a preflight is remembered where the route does not say.
const DEFAULT_MAX_AGE: u32 = 5;

pub(super) fn mirror(spec: &RequestMirror, path: &str) -> Result<Mirror, Unusable> {
    let (numerator, denominator) = match (&spec.fraction, spec.percent) {
        (Some(fraction), _) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
        (None, Some(percent)) => (percent, 100),
        (None, None) => (1, 1),
    };
    if denominator == 0 || numerator > denominator {
        let message = format!("{numerator} of {denominator} is no share");
        return Err((format!("{path}.fraction"), message));
    }
    Ok(Mirror {
        target: Target::Invalid {
            reason: "not resolved".into(),
        },
        numerator,
        denominator,
    })
}

pub(super) fn cors(spec: &CorsFilter, path: &str) -> Result<Cors, Unusable> {
    let mut cors = Cors {
        credentials: spec.allow_credentials.unwrap_or(false),
        max_age: spec.max_age.unwrap_or(DEFAULT_MAX_AGE).to_string().into(),
        methods: names(&spec.allow_methods, &format!("{path}.allowMethods"))?,
        headers: names(&spec.allow_headers, &format!("{path}.allowHeaders"))?,
        ..Cors::default()
    };
    cors.exposed = match names(&spec.expose_headers, &format!("{path}.exposeHeaders"))? {
        Allowed::Any => "*".into(),
        Allowed::These(names) => names,
    };
    for (index, origin) in spec.allow_origins.iter().enumerate() {
        if origin == "*" {
            cors.any_origin = true;
            continue;
        }
        let pattern = OriginPattern::parse(origin).ok_or_else(|| {
            let message = format!("`{origin}` is no origin, such as https://example.com");
            (format!("{path}.allowOrigins[{index}]"), message)
        });
        cors.origins.push(pattern?);
    }
    Ok(cors)
}

/// Methods and header names are tokens both; they keep their case.
fn names(list: &[String], path: &str) -> Result<Allowed, Unusable> {
    if list.iter().any(|name| name == "*") {
        return Ok(Allowed::Any);
    }
    for (index, name) in list.iter().enumerate() {
        header_name(name, &format!("{path}[{index}]"))?;
    }
    Ok(Allowed::These(list.join(", ").into()))
}
