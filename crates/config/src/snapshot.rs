//! The compiled configuration: an immutable tree of `Arc`s that is swapped whole.
//!
//! Unchanged nodes are shared between consecutive snapshots. Members of pools are not in it (see
//! [`crate::members`]); the endpoints of plain Services are.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use indexmap::IndexMap;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::base_models::BaseModels;
use crate::host::HostPattern;
use crate::name::ObjectName;
use crate::subset::Subset;
use crate::table::RouteTable;
use crate::tls::{BackendTls, ListenerTls};
use picker::PoolSpec;

/// Everything that a proxy serves.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// Sockets, by address and port.
    pub binds: Vec<Arc<Bind>>,
    /// Pools that a rule leads to, by name.
    pub pools: IndexMap<ObjectName, Arc<PoolConfig>>,
    /// Ports of Services that a rule leads to, by name and port.
    pub services: IndexMap<ServicePort, Arc<ServiceConfig>>,
    /// Hash of the content: equal snapshots have equal hashes on every platform.
    pub hash: u64,
}

/// One socket and the listeners behind it.
#[derive(Clone, Debug, Serialize)]
pub struct Bind {
    /// `0.0.0.0` unless the Gateway names an address.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
    /// Most specific hostname first; at most one per hostname.
    pub listeners: Vec<Arc<Listener>>,
    #[serde(skip)]
    pub(crate) hosts: crate::host::HostIndex,
    #[serde(skip)]
    pub(crate) has_base_models: bool,
}

impl PartialEq for Bind {
    fn eq(&self, other: &Self) -> bool {
        // The index follows from the listeners.
        (self.address, self.port) == (other.address, other.port)
            && self.listeners == other.listeners
    }
}

/// One listener of a Gateway and the routes attached to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listener {
    /// Its name in the Gateway.
    pub name: Box<str>,
    /// The Gateway.
    pub gateway: ObjectName,
    /// Hosts that it serves.
    pub hostname: HostPattern,
    /// TCP port.
    pub port: u16,
    /// How it ends TLS; `None`: it speaks plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<ListenerTls>>,
    /// Whether clients may raise their priority by inference headers.
    pub trust_inference_headers: bool,
    /// Whether pools behind it are picked from by the built-in picker, whatever picker they name.
    pub built_in_picker: bool,
    /// What requests are told about the base of their model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_models: Option<Arc<BaseModels>>,
    /// Its routes.
    pub routes: RouteTable,
}

/// A pool as its rules meet it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PoolConfig {
    /// The InferencePool.
    pub name: ObjectName,
    /// What the picker is told.
    #[serde(serialize_with = "shown")]
    pub picker: PoolSpec,
    /// Who picks.
    pub picker_kind: PickerKind,
    /// Ports of each member, in the order written.
    pub target_ports: Vec<u16>,
    /// What members speak.
    pub app_protocol: AppProtocol,
    /// TLS towards members.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<BackendTls>>,
    /// Members that some requests are kept to, the first one first; a place is a number in [`picker::Subsets`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subsets: Vec<Subset>,
}

/// The settings as they are, each declared model with what it resolves to, and a fingerprint of the
/// whole table, which has more (objectives, rewrites of any name) than can be listed.
fn shown<S: Serializer>(spec: &PoolSpec, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("profile", &format_args!("{:?}", spec.profile))?;
    map.serialize_entry("saturation_seconds", &spec.saturation_seconds)?;
    map.serialize_entry("queue_requests", &spec.queue.requests)?;
    map.serialize_entry("queue_seconds", &spec.queue.wait_seconds)?;
    map.serialize_entry("queue_bytes", &spec.queue.bytes)?;
    map.serialize_entry("probes", &spec.probes)?;
    let models = spec.models.names().map(|name| {
        let resolved = spec.models.resolve(name, None, true);
        (name, (resolved.priority, resolved.targets))
    });
    map.serialize_entry("models", &models.collect::<IndexMap<_, _>>())?;
    let fingerprint = crate::hash::of_bytes(format!("{:?}", spec.models).as_bytes());
    map.serialize_entry("models_fingerprint", &fingerprint)?;
    map.end()
}

/// Who picks the endpoints of a pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum PickerKind {
    /// The built-in picker.
    BuiltIn,
    /// An endpoint picker behind a Service of the pool's namespace, unless the listener passes over
    /// it.
    External(ExternalPicker),
}

/// An endpoint picker that is asked over Envoy's ext_proc protocol.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExternalPicker {
    /// The Service and its port.
    pub service: ServicePort,
    /// Whether to pick without it when it does not answer.
    pub fail_open: bool,
    /// How long it may take to pick, in seconds; above 0.
    pub pick_seconds: f32,
    /// How it is connected to.
    pub tls: PickerTls,
    /// Ready endpoints of the Service; none when it is not there.
    pub endpoints: Vec<Address>,
}

/// TLS towards an endpoint picker, always with HTTP/2 inside.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum PickerTls {
    /// TLS, and whoever answers is believed: pickers sign their own certificates.
    Unverified,
    /// As a BackendTLSPolicy of the Service says.
    Verified(Arc<BackendTls>),
    /// None: the port's `appProtocol` is `kubernetes.io/h2c`.
    None,
    /// A policy that cannot be used, and why: nothing is sent.
    Unusable(String),
}

/// What a backend speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum AppProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS (`kubernetes.io/h2c`).
    H2c,
}

/// A Service and one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    /// The Service.
    pub name: ObjectName,
    /// The Service's port, not the target's.
    pub port: u16,
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

impl Serialize for ServicePort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A port of a Service and who serves it now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceConfig {
    /// The Service.
    pub name: ObjectName,
    /// The Service's port.
    pub port: u16,
    /// What its endpoints speak.
    pub app_protocol: AppProtocol,
    /// TLS towards its endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<BackendTls>>,
    /// Ready endpoints; none is answered 503.
    pub endpoints: Vec<Address>,
}

/// Where an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An address.
    Ip(SocketAddr),
    /// A name to resolve, and a port.
    Fqdn(String, u16),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Fqdn(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Snapshot {
    /// A snapshot that serves nothing.
    pub fn empty() -> Self {
        Self {
            binds: Vec::new(),
            pools: IndexMap::new(),
            services: IndexMap::new(),
            hash: 0,
        }
    }
}
