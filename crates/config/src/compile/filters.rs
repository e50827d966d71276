//! Filters of a rule or a backend, lowered to one plain struct.

use super::lower::{Unusable, hint};
use crate::host::HostPattern;
use crate::objects::http_route::{
    FilterType, HeaderField, HeaderModifier, HttpRouteFilter, HttpRouteMatch, PathMatchType,
    PathModifier, PathModifierType, RequestRedirect, UrlRewriteFilter,
};
use crate::rule::{Filters, HeaderEdits, HeaderValue, PathEdit, Redirect, UrlRewrite};

mod more;

/// Status codes of redirects (HTTPRequestRedirectFilter).
pub(crate) const REDIRECT_CODES: &[u16] = &[301, 302, 303, 307, 308];

/// Lowers a list of filters; `matches` are those of the rule.
pub(super) fn lower(
    filters: &[HttpRouteFilter],
    matches: &[HttpRouteMatch],
    path: &str,
) -> Result<Filters, Unusable> {
    let mut lowered = Filters::default();
    let mut seen: Vec<&FilterType> = Vec::new();
    for (index, filter) in filters.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let may_repeat = filter.filter_type == FilterType::RequestMirror;
        if !may_repeat && seen.contains(&&filter.filter_type) {
            let message = format!("filter {} stands twice", filter.filter_type.as_str());
            return Err((path, message));
        }
        seen.push(&filter.filter_type);
        add(filter, matches, &path, &mut lowered)?;
    }
    if lowered.redirect.is_some() && lowered.rewrite.is_some() {
        let message = "a redirect and a rewrite cannot stand together";
        return Err((path.to_owned(), message.to_owned()));
    }
    Ok(lowered)
}

fn add(
    filter: &HttpRouteFilter,
    matches: &[HttpRouteMatch],
    path: &str,
    lowered: &mut Filters,
) -> Result<(), Unusable> {
    let missing = || {
        (
            path.to_owned(),
            format!("filter {} says nothing", filter.filter_type.as_str()),
        )
    };
    match &filter.filter_type {
        FilterType::RequestHeaderModifier => {
            let modifier = filter
                .request_header_modifier
                .as_ref()
                .ok_or_else(missing)?;
            let path = format!("{path}.requestHeaderModifier");
            lowered.request_headers = header_edits(modifier, &path)?;
        }
        FilterType::ResponseHeaderModifier => {
            let modifier = filter
                .response_header_modifier
                .as_ref()
                .ok_or_else(missing)?;
            let path = format!("{path}.responseHeaderModifier");
            lowered.response_headers = header_edits(modifier, &path)?;
        }
        FilterType::RequestRedirect => {
            let spec = filter.request_redirect.as_ref().ok_or_else(missing)?;
            let path = format!("{path}.requestRedirect");
            lowered.redirect = Some(redirect(spec, matches, &path)?);
        }
        FilterType::UrlRewrite => {
            let spec = filter.url_rewrite.as_ref().ok_or_else(missing)?;
            lowered.rewrite = Some(rewrite(spec, matches, &format!("{path}.urlRewrite"))?);
        }
        FilterType::Unknown(word) => {
            let hint = hint(word, FilterType::KNOWN);
            return Err((
                format!("{path}.type"),
                format!("unknown filter type `{word}`{hint}"),
            ));
        }
        FilterType::RequestMirror => {
            let spec = filter.request_mirror.as_ref().ok_or_else(missing)?;
            let mirror = more::mirror(spec, &format!("{path}.requestMirror"))?;
            let all = lowered.more.get_or_insert_default();
            all.mirrors.push(mirror);
        }
        FilterType::Cors => {
            let spec = filter.cors.as_ref().ok_or_else(missing)?;
            let cors = more::cors(spec, &format!("{path}.cors"))?;
            lowered.more.get_or_insert_default().cors = Some(cors);
        }
        FilterType::ExternalAuth | FilterType::ExtensionRef => {
            let message = format!(
                "filter type {} is not served yet",
                filter.filter_type.as_str()
            );
            return Err((format!("{path}.type"), message));
        }
    }
    Ok(())
}

fn header_edits(modifier: &HeaderModifier, path: &str) -> Result<HeaderEdits, Unusable> {
    let values = |list: &[HeaderField], field: &str| -> Result<Vec<HeaderValue>, Unusable> {
        let checked = list.iter().enumerate().map(|(index, header)| {
            let path = format!("{path}.{field}[{index}]");
            let name = header_name(&header.name, &path)?;
            if header
                .value
                .bytes()
                .any(|byte| byte.is_ascii_control() && byte != b'\t')
            {
                let message = format!("value of header `{name}` has control characters");
                return Err((format!("{path}.value"), message));
            }
            Ok(HeaderValue {
                name,
                value: header.value.as_str().into(),
            })
        });
        checked.collect()
    };
    let remove = modifier.remove.iter().enumerate();
    Ok(HeaderEdits {
        set: values(&modifier.set, "set")?,
        add: values(&modifier.add, "add")?,
        remove: remove
            .map(|(index, name)| header_name(name, &format!("{path}.remove[{index}]")))
            .collect::<Result<_, _>>()?,
    })
}

/// A token of RFC 9110 section 5.6.2, lowercase.
pub(crate) fn header_name(name: &str, path: &str) -> Result<Box<str>, Unusable> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err((path.to_owned(), format!("`{name}` is no header name")));
    }
    Ok(name.to_ascii_lowercase().into())
}

fn redirect(
    spec: &RequestRedirect,
    matches: &[HttpRouteMatch],
    path: &str,
) -> Result<Redirect, Unusable> {
    let status = spec.status_code.unwrap_or(302);
    if !REDIRECT_CODES.contains(&status) {
        let message = format!("status {status} is no redirect that is served");
        return Err((format!("{path}.statusCode"), message));
    }
    if let Some(scheme) = spec.scheme.as_deref()
        && !matches!(scheme, "http" | "https")
    {
        let hint = hint(scheme, &["http", "https"]);
        return Err((
            format!("{path}.scheme"),
            format!("unknown scheme `{scheme}`{hint}"),
        ));
    }
    Ok(Redirect {
        scheme: spec.scheme.as_deref().map(Into::into),
        hostname: hostname(spec.hostname.as_deref(), path)?,
        port: spec.port.map(|port| port.number()),
        path: path_edit(spec.path.as_ref(), matches, path)?,
        status,
    })
}

fn rewrite(
    spec: &UrlRewriteFilter,
    matches: &[HttpRouteMatch],
    path: &str,
) -> Result<UrlRewrite, Unusable> {
    Ok(UrlRewrite {
        hostname: hostname(spec.hostname.as_deref(), path)?,
        path: path_edit(spec.path.as_ref(), matches, path)?,
    })
}

fn hostname(text: Option<&str>, path: &str) -> Result<Option<Box<str>>, Unusable> {
    let Some(text) = text else { return Ok(None) };
    match HostPattern::parse(text) {
        Some(HostPattern::Exact(host)) => Ok(Some(host)),
        _ => Err((
            format!("{path}.hostname"),
            format!("`{text}` is no hostname"),
        )),
    }
}

fn path_edit(
    modifier: Option<&PathModifier>,
    matches: &[HttpRouteMatch],
    path: &str,
) -> Result<Option<PathEdit>, Unusable> {
    let Some(modifier) = modifier else {
        return Ok(None);
    };
    let path = format!("{path}.path");
    // The text becomes part of a request line or of a header.
    let clean = |text: &str, field: &str| {
        if text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#')
        {
            Ok(Box::from(text))
        } else {
            Err((format!("{path}.{field}"), format!("`{text}` is no path")))
        }
    };
    match (
        &modifier.modifier_type,
        &modifier.replace_full_path,
        &modifier.replace_prefix_match,
    ) {
        (PathModifierType::ReplaceFullPath, Some(full), _) => {
            let full: Box<str> = clean(full, "replaceFullPath")?;
            Ok(Some(PathEdit::Full(if full.starts_with('/') {
                full
            } else {
                format!("/{full}").into()
            })))
        }
        (PathModifierType::ReplacePrefixMatch, _, Some(prefix)) => {
            let is_prefix = |one: &HttpRouteMatch| {
                let match_type = one.path.as_ref().and_then(|path| path.match_type.as_ref());
                matches!(match_type, None | Some(PathMatchType::PathPrefix))
            };
            if !matches.iter().all(is_prefix) {
                let message = "a prefix can only be replaced where every match is a PathPrefix";
                return Err((format!("{path}.type"), message.to_owned()));
            }
            Ok(Some(PathEdit::Prefix(clean(prefix, "replacePrefixMatch")?)))
        }
        (PathModifierType::Unknown(word), ..) => {
            let hint = hint(word, PathModifierType::KNOWN);
            Err((
                format!("{path}.type"),
                format!("unknown path modifier `{word}`{hint}"),
            ))
        }
        _ => Err((
            path,
            "the path modifier says nothing for its type".to_owned(),
        )),
    }
}
