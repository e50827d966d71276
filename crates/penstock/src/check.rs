//! `penstock check`: what is wrong with a configuration, before it is served.

use crate::cli::{CheckArgs, Output};
use config::ConfigError;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

#[derive(Serialize)]
struct Report<'a> {
    refused: &'a [ConfigError],
    warnings: &'a [ConfigError],
    problems: &'a [config::Problem],
    statuses: &'a config::Statuses,
}

pub(crate) fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let loaded = control::files::load(&args.paths);
    let compiled = config::compile(&loaded.objects);
    let problems = compiled.statuses.problems();
    let report = Report {
        refused: &loaded.errors,
        warnings: &loaded.warnings,
        problems: &problems,
        statuses: &compiled.statuses,
    };
    let out = match args.output {
        Output::Json => serde_json::to_string_pretty(&report)? + "\n",
        Output::Text => text(&report, &compiled),
    };
    std::io::stdout().write_all(out.as_bytes())?;
    let refused = !loaded.errors.is_empty() || !problems.is_empty();
    Ok(if refused {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    })
}

fn text(report: &Report<'_>, compiled: &config::Compiled) -> String {
    let mut out = String::new();
    for error in report.refused {
        let _ = writeln!(out, "error: {error}");
    }
    for warning in report.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    for problem in report.problems {
        let _ = writeln!(out, "problem: {problem}");
    }
    for status in &report.statuses.objects {
        let states: Vec<String> = status
            .all_conditions()
            .map(|(subject, condition)| {
                let subject = if subject.is_empty() {
                    String::new()
                } else {
                    format!("{subject} ")
                };
                format!(
                    "{subject}{:?}={:?}",
                    condition.condition_type, condition.status
                )
            })
            .collect();
        let _ = writeln!(
            out,
            "{} {}: {}",
            status.kind,
            status.name,
            states.join(", ")
        );
    }
    let snapshot = &compiled.snapshot;
    let _ = writeln!(
        out,
        "{} binds, {} pools, {} services; {} errors, {} problems",
        snapshot.binds.len(),
        snapshot.pools.len(),
        snapshot.services.len(),
        report.refused.len(),
        report.problems.len()
    );
    out
}
