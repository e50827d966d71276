//! Who has turned slow, and who is tried out by probes: small requests that the shell sends itself.
//!
//! An endpoint that cuts answers or is much slower than it was would cost a client something with
//! each trial, so no client is used for that. Slowness is no fault: when an endpoint stays slow,
//! that is its speed from then on, to be learnt as any other.

use super::Pool;
use crate::ask::Wake;
use crate::endpoint::{EndpointId, Load, Presence};
use crate::micros::Micros;
use crate::pace::{LATE_SECONDS, LATE_TIMES, Pace};

/// Tokens of a probe's prompt, roughly.
pub const PROBE_PROMPT_TOKENS: u32 = 64;
/// Tokens of the answer to a probe, at most.
pub const PROBE_OUTPUT_TOKENS: u32 = 16;
/// What a probe may take beyond its prediction where slowness is not in question, in seconds.
const PATIENCE_SECONDS: f32 = 1.0;
/// An endpoint that is slow for longer is not ejected for that, in seconds.
const SLOW_LASTS_SECONDS: f32 = 30.0;
/// Waits that are overdue are looked at at most this often, in seconds.
const LOOK_SECONDS: f32 = 0.02;

/// A probe that is to be sent now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// To whom.
    pub endpoint: EndpointId,
    /// It has failed when it takes longer than this.
    pub seconds: f32,
}

/// What became of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probed {
    /// The whole answer came in time.
    Whole,
    /// It did not.
    Failed,
    /// The endpoint does not take such requests: nothing can be told by probes.
    Untold,
}

impl Pool {
    /// Probes to be sent now; each is to be followed by [`Pool::probed`].
    pub fn due_probes(&mut self, now: Micros) -> Vec<Probe> {
        self.tell(now);
        let mut due = Vec::new();
        if !core::mem::take(&mut self.probing) {
            return due;
        }
        for slot in 0..self.loads.len() {
            self.accept_slowness(slot);
            let Some((load, member)) = self.loads.get_mut(slot).zip(self.members.get(slot)) else {
                continue;
            };
            if load.presence != Presence::Member || !load.health.is_probed() {
                continue;
            }
            self.probing = true;
            if load.health.begin_probe(self.now) {
                let rates = member.learnt.rates(&self.shared);
                let prompt = rates.prefill_base_seconds
                    + PROBE_PROMPT_TOKENS as f32 * rates.prefill_token_seconds;
                let answer = PROBE_OUTPUT_TOKENS as f32 * rates.decode_base_seconds;
                let more = if load.health.is_slow() {
                    LATE_SECONDS
                } else {
                    PATIENCE_SECONDS
                };
                due.push(Probe {
                    endpoint: EndpointId {
                        slot: slot as u32,
                        generation: load.generation,
                    },
                    seconds: LATE_TIMES * (prompt + answer) + more,
                });
            }
        }
        due
    }

    /// A probe ended. Returns the waits that this ends.
    pub fn probed(&mut self, now: Micros, endpoint: EndpointId, probed: Probed) -> Vec<Wake> {
        self.tell(now);
        let Some(slot) = self.member_slot(endpoint) else {
            return Vec::new();
        };
        if let Some(load) = self.loads.get_mut(slot as usize) {
            load.health.probed(self.now, probed);
        }
        self.show(slot);
        self.wake()
    }

    /// Nobody sends probes any more: clients try out who is ejected.
    pub(super) fn end_probing(&mut self) {
        self.probing = false;
        for slot in 0..self.loads.len() {
            if let Some(load) = self.loads.get_mut(slot) {
                load.health.probed(self.now, Probed::Untold);
            }
            self.show(slot as u32);
        }
    }

    pub(super) fn is_slow(&self, slot: u32) -> bool {
        let load = self.loads.get(slot as usize);
        load.is_some_and(|load| load.health.is_slow())
    }

    /// A first token came late to a request that was sent at `dispatched`.
    pub(super) fn judge_late(&mut self, slot: u32, dispatched: Micros) {
        if self.spec.probes
            && self.others_are_in_time(slot as usize, dispatched)
            && let Some(load) = self.loads.get_mut(slot as usize)
            && load.pace.note_late()
        {
            load.health.eject_slow(self.now);
            self.probing |= load.health.is_probed();
        }
    }

    /// Ejects who lets several requests wait for too long, while others give first tokens in time.
    pub(super) fn eject_overdue(&mut self) {
        if self.now < self.overdue_at
            || self.now.seconds_since(self.overdue_looked_at) < LOOK_SECONDS
        {
            return;
        }
        (self.overdue_at, self.overdue_looked_at) = (Micros(u64::MAX), self.now);
        for slot in 0..self.loads.len() {
            let overdue = self.loads.get(slot).and_then(|load| load.pace.overdue());
            if let Some((since, at)) = overdue
                && self.now >= at
                && self.others_are_in_time(slot, since)
                && let Some(load) = self.loads.get_mut(slot)
            {
                load.health.eject_slow(self.now);
                self.probing |= load.health.is_probed();
            }
            self.show(slot as u32);
        }
    }

    /// Whether another endpoint gave a first token in time to a request sent at `since` or later.
    fn others_are_in_time(&self, slot: usize, since: Micros) -> bool {
        let is_in_time = |load: &Load| {
            load.presence == Presence::Member
                && !load.health.is_ejected()
                && load.pace.was_in_time(since)
        };
        let mut others = self.loads.iter().enumerate();
        others.any(|(other, load)| other != slot && is_in_time(load))
    }

    fn accept_slowness(&mut self, slot: usize) {
        let Some(load) = self.loads.get_mut(slot) else {
            return;
        };
        if load
            .health
            .is_slow_for(self.now)
            .is_some_and(|seconds| seconds > SLOW_LASTS_SECONDS)
        {
            (load.health, load.pace) = (Default::default(), Pace::default());
            self.show(slot as u32);
        }
    }
}
