//! `penstock proxy`: the data plane of one Gateway, fed by a controller. What it was fed last serves
//! from the start, whether a controller answers or not.

use crate::cli::ProxyArgs;
use crate::run::{self, Serve, Source, Tasks};
use control::stream::{self, StreamSettings};
use std::process::ExitCode;

pub(crate) fn run(args: ProxyArgs) -> anyhow::Result<ExitCode> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    run::block_on(serve(args))
}

async fn serve(args: ProxyArgs) -> anyhow::Result<ExitCode> {
    let tasks = Tasks::default();
    let settings = StreamSettings {
        controller: args.controller.clone(),
        authority: args.authority.clone(),
        token: args.token.clone(),
        state: args.state.clone(),
    };
    let following = stream::follow(settings, tasks.stop.clone(), &tasks.tracker);
    let serve = Serve {
        admin: args.admin,
        workers: args.workers,
        access_log: args.access_log,
        explain: !args.no_explain_headers,
        drain_timeout: args.drain_timeout,
        memory_limit: args.memory_limit,
        limits: args.limits.limits(),
        name_servers: Vec::new(),
    };
    run::serve_fed(serve, Source::from_stream(following), tasks).await
}
