//! A decision as a table: one line per candidate, one column per term.

use super::Record;
use picker::{Basis, Rates, Row, Standing, TERMS, Table};
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
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "decision {decision}, request {id}, try {attempt}");
    let model = match model.as_str() {
        "" => "no model named".to_owned(),
        model => format!("model {model}"),
    };
    let _ = writeln!(out, "pool {pool}, {model}");
    let table = &record.table;
    let ask = &table.ask;
    let _ = writeln!(
        out,
        "prompt of about {} tokens ({} blocks), about {} tokens to generate, priority {}",
        ask.prompt_tokens, ask.blocks, ask.output_tokens, ask.priority
    );
    let _ = writeln!(out, "{}", basis(table));
    if table.panic {
        out.push_str("all endpoints are held for broken: any may be tried\n");
    }
    if table.assigned {
        out.push_str("the endpoint was picked by the pool's external endpoint picker\n");
    }
    if table.trial {
        out.push_str("the request tries out an endpoint that was held for broken\n");
    }
    out.push('\n');
    candidates(table, out);
    out.push('\n');
    if let Some(reason) = reason(table) {
        let _ = writeln!(out, "{reason}");
    }
    let _ = writeln!(out, "{}", outcome(record));
}

fn basis(table: &Table) -> String {
    let candidates = match table.considered {
        1 => "1 candidate".to_owned(),
        many => format!("{many} candidates"),
    };
    let off = table.error * 100.0;
    match table.basis {
        Basis::Seconds => format!(
            "{candidates}, compared by seconds until tokens arrive (predictions are {off:.0} % off)"
        ),
        Basis::TokensInFlight => format!(
            "{candidates}, compared by uncached tokens in flight: predicted seconds are {off:.0} % off and do not count"
        ),
        Basis::Requests => format!("{candidates}, compared by requests in flight"),
    }
}

/// What was compared, in its unit.
fn compared(table: &Table, row: &Row) -> f32 {
    match table.basis {
        Basis::Seconds | Basis::Requests => row.total,
        Basis::TokensInFlight => row.total / Rates::PRIOR.prefill_token_seconds,
    }
}

fn unit(table: &Table) -> &'static str {
    match table.basis {
        Basis::Seconds => "seconds",
        Basis::TokensInFlight => "tokens",
        Basis::Requests => "requests",
    }
}

/// A number with the digits that its unit deserves.
fn number(table: &Table, value: f32) -> String {
    match table.basis {
        Basis::Seconds => format!("{value:.4}"),
        Basis::TokensInFlight | Basis::Requests => format!("{value:.0}"),
    }
}

fn candidates(table: &Table, out: &mut String) {
    let names = table.rows.iter().map(|row| row.name.len());
    let width = names.max().unwrap_or(0).max(8);
    let _ = write!(out, "  {:width$}", "endpoint");
    for term in TERMS {
        let _ = write!(out, " {:>8}", term.name());
    }
    let total = match table.basis {
        Basis::Seconds => "total s",
        _ => unit(table),
    };
    let _ = writeln!(out, " {total:>9}    held  in flight  others  report");
    let mut order: Vec<(usize, &Row)> = table.rows.iter().enumerate().collect();
    order.sort_by(|(_, a), (_, b)| a.total.total_cmp(&b.total));
    for (index, row) in order {
        candidate(table, index, row, width, out);
    }
}

fn candidate(table: &Table, index: usize, row: &Row, width: usize, out: &mut String) {
    let _ = write!(out, "  {:width$}", &*row.name);
    for seconds in row.seconds {
        let text = match seconds {
            0.0 => "-".to_owned(),
            seconds => format!("{seconds:.4}"),
        };
        let _ = write!(out, " {text:>8}");
    }
    let candidate = &row.candidate;
    let held = match table.ask.blocks {
        0 => "-".to_owned(),
        blocks => format!("{}/{blocks}", candidate.held_blocks),
    };
    let others = candidate.foreign_waiting + candidate.foreign_running;
    let age = match candidate.report_age_seconds {
        Some(age) => format!("{age:.1} s old"),
        None => "none".to_owned(),
    };
    let _ = write!(
        out,
        " {:>9} {held:>7} {:>10} {others:>7.0}  {age:<10}",
        number(table, compared(table, row)),
        candidate.in_flight,
    );
    if let Some(target) = table.targets.get(candidate.target as usize) {
        let _ = write!(out, " as {target}");
    }
    if index == table.winner as usize {
        out.push_str("  <- winner");
    } else if table.runner_up == Some(index as u32) {
        out.push_str("  <- runner-up");
    }
    match candidate.health {
        Standing::Up => {}
        Standing::Suspect => out.push_str(" (has failed lately)"),
        Standing::Ejected => out.push_str(" (held for broken)"),
        Standing::TrialDue => out.push_str(" (held for broken, trial due)"),
    }
    if !row.accepts {
        out.push_str(" (full)");
    }
    while out.ends_with(' ') {
        out.pop();
    }
    out.push('\n');
}

/// Why the winner won, in one line; nothing without a runner-up.
fn reason(table: &Table) -> Option<String> {
    let winner = table.winning_row()?;
    let second = table.rows.get(table.runner_up? as usize)?;
    let (name, other) = (&winner.name, &second.name);
    let by = number(table, compared(table, second) - compared(table, winner));
    if by == number(table, 0.0) {
        return Some(format!("{name} and {other} cost the same"));
    }
    let unit = unit(table);
    let mut text = format!("{name} won by {by} {unit} over {other}");
    let saved = winner.seconds.iter().zip(&second.seconds);
    let saved = saved.map(|(less, more)| more - less);
    let most = TERMS.iter().zip(saved).max_by(|a, b| a.1.total_cmp(&b.1));
    if table.basis == Basis::Seconds
        && let Some((term, seconds)) = most
    {
        let _ = write!(text, ", {} alone saves {seconds:.4}", term.name());
    }
    Some(text)
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
