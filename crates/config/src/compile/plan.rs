//! What has to run for each of our Gateways, for who provisions proxies.

use crate::name::ObjectName;
use crate::objects::gateway::ListenerProtocol;
use crate::objects::penstock::GatewayParametersSpec;

/// One Gateway of ours.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayPlan {
    /// The Gateway.
    pub name: ObjectName,
    /// Parameters of its class and its own, merged.
    pub parameters: GatewayParametersSpec,
    /// Ports of its listeners, each once, in ascending order.
    pub ports: Vec<PlannedPort>,
    /// Whether the Gateway as a whole is taken on; one that is not gets no proxies.
    pub accepted: bool,
}

/// A port that clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PlannedPort {
    /// 1 to 65535.
    pub number: u16,
    /// Datagrams instead of connections.
    pub is_udp: bool,
}

impl GatewayPlan {
    pub(super) fn of(gateway: &super::gateways::OurGateway) -> Self {
        let listeners = gateway.listeners.iter().map(|listener| PlannedPort {
            number: listener.spec.port.number(),
            is_udp: listener.spec.protocol == ListenerProtocol::Udp,
        });
        let mut ports: Vec<PlannedPort> = listeners.collect();
        ports.sort_unstable();
        ports.dedup();
        Self {
            name: gateway.name.clone(),
            parameters: gateway.parameters.clone(),
            ports,
            accepted: gateway.stands(),
        }
    }
}
