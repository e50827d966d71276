//! TLS of the plain form: references to Secrets and ConfigMaps that stand for files (see
//! `attached.rs`), and a BackendTLSPolicy per pool with `https` endpoints.

use std::sync::Arc;

use indexmap::IndexMap;

use super::{Plain, PlainPool, api_version, meta};
use crate::attached::FILE_ANNOTATION;
use crate::objects::backend_tls_policy::{
    BackendTlsPolicy, BackendTlsPolicySpec, BackendTlsTarget, BackendTlsValidation,
    CertificateReference, WellKnownAuthorities,
};
use crate::objects::gateway::{
    AuthorityReference, FrontendTls, FrontendValidation, GatewayBackendTls, GatewayFrontendTls,
    GatewayTls, ListenerTls, SecretReference,
};
use crate::objects::meta::{ConfigMap, Labels, Meta};
use crate::objects::{Kind, POOL_GROUP, Resource, Secret};

const SERVER: &str = "penstock-server";
const CLIENT: &str = "penstock-client";
const CLIENT_CA: &str = "penstock-client-ca";

/// The objects that stand for the files of the listener.
pub(super) fn files(plain: &Plain) -> Vec<Resource> {
    let mut files = Vec::new();
    if let Some(tls) = &plain.tls {
        let keys = [("tls.crt", &tls.certificate), ("tls.key", &tls.key)];
        files.push(secret(SERVER, &keys));
        files.extend(tls.client_ca.as_ref().map(|ca| config_map(CLIENT_CA, ca)));
    }
    if let Some(both) = &plain.client_certificate {
        files.push(secret(CLIENT, &[("tls.crt", both), ("tls.key", both)]));
    }
    files
}

fn annotated(name: &str, files: &[(&str, &String)]) -> Meta {
    let annotation =
        |(key, path): &(&str, &String)| (format!("{FILE_ANNOTATION}{key}"), (*path).clone());
    Meta {
        annotations: files.iter().map(annotation).collect(),
        ..meta(name)
    }
}

fn secret(name: &str, files: &[(&str, &String)]) -> Resource {
    Resource::Secret(Arc::new(Secret {
        api_version: api_version(Kind::Secret),
        kind: Kind::Secret.to_string(),
        metadata: annotated(name, files),
        secret_type: Some("kubernetes.io/tls".to_owned()),
        data: IndexMap::new(),
        string_data: IndexMap::new(),
        immutable: None,
    }))
}

fn config_map(name: &str, path: &String) -> Resource {
    Resource::ConfigMap(Arc::new(ConfigMap {
        api_version: api_version(Kind::ConfigMap),
        kind: Kind::ConfigMap.to_string(),
        metadata: annotated(name, &[("ca.crt", path)]),
        data: Labels::new(),
        binary_data: Labels::new(),
        immutable: None,
    }))
}

fn reference(name: &str) -> SecretReference {
    SecretReference {
        name: name.to_owned(),
        group: None,
        kind: None,
        namespace: None,
    }
}

pub(super) fn of_listener(plain: &Plain) -> Option<ListenerTls> {
    plain.tls.as_ref().map(|_| ListenerTls {
        certificate_refs: vec![reference(SERVER)],
        ..ListenerTls::default()
    })
}

pub(super) fn of_gateway(plain: &Plain) -> Option<GatewayTls> {
    let client_ca = plain.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
    let frontend = client_ca.map(|_| GatewayFrontendTls {
        default: Some(FrontendTls {
            validation: Some(FrontendValidation {
                ca_certificate_refs: vec![AuthorityReference {
                    group: String::new(),
                    kind: Kind::ConfigMap.to_string(),
                    name: CLIENT_CA.to_owned(),
                    namespace: None,
                }],
                mode: None,
            }),
        }),
        per_port: Vec::new(),
    });
    let backend = plain.client_certificate.as_ref();
    let backend = backend.map(|_| GatewayBackendTls {
        client_certificate_ref: Some(reference(CLIENT)),
    });
    let says_something = frontend.is_some() || backend.is_some();
    says_something.then_some(GatewayTls { frontend, backend })
}

/// The policy of a pool with `https` endpoints, and what stands for its authorities.
pub(super) fn of_pool(pool: &PlainPool) -> Vec<Resource> {
    let Some(first) = pool.endpoints.first().filter(|first| first.is_tls) else {
        return Vec::new();
    };
    let ca_name = format!("{}-ca", pool.name);
    let authority = pool.ca.as_ref().map(|_| CertificateReference {
        group: String::new(),
        kind: Kind::ConfigMap.to_string(),
        name: ca_name.clone(),
    });
    let validation = BackendTlsValidation {
        hostname: first.host.clone(),
        well_known_ca_certificates: match authority {
            None => Some(WellKnownAuthorities::System),
            Some(_) => None,
        },
        ca_certificate_refs: authority.into_iter().collect(),
        subject_alt_names: Vec::new(),
    };
    let policy = BackendTlsPolicy {
        api_version: api_version(Kind::BackendTlsPolicy),
        kind: Kind::BackendTlsPolicy.to_string(),
        metadata: meta(&pool.name),
        spec: BackendTlsPolicySpec {
            target_refs: vec![BackendTlsTarget {
                group: POOL_GROUP.to_owned(),
                kind: Kind::InferencePool.to_string(),
                name: pool.name.clone(),
                section_name: None,
            }],
            validation,
            options: Labels::new(),
        },
        status: None,
    };
    let mut resources: Vec<Resource> = Vec::new();
    resources.extend(pool.ca.as_ref().map(|path| config_map(&ca_name, path)));
    resources.push(Resource::BackendTlsPolicy(Arc::new(policy)));
    resources
}
