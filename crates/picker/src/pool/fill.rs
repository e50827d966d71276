//! The inputs of a choice: the request's and each candidate's numbers; and the winner's booking.
//!
//! Everything that a cost can depend on is read here and written down, once.

use super::Pool;
use super::decide::{Field, Seen, Wanted};
use crate::ask::Ask;
use crate::books::{Booking, Lesson};
use crate::decision::{Basis, Decision};
use crate::endpoint::{EndpointId, Load, Member};
use crate::health::Standing;
use crate::inputs::Inputs;
use crate::names::NameId;
use crate::pace::{LATE_SECONDS, LATE_TIMES};
use crate::pick::narrow::MOST_CANDIDATES;
use crate::rates::Rates;
use crate::spec::Profile;
use crate::terms::{Adapter, AskNumbers, Candidate};
use std::sync::Arc;

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
    /// Fills in all but the candidates, which are there.
    pub(super) fn fill(&self, inputs: &mut Inputs, ask: &Ask<'_>, field: Field) {
        inputs.at = self.now;
        inputs.basis = match self.spec.profile {
            Profile::LeastRequests => Basis::Requests,
            Profile::Cost if self.trust.trusted => Basis::Seconds,
            Profile::Cost => Basis::TokensInFlight,
        };
        inputs.error = self.trust.error;
        inputs.saturation_seconds = self.spec.saturation_seconds;
        inputs.turn = self.turn;
        (inputs.panic, inputs.trial) = (field.panic, field.trial);
        inputs.considered = field.considered;
        inputs.ask = self.numbers(ask);
        inputs.targets.clear();
        if ask.targets.len() > 1 {
            inputs.targets.extend(ask.names().map(str::to_owned));
        }
        if !Arc::ptr_eq(&inputs.roster, &self.roster) {
            inputs.roster = self.roster.clone();
        }
        if field.doubted {
            self.trust_the_doubted(&mut inputs.candidates);
        }
        inputs.ask.best_held_blocks = note_held(ask, &mut inputs.candidates);
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

    /// Adds a candidate per target that the endpoint serves, if it may serve at all.
    #[inline]
    pub(super) fn close_look(
        &self,
        (slot, load, member): (u32, &Load, &Member),
        wanted: &Wanted<'_>,
        out: &mut Vec<Candidate>,
        seen: &mut Seen,
    ) {
        let id = EndpointId {
            slot,
            generation: load.generation,
        };
        if !self.may_serve(id, load, wanted) {
            return;
        }
        let health = load.health.standing(self.now);
        let rates = member.learnt.rates(&self.shared);
        seen.considered += 1;
        seen.doubted |= self.is_doubted(load, member);
        seen.sped |= load.token_seconds != rates.prefill_token_seconds;
        match health {
            Standing::Up | Standing::Suspect => seen.usable += 1,
            Standing::TrialDue => seen.due = seen.due.or(Some(id)),
            Standing::Ejected => {}
        }
        out.push(self.candidate(id, (load, member), rates, health));
        if wanted.adapters || wanted.names.len() > 1 {
            self.push_targets(wanted.names, out);
        }
    }

    /// Makes the last candidate, which is for no target yet, one per target that it serves.
    fn push_targets(&self, names: &[Option<NameId>], out: &mut Vec<Candidate>) {
        let Some(of) = out.pop() else { return };
        let slot = of.endpoint.slot;
        let least = self.least_in_flight(names);
        for (target, id) in names.iter().enumerate() {
            if self.names.serves(slot, *id) {
                out.push(Candidate {
                    target: target as u32,
                    adapter: self.adapter(slot, *id),
                    target_excess: self.named_in_flight(*id) - least,
                    ..of
                });
            }
        }
    }

    /// Keeps the speeds that the endpoints are taken to have, where they changed.
    pub(super) fn note_speeds(&mut self, seen: Seen, inputs: &Inputs) {
        if !seen.sped {
            return;
        }
        let crowded = self.loads.len() > MOST_CANDIDATES;
        for candidate in &inputs.candidates {
            let slot = candidate.endpoint.slot;
            let Some(load) = self.loads.get_mut(slot as usize) else {
                continue;
            };
            load.token_seconds = candidate.rates.prefill_token_seconds;
            if !load.health.is_ejected()
                && let Some(at) = load.may_hang_at()
            {
                self.silent_at = self.silent_at.min(at);
            }
            if crowded {
                self.overview.show_speed(slot, load.token_seconds);
            }
        }
    }

    /// The numbers of an endpoint that are the same for all targets.
    #[inline]
    fn candidate(
        &self,
        endpoint: EndpointId,
        (load, member): (&Load, &Member),
        rates: Rates,
        health: Standing,
    ) -> Candidate {
        let telemetry = &member.telemetry;
        let belief = telemetry.belief(self.now);
        let foreign = telemetry.foreign(belief, self.median);
        // Everybody ahead takes a seat first.
        let seats = foreign.waiting + load.prefilling as f32 + 1.0;
        Candidate {
            endpoint,
            target: 0,
            held_blocks: 0,
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
            kv_tokens: telemetry.kv_tokens(belief, load.kv_tokens, self.kv_share),
            kv_capacity: telemetry.kv_capacity.unwrap_or(0) as f32,
            rates,
            adapter: Adapter::NotNeeded,
            load_seconds: member.load_seconds.unwrap_or(LOAD_PRIOR_SECONDS),
            target_excess: 0,
            health,
        }
    }

    /// Gives the benefit of the doubt to endpoints that could not show their speed for long.
    fn trust_the_doubted(&self, candidates: &mut [Candidate]) {
        let is_doubted = |candidate: &Candidate| {
            let at = candidate.endpoint.slot as usize;
            let (load, member) = (self.loads.get(at), self.members.get(at));
            load.zip(member)
                .is_some_and(|(load, member)| self.is_doubted(load, member))
        };
        let rates = candidates.iter().map(|candidate| candidate.rates);
        let Some(fastest) = rates.reduce(Rates::least) else {
            return;
        };
        for candidate in candidates
            .iter_mut()
            .filter(|candidate| is_doubted(candidate))
        {
            candidate.rates = fastest;
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

    /// Books the request on the winner of `inputs`.
    pub(super) fn reserve(&mut self, inputs: Box<Inputs>, wanted: &Wanted<'_>) -> Option<Decision> {
        let ask = wanted.ask;
        let at = inputs.winner as usize;
        let candidate = inputs.candidates.get(at)?;
        let name = wanted
            .names
            .get(candidate.target as usize)
            .copied()
            .flatten();
        let uncached = inputs.ask.uncached_tokens(candidate.held_blocks);
        let ahead =
            candidate.ahead_tokens + candidate.foreign_waiting * inputs.ask.mean_uncached_tokens;
        let kv_tokens = ask.prompt_tokens.saturating_add(inputs.ask.output_tokens);
        let predicted_seconds = self.costs.get(at)?.prefill_seconds;
        let lesson = lesson(ask, candidate, inputs.trial || inputs.panic);
        let cold_seconds =
            inputs.ask.cached_tokens(candidate.held_blocks) * candidate.rates.prefill_token_seconds;
        let can_be_told =
            ask.streams && lesson == Lesson::Prefill && inputs.basis == Basis::Seconds;
        let allowed_seconds = if can_be_told {
            LATE_TIMES * (predicted_seconds + cold_seconds) + LATE_SECONDS
        } else {
            0.0
        };
        let booking = Booking {
            slot: candidate.endpoint.slot,
            name,
            uncached_tokens: uncached as u32,
            kv_tokens,
            dispatched: self.now,
            streams: ask.streams,
            first_token: None,
            lesson,
            tokens_ahead: ahead + uncached,
            predicted_seconds,
            allowed_seconds,
            sequences: candidate.sequences(),
            trial: candidate_is_trial(candidate, inputs.trial).then_some(self.now),
        };
        let (winner, target, held_blocks) =
            (candidate.endpoint, candidate.target, candidate.held_blocks);
        self.note_turn(winner.slot);
        let reservation = self.book(booking);
        self.show(winner.slot);
        Some(Decision {
            winner,
            target,
            reservation,
            held_blocks,
            table: Some(inputs),
        })
    }
}

/// Fills in who holds how much; returns the most.
fn note_held(ask: &Ask<'_>, candidates: &mut [Candidate]) -> u32 {
    let mut best = 0;
    for (endpoint, blocks) in ask.held.iter() {
        let blocks = blocks.min(ask.blocks);
        // Where all members may serve, with one name, a slot is a place.
        let guess = endpoint.slot as usize;
        let is_there = candidates
            .get(guess)
            .is_some_and(|candidate| candidate.endpoint == endpoint && candidate.target == 0);
        let mut at = if is_there {
            guess
        } else {
            candidates.partition_point(|candidate| candidate.endpoint < endpoint)
        };
        while let Some(candidate) = candidates.get_mut(at)
            && candidate.endpoint == endpoint
        {
            candidate.held_blocks = blocks;
            best = best.max(blocks);
            at += 1;
        }
    }
    best
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
