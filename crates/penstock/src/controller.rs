//! `penstock controller`: wiring, in order. Cluster, authority, object stream, health, end.

use crate::admin::{http1, text};
use crate::cli::ControllerArgs;
use crate::run::{Signals, Tasks};
use anyhow::Context;
use bytes::Bytes;
use control::kube::{self, ControllerSettings, Counts, Leadership, ProxySettings};
use control::stream::{self, RelaySettings, ServeSettings, TokenReviewer};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Whom a proxy's token must be meant for.
const AUDIENCE: &str = "penstock.dev/controller";

pub(crate) fn run(args: ControllerArgs) -> anyhow::Result<ExitCode> {
    // Both crypto providers that a build could link would do; this is the one that is linked.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(args));
    runtime.shutdown_background();
    served
}

async fn serve(args: ControllerArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let tasks = Tasks::default();
    let admin = TcpListener::bind(args.admin)
        .await
        .context("cannot open the admin address")?;
    let listener = TcpListener::bind(args.listen)
        .await
        .context("cannot open the object stream's address")?;
    let port = listener.local_addr()?.port();
    let client = kube::client().await?;
    let settings = settings(&args, port);
    let host = host_of(&settings.proxies.controller).to_owned();
    let running = kube::controller(client.clone(), settings, tasks.stop.clone(), &tasks.tracker);
    let running = running.await?;
    let streams = ServeSettings {
        feeds: running.feeds.clone(),
        reviewer: Arc::new(TokenReviewer::new(client, AUDIENCE)),
        replicas: (args.namespace.clone(), args.name.clone()),
        tls: running.authority.server(names(&args, host))?,
    };
    tasks
        .tracker
        .spawn(stream::serve(listener, streams, tasks.stop.clone()));
    let relay = RelaySettings {
        name: "localhost".to_owned(),
        authority: running.authority.certificate().to_owned(),
        token: args.token.clone(),
    };
    let relaying = stream::relay(relay, running.feeds.clone(), running.leads.clone());
    let stop = tasks.stop.clone();
    tasks
        .tracker
        .spawn(async move { stop.run_until_cancelled(relaying).await });
    let (ready, leads) = (running.ready.clone(), running.leads.clone());
    let counts = running.counts.clone();
    tasks
        .tracker
        .spawn(http1::serve(admin, tasks.stop.clone(), move |request| {
            answer(request, &ready, &leads, &counts)
        }));
    signals.end().await;
    tasks.end().await;
    Ok(ExitCode::SUCCESS)
}

fn settings(args: &ControllerArgs, port: u16) -> ControllerSettings {
    let service = format!("{}.{}.svc:{port}", args.name, args.namespace);
    ControllerSettings {
        namespace: args.namespace.clone(),
        name: args.name.clone(),
        identity: format!(
            "{}_{}:{port}",
            args.identity.clone().unwrap_or_else(host_name),
            args.ip.map_or_else(|| "127.0.0.1".to_owned(), shown)
        ),
        proxies: ProxySettings {
            image: args.proxy_image.clone(),
            controller: args.address.clone().unwrap_or(service),
            audience: AUDIENCE.to_owned(),
            authority: String::new(),
            log: args.proxy_log.clone(),
        },
    }
}

/// Names under which proxies may know the controller.
fn names(args: &ControllerArgs, host: String) -> Vec<String> {
    let service = format!("{}.{}", args.name, args.namespace);
    vec![
        host,
        format!("{service}.svc"),
        format!("{service}.svc.cluster.local"),
        "localhost".to_owned(),
    ]
}

fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn shown(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", name.trim(), std::process::id())
}

fn answer(
    request: &Request<Incoming>,
    ready: &watch::Receiver<bool>,
    leads: &watch::Receiver<Leadership>,
    counts: &Counts,
) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/livez" | "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if *ready.borrow() => text(StatusCode::OK, "ok\n"),
        "/readyz" => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the cluster has not been read yet\n",
        ),
        "/leader" => text(StatusCode::OK, &format!("{}\n", leads.borrow().leads)),
        "/metrics" => text(StatusCode::OK, &counts.text(leads.borrow().leads)),
        _ => text(
            StatusCode::NOT_FOUND,
            "/livez\n/readyz\n/leader\n/metrics\n",
        ),
    }
}
