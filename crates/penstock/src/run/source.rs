//! Where objects come from: files that are watched, endpoints that were named or found, or two
//! simulated servers that are started here.

use super::Tasks;
use crate::cli::RunArgs;
use crate::discover::{self, Found};
use crate::mock::DEFAULT_MODEL;
use anyhow::Context;
use config::{
    Compiled, Compiler, ConfigError, EndpointUrl, ListenerReport, Objects, Placement, Plain,
};
use control::files::{self, Watching};
use control::stream::{Applied, Following, Listener, Received};
use mock::{Listen, Mock, MockSpec};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// An adapter that the second simulated server has and the first has not.
const SIMULATED_ADAPTER: &str = "sim-8b-sql";

/// How the configuration came about.
#[derive(Debug)]
pub(crate) enum Origin {
    Files,
    Endpoints,
    Found(Vec<Found>),
    Simulated(Vec<SocketAddr>),
    Controller,
}

/// The objects in force and their changes.
#[derive(Debug)]
pub(crate) struct Source {
    origin: Origin,
    compiler: Compiler,
    objects: Arc<Objects>,
    refused: Vec<ConfigError>,
    files: Option<Watching>,
    stream: Option<Following>,
    /// What came last from the stream.
    received: Option<Received>,
}

/// Why a configuration cannot be served.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Source {
    /// Finds out where objects come from and reads them.
    ///
    /// # Errors
    /// Files or URLs with mistakes, with their places.
    pub(super) async fn open(
        args: &RunArgs,
        tasks: &Tasks,
        servers: &Tasks,
    ) -> Result<Self, Refused> {
        if !args.paths.is_empty() {
            return Self::from_files(args, tasks).await;
        }
        let (origin, endpoints) = if args.endpoints.is_empty() {
            let ours = [args.listen.port(), args.admin.port()];
            let ports = args.discover.clone();
            let found = tokio::task::spawn_blocking(move || discover::local(&ports, &ours)).await;
            let found = found.unwrap_or_default();
            if found.is_empty() {
                let servers = simulate(servers)
                    .await
                    .map_err(|e| Refused(format!("{e:#}\n")))?;
                (
                    Origin::Simulated(servers.clone()),
                    servers.iter().map(url).collect(),
                )
            } else {
                let urls = found.iter().map(|one| url(&one.address)).collect();
                (Origin::Found(found), urls)
            }
        } else {
            (Origin::Endpoints, endpoint_urls(&args.endpoints)?)
        };
        let mut plain = Plain::of_endpoints(args.listen, endpoints);
        plain.trust_inference_headers = args.trust_inference_headers;
        let objects = config::expand_plain(&plain).into_iter().collect();
        Ok(Self::new(origin, Arc::new(objects)))
    }

    fn new(origin: Origin, objects: Arc<Objects>) -> Self {
        Self {
            origin,
            compiler: Compiler::default(),
            objects,
            refused: Vec::new(),
            files: None,
            stream: None,
            received: None,
        }
    }

    /// Objects that a controller feeds; what was kept from the last run is there at once.
    pub(crate) fn from_stream(mut following: Following) -> Self {
        let received = following.received.borrow_and_update().clone();
        let objects = received.as_ref().map(|received| received.objects.clone());
        let mut source = Self::new(Origin::Controller, objects.unwrap_or_default());
        source.compiler = Compiler::new(Placement::PerGateway);
        source.stream = Some(following);
        source.received = received;
        source
    }

    /// Whether there is something to serve.
    pub(super) fn is_fed(&self) -> bool {
        self.received.is_some()
    }

    /// Tells the controller, if there is one, what became of the configuration that was applied.
    pub(super) fn report(&self, snapshot: &config::Snapshot, reports: &[ListenerReport]) {
        let (Some(following), Some(received)) = (&self.stream, &self.received) else {
            return;
        };
        let listeners = reports
            .iter()
            .map(|report| Listener::of(&report.listener, &report.state));
        let applied = Applied {
            snapshot: snapshot.hash,
            listeners: listeners.collect(),
            ..Applied::default()
        };
        following.report(received, applied);
    }

    async fn from_files(args: &RunArgs, tasks: &Tasks) -> Result<Self, Refused> {
        let (paths, stop) = (args.paths.clone(), tasks.stop.clone());
        let mut watching = files::watch(paths, args.watch_interval, stop, &tasks.tracker).await;
        let loaded = watching.loaded.borrow_and_update().clone();
        if !loaded.errors.is_empty() {
            return Err(Refused(config::ErrorList(&loaded.errors).to_string()));
        }
        warn(&loaded.warnings);
        let mut source = Self::new(Origin::Files, loaded.objects.clone());
        source.files = Some(watching);
        Ok(source)
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Errors of the last edit, if it was refused.
    pub(crate) fn refused(&self) -> Vec<ConfigError> {
        self.refused.clone()
    }

    pub(crate) fn compile(&mut self) -> Compiled {
        self.compiler.compile(&self.objects)
    }

    /// Models that the objects declare, for people.
    pub(crate) fn models(&self, snapshot: &config::Snapshot) -> Vec<String> {
        let mut models: Vec<String> = snapshot
            .pools
            .values()
            .flat_map(|pool| {
                pool.picker
                    .models
                    .names()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect();
        if matches!(self.origin, Origin::Simulated(_)) {
            models.extend([DEFAULT_MODEL.to_owned(), SIMULATED_ADAPTER.to_owned()]);
        }
        models.sort();
        models.dedup();
        models
    }

    /// Waits for the next change; `false` when it was refused and the objects stay. Never returns
    /// where nothing can change.
    pub(crate) async fn changed(&mut self) -> bool {
        if let Some(stream) = &mut self.stream {
            if stream.received.changed().await.is_err() {
                return std::future::pending().await;
            }
            self.received = stream.received.borrow_and_update().clone();
            if let Some(received) = &self.received {
                self.objects = received.objects.clone();
            }
            return true;
        }
        let Some(files) = &mut self.files else {
            return std::future::pending().await;
        };
        if files.loaded.changed().await.is_err() {
            return std::future::pending().await;
        }
        let loaded = files.loaded.borrow_and_update().clone();
        self.refused = loaded.errors.clone();
        if self.refused.is_empty() {
            warn(&loaded.warnings);
            self.objects = loaded.objects.clone();
        }
        self.refused.is_empty()
    }

    /// Reads files now, where there are some.
    pub(super) fn look_now(&self) {
        if let Some(files) = &self.files {
            files.look_now();
        }
    }
}

/// What was left aside in the files.
fn warn(warnings: &[ConfigError]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

fn url(address: &SocketAddr) -> EndpointUrl {
    EndpointUrl {
        host: address.ip().to_string(),
        port: address.port(),
        is_tls: false,
    }
}

/// Reads the URLs of the command line.
pub(crate) fn endpoint_urls(texts: &[String]) -> Result<Vec<EndpointUrl>, Refused> {
    texts
        .iter()
        .map(|text| {
            EndpointUrl::parse(text).map_err(|wrong| {
                Refused(format!(
                    "penstock: --endpoint {text}: {wrong}; write it as http://HOST:PORT\n"
                ))
            })
        })
        .collect()
}

/// Two simulated servers on free ports of this machine.
async fn simulate(tasks: &Tasks) -> anyhow::Result<Vec<SocketAddr>> {
    let mut servers = Vec::new();
    for index in 0..2 {
        let adapters = if index == 1 {
            vec![SIMULATED_ADAPTER.to_owned()]
        } else {
            Vec::new()
        };
        let spec = MockSpec {
            listen: Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            models: vec![DEFAULT_MODEL.to_owned()],
            adapters,
            seed: index,
            ..MockSpec::default()
        };
        let server = Mock::bind(spec).context("cannot open a port for a simulated server")?;
        servers.push(server.address());
        tasks.tracker.spawn(server.serve(tasks.stop.clone()));
    }
    Ok(servers)
}
