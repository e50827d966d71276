//! The table of a choice: the request's and each candidate's numbers; and the winner's booking.
//!
//! Everything that a cost can depend on is read here and written down, once.

use super::Memory;
use super::Pool;
use super::decide::Field;
use crate::ask::Ask;
use crate::books::{Booking, Lesson};
use crate::decision::{Basis, Decision, Row, Table};
use crate::endpoint::{EndpointId, Load, Member};
use crate::names::NameId;
use crate::rates::Rates;
use crate::saturation;
use crate::spec::Profile;
use crate::terms::{ADAPTER, Adapter, AskNumbers, Candidate, TERMS};

/// Adapters that an engine is taken to hold when it does not say: few, so that a load is expected
/// rather than forgotten.
pub(super) const FEW_ADAPTERS: usize = 4;
/// What loading an adapter costs until it was seen, in seconds. An estimate.
pub(super) const LOAD_PRIOR_SECONDS: f32 = 0.5;
/// An idle endpoint that got no request in the time in which this many went to a mean member is
/// doubted to be as slow as it was: it is taken for as fast as the fastest. An estimate: often
/// enough to see a cure soon, seldom enough for a server that is slow indeed.
const DOUBTED_AFTER: u32 = 8;

impl Pool {
    pub(super) fn empty_table() -> Table {
        Table {
            at: crate::Micros(0),
            basis: Basis::Seconds,
            error: 0.0,
            saturation_seconds: 0.0,
            turn: 0,
            panic: false,
            trial: false,
            considered: 0,
            ask: AskNumbers::default(),
            targets: Vec::new(),
            rows: Vec::new(),
            winner: 0,
            runner_up: None,
        }
    }

    pub(super) fn fill(&mut self, table: &mut Table, ask: &Ask<'_>, field: Field, of: &Memory) {
        table.at = self.now;
        table.basis = match self.spec.profile {
            Profile::LeastRequests => Basis::Requests,
            Profile::Cost if self.trust.trusted => Basis::Seconds,
            Profile::Cost => Basis::TokensInFlight,
        };
        table.error = self.trust.error;
        table.saturation_seconds = self.spec.saturation_seconds;
        table.turn = self.turn;
        (table.panic, table.trial) = (field.panic, field.trial);
        table.considered = field.considered;
        table.ask = self.numbers(ask);
        table.targets.clear();
        if ask.targets.len() > 1 {
            table.targets.extend(ask.names().map(str::to_owned));
        }
        table.rows.clear();
        table.rows.reserve_exact(of.kept.slots.len());
        let least = self.least_in_flight(&of.names);
        for slot in &of.kept.slots {
            self.candidates_of(*slot, ask, (&of.names, least), table);
        }
        self.trust_the_doubted(&mut table.rows);
        let held = table.rows.iter().map(|row| row.candidate.held_blocks);
        table.ask.best_held_blocks = held.max().unwrap_or(0);
    }

    fn numbers(&self, ask: &Ask<'_>) -> AskNumbers {
        let expected = self.means.output_tokens as u32;
        AskNumbers {
            prompt_tokens: ask.prompt_tokens,
            output_tokens: ask.max_tokens.map_or(expected, |most| most.min(expected)),
            blocks: ask.blocks,
            best_held_blocks: 0,
            priority: ask.priority,
            mean_uncached_tokens: self.means.uncached_tokens,
        }
    }

    /// Requests in flight of the least used of the targets.
    fn least_in_flight(&self, names: &[Option<NameId>]) -> u32 {
        let in_flight = names.iter().map(|name| self.named_in_flight(*name));
        in_flight.min().unwrap_or(0)
    }

    fn named_in_flight(&self, name: Option<NameId>) -> u32 {
        name.and_then(|id| self.names.get(id))
            .map_or(0, |name| name.in_flight)
    }

    /// Adds a row per target that the endpoint serves.
    fn candidates_of(
        &mut self,
        slot: u32,
        ask: &Ask<'_>,
        (names, least): (&[Option<NameId>], u32),
        table: &mut Table,
    ) {
        let at = slot as usize;
        let Some(member) = self.members.get(at) else {
            return;
        };
        let Some(load) = self.loads.get(at) else {
            return;
        };
        let common = self.common(slot, load, member, ask);
        let name = member.name.clone();
        for (target, id) in names.iter().enumerate() {
            if !self.names.serves(slot, *id) {
                continue;
            }
            let candidate = Candidate {
                target: target as u32,
                adapter: self.adapter(slot, *id),
                target_excess: self.named_in_flight(*id) - least,
                ..common
            };
            let (seconds, name) = ([0.0; TERMS.len()], name.clone());
            table.rows.push(Row {
                name,
                candidate,
                seconds,
                total: 0.0,
                accepts: false,
            });
        }
        if let Some(load) = self.loads.get_mut(at) {
            load.token_seconds = common.rates.prefill_token_seconds;
        }
    }

    /// The numbers of an endpoint that are the same for all targets.
    fn common(&self, slot: u32, load: &Load, member: &Member, ask: &Ask<'_>) -> Candidate {
        let endpoint = EndpointId {
            slot,
            generation: load.generation,
        };
        let telemetry = &member.telemetry;
        let foreign = telemetry.foreign(self.now, self.median);
        let rates = member.learnt.rates(&self.shared);
        // Everybody ahead takes a seat first.
        let seats = foreign.waiting + load.prefilling as f32 + 1.0;
        Candidate {
            endpoint,
            target: 0,
            held_blocks: ask.held.blocks_of(endpoint).min(ask.blocks),
            in_flight: load.in_flight,
            prefilling: load.prefilling,
            ahead_tokens: load.ahead_tokens(
                self.now,
                rates.prefill_token_seconds,
                self.means.unstreamed,
            ),
            foreign_waiting: foreign.waiting,
            foreign_running: foreign.running,
            report_age_seconds: telemetry.age_seconds(self.now),
            seat_seconds: seats * foreign.per_seat * self.means.residence_seconds,
            kv_tokens: telemetry.kv_tokens(self.now, load.kv_tokens, self.kv_share),
            kv_capacity: telemetry.kv_capacity.unwrap_or(0) as f32,
            rates,
            adapter: Adapter::NotNeeded,
            load_seconds: member.load_seconds.unwrap_or(LOAD_PRIOR_SECONDS),
            target_excess: 0,
            health: load.health.standing(self.now),
        }
    }

    /// Gives the benefit of the doubt to endpoints that could not show their speed for long.
    fn trust_the_doubted(&self, rows: &mut [Row]) {
        let is_doubted = |row: &Row| {
            let at = row.candidate.endpoint.slot as usize;
            let (load, member) = (self.loads.get(at), self.members.get(at));
            load.zip(member)
                .is_some_and(|(load, member)| self.is_doubted(load, member))
        };
        if !rows.iter().any(is_doubted) {
            return;
        }
        let rates = rows.iter().map(|row| row.candidate.rates);
        let Some(fastest) = rates.reduce(Rates::least) else {
            return;
        };
        for row in rows.iter_mut().filter(|row| is_doubted(row)) {
            row.candidate.rates = fastest;
        }
    }

    /// Whether an endpoint has been without requests for so long that its rates say little.
    fn is_doubted(&self, load: &Load, member: &Member) -> bool {
        let passed_over = self.turn.wrapping_sub(member.chosen_at_turn);
        load.in_flight == 0 && passed_over >= DOUBTED_AFTER.saturating_mul(self.member_count)
    }

    fn adapter(&self, slot: u32, id: Option<NameId>) -> Adapter {
        let Some(name) = id.and_then(|id| self.names.get(id)) else {
            return Adapter::NotNeeded;
        };
        if !name.is_adapter {
            return Adapter::NotNeeded;
        }
        if name.loaded.contains(slot) {
            return Adapter::Loaded;
        }
        let Some(member) = self.members.get(slot as usize) else {
            return Adapter::Absent;
        };
        let most = member
            .max_adapters
            .map_or(FEW_ADAPTERS, |most| most as usize);
        if member.loaded.len() < most {
            Adapter::Absent
        } else {
            Adapter::AbsentAndFull
        }
    }

    fn note_turn(&mut self, slot: u32) {
        let at = slot as usize;
        let (Some(load), Some(member)) = (self.loads.get(at), self.members.get(at)) else {
            return;
        };
        let doubted = self.is_doubted(load, member);
        if let Some(member) = self.members.get_mut(at) {
            member.chosen_at_turn = self.turn;
            if doubted {
                member.learnt.doubt(&self.shared);
            }
        }
    }

    /// Books the request on the winner of `table`.
    pub(super) fn reserve(
        &mut self,
        table: Box<Table>,
        ask: &Ask<'_>,
        names: &[Option<NameId>],
    ) -> Option<Decision> {
        let row = table.winning_row()?;
        let candidate = row.candidate;
        let runner_up = table
            .runner_up
            .and_then(|index| table.rows.get(index as usize));
        let runner_up = runner_up.map(|row| row.candidate.endpoint);
        let name = names.get(candidate.target as usize).copied().flatten();
        let uncached = table.ask.uncached_tokens(candidate.held_blocks);
        let ahead =
            candidate.ahead_tokens + candidate.foreign_waiting * table.ask.mean_uncached_tokens;
        let kv_tokens = ask.prompt_tokens.saturating_add(table.ask.output_tokens);
        let adapter_seconds = row.seconds.get(ADAPTER).copied().unwrap_or(0.0);
        let booking = Booking {
            slot: candidate.endpoint.slot,
            name,
            uncached_tokens: uncached as u32,
            kv_tokens,
            dispatched: self.now,
            streams: ask.streams,
            first_token: None,
            lesson: lesson(ask, &candidate, table.trial || table.panic),
            tokens_ahead: ahead + uncached,
            predicted_seconds: saturation::first_token_seconds(&row.seconds) - adapter_seconds,
            sequences: candidate.sequences(),
            trial: candidate_is_trial(&candidate, table.trial).then_some(self.now),
        };
        let (winner, target, held_blocks) =
            (candidate.endpoint, candidate.target, candidate.held_blocks);
        self.note_turn(winner.slot);
        let reservation = self.book(booking);
        let table = Some(table);
        Some(Decision {
            winner,
            target,
            runner_up,
            reservation,
            held_blocks,
            table,
        })
    }
}

/// A request to an ejected endpoint tries it out also when there was no other.
fn candidate_is_trial(candidate: &Candidate, trial: bool) -> bool {
    use crate::health::Standing::{Ejected, TrialDue};
    trial || matches!(candidate.health, Ejected | TrialDue)
}

/// What the time to the first token will teach: nothing when other waits are in it.
fn lesson(ask: &Ask<'_>, candidate: &Candidate, unsound: bool) -> Lesson {
    if unsound || ask.prompt_tokens == 0 || candidate.seat_seconds > 0.0 {
        return Lesson::Nothing;
    }
    match candidate.adapter {
        Adapter::NotNeeded | Adapter::Loaded => Lesson::Prefill,
        Adapter::Absent | Adapter::AbsentAndFull => Lesson::AdapterLoad,
    }
}
