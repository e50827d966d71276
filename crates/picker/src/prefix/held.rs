//! The answer to a look-up: which endpoints hold how much of a prompt from its start.
//!
//! Invariant: best holder first, one entry per endpoint, at most `CAPACITY` of them, no allocation.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::endpoint::EndpointId;

/// The best holders of one prompt's prefix.
#[derive(Clone, Default)]
pub struct Held {
    entries: [(EndpointId, u32); Self::CAPACITY],
    len: usize,
}

impl Held {
    /// Most holders that are remembered.
    pub const CAPACITY: usize = 16;

    /// Notes that `endpoint` holds the first `blocks` blocks; the larger figure stands when it is
    /// known already. When full, the smallest figure gives way to a larger one. 0 is not noted.
    pub fn push(&mut self, endpoint: EndpointId, blocks: u32) {
        if blocks == 0 {
            return;
        }
        let known = self
            .as_slice()
            .iter()
            .position(|&(other, _)| other == endpoint);
        if let Some(known) = known {
            if self.entries[known].1 >= blocks {
                return;
            }
            self.entries.copy_within(known + 1..self.len, known);
            self.len -= 1;
        }
        let place = self
            .as_slice()
            .partition_point(|&(_, other)| other >= blocks);
        if place == Self::CAPACITY {
            return;
        }
        let end = self.len.min(Self::CAPACITY - 1);
        self.entries.copy_within(place..end, place + 1);
        self.entries[place] = (endpoint, blocks);
        self.len = end + 1;
    }

    /// Blocks that `endpoint` holds from the start; 0 when it is not among the holders.
    #[must_use]
    pub fn blocks_of(&self, endpoint: EndpointId) -> u32 {
        self.iter()
            .find(|&(other, _)| other == endpoint)
            .map_or(0, |(_, blocks)| blocks)
    }

    /// Holders and their blocks, most blocks first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (EndpointId, u32)> + '_ {
        self.as_slice().iter().copied()
    }

    /// The holder of most blocks.
    #[must_use]
    pub fn best(&self) -> Option<(EndpointId, u32)> {
        self.as_slice().first().copied()
    }

    /// How many holders there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody holds anything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all holders.
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    fn as_slice(&self) -> &[(EndpointId, u32)] {
        &self.entries[..self.len]
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Held {}

impl std::fmt::Debug for Held {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.as_slice()).finish()
    }
}

/// As a list of (endpoint, blocks).
impl Serialize for Held {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_slice().serialize(serializer)
    }
}

/// Takes a list of any length and keeps the best.
impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut held = Self::default();
        for (endpoint, blocks) in Vec::<(EndpointId, u32)>::deserialize(deserializer)? {
            held.push(endpoint, blocks);
        }
        Ok(held)
    }
}
