//! From a long list of members to at most [`MOST_CANDIDATES`]: who may win.
//!
//! Those that hold most of the prompt, those that have the adapter, the least loaded, and a few at
//! random, so that nobody is overlooked for ever. One pass and one selection, no sorting.

use crate::names::Slots;
use rand_core::Rng;

/// Endpoints that are compared at most.
pub(crate) const MOST_CANDIDATES: usize = 64;
/// Of those, by the blocks that they hold.
const HOLDERS: usize = 16;
/// Of those, because the adapter is loaded there.
const WITH_ADAPTER: usize = 12;
/// Of those, at random.
const RANDOM: usize = 8;

/// What is known of one endpoint before the choice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rough {
    pub(crate) slot: u32,
    /// Seconds of work, roughly.
    pub(crate) load_seconds: f32,
    pub(crate) held_blocks: u32,
    pub(crate) has_adapter: bool,
}

/// The endpoints that are kept; memory that is used again.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// In ascending order once all are in.
    pub(crate) slots: Vec<u32>,
    marks: Slots,
}

impl Kept {
    /// Keeps this one alone.
    pub(crate) fn only(&mut self, slot: u32) {
        self.clear();
        self.slots.push(slot);
    }

    fn clear(&mut self) {
        self.slots.clear();
        self.marks.clear();
    }

    fn push(&mut self, slot: u32) {
        if !self.marks.contains(slot) {
            self.marks.set(slot, true);
            self.slots.push(slot);
        }
    }
}

/// Narrows `all` to the endpoints in `kept`. `turn` says where to begin among equals.
pub(crate) fn narrow(all: &mut [Rough], turn: u32, rng: &mut impl Rng, kept: &mut Kept) {
    kept.clear();
    if all.len() <= MOST_CANDIDATES {
        kept.slots.extend(all.iter().map(|rough| rough.slot));
        return;
    }
    let count = all.len();
    all.rotate_left(turn as usize % count);
    take(all, HOLDERS, kept, |rough| {
        (rough.held_blocks > 0).then_some(-(rough.held_blocks as f32))
    });
    take(all, WITH_ADAPTER, kept, |rough| {
        rough.has_adapter.then_some(rough.load_seconds)
    });
    for _ in 0..RANDOM {
        let index = (u64::from(rng.next_u32()) * count as u64) >> 32;
        if let Some(rough) = all.get(index as usize) {
            kept.push(rough.slot);
        }
    }
    let rest = MOST_CANDIDATES - kept.slots.len().min(MOST_CANDIDATES);
    all.select_nth_unstable_by(rest.min(count - 1), |a, b| {
        a.load_seconds.total_cmp(&b.load_seconds)
    });
    for rough in all.iter().take(rest) {
        kept.push(rough.slot);
    }
    // Candidates stand in the order of their slots, as in a short list.
    kept.slots.sort_unstable();
}

/// Keeps the `most` endpoints with the least key; those without a key are passed over.
fn take(all: &[Rough], most: usize, kept: &mut Kept, key: impl Fn(&Rough) -> Option<f32>) {
    let mut best = [(f32::INFINITY, u32::MAX); HOLDERS];
    let most = most.min(HOLDERS);
    let mut filled = 0;
    for rough in all {
        let Some(key) = key(rough) else { continue };
        if filled < most {
            if let Some(place) = best.get_mut(filled) {
                *place = (key, rough.slot);
                filled += 1;
            }
            continue;
        }
        let worst = best
            .iter_mut()
            .take(most)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some(worst) = worst
            && key < worst.0
        {
            *worst = (key, rough.slot);
        }
    }
    for (_, slot) in best.iter().take(filled) {
        kept.push(*slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;
    use rand_pcg::Pcg32;

    fn rough(slot: u32) -> Rough {
        let load_seconds = ((slot * 7919) % 1000) as f32;
        Rough {
            slot,
            load_seconds,
            held_blocks: 0,
            has_adapter: false,
        }
    }

    #[test]
    fn keeps_holders_adapters_and_the_least_loaded() {
        let mut all: Vec<Rough> = (0..1000).map(rough).collect();
        for slot in [3, 500, 999] {
            all[slot].held_blocks = 7;
            all[slot].load_seconds = 1e6;
        }
        all[77].has_adapter = true;
        all[77].load_seconds = 1e6;
        let idle = all
            .iter()
            .find(|rough| rough.load_seconds == 0.0)
            .unwrap()
            .slot;
        let mut kept = Kept::default();
        narrow(&mut all, 123, &mut Pcg32::seed_from_u64(1), &mut kept);
        let kept = kept.slots;
        assert!(
            kept.len() <= MOST_CANDIDATES && kept.len() > 50,
            "{}",
            kept.len()
        );
        for slot in [3, 500, 999, 77, idle] {
            assert!(kept.contains(&slot), "{slot} in {kept:?}");
        }
        assert!(kept.is_sorted());
    }

    #[test]
    fn keeps_a_short_list_whole() {
        let mut all: Vec<Rough> = (0..64).map(rough).collect();
        let mut kept = Kept::default();
        narrow(&mut all, 5, &mut Pcg32::seed_from_u64(1), &mut kept);
        let kept = kept.slots;
        assert_eq!(kept, (0..64).collect::<Vec<_>>());
    }
}
