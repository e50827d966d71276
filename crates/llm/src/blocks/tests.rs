//! Chains: what they depend on, and what they do not.

use super::*;
use proptest::prelude::*;

fn chain(seed: u64, pieces: &[&[u8]]) -> Vec<u64> {
    let mut out = Vec::new();
    block_hashes(seed, pieces.iter().copied(), &mut out);
    out
}

#[test]
fn hashes_full_blocks_only() {
    let bytes = vec![7u8; 3 * BLOCK_BYTES + 1];
    for (length, blocks) in [(0, 0), (511, 0), (512, 1), (1023, 1), (1024, 2), (1537, 3)] {
        assert_eq!(chain(1, &[&bytes[..length]]).len(), blocks, "{length}");
    }
}

#[test]
fn keeps_values_from_release_to_release() {
    // Pinned: indexes of several replicas, and recorded decisions, hold these values.
    let bytes: Vec<u8> = (0..=255u8).cycle().take(2 * BLOCK_BYTES).collect();
    let seed = chain_seed("llama", None);
    let expected = vec![1_548_106_572_507_568_847, 16_912_617_942_899_793_159];
    assert_eq!(
        (seed, chain(seed, &[&bytes])),
        (11_596_005_421_890_559_229, expected)
    );
}

#[test]
fn equal_blocks_in_a_row_hash_differently() {
    let found = chain(3, &[&[0u8; 8 * BLOCK_BYTES]]);
    let mut unique = found.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), found.len());
}

#[test]
fn models_and_salts_do_not_share() {
    let seeds = [
        chain_seed("a", None),
        chain_seed("b", None),
        chain_seed("", None),
        chain_seed("a", Some("")),
        chain_seed("a", Some("s")),
        chain_seed("as", None),
        chain_seed("s", Some("a")),
    ];
    for (index, seed) in seeds.iter().enumerate() {
        assert!(!seeds[..index].contains(seed), "{index}");
    }
}

#[test]
fn estimates_four_bytes_a_token() {
    for (bytes, tokens) in [
        (0, 1),
        (1, 1),
        (4, 1),
        (5, 2),
        (4096, 1024),
        (usize::MAX, u32::MAX),
    ] {
        assert_eq!(estimate_tokens(bytes), tokens, "{bytes}");
    }
}

proptest! {
    #[test]
    fn borders_between_pieces_do_not_matter(
        bytes in prop::collection::vec(any::<u8>(), 0..4000),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut borders: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        borders.extend([0, bytes.len()]);
        borders.sort_unstable();
        let pieces: Vec<&[u8]> = borders.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(chain(5, &pieces), chain(5, &[&bytes]));
    }

    #[test]
    fn a_changed_byte_changes_its_block_and_all_after(
        at in 0usize..5 * BLOCK_BYTES,
        bytes in prop::collection::vec(any::<u8>(), 5 * BLOCK_BYTES),
    ) {
        let before = chain(9, &[&bytes]);
        let mut changed = bytes;
        changed[at] ^= 1;
        let after = chain(9, &[&changed]);
        let block = at / BLOCK_BYTES;
        prop_assert_eq!(&before[..block], &after[..block]);
        for (before, after) in before[block..].iter().zip(&after[block..]) {
            prop_assert_ne!(before, after);
        }
    }
}
