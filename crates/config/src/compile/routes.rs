//! All routes: where they attach, and what their statuses say.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Age;
use super::attach::{Attachment, attach};
use super::gateways::Gateways;
use super::link;
use super::lower::LoweredRoute;
use crate::name::ObjectName;
use crate::objects::http_route::ParentReference;
use crate::objects::{GATEWAY_GROUP, HttpRoute, Kind, Objects};
use crate::rule::Rule;
use crate::status::{
    Condition, ConditionType, ObjectStatus, ParentStatus, Reason, Statuses, Truth,
};
use crate::table::Tie;

/// A route that refers to a Gateway of ours, or to none that exists.
pub(super) struct AttachedRoute {
    pub(super) name: ObjectName,
    pub(super) object: Arc<HttpRoute>,
    pub(super) lowered: Arc<LoweredRoute>,
    pub(super) parents: Vec<Parent>,
    /// What the references of its rules lead to, rule by rule.
    pub(super) references: Vec<Vec<link::Resolved>>,
    age: Age,
}

/// One parentRef.
pub(super) struct Parent {
    /// Position in the route's `parentRefs`.
    position: usize,
    gateway: ObjectName,
    /// Position of the Gateway, if it is ours.
    pub(super) index: Option<usize>,
    attached: Result<Vec<Attachment>, (Reason, String, &'static str)>,
}

impl Parent {
    /// Whether the Gateway takes the route.
    pub(super) fn is_accepted(&self) -> bool {
        self.attached.is_ok()
    }
}

/// Attaches every route and counts it on its listeners.
pub(super) fn attach_all(
    objects: &Objects,
    lowered: &FxHashMap<ObjectName, (Arc<HttpRoute>, Arc<LoweredRoute>)>,
    gateways: &mut Gateways,
) -> Vec<AttachedRoute> {
    let mut routes = Vec::new();
    for name in objects.http_routes.keys() {
        let Some((object, lowered)) = lowered.get(name) else {
            continue;
        };
        let mut route = AttachedRoute {
            name: name.clone(),
            object: Arc::clone(object),
            lowered: Arc::clone(lowered),
            parents: Vec::new(),
            references: link::resolve(objects, name, object),
            age: Age::of(&object.metadata),
        };
        for (position, reference) in object.spec.parent_refs.iter().enumerate() {
            route
                .parents
                .extend(parent(objects, &route, (position, reference), gateways));
        }
        route.count(gateways);
        routes.push(route);
    }
    routes
}

/// `None` for parents that are none of our business.
fn parent(
    objects: &Objects,
    route: &AttachedRoute,
    (position, reference): (usize, &ParentReference),
    gateways: &Gateways,
) -> Option<Parent> {
    let group = reference.group.as_deref().unwrap_or(GATEWAY_GROUP);
    let kind = reference.kind.as_deref().unwrap_or(Kind::Gateway.as_str());
    if (group, kind) != (GATEWAY_GROUP, Kind::Gateway.as_str()) {
        return None;
    }
    let namespace = reference
        .namespace
        .as_deref()
        .unwrap_or(&route.name.namespace);
    let gateway = ObjectName::new(namespace, &reference.name);
    let index = gateways.position(&gateway);
    let attached = match index.and_then(|index| gateways.list.get(index)) {
        Some(ours) => attach(
            objects,
            &route.name,
            &route.lowered.hosts,
            (reference, ours),
        ),
        None if objects.gateways.contains_key(&gateway) => return None,
        None => Err((
            Reason::NoMatchingParent,
            format!("Gateway {gateway} not found"),
            ".name",
        )),
    };
    Some(Parent {
        position,
        gateway,
        index,
        attached,
    })
}

impl AttachedRoute {
    /// Whether any rule can be served as written.
    fn has_usable_rule(&self) -> bool {
        self.lowered.usable_rules > 0
    }

    fn attachments(&self) -> impl Iterator<Item = (usize, &Attachment)> {
        self.parents.iter().flat_map(|parent| {
            let attached = parent.attached.iter().flatten();
            parent
                .index
                .into_iter()
                .flat_map(move |index| attached.clone().map(move |attachment| (index, attachment)))
        })
    }

    /// Each listener counts the route once, however many parentRefs lead there.
    fn count(&self, gateways: &mut Gateways) {
        if !self.has_usable_rule() {
            return;
        }
        let mut listeners: Vec<(usize, usize)> = self
            .attachments()
            .map(|(gateway, (listener, _))| (gateway, *listener))
            .collect();
        listeners.sort_unstable();
        listeners.dedup();
        for (gateway, listener) in listeners {
            let gateway = gateways.list.get_mut(gateway);
            if let Some(state) = gateway.and_then(|gateway| gateway.listeners.get_mut(listener)) {
                state.attached_routes += 1;
            }
        }
    }

    /// Whether any Gateway takes the route.
    pub(super) fn is_attached(&self) -> bool {
        self.attachments().next().is_some()
    }

    /// The Gateways of ours that it names, by position, and whether each takes it; some more than once.
    pub(super) fn verdicts(&self) -> impl Iterator<Item = (usize, bool)> {
        let is_usable = self.has_usable_rule();
        let verdict =
            move |parent: &Parent| Some((parent.index?, parent.is_accepted() && is_usable));
        self.parents.iter().filter_map(verdict)
    }

    /// Puts the matches of a rule into the tables of the listeners that the route attaches to.
    pub(super) fn add_to_listeners(&self, rule: &Arc<Rule>, gateways: &mut Gateways) {
        let lowered = self
            .lowered
            .rules
            .iter()
            .find(|lowered| lowered.index == rule.index);
        let Some(lowered) = lowered else { return };
        let mut seen = Vec::new();
        for (gateway, (listener, hosts)) in self.attachments() {
            let state = gateways.list.get_mut(gateway);
            let state = state.and_then(|gateway| gateway.listeners.get_mut(*listener));
            let Some(state) = state else { continue };
            for host in hosts {
                if seen.contains(&(gateway, *listener, host)) {
                    continue;
                }
                seen.push((gateway, *listener, host));
                for (position, matches) in lowered.matches.iter().enumerate() {
                    let tie = Tie {
                        age: self.age.clone(),
                        route: self.name.clone(),
                        rule: rule.index as usize,
                        position,
                    };
                    state.table.add(host, tie, matches, rule);
                }
            }
        }
    }

    fn resolved_refs(&self) -> Condition {
        let fine = Condition::plain(
            ConditionType::ResolvedRefs,
            Truth::True,
            Reason::ResolvedRefs,
        );
        let references = self
            .references
            .iter()
            .enumerate()
            .flat_map(|(rule, references)| {
                let numbered = references.iter().enumerate();
                numbered.map(move |(position, resolved)| (rule, position, resolved))
            });
        for (rule, position, resolved) in references {
            if let link::Resolved::Invalid { reason, message } = resolved {
                let rules = self.object.spec.rules.as_deref().unwrap_or_default();
                let written = rules.get(rule).map_or(0, |rule| rule.backend_refs.len());
                let field = match position.checked_sub(written) {
                    None => format!("backendRefs[{position}]"),
                    Some(mirror) => format!("filters, requestMirror {mirror}"),
                };
                return Condition {
                    status: Truth::False,
                    reason: *reason,
                    message: message.clone(),
                    path: format!("spec.rules[{rule}].{field}"),
                    ..fine
                };
            }
        }
        fine
    }

    fn conditions(&self, parent: &Parent) -> Vec<Condition> {
        let mut accepted = Condition::plain(ConditionType::Accepted, Truth::True, Reason::Accepted);
        let first = self.lowered.unusable.first();
        let mut refuse = |reason, message: &str, path: String| {
            accepted.status = Truth::False;
            accepted.reason = reason;
            accepted.message = message.to_owned();
            accepted.path = path;
        };
        if let Err((reason, message, field)) = &parent.attached {
            refuse(
                *reason,
                message,
                format!("spec.parentRefs[{}]{field}", parent.position),
            );
        } else if let (false, Some((path, message))) = (self.has_usable_rule(), first) {
            refuse(Reason::UnsupportedValue, message, path.clone());
        }
        let mut conditions = vec![accepted];
        if parent.index.is_some() {
            conditions.push(self.resolved_refs());
        }
        if parent.is_accepted() && self.has_usable_rule() {
            conditions.extend(self.partially_invalid());
        }
        conditions
    }

    /// What is left out or passed over, if anything.
    fn partially_invalid(&self) -> Option<Condition> {
        // The API asks for these first words where a rule is dropped.
        let dropped = self
            .lowered
            .unusable
            .iter()
            .map(|unusable| ("Dropped Rule", unusable));
        let ignored = self
            .lowered
            .ignored
            .iter()
            .map(|ignored| ("Ignored", ignored));
        let mut found = dropped.chain(ignored);
        let (word, (path, message)) = found.next()?;
        let mut text = format!("{word}: {message}");
        for (word, (path, message)) in found {
            text.push_str(&format!("; {word}: {path}: {message}"));
        }
        Some(Condition {
            condition_type: ConditionType::PartiallyInvalid,
            status: Truth::True,
            reason: Reason::UnsupportedValue,
            message: text,
            path: path.clone(),
        })
    }
}

/// The routes that each Gateway of ours takes.
pub(super) fn taken(routes: &[AttachedRoute]) -> FxHashMap<ObjectName, Vec<ObjectName>> {
    let mut taken: FxHashMap<ObjectName, Vec<ObjectName>> = FxHashMap::default();
    for route in routes {
        for parent in route.parents.iter().filter(|parent| parent.is_accepted()) {
            let of_gateway = taken.entry(parent.gateway.clone()).or_default();
            if of_gateway.last() != Some(&route.name) {
                of_gateway.push(route.name.clone());
            }
        }
    }
    taken
}

/// Statuses of routes.
pub(super) fn report(objects: &Objects, routes: &[AttachedRoute], statuses: &mut Statuses) {
    for route in routes {
        let origin = objects.origin(Kind::HttpRoute, &route.name);
        let mut status = ObjectStatus::new(Kind::HttpRoute, &route.name, origin);
        for parent in &route.parents {
            let reference = route.object.spec.parent_refs.get(parent.position);
            status.parents.push(ParentStatus {
                gateway: parent.gateway.clone(),
                section_name: reference.and_then(|reference| reference.section_name.clone()),
                port: reference
                    .and_then(|reference| reference.port)
                    .map(|port| port.number()),
                reference: u32::try_from(parent.position).ok(),
                ours: parent.index.is_some(),
                conditions: route.conditions(parent),
            });
        }
        statuses.objects.push(status);
    }
}
