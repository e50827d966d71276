//! Filters in compiled form: header edits, redirect and rewrite.
//!
//! Names of headers are lowercase. A path edit of a prefix works on the length that the route
//! table reports as matched; a query is always kept.

use serde::ser::SerializeTuple;
use serde::{Serialize, Serializer};

use super::more::MoreFilters;
use crate::objects::Sealed;
use crate::table::RequestView;

/// What a rule or a backend changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Filters {
    /// On the way to the backend.
    pub request_headers: HeaderEdits,
    /// On the way back.
    pub response_headers: HeaderEdits,
    /// Answered at once instead of forwarded.
    pub redirect: Option<Redirect>,
    /// Another host or path for the backend.
    pub rewrite: Option<UrlRewrite>,
    /// What few have.
    pub more: Option<Box<MoreFilters>>,
}

/// Header edits, applied in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HeaderEdits {
    /// Replace or add.
    pub set: Vec<HeaderValue>,
    /// Add beside what is there.
    pub add: Vec<HeaderValue>,
    /// Take away; lowercase names.
    pub remove: Vec<Box<str>>,
}

impl HeaderEdits {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// A header; values that are credentials by their name print as a fingerprint.
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderValue {
    /// Lowercase.
    pub name: Box<str>,
    /// As configured.
    pub value: Box<str>,
}

impl HeaderValue {
    fn shown(&self) -> String {
        let secret = [
            "authorization",
            "cookie",
            "token",
            "key",
            "secret",
            "password",
        ]
        .iter()
        .any(|word| self.name.contains(word));
        if secret {
            Sealed::new(&*self.value).to_string()
        } else {
            self.value.to_string()
        }
    }
}

impl std::fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.shown())
    }
}

impl Serialize for HeaderValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut pair = serializer.serialize_tuple(2)?;
        pair.serialize_element(&self.name)?;
        pair.serialize_element(&self.shown())?;
        pair.end()
    }
}

/// Another path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum PathEdit {
    /// Instead of the whole path.
    Full(Box<str>),
    /// Instead of the matched prefix.
    Prefix(Box<str>),
}

impl PathEdit {
    fn apply(&self, path: &str, matched_prefix: usize) -> String {
        match self {
            Self::Full(full) => full.to_string(),
            Self::Prefix(prefix) => {
                let rest = path.get(matched_prefix..).unwrap_or_default();
                let prefix = prefix.trim_end_matches('/');
                let slash = |text: &str| {
                    if text.starts_with('/') || text.is_empty() {
                        ""
                    } else {
                        "/"
                    }
                };
                let edited = format!("{}{prefix}{}{rest}", slash(prefix), slash(rest));
                if edited.is_empty() {
                    "/".to_owned()
                } else {
                    edited
                }
            }
        }
    }
}

/// An answer that sends the client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Redirect {
    /// `http` or `https`; `None` keeps the request's.
    pub scheme: Option<Box<str>>,
    /// `None` keeps the request's.
    pub hostname: Option<Box<str>>,
    /// `None` derives it from the scheme or the listener.
    pub port: Option<u16>,
    /// `None` keeps the request's.
    pub path: Option<PathEdit>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

impl Redirect {
    /// The `Location` for a request that came in by `scheme` on `listener_port`.
    pub fn location(
        &self,
        request: &impl RequestView,
        matched_prefix: usize,
        listener_port: u16,
        scheme: &str,
    ) -> String {
        let well_known = |scheme: &str| if scheme == "https" { 443 } else { 80 };
        let target_scheme = self.scheme.as_deref().unwrap_or(scheme);
        let port = self.port.unwrap_or_else(|| match &self.scheme {
            Some(scheme) => well_known(scheme),
            None => listener_port,
        });
        let host = self.hostname.as_deref().unwrap_or(request.host());
        let mut location = format!("{target_scheme}://{host}");
        if port != well_known(target_scheme) {
            location.push_str(&format!(":{port}"));
        }
        push_target(&mut location, self.path.as_ref(), request, matched_prefix);
        location
    }
}

fn push_target(
    out: &mut String,
    edit: Option<&PathEdit>,
    request: &impl RequestView,
    matched_prefix: usize,
) {
    match edit {
        Some(edit) => out.push_str(&edit.apply(request.path(), matched_prefix)),
        None => out.push_str(request.path()),
    }
    if let Some(query) = request.query() {
        out.push('?');
        out.push_str(query);
    }
}

/// What the backend sees instead of the client's host or path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UrlRewrite {
    /// The new `Host`.
    pub hostname: Option<Box<str>>,
    /// The new path.
    pub path: Option<PathEdit>,
}

impl UrlRewrite {
    /// The target in origin form.
    pub fn target(&self, path: &str, query: Option<&str>, matched_prefix: usize) -> String {
        let mut target = match &self.path {
            Some(edit) => edit.apply(path, matched_prefix),
            None => path.to_owned(),
        };
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::Request;

    #[test]
    fn a_prefix_is_replaced_by_path_element() {
        // Table of HTTPPathModifier.replacePrefixMatch in the Gateway API.
        for (path, prefix, replacement, rewritten) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/a", "", "/xyz", "/xyz/a"),
            ("/a", "", "xyz", "/xyz/a"),
        ] {
            let rewrite = UrlRewrite {
                hostname: None,
                path: Some(PathEdit::Prefix(replacement.into())),
            };
            assert_eq!(
                rewrite.target(path, None, prefix.len()),
                rewritten,
                "{path} {replacement}"
            );
            let queried = rewrite.target(path, Some("a=b?c"), prefix.len());
            assert_eq!(queried, format!("{rewritten}?a=b?c"));
        }
    }

    #[test]
    fn a_redirect_keeps_what_it_does_not_name() {
        let plain = Redirect {
            scheme: None,
            hostname: None,
            port: None,
            path: None,
            status: 302,
        };
        let https = Redirect {
            scheme: Some("https".into()),
            ..plain.clone()
        };
        let host = Redirect {
            hostname: Some("other.org".into()),
            ..plain.clone()
        };
        let port = Redirect {
            port: Some(8443),
            ..https.clone()
        };
        let full = Redirect {
            path: Some(PathEdit::Full("/new".into())),
            ..plain.clone()
        };
        for (redirect, listener_port, location) in [
            (&plain, 80, "http://example.com/old/x?q=1"),
            (&plain, 8080, "http://example.com:8080/old/x?q=1"),
            (&https, 8080, "https://example.com/old/x?q=1"),
            (&port, 8080, "https://example.com:8443/old/x?q=1"),
            (&host, 80, "http://other.org/old/x?q=1"),
            (&full, 80, "http://example.com/new?q=1"),
        ] {
            let request = Request::get("example.com", "/old/x?q=1");
            assert_eq!(
                redirect.location(&request, 4, listener_port, "http"),
                location
            );
        }
    }

    #[test]
    fn credentials_in_header_edits_are_not_printed() {
        for (name, shown) in [
            ("authorization", false),
            ("x-api-key", false),
            ("x-team", true),
        ] {
            let edit = HeaderValue {
                name: name.into(),
                value: "s3cr3t".into(),
            };
            let printed = format!("{edit:?} {}", serde_json::to_string(&edit).unwrap());
            assert_eq!(printed.contains("s3cr3t"), shown, "{printed}");
        }
    }
}
