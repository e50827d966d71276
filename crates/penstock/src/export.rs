//! `penstock export`: the Kubernetes manifests that a configuration stands for.

use crate::cli::ExportArgs;
use crate::run::source::endpoint_urls;
use config::{Objects, Plain};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

pub(crate) fn run(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let objects: Arc<Objects> = if args.paths.is_empty() {
        let endpoints = match endpoint_urls(&args.endpoints) {
            Ok(endpoints) => endpoints,
            Err(refused) => {
                eprint!("{refused}");
                return Ok(ExitCode::from(2));
            }
        };
        let plain = Plain::of_endpoints(args.listen, endpoints);
        Arc::new(config::expand_plain(&plain).into_iter().collect())
    } else {
        let loaded = control::files::load(&args.paths);
        if !loaded.errors.is_empty() {
            eprint!("{}", config::ErrorList(&loaded.errors));
            return Ok(ExitCode::from(2));
        }
        loaded.objects
    };
    std::io::stdout().write_all(config::export(objects.all()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
