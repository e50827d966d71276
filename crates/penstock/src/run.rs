//! `penstock run`: wiring, in order. Configuration, sockets, admin, signals, end.
//!
//! Objects come from files, from `--endpoint`, from servers found on this machine, or from two
//! simulated ones. All go the same way: compile, resolve members, apply (`run/serving.rs`).

mod banner;
mod descriptors;
pub(crate) mod dns;
mod members;
pub(crate) mod memory;
mod serving;
mod signals;
pub(crate) mod source;

use crate::admin::Admin;
use crate::cli::RunArgs;
use anyhow::Context;
use members::Names;
use memory::MemoryLimit;
use proxy::{AccessLog, Limits, Proxy, Settings};
use serving::Serving;
pub(crate) use signals::Signals;
pub(crate) use source::Source;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    block_on(serve(args))
}

/// Runs a command that serves on a thread of its own.
pub(crate) fn block_on(
    serving: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    descriptors::make_room();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(serving);
    // Threads that wait for requests which were given up must not hold the process.
    runtime.shutdown_background();
    served
}

/// What all data planes are told.
#[derive(Debug)]
pub(crate) struct Serve {
    pub(crate) admin: SocketAddr,
    pub(crate) workers: Option<usize>,
    pub(crate) access_log: String,
    pub(crate) explain: bool,
    pub(crate) drain_timeout: Duration,
    pub(crate) memory_limit: Option<MemoryLimit>,
    pub(crate) limits: Limits,
    /// Who is asked for names of endpoints; nobody: the system's resolver.
    pub(crate) name_servers: Vec<SocketAddr>,
}

async fn serve(args: RunArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let (tasks, servers) = (Tasks::default(), Tasks::default());
    let options = Serve {
        admin: args.admin,
        workers: args.workers,
        access_log: args.access_log.clone(),
        explain: !args.no_explain_headers,
        drain_timeout: args.drain_timeout,
        memory_limit: args.memory_limit,
        limits: args.limits.limits(),
        name_servers: args.name_servers.clone(),
    };
    let admin_listener = bind_admin(options.admin).await?;
    let source = match Source::open(&args, &tasks, &servers).await {
        Ok(source) => source,
        Err(refused) => {
            eprint!("{refused}");
            return Ok(ExitCode::from(2));
        }
    };
    let admin_address = admin_listener.local_addr()?;
    let mut serving = start(&options, admin_listener, source, &tasks)?;
    let applied = serving.apply().await;
    let mut failed = applied
        .binds
        .iter()
        .filter_map(|bound| bound.result.as_ref().err());
    if let Some(error) = failed.next() {
        anyhow::bail!("{error}");
    }
    serving.proxy.note_program_memory();
    serving.admin.set_ready(true);
    let snapshot = serving.proxy.live().snapshot.clone();
    banner::print(&serving.source, &snapshot, &applied, admin_address);

    serving.follow(&mut signals).await;
    let log = serving.proxy.log().clone();
    let ending = end(serving, tasks, servers);
    Ok(within(options.drain_timeout, &mut signals, (ending, log)).await)
}

/// Serves what a controller says: ready with the first configuration, whatever it is.
pub(crate) async fn serve_fed(
    options: Serve,
    source: Source,
    tasks: Tasks,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let admin_listener = bind_admin(options.admin).await?;
    let is_kept = source.is_fed();
    let mut serving = start(&options, admin_listener, source, &tasks)?;
    if !is_kept {
        tracing::info!("waiting for the controller");
        let fed = tokio::select! {
            _ = serving.source.changed() => true,
            () = signals.end() => false,
        };
        if !fed {
            let log = serving.proxy.log().clone();
            let ending = end(serving, tasks, Tasks::default());
            return Ok(within(options.drain_timeout, &mut signals, (ending, log)).await);
        }
    }
    serving.apply().await;
    serving.proxy.note_program_memory();
    serving.admin.set_ready(true);
    serving.follow(&mut signals).await;
    let log = serving.proxy.log().clone();
    let ending = end(serving, tasks, Tasks::default());
    Ok(within(options.drain_timeout, &mut signals, (ending, log)).await)
}

/// Starts the workers and the admin address.
fn start(
    options: &Serve,
    admin_listener: TcpListener,
    source: Source,
    tasks: &Tasks,
) -> anyhow::Result<Serving> {
    let proxy = Arc::new(Proxy::start(settings(options)?).context("cannot start the workers")?);
    let admin = Admin::new(proxy.clone());
    tasks
        .tracker
        .spawn(admin.clone().serve(admin_listener, tasks.stop.clone()));
    let names = Names::new(&options.name_servers);
    Ok(Serving::new(proxy, admin, source, names))
}

/// Tasks of one kind, which end together.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Tasks {
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Stops accepting and lets requests end; the simulated servers go last, since requests need them.
async fn end(serving: Serving, tasks: Tasks, servers: Tasks) {
    let Serving { proxy, admin, .. } = serving;
    admin.set_ready(false);
    tasks.end().await;
    drop(admin);
    // The last owner: the workers finish what is under way.
    if let Some(proxy) = Arc::into_inner(proxy)
        && let Err(error) = tokio::task::spawn_blocking(move || proxy.stop()).await
    {
        let panicked = error.is_panic();
        tracing::error!(panicked, "the workers did not end as they should");
    }
    servers.end().await;
}

/// Waits for the end for as long as `patience` lasts and nobody asks a second time.
async fn within(
    patience: Duration,
    signals: &mut Signals,
    (ending, log): (impl Future<Output = ()>, AccessLog),
) -> ExitCode {
    let code = tokio::select! {
        () = ending => return ExitCode::SUCCESS,
        () = signals.end() => {
            tracing::warn!("ended by a second signal; requests under way are cut");
            ExitCode::FAILURE
        }
        () = tokio::time::sleep(patience) => {
            tracing::warn!(?patience, "requests were still under way and are cut");
            ExitCode::FAILURE
        }
    };
    // The workers hand over their lines with their next tick.
    tokio::time::sleep(proxy::TICK * 2).await;
    log.finish();
    code
}

async fn bind_admin(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| proxy::explain_bind_error(address, error))
        .context("cannot open the admin address; choose another with --admin")
}

fn settings(options: &Serve) -> anyhow::Result<Settings> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Settings {
        workers: options.workers.unwrap_or(cores),
        limits: options.limits.clone(),
        log: access_log(&options.access_log)?,
        explain: options.explain,
        seed: seed(),
        memory: memory::limit(options.memory_limit),
    })
}

/// A seed that differs from process to process: for draws and request ids, not for secrets.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}

fn access_log(target: &str) -> anyhow::Result<AccessLog> {
    let log = match target {
        "off" => return Ok(AccessLog::off()),
        "-" => AccessLog::to(std::io::stdout()),
        file => {
            let opened = OpenOptions::new().create(true).append(true).open(file);
            AccessLog::to(opened.with_context(|| format!("cannot write the access log {file}"))?)
        }
    };
    log.context("cannot start the access log")
}
