//! Approximate index of what the engines' prefix caches hold, from what was sent to them.
//!
//! A prompt is a chain of block hashes, each of which covers everything before its block. So what
//! an endpoint holds is closed under prefixes, and look-ups bisect the chain. Each endpoint evicts
//! like its engine does: least recently used leaves first, within its own capacity; the whole index
//! is bounded in the same way over all endpoints. The engines' reports correct it.
//!
//! Parts: `blocks.rs` (hash -> holders), `copies.rs` (one endpoint's tree and order of use),
//! `held.rs` (the answer).

mod blocks;
mod copies;
mod held;
mod slab;

use std::mem::size_of;

use rustc_hash::FxHashMap;

pub use self::held::Held;

use self::blocks::{Blocks, Holding};
use self::copies::{Copies, MOST, Recency};
use self::slab::{NONE, Slab};
use crate::endpoint::EndpointId;

/// Capacity of an endpoint, in blocks, until its engine has stated one: about half a million
/// tokens, what an 80 GB accelerator has left beside a model of 8 billion parameters.
pub const DEFAULT_CAPACITY_BLOCKS: u32 = 4_096;

/// Blocks of removed endpoints that one insert frees.
const SWEPT_PER_INSERT: usize = 32;

/// What each endpoint's cache is believed to hold.
///
/// The shell guards it with a lock of its own, apart from the pool's.
pub struct PrefixIndex {
    /// Most copies of blocks, summed over the endpoints.
    max_blocks: usize,
    blocks: Blocks,
    copies: Copies,
    holders: Slab<Holder>,
    /// Who has a slot now; one entry for each slot that ever was in use.
    seats: FxHashMap<u32, Seat>,
    /// Removed holders whose copies are not freed yet.
    graves: Vec<u32>,
    /// Copies of all `graves`.
    buried: usize,
    /// Counts inserts and corrections; orders uses.
    clock: u64,
}

/// The latest generation known of a slot, and its holder unless it was removed.
#[derive(Debug, Clone, Copy)]
struct Seat {
    generation: u32,
    holder: Option<u32>,
}

#[derive(Debug)]
struct Holder {
    endpoint: EndpointId,
    alive: bool,
    capacity: u32,
    blocks: u32,
    recency: Recency,
}

impl PrefixIndex {
    /// An empty index of at most `max_blocks` blocks, a block counting once for each endpoint that
    /// holds it. A block takes about 100 bytes, less where endpoints share it.
    #[must_use]
    pub fn new(max_blocks: usize) -> Self {
        Self {
            max_blocks: max_blocks.min(MOST),
            blocks: Blocks::new(),
            copies: Copies::new(),
            holders: Slab::new(),
            seats: FxHashMap::default(),
            graves: Vec::new(),
            buried: 0,
            clock: 0,
        }
    }

    /// Writes to `out` who holds how many blocks from the start of `chain`, the best
    /// `Held::CAPACITY` of them; among equals that do not all fit, the choice changes with every
    /// insert. `depth_of` tells of a single endpoint.
    pub fn lookup(&self, chain: &[u64], out: &mut Held) {
        out.clear();
        let mut rest = chain;
        let mut known_holders = 0;
        // Towards the start the holders only grow, so equally many are the same.
        while out.len() < Held::CAPACITY && known_holders < self.holders.len() {
            let more = |hash| {
                Some(self.blocks.holdings(hash)).filter(|holdings| holdings.len() > known_holders)
            };
            let Some((depth, holdings)) = deepest(rest, more) else {
                return;
            };
            self.note_holders(holdings, depth, out);
            known_holders = holdings.len();
            rest = rest.get(..depth - 1).unwrap_or_default();
        }
    }

    /// Blocks that `endpoint` holds from the start of `chain`.
    #[must_use]
    pub fn depth_of(&self, endpoint: EndpointId, chain: &[u64]) -> u32 {
        let tip = self
            .holder_of(endpoint)
            .and_then(|holder| self.tip(holder, chain));
        tip.map_or(0, |(depth, _)| blocks_from(depth))
    }

    /// Notes that `endpoint` was sent the prompt `chain`, so that it holds all of it. What does not
    /// fit is evicted, or is the end of the chain when nothing older is left.
    ///
    /// An endpoint that was removed, or whose slot has gone to a later generation, is ignored.
    pub fn insert(&mut self, endpoint: EndpointId, chain: &[u64]) {
        self.sweep(SWEPT_PER_INSERT);
        let Some(holder) = self.seat(endpoint) else {
            return;
        };
        self.clock += 1;
        let (depth, tip) = self.tip(holder, chain).unwrap_or((0, NONE));
        if tip != NONE {
            self.touch(tip);
        }
        let most = (self.holders[holder].capacity as usize).min(self.max_blocks);
        let wanted = chain.len().min(most).saturating_sub(depth);
        if wanted == 0 {
            return;
        }
        let room = self.make_room(holder, tip, wanted);
        let mut end = tip;
        for &hash in chain.iter().skip(depth).take(room) {
            // Held already: not a chain of hashes that cover what is before them. Stops unharmed.
            let Some(block) = self.blocks.place_for(hash, holder) else {
                break;
            };
            end = self.copies.add(block, holder, end);
            self.blocks.attach(block, Holding { holder, copy: end });
            self.holders[holder].blocks += 1;
        }
        if end == tip {
            return;
        }
        self.touch(end);
        if tip != NONE {
            self.copies.unlist(&mut self.holders[holder].recency, tip);
        }
    }

    /// Sets how many blocks `endpoint` can hold, and evicts at once what is above. 0 means that the
    /// engine keeps no prefixes.
    pub fn set_capacity(&mut self, endpoint: EndpointId, blocks: u32) {
        let Some(holder) = self.seat(endpoint) else {
            return;
        };
        self.holders[holder].capacity = blocks;
        while self.holders[holder].blocks > blocks && self.evict_oldest(holder) {}
    }

    /// Sets how many blocks the whole index may hold. One that holds more forgets all of them, so
    /// that their memory is free at once; capacities stay.
    pub fn set_max_blocks(&mut self, max_blocks: usize) {
        self.max_blocks = max_blocks.min(MOST);
        if self.copies.len() <= self.max_blocks {
            return;
        }
        self.blocks = Blocks::new();
        self.copies = Copies::new();
        for grave in std::mem::take(&mut self.graves) {
            self.holders[grave].recency = Recency::EMPTY;
            self.holders.remove(grave);
        }
        self.buried = 0;
        for seat in self.seats.values() {
            if let Some(holder) = seat.holder {
                self.holders[holder].blocks = 0;
                self.holders[holder].recency = Recency::EMPTY;
            }
        }
    }

    /// Forgets `endpoint` at once for all questions; its memory is freed by later inserts, or by
    /// `sweep`. Whatever is said of it afterwards is ignored.
    pub fn remove(&mut self, endpoint: EndpointId) {
        let EndpointId { slot, generation } = endpoint;
        let seat = self.seats.get(&slot).copied();
        if seat.is_some_and(|seat| seat.generation > generation) {
            return;
        }
        self.seats.insert(
            slot,
            Seat {
                generation,
                holder: None,
            },
        );
        if let Some(holder) = seat.and_then(|seat| seat.holder) {
            self.bury(holder);
        }
    }

    /// Notes that the engine found only the first `held_blocks` of `chain` in its cache: forgets
    /// the rest, and all prompts that go on from there. What it did hold counts as used now.
    pub fn correct(&mut self, endpoint: EndpointId, chain: &[u64], held_blocks: u32) {
        let Some(holder) = self.holder_of(endpoint) else {
            return;
        };
        self.clock += 1;
        let held = chain.len().min(held_blocks as usize);
        let (known, rest) = chain.split_at(held);
        if let Some(&missing) = rest.first()
            && let Some(copy) = self.blocks.copy_of(missing, holder)
        {
            self.forget_from(copy);
        }
        if let Some((_, tip)) = self.tip(holder, known) {
            self.touch(tip);
        }
    }

    /// Frees up to `at_most` blocks of removed endpoints; returns how many are left to free.
    pub fn sweep(&mut self, at_most: usize) -> usize {
        for _ in 0..at_most {
            let Some(&holder) = self.graves.last() else {
                break;
            };
            if !self.evict_oldest(holder) {
                self.graves.pop();
                self.holders.remove(holder);
            }
        }
        self.buried
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.blocks.bytes()
            + self.copies.bytes()
            + self.holders.bytes()
            + self.seats.capacity() * (size_of::<(u32, Seat)>() + 1)
            + self.graves.capacity() * size_of::<u32>()
    }

    /// Blocks held, summed over the endpoints.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.copies.len() - self.buried
    }

    /// Blocks that `endpoint` holds.
    #[must_use]
    pub fn blocks_of(&self, endpoint: EndpointId) -> u32 {
        self.holder_of(endpoint)
            .map_or(0, |holder| self.holders[holder].blocks)
    }

    /// The endpoint's place, if anything was said of it and it is not removed.
    fn holder_of(&self, endpoint: EndpointId) -> Option<u32> {
        let seat = self.seats.get(&endpoint.slot)?;
        seat.holder
            .filter(|_| seat.generation == endpoint.generation)
    }

    /// The endpoint's place, made when it is new; its slot's earlier holder goes. `None` when the
    /// endpoint itself is gone.
    fn seat(&mut self, endpoint: EndpointId) -> Option<u32> {
        let EndpointId { slot, generation } = endpoint;
        if let Some(&seat) = self.seats.get(&slot) {
            if seat.generation >= generation {
                return seat.holder.filter(|_| seat.generation == generation);
            }
            if let Some(earlier) = seat.holder {
                self.bury(earlier);
            }
        }
        let holder = self.holders.add(Holder {
            endpoint,
            alive: true,
            capacity: DEFAULT_CAPACITY_BLOCKS,
            blocks: 0,
            recency: Recency::EMPTY,
        });
        self.seats.insert(
            slot,
            Seat {
                generation,
                holder: Some(holder),
            },
        );
        Some(holder)
    }

    fn bury(&mut self, holder: u32) {
        let record = &mut self.holders[holder];
        record.alive = false;
        self.buried += record.blocks as usize;
        self.graves.push(holder);
    }

    /// How much of `chain` the holder has, and its copy of the last block of that.
    fn tip(&self, holder: u32, chain: &[u64]) -> Option<(usize, u32)> {
        deepest(chain, |hash| self.blocks.copy_of(hash, holder))
    }

    fn touch(&mut self, copy: u32) {
        let holder = self.copies.get(copy).holder;
        self.copies
            .touch(&mut self.holders[holder].recency, copy, self.clock);
    }

    fn note_holders(&self, holdings: &[Holding], depth: usize, out: &mut Held) {
        let turn = self.clock as usize % holdings.len().max(1);
        let (last, first) = holdings.split_at(turn);
        for holding in first.iter().chain(last) {
            let Holder {
                endpoint, alive, ..
            } = self.holders[holding.holder];
            if alive && out.blocks_of(endpoint) == 0 {
                out.push(endpoint, blocks_from(depth));
            }
            if out.len() == Held::CAPACITY {
                return;
            }
        }
    }

    /// Evicts until `wanted` blocks more fit, and returns how many do fit. `tip`, which is the
    /// newest of the holder's list, stays, and with it all before it.
    fn make_room(&mut self, holder: u32, tip: u32, wanted: usize) -> usize {
        let capacity = self.holders[holder].capacity as usize;
        while self.holders[holder].blocks as usize + wanted > capacity
            && self.holders[holder].recency.oldest != tip
            && self.evict_oldest(holder)
        {}
        while self.copies.len() + wanted > self.max_blocks {
            let excess = self.copies.len() + wanted - self.max_blocks;
            if self.graves.is_empty() {
                if !self.evict_stalest(tip, excess) {
                    break;
                }
            } else {
                self.sweep(excess);
            }
        }
        let own = capacity.saturating_sub(self.holders[holder].blocks as usize);
        wanted
            .min(own)
            .min(self.max_blocks.saturating_sub(self.copies.len()))
    }

    /// Evicts from the endpoint with the least recently used leaf while that is so, at most
    /// `at_most` times. `false` when nothing but `tip` is left.
    fn evict_stalest(&mut self, tip: u32, at_most: usize) -> bool {
        let mut stalest = NONE;
        let (mut oldest, mut second) = (u64::MAX, u64::MAX);
        for (holder, record) in self.holders.records() {
            // Freed records have an empty list; those of removed endpoints are swept before.
            if record.recency.oldest == NONE || record.recency.oldest == tip {
                continue;
            }
            if record.recency.oldest_used < oldest {
                second = oldest;
                oldest = record.recency.oldest_used;
                stalest = holder;
            } else {
                second = second.min(record.recency.oldest_used);
            }
        }
        if stalest == NONE {
            return false;
        }
        for _ in 0..at_most {
            self.evict_oldest(stalest);
            let Recency {
                oldest,
                oldest_used,
                ..
            } = self.holders[stalest].recency;
            if oldest == NONE || oldest == tip || oldest_used > second {
                break;
            }
        }
        true
    }

    /// Evicts the holder's least recently used leaf, or takes a copy that is no leaf out of the
    /// list. `false` when it holds nothing.
    fn evict_oldest(&mut self, holder: u32) -> bool {
        let Recency {
            oldest,
            oldest_used,
            ..
        } = self.holders[holder].recency;
        if oldest == NONE {
            return false;
        }
        if !self.copies.is_leaf(oldest) {
            self.copies
                .unlist(&mut self.holders[holder].recency, oldest);
            return true;
        }
        let parent = self.forget(oldest);
        if parent != NONE && self.copies.is_leaf(parent) && !self.copies.is_listed(parent) {
            let recency = &mut self.holders[holder].recency;
            self.copies.list_oldest(recency, parent, oldest_used);
        }
        true
    }

    /// Forgets a copy and all after it.
    fn forget_from(&mut self, root: u32) {
        let parent = self.copies.get(root).parent;
        let mut leaf = self.copies.leaf_below(root);
        while leaf != root {
            let above = self.forget(leaf);
            leaf = self.copies.leaf_below(above);
        }
        self.forget(root);
        if parent != NONE && self.copies.is_leaf(parent) {
            self.touch(parent);
        }
    }

    /// Forgets a leaf; returns its parent, which may have become a leaf that the caller lists.
    fn forget(&mut self, leaf: u32) -> u32 {
        let &copies::BlockCopy {
            block,
            holder,
            parent,
            ..
        } = self.copies.get(leaf);
        let record = &mut self.holders[holder];
        self.copies.remove(&mut record.recency, leaf);
        record.blocks -= 1;
        if !record.alive {
            self.buried -= 1;
        }
        self.blocks.detach(block, holder);
        parent
    }
}

impl std::fmt::Debug for PrefixIndex {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PrefixIndex")
            .field("max_blocks", &self.max_blocks)
            .field("blocks", &self.blocks())
            .field("distinct_blocks", &self.blocks.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// The deepest block of `chain` that `probe` knows: how many blocks there are up to it, and what
/// `probe` answered. Whoever knows a block knows all before it.
fn deepest<T>(chain: &[u64], probe: impl Fn(u64) -> Option<T>) -> Option<(usize, T)> {
    let (&first, &last) = (chain.first()?, chain.last()?);
    // A prompt seen before as a whole is common enough to be asked about first.
    if let Some(answer) = probe(last) {
        return Some((chain.len(), answer));
    }
    if chain.len() == 1 {
        return None;
    }
    let mut known = (1, probe(first)?);
    let mut unknown = chain.len();
    while unknown - known.0 > 1 {
        let depth = usize::midpoint(known.0, unknown);
        match chain.get(depth - 1).and_then(|&hash| probe(hash)) {
            Some(answer) => known = (depth, answer),
            None => unknown = depth,
        }
    }
    Some(known)
}

fn blocks_from(depth: usize) -> u32 {
    u32::try_from(depth).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
