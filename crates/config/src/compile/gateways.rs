//! Our Gateways, their parameters and listeners, and what stands between listeners.
//!
//! A listener that is accepted takes routes; one that is also served gets a socket. HTTPS is
//! served once its certificates can be used. Of two listeners of one hostname on one socket the
//! older Gateway's stands.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Age, CONTROLLER_NAME, Placement};
use crate::base_models::BaseModels;
use crate::host::HostPattern;
use crate::name::ObjectName;
use crate::objects::gateway::{
    AddressType, GatewayListener, GatewaySpec, ListenerProtocol, ParametersReference,
};
use crate::objects::penstock::{GatewayParametersSpec, PickerChoice};
use crate::objects::{GATEWAY_GROUP, Gateway, GatewayClass, Kind, Objects, PENSTOCK_GROUP};
use crate::snapshot::Listener;
use crate::status::{
    Condition, ConditionType, ListenerStatus, ObjectStatus, Reason, Statuses, Truth,
};
use crate::table::RouteTableBuilder;
use crate::tls::{CertificatePem, ListenerTls};

pub(super) mod certificates;
mod conflicts;

/// Address and port to listen on.
pub(super) type Socket = (IpAddr, u16);

/// Our Gateways, oldest first.
#[derive(Debug)]
pub(super) struct Gateways {
    pub(super) list: Vec<OurGateway>,
    positions: FxHashMap<ObjectName, usize>,
}

/// One Gateway.
#[derive(Debug)]
pub(super) struct OurGateway {
    pub(super) name: ObjectName,
    pub(super) parameters: GatewayParametersSpec,
    pub(super) listeners: Vec<ListenerState>,
    addresses: Vec<IpAddr>,
    base_models: Option<Arc<BaseModels>>,
    /// Said when clients are let in whatever they show.
    insecure: Option<Condition>,
    /// What it shows to servers that ask for a certificate; or why it cannot.
    client_certificate: Option<Result<CertificatePem, (Reason, String)>>,
    /// Why the Gateway as a whole is refused.
    refusal: Option<(Reason, String, &'static str)>,
}

/// One listener while routes attach to it.
#[derive(Debug)]
pub(super) struct ListenerState {
    pub(super) spec: GatewayListener,
    pub(super) host: HostPattern,
    /// Kinds of routes that may attach.
    pub(super) supported_kinds: Vec<&'static str>,
    pub(super) attached_routes: u32,
    pub(super) table: RouteTableBuilder,
    accepted: Result<(), (Reason, String)>,
    resolved: Result<(), (Reason, String, String)>,
    /// Of an HTTPS listener whose references are all good.
    tls: Option<Arc<ListenerTls>>,
    conflict: Option<(Reason, String)>,
}

impl ListenerState {
    /// Whether a proxy can serve it now.
    fn is_served(&self) -> bool {
        self.accepted.is_ok()
            && self.conflict.is_none()
            && (self.spec.protocol == ListenerProtocol::Http || self.tls.is_some())
    }

    fn is_valid(&self) -> bool {
        self.accepted.is_ok() && self.conflict.is_none() && self.resolved.is_ok()
    }
}

impl Gateways {
    pub(super) fn collect(objects: &Objects, placement: Placement) -> Self {
        let mut list: Vec<(Age, OurGateway)> = objects
            .gateways
            .iter()
            .filter(|(_, entry)| is_ours(objects, &entry.object, placement))
            .map(|(name, entry)| {
                (
                    Age::of(&entry.object.metadata),
                    OurGateway::new(objects, name, &entry.object),
                )
            })
            .collect();
        list.sort_by(|(age_a, a), (age_b, b)| (age_a, &a.name).cmp(&(age_b, &b.name)));
        let mut list: Vec<OurGateway> = list.into_iter().map(|(_, gateway)| gateway).collect();
        match placement {
            Placement::OneProcess => conflicts::find(&mut list),
            Placement::PerGateway => list.iter_mut().for_each(conflicts::find_alone),
        }
        let positions = list
            .iter()
            .enumerate()
            .map(|(index, one)| (one.name.clone(), index))
            .collect();
        Self { list, positions }
    }

    /// Position of a Gateway of ours.
    pub(super) fn position(&self, name: &ObjectName) -> Option<usize> {
        self.positions.get(name).copied()
    }

    /// The listeners to serve, by socket.
    pub(super) fn into_listeners(self) -> Vec<(Socket, Vec<Arc<Listener>>)> {
        let mut sockets: FxHashMap<Socket, Vec<Arc<Listener>>> = FxHashMap::default();
        for gateway in self
            .list
            .into_iter()
            .filter(|gateway| gateway.refusal.is_none())
        {
            let trust = gateway.parameters.trust_inference_headers.unwrap_or(false);
            let built_in_picker = gateway.wants_built_in_picker();
            for state in gateway
                .listeners
                .into_iter()
                .filter(ListenerState::is_served)
            {
                let port = state.spec.port.number();
                let listener = Arc::new(Listener {
                    name: state.spec.name.into(),
                    gateway: gateway.name.clone(),
                    hostname: state.host,
                    port,
                    tls: state.tls,
                    trust_inference_headers: trust,
                    built_in_picker,
                    base_models: gateway.base_models.clone(),
                    routes: state.table.build(),
                });
                for address in &gateway.addresses {
                    sockets
                        .entry((*address, port))
                        .or_default()
                        .push(Arc::clone(&listener));
                }
            }
        }
        let mut sockets: Vec<_> = sockets.into_iter().collect();
        sockets.sort_by_key(|(socket, _)| *socket);
        for (_, listeners) in &mut sockets {
            listeners.sort_by(|a, b| a.hostname.precedence().cmp(&b.hostname.precedence()));
        }
        sockets
    }

    /// Statuses of classes and Gateways.
    pub(super) fn report(&self, objects: &Objects, statuses: &mut Statuses) {
        for (name, entry) in &objects.gateway_classes {
            if entry.object.spec.controller_name == CONTROLLER_NAME {
                let mut status = ObjectStatus::new(Kind::GatewayClass, name, entry.origin.as_ref());
                status
                    .conditions
                    .push(class_condition(objects, &entry.object));
                statuses.objects.push(status);
            }
        }
        for name in objects.gateways.keys() {
            let gateway = self
                .position(name)
                .and_then(|position| self.list.get(position));
            if let Some(gateway) = gateway {
                let origin = objects.origin(Kind::Gateway, name);
                let mut status = ObjectStatus::new(Kind::Gateway, name, origin);
                gateway.report(&mut status);
                statuses.objects.push(status);
            }
        }
    }
}

fn is_ours(objects: &Objects, gateway: &Gateway, placement: Placement) -> bool {
    class_of(objects, gateway).map_or(placement == Placement::OneProcess, |class| {
        class.spec.controller_name == CONTROLLER_NAME
    })
}

pub(super) fn class_of<'a>(
    objects: &'a Objects,
    gateway: &Gateway,
) -> Option<&'a Arc<GatewayClass>> {
    let name = ObjectName::new("", &gateway.spec.gateway_class_name);
    objects
        .gateway_classes
        .get(&name)
        .map(|entry| &entry.object)
}

fn class_condition(objects: &Objects, class: &GatewayClass) -> Condition {
    let accepted = Condition::plain(ConditionType::Accepted, Truth::True, Reason::Accepted);
    let Some(reference) = &class.spec.parameters_ref else {
        return accepted;
    };
    let namespace = reference.namespace.as_deref().unwrap_or_default();
    match parameters(objects, reference, namespace) {
        Ok(_) => accepted,
        Err(message) => Condition {
            status: Truth::False,
            reason: Reason::InvalidParameters,
            message,
            path: "spec.parametersRef".to_owned(),
            ..accepted
        },
    }
}

fn parameters<'a>(
    objects: &'a Objects,
    reference: &ParametersReference,
    namespace: &str,
) -> Result<&'a GatewayParametersSpec, String> {
    let ParametersReference {
        group, kind, name, ..
    } = reference;
    if (group.as_str(), kind.as_str()) != (PENSTOCK_GROUP, Kind::GatewayParameters.as_str()) {
        return Err(format!(
            "{kind} of group `{group}` is no kind of parameters that is read"
        ));
    }
    let name = ObjectName::new(namespace, name);
    let entry = objects.gateway_parameters.get(&name);
    entry
        .map(|entry| &entry.object.spec)
        .ok_or_else(|| format!("GatewayParameters {name} not found"))
}

impl OurGateway {
    fn new(objects: &Objects, name: &ObjectName, gateway: &Gateway) -> Self {
        let spec = &gateway.spec;
        let listeners = spec
            .listeners
            .iter()
            .map(|listener| ListenerState::new(objects, (name, spec), listener));
        let mut ours = Self {
            name: name.clone(),
            parameters: GatewayParametersSpec::default(),
            listeners: listeners.collect(),
            addresses: Vec::new(),
            base_models: BaseModels::of_namespace(objects, &name.namespace),
            insecure: certificates::insecure(spec),
            client_certificate: certificates::of_gateway(objects, name, spec),
            refusal: None,
        };
        ours.read_parameters(objects, gateway);
        for (index, address) in spec.addresses.iter().enumerate() {
            let is_ip = matches!(address.address_type, None | Some(AddressType::IpAddress));
            match address.value.as_deref().map(str::parse::<IpAddr>) {
                None | Some(Err(_))
                    if is_ip && address.value.as_deref().is_none_or(str::is_empty) => {}
                Some(Ok(value)) if is_ip => ours.addresses.push(value),
                _ => {
                    let message = format!("address {index} is no ip address to listen on");
                    ours.refusal = Some((Reason::UnsupportedAddress, message, "spec.addresses"));
                }
            }
        }
        if ours.addresses.is_empty() {
            ours.addresses.push(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        }
        ours.addresses.sort_unstable();
        ours.addresses.dedup();
        ours
    }

    fn read_parameters(&mut self, objects: &Objects, gateway: &Gateway) {
        let class = class_of(objects, gateway).and_then(|class| class.spec.parameters_ref.as_ref());
        let own = gateway.spec.infrastructure.as_ref();
        let own = own.and_then(|infrastructure| infrastructure.parameters_ref.as_ref());
        let of_class = class.map(|reference| {
            let namespace = reference.namespace.as_deref().unwrap_or_default();
            parameters(objects, reference, namespace)
        });
        let of_gateway = own.map(|reference| parameters(objects, reference, &self.name.namespace));
        let found = [
            (of_class, "spec.gatewayClassName"),
            (of_gateway, "spec.infrastructure.parametersRef"),
        ];
        for (found, path) in found {
            match found {
                None => {}
                Some(Ok(spec)) => self.parameters = spec.clone().over(&self.parameters),
                Some(Err(message)) => {
                    self.refusal = Some((Reason::InvalidParameters, message, path));
                }
            }
        }
    }

    /// Whether the Gateway as a whole is taken on.
    pub(super) fn stands(&self) -> bool {
        self.refusal.is_none()
    }

    /// Whether pools behind this Gateway are picked from by the built-in picker in any case.
    pub(super) fn wants_built_in_picker(&self) -> bool {
        self.parameters.picker == Some(PickerChoice::BuiltIn)
    }

    fn report(&self, status: &mut ObjectStatus) {
        let mut accepted = Condition::plain(ConditionType::Accepted, Truth::True, Reason::Accepted);
        let valid = self
            .listeners
            .iter()
            .filter(|listener| listener.is_valid())
            .count();
        if let Some((reason, message, path)) = &self.refusal {
            accepted.status = Truth::False;
            accepted.reason = *reason;
            accepted.message = message.clone();
            accepted.path = (*path).to_owned();
        } else if valid < self.listeners.len() || self.listeners.is_empty() {
            accepted.status = if valid > 0 { Truth::True } else { Truth::False };
            accepted.reason = Reason::ListenersNotValid;
            accepted.message = format!("{valid} of {} listeners are valid", self.listeners.len());
            accepted.path = "spec.listeners".to_owned();
        }
        let served = self.refusal.is_none() && self.listeners.iter().any(ListenerState::is_served);
        let programmed = if served {
            Condition::plain(ConditionType::Programmed, Truth::Unknown, Reason::Pending)
        } else {
            Condition {
                message: "no listener can be served".to_owned(),
                ..Condition::plain(ConditionType::Programmed, Truth::False, Reason::Invalid)
            }
        };
        status.conditions.extend([accepted, programmed]);
        let shown = self.client_certificate.as_ref();
        status.conditions.extend(shown.map(certificates::condition));
        status.conditions.extend(self.insecure.clone());
        let listeners = self.listeners.iter().enumerate();
        status.listeners = listeners
            .map(|(index, listener)| listener.report(index, self.refusal.is_none()))
            .collect();
    }
}

impl ListenerState {
    fn new(
        objects: &Objects,
        gateway: (&ObjectName, &GatewaySpec),
        spec: &GatewayListener,
    ) -> Self {
        let host = match &spec.hostname {
            None => Ok(HostPattern::Any),
            Some(text) if text.is_empty() => Ok(HostPattern::Any),
            Some(text) => HostPattern::parse(text)
                .ok_or_else(|| (Reason::UnsupportedValue, format!("`{text}` is no hostname"))),
        };
        let accepted = match &spec.protocol {
            ListenerProtocol::Http | ListenerProtocol::Https => host.clone().map(|_| ()),
            other => {
                let message = format!("protocol {} is not served", other.as_str());
                Err((Reason::UnsupportedProtocol, message))
            }
        };
        let mut state = Self {
            spec: spec.clone(),
            host: host.unwrap_or(HostPattern::Any),
            supported_kinds: if accepted.is_ok() {
                vec![Kind::HttpRoute.as_str()]
            } else {
                vec![]
            },
            attached_routes: 0,
            table: RouteTableBuilder::default(),
            accepted,
            resolved: Ok(()),
            tls: None,
            conflict: None,
        };
        state.check_kinds();
        if spec.protocol == ListenerProtocol::Https {
            state.read_tls(objects, gateway);
        }
        state
    }

    fn read_tls(&mut self, objects: &Objects, gateway: (&ObjectName, &GatewaySpec)) {
        let certificates = certificates::of_listener(objects, gateway.0, &self.spec);
        let clients = certificates::clients(objects, gateway, &self.spec);
        if let Err((_, message, _)) = &clients {
            let refusal = (Reason::NoValidCACertificate, message.clone());
            self.accepted = self.accepted.clone().and(Err(refusal));
        }
        match certificates.and_then(|certificates| Ok((certificates, clients?))) {
            Ok((certificates, client_certificates)) => {
                self.tls = Some(Arc::new(ListenerTls {
                    certificates,
                    client_certificates,
                }));
            }
            Err(refusal) => self.resolved = self.resolved.clone().and(Err(refusal)),
        }
    }

    fn check_kinds(&mut self) {
        let Some(allowed) = &self.spec.allowed_routes else {
            return;
        };
        let is_route = |kind: &str, group: Option<&str>| {
            kind == Kind::HttpRoute.as_str() && group.unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP
        };
        let mut kinds = allowed.kinds.iter();
        if allowed.kinds.is_empty() || self.accepted.is_err() {
            return;
        }
        let unknown = kinds.find(|asked| !is_route(&asked.kind, asked.group.as_deref()));
        if let Some(unknown) = unknown {
            let message = format!("routes of kind {} are not served", unknown.kind);
            self.resolved = Err((
                Reason::InvalidRouteKinds,
                message,
                ".allowedRoutes.kinds".to_owned(),
            ));
        }
        if !allowed
            .kinds
            .iter()
            .any(|asked| is_route(&asked.kind, asked.group.as_deref()))
        {
            self.supported_kinds.clear();
        }
    }

    fn report(&self, index: usize, gateway_stands: bool) -> ListenerStatus {
        let path = format!("spec.listeners[{index}]");
        let good = |kind, reason| Condition::plain(kind, Truth::True, reason);
        let bad = |kind, reason, message: &str, field: &str| Condition {
            condition_type: kind,
            status: Truth::False,
            reason,
            message: message.to_owned(),
            path: format!("{path}{field}"),
        };
        let accepted = match (&self.accepted, &self.conflict) {
            (Err((reason, message)), _) | (Ok(()), Some((reason, message))) => {
                bad(ConditionType::Accepted, *reason, message, "")
            }
            (Ok(()), None) => good(ConditionType::Accepted, Reason::Accepted),
        };
        let resolved = match &self.resolved {
            Ok(()) => good(ConditionType::ResolvedRefs, Reason::ResolvedRefs),
            Err((reason, message, field)) => {
                bad(ConditionType::ResolvedRefs, *reason, message, field)
            }
        };
        let conflicted = match &self.conflict {
            None => Condition::plain(ConditionType::Conflicted, Truth::False, Reason::NoConflicts),
            Some((reason, message)) => Condition {
                status: Truth::True,
                ..bad(ConditionType::Conflicted, *reason, message, "")
            },
        };
        let programmed = if !gateway_stands {
            bad(
                ConditionType::Programmed,
                Reason::Invalid,
                "the gateway is not accepted",
                "",
            )
        } else if self.is_served() {
            Condition::plain(ConditionType::Programmed, Truth::Unknown, Reason::Pending)
        } else if self.spec.protocol == ListenerProtocol::Https && self.accepted.is_ok() {
            let message = "the certificates cannot be used";
            bad(ConditionType::Programmed, Reason::Invalid, message, ".tls")
        } else {
            bad(
                ConditionType::Programmed,
                Reason::Invalid,
                "the listener is not accepted",
                "",
            )
        };
        ListenerStatus {
            name: self.spec.name.clone(),
            attached_routes: self.attached_routes,
            supported_kinds: self.supported_kinds.clone(),
            conditions: vec![accepted, programmed, resolved, conflicted],
        }
    }
}
