//! Slots for LoRA adapters: at most so many different ones in a batch (`max_loras`).
//! An adapter stays in its slot when idle, until another one needs the room: least recently used
//! goes first. Loading one makes the step that needs it longer.

use super::AdapterId;

#[derive(Debug, Clone)]
struct Slot {
    adapter: AdapterId,
    users: u32,
    last_use: u64,
}

/// What taking a slot meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// The adapter was in a slot already.
    Present,
    /// It had to be loaded.
    Loaded,
}

/// The slots of one engine and who uses them.
#[derive(Debug, Clone)]
pub(super) struct AdapterSlots {
    slots: Vec<Slot>,
    total: usize,
    uses: u64,
}

impl AdapterSlots {
    pub(super) fn new(total: u32) -> Self {
        Self {
            slots: Vec::new(),
            total: total as usize,
            uses: 0,
        }
    }

    /// Whether a sequence with this adapter could join the batch now.
    pub(super) fn has_room(&self, adapter: AdapterId) -> bool {
        self.slots.len() < self.total
            || self
                .slots
                .iter()
                .any(|slot| slot.adapter == adapter || slot.users == 0)
    }

    /// Takes the adapter's slot, loading it when needed; ask `has_room` first.
    pub(super) fn take(&mut self, adapter: AdapterId) -> Taken {
        self.uses += 1;
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.adapter == adapter) {
            slot.users += 1;
            slot.last_use = self.uses;
            return Taken::Present;
        }
        if self.slots.len() >= self.total {
            let idle = self
                .slots
                .iter()
                .enumerate()
                .filter(|(_, slot)| slot.users == 0);
            if let Some((index, _)) = idle.min_by_key(|(_, slot)| slot.last_use) {
                self.slots.remove(index);
            }
        }
        self.slots.push(Slot {
            adapter,
            users: 1,
            last_use: self.uses,
        });
        Taken::Loaded
    }

    /// One user of the adapter left the batch.
    pub(super) fn release(&mut self, adapter: AdapterId) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.adapter == adapter) {
            slot.users = slot.users.saturating_sub(1);
        }
    }
}
