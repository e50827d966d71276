//! What narrowing reads of all members, readable without the pool's lock.
//!
//! Whoever holds the pool publishes here what changed; readers take each number as it is. Numbers
//! may be a moment old and need not fit together: narrowing only says who is worth a close look, and
//! the close look is at the pool itself. Invariant: with the pool at rest, every seat shows its
//! endpoint's load. Seats are only ever added, in segments that double, so none moves.

use crate::ask::Ask;
use crate::endpoint::{EndpointId, Load, Presence};
use crate::micros::Micros;
use crate::names::Names;
use crate::pick::narrow::{self, MOST_CANDIDATES, Shortlist};
use crate::subset::Subsets;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Seats of the first segment; each further one doubles the number of seats.
const FIRST_SEGMENT: u32 = MOST_CANDIDATES as u32;
/// Enough for all slots.
const SEGMENTS: usize = 27;

/// A number with a fraction that can be read while it is written.
#[derive(Debug, Default)]
struct Number(AtomicU32);

impl Number {
    fn set(&self, value: f32) {
        self.0.store(value.to_bits(), Relaxed);
    }

    fn get(&self) -> f32 {
        f32::from_bits(self.0.load(Relaxed))
    }
}

/// One slot, as narrowing sees it.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// Generation, and whether the slot is a member's.
    who: AtomicU64,
    /// When an ejected endpoint may be tried out, in microseconds; 0 when it is not ejected.
    trial_at: AtomicU64,
    subsets: AtomicU16,
    in_flight: AtomicU32,
    prefilling_tokens: Number,
    foreign_waiting: Number,
    foreign_running: Number,
    token_seconds: Number,
}

impl Seat {
    fn show(&self, load: &Load) {
        let present = u64::from(load.presence == Presence::Member);
        self.who
            .store(u64::from(load.generation) << 32 | present, Relaxed);
        let trial_at = load.health.trial_at().map_or(0, |at| at.0.max(1));
        self.trial_at.store(trial_at, Relaxed);
        self.subsets.store(load.subsets.bits(), Relaxed);
        self.in_flight.store(load.in_flight, Relaxed);
        self.prefilling_tokens.set(load.prefilling_tokens as f32);
        self.foreign_waiting.set(load.foreign_waiting);
        self.foreign_running.set(load.foreign_running);
        self.token_seconds.set(load.token_seconds);
    }

    /// The generation of the member; `None` when the slot is nobody's.
    pub(crate) fn member(&self) -> Option<u32> {
        let who = self.who.load(Relaxed);
        (who & 1 == 1).then_some((who >> 32) as u32)
    }

    /// When it may be tried out; `None` when it is not ejected.
    pub(crate) fn trial_at(&self) -> Option<Micros> {
        let at = self.trial_at.load(Relaxed);
        (at > 0).then_some(Micros(at))
    }

    /// In which of the pool's subsets it is.
    pub(crate) fn subsets(&self) -> Subsets {
        Subsets::from_bits(self.subsets.load(Relaxed))
    }

    /// Seconds of work, roughly.
    pub(crate) fn rough_seconds(&self, scale: Scale) -> f32 {
        let in_flight = self.in_flight.load(Relaxed) as f32;
        if scale.least_requests {
            return in_flight;
        }
        let foreign = self.foreign_waiting.get() * scale.request_tokens;
        let tokens = self.prefilling_tokens.get() + foreign;
        let sequences = in_flight + self.foreign_running.get();
        tokens * self.token_seconds.get() + sequences * scale.sequence_seconds
    }
}

/// What turns the numbers of a seat into seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scale {
    /// Requests in flight alone count.
    pub(crate) least_requests: bool,
    /// Tokens that a foreign request in a queue is taken for.
    pub(crate) request_tokens: f32,
    /// What a sequence costs, in seconds.
    pub(crate) sequence_seconds: f32,
}

/// The members of a pool as narrowing sees them. Shared by the pool and by whoever asks it.
#[derive(Debug)]
pub struct Overview {
    members: AtomicU32,
    slots: AtomicU32,
    least_requests: AtomicBool,
    request_tokens: Number,
    sequence_seconds: Number,
    draws: AtomicU64,
    segments: [OnceLock<Box<[Seat]>>; SEGMENTS],
    names: RwLock<Names>,
}

impl Overview {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            members: AtomicU32::new(0),
            slots: AtomicU32::new(0),
            least_requests: AtomicBool::new(false),
            request_tokens: Number::default(),
            sequence_seconds: Number::default(),
            draws: AtomicU64::new(seed),
            segments: [const { OnceLock::new() }; SEGMENTS],
            names: RwLock::default(),
        }
    }

    /// Writes to `list` who is worth a close look for `ask`: to be called before
    /// [`crate::Pool::arrive_among`], without the pool's lock. The list stays empty while there are
    /// so few members that all are looked at.
    pub fn narrow(&self, now: Micros, ask: &Ask<'_>, list: &mut Shortlist) {
        list.clear();
        if self.members.load(Relaxed) as usize > MOST_CANDIDATES {
            narrow::narrow(self, now, ask, list);
        }
    }

    /// Shows how many members there are, and makes room for all slots.
    pub(crate) fn resize(&self, members: u32, slots: u32) {
        for segment in 0..SEGMENTS {
            let (first, count) = span(segment);
            if first < slots {
                let seats = || (0..count).map(|_| Seat::default()).collect();
                self.segments
                    .get(segment)
                    .map(|seats_of| seats_of.get_or_init(seats));
            }
        }
        self.slots.store(slots, Relaxed);
        self.members.store(members, Relaxed);
    }

    pub(crate) fn show(&self, slot: u32, load: &Load) {
        if let Some(seat) = self.seat(slot) {
            seat.show(load);
        }
    }

    pub(crate) fn show_speed(&self, slot: u32, token_seconds: f32) {
        if let Some(seat) = self.seat(slot) {
            seat.token_seconds.set(token_seconds);
        }
    }

    pub(crate) fn show_scale(&self, scale: Scale) {
        self.least_requests.store(scale.least_requests, Relaxed);
        self.request_tokens.set(scale.request_tokens);
        self.sequence_seconds.set(scale.sequence_seconds);
    }

    pub(crate) fn scale(&self) -> Scale {
        Scale {
            least_requests: self.least_requests.load(Relaxed),
            request_tokens: self.request_tokens.get(),
            sequence_seconds: self.sequence_seconds.get(),
        }
    }

    /// Another number at every call.
    pub(crate) fn draw(&self) -> u64 {
        self.draws.fetch_add(1, Relaxed)
    }

    /// Slots that are or were in use.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.load(Relaxed)
    }

    /// All seats in use, in order of their slots.
    pub(crate) fn seats(&self) -> impl Iterator<Item = &Seat> {
        let segments = self.segments.iter().map_while(OnceLock::get);
        segments.flatten().take(self.slots() as usize)
    }

    pub(crate) fn seat(&self, slot: u32) -> Option<&Seat> {
        let segment = match slot / FIRST_SEGMENT {
            0 => 0,
            many => many.ilog2() as usize + 1,
        };
        let seats = self.segments.get(segment)?.get()?;
        seats.get((slot - span(segment).0) as usize)
    }

    /// The endpoint in a slot; `None` when the slot is nobody's.
    pub(crate) fn endpoint(&self, slot: u32) -> Option<EndpointId> {
        let generation = self.seat(slot)?.member()?;
        Some(EndpointId { slot, generation })
    }

    /// Whether the seat of the slot shows this load.
    #[cfg(test)]
    pub(crate) fn shows(&self, slot: u32, load: &Load) -> bool {
        let expected = Seat::default();
        expected.show(load);
        let seat = self.seat(slot);
        seat.is_some_and(|seat| format!("{seat:?}") == format!("{expected:?}"))
    }

    /// Names and who has them. Held for a copy of a few words only: the pool may wait for it.
    pub(crate) fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn names_mut(&self) -> RwLockWriteGuard<'_, Names> {
        self.names.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// First slot of a segment, and how many seats it has.
const fn span(segment: usize) -> (u32, u32) {
    match segment {
        0 => (0, FIRST_SEGMENT),
        later => {
            let first = FIRST_SEGMENT << (later - 1);
            (first, first)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_its_own_seat_and_keeps_it() {
        let overview = Overview::new(1);
        overview.resize(1, 1);
        assert_eq!(overview.seats().count(), 1);
        let show = |slot| {
            overview.show(
                slot,
                &Load {
                    presence: Presence::Member,
                    generation: slot + 7,
                    ..Load::default()
                },
            );
        };
        show(0);
        overview.resize(1000, 1000);
        (1..1000).for_each(show);
        let generations: Vec<u32> = overview.seats().filter_map(Seat::member).collect();
        assert_eq!(generations, (7..1007).collect::<Vec<_>>());
        for slot in [0, 63, 64, 127, 128, 999] {
            let generation = slot + 7;
            assert_eq!(
                overview.endpoint(slot),
                Some(EndpointId { slot, generation })
            );
        }
        assert_eq!(overview.endpoint(1000), None, "there, but nobody's");
        assert_eq!(overview.endpoint(5000), None);
        overview.resize(u32::MAX, 0);
        assert!(span(SEGMENTS - 1).0.checked_add(span(SEGMENTS - 1).1 - 1) == Some(u32::MAX));
    }
}
