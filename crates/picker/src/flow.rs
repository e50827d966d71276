//! The queue in front of a saturated pool: by priority, then first come.
//!
//! A waiter is an owned copy of an [`Ask`]. Requests that compete for the same thing (first name,
//! endpoints tried already, subsets) share a lane, and within a lane nobody overtakes; a lane that is
//! blocked does not hold up another. Bounded in requests, bytes and time.

use crate::ask::{Ask, Ticket};
use crate::endpoint::EndpointId;
use crate::micros::Micros;
use crate::models::Target;
use crate::prefix::Held;
use crate::spec::QueueLimits;
use crate::subset::Subsets;
use core::hash::Hasher;
use rustc_hash::FxHasher;
use std::collections::BTreeMap;

/// Waiters that are looked at, from the front, for one whose lane is not blocked.
pub(crate) const LOOK_AHEAD: usize = 32;

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    model: String,
    targets: Vec<Target>,
    prompt_tokens: u32,
    max_tokens: Option<u32>,
    held: Held,
    blocks: u32,
    body_bytes: u32,
    exclude: Vec<EndpointId>,
    subsets: Subsets,
    is_retry: bool,
    streams: bool,
    /// What it competes for.
    pub(crate) lane: u64,
    pub(crate) since: Micros,
}

impl Waiter {
    fn new(now: Micros, ask: &Ask<'_>) -> Self {
        Self {
            model: ask.model.to_owned(),
            targets: ask.targets.to_vec(),
            prompt_tokens: ask.prompt_tokens,
            max_tokens: ask.max_tokens,
            held: ask.held.clone(),
            blocks: ask.blocks,
            body_bytes: ask.body_bytes,
            exclude: ask.exclude.to_vec(),
            subsets: ask.subsets,
            is_retry: ask.is_retry,
            streams: ask.streams,
            lane: lane(ask),
            since: now,
        }
    }

    pub(crate) fn ask(&self, ticket: Ticket) -> Ask<'_> {
        Ask {
            model: &self.model,
            targets: &self.targets,
            prompt_tokens: self.prompt_tokens,
            max_tokens: self.max_tokens,
            held: &self.held,
            blocks: self.blocks,
            priority: ticket.priority,
            body_bytes: self.body_bytes,
            exclude: &self.exclude,
            subsets: self.subsets,
            is_retry: self.is_retry,
            streams: self.streams,
        }
    }
}

/// What a request competes for with others.
pub(crate) fn lane(ask: &Ask<'_>) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(ask.first_name().as_bytes());
    for endpoint in ask.exclude {
        hasher.write_u32(endpoint.slot);
    }
    if !ask.subsets.is_empty() {
        hasher.write_u16(ask.subsets.bits());
    }
    hasher.finish()
}

/// All requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiters: BTreeMap<Ticket, Waiter>,
    /// By time of arrival: the first waits longest.
    arrivals: BTreeMap<u64, Ticket>,
    bytes: usize,
    sequence: u64,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the request in; `None` when the queue is full.
    pub(crate) fn push(
        &mut self,
        now: Micros,
        ask: &Ask<'_>,
        limits: &QueueLimits,
    ) -> Option<Ticket> {
        let bytes = self.bytes.saturating_add(ask.body_bytes as usize);
        if self.waiters.len() >= limits.requests || bytes > limits.bytes {
            return None;
        }
        self.bytes = bytes;
        self.sequence += 1;
        let ticket = Ticket {
            priority: ask.priority,
            sequence: self.sequence,
        };
        self.waiters.insert(ticket, Waiter::new(now, ask));
        self.arrivals.insert(ticket.sequence, ticket);
        Some(ticket)
    }

    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiters.remove(&ticket)?;
        self.arrivals.remove(&ticket.sequence);
        self.bytes = self.bytes.saturating_sub(waiter.body_bytes as usize);
        Some(waiter)
    }

    pub(crate) fn get(&self, ticket: Ticket) -> Option<&Waiter> {
        self.waiters.get(&ticket)
    }

    /// Whether somebody who goes first waits for the same.
    pub(crate) fn is_ahead(&self, ask: &Ask<'_>) -> bool {
        let lane = lane(ask);
        let front = self.waiters.iter().take(LOOK_AHEAD);
        front
            .take_while(|(ticket, _)| ticket.priority >= ask.priority)
            .any(|(_, waiter)| waiter.lane == lane)
    }

    /// The first in order of service after `after` within the look-ahead, not in a blocked lane.
    pub(crate) fn next(&self, after: Option<Ticket>, blocked: &[u64]) -> Option<Ticket> {
        let mut front = self.waiters.iter().take(LOOK_AHEAD);
        front
            .find(|(ticket, waiter)| {
                after.is_none_or(|after| **ticket > after) && !blocked.contains(&waiter.lane)
            })
            .map(|(ticket, _)| *ticket)
    }

    /// Who waits longest, and since when.
    pub(crate) fn oldest(&self) -> Option<(Ticket, Micros)> {
        let (_, ticket) = self.arrivals.first_key_value()?;
        self.waiters
            .get(ticket)
            .map(|waiter| (*ticket, waiter.since))
    }

    /// Ends all waits; the tickets in order of service.
    pub(crate) fn drain(&mut self) -> Vec<Ticket> {
        self.bytes = 0;
        self.arrivals.clear();
        core::mem::take(&mut self.waiters).into_keys().collect()
    }
}
