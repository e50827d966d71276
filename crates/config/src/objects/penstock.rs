//! Our own kinds, `penstock.dev/v1alpha1`: what the standard objects have no field for.

use serde_json::Value;

use super::meta::Meta;
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
    }
);

open_enum!(
    /// Who picks endpoints.
    PickerChoice {
        BuiltIn = "BuiltIn",
        AsReferenced = "AsReferenced",
    }
);

wire!(
    /// How the built-in picker treats a pool. The oldest policy of a pool wins.
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
