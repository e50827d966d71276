//! The plain form: ten lines for one address and a few pools, without Kubernetes' vocabulary.
//!
//! It is a document without `kind` and expands to ordinary objects (`plain/expand.rs`), so it has
//! no meaning of its own: compiling it and compiling its export give the same snapshot.
//!
//! ```yaml
//! listen: 127.0.0.1:4000
//! pools:
//!   - name: chat
//!     endpoints: [http://10.0.0.1:8000, http://10.0.0.2:8000]
//!     models: [llama-3-8b]
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Unexpected, Visitor};
use serde::{Serialize, Serializer};

use crate::objects::Weight;
use crate::objects::inference_model::Criticality;
use crate::objects::penstock::QueueSpec;

mod expand;
pub use expand::expand_plain;

/// Where to listen unless the file says otherwise.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4000);

/// A plain file.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plain {
    /// Address and port, default `127.0.0.1:4000`.
    #[serde(default = "default_listen", deserialize_with = "listen")]
    pub listen: SocketAddr,
    /// Ends TLS at `listen`; without it, plain HTTP is spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<PlainTls>,
    /// Shown to servers behind `https` endpoints that ask for one: a file in PEM with the
    /// certificate and its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
    /// Whether clients may raise their priority by inference headers.
    #[serde(default)]
    pub trust_inference_headers: bool,
    /// At least one. Several are told apart by model; the one that lists no models, or else the
    /// first, takes what no other lists.
    pub pools: Vec<PlainPool>,
}

/// Files in PEM by which TLS is ended, relative to the plain file.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlainTls {
    /// The certificate with its chain.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// Authorities: clients must show a certificate that one of them signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<String>,
}

/// Model servers that serve the same models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlainPool {
    /// A DNS label.
    pub name: String,
    /// URLs of the servers, `http://host:port`, or all of them `https://host:port`.
    pub endpoints: Vec<EndpointUrl>,
    /// Authorities that may have signed the certificates of `https` endpoints: a file in PEM.
    /// Those of the machine unless written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Names that lead to this pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<PlainModel>,
    /// By what endpoints are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<PlainProfile>,
    /// Expected seconds to the first token above which the pool is saturated; default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saturation_seconds: Option<f32>,
    /// Bounds of the waiting queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueSpec>,
    /// Whether the gateway itself tries out endpoints that cut answers or turned slow; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<bool>,
}

/// By what endpoints are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PlainProfile {
    /// Seconds that tokens come later; the default.
    Cost,
    /// Requests in flight.
    LeastRequests,
}

/// A model: a name alone, or a name with what serves it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlainModel {
    /// What clients ask for.
    pub name: String,
    /// `None` when only the name was written.
    pub settings: Option<PlainModelSettings>,
}

/// What a model may say beside its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PlainModelSettings {
    /// How much its requests matter.
    pub criticality: Option<Criticality>,
    /// What the engine is asked for instead.
    pub targets: Vec<PlainTarget>,
}

/// One model that stands in for another.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainTarget {
    /// What the engine is asked for.
    pub name: String,
    /// Share of requests; on all targets or on none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
}

/// The URL of a model server: scheme `http` or `https`, host and port, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUrl {
    /// An IP address or a name.
    pub host: String,
    /// 80 unless written, 443 for `https`.
    pub port: u16,
    /// Whether it is `https`.
    pub is_tls: bool,
}

impl Plain {
    /// One pool without a list of models behind `listen`.
    pub fn of_endpoints(listen: SocketAddr, endpoints: Vec<EndpointUrl>) -> Self {
        let pool = PlainPool {
            name: "default".to_owned(),
            endpoints,
            ..PlainPool::default()
        };
        Self {
            listen,
            tls: None,
            client_certificate: None,
            trust_inference_headers: false,
            pools: vec![pool],
        }
    }
}

impl EndpointUrl {
    /// Reads `http://host[:port][/]`, or the same with `https`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (is_tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err("the url must start with http:// or https://"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err("the url must have a host and a port only, without path or user");
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = match port.map(str::parse) {
            None if is_tls => 443,
            None => 80,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return Err("the port must be 1 to 65535"),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let is_host = host.parse::<IpAddr>().is_ok()
            || matches!(
                crate::HostPattern::parse(host),
                Some(crate::HostPattern::Exact(_))
            );
        if !is_host {
            return Err("the url has no usable host");
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            is_tls,
        })
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for EndpointUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl Serialize for EndpointUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EndpointUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Url;
        impl Visitor<'_> for Url {
            type Value = EndpointUrl;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a url such as http://10.0.0.1:8000")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<EndpointUrl, E> {
                EndpointUrl::parse(text).map_err(|why| E::custom(format!("`{text}`: {why}")))
            }
        }
        deserializer.deserialize_str(Url)
    }
}

fn default_listen() -> SocketAddr {
    DEFAULT_LISTEN
}

fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    struct Listen;
    impl Visitor<'_> for Listen {
        type Value = SocketAddr;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address and a port such as 127.0.0.1:4000 or :4000")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SocketAddr, E> {
            let with_host = match text.strip_prefix(':') {
                Some(port) => format!("0.0.0.0:{port}"),
                None => text.to_owned(),
            };
            let address = with_host
                .parse()
                .ok()
                .filter(|address: &SocketAddr| address.port() > 0);
            address.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_str(Listen)
}

/// The longer form of a model.
#[derive(Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct LongModel {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    criticality: Option<Criticality>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    targets: Vec<PlainTarget>,
}

impl Serialize for PlainModel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.settings {
            None => serializer.serialize_str(&self.name),
            Some(PlainModelSettings {
                criticality,
                targets,
            }) => LongModel {
                name: self.name.clone(),
                criticality: criticality.clone(),
                targets: targets.clone(),
            }
            .serialize(serializer),
        }
    }
}

// By hand: an untagged enum would lose lines and columns.
impl<'de> Deserialize<'de> for PlainModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Model;
        impl<'de> Visitor<'de> for Model {
            type Value = PlainModel;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a model, or a mapping with name, criticality and targets")
            }
            fn visit_str<E>(self, name: &str) -> Result<PlainModel, E> {
                Ok(PlainModel {
                    name: name.to_owned(),
                    settings: None,
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PlainModel, A::Error> {
                let long = LongModel::deserialize(MapAccessDeserializer::new(map))?;
                let settings = PlainModelSettings {
                    criticality: long.criticality,
                    targets: long.targets,
                };
                Ok(PlainModel {
                    name: long.name,
                    settings: Some(settings),
                })
            }
        }
        deserializer.deserialize_any(Model)
    }
}

impl Plain {
    /// What the types cannot say: pairs of field path and message.
    pub(crate) fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        if self.pools.is_empty() {
            problems.push(("pools".to_owned(), "at least one pool is needed".to_owned()));
        }
        let without_models = |pool: &&PlainPool| pool.models.is_empty();
        if self.pools.iter().filter(without_models).count() > 1 {
            let message =
                "only one pool may leave `models` out: the others could not be told apart";
            problems.push(("pools".to_owned(), message.to_owned()));
        }
        let mut models: rustc_hash::FxHashMap<&str, &str> = Default::default();
        for (index, pool) in self.pools.iter().enumerate() {
            let path = format!("pools[{index}]");
            pool.problems(&path, &mut problems);
            if self
                .pools
                .iter()
                .take(index)
                .any(|earlier| earlier.name == pool.name)
            {
                let message = format!("pool `{}` is written twice", pool.name);
                problems.push((format!("{path}.name"), message));
            }
            for (position, model) in pool.models.iter().enumerate() {
                if let Some(earlier) = models.insert(&model.name, &pool.name) {
                    let message = format!(
                        "model `{}` is listed already, by pool `{earlier}`",
                        model.name
                    );
                    problems.push((format!("{path}.models[{position}]"), message));
                }
            }
        }
        problems
    }
}

impl PlainPool {
    fn problems(&self, path: &str, problems: &mut Vec<(String, String)>) {
        let mut problem = |field: &str, message: &str| {
            problems.push((format!("{path}.{field}"), message.to_owned()));
        };
        let is_label = crate::HostPattern::parse(&self.name).is_some()
            && !self.name.contains(['.', '*'])
            && !self.name.bytes().any(|byte| byte.is_ascii_uppercase());
        if !is_label {
            problem(
                "name",
                "a pool's name has lowercase letters, digits and dashes only",
            );
        }
        if self.endpoints.is_empty() {
            problem("endpoints", "at least one endpoint is needed");
        }
        let first = self.endpoints.first();
        let differs = |other: &&EndpointUrl| {
            first.is_some_and(|first| {
                first.is_tls != other.is_tls || first.is_tls && first.host != other.host
            })
        };
        if self.endpoints.iter().any(|one| differs(&one)) {
            problem(
                "endpoints",
                "the endpoints of a pool are all http, or all https with the same host",
            );
        }
        if self.ca.is_some() && first.is_some_and(|first| !first.is_tls) {
            problem("ca", "authorities are of use for https endpoints only");
        }
        if self
            .saturation_seconds
            .is_some_and(|seconds| !(seconds > 0.0 && seconds.is_finite()))
        {
            problem("saturationSeconds", "the time must be above 0");
        }
        for (index, model) in self.models.iter().enumerate() {
            let Some(settings) = &model.settings else {
                continue;
            };
            if let Some(Criticality::Unknown(word)) = &settings.criticality {
                let known = Criticality::KNOWN.join(", ");
                let message = format!("unknown value `{word}`, expected one of {known}");
                problem(&format!("models[{index}].criticality"), &message);
            }
            let weighted = settings
                .targets
                .iter()
                .filter(|target| target.weight.is_some());
            if !matches!(weighted.count(), count if count == 0 || count == settings.targets.len()) {
                let message = "weights stand on all targets or on none";
                problem(&format!("models[{index}].targets"), message);
            }
        }
    }
}

#[cfg(test)]
mod tests;
