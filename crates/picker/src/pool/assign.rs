//! A request whose endpoint somebody else chose, such as an external endpoint picker.
//!
//! It is booked as any other, so that the books stay exact and the built-in picker knows of it; it
//! neither waits for a turn nor is refused, however busy the endpoint is.

use super::Pool;
use super::decide::Field;
use crate::ask::Ask;
use crate::decision::Decision;
use crate::endpoint::{EndpointId, Load};
use crate::micros::Micros;
use crate::pick;
use crate::subset::Subsets;

impl Pool {
    /// Books the request on `endpoint`; `None` when that is no member.
    pub fn assign(&mut self, now: Micros, ask: &Ask<'_>, endpoint: EndpointId) -> Option<Decision> {
        self.tell(now);
        self.member_slot(endpoint)?;
        let mut names = self.intern_targets(ask);
        if ask.targets.len() <= 1 {
            names[0] = self.find_name(ask.first_name());
        }
        let count = ask.targets.len().clamp(1, names.len());
        let mut wanted = self.wanted(ask, names.get(..count).unwrap_or_default());
        wanted.anyone = true;
        let mut inputs = self.spare.take().unwrap_or_default();
        let mut seen = self.look_at(&[endpoint], &wanted, &mut inputs);
        if inputs.candidates.is_empty() {
            // It announces none of the names: that is for who chose it to know.
            wanted = self.wanted(ask, names.get(..1).unwrap_or_default());
            (wanted.anyone, wanted.adapters) = (true, false);
            seen = self.look_at(&[endpoint], &wanted, &mut inputs);
        }
        let field = Field {
            considered: self.member_count,
            panic: false,
            trial: false,
            doubted: seen.doubted,
        };
        self.fill(&mut inputs, ask, field);
        inputs.assigned = true;
        pick::evaluate(&inputs, &mut self.costs);
        inputs.winner = pick::choose(&inputs, &self.costs).unwrap_or(0);
        self.turn = self.turn.wrapping_add(1);
        self.reserve(inputs, &wanted)
    }

    /// The members that are not held for broken, or that may be tried out again: those in the first
    /// of `subsets` that has any, else all.
    pub fn usable(&self, now: Micros, subsets: Subsets) -> Vec<EndpointId> {
        let usable = || {
            (0..)
                .zip(&self.loads)
                .filter(|(_, load)| load.is_usable(now))
        };
        let mut found = Subsets::NONE;
        if !subsets.is_empty() {
            usable().for_each(|(_, load)| found.add(load.subsets));
        }
        let within = subsets.first_among(found);
        let kept = usable().filter(|(_, load)| load.subsets.is_within(within));
        let id = |(slot, load): (u32, &Load)| EndpointId {
            slot,
            generation: load.generation,
        };
        kept.map(id).collect()
    }
}
