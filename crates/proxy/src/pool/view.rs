//! A pool as people and metrics see it: one plain picture, taken under the lock, shown outside it.

use super::Pool;
use crate::live::Live;
use serde::Serialize;

/// One endpoint at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointView {
    /// The picker's own picture: load, reports and their ages, health, learnt rates.
    #[serde(flatten)]
    pub state: picker::EndpointView,
    /// Where it is connected to.
    pub address: Option<std::net::SocketAddr>,
    /// Models and adapters that it announces.
    pub models: Vec<String>,
}

/// One pool at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct PoolView {
    /// Namespace and name, or Service and port.
    pub name: String,
    /// Whether it is an InferencePool.
    pub inference: bool,
    /// 0 is idle, 1 and more is saturated.
    pub saturation: f32,
    /// Requests that wait for a turn.
    pub queued_requests: usize,
    /// Bytes that those requests hold.
    pub queued_bytes: usize,
    /// Memory of the prefix index, in bytes.
    pub prefix_bytes: usize,
    /// Models that are declared or announced.
    pub models: Vec<String>,
    /// All members.
    pub endpoints: Vec<EndpointView>,
}

impl Pool {
    fn view(&self) -> PoolView {
        let state = self.state.lock();
        let states: Vec<picker::EndpointView> = state.endpoints().collect();
        let (saturation, queued_requests, queued_bytes) =
            (state.saturation(), state.queue_len(), state.queue_bytes());
        drop(state);
        let endpoints = states
            .into_iter()
            .map(|state| {
                let endpoint = self.endpoint(state.id);
                let models = endpoint.as_ref().map(|endpoint| {
                    endpoint
                        .announced
                        .cards()
                        .iter()
                        .map(|card| card.id.clone())
                        .collect()
                });
                let address = endpoint.map(|endpoint| endpoint.address);
                EndpointView {
                    state,
                    address,
                    models: models.unwrap_or_default(),
                }
            })
            .collect();
        PoolView {
            name: self.name().to_string(),
            inference: self.inference,
            saturation,
            queued_requests,
            queued_bytes,
            prefix_bytes: self.prefixes.read().bytes(),
            models: self.model_names(),
            endpoints,
        }
    }
}

impl Live {
    /// All pools and Services that requests can go to.
    pub fn views(&self) -> Vec<PoolView> {
        self.all_pools().map(|pool| pool.view()).collect()
    }
}
