//! Identity of an endpoint: a slot that is reused, and the generation that tells its users apart.

use serde::{Deserialize, Serialize};

/// Identity of one member of a pool, never used twice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct EndpointId {
    /// Place in the pool's member list; reused after removal.
    pub slot: u32,
    /// How many members had this slot before.
    pub generation: u32,
}
