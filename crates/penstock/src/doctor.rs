//! `penstock doctor`: one real request down every route of a running gateway, and which hop failed.
//!
//! What to send is read from the gateway itself: `/debug/config` has the routes, `/debug/pools` the
//! models. The hops are those of a request: listener, route, pool, endpoint, model.
//! Next: `doctor/plan.rs` (what is sent), `doctor/probe.rs` (sending it and judging the answer).

mod example;
mod plan;
mod probe;
mod secure;

use crate::cli::{DoctorArgs, Output};
use crate::why::fetch;
use anyhow::Context;
use plan::{Plan, Pool};
use probe::Finding;
use std::io::Write;
use std::process::ExitCode;

pub(crate) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let config = fetch::get(&args.admin, "/debug/config")?;
    let pools = fetch::get(&args.admin, "/debug/pools")?;
    let config: plan::Config =
        serde_json::from_str(&config).context("the configuration cannot be read")?;
    let pools: Vec<Pool> = serde_json::from_str(&pools).context("the pools cannot be read")?;
    let mut findings: Vec<Finding> = plan::requests(&config, &pools)
        .into_iter()
        .map(|plan| match plan {
            Plan::Send(request) => probe::send(&request, args.timeout),
            Plan::Skip { what, why } => Finding::skipped(what, why),
        })
        .collect();
    findings.extend(pools.iter().flat_map(ejected));
    if findings.is_empty() {
        let what = "the configuration".to_owned();
        let remedy = "no listener has a route: add one, and see `penstock check`";
        findings.push(Finding::failed(
            what,
            "route",
            "no route".to_owned(),
            remedy,
        ));
    }
    print(&findings, args.output)?;
    let failed = findings.iter().any(|finding| finding.hop.is_some());
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Endpoints that get no requests at present, which one request would not show.
fn ejected(pool: &Pool) -> Vec<Finding> {
    let bad = pool.endpoints.iter().filter(|endpoint| {
        let starts = |word| endpoint.health.starts_with(word);
        starts("ejected") || starts("trial")
    });
    bad.map(|endpoint| {
        let what = format!("pool {}, endpoint {}", pool.name, endpoint.name);
        let remedy =
            "its last requests failed: look at the server's own log; it is tried again by itself";
        Finding::failed(what, "endpoint", endpoint.health.clone(), remedy)
    })
    .collect()
}

fn print(findings: &[Finding], output: Output) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if output == Output::Json {
        serde_json::to_writer_pretty(&mut out, findings)?;
        writeln!(out)?;
        return Ok(());
    }
    for finding in findings {
        let Finding { what, said, .. } = finding;
        match (finding.hop, &finding.remedy) {
            (Some(hop), remedy) => {
                writeln!(out, "FAILED   {what}\n         at the {hop}: {said}")?;
                writeln!(out, "         {}", remedy.as_deref().unwrap_or_default())?;
            }
            (None, _) if finding.skipped => writeln!(out, "skipped  {what}: {said}")?,
            (None, _) => writeln!(out, "ok       {what}: {said}")?,
        }
    }
    Ok(())
}
