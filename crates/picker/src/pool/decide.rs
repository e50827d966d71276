//! One choice: who may serve, what each would cost, who wins, and the reservation.
//!
//! Three looks: over all members for those that may serve (cheap), over at most 64 candidates for
//! costs, and at the winner to book it. The table that the costs are computed in is the record.

use super::{Memory, Pool};
use crate::ask::Ask;
use crate::decision::Decision;
use crate::endpoint::{EndpointId, Load, Presence};
use crate::health::Standing;
use crate::names::NameId;
use crate::pick::{self, narrow};
use crate::saturation;
use crate::spec::Profile;

/// Most targets that are compared; further ones are not looked at.
const MOST_TARGETS: usize = 16;

/// The result of a look for an endpoint.
#[derive(Debug)]
pub(super) enum Choice {
    Go(Decision),
    /// Every endpoint that may serve has too much to do.
    Full,
    /// No endpoint may serve.
    Nobody,
}

/// Who may serve, and why those.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Field {
    pub(super) considered: u32,
    pub(super) panic: bool,
    pub(super) trial: bool,
}

impl Pool {
    /// Looks for an endpoint; books the request on the winner.
    pub(super) fn decide(&mut self, ask: &Ask<'_>) -> Choice {
        let mut memory = core::mem::take(&mut self.memory);
        let choice = self.decide_in(ask, &mut memory);
        self.memory = memory;
        choice
    }

    fn decide_in(&mut self, ask: &Ask<'_>, memory: &mut Memory) -> Choice {
        self.eject_silent();
        self.resolve_names(ask, &mut memory.names);
        let field = self.gather(ask, memory);
        if field.considered == 0 {
            return Choice::Nobody;
        }
        let mut table = memory
            .spare
            .take()
            .unwrap_or_else(|| Box::new(Self::empty_table()));
        self.fill(&mut table, ask, field, memory);
        pick::evaluate_with(&mut table, &mut memory.scratch);
        let Some((winner, runner_up)) = pick::choose(&table) else {
            self.shortage_seconds = saturation::shortage_seconds(&table);
            memory.spare = Some(table);
            return Choice::Full;
        };
        (table.winner, table.runner_up) = (winner, runner_up);
        self.turn = self.turn.wrapping_add(1);
        match self.reserve(table, ask, &memory.names) {
            Some(decision) => Choice::Go(decision),
            None => Choice::Nobody,
        }
    }

    fn eject_silent(&mut self) {
        for load in &mut self.loads {
            if load.hangs(self.now) {
                load.health.eject(self.now);
            }
        }
    }

    /// Names as numbers. Several targets come from the configuration, so they may get new numbers.
    fn resolve_names(&mut self, ask: &Ask<'_>, names: &mut Vec<Option<NameId>>) {
        names.clear();
        let several = ask.targets.len() > 1;
        for name in ask.names().take(MOST_TARGETS) {
            let id = if several {
                self.names.intern(name)
            } else {
                self.names.find(name)
            };
            names.push(id);
        }
    }

    /// Puts into `memory.kept` the endpoints to compare.
    fn gather(&mut self, ask: &Ask<'_>, memory: &mut Memory) -> Field {
        let Memory {
            rough, names, kept, ..
        } = memory;
        rough.clear();
        let (mut usable, mut due) = (0, None);
        for (slot, load) in self.loads.iter().enumerate() {
            let slot = slot as u32;
            if load.presence != Presence::Member || !self.may_serve(slot, load, ask, names) {
                continue;
            }
            match load.health.standing(self.now) {
                Standing::Up | Standing::Suspect => usable += 1,
                Standing::TrialDue => due = due.or(Some(slot)),
                Standing::Ejected => {}
            }
            rough.push(narrow::Rough {
                slot,
                load_seconds: 0.0,
                held_blocks: 0,
                has_adapter: false,
            });
        }
        let considered = rough.len() as u32;
        let panic = usable == 0;
        if let Some(slot) = due
            && !ask.is_retry
            && !panic
        {
            kept.only(slot);
            return Field {
                considered,
                panic: false,
                trial: true,
            };
        }
        if !panic && usable < rough.len() {
            rough.retain(|rough| {
                let load = self.loads.get(rough.slot as usize);
                load.is_some_and(|load| !load.health.is_ejected())
            });
        }
        self.narrow(ask, memory);
        Field {
            considered,
            panic,
            trial: false,
        }
    }

    fn may_serve(&self, slot: u32, load: &Load, ask: &Ask<'_>, names: &[Option<NameId>]) -> bool {
        let id = EndpointId {
            slot,
            generation: load.generation,
        };
        let tried = !ask.exclude.is_empty() && ask.exclude.contains(&id);
        !tried && names.iter().any(|name| self.names.serves(slot, *name))
    }

    fn narrow(&mut self, ask: &Ask<'_>, memory: &mut Memory) {
        let Memory {
            rough, names, kept, ..
        } = memory;
        if rough.len() > narrow::MOST_CANDIDATES {
            let steps = self.shared.rates.decode_sequence_seconds * self.means.output_tokens;
            for rough in rough.iter_mut() {
                let Some(load) = self.loads.get(rough.slot as usize) else {
                    continue;
                };
                rough.load_seconds = match self.spec.profile {
                    Profile::LeastRequests => load.in_flight as f32,
                    Profile::Cost => load.rough_seconds(self.means.uncached_tokens, steps),
                };
                rough.has_adapter = names.iter().flatten().any(|id| {
                    self.names
                        .get(*id)
                        .is_some_and(|name| name.loaded.contains(rough.slot))
                });
            }
            for (endpoint, blocks) in ask.held.iter() {
                let at = rough.binary_search_by_key(&endpoint.slot, |rough| rough.slot);
                if let Some(rough) = at.ok().and_then(|at| rough.get_mut(at)) {
                    rough.held_blocks = blocks;
                }
            }
        }
        narrow::narrow(rough, self.turn, &mut self.rng, kept);
    }
}
