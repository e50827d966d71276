//! From the reservation to its end: first token, finish, and what they teach.
//!
//! A response that is not streamed comes all at once, so its first token says nothing of the
//! prefill. Whether it was streamed shows [`SETTLED_SECONDS`] later, or at its end: lessons of
//! first tokens wait until then.

use super::Pool;
use super::fill::LOAD_PRIOR_SECONDS;
use crate::ask::Wake;
use crate::books::{Booking, Lesson};
use crate::decision::Reservation;
use crate::endpoint::Load;
use crate::micros::Micros;
use crate::outcome::{FailureKind, Finished, Outcome};

/// A request that goes on this long after its first token is streamed, in seconds.
const SETTLED_SECONDS: f32 = 0.05;
/// Tokens of a response from which its speed is measured.
const LEAST_TOKENS: u32 = 8;
/// Tokens that come faster than this share of the predicted pace were not streamed.
const LEAST_PACE: f32 = 0.1;
/// Bounds of what loading an adapter may cost, in seconds.
const LOAD_SECONDS: (f32, f32) = (0.3, 2.0);
/// Weight of the newest load.
const LOAD_WEIGHT: f32 = 0.3;
/// Weight of the newest request in the means of the pool.
const MEANS_WEIGHT: f32 = 1.0 / 32.0;

impl Pool {
    /// The first token came: the prompt is computed. Returns the waits that this ends.
    pub fn first_token(&mut self, now: Micros, reservation: Reservation) -> Vec<Wake> {
        self.tell(now);
        let now = self.now;
        let Some(booking) = self.books.get_mut(reservation) else {
            return Vec::new();
        };
        if booking.first_token.is_some() {
            return Vec::new();
        }
        booking.first_token = Some(now);
        let (slot, dispatched, name) = (booking.slot, booking.dispatched, booking.name);
        let Some(load) = self.loads.get_mut(slot as usize) else {
            return Vec::new();
        };
        booking.unbook_prefill(load, now);
        load.silence.heard(now);
        let allowed = booking.allowed_seconds;
        let is_late = allowed > 0.0 && load.pace.first_token(now, dispatched, allowed);
        let streaming = (load.in_flight - load.prefilling) as f32 + load.foreign_running;
        booking.sequences = (booking.sequences + streaming) * 0.5;
        load.health.spoke(dispatched);
        if booking.lesson != Lesson::Nothing {
            self.lessons
                .push_back((now.plus_seconds(SETTLED_SECONDS), reservation));
        }
        if is_late {
            self.judge_late(slot, dispatched);
        }
        self.show(slot);
        self.note_used(slot, name);
        self.wake()
    }

    /// The request ended. Returns the waits that this ends. Settling twice does nothing.
    pub fn finish(&mut self, now: Micros, reservation: Reservation, outcome: Outcome) -> Vec<Wake> {
        self.tell(now);
        let Some(mut booking) = self.books.close(reservation) else {
            return Vec::new();
        };
        let now = self.now;
        let mut result = outcome.result;
        if let Some(load) = self.loads.get_mut(booking.slot as usize) {
            result = with_silence(&booking, result, load, now);
            booking.unbook(load, now);
            let in_flight = load.in_flight;
            if let Some(member) = self.members.get_mut(booking.slot as usize) {
                member.telemetry.own_event(in_flight);
            }
        }
        if let Some(name) = booking.name.and_then(|id| self.names.get_mut(id)) {
            name.in_flight = name.in_flight.saturating_sub(1);
        }
        self.judge(&booking, result);
        self.show(booking.slot);
        if outcome.result == Finished::Complete {
            self.learn_from_end(&mut booking, &outcome);
        }
        self.free_if_empty(booking.slot);
        self.wake()
    }

    /// Opens the reservation and adds it to the endpoint's sums.
    pub(super) fn book(&mut self, booking: Booking) -> Reservation {
        let at = booking.slot as usize;
        if let Some(load) = self.loads.get_mut(at) {
            booking.book(load);
            if booking.trial.is_some() {
                load.health.begin_trial(booking.dispatched);
            }
            if let Some(member) = self.members.get_mut(at) {
                member.telemetry.own_event(load.in_flight);
            }
        }
        if let Some(name) = booking.name.and_then(|id| self.names.get_mut(id)) {
            name.in_flight += 1;
        }
        blend(
            &mut self.means.uncached_tokens,
            booking.uncached_tokens as f32,
        );
        self.books.open(booking)
    }

    fn judge(&mut self, booking: &Booking, result: Finished) {
        let Some(load) = self.loads.get_mut(booking.slot as usize) else {
            return;
        };
        match result {
            Finished::Complete => load.health.success(booking.dispatched),
            Finished::Cancelled | Finished::Failed(FailureKind::ClientFault) => {
                if let Some(began) = booking.trial {
                    load.health.trial_without_evidence(began);
                }
            }
            Finished::Failed(kind) => {
                let probes = self.spec.probes;
                load.health.failure(self.now, kind, booking.trial, probes);
                self.probing |= load.health.is_probed();
            }
        }
    }

    /// Learns what first tokens taught whose requests turned out to be streamed.
    pub(super) fn learn_due(&mut self) {
        while let Some((due, reservation)) = self.lessons.front().copied()
            && due <= self.now
        {
            self.lessons.pop_front();
            let Some(booking) = self.books.get_mut(reservation) else {
                continue;
            };
            let taken = *booking;
            booking.lesson = Lesson::Nothing;
            self.learn_first_token(&taken);
        }
    }

    fn learn_from_end(&mut self, booking: &mut Booking, outcome: &Outcome) {
        if self.is_slow(booking.slot) {
            return;
        }
        let tokens = outcome.completion_tokens;
        if tokens > 0 {
            blend(&mut self.means.output_tokens, tokens as f32);
        }
        let Some(first_token) = booking.first_token else {
            return;
        };
        let decoding = self.now.seconds_since(first_token);
        let pace = decoding / tokens.saturating_sub(1).max(1) as f32;
        let streamed = tokens <= 1 || pace >= LEAST_PACE * self.shared.rates.decode_base_seconds;
        if tokens >= LEAST_TOKENS {
            blend(&mut self.means.unstreamed, if streamed { 0.0 } else { 1.0 });
        }
        // Without a word of tokens nobody knows; an embedding has a prompt and no completion.
        let known = tokens > 0 || outcome.prompt_tokens > 0;
        if !streamed || !known {
            return;
        }
        self.learn_first_token(booking);
        if tokens < LEAST_TOKENS {
            return;
        }
        blend(&mut self.means.residence_seconds, decoding);
        if let Some(member) = self.members.get_mut(booking.slot as usize) {
            member
                .learnt
                .decoded(&mut self.shared, booking.sequences, pace);
        }
    }

    fn learn_first_token(&mut self, booking: &Booking) {
        let Some(first_token) = booking.first_token else {
            return;
        };
        if self.is_slow(booking.slot) {
            return;
        }
        let seconds = first_token.seconds_since(booking.dispatched);
        let Some(member) = self.members.get_mut(booking.slot as usize) else {
            return;
        };
        match booking.lesson {
            Lesson::Nothing => {}
            Lesson::Prefill => {
                let tokens = booking.tokens_ahead;
                let error = member.learnt.first_token(&mut self.shared, tokens, seconds);
                self.trust.sample(error);
            }
            Lesson::AdapterLoad => {
                let load =
                    (seconds - booking.predicted_seconds).clamp(LOAD_SECONDS.0, LOAD_SECONDS.1);
                let known = member.load_seconds.unwrap_or(LOAD_PRIOR_SECONDS);
                member.load_seconds = Some(known + (load - known) * LOAD_WEIGHT);
            }
        }
    }
}

/// An answer is a sign of life; a client that gave up after a long silence has seen a hang.
fn with_silence(booking: &Booking, result: Finished, load: &mut Load, now: Micros) -> Finished {
    match result {
        Finished::Cancelled => {}
        Finished::Failed(FailureKind::Hang) => return result,
        _ => {
            load.silence.heard(now);
            return result;
        }
    }
    let waited = booking.streams && booking.first_token.is_none();
    let (sent, prefill_seconds) = (booking.dispatched, load.prefill_seconds());
    if waited && load.silence.was_overdue(sent, now, prefill_seconds) {
        Finished::Failed(FailureKind::Hang)
    } else {
        result
    }
}

fn blend(mean: &mut f32, sample: f32) {
    *mean += (sample - *mean) * MEANS_WEIGHT;
}
