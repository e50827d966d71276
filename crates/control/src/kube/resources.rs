//! What is watched: one line a resource, with what the API server leaves out for us.

use config::Kind;
use kube::api::ApiResource;

/// Label of everything that this controller makes.
pub(super) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "penstock");

/// One resource of the API.
#[derive(Debug)]
pub(super) struct Watched {
    /// What its objects are to the compiler; `None` for what only the provisioner needs.
    pub(super) kind: Option<Kind>,
    pub(super) api_kind: &'static str,
    pub(super) group: &'static str,
    /// Newest first; the first that is served is watched.
    pub(super) versions: &'static [&'static str],
    pub(super) plural: &'static str,
    pub(super) scope: Scope,
    /// Field selector of the watch.
    pub(super) fields: &'static str,
    /// Whether only objects that this controller made are watched.
    pub(super) only_ours: bool,
}

/// Where objects of a resource live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Cluster,
    Namespaced,
}

impl Watched {
    /// Kubernetes' own groups; all others are installed with their definitions.
    pub(super) fn is_custom(&self) -> bool {
        self.group.contains('.') && !["discovery.k8s.io"].contains(&self.group)
    }

    pub(super) fn definition(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    pub(super) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.group)
        }
    }

    pub(super) fn resource(&self, version: &str) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: version.to_owned(),
            api_version: self.api_version(version),
            kind: self.api_kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}

const fn custom(
    kind: Kind,
    api_kind: &'static str,
    group: &'static str,
    versions: &'static [&'static str],
    plural: &'static str,
) -> Watched {
    Watched {
        kind: Some(kind),
        api_kind,
        group,
        versions,
        plural,
        scope: Scope::Namespaced,
        fields: "",
        only_ours: false,
    }
}

const fn core(kind: Kind, api_kind: &'static str, plural: &'static str) -> Watched {
    custom(kind, api_kind, "", &["v1"], plural)
}

const GATEWAY: &str = "gateway.networking.k8s.io";
const POOL: &str = "inference.networking.k8s.io";
const POOL_X: &str = "inference.networking.x-k8s.io";
const LLM_D: &str = "llm-d.ai";
const PENSTOCK: &str = "penstock.dev";

/// Every resource. Of two that are the same kind, the first wins where both have an object.
pub(super) const WATCHED: &[Watched] = &[
    Watched {
        scope: Scope::Cluster,
        ..custom(
            Kind::GatewayClass,
            "GatewayClass",
            GATEWAY,
            &["v1"],
            "gatewayclasses",
        )
    },
    custom(Kind::Gateway, "Gateway", GATEWAY, &["v1"], "gateways"),
    custom(Kind::HttpRoute, "HTTPRoute", GATEWAY, &["v1"], "httproutes"),
    custom(
        Kind::ReferenceGrant,
        "ReferenceGrant",
        GATEWAY,
        &["v1", "v1beta1"],
        "referencegrants",
    ),
    custom(
        Kind::BackendTlsPolicy,
        "BackendTLSPolicy",
        GATEWAY,
        &["v1"],
        "backendtlspolicies",
    ),
    custom(
        Kind::InferencePool,
        "InferencePool",
        POOL,
        &["v1"],
        "inferencepools",
    ),
    custom(
        Kind::InferencePoolV1Alpha2,
        "InferencePool",
        POOL_X,
        &["v1alpha2"],
        "inferencepools",
    ),
    custom(
        Kind::InferenceModel,
        "InferenceModel",
        POOL_X,
        &["v1alpha2"],
        "inferencemodels",
    ),
    custom(
        Kind::InferenceObjective,
        "InferenceObjective",
        LLM_D,
        &["v1alpha2"],
        "inferenceobjectives",
    ),
    custom(
        Kind::InferenceObjective,
        "InferenceObjective",
        POOL_X,
        &["v1alpha2"],
        "inferenceobjectives",
    ),
    custom(
        Kind::InferenceModelRewrite,
        "InferenceModelRewrite",
        LLM_D,
        &["v1alpha2"],
        "inferencemodelrewrites",
    ),
    custom(
        Kind::InferenceModelRewrite,
        "InferenceModelRewrite",
        POOL_X,
        &["v1alpha2"],
        "inferencemodelrewrites",
    ),
    custom(
        Kind::GatewayParameters,
        "GatewayParameters",
        PENSTOCK,
        &["v1alpha1"],
        "gatewayparameters",
    ),
    custom(
        Kind::PoolPolicy,
        "PoolPolicy",
        PENSTOCK,
        &["v1alpha1"],
        "poolpolicies",
    ),
    Watched {
        scope: Scope::Cluster,
        ..core(Kind::Namespace, "Namespace", "namespaces")
    },
    core(Kind::Service, "Service", "services"),
    custom(
        Kind::EndpointSlice,
        "EndpointSlice",
        "discovery.k8s.io",
        &["v1"],
        "endpointslices",
    ),
    Watched {
        fields: "status.phase=Running",
        ..core(Kind::Pod, "Pod", "pods")
    },
    Watched {
        fields: "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,\
                 type!=kubernetes.io/dockerconfigjson,type!=bootstrap.kubernetes.io/token",
        ..core(Kind::Secret, "Secret", "secrets")
    },
    Watched {
        fields: "metadata.name!=kube-root-ca.crt",
        ..core(Kind::ConfigMap, "ConfigMap", "configmaps")
    },
    Watched {
        kind: None,
        only_ours: true,
        ..custom(Kind::Pod, "Deployment", "apps", &["v1"], "deployments")
    },
    Watched {
        kind: None,
        only_ours: true,
        ..core(Kind::Pod, "ServiceAccount", "serviceaccounts")
    },
];

/// Position of a resource by its kind in the API and group.
pub(super) fn position(group: &str, api_kind: &str) -> Option<usize> {
    WATCHED
        .iter()
        .position(|watched| (watched.group, watched.api_kind) == (group, api_kind))
}
