//! `penstock run`: wiring, in order. Configuration, sockets, admin, signals, end.
//!
//! Objects come from files, from `--endpoint`, from servers found on this machine, or from two
//! simulated ones. All go the same way: compile, resolve members, apply.

mod banner;
mod members;
pub(crate) mod source;

use crate::admin::{Admin, Configuration};
use crate::cli::RunArgs;
use anyhow::Context;
use proxy::{AccessLog, Limits, Proxy, Settings};
use source::Source;
use std::fs::OpenOptions;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often names of endpoints are resolved again.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);

pub(crate) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: RunArgs) -> anyhow::Result<ExitCode> {
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let admin_listener = bind_admin(&args).await?;
    let mut source = match Source::open(&args, &stop, &tasks).await {
        Ok(source) => source,
        Err(refused) => {
            eprint!("{refused}");
            return Ok(ExitCode::from(2));
        }
    };
    let proxy = Arc::new(Proxy::start(settings(&args)?).context("cannot start the workers")?);
    let admin = Admin::new(proxy.clone());
    let admin_address = admin_listener.local_addr()?;
    tasks.spawn(admin.clone().serve(admin_listener, stop.clone()));

    let applied = apply(&proxy, &admin, &mut source).await;
    if let Some(error) = applied
        .binds
        .iter()
        .find_map(|bound| bound.result.as_ref().err())
    {
        anyhow::bail!("{error}");
    }
    admin.set_ready(true);
    banner::print(&source, &proxy.live().snapshot, &applied, admin_address);

    let ended = follow(&proxy, &admin, &mut source).await;
    admin.set_ready(false);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    drop(admin);
    // The last owner: the workers finish what is under way.
    if let Some(proxy) = Arc::into_inner(proxy) {
        tokio::task::spawn_blocking(move || proxy.stop()).await?;
    }
    ended
}

/// Compiles what the source has now and puts it in force.
async fn apply(proxy: &Proxy, admin: &Admin, source: &mut Source) -> proxy::Applied {
    let compiled = source.compile();
    let members = members::resolve(source.objects(), &compiled.snapshot).await;
    let applied = proxy.apply(compiled.snapshot, &members);
    for bound in &applied.binds {
        if let Err(error) = &bound.result {
            tracing::error!(%error, "a listener is not served");
        }
    }
    let refused = source.refused();
    admin.set_configuration(Configuration {
        statuses: compiled.statuses,
        refused,
    });
    applied
}

/// Follows changes until a signal ends the process.
async fn follow(proxy: &Proxy, admin: &Admin, source: &mut Source) -> anyhow::Result<ExitCode> {
    let mut end = std::pin::pin!(signalled());
    let mut again = tokio::time::interval(RESOLVE_EVERY);
    again.tick().await;
    loop {
        tokio::select! {
            signalled = &mut end => return signalled.map(|()| ExitCode::SUCCESS),
            changed = source.changed() => {
                if changed {
                    apply(proxy, admin, source).await;
                } else {
                    refuse(admin, source);
                }
            }
            _ = again.tick() => {
                let live = proxy.live();
                let members = members::resolve(source.objects(), &live.snapshot).await;
                proxy.apply_members(&members);
            }
        }
    }
}

/// Keeps the last good configuration and shows what is wrong with the new one.
fn refuse(admin: &Admin, source: &Source) {
    let refused = source.refused();
    for error in &refused {
        tracing::error!(%error, "a change is refused; the last good configuration stays");
    }
    admin.set_refused(refused);
}

/// Returns at SIGTERM or SIGINT.
pub(crate) async fn signalled() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn bind_admin(args: &RunArgs) -> anyhow::Result<TcpListener> {
    TcpListener::bind(args.admin)
        .await
        .map_err(|error| proxy::explain_bind_error(args.admin, error))
        .context("cannot open the admin address; choose another with --admin")
}

fn settings(args: &RunArgs) -> anyhow::Result<Settings> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Settings {
        workers: args.workers.unwrap_or(cores),
        limits: Limits::default(),
        log: access_log(&args.access_log)?,
        explain: !args.no_explain_headers,
        seed: seed(),
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
