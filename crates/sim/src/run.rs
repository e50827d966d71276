//! A bare driver: arrivals through one engine, without any gateway between.
//! Order at one instant: the engine's events first, then arrivals in the order given.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::Micros;
use crate::engine::{Engine, EngineSpec, Event, Job, Refused};

/// Runs `arrivals` (in any order) through one engine until it is idle; all events in order of time.
///
/// # Errors
/// The first job that the engine refuses ends the run.
pub fn run(
    spec: EngineSpec,
    arrivals: impl IntoIterator<Item = (Micros, Job)>,
) -> Result<Vec<Event>, Refused> {
    let mut jobs: Vec<Option<Job>> = Vec::new();
    let mut agenda = BinaryHeap::new();
    for (sequence, (at, job)) in arrivals.into_iter().enumerate() {
        agenda.push(Reverse((at, sequence)));
        jobs.push(Some(job));
    }
    let mut engine = Engine::new(spec);
    let mut events = Vec::new();
    while let Some(Reverse((at, sequence))) = agenda.pop() {
        engine.advance(at, &mut events);
        if let Some(job) = jobs.get_mut(sequence).and_then(Option::take) {
            engine.submit(at, job)?;
        }
    }
    while let Some(at) = engine.next_event() {
        engine.advance(at, &mut events);
    }
    Ok(events)
}
