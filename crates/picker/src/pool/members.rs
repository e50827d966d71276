//! Members come and go; who stays keeps its identity, its load and what was learnt of it.
//!
//! A removed member gets no more requests, but its slot stays until its reservations have ended, so
//! that the books stay exact and an [`EndpointId`] never means two servers.

use super::Pool;
use crate::ask::Wake;
use crate::endpoint::{EndpointId, Load, Member, Presence};
use crate::micros::Micros;
use crate::spec::MemberSpec;
use rustc_hash::FxHashSet;

/// What changed with a new list of members.
#[derive(Debug, Default)]
pub struct Synced {
    /// New endpoints, each with the key of its member.
    pub added: Vec<(EndpointId, String)>,
    /// Endpoints that get no more requests.
    pub removed: Vec<EndpointId>,
    /// Waits that ended.
    pub wakes: Vec<Wake>,
}

impl Pool {
    /// Makes `members` the list of members. Of members with the same key the first counts.
    pub fn sync(&mut self, now: Micros, members: &[MemberSpec]) -> Synced {
        let keys: FxHashSet<&str> = members.iter().map(|member| member.key.as_str()).collect();
        self.take_over(now, members, &keys)
    }

    /// The same where none stays what it was: each is a new endpoint, also under a key that is
    /// known. Who waits goes on waiting, as long as there are members.
    pub fn replace(&mut self, now: Micros, members: &[MemberSpec]) -> Synced {
        self.take_over(now, members, &FxHashSet::default())
    }

    fn take_over(&mut self, now: Micros, members: &[MemberSpec], keys: &FxHashSet<&str>) -> Synced {
        self.tell(now);
        let mut synced = Synced::default();
        let mut gone: Vec<u32> = Vec::new();
        self.by_key.retain(|key, slot| {
            let stays = keys.contains(key.as_str());
            if !stays {
                gone.push(*slot);
            }
            stays
        });
        // The order of a hash table is no order: slots are freed in their own.
        gone.sort_unstable();
        for slot in gone {
            synced.removed.extend(self.bury(slot));
        }
        for member in members {
            match self.by_key.get(&member.key) {
                Some(slot) => self.edit(*slot, member),
                None => synced.added.push((self.admit(member), member.key.clone())),
            }
        }
        self.member_count = self.by_key.len() as u32;
        self.show_members();
        synced.wakes = self.wake();
        synced
    }

    /// Shows the list of members to those who read it without the lock.
    fn show_members(&mut self) {
        let names = || self.members.iter().map(|member| &member.name);
        if !names().eq(self.roster.iter()) {
            self.roster = names().cloned().collect();
        }
        let slots = self.loads.len() as u32;
        self.overview.resize(self.member_count, slots);
        self.show_scale();
        for slot in 0..slots {
            self.show(slot);
        }
    }

    /// What may change of a member that stays.
    fn edit(&mut self, slot: u32, spec: &MemberSpec) {
        if let Some(known) = self.members.get_mut(slot as usize)
            && *known.name != *spec.name
        {
            known.name = spec.name.as_str().into();
        }
        if let Some(load) = self.loads.get_mut(slot as usize) {
            load.subsets = spec.subsets;
        }
    }

    fn admit(&mut self, spec: &MemberSpec) -> EndpointId {
        let slot = self.free_slots.pop().unwrap_or_else(|| {
            self.loads.push(Load::default());
            self.members.push(Member::default());
            (self.loads.len() - 1) as u32
        });
        let mut generation = 0;
        if let Some(load) = self.loads.get_mut(slot as usize) {
            generation = load.generation;
            *load = Load {
                presence: Presence::Member,
                generation,
                subsets: spec.subsets,
                ..Load::default()
            };
        }
        if let Some(member) = self.members.get_mut(slot as usize) {
            *member = Member {
                name: spec.name.as_str().into(),
                ..Member::default()
            };
        }
        self.by_key.insert(spec.key.clone(), slot);
        EndpointId { slot, generation }
    }

    /// Turns a member into a tombstone, and frees its slot if nothing is booked on it.
    fn bury(&mut self, slot: u32) -> Option<EndpointId> {
        self.edit_names(|names| names.clear_slot(slot));
        let load = self.loads.get_mut(slot as usize)?;
        load.presence = Presence::Tombstone;
        let id = EndpointId {
            slot,
            generation: load.generation,
        };
        self.free_if_empty(slot);
        Some(id)
    }

    /// Frees the slot of a tombstone whose reservations have ended.
    pub(super) fn free_if_empty(&mut self, slot: u32) {
        let Some(load) = self.loads.get_mut(slot as usize) else {
            return;
        };
        if load.presence != Presence::Tombstone || load.in_flight > 0 {
            return;
        }
        let generation = load.generation.wrapping_add(1);
        *load = Load {
            generation,
            ..Load::default()
        };
        if let Some(member) = self.members.get_mut(slot as usize) {
            *member = Member::default();
        }
        self.free_slots.push(slot);
        self.show(slot);
    }
}
