//! `penstock why`: what a decision read, what each candidate would have cost, and who won.
//!
//! Records come from a running gateway's `/debug/decisions`, or from a file saved earlier. With
//! `--replay` each decision is made again from its recorded inputs.

pub(crate) mod fetch;
mod table;

use crate::cli::{Output, WhyArgs};
use anyhow::{Context, bail};
use picker::Table;
use serde::Deserialize;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// One line of `/debug/decisions`.
#[derive(Debug, Deserialize)]
pub(crate) struct Record {
    decision: u64,
    id: String,
    pool: String,
    model: String,
    attempt: u32,
    endpoint: String,
    status: u16,
    error: Option<String>,
    queued_us: u64,
    first_token_us: u64,
    duration_us: u64,
    table: Table,
}

pub(crate) fn run(args: &WhyArgs) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.replay {
        return replay(file);
    }
    let path = match args.which.as_str() {
        "last" => "/debug/decisions".to_owned(),
        _ if args.save.is_some() => "/debug/decisions".to_owned(),
        id => format!("/debug/decisions?id={id}"),
    };
    let lines = fetch::get(&args.admin, &path)?;
    if let Some(file) = &args.save {
        std::fs::write(file, &lines).with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!(
            "{} decisions saved to {}",
            lines.lines().count(),
            file.display()
        );
        return Ok(ExitCode::SUCCESS);
    }
    explain(args, &lines)
}

/// Prints one request: all its tries.
fn explain(args: &WhyArgs, lines: &str) -> anyhow::Result<ExitCode> {
    let records = records(lines)?;
    let Some(last) = records.last() else {
        match args.which.as_str() {
            "last" => bail!("no request has been decided yet; send one and ask again"),
            id => {
                bail!("no decision {id} is kept; it may be too old, or `why last` shows the latest")
            }
        }
    };
    let decision = last.decision;
    let mut out = String::new();
    for (record, line) in records.iter().zip(lines.lines()) {
        if record.decision != decision {
            continue;
        }
        match args.output {
            Output::Json => {
                out.push_str(line);
                out.push('\n');
            }
            Output::Text => table::write(record, &mut out),
        }
    }
    std::io::stdout().write_all(out.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn records(lines: &str) -> anyhow::Result<Vec<Record>> {
    lines
        .lines()
        .enumerate()
        .map(|(at, line)| {
            serde_json::from_str(line).with_context(|| format!("line {} is no decision", at + 1))
        })
        .collect()
}

fn replay(file: &Path) -> anyhow::Result<ExitCode> {
    let lines =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let records = records(&lines).with_context(|| format!("{} is not usable", file.display()))?;
    for record in &records {
        if let Err(mismatch) = picker::replay(&record.table) {
            println_out(&format!(
                "decision {}, try {}: {mismatch}",
                record.decision, record.attempt
            ))?;
            return Ok(ExitCode::FAILURE);
        }
    }
    println_out(&format!(
        "{} decisions replayed, every winner is the same",
        records.len()
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn println_out(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}
