//! BackendTLSPolicy of `gateway.networking.k8s.io/v1`: TLS towards Services, and towards pools.

use serde_json::Value;

use super::meta::{Labels, Meta};
use super::wire::{open_enum, wire};

wire!(
    /// How endpoints of its targets are connected to.
    BackendTlsPolicy {
        api_version: String,
        kind: String,
        metadata: Meta,
        spec: BackendTlsPolicySpec;
        status: Option<Value>,
    }
);

wire!(
    BackendTlsPolicySpec {
        target_refs: Vec<BackendTlsTarget>,
        validation: BackendTlsValidation;
        options: Labels,
    }
);

wire!(
    /// A Service, by `sectionName` one of its ports; beyond the API, an InferencePool.
    BackendTlsTarget {
        group: String,
        kind: String,
        name: String;
        section_name: Option<String>,
    }
);

wire!(
    BackendTlsValidation {
        hostname: String;
        ca_certificate_refs: Vec<CertificateReference>,
        #[serde(rename = "wellKnownCACertificates")]
        well_known_ca_certificates: Option<WellKnownAuthorities>,
        subject_alt_names: Vec<SubjectAltName>,
    }
);

wire!(
    /// A ConfigMap or Secret of the policy's namespace with `ca.crt`.
    CertificateReference {
        group: String,
        kind: String,
        name: String;
    }
);

open_enum!(
    /// Authorities that need no reference.
    WellKnownAuthorities {
        System = "System",
    }
);

wire!(
    SubjectAltName {
        #[serde(rename = "type")]
        name_type: SubjectAltNameType;
        hostname: Option<String>,
        uri: Option<String>,
    }
);

open_enum!(
    /// What a name of a certificate is.
    SubjectAltNameType {
        Hostname = "Hostname",
        Uri = "URI",
    }
);
