//! The KV block pool with its prefix cache.
//!
//! A block is held (references > 0) or free. Free blocks stand in a list, least recently used
//! first, and keep their content until their slot is reused: a free block with a hash is a prefix
//! cache entry. Invariant: held + free == total. As in vLLM's `block_pool.py`, without its
//! duplicate entries: content that is cached already is not entered a second time.

use rustc_hash::FxHashMap;

const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Block {
    references: u32,
    hash: Option<u64>,
    before: u32,
    after: u32,
}

/// All blocks of one engine. Block ids are indices below the total and come only from here.
#[derive(Debug, Clone)]
pub(super) struct BlockPool {
    blocks: Vec<Block>,
    cached: FxHashMap<u64, u32>,
    oldest: u32,
    newest: u32,
    free: u32,
}

impl BlockPool {
    pub(super) fn new(total: u32) -> Self {
        let empty = Block {
            references: 0,
            hash: None,
            before: NONE,
            after: NONE,
        };
        let mut pool = Self {
            blocks: vec![empty; total as usize],
            cached: FxHashMap::default(),
            oldest: NONE,
            newest: NONE,
            free: 0,
        };
        for id in 0..total {
            pool.append(id);
        }
        pool
    }

    pub(super) fn total(&self) -> u32 {
        u32::try_from(self.blocks.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn free(&self) -> u32 {
        self.free
    }

    /// Blocks of the longest cached prefix of `hashes`, at most `limit` of them.
    pub(super) fn lookup(&self, hashes: &[u64], limit: usize, found: &mut Vec<u32>) {
        found.clear();
        let hits = hashes
            .iter()
            .take(limit)
            .map_while(|hash| self.cached.get(hash));
        found.extend(hits.copied());
    }

    /// How many of `ids` are free: taking them shrinks the free list by as many.
    pub(super) fn count_free(&self, ids: &[u32]) -> u32 {
        let free = ids
            .iter()
            .filter(|id| self.blocks[**id as usize].references == 0)
            .count();
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    /// Takes one more reference on a block that `lookup` found.
    pub(super) fn touch(&mut self, id: u32) {
        if self.blocks[id as usize].references == 0 {
            self.unlink(id);
        }
        self.blocks[id as usize].references += 1;
    }

    /// The least recently used free block, emptied, or `None` when all are held.
    pub(super) fn allocate(&mut self) -> Option<u32> {
        if self.oldest == NONE {
            return None;
        }
        let id = self.oldest;
        self.unlink(id);
        let block = &mut self.blocks[id as usize];
        block.references = 1;
        if let Some(hash) = block.hash.take() {
            self.cached.remove(&hash);
        }
        Some(id)
    }

    /// Gives one reference back. The last one frees the block as the most recently used.
    pub(super) fn release(&mut self, id: u32) {
        let block = &mut self.blocks[id as usize];
        block.references -= 1;
        if block.references == 0 {
            self.append(id);
        }
    }

    /// Enters a full block in the prefix cache.
    pub(super) fn enter(&mut self, id: u32, hash: u64) {
        if let std::collections::hash_map::Entry::Vacant(slot) = self.cached.entry(hash) {
            slot.insert(id);
            self.blocks[id as usize].hash = Some(hash);
        }
    }

    fn append(&mut self, id: u32) {
        let last = self.newest;
        let block = &mut self.blocks[id as usize];
        block.before = last;
        block.after = NONE;
        match self.blocks.get_mut(last as usize) {
            Some(previous) => previous.after = id,
            None => self.oldest = id,
        }
        self.newest = id;
        self.free += 1;
    }

    fn unlink(&mut self, id: u32) {
        let Block { before, after, .. } = self.blocks[id as usize];
        match self.blocks.get_mut(before as usize) {
            Some(previous) => previous.after = after,
            None => self.oldest = after,
        }
        match self.blocks.get_mut(after as usize) {
            Some(next) => next.before = before,
            None => self.newest = before,
        }
        self.free -= 1;
    }
}
