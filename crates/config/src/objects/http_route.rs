//! HTTPRoute of `gateway.networking.k8s.io/v1`: one filter type for rules and backends.

use serde_json::Value;

use super::meta::Meta;
use super::wire::{Port, Weight, open_enum, wire};
use crate::duration::ApiDuration;

wire!(
    /// How requests of some hosts reach backends.
    HttpRoute {
        api_version: String,
        kind: String,
        metadata: Meta,
        spec: HttpRouteSpec;
        status: Option<Value>,
    }
);

wire!(
    #[derive(Default)]
    HttpRouteSpec {
        ;
        parent_refs: Vec<ParentReference>,
        hostnames: Vec<String>,
        rules: Option<Vec<HttpRouteRule>>,
        use_default_gateways: Option<String>,
    }
);

wire!(
    /// What a route attaches to; group and kind default to the Gateway.
    #[derive(Default)]
    ParentReference {
        name: String;
        group: Option<String>,
        kind: Option<String>,
        namespace: Option<String>,
        section_name: Option<String>,
        port: Option<Port>,
    }
);

wire!(
    #[derive(Default)]
    HttpRouteRule {
        ;
        name: Option<String>,
        matches: Vec<HttpRouteMatch>,
        filters: Vec<HttpRouteFilter>,
        backend_refs: Vec<HttpBackendReference>,
        timeouts: Option<HttpRouteTimeouts>,
        retry: Option<HttpRouteRetry>,
        session_persistence: Option<Value>,
    }
);

wire!(
    #[derive(Default)]
    HttpRouteTimeouts {
        ;
        request: Option<ApiDuration>,
        backend_request: Option<ApiDuration>,
    }
);

wire!(
    /// Tries after the first; connection errors and late backends count beside the codes.
    #[derive(Default)]
    HttpRouteRetry {
        ;
        codes: Vec<u16>,
        attempts: Option<u32>,
        backoff: Option<ApiDuration>,
    }
);

wire!(
    /// All given parts must match; an empty one matches everything.
    #[derive(Default)]
    HttpRouteMatch {
        ;
        path: Option<HttpPathMatch>,
        headers: Vec<HttpNamedMatch>,
        query_params: Vec<HttpNamedMatch>,
        method: Option<String>,
    }
);

wire!(
    /// Type and value default to `PathPrefix` and `/`.
    #[derive(Default)]
    HttpPathMatch {
        ;
        #[serde(rename = "type")]
        match_type: Option<PathMatchType>,
        value: Option<String>,
    }
);

open_enum!(
    /// How a path is compared.
    PathMatchType {
        Exact = "Exact",
        PathPrefix = "PathPrefix",
        RegularExpression = "RegularExpression",
    }
);

wire!(
    /// A header or query parameter and the value it must have.
    HttpNamedMatch {
        name: String,
        value: String;
        #[serde(rename = "type")]
        match_type: Option<ValueMatchType>,
    }
);

open_enum!(
    /// How a header or query value is compared; absent means `Exact`.
    ValueMatchType {
        Exact = "Exact",
        RegularExpression = "RegularExpression",
    }
);

wire!(
    /// A filter: `type` says which of the other fields must stand.
    HttpRouteFilter {
        #[serde(rename = "type")]
        filter_type: FilterType;
        request_header_modifier: Option<HeaderModifier>,
        response_header_modifier: Option<HeaderModifier>,
        request_redirect: Option<RequestRedirect>,
        url_rewrite: Option<UrlRewriteFilter>,
        request_mirror: Option<RequestMirror>,
        cors: Option<CorsFilter>,
        external_auth: Option<Value>,
        extension_ref: Option<Value>,
    }
);

open_enum!(
    /// What a filter does.
    FilterType {
        RequestHeaderModifier = "RequestHeaderModifier",
        ResponseHeaderModifier = "ResponseHeaderModifier",
        RequestRedirect = "RequestRedirect",
        UrlRewrite = "URLRewrite",
        RequestMirror = "RequestMirror",
        Cors = "CORS",
        ExternalAuth = "ExternalAuth",
        ExtensionRef = "ExtensionRef",
    }
);

wire!(
    #[derive(Default)]
    HeaderModifier {
        ;
        set: Vec<HeaderField>,
        add: Vec<HeaderField>,
        remove: Vec<String>,
    }
);

wire!(
    HeaderField {
        name: String,
        value: String;
    }
);

wire!(
    #[derive(Default)]
    RequestRedirect {
        ;
        scheme: Option<String>,
        hostname: Option<String>,
        path: Option<PathModifier>,
        port: Option<Port>,
        status_code: Option<u16>,
    }
);

wire!(
    #[derive(Default)]
    UrlRewriteFilter {
        ;
        hostname: Option<String>,
        path: Option<PathModifier>,
    }
);

wire!(
    /// A copy of requests goes to another backend, whose answer nobody reads; all of them if
    /// neither share is given.
    RequestMirror {
        backend_ref: BackendObjectReference;
        percent: Option<u32>,
        fraction: Option<Fraction>,
    }
);

wire!(
    Fraction {
        numerator: u32;
        denominator: Option<u32>,
    }
);

wire!(
    /// What pages of other origins may ask for; `*` stands for all.
    #[derive(Default)]
    CorsFilter {
        ;
        allow_origins: Vec<String>,
        allow_credentials: Option<bool>,
        allow_methods: Vec<String>,
        allow_headers: Vec<String>,
        expose_headers: Vec<String>,
        max_age: Option<u32>,
    }
);

wire!(
    PathModifier {
        #[serde(rename = "type")]
        modifier_type: PathModifierType;
        replace_full_path: Option<String>,
        replace_prefix_match: Option<String>,
    }
);

open_enum!(
    /// What a path modifier replaces.
    PathModifierType {
        ReplaceFullPath = "ReplaceFullPath",
        ReplacePrefixMatch = "ReplacePrefixMatch",
    }
);

wire!(
    /// Group and kind default to the core Service, the weight to 1.
    HttpBackendReference {
        name: String;
        group: Option<String>,
        kind: Option<String>,
        namespace: Option<String>,
        port: Option<Port>,
        weight: Option<Weight>,
        filters: Vec<HttpRouteFilter>,
    }
);

wire!(
    /// A backend without weight and filters.
    BackendObjectReference {
        name: String;
        group: Option<String>,
        kind: Option<String>,
        namespace: Option<String>,
        port: Option<Port>,
    }
);

impl From<&BackendObjectReference> for HttpBackendReference {
    fn from(reference: &BackendObjectReference) -> Self {
        Self {
            name: reference.name.clone(),
            group: reference.group.clone(),
            kind: reference.kind.clone(),
            namespace: reference.namespace.clone(),
            port: reference.port,
            weight: None,
            filters: Vec::new(),
        }
    }
}

impl HttpRouteFilter {
    /// What it mirrors to, if it does.
    pub(crate) fn mirror(&self) -> Option<&RequestMirror> {
        let is_mirror = self.filter_type == FilterType::RequestMirror;
        self.request_mirror.as_ref().filter(|_| is_mirror)
    }
}

impl HttpRouteRule {
    /// The filters of the rule, then those of each backend.
    pub(crate) fn filter_lists(&self) -> impl Iterator<Item = &[HttpRouteFilter]> {
        let of_backends = self.backend_refs.iter();
        let of_backends = of_backends.map(|backend| backend.filters.as_slice());
        std::iter::once(self.filters.as_slice()).chain(of_backends)
    }

    /// Where copies of requests go, in the order of [`Self::filter_lists`].
    pub(crate) fn mirrors(&self) -> impl Iterator<Item = &RequestMirror> {
        let filters = self.filter_lists().flatten();
        filters.filter_map(HttpRouteFilter::mirror)
    }
}
