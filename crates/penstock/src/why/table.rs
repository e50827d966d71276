//! A decision as a table: one line per candidate, one column per term.

use super::Record;
use picker::{Basis, Row, TERMS, Table};
use std::fmt::Write;

/// Appends the whole explanation.
pub(super) fn write(record: &Record, out: &mut String) {
    let Record {
        decision,
        id,
        pool,
        model,
        attempt,
        ..
    } = record;
    let _ = writeln!(out, "decision {decision}, request {id}, try {attempt}");
    let model = if model.is_empty() {
        "no model named"
    } else {
        model
    };
    let _ = writeln!(out, "pool {pool}, {model}");
    let table = &record.table;
    let ask = &table.ask;
    let _ = writeln!(
        out,
        "prompt {} tokens in {} blocks, about {} to generate, priority {}",
        ask.prompt_tokens, ask.blocks, ask.output_tokens, ask.priority
    );
    let _ = writeln!(out, "{}", basis(table));
    if table.panic {
        out.push_str("all endpoints are held for broken: any may be tried\n");
    }
    if table.trial {
        out.push_str("the request tries out an endpoint that was held for broken\n");
    }
    out.push('\n');
    candidates(table, out);
    let _ = writeln!(out, "\n{}", outcome(record));
}

fn basis(table: &Table) -> String {
    let considered = table.considered;
    match table.basis {
        Basis::Seconds => format!(
            "{considered} candidates, compared by seconds until tokens arrive (predictions are {:.0} % off)",
            table.error * 100.0
        ),
        Basis::TokensInFlight => format!(
            "{considered} candidates, compared by uncached tokens in flight: predictions are {:.0} % off",
            table.error * 100.0
        ),
        Basis::Requests => format!("{considered} candidates, compared by requests in flight"),
    }
}

fn candidates(table: &Table, out: &mut String) {
    let width = table
        .rows
        .iter()
        .map(|row| row.name.len())
        .max()
        .unwrap_or(0)
        .max(8);
    let _ = write!(out, "  {:width$}", "endpoint");
    for term in TERMS {
        let _ = write!(out, " {:>9}", term.name());
    }
    let _ = writeln!(out, " {:>9}  held in-flight report", "total");
    let mut order: Vec<usize> = (0..table.rows.len()).collect();
    order.sort_by(|a, b| total(table, *a).total_cmp(&total(table, *b)));
    for index in order {
        if let Some(row) = table.rows.get(index) {
            candidate(table, index, row, width, out);
        }
    }
}

fn total(table: &Table, index: usize) -> f32 {
    table.rows.get(index).map_or(f32::MAX, |row| row.total)
}

fn candidate(table: &Table, index: usize, row: &Row, width: usize, out: &mut String) {
    let _ = write!(out, "  {:width$}", &*row.name);
    for seconds in row.seconds {
        let _ = write!(out, " {seconds:>8.4}s");
    }
    let unit = if table.basis == Basis::Requests {
        ' '
    } else {
        's'
    };
    let held = format!("{}/{}", row.candidate.held_blocks, table.ask.blocks);
    let age = match row.candidate.report_age_seconds {
        Some(age) => format!("{age:.1}s old"),
        None => "none".to_owned(),
    };
    let _ = write!(
        out,
        " {:>8.4}{unit} {held:>5} {:>9} {age}",
        row.total, row.candidate.in_flight
    );
    if let Some(target) = table.targets.get(row.candidate.target as usize) {
        let _ = write!(out, " as {target}");
    }
    if index == table.winner as usize {
        out.push_str("  <- winner");
    } else if table.runner_up == Some(index as u32) {
        out.push_str("  <- runner-up");
    }
    if !row.accepts {
        out.push_str(" (full)");
    }
    out.push('\n');
}

fn outcome(record: &Record) -> String {
    let mut text = format!("{}: ", record.endpoint);
    match (&record.error, record.status) {
        (Some(error), 0) => text.push_str(&format!("failed with {error}, tried elsewhere")),
        (Some(error), status) => text.push_str(&format!("status {status}, {error}")),
        (None, status) => text.push_str(&format!("status {status}")),
    }
    if record.queued_us > 0 {
        text.push_str(&format!(
            ", {:.1} ms in the queue",
            record.queued_us as f64 / 1e3
        ));
    }
    if record.first_token_us > 0 {
        text.push_str(&format!(
            ", first token after {:.1} ms",
            record.first_token_us as f64 / 1e3
        ));
    }
    text.push_str(&format!(
        ", {:.1} ms in all",
        record.duration_us as f64 / 1e3
    ));
    text
}
