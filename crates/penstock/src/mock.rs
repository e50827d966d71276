//! `penstock mock`: a simulated model server in the foreground.

use crate::cli::MockArgs;
use anyhow::Context;
use mock::{EngineSpec, Listen, Mock, MockSpec, Profile};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// The model of a simulated server that is told no other.
pub(crate) const DEFAULT_MODEL: &str = "sim-8b";

pub(crate) fn run(args: MockArgs) -> anyhow::Result<ExitCode> {
    let address = listen(&args);
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

fn listen(args: &MockArgs) -> SocketAddr {
    let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    args.engine.port.map_or(args.listen, any)
}

/// The name in NAME, NAME=PATH or `{"name": NAME, ...}`, as vLLM takes them.
fn adapter(text: &str) -> anyhow::Result<String> {
    if text.trim_start().starts_with('{') {
        let parsed: serde_json::Value = serde_json::from_str(text).context("--lora-modules")?;
        let name = parsed.get("name").and_then(serde_json::Value::as_str);
        let name = name.with_context(|| format!("--lora-modules {text} has no name"))?;
        return Ok(name.to_owned());
    }
    let name = text.split_once('=').map_or(text, |(name, _)| name);
    Ok(name.to_owned())
}

fn spec(args: MockArgs) -> anyhow::Result<MockSpec> {
    let listen = Listen::Address(listen(&args));
    let mut adapters = args.adapters;
    for text in &args.engine.lora_modules {
        adapters.push(adapter(text)?);
    }
    let default = MockSpec::default();
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
        listen,
        models,
        adapters,
        max_model_len: args.engine.max_model_len.unwrap_or(default.max_model_len),
        engine: EngineSpec::new(profile),
        faults,
        seed: args.seed,
        ..default
    })
}
