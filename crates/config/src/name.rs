//! Names of objects: a namespace and a name, cheap to clone, ordered and hashable.
//!
//! Cluster-scoped objects have an empty namespace. Manifests that leave the namespace out live in
//! [`DEFAULT_NAMESPACE`], as `kubectl apply` would put them.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// Where namespaced objects without a namespace live.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Namespace and name of one object of a kind that the context tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// The object's `metadata.name`.
    pub name: Arc<str>,
}

impl ObjectName {
    /// A name from its two parts.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl Serialize for ObjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
