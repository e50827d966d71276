//! The choice: what each candidate costs, and who wins.
//!
//! Both functions read nothing but the table, so that a recorded choice can be made again. Equal
//! costs go to the endpoint with fewer requests, then to the less used target, then by turn. How a
//! long list of members is narrowed before is in `pick/narrow.rs`.

pub(crate) mod narrow;

use crate::decision::{Basis, Row, Table};
use crate::rates::Rates;
use crate::saturation;
use crate::terms::{ADAPTER, AskNumbers, Candidate, TERMS};

/// Costs nearer than this, in seconds, are equal: less than one more token in one more sequence.
const EQUAL_SECONDS: f32 = 1e-6;
/// The same relative to the cost, for sums so large that their last digits are noise.
const EQUAL_SHARE: f32 = 1e-6;

/// Memory that is used again by every choice.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    candidates: Vec<Candidate>,
    out: Vec<f32>,
}

/// Fills in seconds, totals and who accepts.
pub(crate) fn evaluate(table: &mut Table) {
    evaluate_with(table, &mut Scratch::default());
}

/// The same with memory that is kept.
pub(crate) fn evaluate_with(table: &mut Table, scratch: &mut Scratch) {
    let Scratch { candidates, out } = scratch;
    candidates.clear();
    candidates.extend(table.rows.iter().map(|row| row.candidate));
    for (index, term) in TERMS.iter().enumerate() {
        out.clear();
        out.resize(candidates.len(), 0.0);
        term.seconds(&table.ask, candidates, out);
        for (row, seconds) in table.rows.iter_mut().zip(out.iter()) {
            if let Some(cell) = row.seconds.get_mut(index) {
                *cell = *seconds;
            }
        }
    }
    let mut rows = core::mem::take(&mut table.rows);
    for row in &mut rows {
        row.total = total(table.basis, &table.ask, row);
        row.accepts = saturation::accepts(table, &row.candidate, &row.seconds);
    }
    table.rows = rows;
}

fn total(basis: Basis, ask: &AskNumbers, row: &Row) -> f32 {
    let candidate = &row.candidate;
    match basis {
        Basis::Seconds => row.seconds.iter().sum(),
        Basis::Requests => candidate.in_flight as f32,
        Basis::TokensInFlight => {
            let foreign = candidate.foreign_waiting * ask.mean_uncached_tokens;
            let own = ask.uncached_tokens(candidate.held_blocks);
            // Every sequence computes one token a step.
            let tokens = candidate.ahead_tokens + foreign + own + candidate.sequences();
            let adapter = row.seconds.get(ADAPTER).copied().unwrap_or(0.0);
            tokens * Rates::PRIOR.prefill_token_seconds + adapter
        }
    }
}

/// Index of the winning row and of the best row of another endpoint.
pub(crate) fn choose(table: &Table) -> Option<(u32, Option<u32>)> {
    let winner = best(table, |_| true)?;
    let won = table.rows.get(winner as usize)?.candidate.endpoint;
    let runner_up = best(table, |row| row.candidate.endpoint != won);
    Some((winner, runner_up))
}

fn best(table: &Table, among: impl Fn(&Row) -> bool) -> Option<u32> {
    let rows = || {
        let rows = table.rows.iter().enumerate();
        rows.filter(|(_, row)| row.accepts && among(row))
    };
    let least = rows().map(|(_, row)| row.total).min_by(f32::total_cmp)?;
    let equal = least + EQUAL_SECONDS + least * EQUAL_SHARE;
    let count = table.rows.len().max(1);
    let first = table.turn as usize % count;
    rows()
        .filter(|(_, row)| row.total <= equal)
        .min_by_key(|(index, row)| {
            let candidate = &row.candidate;
            let turn = (index + count - first) % count;
            (candidate.in_flight, candidate.target_excess, turn)
        })
        .map(|(index, _)| index as u32)
}
