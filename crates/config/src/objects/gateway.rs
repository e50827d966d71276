//! GatewayClass and Gateway of `gateway.networking.k8s.io/v1`.

use indexmap::IndexMap;
use serde_json::Value;

use super::meta::{LabelSelector, Labels, Meta};
use super::wire::{Port, open_enum, wire};

wire!(
    /// Which controller serves the Gateways of a class.
    GatewayClass {
        api_version: String,
        kind: String,
        metadata: Meta,
        spec: GatewayClassSpec;
        status: Option<Value>,
    }
);

wire!(
    GatewayClassSpec {
        controller_name: String;
        parameters_ref: Option<ParametersReference>,
        description: Option<String>,
    }
);

wire!(
    /// A reference to parameters; the namespace exists on a class only.
    ParametersReference {
        group: String,
        kind: String,
        name: String;
        namespace: Option<String>,
    }
);

wire!(
    /// Where traffic comes in.
    Gateway {
        api_version: String,
        kind: String,
        metadata: Meta,
        spec: GatewaySpec;
        status: Option<Value>,
    }
);

wire!(
    #[derive(Default)]
    GatewaySpec {
        gateway_class_name: String;
        listeners: Vec<GatewayListener>,
        addresses: Vec<GatewayAddress>,
        infrastructure: Option<GatewayInfrastructure>,
        allowed_listeners: Option<Value>,
        tls: Option<GatewayTls>,
        backend_tls: Option<Value>,
        default_scope: Option<String>,
    }
);

wire!(
    GatewayListener {
        name: String,
        port: Port,
        protocol: ListenerProtocol;
        hostname: Option<String>,
        tls: Option<ListenerTls>,
        allowed_routes: Option<AllowedRoutes>,
    }
);

open_enum!(
    /// What a listener speaks.
    ListenerProtocol {
        Http = "HTTP",
        Https = "HTTPS",
        Tls = "TLS",
        Tcp = "TCP",
        Udp = "UDP",
    }
);

wire!(
    #[derive(Default)]
    ListenerTls {
        ;
        mode: Option<TlsMode>,
        certificate_refs: Vec<SecretReference>,
        options: Labels,
        frontend_validation: Option<Value>,
    }
);

open_enum!(
    /// Who ends TLS; absent means `Terminate`.
    TlsMode {
        Terminate = "Terminate",
        Passthrough = "Passthrough",
    }
);

wire!(
    /// A reference to a certificate; group and kind default to the core Secret.
    SecretReference {
        name: String;
        group: Option<String>,
        kind: Option<String>,
        namespace: Option<String>,
    }
);

wire!(
    #[derive(Default)]
    AllowedRoutes {
        ;
        namespaces: Option<RouteNamespaces>,
        kinds: Vec<RouteGroupKind>,
    }
);

wire!(
    #[derive(Default)]
    RouteNamespaces {
        ;
        from: Option<FromNamespaces>,
        selector: Option<LabelSelector>,
    }
);

open_enum!(
    /// Whose routes a listener lets in; absent means `Same`.
    FromNamespaces {
        All = "All",
        Same = "Same",
        Selector = "Selector",
        None = "None",
    }
);

wire!(
    RouteGroupKind {
        kind: String;
        group: Option<String>,
    }
);

wire!(
    #[derive(Default)]
    GatewayAddress {
        ;
        #[serde(rename = "type")]
        address_type: Option<AddressType>,
        value: Option<String>,
    }
);

open_enum!(
    /// What a Gateway's address is; absent means `IPAddress`.
    AddressType {
        IpAddress = "IPAddress",
        Hostname = "Hostname",
        NamedAddress = "NamedAddress",
    }
);

wire!(
    #[derive(Default)]
    GatewayInfrastructure {
        ;
        labels: IndexMap<String, String>,
        annotations: IndexMap<String, String>,
        parameters_ref: Option<ParametersReference>,
    }
);

wire!(
    /// TLS of a Gateway as a whole: what its clients show, and what it shows to servers.
    #[derive(Default)]
    GatewayTls {
        ;
        frontend: Option<GatewayFrontendTls>,
        backend: Option<GatewayBackendTls>,
    }
);

wire!(
    #[derive(Default)]
    GatewayBackendTls {
        ;
        client_certificate_ref: Option<SecretReference>,
    }
);

wire!(
    #[derive(Default)]
    GatewayFrontendTls {
        ;
        default: Option<FrontendTls>,
        per_port: Vec<PortFrontendTls>,
    }
);

wire!(
    PortFrontendTls {
        port: Port;
        tls: Option<FrontendTls>,
    }
);

wire!(
    #[derive(Default)]
    FrontendTls {
        ;
        validation: Option<FrontendValidation>,
    }
);

wire!(
    #[derive(Default)]
    FrontendValidation {
        ;
        ca_certificate_refs: Vec<AuthorityReference>,
        mode: Option<ValidationMode>,
    }
);

open_enum!(
    /// Whether a client without a good certificate is turned away; absent means `AllowValidOnly`.
    ValidationMode {
        AllowValidOnly = "AllowValidOnly",
        AllowInsecureFallback = "AllowInsecureFallback",
    }
);

wire!(
    /// A reference to certificate authorities.
    AuthorityReference {
        group: String,
        kind: String,
        name: String;
        namespace: Option<String>,
    }
);
