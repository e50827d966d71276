//! What a request wants of a pool, and what it is told.
//!
//! An [`Ask`] borrows everything: it is made per call. When the request must wait, the pool keeps
//! its own copy (`flow.rs`) and later hands back a [`Wake`] for the [`Ticket`].

use crate::decision::Decision;
use crate::endpoint::EndpointId;
use crate::models::Target;
use crate::prefix::Held;
use crate::subset::Subsets;
use core::cmp::{Ordering, Reverse};

/// What a request wants.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The model's name; what the engine will see when there are no targets.
    pub model: &'a str,
    /// Names the engine may see instead. Several: the pool chooses by cost.
    pub targets: &'a [Target],
    /// Length of the prompt, in tokens (estimated); 0 for requests that are not understood.
    pub prompt_tokens: u32,
    /// The most tokens that may be generated, when the client said.
    pub max_tokens: Option<u32>,
    /// Which endpoints are believed to hold how many of the prompt's blocks.
    pub held: &'a Held,
    /// Full blocks of the prompt, the unit of `held`.
    pub blocks: u32,
    /// Below 0 the request is shed when the pool is saturated; else the higher is served first.
    pub priority: i32,
    /// Bytes that are held while the request waits.
    pub body_bytes: u32,
    /// Endpoints that were tried already.
    pub exclude: &'a [EndpointId],
    /// To which of the pool's subsets it may be kept, the lowest number first.
    pub subsets: Subsets,
    /// An earlier try of this request failed: it is not used to try out an ejected endpoint.
    pub is_retry: bool,
    /// The answer is streamed: its first token shows that the endpoint works.
    pub streams: bool,
}

impl<'a> Ask<'a> {
    /// The names to choose among: the targets, or the model itself.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> + Clone {
        let own = self.targets.is_empty().then_some(self.model);
        self.targets
            .iter()
            .map(|target| target.name.as_str())
            .chain(own)
    }

    /// What it competes for with other requests: the first name.
    pub(crate) fn first_name(&self) -> &'a str {
        self.targets
            .first()
            .map_or(self.model, |target| target.name.as_str())
    }
}

/// The answer to an [`Ask`].
#[derive(Debug)]
pub enum Arrival {
    /// Go there; the reservation is made.
    Go(Decision),
    /// Wait for a [`Wake`] with this ticket.
    Wait(Ticket),
    /// It will not be served.
    Refuse(Why),
}

/// A place in the queue. Unique in its pool, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(crate) priority: i32,
    pub(crate) sequence: u64,
}

impl Ord for Ticket {
    /// In the order of service: higher priority first, then first come.
    fn cmp(&self, other: &Self) -> Ordering {
        let order = |ticket: &Self| (Reverse(ticket.priority), ticket.sequence);
        order(self).cmp(&order(other))
    }
}

impl PartialOrd for Ticket {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The end of a wait: [`Arrival::Go`] or [`Arrival::Refuse`], never [`Arrival::Wait`].
#[derive(Debug)]
pub struct Wake {
    /// Whose wait is over.
    pub ticket: Ticket,
    /// What became of it.
    pub arrival: Arrival,
}

/// Why a request is refused, and when it may be worth another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Why {
    /// The cause.
    pub cause: Cause,
    /// For `Retry-After`, in whole seconds, 1 to 60.
    pub retry_after_seconds: u32,
}

impl Why {
    /// The pool has no endpoint at all.
    pub fn no_endpoints() -> Self {
        Self {
            cause: Cause::NoEndpoints,
            retry_after_seconds: 1,
        }
    }
}

/// The cause of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No endpoint would give a first token in time, and the request's priority is below 0.
    Saturated,
    /// As many requests wait as may wait.
    QueueFull,
    /// It waited as long as requests may wait.
    WaitedTooLong,
    /// The pool has no members.
    NoEndpoints,
    /// Every endpoint that could serve it was tried already.
    AllExcluded,
}
