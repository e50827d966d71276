//! `penstock mock`: a simulated model server in the foreground.

use crate::cli::MockArgs;
use anyhow::Context;
use mock::{EngineSpec, Listen, Mock, MockSpec, Profile};
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// The model of a simulated server that is told no other.
pub(crate) const DEFAULT_MODEL: &str = "sim-8b";

pub(crate) fn run(args: MockArgs) -> anyhow::Result<ExitCode> {
    let address = args.listen;
    let spec = match spec(args) {
        Ok(spec) => spec,
        Err(error) => {
            eprintln!("penstock: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let models = spec.models.join(", ");
    let server = Mock::bind(spec)
        .map_err(|error| proxy::explain_bind_error(address, error))
        .context("cannot listen; choose another address with --listen")?;
    eprintln!(
        "Simulated model server on http://{}/v1, models {models}",
        server.address()
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = crate::run::Signals::new()?;
        let stop = CancellationToken::new();
        let serving = server.serve(stop.clone());
        tokio::select! {
            served = serving => served?,
            () = signals.end() => stop.cancel(),
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn spec(args: MockArgs) -> anyhow::Result<MockSpec> {
    let profile: Profile = args.profile.parse().context("--profile")?;
    let faults = args
        .faults
        .iter()
        .map(|text| text.parse().with_context(|| format!("--fault {text}")))
        .collect::<anyhow::Result<_>>()?;
    let models = if args.models.is_empty() {
        vec![DEFAULT_MODEL.to_owned()]
    } else {
        args.models
    };
    Ok(MockSpec {
        listen: Listen::Address(args.listen),
        models,
        adapters: args.adapters,
        engine: EngineSpec::new(profile),
        faults,
        seed: args.seed,
        ..MockSpec::default()
    })
}
