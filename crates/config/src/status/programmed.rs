//! `Programmed`, from what a proxy says about its sockets.
//!
//! A listener is programmed when every socket that it needs is bound; a Gateway when one of its
//! listeners is. A port that is taken is the listener's `PortUnavailable`, an address that this
//! machine has not is the Gateway's `AddressNotUsable`: the API's own reasons.

use std::net::SocketAddr;

use super::{Condition, ConditionType, ListenerStatus, ObjectStatus, Reason, Statuses, Truth};
use crate::name::ObjectName;
use crate::objects::Kind;
use crate::snapshot::Snapshot;

/// What became of one socket of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// Connections are accepted on it.
    Served,
    /// The port is taken or may not be bound; the text says by whom or why.
    PortUnavailable(String),
    /// The address cannot be listened on; the text says why.
    AddressNotUsable(String),
    /// The Gateway has no address yet (in a cluster).
    AddressNotAssigned(String),
    /// The listener's certificate or key cannot be used; the text says why. The last good one, if
    /// there was one, is still shown to clients.
    CertificateUnusable(String),
}

/// What a proxy reports of one listener of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerReport {
    /// The Gateway.
    pub gateway: ObjectName,
    /// The listener's name.
    pub listener: Box<str>,
    /// What became of a socket that it needs, or of its certificates.
    pub state: SocketState,
}

impl ListenerReport {
    /// Reports of the listeners of `snapshot` whose sockets are in `sockets`, by address and port.
    pub fn of_sockets(snapshot: &Snapshot, sockets: &[(SocketAddr, SocketState)]) -> Vec<Self> {
        let mut reports = Vec::new();
        for bind in &snapshot.binds {
            let socket = SocketAddr::new(bind.address, bind.port);
            let state = sockets.iter().find(|(address, _)| *address == socket);
            let Some((_, state)) = state else { continue };
            reports.extend(bind.listeners.iter().map(|listener| Self {
                gateway: listener.gateway.clone(),
                listener: listener.name.clone(),
                state: state.clone(),
            }));
        }
        reports
    }
}

impl SocketState {
    fn message(&self) -> &str {
        match self {
            Self::Served => "",
            Self::PortUnavailable(message)
            | Self::AddressNotUsable(message)
            | Self::AddressNotAssigned(message)
            | Self::CertificateUnusable(message) => message,
        }
    }
}

impl Statuses {
    /// Takes over what a proxy reports of listeners. Those without a report stay as they are.
    pub fn take_reports(&mut self, reports: &[ListenerReport]) {
        for report in reports {
            let gateway = self
                .objects
                .iter_mut()
                .find(|status| status.kind == Kind::Gateway && status.name == report.gateway);
            let position = gateway.as_ref().and_then(|gateway| {
                let named = |known: &ListenerStatus| *known.name == *report.listener;
                gateway.listeners.iter().position(named)
            });
            if let (Some(gateway), Some(position)) = (gateway, position) {
                gateway.take_listener(position, &report.state);
            }
        }
    }
}

impl ObjectStatus {
    fn take_listener(&mut self, position: usize, state: &SocketState) {
        let path = format!("spec.listeners[{position}]");
        if let Some(status) = self.listeners.get_mut(position) {
            of_listener(&mut status.conditions, state, &path);
        }
        let any = self.listeners.iter().any(is_programmed);
        of_gateway(&mut self.conditions, state, any);
    }

    /// Takes over what proxies report of a Gateway's listeners, by name, and what is wrong with the
    /// Gateway's addresses, if anything. Listeners without a report stay as they are.
    pub fn take_proxies(
        &mut self,
        listeners: &[(String, SocketState)],
        addresses: Option<&SocketState>,
    ) {
        for (name, state) in listeners {
            let position = self.listeners.iter().position(|known| known.name == *name);
            if let Some(position) = position {
                self.take_listener(position, state);
            }
        }
        let is_refused = |one: &Condition| {
            one.condition_type == ConditionType::Programmed && one.status == Truth::False
        };
        if let Some(problem) = addresses
            && !self.conditions.iter().any(is_refused)
        {
            of_gateway(&mut self.conditions, problem, false);
        }
    }
}

fn is_programmed(listener: &ListenerStatus) -> bool {
    let programmed = |one: &&Condition| one.condition_type == ConditionType::Programmed;
    let mut programmed = listener.conditions.iter().filter(programmed);
    programmed.any(|one| one.status == Truth::True)
}

/// One socket that fails is enough against a listener; a later one that works does not heal it.
fn of_listener(conditions: &mut [Condition], state: &SocketState, path: &str) {
    for condition in conditions {
        match (condition.condition_type, state) {
            (ConditionType::Programmed, SocketState::Served)
                if condition.status == Truth::Unknown =>
            {
                condition.status = Truth::True;
                condition.reason = Reason::Programmed;
            }
            (_, SocketState::Served) => {}
            (ConditionType::Programmed, _) => refuse(condition, Reason::Invalid, state, path),
            (ConditionType::Accepted, SocketState::PortUnavailable(_)) => {
                refuse(condition, Reason::PortUnavailable, state, path);
            }
            (ConditionType::ResolvedRefs, SocketState::CertificateUnusable(_))
                if condition.status == Truth::True =>
            {
                let path = format!("{path}.tls.certificateRefs");
                refuse(condition, Reason::InvalidCertificateRef, state, &path);
            }
            _ => {}
        }
    }
}

fn of_gateway(conditions: &mut [Condition], state: &SocketState, any_programmed: bool) {
    let programmed = |one: &&mut Condition| one.condition_type == ConditionType::Programmed;
    for condition in conditions.iter_mut().filter(programmed) {
        match state {
            _ if any_programmed => {
                *condition =
                    Condition::plain(ConditionType::Programmed, Truth::True, Reason::Programmed);
            }
            SocketState::Served => {}
            SocketState::PortUnavailable(_) | SocketState::CertificateUnusable(_) => {
                refuse(condition, Reason::Invalid, state, "spec.listeners");
            }
            SocketState::AddressNotUsable(_) => {
                refuse(condition, Reason::AddressNotUsable, state, "spec.addresses");
            }
            SocketState::AddressNotAssigned(_) => {
                refuse(condition, Reason::AddressNotAssigned, state, "");
            }
        }
    }
}

fn refuse(condition: &mut Condition, reason: Reason, state: &SocketState, path: &str) {
    condition.status = Truth::False;
    condition.reason = reason;
    condition.message = state.message().to_owned();
    condition.path = path.to_owned();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Objects;

    const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  gatewayClassName: penstock
  addresses: [{value: 10.0.0.1}, {value: 10.0.0.2}]
  listeners:
  - {name: a, port: 80, protocol: HTTP}
  - {name: b, port: 81, protocol: HTTP}
";

    /// The Gateway's, then each listener's `Programmed` and, if it is none, the reason.
    fn programmed(report: &[(&str, SocketState)]) -> Vec<String> {
        let objects: Objects = crate::decode_for_tests(GATEWAY).into_iter().collect();
        let mut compiled = crate::compile(&objects);
        let report: Vec<_> = report
            .iter()
            .map(|(address, state)| (address.parse().unwrap(), state.clone()))
            .collect();
        let reports = ListenerReport::of_sockets(&compiled.snapshot, &report);
        compiled.statuses.take_reports(&reports);
        let shown = |conditions: &[Condition]| {
            let mut shown = String::new();
            for one in conditions {
                let wanted = one.condition_type == ConditionType::Programmed
                    || one.reason == Reason::PortUnavailable;
                if wanted {
                    shown.push_str(&format!("{:?}/{:?} ", one.status, one.reason));
                }
            }
            shown.trim_end().to_owned()
        };
        let gateway = compiled.statuses.objects.first().unwrap();
        let listeners = gateway.listeners.iter().map(|one| shown(&one.conditions));
        std::iter::once(shown(&gateway.conditions))
            .chain(listeners)
            .collect()
    }

    #[test]
    fn listeners_are_programmed_when_all_their_sockets_are() {
        let busy = || SocketState::PortUnavailable("in use".to_owned());
        let absent = || SocketState::AddressNotUsable("no such address".to_owned());
        let served = || SocketState::Served;
        let all = ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "10.0.0.2:81"];
        let report = |states: [SocketState; 4]| {
            let pairs: Vec<_> = all.into_iter().zip(states).collect();
            programmed(&pairs)
        };
        let (good, bad) = ("True/Programmed", "False/PortUnavailable False/Invalid");
        assert_eq!(
            report([served(), served(), served(), served()]),
            [good, good, good]
        );
        assert_eq!(
            report([busy(), served(), served(), served()]),
            [good, bad, good]
        );
        assert_eq!(
            report([served(), served(), served(), busy()]),
            [good, good, bad]
        );
        assert_eq!(
            report([busy(), busy(), served(), served()]),
            ["False/Invalid", bad, bad]
        );
        assert_eq!(
            report([absent(), absent(), served(), served()]),
            ["False/AddressNotUsable", "False/Invalid", "False/Invalid"]
        );
        assert_eq!(
            programmed(&[]),
            ["Unknown/Pending", "Unknown/Pending", "Unknown/Pending"]
        );
    }
}
