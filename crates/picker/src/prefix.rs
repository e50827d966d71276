//! The approximate prefix index. Stand-in: the other branch has the file.

use crate::endpoint::EndpointId;

const INLINE: usize = 8;

/// Which endpoints hold how many blocks of a prompt.
#[derive(Debug, Clone, Default)]
pub struct Held {
    entries: [(EndpointId, u32); INLINE],
    len: usize,
}

impl Held {
    /// Adds an endpoint with the blocks that it holds from the start.
    pub fn push(&mut self, endpoint: EndpointId, blocks: u32) {
        if let Some(entry) = self.entries.get_mut(self.len) {
            *entry = (endpoint, blocks);
            self.len += 1;
        }
    }

    /// Blocks that `endpoint` holds.
    pub fn blocks_of(&self, endpoint: EndpointId) -> u32 {
        self.iter()
            .find(|(id, _)| *id == endpoint)
            .map_or(0, |(_, blocks)| blocks)
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (EndpointId, u32)> + '_ {
        self.entries.iter().take(self.len).copied()
    }

    /// The most blocks that anybody holds.
    pub fn best(&self) -> u32 {
        self.iter().map(|(_, blocks)| blocks).max().unwrap_or(0)
    }
}

/// Who was sent which prompt blocks.
#[derive(Debug)]
pub struct PrefixIndex;
