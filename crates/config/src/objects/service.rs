//! Service and EndpointSlice: where a route's plain backends and a pool's file members come from.

use indexmap::IndexMap;
use serde_json::Value;

use super::meta::{Labels, Meta};
use super::wire::{Port, open_enum, wire};

wire!(
    /// A core Service. Only ports, type and the slices labelled with its name matter here.
    Service {
        api_version: String,
        kind: String,
        metadata: Meta;
        spec: Option<ServiceSpec>,
        status: Option<Value>,
    }
);

wire!(
    #[derive(Default)]
    ServiceSpec {
        ;
        ports: Vec<ServicePortSpec>,
        #[serde(rename = "type")]
        service_type: Option<ServiceType>,
        selector: Labels,
        #[serde(rename = "clusterIP")]
        cluster_ip: Option<String>,
        #[serde(rename = "clusterIPs")]
        cluster_ips: Vec<String>,
        #[serde(rename = "externalIPs")]
        external_ips: Vec<String>,
        external_name: Option<String>,
        session_affinity: Option<String>,
        session_affinity_config: Option<Value>,
        #[serde(rename = "loadBalancerIP")]
        load_balancer_ip: Option<String>,
        load_balancer_source_ranges: Vec<String>,
        load_balancer_class: Option<String>,
        external_traffic_policy: Option<String>,
        internal_traffic_policy: Option<String>,
        health_check_node_port: Option<i64>,
        publish_not_ready_addresses: Option<bool>,
        ip_families: Vec<String>,
        ip_family_policy: Option<String>,
        allocate_load_balancer_node_ports: Option<bool>,
        traffic_distribution: Option<String>,
    }
);

open_enum!(
    /// How a Service is exposed; absent means `ClusterIP`.
    ServiceType {
        ClusterIp = "ClusterIP",
        NodePort = "NodePort",
        LoadBalancer = "LoadBalancer",
        ExternalName = "ExternalName",
    }
);

wire!(
    ServicePortSpec {
        port: Port;
        name: Option<String>,
        protocol: Option<String>,
        app_protocol: Option<String>,
        target_port: Option<Value>,
        node_port: Option<i64>,
    }
);

wire!(
    /// Addresses and ports. The label `kubernetes.io/service-name` ties a slice to its Service;
    /// in files, labels that satisfy a pool's selector make its endpoints members of the pool.
    EndpointSlice {
        api_version: String,
        kind: String,
        metadata: Meta,
        address_type: SliceAddressType,
        endpoints: Vec<SliceEndpoint>;
        ports: Vec<SlicePort>,
    }
);

open_enum!(
    /// What the addresses of a slice are.
    SliceAddressType {
        Ipv4 = "IPv4",
        Ipv6 = "IPv6",
        Fqdn = "FQDN",
    }
);

wire!(
    SliceEndpoint {
        addresses: Vec<String>;
        conditions: Option<EndpointConditions>,
        hostname: Option<String>,
        target_ref: Option<ObjectReference>,
        node_name: Option<String>,
        zone: Option<String>,
        hints: Option<Value>,
        deprecated_topology: IndexMap<String, String>,
    }
);

wire!(
    /// Absent conditions mean ready, as consumers of the API are told to read them.
    #[derive(Default)]
    EndpointConditions {
        ;
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
    }
);

wire!(
    #[derive(Default)]
    ObjectReference {
        ;
        api_version: Option<String>,
        kind: Option<String>,
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        field_path: Option<String>,
    }
);

wire!(
    #[derive(Default)]
    SlicePort {
        ;
        name: Option<String>,
        protocol: Option<String>,
        port: Option<Port>,
        app_protocol: Option<String>,
    }
);

impl SliceEndpoint {
    /// Whether new requests may go there.
    pub fn takes_requests(&self) -> bool {
        self.conditions.as_ref().is_none_or(|conditions| {
            conditions.ready != Some(false) && conditions.terminating != Some(true)
        })
    }
}
