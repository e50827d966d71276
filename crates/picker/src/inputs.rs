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

/// What [`Inputs`] hold besides lists and names: plain numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Numbers {
    at: Micros,
    basis: Basis,
    error: f32,
    saturation_seconds: f32,
    turn: u32,
    panic: bool,
    trial: bool,
    assigned: bool,
    considered: u32,
    ask: AskNumbers,
    winner: u32,
}

/// The names of a pool's members, as of one decision.
#[derive(Debug, Clone, Default)]
pub struct MemberNames(Roster);

impl MemberNames {
    /// Whether `inputs` were written with exactly these.
    pub fn are_those_of(&self, inputs: &Inputs) -> bool {
        Arc::ptr_eq(&self.0, &inputs.roster)
    }
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
    /// Inputs from what was kept of them.
    pub fn restored(
        numbers: Numbers,
        candidates: Vec<Candidate>,
        targets: Vec<String>,
        names: &MemberNames,
    ) -> Self {
        let Numbers {
            at,
            basis,
            error,
            saturation_seconds,
            turn,
            panic,
            trial,
            assigned,
            considered,
            ask,
            winner,
        } = numbers;
        Self {
            at,
            basis,
            error,
            saturation_seconds,
            turn,
            panic,
            trial,
            assigned,
            considered,
            ask,
            targets,
            candidates,
            winner,
            roster: names.0.clone(),
        }
    }

    /// All but the lists and names.
    #[inline]
    pub fn numbers(&self) -> Numbers {
        Numbers {
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
            winner: self.winner,
        }
    }

    /// The names that the decision's members had.
    pub fn member_names(&self) -> MemberNames {
        MemberNames(self.roster.clone())
    }

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

    /// The name of the chosen endpoint.
    pub fn winner_name(&self) -> Option<&Arc<str>> {
        let candidate = self.candidates.get(self.winner as usize)?;
        self.roster.get(candidate.endpoint.slot as usize)
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
