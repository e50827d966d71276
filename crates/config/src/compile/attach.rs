//! Whether a route may attach to the listeners of a Gateway that a parentRef names.

use super::gateways::{ListenerState, OurGateway};
use crate::host::HostPattern;
use crate::name::ObjectName;
use crate::objects::gateway::FromNamespaces;
use crate::objects::http_route::ParentReference;
use crate::objects::meta::Labels;
use crate::objects::{Kind, Objects};
use crate::status::Reason;

/// Label that every namespace has, with its own name.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// A listener, by position, and the hosts that it serves for the route.
pub(super) type Attachment = (usize, Vec<HostPattern>);

/// The listeners of `gateway` that take the route.
///
/// # Errors
/// Reason, message and field below the parentRef.
pub(super) fn attach(
    objects: &Objects,
    route: &ObjectName,
    hosts: &[HostPattern],
    (reference, gateway): (&ParentReference, &OurGateway),
) -> Result<Vec<Attachment>, (Reason, String, &'static str)> {
    let named: Vec<(usize, &ListenerState)> = gateway
        .listeners
        .iter()
        .enumerate()
        .filter(|(_, listener)| {
            let spec = &listener.spec;
            reference
                .section_name
                .as_ref()
                .is_none_or(|section| *section == spec.name)
                && reference.port.is_none_or(|port| port == spec.port)
        })
        .collect();
    if named.is_empty() {
        let field = if reference.section_name.is_some() {
            ".sectionName"
        } else {
            ".port"
        };
        let names: Vec<_> = gateway
            .listeners
            .iter()
            .map(|listener| listener.spec.name.as_str())
            .collect();
        let message = format!("no listener matches; there are: {}", names.join(", "));
        return Err((Reason::NoMatchingParent, message, field));
    }
    let allowed: Vec<_> = named
        .into_iter()
        .filter(|(_, listener)| {
            listener.supported_kinds.contains(&Kind::HttpRoute.as_str())
                && allows_namespace(objects, route, gateway, listener)
        })
        .collect();
    if allowed.is_empty() {
        let message = format!(
            "no listener lets in an HTTPRoute of namespace {}",
            route.namespace
        );
        return Err((Reason::NotAllowedByListeners, message, ""));
    }
    let attached: Vec<Attachment> = allowed
        .into_iter()
        .map(|(position, listener)| (position, common_hosts(&listener.host, hosts)))
        .filter(|(_, hosts)| !hosts.is_empty())
        .collect();
    if attached.is_empty() {
        let message = "no hostname of the route is one of a listener".to_owned();
        return Err((Reason::NoMatchingListenerHostname, message, ""));
    }
    Ok(attached)
}

fn allows_namespace(
    objects: &Objects,
    route: &ObjectName,
    gateway: &OurGateway,
    listener: &ListenerState,
) -> bool {
    let rule = listener.spec.allowed_routes.as_ref();
    let rule = rule.and_then(|allowed| allowed.namespaces.as_ref());
    match rule.and_then(|rule| rule.from.as_ref()) {
        None | Some(FromNamespaces::Same) => route.namespace == gateway.name.namespace,
        Some(FromNamespaces::All) => true,
        Some(FromNamespaces::Selector) => {
            let selector = rule.and_then(|rule| rule.selector.as_ref());
            selector.is_some_and(|selector| {
                selector.matches(&namespace_labels(objects, &route.namespace))
            })
        }
        Some(FromNamespaces::None | FromNamespaces::Unknown(_)) => false,
    }
}

fn namespace_labels(objects: &Objects, namespace: &str) -> Labels {
    let entry = objects.namespaces.get(&ObjectName::new("", namespace));
    let mut labels = entry
        .map(|entry| entry.object.metadata.labels.clone())
        .unwrap_or_default();
    labels.insert(NAMESPACE_LABEL.to_owned(), namespace.to_owned());
    labels
}

/// The hosts of the route that the listener serves too; its own if the route names none.
fn common_hosts(listener: &HostPattern, hosts: &[HostPattern]) -> Vec<HostPattern> {
    if hosts.is_empty() {
        return vec![listener.clone()];
    }
    let mut common: Vec<HostPattern> = hosts
        .iter()
        .filter_map(|host| listener.intersect(host))
        .cloned()
        .collect();
    common.sort();
    common.dedup();
    common
}
