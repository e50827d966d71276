//! What one choice read: the record that is kept of every decision.
//!
//! Only inputs are kept, so that a decision costs little; what each candidate would have cost is
//! computed when somebody asks, by the code that made the choice. Invariant: nothing here points
//! into the pool but the names of its members, which are shared.

use crate::decision::{Basis, Row, Table};
use crate::endpoint::EndpointId;
use crate::micros::Micros;
use crate::pick;
use crate::terms::{self, AskNumbers, Candidate};
use serde::{Serialize, Serializer};
use std::sync::Arc;

/// Names of the members by slot, as of one list of members.
pub(crate) type Roster = Arc<[Arc<str>]>;

/// Everything that one choice read, and who won. Written as its [`Table`].
#[derive(Debug, Clone, PartialEq)]
pub struct Inputs {
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
    pub assigned: bool,
    /// Endpoints that could serve, before the list was narrowed.
    pub considered: u32,
    /// The numbers of the request.
    pub ask: AskNumbers,
    /// The names to choose among, when there were several.
    pub targets: Vec<String>,
    /// One per endpoint and target, in the order of their slots.
    pub candidates: Vec<Candidate>,
    /// Index of the chosen candidate.
    pub winner: u32,
    pub(crate) roster: Roster,
}

impl Default for Inputs {
    fn default() -> Self {
        Self {
            at: Micros(0),
            basis: Basis::Seconds,
            error: 0.0,
            saturation_seconds: 0.0,
            turn: 0,
            panic: false,
            trial: false,
            assigned: false,
            considered: 0,
            ask: AskNumbers::default(),
            targets: Vec::new(),
            candidates: Vec::new(),
            winner: 0,
            roster: Roster::default(),
        }
    }
}

impl Inputs {
    /// The decision with what each candidate cost.
    pub fn table(&self) -> Table {
        let mut costs = Vec::new();
        pick::evaluate(self, &mut costs);
        let row = |(candidate, cost): (&Candidate, &pick::Cost)| Row {
            name: self.name(candidate.endpoint),
            candidate: *candidate,
            seconds: terms::seconds(&self.ask, candidate),
            total: cost.total,
            accepts: cost.accepts,
        };
        Table {
            at: self.at,
            basis: self.basis,
            error: self.error,
            saturation_seconds: self.saturation_seconds,
            turn: self.turn,
            panic: self.panic,
            trial: self.trial,
            assigned: self.assigned,
            considered: self.considered,
            ask: self.ask,
            targets: self.targets.clone(),
            rows: self.candidates.iter().zip(&costs).map(row).collect(),
            winner: self.winner,
            runner_up: pick::second(self, &costs, self.winner),
        }
    }

    /// The best of the other endpoints.
    pub fn runner_up(&self) -> Option<EndpointId> {
        let mut costs = Vec::new();
        pick::evaluate(self, &mut costs);
        let second = pick::second(self, &costs, self.winner)?;
        let candidate = self.candidates.get(second as usize)?;
        Some(candidate.endpoint)
    }

    /// Memory that the record takes, in bytes; the shared names are not counted.
    pub fn bytes(&self) -> usize {
        let text = |name: &String| name.capacity() + size_of::<String>();
        let targets: usize = self.targets.iter().map(text).sum();
        size_of::<Self>() + self.candidates.capacity() * size_of::<Candidate>() + targets
    }

    fn name(&self, endpoint: EndpointId) -> Arc<str> {
        let name = self.roster.get(endpoint.slot as usize);
        name.cloned().unwrap_or_default()
    }
}

/// The inputs of a table that was read: what it says of costs is left out.
impl From<&Table> for Inputs {
    fn from(table: &Table) -> Self {
        Self {
            at: table.at,
            basis: table.basis,
            error: table.error,
            saturation_seconds: table.saturation_seconds,
            turn: table.turn,
            panic: table.panic,
            trial: table.trial,
            assigned: table.assigned,
            considered: table.considered,
            ask: table.ask,
            targets: table.targets.clone(),
            candidates: table.rows.iter().map(|row| row.candidate).collect(),
            winner: table.winner,
            roster: Roster::default(),
        }
    }
}

impl Serialize for Inputs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.table().serialize(serializer)
    }
}
