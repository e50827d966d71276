//! What an API server would refuse beyond types: rules between fields, from the CRDs' own
//! validation. Everything here is wrong whatever other objects exist.

use std::net::IpAddr;

use crate::host::HostPattern;
use crate::objects::gateway::GatewaySpec;
use crate::objects::http_route::{FilterType, HttpRouteFilter, HttpRouteRule, HttpRouteSpec};
use crate::objects::inference_model::{Criticality, InferenceModelSpec};
use crate::objects::inference_pool::InferencePoolSpec;
use crate::objects::meta::Meta;
use crate::objects::penstock::{PickerChoice, PoolPolicySpec, ProfileChoice};
use crate::objects::service::{EndpointSlice, SliceAddressType};
use crate::objects::{Kind, Resource};
use crate::subset;
use crate::yaml::nearest;

/// Pairs of field path and message.
#[derive(Default)]
struct Problems(Vec<(String, String)>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push((path.into(), message.into()));
    }

    fn unknown(&mut self, path: &str, word: &str, known: &[&'static str]) {
        let hint = match nearest(word, known.iter().copied()) {
            Some(near) => format!(", did you mean `{near}`?"),
            None => String::new(),
        };
        let message = format!(
            "unknown value `{word}`, expected one of {}{hint}",
            known.join(", ")
        );
        self.add(path, message);
    }
}

/// What is wrong with an object on its own.
pub(super) fn resource(resource: &Resource) -> Vec<(String, String)> {
    let mut problems = Problems::default();
    meta(resource.kind(), resource.meta(), &mut problems);
    match resource {
        Resource::Gateway(gateway) => self::gateway(&gateway.spec, &mut problems),
        Resource::HttpRoute(route) => http_route(&route.spec, &mut problems),
        Resource::EndpointSlice(slice) => endpoint_slice(slice, &mut problems),
        Resource::InferencePool(pool) => inference_pool(&pool.spec, &mut problems),
        Resource::InferenceModel(model) => inference_model(&model.spec, &mut problems),
        Resource::PoolPolicy(policy) => pool_policy(&policy.spec, &mut problems),
        Resource::GatewayParameters(parameters) => {
            if let Some(PickerChoice::Unknown(word)) = &parameters.spec.picker {
                problems.unknown("spec.picker", word, PickerChoice::KNOWN);
            }
        }
        _ => {}
    }
    problems.0
}

/// RFC 1123 names of the API machinery.
fn meta(kind: Kind, meta: &Meta, problems: &mut Problems) {
    let is_name = |name: &str| {
        let lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
        let parts = name.split('.').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !part.starts_with('-')
                && !part.ends_with('-')
        });
        lower && parts && name.len() <= 253
    };
    if !is_name(&meta.name) {
        let message = format!(
            "`{}` is no name of a {kind}: lowercase letters, digits, dashes and dots only",
            meta.name
        );
        problems.add("metadata.name", message);
    }
    if let Some(namespace) = &meta.namespace
        && (!is_name(namespace) || namespace.contains('.'))
    {
        problems.add(
            "metadata.namespace",
            format!("`{namespace}` is no name of a namespace"),
        );
    }
}

fn gateway(spec: &GatewaySpec, problems: &mut Problems) {
    if spec.listeners.is_empty() {
        problems.add("spec.listeners", "a gateway needs at least one listener");
    }
    for (index, listener) in spec.listeners.iter().enumerate() {
        let path = format!("spec.listeners[{index}]");
        if spec
            .listeners
            .iter()
            .take(index)
            .any(|earlier| earlier.name == listener.name)
        {
            let message = format!("listener `{}` is written twice", listener.name);
            problems.add(format!("{path}.name"), message);
        }
        if let Some(text) = listener.hostname.as_deref()
            && !text.is_empty()
            && HostPattern::parse(text).is_none()
        {
            problems.add(
                format!("{path}.hostname"),
                format!("`{text}` is no hostname"),
            );
        }
    }
}

fn http_route(spec: &HttpRouteSpec, problems: &mut Problems) {
    for (index, text) in spec.hostnames.iter().enumerate() {
        if HostPattern::parse(text).is_none() {
            problems.add(
                format!("spec.hostnames[{index}]"),
                format!("`{text}` is no hostname"),
            );
        }
    }
    for (index, rule) in spec.rules.iter().flatten().enumerate() {
        http_rule(rule, &format!("spec.rules[{index}]"), problems);
    }
}

fn http_rule(rule: &HttpRouteRule, path: &str, problems: &mut Problems) {
    filters(&rule.filters, &format!("{path}.filters"), problems);
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        let path = format!("{path}.backendRefs[{index}]");
        let is_service = backend.kind.as_deref().unwrap_or("Service") == "Service"
            && backend.group.as_deref().unwrap_or_default().is_empty();
        if is_service && backend.port.is_none() {
            problems.add(path.as_str(), "a reference to a Service needs a port");
        }
        filters(&backend.filters, &format!("{path}.filters"), problems);
    }
    let timeouts = rule.timeouts.as_ref();
    let request = timeouts.and_then(|timeouts| timeouts.request.as_ref());
    let backend = timeouts.and_then(|timeouts| timeouts.backend_request.as_ref());
    if let (Some(request), Some(backend)) = (request, backend)
        && !request.value().is_zero()
        && backend.value() > request.value()
    {
        let message = format!("{backend} is longer than the request timeout of {request}");
        problems.add(format!("{path}.timeouts.backendRequest"), message);
    }
    let redirects = rule
        .filters
        .iter()
        .any(|filter| filter.filter_type == FilterType::RequestRedirect);
    if redirects && !rule.backend_refs.is_empty() {
        problems.add(
            format!("{path}.backendRefs"),
            "a rule that redirects has no backends",
        );
    }
}

/// Each type comes with its own field and no other.
fn filters(filters: &[HttpRouteFilter], path: &str, problems: &mut Problems) {
    for (index, filter) in filters.iter().enumerate() {
        let fields = [
            (
                FilterType::RequestHeaderModifier,
                "requestHeaderModifier",
                filter.request_header_modifier.is_some(),
            ),
            (
                FilterType::ResponseHeaderModifier,
                "responseHeaderModifier",
                filter.response_header_modifier.is_some(),
            ),
            (
                FilterType::RequestRedirect,
                "requestRedirect",
                filter.request_redirect.is_some(),
            ),
            (
                FilterType::UrlRewrite,
                "urlRewrite",
                filter.url_rewrite.is_some(),
            ),
            (
                FilterType::RequestMirror,
                "requestMirror",
                filter.request_mirror.is_some(),
            ),
            (FilterType::Cors, "cors", filter.cors.is_some()),
            (
                FilterType::ExternalAuth,
                "externalAuth",
                filter.external_auth.is_some(),
            ),
            (
                FilterType::ExtensionRef,
                "extensionRef",
                filter.extension_ref.is_some(),
            ),
        ];
        let own_type = filter.filter_type.as_str();
        for (filter_type, field, is_present) in fields {
            let is_own = filter_type == filter.filter_type;
            if is_own && !is_present {
                let message = format!("a filter of type {own_type} needs field `{field}`");
                problems.add(format!("{path}[{index}]"), message);
            } else if is_present && !is_own {
                let message = format!("field `{field}` does not belong to type {own_type}");
                problems.add(format!("{path}[{index}].{field}"), message);
            }
        }
    }
}

fn endpoint_slice(slice: &EndpointSlice, problems: &mut Problems) {
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        for (position, text) in endpoint.addresses.iter().enumerate() {
            let fits = match (&slice.address_type, text.parse::<IpAddr>()) {
                (SliceAddressType::Ipv4, address) => matches!(address, Ok(IpAddr::V4(_))),
                (SliceAddressType::Ipv6, address) => matches!(address, Ok(IpAddr::V6(_))),
                (SliceAddressType::Fqdn, _) => {
                    matches!(HostPattern::parse(text), Some(HostPattern::Exact(_)))
                }
                (SliceAddressType::Unknown(_), _) => true,
            };
            if !fits {
                let message = format!(
                    "`{text}` is no address of type {}",
                    slice.address_type.as_str()
                );
                problems.add(format!("endpoints[{index}].addresses[{position}]"), message);
            }
        }
    }
    if let SliceAddressType::Unknown(word) = &slice.address_type {
        problems.unknown("addressType", word, SliceAddressType::KNOWN);
    }
}

fn inference_pool(spec: &InferencePoolSpec, problems: &mut Problems) {
    if spec.selector.match_labels.is_empty() {
        problems.add(
            "spec.selector.matchLabels",
            "a pool needs at least one label",
        );
    }
    if spec.target_ports.is_empty() {
        problems.add("spec.targetPorts", "a pool needs at least one port");
    }
    for (index, port) in spec.target_ports.iter().enumerate() {
        if spec
            .target_ports
            .iter()
            .take(index)
            .any(|earlier| earlier == port)
        {
            let message = format!("port {} is written twice", port.number.number());
            problems.add(format!("spec.targetPorts[{index}]"), message);
        }
    }
    let protocol = spec.app_protocol.as_deref();
    if let Some(word) = protocol.filter(|word| !["http", "kubernetes.io/h2c"].contains(word)) {
        problems.unknown("spec.appProtocol", word, &["http", "kubernetes.io/h2c"]);
    }
    if let Some(reference) = &spec.endpoint_picker_ref
        && reference.kind.as_deref().unwrap_or("Service") == "Service"
        && reference.port.is_none()
    {
        problems.add(
            "spec.endpointPickerRef",
            "a reference to a Service needs a port",
        );
    }
}

fn inference_model(spec: &InferenceModelSpec, problems: &mut Problems) {
    if spec.model_name.is_empty() || spec.model_name.len() > 256 {
        problems.add("spec.modelName", "a model's name has 1 to 256 characters");
    }
    let weighted = spec
        .target_models
        .iter()
        .filter(|target| target.weight.is_some())
        .count();
    if weighted > 0 && weighted < spec.target_models.len() {
        problems.add(
            "spec.targetModels",
            "weights stand on all targets or on none",
        );
    }
    if let Some(Criticality::Unknown(word)) = &spec.criticality {
        problems.unknown("spec.criticality", word, Criticality::KNOWN);
    }
}

fn pool_policy(spec: &PoolPolicySpec, problems: &mut Problems) {
    if spec.target_refs.is_empty() {
        problems.add("spec.targetRefs", "a policy needs at least one target");
    }
    if let Some(ProfileChoice::Unknown(word)) = &spec.profile {
        problems.unknown("spec.profile", word, ProfileChoice::KNOWN);
    }
    if spec
        .saturation_seconds
        .is_some_and(|seconds| !(seconds > 0.0 && seconds.is_finite()))
    {
        problems.add("spec.saturationSeconds", "the time must be above 0");
    }
    let is_time = |seconds: f32| seconds > 0.0 && seconds <= 3600.0;
    if spec.pick_seconds.is_some_and(|seconds| !is_time(seconds)) {
        problems.add("spec.pickSeconds", "the time must be above 0, at most 3600");
    }
    problems.0.extend(subset::problems(&spec.subsets));
}
