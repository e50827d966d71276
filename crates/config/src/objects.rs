//! The typed store of everything that configuration is made of: one map per kind.
//!
//! Objects are shared (`Arc`) and an unchanged object keeps its `Arc` across edits, which is what
//! the incremental [`crate::Compiler`] memoises by. A kind is one line of the list below; its wire
//! type lives in the file of its family. Wire types mirror the API and never fail on values that
//! merely make no sense: that becomes a status in [`crate::compile`].

#![expect(
    missing_docs,
    reason = "fields of wire types are documented by the API they mirror"
)]

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::error::ConfigError;
use crate::name::{DEFAULT_NAMESPACE, ObjectName};

pub mod backend_tls_policy;
pub mod gateway;
pub mod http_route;
pub mod inference_model;
pub mod inference_pool;
pub(crate) mod lenient;
pub mod meta;
pub mod penstock;
pub mod pod;
pub mod reference_grant;
pub mod secret;
pub mod service;
pub(crate) mod wire;

pub use backend_tls_policy::BackendTlsPolicy;
pub use gateway::{Gateway, GatewayClass};
pub use http_route::HttpRoute;
pub use inference_model::{InferenceModel, InferenceModelRewrite, InferenceObjective};
pub use inference_pool::{InferencePool, InferencePoolV1Alpha2};
pub use meta::{ConfigMap, Meta, Namespace};
pub use penstock::{GatewayParameters, PoolPolicy};
pub use pod::Pod;
pub use reference_grant::ReferenceGrant;
pub use secret::{Sealed, Secret};
pub use service::{EndpointSlice, Service};
pub use wire::{Port, Weight};

/// Group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// Group of InferencePool v1.
pub const POOL_GROUP: &str = "inference.networking.k8s.io";
/// Group of InferencePool v1alpha2, InferenceModel and the first InferenceObjective.
pub const POOL_GROUP_X: &str = "inference.networking.x-k8s.io";
/// Group of our own kinds.
pub const PENSTOCK_GROUP: &str = "penstock.dev";

/// Where an object was written, with its document's text for finding fields in it. The text may
/// hold secrets, so `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct Origin {
    /// Path of the file as it was given.
    pub file: Arc<str>,
    /// First line of content in the file, from 1.
    pub line: u32,
    /// Text of the document.
    pub document: Arc<str>,
    /// Lines of the file before that text.
    pub lines_before: u32,
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One object and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// The typed object.
    pub resource: Resource,
    /// `None` when it did not come from a file.
    pub origin: Option<Origin>,
}

/// An object in a store.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// Shared; the same `Arc` as long as the object does not change.
    pub object: Arc<T>,
    /// `None` when it did not come from a file.
    pub origin: Option<Origin>,
    /// Grows with every change of this object, within one line of [`Objects`].
    pub version: u64,
}

/// All objects of one kind, in the order in which they were first seen.
pub type Store<T> = IndexMap<ObjectName, Entry<T>>;

macro_rules! kinds {
    ($($kind:ident, $field:ident, $text:literal, $scope:ident, [$($api:literal),+];)+) => {
        /// The kinds that are read.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $($kind),+ }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind),+];

            /// The kind as manifests write it.
            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$kind => $text),+ }
            }

            /// The `apiVersion`s under which it is read, newest first.
            pub fn api_versions(self) -> &'static [&'static str] {
                match self { $(Kind::$kind => &[$($api),+]),+ }
            }

            /// Whether its objects live in a namespace.
            pub fn is_namespaced(self) -> bool {
                match self { $(Kind::$kind => scope!($scope)),+ }
            }
        }

        /// A typed object of any kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Resource { $($kind(Arc<$kind>)),+ }

        impl Resource {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $(Resource::$kind(_) => Kind::$kind),+ }
            }

            /// Its metadata.
            pub fn meta(&self) -> &Meta {
                match self { $(Resource::$kind(object) => &object.metadata),+ }
            }

            /// Decodes one document as `kind`.
            pub(crate) fn decode(
                kind: Kind,
                document: &str,
                options: serde_saphyr::Options,
            ) -> Result<Resource, serde_saphyr::Error> {
                match kind {
                    $(Kind::$kind => serde_saphyr::from_str_with_options(document, options)
                        .map(|object: $kind| Resource::$kind(Arc::new(object)))),+
                }
            }

            /// Decodes an object as an API server sends it. The server has checked it against its
            /// own schema, which may be newer: fields that this version does not know are left out.
            ///
            /// # Errors
            /// What does not fit the kind at all.
            pub fn from_json(kind: Kind, json: serde_json::Value) -> Result<Resource, serde_json::Error> {
                let lenient = lenient::Lenient(json);
                match kind {
                    $(Kind::$kind => $kind::deserialize(lenient)
                        .map(|object| Resource::$kind(Arc::new(object)))),+
                }
            }
        }

        impl Serialize for Resource {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Resource::$kind(object) => object.serialize(serializer)),+ }
            }
        }

        /// Everything that configuration is made of.
        #[derive(Clone, Debug, Default)]
        pub struct Objects {
            $(#[doc = concat!("Every ", $text, ".")] pub $field: Store<$kind>,)+
            versions: u64,
        }

        impl Objects {
            /// Adds or replaces an object. An equal one keeps its `Arc` and version.
            pub fn insert(&mut self, object: Object) {
                let name = object.name();
                match object.resource {
                    $(Resource::$kind(new) => {
                        store(&mut self.$field, &mut self.versions, (name, new), object.origin);
                    })+
                }
            }

            /// Takes an object out; false if there was none.
            pub fn remove(&mut self, kind: Kind, name: &ObjectName) -> bool {
                match kind { $(Kind::$kind => self.$field.shift_remove(name).is_some()),+ }
            }

            /// One object.
            pub fn get(&self, kind: Kind, name: &ObjectName) -> Option<Object> {
                match kind {
                    $(Kind::$kind => self.$field.get(name).map(|entry| Object {
                        resource: Resource::$kind(Arc::clone(&entry.object)),
                        origin: entry.origin.clone(),
                    })),+
                }
            }

            /// Where an object was written.
            pub fn origin(&self, kind: Kind, name: &ObjectName) -> Option<&Origin> {
                match kind {
                    $(Kind::$kind => self.$field.get(name).and_then(|e| e.origin.as_ref())),+
                }
            }

            /// Every object, kind by kind in the order of [`Kind::ALL`].
            pub fn all(&self) -> Vec<Object> {
                let mut all = Vec::new();
                $(all.extend(self.$field.values().map(|entry| Object {
                    resource: Resource::$kind(Arc::clone(&entry.object)),
                    origin: entry.origin.clone(),
                }));)+
                all
            }

            /// How many there are.
            pub fn count(&self) -> usize {
                0 $(+ self.$field.len())+
            }

            fn contains(&self, kind: Kind, name: &ObjectName) -> bool {
                match kind { $(Kind::$kind => self.$field.contains_key(name)),+ }
            }

            /// The same objects with the `Arc`s and versions of `earlier` where they are equal.
            fn adopt(&mut self, earlier: &Objects) {
                self.versions = self.versions.max(earlier.versions);
                $(adopt(&mut self.$field, &mut self.versions, &earlier.$field);)+
            }
        }
    };
}

macro_rules! scope {
    (namespaced) => {
        true
    };
    (cluster) => {
        false
    };
}

kinds! {
    Namespace, namespaces, "Namespace", cluster, ["v1"];
    GatewayClass, gateway_classes, "GatewayClass", cluster,
        ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
    GatewayParameters, gateway_parameters, "GatewayParameters", namespaced,
        ["penstock.dev/v1alpha1"];
    Gateway, gateways, "Gateway", namespaced,
        ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
    HttpRoute, http_routes, "HTTPRoute", namespaced,
        ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];
    ReferenceGrant, reference_grants, "ReferenceGrant", namespaced,
        ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1",
         "gateway.networking.k8s.io/v1alpha2"];
    InferencePool, inference_pools, "InferencePool", namespaced,
        ["inference.networking.k8s.io/v1"];
    InferencePoolV1Alpha2, inference_pools_v1alpha2, "InferencePool", namespaced,
        ["inference.networking.x-k8s.io/v1alpha2"];
    BackendTlsPolicy, backend_tls_policies, "BackendTLSPolicy", namespaced,
        ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha3"];
    PoolPolicy, pool_policies, "PoolPolicy", namespaced, ["penstock.dev/v1alpha1"];
    InferenceModel, inference_models, "InferenceModel", namespaced,
        ["inference.networking.x-k8s.io/v1alpha2"];
    InferenceObjective, inference_objectives, "InferenceObjective", namespaced,
        ["llm-d.ai/v1alpha2", "inference.networking.x-k8s.io/v1alpha2"];
    InferenceModelRewrite, inference_model_rewrites, "InferenceModelRewrite", namespaced,
        ["llm-d.ai/v1alpha2", "inference.networking.x-k8s.io/v1alpha2"];
    Service, services, "Service", namespaced, ["v1"];
    EndpointSlice, endpoint_slices, "EndpointSlice", namespaced, ["discovery.k8s.io/v1"];
    Pod, pods, "Pod", namespaced, ["v1"];
    Secret, secrets, "Secret", namespaced, ["v1"];
    ConfigMap, config_maps, "ConfigMap", namespaced, ["v1"];
}

impl Kind {
    /// The kind that a manifest of this `apiVersion` and `kind` is.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|one| one.as_str() == kind && one.api_versions().contains(&api_version))
    }

    /// Whether statuses can depend on its objects: those that tell where endpoints are change none.
    pub fn is_judged(self) -> bool {
        !matches!(self, Self::Pod | Self::EndpointSlice)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Object {
    /// Namespace and name; the namespace of a namespaced object defaults to `default`.
    pub fn name(&self) -> ObjectName {
        let meta = self.resource.meta();
        let namespace = match &meta.namespace {
            _ if !self.resource.kind().is_namespaced() => "",
            Some(namespace) => namespace,
            None => DEFAULT_NAMESPACE,
        };
        ObjectName::new(namespace, &meta.name)
    }
}

impl From<Resource> for Object {
    fn from(resource: Resource) -> Self {
        Self {
            resource,
            origin: None,
        }
    }
}

impl Objects {
    /// Builds the store that `objects` stand for. Objects equal to those of `earlier` keep their
    /// `Arc`s. An object that is written twice is an error that names both places; the first one
    /// stands.
    pub fn assemble(earlier: &Objects, objects: Vec<Object>) -> (Objects, Vec<ConfigError>) {
        let mut store = Objects::default();
        let mut errors = Vec::new();
        for object in objects {
            let (kind, name) = (object.resource.kind(), object.name());
            if store.contains(kind, &name) {
                let first = store.origin(kind, &name);
                errors.push(ConfigError::written_twice(
                    kind,
                    &name,
                    first,
                    object.origin.as_ref(),
                ));
            } else {
                store.insert(object);
            }
        }
        store.adopt(earlier);
        (store, errors)
    }
}

impl FromIterator<Object> for Objects {
    /// Later objects replace earlier ones of the same kind and name.
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut store = Objects::default();
        objects.into_iter().for_each(|object| store.insert(object));
        store
    }
}

fn store<T: PartialEq>(
    store: &mut Store<T>,
    versions: &mut u64,
    (name, object): (ObjectName, Arc<T>),
    origin: Option<Origin>,
) {
    if let Some(entry) = store.get_mut(&name)
        && is_same(&entry.object, &object)
    {
        entry.origin = origin;
        return;
    }
    *versions += 1;
    store.insert(
        name,
        Entry {
            object,
            origin,
            version: *versions,
        },
    );
}

fn adopt<T: PartialEq>(store: &mut Store<T>, versions: &mut u64, earlier: &Store<T>) {
    for (name, entry) in store {
        match earlier.get(name) {
            Some(known) if is_same(&known.object, &entry.object) => {
                entry.object = Arc::clone(&known.object);
                entry.version = known.version;
            }
            _ => {
                *versions += 1;
                entry.version = *versions;
            }
        }
    }
}

fn is_same<T: PartialEq>(one: &Arc<T>, other: &Arc<T>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}
