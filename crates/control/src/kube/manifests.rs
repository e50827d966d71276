//! What runs for one Gateway: ServiceAccount, ConfigMap (the authority that proxies trust),
//! Deployment and Service, in the Gateway's namespace and owned by it.
//!
//! Names come from Gateway and class and are cut with a hash where they would be too long or would not
//! be a DNS label. Labels and annotations of `spec.infrastructure` go on everything; ours win.

use super::resources::MANAGED_BY;
use super::store::{Content, Stored};
use config::{GatewayPlan, ObjectName};
use serde_json::{Map, Value, json};

/// Standard label with the Gateway's name, cut to a label's length.
pub(super) const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// The Gateway's whole name.
pub(super) const GATEWAY_ANNOTATION: &str = "penstock.dev/gateway";
/// Hash of what was applied last.
pub(super) const APPLIED: &str = "penstock.dev/applied";
/// The replicas of the parameters when they were last set.
pub(super) const REPLICAS: &str = "penstock.dev/replicas";
/// Proxies of a Gateway whose parameters say nothing.
const DEFAULT_REPLICAS: u32 = 2;
/// Longest generated name: a Pod's name adds two suffixes, a Service's a hash, and both are DNS labels.
const LONGEST_NAME: usize = 45;
const LONGEST_LABEL: usize = 63;
/// Most addresses of a Gateway (the API's own limit).
pub(super) const MOST_ADDRESSES: usize = 16;
/// The proxy's admin port: probes and metrics.
const ADMIN_PORT: u16 = 15_021;
/// A user that owns nothing in the image.
const USER: i64 = 65_532;
const TOKEN_SECONDS: i64 = 3_600;
/// Before a proxy is told to end, the cluster has this long to stop sending to it: on a busy one it takes
/// seconds until every node knows.
const LEAVE_SECONDS: u32 = 10;
const DRAIN_SECONDS: u32 = 60;

/// What all proxies have in common.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// Image unless parameters name one.
    pub image: String,
    /// `HOST:PORT` of the object stream.
    pub controller: String,
    /// Audience of the tokens that proxies show.
    pub audience: String,
    /// Certificate of the authority, in PEM.
    pub authority: String,
    /// Filter of the proxies' log.
    pub log: String,
}

/// One object to apply.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) group: &'static str,
    pub(super) kind: &'static str,
    pub(super) object: Value,
    /// Hash of the object, also in its annotation.
    pub(super) hash: String,
}

/// The Gateway that objects are made for.
pub(super) struct Provisioned<'a> {
    pub(super) plan: &'a GatewayPlan,
    pub(super) gateway: &'a Stored,
    pub(super) settings: &'a ProxySettings,
    /// The Deployment that stands.
    pub(super) deployment: Option<&'a Stored>,
}

/// Name of everything that is made for a Gateway.
pub(super) fn resource_name(gateway: &str, class: &str) -> String {
    let wanted = format!("{gateway}-{class}");
    let is_label =
        wanted.starts_with(|first: char| first.is_ascii_lowercase()) && !wanted.contains('.');
    if is_label && wanted.len() <= LONGEST_NAME {
        return wanted;
    }
    let plain: String = wanted
        .chars()
        .map(|one| if one == '.' { '-' } else { one })
        .collect();
    let plain = if is_label {
        plain
    } else {
        format!("gw-{plain}")
    };
    cut(&plain, &wanted, LONGEST_NAME)
}

/// Name of the Service that asks for an address: told by the address alone, so that it stays where it is
/// when others come and go.
fn service_name(name: &str, address: &str) -> String {
    let hash = Content::new(address.as_bytes().to_vec()).hash;
    format!("{name}-{hash:016x}")
}

/// The text itself as a label's value, or its beginning and a hash.
fn label_value(text: &str) -> String {
    if text.len() <= LONGEST_LABEL {
        return text.to_owned();
    }
    cut(text, text, LONGEST_LABEL)
}

fn cut(text: &str, hashed: &str, most: usize) -> String {
    let hash = Content::new(hashed.as_bytes().to_vec()).hash;
    let kept: String = text.chars().take(most - 17).collect();
    format!("{}-{hash:016x}", kept.trim_end_matches(['-', '.']))
}

impl Provisioned<'_> {
    fn class(&self) -> &str {
        self.gateway.spec["gatewayClassName"]
            .as_str()
            .unwrap_or_default()
    }

    pub(super) fn name(&self) -> String {
        resource_name(&self.plan.name.name, self.class())
    }

    /// Everything to apply, in order.
    pub(super) fn manifests(&self) -> Vec<Manifest> {
        vec![
            self.manifest(
                "",
                "v1",
                "ServiceAccount",
                json!({"automountServiceAccountToken": false}),
            ),
            self.manifest(
                "",
                "v1",
                "ConfigMap",
                json!({"data": {"ca.crt": self.settings.authority}}),
            ),
            self.manifest(
                "apps",
                "v1",
                "Deployment",
                json!({"spec": self.deployment()}),
            ),
        ]
        .into_iter()
        .chain(self.services())
        .collect()
    }

    fn services(&self) -> Vec<Manifest> {
        let services = self.service_names().into_iter().map(|(name, address)| {
            let spec = json!({"spec": self.service(address.as_deref())});
            self.named_manifest(name, ("", "v1", "Service"), spec)
        });
        services.collect()
    }

    /// Names of Services, with what each asks for: one for each address that is asked for, since a
    /// Service gets one; else one that is called like everything else.
    pub(super) fn service_names(&self) -> Vec<(String, Option<String>)> {
        let name = self.name();
        let addresses = self.static_addresses();
        if addresses.is_empty() || !self.is_balanced() {
            return vec![(name, None)];
        }
        let addresses = addresses.into_iter().take(MOST_ADDRESSES);
        addresses
            .map(|address| (service_name(&name, &address), Some(address)))
            .collect()
    }

    fn manifest(
        &self,
        group: &'static str,
        version: &str,
        kind: &'static str,
        body: Value,
    ) -> Manifest {
        self.named_manifest(self.name(), (group, version, kind), body)
    }

    fn named_manifest(
        &self,
        name: String,
        (group, version, kind): (&'static str, &str, &'static str),
        body: Value,
    ) -> Manifest {
        let api_version = if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        };
        let mut object = json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": &*self.plan.name.namespace,
                "labels": self.labels(),
                "annotations": self.annotations(kind),
                "ownerReferences": [{
                    "apiVersion": "gateway.networking.k8s.io/v1",
                    "kind": "Gateway",
                    "name": &*self.plan.name.name,
                    "uid": self.gateway.uid(),
                    "controller": true,
                    "blockOwnerDeletion": false,
                }],
            },
        });
        if let (Some(fields), Value::Object(body)) = (object.as_object_mut(), body) {
            fields.extend(body);
        }
        // The number of proxies is somebody else's to change: it is no reason to apply again.
        let mut hashed = object.clone();
        if let Some(spec) = hashed.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("replicas");
        }
        let hash = format!(
            "{:016x}",
            Content::new(hashed.to_string().into_bytes()).hash
        );
        object["metadata"]["annotations"][APPLIED] = hash.clone().into();
        Manifest {
            group,
            kind,
            object,
            hash,
        }
    }

    fn infrastructure(&self, field: &str) -> Map<String, Value> {
        let infrastructure = self.gateway.spec.get("infrastructure");
        let wanted = infrastructure.and_then(|one| one.get(field));
        wanted
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    }

    fn labels(&self) -> Map<String, Value> {
        let mut labels = self.infrastructure("labels");
        labels.extend(self.selector());
        labels.insert("app.kubernetes.io/name".to_owned(), "penstock".into());
        labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.into());
        labels.insert(
            "gateway.networking.k8s.io/gateway-class-name".to_owned(),
            label_value(self.class()).into(),
        );
        labels
    }

    fn selector(&self) -> Map<String, Value> {
        let name = label_value(&self.plan.name.name);
        Map::from_iter([(GATEWAY_LABEL.to_owned(), name.into())])
    }

    fn annotations(&self, kind: &str) -> Map<String, Value> {
        let mut annotations = self.infrastructure("annotations");
        annotations.insert(
            GATEWAY_ANNOTATION.to_owned(),
            self.plan.name.to_string().into(),
        );
        if kind == "Deployment" {
            annotations.insert(
                REPLICAS.to_owned(),
                self.asked_replicas().to_string().into(),
            );
        }
        annotations
    }

    fn asked_replicas(&self) -> u32 {
        self.plan
            .parameters
            .replicas
            .unwrap_or(DEFAULT_REPLICAS)
            .clamp(1, 1_000)
    }

    /// What the parameters ask for when that is new; else what stands, whoever set it.
    fn replicas(&self) -> u64 {
        let asked = self.asked_replicas();
        let standing = self.deployment.and_then(|deployment| {
            let is_old = deployment.annotation(REPLICAS) == Some(&asked.to_string());
            is_old
                .then(|| deployment.spec["replicas"].as_u64())
                .flatten()
        });
        standing.unwrap_or(u64::from(asked))
    }

    fn service_type(&self) -> &str {
        let service_type = self.plan.parameters.service_type.as_ref();
        service_type.map_or("LoadBalancer", |one| one.as_str())
    }

    fn is_balanced(&self) -> bool {
        self.service_type() == "LoadBalancer"
    }

    fn service(&self, address: Option<&str>) -> Value {
        let ports = self.plan.ports.iter().map(|port| {
            let protocol = if port.is_udp { "UDP" } else { "TCP" };
            json!({
                "name": format!("{}-{}", protocol.to_lowercase(), port.number),
                "port": port.number,
                "targetPort": port.number,
                "protocol": protocol,
            })
        });
        let mut spec = json!({
            "type": self.service_type(),
            "selector": self.selector(),
            "ports": ports.collect::<Vec<_>>(),
        });
        if let Some(address) = address {
            spec["loadBalancerIP"] = address.into();
        }
        spec
    }

    /// The addresses that the Gateway asks for by value.
    fn static_addresses(&self) -> Vec<String> {
        let addresses = self.gateway.spec.get("addresses").and_then(Value::as_array);
        let values = addresses
            .into_iter()
            .flatten()
            .filter_map(|one| one.get("value")?.as_str());
        values
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn deployment(&self) -> Value {
        json!({
            "replicas": self.replicas(),
            "selector": {"matchLabels": self.selector()},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": self.labels(), "annotations": self.infrastructure("annotations")},
                "spec": {
                    "serviceAccountName": self.name(),
                    "automountServiceAccountToken": false,
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": LEAVE_SECONDS + DRAIN_SECONDS + 10,
                    "securityContext": {
                        "runAsNonRoot": true,
                        "runAsUser": USER,
                        "runAsGroup": USER,
                        "fsGroup": USER,
                        "seccompProfile": {"type": "RuntimeDefault"},
                        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
                    },
                    "containers": [self.container()],
                    "volumes": self.volumes(),
                },
            },
        })
    }

    fn volumes(&self) -> Value {
        let token = json!({
            "path": "token",
            "audience": self.settings.audience,
            "expirationSeconds": TOKEN_SECONDS,
        });
        json!([
            {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
            {"name": "authority", "configMap": {"name": self.name()}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        ])
    }

    fn container(&self) -> Value {
        let ports = self.plan.ports.iter().map(|port| {
            json!({"containerPort": port.number, "protocol": if port.is_udp { "UDP" } else { "TCP" }})
        });
        let mut ports: Vec<Value> = ports.collect();
        ports.push(json!({"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}));
        let probe = |path: &str, period: u32| json!({"httpGet": {"path": path, "port": ADMIN_PORT}, "periodSeconds": period});
        let settings = self.settings;
        let image = self
            .plan
            .parameters
            .image
            .as_ref()
            .unwrap_or(&settings.image);
        let mut container = json!({
            "name": "proxy",
            "image": image,
            "args": [
                "proxy",
                "--controller", settings.controller,
                "--authority", "/etc/penstock/authority/ca.crt",
                "--token", "/var/run/secrets/penstock/token",
                "--state", "/var/run/penstock/state",
                "--admin", format!("0.0.0.0:{ADMIN_PORT}"),
                "--drain-timeout", format!("{DRAIN_SECONDS}s"),
                "--log", settings.log,
            ],
            "env": [
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
            "ports": ports,
            "readinessProbe": probe("/readyz", 2),
            "livenessProbe": probe("/livez", 10),
            "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "state", "mountPath": "/var/run/penstock"},
                {"name": "authority", "mountPath": "/etc/penstock/authority", "readOnly": true},
                {"name": "token", "mountPath": "/var/run/secrets/penstock", "readOnly": true},
            ],
        });
        if let Some(resources) = &self.plan.parameters.resources {
            container["resources"] = resources.clone();
        }
        container
    }
}

/// The Gateway that something was made for.
pub(super) fn made_for(stored: &Stored) -> Option<ObjectName> {
    let (namespace, name) = stored.annotation(GATEWAY_ANNOTATION)?.split_once('/')?;
    Some(ObjectName::new(namespace, name))
}

#[cfg(test)]
mod tests;
