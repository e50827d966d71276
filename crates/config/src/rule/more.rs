//! Filters that few rules have: CORS and mirrors; and what a route says about trying again.
//!
//! They stand behind one pointer, so that all other rules pay for one look. Names of headers and
//! methods are joined here, ready for the answer.

use std::time::Duration;

use serde::Serialize;

use super::Target;

/// What few rules and backends have.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MoreFilters {
    /// What pages of other origins may do.
    pub cors: Option<Cors>,
    /// Where copies of requests go.
    pub mirrors: Vec<Mirror>,
}

/// A copy of some requests.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mirror {
    /// Where to.
    pub target: Target,
    /// Of `denominator` requests so many are copied.
    pub numerator: u32,
    /// At least 1.
    pub denominator: u32,
}

impl Mirror {
    /// Whether the request that `draw`, a uniformly random number, stands for is copied.
    pub fn takes(&self, draw: u64) -> bool {
        draw % u64::from(self.denominator.max(1)) < u64::from(self.numerator)
    }
}

/// Cross-origin sharing (GEP-1767, the Fetch standard).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cors {
    /// Whether every origin may.
    pub any_origin: bool,
    /// The origins that may.
    pub origins: Vec<OriginPattern>,
    /// Methods that a preflight is told.
    pub methods: Allowed,
    /// Request headers that a preflight is told.
    pub headers: Allowed,
    /// Response headers that a page may read, joined; empty for none.
    pub exposed: Box<str>,
    /// Whether requests may carry credentials.
    pub credentials: bool,
    /// Seconds for which a preflight may be remembered, as text.
    pub max_age: Box<str>,
}

/// A list of names of which `*` stands for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Allowed {
    /// Whatever is asked for.
    Any,
    /// These, joined; empty for none beyond those that need no permission.
    These(Box<str>),
}

impl Default for Allowed {
    fn default() -> Self {
        Self::These(Box::default())
    }
}

/// An origin, or a family of origins: `https://*.example.com:8443`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OriginPattern {
    /// Up to the `*`, or the whole; lowercase.
    pub prefix: Box<str>,
    /// Behind the `*`; lowercase.
    pub suffix: Option<Box<str>>,
}

impl OriginPattern {
    /// Reads an origin; `*` stands for one or more labels.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, host) = text.split_once("://")?;
        let is_word = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.:[]".contains(&byte);
            text.bytes().all(plain)
        };
        if scheme.is_empty() || host.is_empty() || !is_word(scheme) {
            return None;
        }
        let text = text.to_ascii_lowercase();
        match text.split_once('*') {
            None => is_word(host).then(|| Self {
                prefix: text.as_str().into(),
                suffix: None,
            }),
            Some((prefix, suffix)) => {
                let whole = prefix.ends_with("://") && is_word(suffix);
                whole.then(|| Self {
                    prefix: prefix.into(),
                    suffix: Some(suffix.into()),
                })
            }
        }
    }

    fn matches(&self, origin: &str) -> bool {
        let Some(suffix) = &self.suffix else {
            return origin.eq_ignore_ascii_case(&self.prefix);
        };
        let origin = origin.to_ascii_lowercase();
        let rest = origin.strip_prefix(&*self.prefix);
        let labels = rest.and_then(|rest| rest.strip_suffix(&**suffix));
        labels.is_some_and(|labels| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
            !labels.is_empty() && labels.bytes().all(plain)
        })
    }
}

impl Cors {
    /// What `access-control-allow-origin` says to a page of `origin`; `None` if it may not.
    pub fn allow_origin<'a>(&self, origin: &'a str) -> Option<&'a str> {
        if self.any_origin {
            // With credentials, a browser takes no `*`.
            return Some(if self.credentials { origin } else { "*" });
        }
        let listed = self.origins.iter().any(|pattern| pattern.matches(origin));
        listed.then_some(origin)
    }
}

/// What a route says about trying again (GEP-1731).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteRetry {
    /// Statuses that are tried again, beside connections that fail and backends that are late.
    pub codes: Vec<u16>,
    /// Tries after the first.
    pub attempts: u32,
    /// The least time between two tries.
    pub backoff: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_told_what_its_pattern_says() {
        for (pattern, origin, allowed) in [
            ("https://www.foo.com", "https://www.foo.com", true),
            ("https://www.foo.com", "HTTPS://WWW.foo.com", true),
            ("https://www.foo.com", "http://www.foo.com", false),
            ("https://www.foo.com", "https://www.foo.com:8443", false),
            ("https://*.bar.com", "https://www.bar.com", true),
            ("https://*.bar.com", "https://a.b.bar.com", true),
            ("https://*.bar.com", "https://bar.com", false),
            ("https://*.bar.com", "https://.bar.com", false),
            ("https://*.bar.com", "https://evil.com/x.bar.com", false),
            ("https://*.bar.com", "https://evil.com:1.bar.com", false),
            ("https://*.bar.com", "https://foobar.com", false),
            ("https://*:8080", "https://any.org:8080", true),
        ] {
            let cors = Cors {
                origins: vec![OriginPattern::parse(pattern).unwrap()],
                ..Cors::default()
            };
            let told = cors.allow_origin(origin);
            assert_eq!(told, allowed.then_some(origin), "{pattern} {origin}");
        }
        for text in ["www.foo.com", "https://", "https://a b", "https://a*b.com"] {
            assert_eq!(OriginPattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn every_origin_is_told_itself_once_there_are_credentials() {
        let mut cors = Cors {
            any_origin: true,
            ..Cors::default()
        };
        assert_eq!(cors.allow_origin("https://a.org"), Some("*"));
        cors.credentials = true;
        assert_eq!(cors.allow_origin("https://a.org"), Some("https://a.org"));
    }

    #[test]
    fn a_mirror_takes_its_share() {
        let mirror = |numerator, denominator| Mirror {
            target: Target::Invalid { reason: "".into() },
            numerator,
            denominator,
        };
        for (mirror, taken) in [
            (mirror(20, 100), 200),
            (mirror(25, 50), 500),
            (mirror(0, 100), 0),
            (mirror(100, 100), 1_000),
        ] {
            let count = (0..1_000).filter(|draw| mirror.takes(*draw)).count();
            assert_eq!(count, taken, "{mirror:?}");
        }
    }
}
