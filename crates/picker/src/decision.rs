//! The result of a choice, and the record of everything that the choice read.
//!
//! What is kept is in `inputs.rs`; a [`Table`] is made from it when somebody asks. Invariant:
//! [`replay`] on a table makes the same choice again, also after the table went through JSON. So
//! `pick.rs` may read nothing that is not in the inputs: numbers of the request, one [`Candidate`]
//! per endpoint and target, and the turn that breaks ties.

use crate::endpoint::EndpointId;
use crate::inputs::Inputs;
use crate::micros::Micros;
use crate::pick::{self, Cost};
use crate::terms::{self, AskNumbers, Candidate, TERMS};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Where a request goes.
#[derive(Debug)]
pub struct Decision {
    /// The chosen endpoint.
    pub winner: EndpointId,
    /// Index of the chosen name in the request's targets; 0 when it has none.
    pub target: u32,
    /// To be settled once, with [`crate::Pool::finish`].
    pub reservation: Reservation,
    /// Blocks of the prompt that the winner is believed to hold.
    pub held_blocks: u32,
    /// Everything that the choice read: what its table is made from.
    pub table: Option<Box<Inputs>>,
}

/// Work that is booked on an endpoint until it is settled. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reservation(pub u64);

/// What the candidates were compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The sum of the terms, in seconds.
    Seconds,
    /// Speeds are not known well enough (error above 50 %): uncached tokens in flight, at the same
    /// stated speed for all, and the seconds of the adapter term.
    TokensInFlight,
    /// Requests in flight: the profile `leastRequests`.
    Requests,
}

/// Everything that one choice read, and what it made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// When it was made.
    pub at: Micros,
    /// What the candidates were compared by.
    pub basis: Basis,
    /// Mean relative error of the pool's predicted times to the first token, 0 to 1.
    pub error: f32,
    /// An endpoint with work whose first token would come later than this does not accept.
    pub saturation_seconds: f32,
    /// Breaks ties: candidates are looked at from this number on, modulo their count.
    pub turn: u32,
    /// All endpoints that could serve were ejected, so that all are candidates.
    pub panic: bool,
    /// The request tries out an ejected endpoint, the only candidate.
    pub trial: bool,
    /// Somebody else chose the endpoint, the only candidate: it takes the request in any case.
    #[serde(default)]
    pub assigned: bool,
    /// Endpoints that could serve, before the list was narrowed.
    pub considered: u32,
    /// The numbers of the request.
    pub ask: AskNumbers,
    /// The names to choose among, when there were several.
    pub targets: Vec<String>,
    /// One row per endpoint and target.
    pub rows: Vec<Row>,
    /// Index of the chosen row.
    pub winner: u32,
    /// Index of the best row of another endpoint.
    pub runner_up: Option<u32>,
}

/// One candidate and what it costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The endpoint, as people know it.
    pub name: Arc<str>,
    /// What the terms read.
    pub candidate: Candidate,
    /// Seconds of each term, in the order of [`TERMS`].
    pub seconds: [f32; TERMS.len()],
    /// What was compared: seconds, or requests with [`Basis::Requests`].
    pub total: f32,
    /// Its first token would come in time and its KV cache can hold the request.
    pub accepts: bool,
}

impl Table {
    /// The chosen row.
    pub fn winning_row(&self) -> Option<&Row> {
        self.rows.get(self.winner as usize)
    }
}

/// Where a replayed choice differs from the recorded one.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// A term gives other seconds.
    #[error(
        "term {term} of endpoint {endpoint} was {recorded} s, now {now} s: inputs or term changed"
    )]
    Term {
        /// The term's name.
        term: &'static str,
        /// The endpoint's name.
        endpoint: Arc<str>,
        /// What the table says.
        recorded: f32,
        /// What the inputs give.
        now: f32,
    },
    /// The compared number differs.
    #[error("total of endpoint {endpoint} was {recorded}, now {now}: how terms add up changed")]
    Total {
        /// The endpoint's name.
        endpoint: Arc<str>,
        /// What the table says.
        recorded: f32,
        /// What the inputs give.
        now: f32,
    },
    /// An endpoint accepts that did not, or the other way round.
    #[error("endpoint {endpoint} accepted: {recorded}, now: {now}: the saturation rule changed")]
    Accepts {
        /// The endpoint's name.
        endpoint: Arc<str>,
        /// What the table says.
        recorded: bool,
        /// What the inputs give.
        now: bool,
    },
    /// Another row wins, or nobody does.
    #[error("row {recorded} won, now {now:?} does: the choice among equal costs changed")]
    Winner {
        /// What the table says.
        recorded: u32,
        /// What the inputs give.
        now: Option<u32>,
    },
    /// Another row comes second.
    #[error("row {recorded:?} came second, now {now:?} does: the choice of a runner-up changed")]
    RunnerUp {
        /// What the table says.
        recorded: Option<u32>,
        /// What the inputs give.
        now: Option<u32>,
    },
}

/// Makes the choice of `table` again from its inputs.
///
/// # Errors
/// The first difference: the table was changed, or comes from another version.
pub fn replay(table: &Table) -> Result<(), Mismatch> {
    let inputs = Inputs::from(table);
    let mut costs = Vec::new();
    pick::evaluate(&inputs, &mut costs);
    for (row, cost) in table.rows.iter().zip(&costs) {
        compare(row, &terms::seconds(&inputs.ask, &row.candidate), cost)?;
    }
    let winner = pick::choose(&inputs, &costs);
    if winner != Some(table.winner) {
        return Err(Mismatch::Winner {
            recorded: table.winner,
            now: winner,
        });
    }
    let runner_up = pick::second(&inputs, &costs, table.winner);
    if runner_up != table.runner_up {
        return Err(Mismatch::RunnerUp {
            recorded: table.runner_up,
            now: runner_up,
        });
    }
    Ok(())
}

fn compare(row: &Row, seconds: &[f32; TERMS.len()], cost: &Cost) -> Result<(), Mismatch> {
    let endpoint = || row.name.clone();
    for (term, (recorded, now)) in TERMS.iter().zip(row.seconds.iter().zip(seconds)) {
        if recorded != now {
            let (recorded, now) = (*recorded, *now);
            return Err(Mismatch::Term {
                term: term.name(),
                endpoint: endpoint(),
                recorded,
                now,
            });
        }
    }
    let (recorded, now) = (row.total, cost.total);
    if recorded != now {
        return Err(Mismatch::Total {
            endpoint: endpoint(),
            recorded,
            now,
        });
    }
    let (recorded, now) = (row.accepts, cost.accepts);
    if recorded != now {
        return Err(Mismatch::Accepts {
            endpoint: endpoint(),
            recorded,
            now,
        });
    }
    Ok(())
}
