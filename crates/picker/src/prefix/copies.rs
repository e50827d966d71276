//! One endpoint's copies of blocks: a tree along the prompts, and a list by last use.
//!
//! An engine evicts the leaf that was used least recently (vLLM `v1/core/block_pool.py`: freed
//! tail first), and using a block uses all before it. So only the end of a used prompt is moved in
//! the list, and blocks in the middle of prompts are not in it.
//!
//! Invariants, for each endpoint: every copy without children is listed; a listed copy with
//! children was the end of a prompt, and drops out when it becomes the oldest, because all its
//! descendants' leaves are newer then; the list is ordered by `used`; a copy's parent is there.

use super::slab::{NONE, Slab};

/// Stands in `older` of a copy that is not in its endpoint's list.
const UNLISTED: u32 = NONE - 1;

/// Most records that links can name.
pub(super) const MOST: usize = UNLISTED as usize;

#[derive(Debug)]
pub(super) struct BlockCopy {
    /// Place of the block and of the endpoint that holds it.
    pub(super) block: u32,
    pub(super) holder: u32,
    pub(super) parent: u32,
    first_child: u32,
    next_sibling: u32,
    previous_sibling: u32,
    older: u32,
    newer: u32,
    /// Index clock at last use; kept for listed copies only.
    pub(super) used: u64,
}

/// Ends of one endpoint's list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recency {
    pub(super) oldest: u32,
    newest: u32,
    /// `used` of the oldest.
    pub(super) oldest_used: u64,
}

impl Recency {
    pub(super) const EMPTY: Self = Self {
        oldest: NONE,
        newest: NONE,
        oldest_used: 0,
    };
}

/// Copies of all endpoints.
#[derive(Debug)]
pub(super) struct Copies {
    slab: Slab<BlockCopy>,
}

impl Copies {
    pub(super) const fn new() -> Self {
        Self { slab: Slab::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.slab.bytes()
    }

    pub(super) fn get(&self, copy: u32) -> &BlockCopy {
        &self.slab[copy]
    }

    pub(super) fn is_leaf(&self, copy: u32) -> bool {
        self.slab[copy].first_child == NONE
    }

    pub(super) fn is_listed(&self, copy: u32) -> bool {
        self.slab[copy].older != UNLISTED
    }

    /// The next of the list.
    #[cfg(test)]
    pub(super) fn newer_than(&self, copy: u32) -> u32 {
        self.slab[copy].newer
    }

    /// Adds a copy under `parent` (`NONE`: a first block). The caller lists it or adds a child.
    pub(super) fn add(&mut self, block: u32, holder: u32, parent: u32) -> u32 {
        let next_sibling = if parent == NONE {
            NONE
        } else {
            self.slab[parent].first_child
        };
        let copy = self.slab.add(BlockCopy {
            block,
            holder,
            parent,
            first_child: NONE,
            next_sibling,
            previous_sibling: NONE,
            older: UNLISTED,
            newer: NONE,
            used: 0,
        });
        if parent != NONE {
            self.slab[parent].first_child = copy;
        }
        if next_sibling != NONE {
            self.slab[next_sibling].previous_sibling = copy;
        }
        copy
    }

    /// Removes a leaf from tree and list.
    pub(super) fn remove(&mut self, list: &mut Recency, leaf: u32) {
        self.unlist(list, leaf);
        let BlockCopy {
            parent,
            next_sibling,
            previous_sibling,
            ..
        } = self.slab[leaf];
        if previous_sibling != NONE {
            self.slab[previous_sibling].next_sibling = next_sibling;
        } else if parent != NONE {
            self.slab[parent].first_child = next_sibling;
        }
        if next_sibling != NONE {
            self.slab[next_sibling].previous_sibling = previous_sibling;
        }
        self.slab.remove(leaf);
    }

    /// Some leaf among the copies after `copy`, or `copy` itself when it is one.
    pub(super) fn leaf_below(&self, copy: u32) -> u32 {
        let mut leaf = copy;
        while self.slab[leaf].first_child != NONE {
            leaf = self.slab[leaf].first_child;
        }
        leaf
    }

    /// Makes a copy, listed or not, the newest of its list.
    pub(super) fn touch(&mut self, list: &mut Recency, copy: u32, now: u64) {
        self.unlist(list, copy);
        let older = list.newest;
        let record = &mut self.slab[copy];
        (record.older, record.newer, record.used) = (older, NONE, now);
        list.newest = copy;
        if older == NONE {
            list.oldest = copy;
            list.oldest_used = now;
        } else {
            self.slab[older].newer = copy;
        }
    }

    /// Makes an unlisted copy the oldest of its list. `used` is at most the present oldest's.
    pub(super) fn list_oldest(&mut self, list: &mut Recency, copy: u32, used: u64) {
        let newer = list.oldest;
        let record = &mut self.slab[copy];
        (record.older, record.newer, record.used) = (NONE, newer, used);
        list.oldest = copy;
        list.oldest_used = used;
        if newer == NONE {
            list.newest = copy;
        } else {
            self.slab[newer].older = copy;
        }
    }

    /// Takes a copy out of its list, if it is there.
    pub(super) fn unlist(&mut self, list: &mut Recency, copy: u32) {
        let BlockCopy { older, newer, .. } = self.slab[copy];
        if older == UNLISTED {
            return;
        }
        self.slab[copy].older = UNLISTED;
        if newer == NONE {
            list.newest = older;
        } else {
            self.slab[newer].older = older;
        }
        if older != NONE {
            self.slab[older].newer = newer;
            return;
        }
        list.oldest = newer;
        if newer != NONE {
            list.oldest_used = self.slab[newer].used;
        }
    }
}
