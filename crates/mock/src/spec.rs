//! What a mock server is told at start.
//! Everything has a default: `MockSpec::default()` is a fast 8B server on a free port.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use sim::engine::{EngineSpec, Profile};

use crate::faults::Fault;

/// Where to listen.
#[derive(Debug)]
pub enum Listen {
    /// Bind this address; port 0 takes a free one.
    Address(SocketAddr),
    /// Use this socket, which is bound and listens.
    Bound(TcpListener),
}

/// How a mock server is built.
#[derive(Debug)]
pub struct MockSpec {
    /// Where to listen.
    pub listen: Listen,
    /// Base models it serves, at least one; adapters hang below the first.
    pub models: Vec<String>,
    /// LoRA adapters it serves.
    pub adapters: Vec<String>,
    /// The engine behind it.
    pub engine: EngineSpec,
    /// Longest prompt plus output in tokens; never more than the KV cache holds.
    pub max_model_len: u32,
    /// How much faster than its profile it runs; 2 halves every step. From 0.001 on.
    pub speed: f64,
    /// Faults active from the start.
    pub faults: Vec<Fault>,
    /// Seed of the generated text and of probabilities of faults.
    pub seed: u64,
}

impl Default for MockSpec {
    fn default() -> Self {
        Self {
            listen: Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            models: vec!["mock".to_owned()],
            adapters: Vec::new(),
            engine: EngineSpec::new(Profile::default()),
            max_model_len: 131_072,
            speed: 1.0,
            faults: Vec::new(),
            seed: 0,
        }
    }
}

/// Speed of the engine in thousandths of the profile's, from factors people give; at least 1.
pub(crate) fn per_mille(speed: f64) -> u32 {
    // A cast from float saturates, and NaN becomes 0.
    ((speed * 1_000.0).round() as u32).clamp(1, 1_000_000_000)
}
