//! `penstock mock`: a simulated model server in the foreground.

use crate::cli::MockArgs;
use anyhow::Context;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

pub(crate) fn run(args: MockArgs) -> anyhow::Result<ExitCode> {
    let profile = args.profile.parse().map_err(|error| anyhow::anyhow!("--profile: {error}"))?;
    let faults = args
        .faults
        .iter()
        .map(|text| text.parse().map_err(|error| anyhow::anyhow!("--fault {text}: {error}")))
        .collect::<anyhow::Result<Vec<_>>>();
    let faults = match faults {
        Ok(faults) => faults,
        Err(error) => {
            eprintln!("penstock: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let defaults = mock::MockSpec::default();
    let models = if args.models.is_empty() { vec!["sim-8b".to_owned()] } else { args.models };
    let spec = mock::MockSpec {
        models,
        adapters: args.adapters,
        profile,
        faults,
        seed: args.seed,
        ..defaults
    };
    let listener = std::net::TcpListener::bind(args.listen)
        .map_err(|error| proxy::explain_bind_error(args.listen, error))
        .context("cannot listen; choose another address with --listen")?;
    let address = listener.local_addr()?;
    eprintln!("Simulated model server on http://{address}/v1, models {}", spec.models.join(", "));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let serving = mock::serve(listener, spec, stop);
        tokio::select! {
            served = serving => served?,
            ended_by = crate::run::ended_by_signal() => {
                ended_by?;
                ended.cancel();
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}
