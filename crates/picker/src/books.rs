//! Reservations: what is booked on which endpoint until it is settled.
//!
//! Invariant: the sums in every endpoint's [`Load`] are those over its bookings, after every call.
//! A reservation's number carries a generation, so that settling twice does nothing.

use crate::decision::Reservation;
use crate::endpoint::Load;
use crate::micros::Micros;
use crate::names::NameId;

/// The work of one request on one endpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Booking {
    pub(crate) slot: u32,
    pub(crate) name: Option<NameId>,
    /// Tokens of the prompt that the endpoint does not hold.
    pub(crate) uncached_tokens: u32,
    /// Prompt and expected output.
    pub(crate) kv_tokens: u32,
    pub(crate) dispatched: Micros,
    /// Its first token shows that the endpoint works.
    pub(crate) streams: bool,
    pub(crate) first_token: Option<Micros>,
    /// What the time to its first token will teach.
    pub(crate) lesson: Lesson,
    /// Tokens to compute until its first token, its own included.
    pub(crate) tokens_ahead: f32,
    /// Seconds to the first token without loading an adapter, as predicted.
    pub(crate) predicted_seconds: f32,
    /// Its first token is late after so many seconds; 0 where that cannot be told.
    pub(crate) allowed_seconds: f32,
    /// Sequences beside it, at dispatch and then at its first token.
    pub(crate) sequences: f32,
    /// When it began to try out an ejected endpoint, if it does.
    pub(crate) trial: Option<Micros>,
}

/// What the time to a first token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lesson {
    /// Nothing: other waits are in it.
    Nothing,
    /// How fast prompts are computed.
    Prefill,
    /// How long an adapter takes to load.
    AdapterLoad,
}

impl Booking {
    /// Adds the request to the sums of its endpoint.
    pub(crate) fn book(&self, load: &mut Load) {
        let computing = self.uncached_tokens as f32 * load.token_seconds;
        load.computed_at = load
            .computed_at
            .max(self.dispatched)
            .plus_seconds(computing);
        if load.prefilling == 0 {
            load.computing_since = self.dispatched;
        }
        if self.streams {
            load.silence.begin(self.dispatched);
        }
        if self.allowed_seconds > 0.0 {
            load.pace.begin(self.dispatched, self.allowed_seconds);
        }
        load.in_flight += 1;
        load.prefilling += 1;
        load.prefilling_tokens += u64::from(self.uncached_tokens);
        load.kv_tokens += u64::from(self.kv_tokens);
    }

    /// Its prompt is computed, or will not be.
    pub(crate) fn unbook_prefill(&self, load: &mut Load, now: Micros) {
        if self.streams {
            load.silence.end(self.dispatched);
        }
        if self.allowed_seconds > 0.0 {
            load.pace.end(self.dispatched);
        }
        load.prefilling = load.prefilling.saturating_sub(1);
        let tokens = u64::from(self.uncached_tokens);
        load.prefilling_tokens = load.prefilling_tokens.saturating_sub(tokens);
        load.computing_since = load.computing_since.max(now);
    }

    /// Takes the request out of the sums of its endpoint.
    pub(crate) fn unbook(&self, load: &mut Load, now: Micros) {
        if self.first_token.is_none() {
            self.unbook_prefill(load, now);
        }
        load.in_flight = load.in_flight.saturating_sub(1);
        load.kv_tokens = load.kv_tokens.saturating_sub(u64::from(self.kv_tokens));
    }
}

#[derive(Debug, Default)]
struct Page {
    generation: u32,
    booking: Option<Booking>,
}

/// All bookings of a pool.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pages: Vec<Page>,
    free: Vec<u32>,
}

impl Books {
    pub(crate) fn open(&mut self, booking: Booking) -> Reservation {
        let index = self.free.pop().unwrap_or_else(|| {
            self.pages.push(Page::default());
            (self.pages.len() - 1) as u32
        });
        let mut generation = 0;
        if let Some(page) = self.pages.get_mut(index as usize) {
            page.booking = Some(booking);
            generation = page.generation;
        }
        Reservation(u64::from(generation) << 32 | u64::from(index))
    }

    pub(crate) fn get_mut(&mut self, reservation: Reservation) -> Option<&mut Booking> {
        self.page(reservation)?.booking.as_mut()
    }

    /// Ends a reservation; `None` when it has ended before.
    pub(crate) fn close(&mut self, reservation: Reservation) -> Option<Booking> {
        let page = self.page(reservation)?;
        let booking = page.booking.take()?;
        page.generation = page.generation.wrapping_add(1);
        self.free.push(reservation.0 as u32);
        Some(booking)
    }

    fn page(&mut self, reservation: Reservation) -> Option<&mut Page> {
        let (index, generation) = (reservation.0 as u32, (reservation.0 >> 32) as u32);
        self.pages
            .get_mut(index as usize)
            .filter(|page| page.generation == generation)
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Booking> {
        self.pages.iter().filter_map(|page| page.booking.as_ref())
    }
}
