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

/// An external endpoint picker at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct PickerView {
    /// Its Service and port.
    pub service: String,
    /// Whether the built-in picker chooses when it does not.
    pub fail_open: bool,
    /// Its addresses, and whether each is asked.
    pub addresses: Vec<(std::net::SocketAddr, bool)>,
    /// What became of requests about which it was asked.
    pub requests: [(&'static str, u64); 4],
    /// Upper bounds of times to a pick, in seconds, with the picks of each.
    #[serde(skip)]
    pub picks: Vec<(f64, u64)>,
    /// Sum of those times, in seconds.
    pub pick_seconds: f64,
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
    /// What became of the gateway's own requests to servers that it does not trust.
    #[serde(skip)]
    pub probes: [(&'static str, u64); 3],
    /// Models that are declared or announced.
    pub models: Vec<String>,
    /// The external endpoint picker that it names, unless every Gateway passes over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picker: Option<PickerView>,
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
            probes: self.probes.outcomes(),
            models: self.model_names(),
            picker: self.picker_view(),
            endpoints,
        }
    }

    fn picker_view(&self) -> Option<PickerView> {
        let picker = self.external()?;
        let addresses = picker.addresses().iter();
        let (picks, pick_seconds) = self.asked.seconds.read();
        Some(PickerView {
            service: picker.name.clone(),
            fail_open: picker.fail_open,
            addresses: addresses
                .map(|one| (one.endpoint.address, one.is_up()))
                .collect(),
            requests: self.asked.outcomes(),
            picks,
            pick_seconds,
        })
    }
}

impl Live {
    /// All models of all pools with the pool that serves each, by name.
    pub(crate) fn model_names(&self) -> Vec<(String, String)> {
        let mut names: Vec<(String, String)> = Vec::new();
        for pool in self.all_pools().filter(|pool| pool.inference) {
            names.extend(
                pool.model_names()
                    .into_iter()
                    .map(|name| (name, pool.name().to_string())),
            );
        }
        names.sort();
        names.dedup_by(|a, b| a.0 == b.0);
        names
    }

    /// All pools and Services that requests can go to.
    pub fn views(&self) -> Vec<PoolView> {
        self.all_pools().map(|pool| pool.view()).collect()
    }
}
