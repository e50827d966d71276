//! Arguments of the two commands that run in a cluster.

use super::duration;
use crate::run::memory::MemoryLimit;
use clap::Args;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub(super) const CONTROLLER_EXAMPLES: &str = "\
Examples:
  kubectl apply -k deploy/kustomize            installs it with everything it needs
  penstock controller --namespace default --address 192.0.2.1:4002

It reads the cluster from KUBECONFIG, else from its Pod. Only the holder of the Lease writes; every
replica feeds proxies.";

pub(super) const PROXY_EXAMPLES: &str = "\
Example, as the controller starts it:
  penstock proxy --controller penstock-controller.penstock-system.svc:4002 \\
    --authority /etc/penstock/authority/ca.crt --token /var/run/secrets/penstock/token \\
    --state /var/run/penstock/state

Signals: SIGTERM and SIGINT let requests under way end.";

/// Options of `penstock controller`.
#[derive(Debug, Args)]
pub(crate) struct ControllerArgs {
    /// Namespace of its Service, Lease and Secret.
    #[arg(
        long,
        env = "PENSTOCK_NAMESPACE",
        default_value = "penstock-system",
        value_name = "NAME"
    )]
    pub(crate) namespace: String,
    /// Name of its Service; Lease and Secret are called after it.
    #[arg(long, default_value = "penstock-controller", value_name = "NAME")]
    pub(crate) name: String,
    /// Who this replica is in the election [default: the host's name].
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub(crate) identity: Option<String>,
    /// Where other replicas reach this one.
    #[arg(long, env = "POD_IP", value_name = "IP")]
    pub(crate) ip: Option<IpAddr>,
    /// Token of its own ServiceAccount for the audience `penstock.dev/controller`, with which it tells
    /// the leading replica what its proxies said.
    #[arg(
        long,
        default_value = "/var/run/secrets/penstock/token",
        value_name = "FILE"
    )]
    pub(crate) token: PathBuf,
    /// Where proxies find the object stream [default: NAME.NAMESPACE.svc:PORT].
    #[arg(long, env = "PENSTOCK_ADDRESS", value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
    /// Where the object stream is served.
    #[arg(long, default_value = "0.0.0.0:4002", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Where health is served.
    #[arg(long, default_value = "0.0.0.0:4001", value_name = "ADDRESS")]
    pub(crate) admin: SocketAddr,
    /// Image of the proxies, unless GatewayParameters name one.
    #[arg(
        long,
        env = "PENSTOCK_PROXY_IMAGE",
        default_value = concat!("ghcr.io/penstock/penstock:", env!("CARGO_PKG_VERSION")),
        value_name = "IMAGE"
    )]
    pub(crate) proxy_image: String,
    /// What proxies log on standard error.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub(crate) proxy_log: String,
}

/// Options of `penstock proxy`.
#[derive(Debug, Args)]
pub(crate) struct ProxyArgs {
    /// The controller's object stream.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) controller: String,
    /// Certificate of the authority that signs the controller's, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) authority: PathBuf,
    /// Token of the proxy's ServiceAccount; it tells which Gateway is served.
    #[arg(long, value_name = "FILE")]
    pub(crate) token: PathBuf,
    /// Folder in memory where the last good objects are kept for a restart.
    #[arg(long, default_value = "/var/run/penstock/state", value_name = "DIR")]
    pub(crate) state: PathBuf,
    /// Where health, metrics and explanations are served.
    #[arg(long, default_value = "0.0.0.0:15021", value_name = "ADDRESS")]
    pub(crate) admin: SocketAddr,
    /// Threads that serve requests [default: one per core].
    #[arg(long, env = "PENSTOCK_WORKERS", value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// Where access-log lines go: `-` is standard output, `off` is nowhere.
    #[arg(
        long,
        env = "PENSTOCK_ACCESS_LOG",
        default_value = "-",
        value_name = "FILE"
    )]
    pub(crate) access_log: String,
    /// Do not tell in responses which endpoint served and why.
    #[arg(long)]
    pub(crate) no_explain_headers: bool,
    /// How long requests under way may take to end after SIGTERM or SIGINT.
    #[arg(long, env = "PENSTOCK_DRAIN_TIMEOUT", default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub(crate) drain_timeout: Duration,
    /// Most memory to hold, such as 512MiB or 2G, or `none`; above it, requests get 503 [default: 70 % of the control
    /// group's limit, else of the machine's memory].
    #[arg(long, env = "PENSTOCK_MEMORY_LIMIT", value_parser = crate::run::memory::parse, value_name = "SIZE")]
    pub(crate) memory_limit: Option<MemoryLimit>,
    #[command(flatten)]
    pub(crate) limits: super::LimitArgs,
}
