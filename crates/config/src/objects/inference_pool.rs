//! InferencePool: v1 (`inference.networking.k8s.io`) and the older v1alpha2
//! (`inference.networking.x-k8s.io`), which is read and lowered to the same form.

use serde_json::Value;

use super::meta::{Labels, Meta};
use super::wire::{Port, open_enum, wire};

wire!(
    /// A set of model servers that one picker chooses from.
    InferencePool {
        api_version: String,
        kind: String,
        metadata: Meta,
        spec: InferencePoolSpec;
        status: Option<Value>,
    }
);

wire!(
    InferencePoolSpec {
        selector: PoolSelector,
        target_ports: Vec<TargetPort>;
        app_protocol: Option<String>,
        endpoint_picker_ref: Option<EndpointPickerReference>,
    }
);

wire!(
    PoolSelector {
        match_labels: Labels;
    }
);

wire!(
    TargetPort {
        number: Port;
    }
);

wire!(
    /// Group and kind default to the core Service, the failure mode to `FailClose`.
    EndpointPickerReference {
        name: String;
        group: Option<String>,
        kind: Option<String>,
        port: Option<TargetPort>,
        failure_mode: Option<FailureMode>,
    }
);

open_enum!(
    /// What to do when the endpoint picker does not answer.
    FailureMode {
        FailOpen = "FailOpen",
        FailClose = "FailClose",
    }
);

wire!(
    /// The pool of v1alpha2.
    InferencePoolV1Alpha2 {
        api_version: String,
        kind: String,
        metadata: Meta,
        spec: InferencePoolV1Alpha2Spec;
        status: Option<Value>,
    }
);

wire!(
    InferencePoolV1Alpha2Spec {
        selector: Labels,
        target_port_number: Port;
        extension_ref: Option<ExtensionReference>,
    }
);

wire!(
    ExtensionReference {
        name: String;
        group: Option<String>,
        kind: Option<String>,
        port_number: Option<Port>,
        failure_mode: Option<FailureMode>,
    }
);

impl InferencePoolV1Alpha2Spec {
    /// The same pool as v1 says it.
    pub fn to_v1(&self) -> InferencePoolSpec {
        InferencePoolSpec {
            selector: PoolSelector {
                match_labels: self.selector.clone(),
            },
            target_ports: vec![TargetPort {
                number: self.target_port_number,
            }],
            app_protocol: None,
            endpoint_picker_ref: self.extension_ref.as_ref().map(|reference| {
                EndpointPickerReference {
                    name: reference.name.clone(),
                    group: reference.group.clone(),
                    kind: reference.kind.clone(),
                    // v1alpha2 defaults to 9002, the picker's usual port.
                    port: reference
                        .port_number
                        .or_else(|| Port::new(9002))
                        .map(|number| TargetPort { number }),
                    failure_mode: reference.failure_mode.clone(),
                }
            }),
        }
    }
}
