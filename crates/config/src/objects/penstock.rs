//! Our own kinds, `penstock.dev/v1alpha1`: what the standard objects have no field for.

use serde_json::Value;

use super::meta::{Labels, Meta};
use super::service::ServiceType;
use super::wire::{open_enum, wire};

wire!(
    /// Settings of a Gateway (`spec.infrastructure.parametersRef`) or of all Gateways of a class
    /// (`spec.parametersRef`); the Gateway's own win field by field.
    GatewayParameters {
        api_version: String,
        kind: String,
        metadata: Meta;
        spec: GatewayParametersSpec,
        status: Option<Value>,
    }
);

wire!(
    #[derive(Default)]
    GatewayParametersSpec {
        ;
        /// Whether clients may raise their priority by inference headers; default false.
        trust_inference_headers: Option<bool>,
        /// `BuiltIn` passes over the endpoint pickers that pools name.
        picker: Option<PickerChoice>,
        /// Proxies of the Gateway, 1 to 1,000; set once and again when this value changes, so that
        /// an autoscaler may move it. Default 2. Only in a cluster, as are the following.
        replicas: Option<u32>,
        /// Requests and limits of the proxy's container.
        resources: Option<Value>,
        /// The proxy's image; default the controller's own.
        image: Option<String>,
        /// How the Gateway's Service is exposed; default `LoadBalancer`.
        service_type: Option<ServiceType>,
    }
);

impl GatewayParametersSpec {
    /// These parameters where they say something, else those of `under`.
    pub fn over(self, under: &Self) -> Self {
        let Self {
            trust_inference_headers,
            picker,
            replicas,
            resources,
            image,
            service_type,
        } = self;
        Self {
            trust_inference_headers: trust_inference_headers.or(under.trust_inference_headers),
            picker: picker.or_else(|| under.picker.clone()),
            replicas: replicas.or(under.replicas),
            resources: resources.or_else(|| under.resources.clone()),
            image: image.or_else(|| under.image.clone()),
            service_type: service_type.or_else(|| under.service_type.clone()),
        }
    }
}

open_enum!(
    /// Who picks endpoints.
    PickerChoice {
        BuiltIn = "BuiltIn",
        AsReferenced = "AsReferenced",
    }
);

wire!(
    /// How a pool is picked from. The oldest policy of a pool wins.
    PoolPolicy {
        api_version: String,
        kind: String,
        metadata: Meta,
        spec: PoolPolicySpec;
        status: Option<Value>,
    }
);

wire!(
    #[derive(Default)]
    PoolPolicySpec {
        target_refs: Vec<PolicyTarget>;
        profile: Option<ProfileChoice>,
        /// Above 0; default 5.
        saturation_seconds: Option<f32>,
        queue: Option<QueueSpec>,
        /// How long the endpoint picker that the pool names may take; above 0; default 5.
        pick_seconds: Option<f32>,
        /// Whether the gateway itself tries out members that cut answers or turned slow; default true.
        probes: Option<bool>,
        /// Members that requests are kept to: the first entry counts whose headers the request has
        /// and in which a member is not held for broken. At most 16.
        subsets: Vec<SubsetSpec>,
    }
);

wire!(
    /// Members of a pool with some labels, and the requests that are kept to them.
    SubsetSpec {
        match_labels: Labels;
        /// None: every request.
        headers: Vec<SubsetHeader>,
    }
);

wire!(
    /// A header and the value that it must have.
    SubsetHeader {
        name: String,
        value: String;
    }
);

wire!(
    /// A pool in the policy's namespace.
    PolicyTarget {
        group: String,
        kind: String,
        name: String;
    }
);

open_enum!(
    /// By what endpoints are compared.
    ProfileChoice {
        Cost = "cost",
        LeastRequests = "leastRequests",
    }
);

wire!(
    /// Bounds of the waiting queue of one pool.
    #[derive(Default)]
    QueueSpec {
        ;
        /// Default 1,000.
        requests: Option<u32>,
        /// Longest wait; default 60.
        seconds: Option<u32>,
        /// Bytes of waiting request bodies; default 256 MiB.
        bytes: Option<u64>,
    }
);

#[cfg(test)]
mod tests;
