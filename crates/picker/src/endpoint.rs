//! One endpoint: who it is, what is booked on it, what it reported.
//!
//! The numbers that every choice reads are in [`Load`], kept apart from the rest, so that a look
//! over a thousand members touches little memory. A member that was removed stays as a tombstone
//! until its reservations have ended; only then is its slot used again, by the next generation.

use crate::health::{Health, Silence, Standing};
use crate::micros::Micros;
use crate::names::NameId;
use crate::pace::Pace;
use crate::rates::Learnt;
use crate::subset::Subsets;
use crate::telemetry::Telemetry;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// An endpoint of a pool: stable while it is a member, never used again after.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct EndpointId {
    /// Place in the pool.
    pub slot: u32,
    /// Which of the endpoints that had this place.
    pub generation: u32,
}

/// Whether a slot is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Presence {
    /// Nobody's.
    #[default]
    Free,
    /// A member of the pool.
    Member,
    /// Removed; its reservations have not all ended.
    Tombstone,
}

/// The numbers of an endpoint that every choice reads. Sums over its reservations.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Load {
    pub(crate) presence: Presence,
    pub(crate) generation: u32,
    /// In which of the pool's subsets it is.
    pub(crate) subsets: Subsets,
    /// Requests that have not ended.
    pub(crate) in_flight: u32,
    /// Of those, requests without a first token.
    pub(crate) prefilling: u32,
    /// Uncached tokens of those.
    pub(crate) prefilling_tokens: u64,
    /// KV tokens that the requests in flight are expected to fill.
    pub(crate) kv_tokens: u64,
    /// Since when the endpoint computes the first of those without a first token.
    pub(crate) computing_since: Micros,
    /// When all prompts that were sent would be computed at the believed speed.
    pub(crate) computed_at: Micros,
    pub(crate) health: Health,
    pub(crate) silence: Silence,
    pub(crate) pace: Pace,
    /// Requests of others in its queue, by the last report.
    pub(crate) foreign_waiting: f32,
    /// Requests of others that it computes, by the last report.
    pub(crate) foreign_running: f32,
    /// Seconds per token of prompt, as of the last choice that it was a candidate of.
    pub(crate) token_seconds: f32,
}

impl Load {
    /// A member that is not held for broken, or that may be tried out again.
    pub(crate) fn is_usable(&self, now: Micros) -> bool {
        self.presence == Presence::Member && self.health.standing(now) != Standing::Ejected
    }

    /// Whether it has been silent for so long that it must hang.
    pub(crate) fn hangs(&self, now: Micros) -> bool {
        self.silence.proves_a_hang(now, self.prefill_seconds())
    }

    /// No later than the moment at which [`Load::hangs`] becomes true if nothing changes.
    pub(crate) fn may_hang_at(&self) -> Option<Micros> {
        // Seconds are rounded in both places: a millisecond is more than they differ by.
        let at = self.silence.proof_at(self.prefill_seconds())?;
        Some(Micros(at.0.saturating_sub(1000)))
    }

    /// Seconds to compute all that is booked, as believed at the last choice.
    pub(crate) fn prefill_seconds(&self) -> f32 {
        self.prefilling_tokens as f32 * self.token_seconds
    }

    /// Uncached tokens still to compute at `now`.
    ///
    /// What is booked, less what the time since the last sign of progress allows for, at most nine
    /// tenths of one mean request. Requests that are not streamed show no sign when their prompt is
    /// computed: by their share, `unstreamed`, the clock counts instead.
    pub(crate) fn ahead_tokens(&self, now: Micros, token_seconds: f32, unstreamed: f32) -> f32 {
        let booked = self.prefilling_tokens as f32;
        if self.prefilling == 0 {
            return booked;
        }
        let per_token = token_seconds.max(1e-9);
        let progress = now.seconds_since(self.computing_since) / per_token;
        let one_request = booked / self.prefilling as f32;
        let by_signs = booked - progress.min(0.9 * one_request);
        let by_clock = (self.computed_at.seconds_since(now) / per_token).min(booked);
        by_signs + (by_clock - by_signs) * unstreamed
    }
}

/// An adapter that is believed to be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LoadedAdapter {
    pub(crate) name: NameId,
    pub(crate) used_at: Micros,
}

/// All else about an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Member {
    pub(crate) name: Arc<str>,
    pub(crate) learnt: Learnt,
    /// The pool's turn when it last got a request.
    pub(crate) chosen_at_turn: u32,
    pub(crate) telemetry: Telemetry,
    /// Names that it announced; empty when it did not say.
    pub(crate) announced: Vec<NameId>,
    pub(crate) loaded: Vec<LoadedAdapter>,
    /// Most adapters at a time, by reports.
    pub(crate) max_adapters: Option<u32>,
    /// What a load of an adapter costs here, in seconds.
    pub(crate) load_seconds: Option<f32>,
}
