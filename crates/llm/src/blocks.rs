//! Chained hashes of a prompt's 512-byte blocks: equal chains mean equal prefixes.
//!
//! Block i's hash stands for all bytes up to its end, so an index of hashes finds the longest known
//! prefix. The bytes are those of the request (raw JSON), not tokens: approximate, but needs no
//! tokenizer. Values are stable across processes and machines (unseeded XXH3), never across a change
//! of `BLOCK_BYTES`. Seeding xxh3 with the chain would rebuild its secret for each block, 2.5 times
//! slower: so each block is hashed unseeded and then folded into the chain.

use twox_hash::XxHash3_64;

/// Bytes of one block.
pub const BLOCK_BYTES: usize = 512;

/// Start of a chain. Another model or salt never shares blocks (vLLM keeps them apart, too).
#[must_use]
pub fn chain_seed(model: &str, cache_salt: Option<&str>) -> u64 {
    let seed = fold(START, XxHash3_64::oneshot(model.as_bytes()));
    // An empty salt is a salt: it must differ from none.
    cache_salt.map_or(seed, |salt| {
        fold(seed ^ SALTED, XxHash3_64::oneshot(salt.as_bytes()))
    })
}

/// Appends one hash per full block of the concatenated `prompt` pieces to `out`; a shorter rest has
/// no hash. Copies at most one block per border between pieces.
pub fn block_hashes<'a>(seed: u64, prompt: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u64>) {
    let mut chain = seed;
    let mut push = |block: &[u8]| {
        chain = fold(chain, XxHash3_64::oneshot(block));
        out.push(chain);
    };
    // What is left of a piece is copied only when another follows.
    let mut left: &[u8] = &[];
    let mut started = None;
    for mut piece in prompt {
        if started.is_some() || !left.is_empty() {
            let border: &mut Border = started.get_or_insert_default();
            border.take(left);
            left = &[];
            let (head, rest) = piece.split_at(border.space().min(piece.len()));
            border.take(head);
            piece = rest;
            if border.space() > 0 {
                continue;
            }
            push(&border.block);
            started = None;
        }
        let mut blocks = piece.chunks_exact(BLOCK_BYTES);
        blocks.by_ref().for_each(&mut push);
        left = blocks.remainder();
    }
}

/// The beginning of a block whose end is in the next piece.
struct Border {
    block: [u8; BLOCK_BYTES],
    bytes: usize,
}

impl Default for Border {
    fn default() -> Self {
        Self {
            block: [0; BLOCK_BYTES],
            bytes: 0,
        }
    }
}

impl Border {
    fn space(&self) -> usize {
        BLOCK_BYTES - self.bytes
    }

    fn take(&mut self, part: &[u8]) {
        let space = self.block.get_mut(self.bytes..).unwrap_or_default();
        if let Some(space) = space.get_mut(..part.len()) {
            space.copy_from_slice(part);
            self.bytes += part.len();
        }
    }
}

/// Tokens that a prompt of so many bytes will roughly be: four bytes a token, at least one. An
/// estimate for ordering work before the engine's own counts teach the true ratio.
#[must_use]
pub fn estimate_tokens(prompt_bytes: usize) -> u32 {
    u32::try_from(prompt_bytes.div_ceil(4))
        .unwrap_or(u32::MAX)
        .max(1)
}

const START: u64 = 0x9E37_79B9_7F4A_7C15;
const SALTED: u64 = 0xD1B5_4A32_D192_ED03;

/// Folds a hash into the chain: both halves of a 128-bit product. The order of blocks matters,
/// since the chain enters with its own constant.
fn fold(chain: u64, hash: u64) -> u64 {
    const CHAIN: u64 = 0xA076_1D64_78BD_642F;
    const HASH: u64 = 0xE703_7ED1_A0B4_28DB;
    let product = u128::from(chain.rotate_left(23) ^ CHAIN) * u128::from(hash ^ HASH);
    (product as u64) ^ ((product >> 64) as u64) ^ hash
}

#[cfg(test)]
mod tests;
