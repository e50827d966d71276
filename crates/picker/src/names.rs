//! Names of models and adapters that servers announced or reported, and who has them.
//!
//! A name becomes a small number, so that a choice compares no text. Only names that the
//! configuration or a server states are kept, never what a client sent, and at most
//! [`MOST_NAMES`]: beyond them a name is one that nothing is known of.

use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Bound of the table.
const MOST_NAMES: usize = 4096;

/// A name's place in the table.
pub(crate) type NameId = u32;

/// A set of slots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    words: Vec<u64>,
    count: u32,
}

impl Slots {
    pub(crate) fn set(&mut self, slot: u32, present: bool) {
        let (word, bit) = (slot as usize / 64, 1_u64 << (slot % 64));
        if present && word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let Some(word) = self.words.get_mut(word) else {
            return;
        };
        match (present, *word & bit != 0) {
            (true, false) => {
                *word |= bit;
                self.count += 1;
            }
            (false, true) => {
                *word &= !bit;
                self.count -= 1;
            }
            _ => {}
        }
    }

    pub(crate) fn contains(&self, slot: u32) -> bool {
        let word = self.words.get(slot as usize / 64).copied().unwrap_or(0);
        word & (1 << (slot % 64)) != 0
    }

    pub(crate) fn clear(&mut self) {
        self.words.clear();
        self.count = 0;
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// In ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let words = self.words.iter().enumerate();
        words.flat_map(|(at, word)| {
            let mut rest = *word;
            core::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(at as u32 * 64 + bit)
            })
        })
    }

    /// Adds all of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.add_words(other.words.iter().copied());
    }

    /// Adds all below `end` that are not in `other`.
    pub(crate) fn add_missing(&mut self, other: &Self, end: u32) {
        let words = other.words.iter().copied().chain(core::iter::repeat(0));
        let count = end.div_ceil(64) as usize;
        self.add_words(words.map(|word| !word).take(count));
    }

    fn add_words(&mut self, words: impl Iterator<Item = u64>) {
        for (at, more) in words.enumerate() {
            if at >= self.words.len() {
                self.words.push(0);
            }
            if let Some(word) = self.words.get_mut(at) {
                self.count += (more & !*word).count_ones();
                *word |= more;
            }
        }
    }
}

/// What is known of one name.
#[derive(Debug, Default)]
pub(crate) struct Name {
    pub(crate) text: Arc<str>,
    /// Servers that announced it.
    pub(crate) announced: Slots,
    /// Servers that are believed to have the adapter loaded.
    pub(crate) loaded: Slots,
    /// Some server said that it is a LoRA adapter.
    pub(crate) is_adapter: bool,
    /// Requests in flight with it, over all endpoints.
    pub(crate) in_flight: u32,
}

/// All names of a pool.
#[derive(Debug, Default)]
pub(crate) struct Names {
    ids: FxHashMap<Arc<str>, NameId>,
    entries: Vec<Name>,
    /// Servers that announced any names.
    pub(crate) said: Slots,
}

impl Names {
    pub(crate) fn find(&self, text: &str) -> Option<NameId> {
        if self.entries.is_empty() {
            None
        } else {
            self.ids.get(text).copied()
        }
    }

    /// The name's number, given now if it has none; `None` when the table is full.
    pub(crate) fn intern(&mut self, text: &str) -> Option<NameId> {
        if let Some(id) = self.ids.get(text) {
            return Some(*id);
        }
        if self.entries.len() >= MOST_NAMES {
            return None;
        }
        let id = self.entries.len() as NameId;
        let text: Arc<str> = text.into();
        self.entries.push(Name {
            text: text.clone(),
            ..Name::default()
        });
        self.ids.insert(text, id);
        Some(id)
    }

    pub(crate) fn get(&self, id: NameId) -> Option<&Name> {
        self.entries.get(id as usize)
    }

    pub(crate) fn get_mut(&mut self, id: NameId) -> Option<&mut Name> {
        self.entries.get_mut(id as usize)
    }

    /// Whether the endpoint can serve the name: it cannot when its server listed what it serves
    /// without this name, and another's list has it.
    pub(crate) fn serves(&self, slot: u32, name: Option<NameId>) -> bool {
        let Some(name) = name.and_then(|id| self.get(id)) else {
            return true;
        };
        name.announced.contains(slot) || name.announced.is_empty() || !self.said.contains(slot)
    }

    /// Forgets all that was known of a slot.
    pub(crate) fn clear_slot(&mut self, slot: u32) {
        self.said.set(slot, false);
        for name in &mut self.entries {
            name.announced.set(slot, false);
            name.loaded.set(slot, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_a_set() {
        let mut slots = Slots::default();
        for slot in [0, 63, 64, 999] {
            slots.set(slot, true);
        }
        slots.set(64, false);
        slots.set(5000, false);
        let present: Vec<u32> = (0..2000).filter(|slot| slots.contains(*slot)).collect();
        assert_eq!(present, [0, 63, 999]);
        assert!(!slots.is_empty());
    }

    #[test]
    fn only_a_list_without_the_name_rules_a_server_out() {
        let mut names = Names::default();
        let name = names.intern("lora-a");
        assert!(names.serves(0, name) && names.serves(1, None));
        names.said.set(0, true);
        names.said.set(1, true);
        assert!(names.serves(0, name), "nobody announced it");
        names.get_mut(name.unwrap()).unwrap().announced.set(1, true);
        assert!(!names.serves(0, name) && names.serves(1, name));
        assert!(names.serves(2, name), "it has not said anything");
        names.clear_slot(1);
        assert!(names.serves(0, name));
    }

    #[test]
    fn the_table_is_bounded() {
        let mut names = Names::default();
        for i in 0..MOST_NAMES {
            assert!(names.intern(&format!("m{i}")).is_some());
        }
        assert_eq!(names.intern("one more"), None);
        assert_eq!(names.intern("m7"), Some(7));
    }
}
