//! Kubernetes and Gateway API objects to one immutable snapshot and statuses.
//!
//! Text becomes typed [`Objects`] ([`yaml::decode`], with line, column and suggestion for what is
//! wrong); objects become a [`Snapshot`] and [`Statuses`] ([`compile()`], which never fails). Pure:
//! no clock, no files, no sockets. Members of pools are a second function, [`members()`], so that a
//! rollout recompiles nothing.
//!
//! Read `compile.rs` first, then `table.rs` for how a request finds its rule.

#![warn(missing_docs)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod attached;
mod base_models;
mod compile;
mod duration;
mod error;
mod export;
mod features;
mod hash;
mod host;
mod members;
mod name;
pub mod objects;
mod pattern;
mod plain;
mod rule;
mod snapshot;
mod status;
mod subset;
mod table;
mod tls;
pub mod yaml;

pub use attached::{FILE_ANNOTATION, attach, attached};
pub use base_models::BaseModels;
pub use compile::{
    CONTROLLER_NAME, Compiled, Compiler, GatewayPlan, Placement, PlannedPort, compile, reachable,
};
pub use duration::ApiDuration;
pub use error::{ConfigError, ErrorList};
pub use export::export;
pub use features::SUPPORTED_FEATURES;
pub use host::HostPattern;
pub use members::{Member, members};
pub use name::{DEFAULT_NAMESPACE, ObjectName};
pub use objects::{Kind, Object, Objects, Origin, Resource};
pub use pattern::Pattern;
pub use plain::{
    DEFAULT_LISTEN, EndpointUrl, Plain, PlainModel, PlainModelSettings, PlainPool, PlainProfile,
    PlainTarget, PlainTls, expand_plain,
};
pub use rule::{
    Allowed, Backend, Cors, Filters, HeaderEdits, HeaderValue, Mirror, MoreFilters, OriginPattern,
    PathEdit, Redirect, RouteRetry, Rule, Target, Timeouts, UrlRewrite,
};
pub use snapshot::{
    Address, AppProtocol, Bind, ExternalPicker, Listener, PickerKind, PickerTls, PoolConfig,
    ServiceConfig, ServicePort, Snapshot,
};
pub use status::{
    Condition, ConditionType, ListenerReport, ListenerStatus, ObjectStatus, ParentStatus, Problem,
    Reason, SocketState, Statuses, Truth,
};
pub use subset::Subset;
pub use table::{RequestView, RouteMatch, RouteTable};
pub use tls::{
    BackendTls, CertificatePem, ClientCertificates, ListenerTls, SubjectName, TrustedCa,
};

/// The objects of a text without mistakes.
#[cfg(test)]
#[track_caller]
pub(crate) fn decode_for_tests(text: &str) -> Vec<Object> {
    let decoded = yaml::decode("test.yaml", text);
    assert!(decoded.errors.is_empty(), "{}", ErrorList(&decoded.errors));
    decoded.objects
}
