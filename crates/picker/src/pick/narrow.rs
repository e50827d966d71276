//! From a long list of members to at most [`MOST_CANDIDATES`]: who may win.
//!
//! Those that hold most of the prompt, those that have the adapter, the least loaded, and a few at
//! random, so that nobody is overlooked for ever. One pass and one selection, no sorting. It reads
//! the [`Overview`], so that it needs no lock; the pool drops who has left meanwhile.

use crate::ask::Ask;
use crate::endpoint::EndpointId;
use crate::micros::Micros;
use crate::names::Slots;
use crate::overview::{Overview, Seat};
use crate::subset::Subsets;
use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg32;

/// Endpoints that are compared at most.
pub(crate) const MOST_CANDIDATES: usize = 64;
/// Names of a request that are compared; further ones are not looked at.
pub(crate) const MOST_TARGETS: usize = 16;
/// Of the candidates, because the adapter is loaded there.
const WITH_ADAPTER: usize = 12;
/// Of the candidates, at random.
const RANDOM: usize = 8;

/// Who is worth a close look; memory that is used again. Empty: all members.
#[derive(Debug, Default)]
pub struct Shortlist {
    /// In the order of their slots.
    pub(crate) picks: Vec<EndpointId>,
    /// An ejected endpoint that may be tried out.
    pub(crate) trial: Option<EndpointId>,
    /// Endpoints that could serve.
    pub(crate) considered: u32,
    marks: Slots,
    able: Able,
    usable: Vec<u64>,
    ejected: Vec<u64>,
}

/// Who may serve the names of a request, and who has them loaded.
#[derive(Debug, Default)]
struct Able {
    anyone: bool,
    serving: Slots,
    loaded: Slots,
    /// The subset that the request is kept to.
    within: Subsets,
}

impl Able {
    fn find(&mut self, overview: &Overview, ask: &Ask<'_>) {
        self.anyone = false;
        self.within = Subsets::NONE;
        self.serving.clear();
        self.loaded.clear();
        let names = overview.names();
        for name in ask.names().take(MOST_TARGETS) {
            let Some(name) = names.find(name).and_then(|id| names.get(id)) else {
                self.anyone = true;
                continue;
            };
            self.anyone |= name.announced.is_empty();
            self.serving.add(&name.announced);
            self.loaded.add(&name.loaded);
        }
        if !self.anyone {
            self.serving.add_missing(&names.said, overview.slots());
        }
    }

    fn serves(&self, slot: u32) -> bool {
        self.anyone || self.serving.contains(slot)
    }

    /// Leaves those who are in the first of the request's subsets in which somebody may serve it that
    /// is not held for broken.
    fn keep(&mut self, overview: &Overview, now: Micros, ask: &Ask<'_>) {
        let mut found = Subsets::NONE;
        for (slot, seat) in overview.seats().enumerate() {
            if seat.trial_at().is_none_or(|at| at <= now)
                && could_serve(seat, slot as u32, ask, self).is_some()
            {
                found.add(seat.subsets());
            }
        }
        self.within = ask.subsets.first_among(found);
        if self.within.is_empty() {
            return;
        }
        let mut kept = Slots::default();
        for (seat, slot) in overview.seats().zip(0..) {
            let is_kept = seat.subsets().is_within(self.within) && self.serves(slot);
            kept.set(slot, is_kept);
        }
        (self.anyone, self.serving) = (false, kept);
    }
}

impl Shortlist {
    pub(crate) fn clear(&mut self) {
        self.picks.clear();
        self.trial = None;
        self.considered = 0;
    }

    /// The subset that those on the list are in.
    pub(crate) fn within(&self) -> Subsets {
        self.able.within
    }
}

/// Order of the candidates: by load, among equals from another slot on each time.
#[derive(Debug, Clone, Copy)]
struct Turn {
    first: u32,
    slots: u32,
}

impl Turn {
    fn key(self, slot: u32, seconds: f32) -> u64 {
        let place = if slot >= self.first {
            slot - self.first
        } else {
            slot + self.slots - self.first
        };
        // Numbers that are not negative are in the order of their bits.
        u64::from(seconds.max(0.0).to_bits()) << 32 | u64::from(place)
    }

    fn slot(self, key: u64) -> u32 {
        let slot = u64::from(key as u32) + u64::from(self.first);
        let slots = u64::from(self.slots);
        (if slot >= slots { slot - slots } else { slot }) as u32
    }
}

/// Writes who is worth a close look to `list`.
pub(crate) fn narrow(overview: &Overview, now: Micros, ask: &Ask<'_>, list: &mut Shortlist) {
    let draw = overview.draw();
    let slots = overview.slots().max(1);
    let turn = Turn {
        first: (draw % u64::from(slots)) as u32,
        slots,
    };
    list.able.find(overview, ask);
    if !ask.subsets.is_empty() {
        list.able.keep(overview, now, ask);
    }
    look(overview, (now, turn), ask, list);
    list.considered = (list.usable.len() + list.ejected.len()) as u32;
    let panic = list.usable.is_empty();
    if panic {
        core::mem::swap(&mut list.usable, &mut list.ejected);
        list.trial = None;
    }
    choose(overview, (ask, draw), (turn, panic), list);
}

/// Finds all that could serve.
fn look(overview: &Overview, (now, turn): (Micros, Turn), ask: &Ask<'_>, list: &mut Shortlist) {
    let scale = overview.scale();
    list.usable.clear();
    list.ejected.clear();
    for (slot, seat) in overview.seats().enumerate() {
        let slot = slot as u32;
        let Some(endpoint) = could_serve(seat, slot, ask, &list.able) else {
            continue;
        };
        let key = turn.key(slot, seat.rough_seconds(scale));
        match seat.trial_at() {
            None => list.usable.push(key),
            Some(at) => {
                list.ejected.push(key);
                if at <= now && list.trial.is_none() && !ask.is_retry {
                    list.trial = Some(endpoint);
                }
            }
        }
    }
}

fn could_serve(seat: &Seat, slot: u32, ask: &Ask<'_>, able: &Able) -> Option<EndpointId> {
    let generation = seat.member()?;
    let endpoint = EndpointId { slot, generation };
    let tried = !ask.exclude.is_empty() && ask.exclude.contains(&endpoint);
    (!tried && able.serves(slot)).then_some(endpoint)
}

/// Chooses among `list.usable`.
fn choose(
    overview: &Overview,
    (ask, draw): (&Ask<'_>, u64),
    (turn, panic): (Turn, bool),
    list: &mut Shortlist,
) {
    let Shortlist {
        picks,
        marks,
        able,
        usable,
        ..
    } = list;
    marks.clear();
    let mut count = 0;
    let mut keep = |slot: u32| {
        if !marks.contains(slot) {
            marks.set(slot, true);
            count += 1;
        }
    };
    for (endpoint, _) in ask.held.iter() {
        let seat = overview.seat(endpoint.slot);
        let usable = |seat: &Seat| panic || seat.trial_at().is_none();
        if let Some(seat) = seat.filter(|seat| usable(seat))
            && could_serve(seat, endpoint.slot, ask, able) == Some(endpoint)
        {
            keep(endpoint.slot);
        }
    }
    if !able.loaded.is_empty() {
        let mut least = [u64::MAX; WITH_ADAPTER];
        let with_adapter = |key: &&u64| able.loaded.contains(turn.slot(**key));
        for key in usable.iter().filter(with_adapter) {
            keep_least(&mut least, *key);
        }
        let found = least.iter().filter(|key| **key < u64::MAX);
        found.for_each(|key| keep(turn.slot(*key)));
    }
    let mut chance = Pcg32::seed_from_u64(draw);
    for _ in 0..RANDOM {
        let at = (u64::from(chance.next_u32()) * usable.len() as u64) >> 32;
        if let Some(key) = usable.get(at as usize) {
            keep(turn.slot(*key));
        }
    }
    let rest = MOST_CANDIDATES - count.min(MOST_CANDIDATES);
    if rest < usable.len() {
        usable.select_nth_unstable(rest);
    }
    for key in usable.iter().take(rest) {
        marks.set(turn.slot(*key), true);
    }
    // Candidates stand in the order of their slots, as in a short list.
    picks.extend(marks.iter().filter_map(|slot| overview.endpoint(slot)));
}

/// Keeps the least keys that were seen, in order.
fn keep_least(least: &mut [u64; WITH_ADAPTER], key: u64) {
    let place = least.partition_point(|other| *other < key);
    if place < WITH_ADAPTER {
        least.copy_within(place..WITH_ADAPTER - 1, place + 1);
        if let Some(place) = least.get_mut(place) {
            *place = key;
        }
    }
}

#[cfg(test)]
mod tests;
