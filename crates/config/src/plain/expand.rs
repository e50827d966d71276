//! The objects that a plain file stands for.
//!
//! One Gateway with its address, one HTTPRoute with a rule per pool, one InferencePool per pool
//! with one EndpointSlice per kind of address and port, and InferenceModel, PoolPolicy and
//! GatewayParameters where something was said that only they can say.

use std::net::IpAddr;
use std::sync::Arc;

use indexmap::IndexMap;

use super::{EndpointUrl, Plain, PlainModel, PlainPool, PlainProfile};
use crate::objects::gateway::{
    AddressType, Gateway, GatewayAddress, GatewayInfrastructure, GatewayListener, GatewaySpec,
    ListenerProtocol, ParametersReference,
};
use crate::objects::http_route::{
    HttpBackendReference, HttpNamedMatch, HttpRoute, HttpRouteMatch, HttpRouteRule, HttpRouteSpec,
    ParentReference,
};
use crate::objects::inference_model::{
    InferenceModel, InferenceModelSpec, PoolReference, TargetModel,
};
use crate::objects::inference_pool::{InferencePool, InferencePoolSpec, PoolSelector, TargetPort};
use crate::objects::meta::{Labels, Meta};
use crate::objects::penstock::{
    GatewayParameters, GatewayParametersSpec, PolicyTarget, PoolPolicy, PoolPolicySpec,
    ProfileChoice,
};
use crate::objects::service::{EndpointSlice, SliceAddressType, SliceEndpoint, SlicePort};
use crate::objects::{Kind, Object, PENSTOCK_GROUP, POOL_GROUP, Port, Resource};

mod tls;

/// Name of the Gateway, its class and its route.
const NAME: &str = "penstock";
/// Ties the slices of a pool to it.
const POOL_LABEL: &str = "penstock.dev/pool";
/// Set from the request's body before routes are matched.
const MODEL_HEADER: &str = "X-Gateway-Model-Name";

/// The objects that `plain` stands for, in the order in which a person would write them.
pub fn expand_plain(plain: &Plain) -> Vec<Object> {
    let mut resources = Vec::new();
    if plain.trust_inference_headers {
        let spec = GatewayParametersSpec {
            trust_inference_headers: Some(true),
            ..Default::default()
        };
        resources.push(Resource::GatewayParameters(Arc::new(GatewayParameters {
            api_version: api_version(Kind::GatewayParameters),
            kind: Kind::GatewayParameters.to_string(),
            metadata: meta(NAME),
            spec,
            status: None,
        })));
    }
    resources.push(gateway(plain));
    resources.extend(tls::files(plain));
    resources.push(route(plain));
    for pool in &plain.pools {
        expand_pool(pool, &mut resources);
    }
    resources.into_iter().map(Object::from).collect()
}

fn api_version(kind: Kind) -> String {
    kind.api_versions()
        .first()
        .copied()
        .unwrap_or_default()
        .to_owned()
}

fn meta(name: &str) -> Meta {
    Meta {
        name: name.to_owned(),
        namespace: Some(crate::name::DEFAULT_NAMESPACE.to_owned()),
        ..Meta::default()
    }
}

fn gateway(plain: &Plain) -> Resource {
    let infrastructure = plain
        .trust_inference_headers
        .then(|| GatewayInfrastructure {
            parameters_ref: Some(ParametersReference {
                group: PENSTOCK_GROUP.to_owned(),
                kind: Kind::GatewayParameters.to_string(),
                name: NAME.to_owned(),
                namespace: None,
            }),
            ..Default::default()
        });
    let listener = Port::new(plain.listen.port()).map(|port| GatewayListener {
        name: "http".to_owned(),
        port,
        protocol: match plain.tls {
            None => ListenerProtocol::Http,
            Some(_) => ListenerProtocol::Https,
        },
        hostname: None,
        tls: tls::of_listener(plain),
        allowed_routes: None,
    });
    let address = GatewayAddress {
        address_type: Some(AddressType::IpAddress),
        value: Some(plain.listen.ip().to_string()),
    };
    Resource::Gateway(Arc::new(Gateway {
        api_version: api_version(Kind::Gateway),
        kind: Kind::Gateway.to_string(),
        metadata: meta(NAME),
        spec: GatewaySpec {
            gateway_class_name: NAME.to_owned(),
            listeners: listener.into_iter().collect(),
            addresses: vec![address],
            tls: tls::of_gateway(plain),
            infrastructure,
            ..Default::default()
        },
        status: None,
    }))
}

/// One rule per pool, by model; the last one leads everything else to the pool that lists no
/// models, or to the first.
fn route(plain: &Plain) -> Resource {
    let rest = plain
        .pools
        .iter()
        .find(|pool| pool.models.is_empty())
        .or(plain.pools.first());
    let is_rest = |pool: &PlainPool| rest.is_some_and(|rest| std::ptr::eq(rest, pool));
    let by_model = plain.pools.iter().filter(|pool| !is_rest(pool));
    let mut rules: Vec<HttpRouteRule> = by_model
        .map(|pool| HttpRouteRule {
            matches: pool
                .models
                .iter()
                .map(|model| model_match(&model.name))
                .collect(),
            backend_refs: vec![backend(&pool.name)],
            ..Default::default()
        })
        .collect();
    rules.extend(rest.map(|pool| HttpRouteRule {
        backend_refs: vec![backend(&pool.name)],
        ..Default::default()
    }));
    Resource::HttpRoute(Arc::new(HttpRoute {
        api_version: api_version(Kind::HttpRoute),
        kind: Kind::HttpRoute.to_string(),
        metadata: meta(NAME),
        spec: HttpRouteSpec {
            parent_refs: vec![ParentReference {
                name: NAME.to_owned(),
                ..Default::default()
            }],
            rules: Some(rules),
            ..Default::default()
        },
        status: None,
    }))
}

fn model_match(model: &str) -> HttpRouteMatch {
    HttpRouteMatch {
        headers: vec![HttpNamedMatch {
            name: MODEL_HEADER.to_owned(),
            value: model.to_owned(),
            match_type: None,
        }],
        ..Default::default()
    }
}

fn backend(pool: &str) -> HttpBackendReference {
    HttpBackendReference {
        name: pool.to_owned(),
        group: Some(POOL_GROUP.to_owned()),
        kind: Some(Kind::InferencePool.to_string()),
        namespace: None,
        port: None,
        weight: None,
        filters: Vec::new(),
    }
}

fn expand_pool(pool: &PlainPool, resources: &mut Vec<Resource>) {
    let mut slices: IndexMap<(&'static str, Port), Vec<&EndpointUrl>> = IndexMap::new();
    for endpoint in &pool.endpoints {
        if let Some(port) = Port::new(endpoint.port) {
            slices
                .entry((address_type(endpoint), port))
                .or_default()
                .push(endpoint);
        }
    }
    let mut ports: Vec<Port> = slices.keys().map(|(_, port)| *port).collect();
    ports.sort_unstable();
    ports.dedup();
    let labels = Labels::from([(POOL_LABEL.to_owned(), pool.name.clone())]);
    resources.push(Resource::InferencePool(Arc::new(InferencePool {
        api_version: api_version(Kind::InferencePool),
        kind: Kind::InferencePool.to_string(),
        metadata: meta(&pool.name),
        spec: InferencePoolSpec {
            selector: PoolSelector {
                match_labels: labels.clone(),
            },
            target_ports: ports
                .into_iter()
                .map(|number| TargetPort { number })
                .collect(),
            app_protocol: None,
            endpoint_picker_ref: None,
        },
        status: None,
    })));
    for (index, ((address_type, port), endpoints)) in slices.into_iter().enumerate() {
        let name = format!("{}-{}", pool.name, index + 1);
        resources.push(slice(&name, &labels, (address_type, port), &endpoints));
    }
    resources.extend(tls::of_pool(pool));
    resources.extend(policy(pool));
    if pool.models.iter().any(|model| model.settings.is_some()) {
        let models = pool.models.iter().enumerate();
        resources.extend(models.map(|(index, model)| inference_model(pool, index, model)));
    }
}

fn address_type(endpoint: &EndpointUrl) -> &'static str {
    match endpoint.host.parse() {
        Ok(IpAddr::V4(_)) => "IPv4",
        Ok(IpAddr::V6(_)) => "IPv6",
        Err(_) => "FQDN",
    }
}

fn slice(
    name: &str,
    labels: &Labels,
    (address_type, port): (&str, Port),
    endpoints: &[&EndpointUrl],
) -> Resource {
    let endpoint = |url: &&EndpointUrl| SliceEndpoint {
        addresses: vec![url.host.clone()],
        conditions: None,
        hostname: None,
        target_ref: None,
        node_name: None,
        zone: None,
        hints: None,
        deprecated_topology: IndexMap::new(),
    };
    Resource::EndpointSlice(Arc::new(EndpointSlice {
        api_version: api_version(Kind::EndpointSlice),
        kind: Kind::EndpointSlice.to_string(),
        metadata: Meta {
            labels: labels.clone(),
            ..meta(name)
        },
        address_type: SliceAddressType::from(address_type),
        endpoints: endpoints.iter().map(endpoint).collect(),
        ports: vec![SlicePort {
            port: Some(port),
            ..Default::default()
        }],
    }))
}

fn policy(pool: &PlainPool) -> Option<Resource> {
    let spec = PoolPolicySpec {
        target_refs: vec![PolicyTarget {
            group: POOL_GROUP.to_owned(),
            kind: Kind::InferencePool.to_string(),
            name: pool.name.clone(),
        }],
        profile: pool.profile.map(|profile| match profile {
            PlainProfile::Cost => ProfileChoice::Cost,
            PlainProfile::LeastRequests => ProfileChoice::LeastRequests,
        }),
        saturation_seconds: pool.saturation_seconds,
        queue: pool.queue.clone(),
        pick_seconds: None,
        probes: pool.probes,
        subsets: Vec::new(),
    };
    let says_something = spec.profile.is_some()
        || spec.saturation_seconds.is_some()
        || spec.queue.is_some()
        || spec.probes.is_some();
    says_something.then(|| {
        Resource::PoolPolicy(Arc::new(PoolPolicy {
            api_version: api_version(Kind::PoolPolicy),
            kind: Kind::PoolPolicy.to_string(),
            metadata: meta(&pool.name),
            spec,
            status: None,
        }))
    })
}

fn inference_model(pool: &PlainPool, index: usize, model: &PlainModel) -> Resource {
    let settings = model.settings.clone().unwrap_or_default();
    let targets = settings.targets.into_iter();
    Resource::InferenceModel(Arc::new(InferenceModel {
        api_version: api_version(Kind::InferenceModel),
        kind: Kind::InferenceModel.to_string(),
        // A model's name is no name of an object: it may have slashes and capitals.
        metadata: meta(&format!("{}-{}", pool.name, index + 1)),
        spec: InferenceModelSpec {
            model_name: model.name.clone(),
            pool_ref: PoolReference {
                name: pool.name.clone(),
                group: Some(POOL_GROUP.to_owned()),
                kind: None,
            },
            criticality: settings.criticality,
            target_models: targets
                .map(|target| TargetModel {
                    name: target.name,
                    weight: target.weight,
                })
                .collect(),
        },
        status: None,
    }))
}
