//! The messages of the object stream, written by hand: fields keep their numbers for ever, and unknown
//! ones are passed over, so that one minor version apart goes on serving.

use config::SocketState;
use std::collections::HashMap;

/// From proxy to controller.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FromProxy {
    #[prost(oneof = "Said", tags = "1, 2, 3")]
    pub(super) said: Option<Said>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Said {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Applied(Applied),
    /// From another replica of the controller instead of a proxy.
    #[prost(message, tag = "3")]
    Relayed(Relayed),
}

/// Everything that the proxies of one replica said, each time anew.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Relayed {
    #[prost(message, repeated, tag = "1")]
    pub(super) reports: Vec<RelayedReport>,
}

/// What one proxy said.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RelayedReport {
    #[prost(string, tag = "1")]
    pub(super) namespace: String,
    #[prost(string, tag = "2")]
    pub(super) gateway: String,
    #[prost(string, tag = "3")]
    pub(super) pod: String,
    #[prost(int64, tag = "4")]
    pub(super) generation: i64,
    #[prost(message, repeated, tag = "5")]
    pub(super) listeners: Vec<Listener>,
}

/// The first message.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Hello {
    /// Objects that the proxy has, by key, with the hash of their content.
    #[prost(map = "string, fixed64", tag = "1")]
    pub(super) have: HashMap<String, u64>,
    /// Version of the program.
    #[prost(string, tag = "2")]
    pub(super) binary: String,
}

/// A version that the proxy serves now.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Applied {
    /// Of the commit.
    #[prost(uint64, tag = "1")]
    pub version: u64,
    /// Hash of the compiled snapshot.
    #[prost(fixed64, tag = "2")]
    pub snapshot: u64,
    /// What became of each listener.
    #[prost(message, repeated, tag = "3")]
    pub listeners: Vec<Listener>,
    /// Version of the program.
    #[prost(string, tag = "4")]
    pub binary: String,
}

/// What became of one listener.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Listener {
    /// Its name in the Gateway.
    #[prost(string, tag = "1")]
    pub name: String,
    /// 0: served; 1: its port is not available; 2: its address is not usable.
    #[prost(uint32, tag = "2")]
    pub state: u32,
    /// Why it is not served.
    #[prost(string, tag = "3")]
    pub message: String,
}

/// From controller to proxy.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Change {
    #[prost(message, repeated, tag = "1")]
    pub(super) upserts: Vec<Upsert>,
    #[prost(string, repeated, tag = "2")]
    pub(super) deletes: Vec<String>,
    /// Everything up to here makes this version.
    #[prost(uint64, optional, tag = "3")]
    pub(super) commit: Option<u64>,
    /// Version of the program.
    #[prost(string, tag = "4")]
    pub(super) binary: String,
}

/// One object, new or changed.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Upsert {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) object: bytes::Bytes,
}

/// What became of listeners, as the rest of the program says it.
pub type Listeners = Vec<(String, SocketState)>;

impl Listener {
    /// One listener's state.
    pub fn of(name: &str, state: &SocketState) -> Self {
        let (number, message) = match state {
            SocketState::Served => (0, ""),
            SocketState::PortUnavailable(message) => (1, message.as_str()),
            SocketState::AddressNotUsable(message) | SocketState::AddressNotAssigned(message) => {
                (2, message.as_str())
            }
            SocketState::CertificateUnusable(message) => (3, message.as_str()),
        };
        Self {
            name: name.to_owned(),
            state: number,
            message: message.to_owned(),
        }
    }

    /// A state that a later version added counts as not served.
    pub(super) fn state(&self) -> SocketState {
        match self.state {
            0 => SocketState::Served,
            2 => SocketState::AddressNotUsable(self.message.clone()),
            3 => SocketState::CertificateUnusable(self.message.clone()),
            _ => SocketState::PortUnavailable(self.message.clone()),
        }
    }
}
