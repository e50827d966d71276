//! The known blocks by hash, each with the endpoints that hold it.
//!
//! Invariant: a block is here exactly while at least one endpoint holds it, and each holder stands
//! once in its list. What one endpoint's copy of a block is linked to is in `copies.rs`.

use std::mem::size_of;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::slab::{NONE, Slab};

/// A holder of a block and its copy of the block, as places in their slabs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) holder: u32,
    pub(super) copy: u32,
}

const NOBODY: Holding = Holding {
    holder: NONE,
    copy: NONE,
};

/// Holders of one block: most blocks have one or two, a system prompt's may have a thousand.
/// Boundary: more than two are in the `Vec`; two or fewer are inline, first place first.
#[derive(Debug)]
enum Holders {
    Few([Holding; 2]),
    Many(Vec<Holding>),
}

#[derive(Debug)]
struct Block {
    hash: u64,
    holders: Holders,
}

/// All known blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    slab: Slab<Block>,
    by_hash: HashTable<u32>,
    /// Memory of all `Holders::Many`, in bytes.
    overflow_bytes: usize,
}

impl Blocks {
    pub(super) const fn new() -> Self {
        Self {
            slab: Slab::new(),
            by_hash: HashTable::new(),
            overflow_bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.slab.bytes() + self.by_hash.allocation_size() + self.overflow_bytes
    }

    /// Endpoints that hold the block; empty when nobody does.
    pub(super) fn holdings(&self, hash: u64) -> &[Holding] {
        match self
            .by_hash
            .find(spread(hash), |&place| self.slab[place].hash == hash)
        {
            Some(&place) => self.slab[place].holders.as_slice(),
            None => &[],
        }
    }

    /// Places and holdings of all blocks.
    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &[Holding])> {
        self.by_hash
            .iter()
            .map(|&place| (place, self.slab[place].holders.as_slice()))
    }

    /// The copy that `holder` has of the block.
    pub(super) fn copy_of(&self, hash: u64, holder: u32) -> Option<u32> {
        let holdings = self.holdings(hash);
        holdings
            .iter()
            .find(|holding| holding.holder == holder)
            .map(|holding| holding.copy)
    }

    /// Place of the block, made when it is new, unless `holder` holds it already. A new block has
    /// no holder until `attach`.
    pub(super) fn place_for(&mut self, hash: u64, holder: u32) -> Option<u32> {
        let Self { slab, by_hash, .. } = self;
        let same = |&place: &u32| slab[place].hash == hash;
        match by_hash.entry(spread(hash), same, |&place| spread(slab[place].hash)) {
            Entry::Occupied(entry) => {
                let holdings = slab[*entry.get()].holders.as_slice();
                let known = holdings.iter().any(|holding| holding.holder == holder);
                (!known).then_some(*entry.get())
            }
            Entry::Vacant(entry) => {
                let holders = Holders::Few([NOBODY; 2]);
                Some(*entry.insert(slab.add(Block { hash, holders })).get())
            }
        }
    }

    pub(super) fn attach(&mut self, place: u32, holding: Holding) {
        let holders = &mut self.slab[place].holders;
        let before = holders.heap_bytes();
        holders.add(holding);
        self.overflow_bytes += holders.heap_bytes() - before;
    }

    /// Takes one holder off the block, and the block away with its last.
    pub(super) fn detach(&mut self, place: u32, holder: u32) {
        let Block { hash, holders } = &mut self.slab[place];
        let before = holders.heap_bytes();
        holders.remove(holder);
        self.overflow_bytes = (self.overflow_bytes + holders.heap_bytes()).saturating_sub(before);
        if !holders.as_slice().is_empty() {
            return;
        }
        if let Ok(entry) = self
            .by_hash
            .find_entry(spread(*hash), |&other| other == place)
        {
            entry.remove();
        }
        self.slab.remove(place);
    }
}

impl Holders {
    fn as_slice(&self) -> &[Holding] {
        match self {
            Self::Few([first, _]) if *first == NOBODY => &[],
            Self::Few(few) if few[1] == NOBODY => &few[..1],
            Self::Few(few) => few,
            Self::Many(many) => many,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Few(_) => 0,
            Self::Many(many) => many.capacity() * size_of::<Holding>(),
        }
    }

    fn add(&mut self, holding: Holding) {
        match self {
            Self::Few([first, _]) if *first == NOBODY => *first = holding,
            Self::Few([_, second]) if *second == NOBODY => *second = holding,
            Self::Few([first, second]) => *self = Self::Many(vec![*first, *second, holding]),
            Self::Many(many) => many.push(holding),
        }
    }

    fn remove(&mut self, holder: u32) {
        match self {
            Self::Few([first, second]) => {
                if first.holder == holder {
                    *first = *second;
                    *second = NOBODY;
                } else if second.holder == holder {
                    *second = NOBODY;
                }
            }
            Self::Many(many) => {
                if let Some(at) = many.iter().position(|holding| holding.holder == holder) {
                    many.swap_remove(at);
                }
                if let &[first, second] = many.as_slice() {
                    *self = Self::Few([first, second]);
                } else if many.len() < many.capacity() / 4 {
                    many.shrink_to(many.len() * 2);
                }
            }
        }
    }
}

/// Block hashes are good hashes, but nothing here should depend on their high bits, which the table
/// tells its entries apart by.
const fn spread(hash: u64) -> u64 {
    hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (hash >> 32)
}
