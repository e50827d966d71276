//! Whose parameters win.

use super::{GatewayParametersSpec, PickerChoice};
use crate::objects::service::ServiceType;
use serde_json::json;

fn full(number: u32, picker: PickerChoice, service_type: ServiceType) -> GatewayParametersSpec {
    GatewayParametersSpec {
        trust_inference_headers: Some(number == 1),
        picker: Some(picker),
        replicas: Some(number),
        resources: Some(json!({"limits": {"cpu": number}})),
        image: Some(format!("image-{number}")),
        service_type: Some(service_type),
    }
}

#[test]
fn each_field_comes_from_the_upper_ones_where_they_say_it() {
    let upper = full(1, PickerChoice::BuiltIn, ServiceType::NodePort);
    let under = full(2, PickerChoice::AsReferenced, ServiceType::ClusterIp);
    let nothing = GatewayParametersSpec::default();
    assert_eq!(upper.clone().over(&under), upper);
    assert_eq!(upper.clone().over(&nothing), upper);
    assert_eq!(nothing.clone().over(&under), under);
    // What is said to be off is said.
    let off = GatewayParametersSpec {
        trust_inference_headers: Some(false),
        ..nothing
    };
    let merged = off.over(&upper);
    assert_eq!(merged.trust_inference_headers, Some(false));
    assert_eq!(merged.image, upper.image);
    // Resources are one field: they are not mixed.
    let requests = GatewayParametersSpec {
        resources: Some(json!({"requests": {"cpu": 1}})),
        ..GatewayParametersSpec::default()
    };
    let merged = requests.clone().over(&upper);
    assert_eq!(merged.resources, requests.resources);
}
