//! One choice: who may serve, what each would cost, who wins, and the reservation.
//!
//! A close look at every member, or at the at most 64 that narrowing left of more, fills in the
//! inputs of the choice; then costs, the choice, and the winner is booked. What was narrowed without
//! the lock may be out of date: who left or was ejected meanwhile is dropped here, and when nobody
//! is left, narrowing is done again.

use super::Pool;
use crate::ask::Ask;
use crate::decision::Decision;
use crate::endpoint::{EndpointId, Load, Presence};
use crate::health::Standing;
use crate::inputs::Inputs;
use crate::micros::Micros;
use crate::names::{Name, NameId};
use crate::overview::Scale;
use crate::pick;
use crate::pick::narrow::{MOST_CANDIDATES, MOST_TARGETS, Shortlist};
use crate::saturation;
use crate::spec::Profile;
use crate::subset::Subsets;

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
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) considered: u32,
    pub(super) panic: bool,
    pub(super) trial: bool,
    /// Some of them could not show their speed for long.
    pub(super) doubted: bool,
}

/// What was seen in a close look.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) considered: u32,
    /// Of those, endpoints that are not ejected.
    pub(super) usable: u32,
    /// The first that may be tried out.
    pub(super) due: Option<EndpointId>,
    pub(super) doubted: bool,
    /// Some are taken to be of another speed than before.
    pub(super) sped: bool,
}

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) ask: &'a Ask<'a>,
    /// Its names as numbers.
    pub(super) names: &'a [Option<NameId>],
    /// Every member can serve one of the names, as far as is known, and all were not tried yet, nor
    /// is it kept to some of them.
    pub(super) anyone: bool,
    /// Some of the names are adapters.
    pub(super) adapters: bool,
    /// The subset that it is kept to.
    pub(super) within: Subsets,
}

impl Pool {
    /// Looks for an endpoint, among those in `list` if there are many; books the request on the
    /// winner.
    pub(super) fn decide(&mut self, ask: &Ask<'_>, list: Option<&Shortlist>) -> Choice {
        self.eject_silent();
        self.eject_overdue();
        let (one, several);
        let names = if ask.targets.len() <= 1 {
            one = self.find_name(ask.first_name());
            core::slice::from_ref(&one)
        } else {
            several = self.intern_targets(ask);
            several.get(..ask.targets.len()).unwrap_or(&several)
        };
        let wanted = self.wanted(ask, names);
        let mut inputs = self.spare.take().unwrap_or_default();
        inputs.candidates.clear();
        inputs.assigned = false;
        let Some(field) = self.gather(&wanted, list, &mut inputs) else {
            self.spare = Some(inputs);
            return Choice::Nobody;
        };
        self.fill(&mut inputs, ask, field);
        pick::evaluate(&inputs, &mut self.costs);
        let Some(winner) = pick::choose(&inputs, &self.costs) else {
            self.shortage_seconds = saturation::shortage_seconds(&inputs, &self.costs);
            self.spare = Some(inputs);
            return Choice::Full;
        };
        inputs.winner = winner;
        self.turn = self.turn.wrapping_add(1);
        match self.reserve(inputs, &wanted) {
            Some(decision) => Choice::Go(decision),
            None => Choice::Nobody,
        }
    }

    /// Whether a request that was sent to `endpoint` at `dispatched` waits there in vain: the endpoint
    /// is ejected and silent since, for longer than any prompt explains, and others are not ejected.
    pub fn is_in_vain(&mut self, now: Micros, endpoint: EndpointId, dispatched: Micros) -> bool {
        self.tell(now);
        self.eject_silent();
        let Some(load) = self
            .member_slot(endpoint)
            .and_then(|at| self.loads.get(at as usize))
        else {
            return false;
        };
        let seconds = load.prefill_seconds();
        load.health.is_ejected()
            && load.silence.was_overdue(dispatched, self.now, seconds)
            && self
                .loads
                .iter()
                .any(|other| other.presence == Presence::Member && !other.health.is_ejected())
    }

    /// Ejects who has been silent for too long; looks only when somebody may have been.
    fn eject_silent(&mut self) {
        if self.now < self.silent_at {
            return;
        }
        self.silent_at = Micros(u64::MAX);
        for slot in 0..self.loads.len() {
            if let Some(load) = self.loads.get_mut(slot)
                && load.hangs(self.now)
            {
                load.health.eject(self.now);
            }
            self.show(slot as u32);
        }
    }

    /// To be called after every change of an endpoint's load.
    pub(super) fn show(&mut self, slot: u32) {
        let Some(load) = self.loads.get(slot as usize) else {
            return;
        };
        if !load.health.is_ejected()
            && let Some(at) = load.may_hang_at()
        {
            self.silent_at = self.silent_at.min(at);
        }
        if self.spec.probes
            && !load.health.is_ejected()
            && let Some((_, at)) = load.pace.overdue()
        {
            self.overdue_at = self.overdue_at.min(at);
        }
        if self.loads.len() > MOST_CANDIDATES {
            self.overview.show(slot, load);
        }
    }

    pub(super) fn show_scale(&self) {
        let output_tokens = self.means.output_tokens;
        self.overview.show_scale(Scale {
            least_requests: self.spec.profile == Profile::LeastRequests,
            request_tokens: self.means.uncached_tokens,
            sequence_seconds: self.shared.rates.decode_sequence_seconds * output_tokens,
        });
    }

    /// Names as numbers. They come from the configuration, so they may get new numbers.
    pub(super) fn intern_targets(&mut self, ask: &Ask<'_>) -> [Option<NameId>; MOST_TARGETS] {
        let mut names = [None; MOST_TARGETS];
        for (name, place) in ask.names().zip(&mut names) {
            *place = self.intern(name);
        }
        names
    }

    pub(super) fn wanted<'a>(&self, ask: &'a Ask<'a>, names: &'a [Option<NameId>]) -> Wanted<'a> {
        let known = |id: &Option<NameId>| id.and_then(|id| self.names.get(id));
        // Who is no member has announced nothing.
        let by_anyone = |name: &Name| {
            let count = name.announced.count();
            count == 0 || count >= self.member_count
        };
        Wanted {
            ask,
            names,
            anyone: ask.exclude.is_empty()
                && ask.subsets.is_empty()
                && names.iter().any(|id| known(id).is_none_or(by_anyone)),
            adapters: names.iter().filter_map(known).any(|name| name.is_adapter),
            within: Subsets::NONE,
        }
    }

    pub(super) fn find_name(&mut self, text: &str) -> Option<NameId> {
        // Most often it is the one that was asked for before.
        let last = self.last_name.and_then(|id| self.names.get(id));
        if last.is_some_and(|name| *name.text == *text) {
            return self.last_name;
        }
        let found = self.names.find(text);
        if found.is_some() {
            self.last_name = found;
        }
        found
    }

    /// Puts into `inputs` the candidates to compare; `None` when nobody may serve.
    fn gather(
        &mut self,
        wanted: &Wanted<'_>,
        list: Option<&Shortlist>,
        inputs: &mut Inputs,
    ) -> Option<Field> {
        if self.member_count as usize <= MOST_CANDIDATES {
            let kept;
            let wanted = if wanted.ask.subsets.is_empty() {
                wanted
            } else {
                kept = self.kept(wanted);
                &kept
            };
            let mut seen = Seen::default();
            let most = self.member_count as usize * wanted.names.len();
            inputs.candidates.reserve_exact(most);
            for (slot, (load, member)) in self.loads.iter().zip(&self.members).enumerate() {
                let out = &mut inputs.candidates;
                self.close_look((slot as u32, load, member), wanted, out, &mut seen);
            }
            self.note_speeds(seen, inputs);
            return field(seen, wanted.ask, inputs);
        }
        self.show_scale();
        if let Some(list) = list.filter(|list| !list.picks.is_empty())
            && let Some(field) = self.gather_from(list, wanted, inputs)
            && !field.panic
        {
            return Some(field);
        }
        let mut list = core::mem::take(&mut self.shortlist);
        self.overview.narrow(self.now, wanted.ask, &mut list);
        let field = self.gather_from(&list, wanted, inputs);
        self.shortlist = list;
        field
    }

    fn gather_from(
        &mut self,
        list: &Shortlist,
        wanted: &Wanted<'_>,
        inputs: &mut Inputs,
    ) -> Option<Field> {
        let considered = list.considered;
        let wanted = &Wanted {
            within: list.within(),
            ..*wanted
        };
        if let Some(trial) = list.trial.filter(|_| !wanted.ask.is_retry) {
            let seen = self.look_at(&[trial], wanted, inputs);
            if seen.due.is_some() {
                return Some(Field {
                    considered,
                    panic: false,
                    trial: true,
                    doubted: seen.doubted,
                });
            }
        }
        let seen = self.look_at(&list.picks, wanted, inputs);
        let field = field(seen, wanted.ask, inputs)?;
        Some(Field {
            considered,
            ..field
        })
    }

    pub(super) fn look_at(
        &mut self,
        ids: &[EndpointId],
        wanted: &Wanted<'_>,
        inputs: &mut Inputs,
    ) -> Seen {
        inputs.candidates.clear();
        let most = ids.len() * wanted.names.len();
        inputs.candidates.reserve_exact(most);
        let mut seen = Seen::default();
        for id in ids {
            let at = id.slot as usize;
            let found = self
                .member_slot(*id)
                .and(self.loads.get(at).zip(self.members.get(at)));
            if let Some((load, member)) = found {
                let out = &mut inputs.candidates;
                self.close_look((id.slot, load, member), wanted, out, &mut seen);
            }
        }
        self.note_speeds(seen, inputs);
        seen
    }

    /// The same, kept to the first of the request's subsets in which somebody may serve it that is
    /// not held for broken.
    fn kept<'a>(&self, wanted: &Wanted<'a>) -> Wanted<'a> {
        let mut found = Subsets::NONE;
        for (slot, load) in (0..).zip(&self.loads) {
            let generation = load.generation;
            if load.is_usable(self.now)
                && self.may_serve(EndpointId { slot, generation }, load, wanted)
            {
                found.add(load.subsets);
            }
        }
        Wanted {
            within: wanted.ask.subsets.first_among(found),
            ..*wanted
        }
    }

    /// Whether the slot is that of a member that may serve.
    #[inline]
    pub(super) fn may_serve(&self, id: EndpointId, load: &Load, wanted: &Wanted<'_>) -> bool {
        if load.presence != Presence::Member {
            return false;
        }
        wanted.anyone || {
            let tried = wanted.ask.exclude.contains(&id);
            let mut names = wanted.names.iter();
            let within = load.subsets.is_within(wanted.within);
            !tried && within && names.any(|name| self.names.serves(id.slot, *name))
        }
    }
}

/// Takes out of the candidates who is ejected, if anybody is not.
fn field(seen: Seen, ask: &Ask<'_>, inputs: &mut Inputs) -> Option<Field> {
    if seen.considered == 0 {
        return None;
    }
    let panic = seen.usable == 0;
    let due = seen.due.filter(|_| !ask.is_retry && !panic);
    if let Some(due) = due {
        let is_due = |endpoint: EndpointId| endpoint == due;
        inputs
            .candidates
            .retain(|candidate| is_due(candidate.endpoint));
    } else if !panic && seen.usable < seen.considered {
        let is_up = |health| matches!(health, Standing::Up | Standing::Suspect);
        inputs
            .candidates
            .retain(|candidate| is_up(candidate.health));
    }
    Some(Field {
        considered: seen.considered,
        panic,
        trial: due.is_some(),
        doubted: seen.doubted,
    })
}
