//! A Kubernetes cluster: watches in, statuses and proxies out.
//!
//! One loop ([`controller`]) owns everything that is known: events of the watches go into a store
//! (`store.rs`), one compilation gives the statuses of all objects and what each Gateway's proxies
//! may see, and what differs from the cluster is written. Only the leader writes (`lease.rs`); every
//! replica feeds proxies. A kind whose definition is not installed is asked for again every few
//! seconds; a definition that goes away takes no object out of service.

mod apply;
mod authority;
mod controller;
mod counts;
mod feed;
mod lease;
mod manifests;
mod resources;
mod status;
mod store;
mod watch;

pub use authority::Authority;
pub use controller::{ControllerSettings, Running, controller};
pub use counts::Counts;
pub use feed::{Feed, Feeds, Report};
pub use lease::Leadership;
pub use manifests::ProxySettings;
pub use store::Content;

/// Who writes: the field manager of every object that this controller touches.
const FIELD_MANAGER: &str = "penstock";

/// Why the controller cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// No configuration of a cluster, or one that cannot be used.
    #[error("cannot tell how to reach the cluster")]
    Configuration(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The API server refused or did not answer.
    #[error("the api server did not do what it was asked")]
    Api(#[from] kube::Error),
    /// Keys and certificates for the stream cannot be made or read.
    #[error("cannot make a certificate for the object stream: {0}")]
    Certificate(String),
}

/// A client for the cluster of the environment: a kubeconfig, else that of the Pod.
///
/// # Errors
/// Neither is there or usable.
pub async fn client() -> Result<kube::Client, KubeError> {
    let config = kube::Config::infer()
        .await
        .map_err(|error| KubeError::Configuration(error.into()))?;
    kube::Client::try_from(config).map_err(KubeError::Api)
}

#[cfg(test)]
mod tests;
