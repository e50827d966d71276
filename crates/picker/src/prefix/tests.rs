//! Scenarios, and random sequences of words about endpoints compared with a naive model: for each
//! endpoint the set of its prefixes with their last use. The model evicts by looking at all of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const fn endpoint(slot: u32, generation: u32) -> EndpointId {
    EndpointId { slot, generation }
}

const A: EndpointId = endpoint(0, 0);
const B: EndpointId = endpoint(1, 0);
const C: EndpointId = endpoint(2, 0);

/// Block hashes of a text of one letter a block, each covering what is before it.
fn chain(text: &str) -> Vec<u64> {
    let next = |hash: &mut u64, letter: u8| {
        *hash = (*hash ^ u64::from(letter))
            .wrapping_mul(0x0000_0100_0000_01B3)
            .rotate_left(29);
        Some(*hash)
    };
    text.bytes().scan(0xCBF2_9CE4_8422_2325, next).collect()
}

fn index(max_blocks: usize, texts: &[(EndpointId, &str)]) -> PrefixIndex {
    let mut index = PrefixIndex::new(max_blocks);
    for &(endpoint, text) in texts {
        index.insert(endpoint, &chain(text));
    }
    index
}

#[track_caller]
fn check(index: &PrefixIndex, text: &str, expected: &[(EndpointId, u32)]) {
    verify(index);
    let mut held = Held::default();
    index.lookup(&chain(text), &mut held);
    let got: BTreeMap<_, _> = held.iter().collect();
    assert_eq!(
        got,
        expected.iter().copied().collect(),
        "holders of {text:?}"
    );
    assert!(
        held.iter().is_sorted_by(|one, next| one.1 >= next.1),
        "best first: {held:?}"
    );
    for (endpoint, blocks) in held.iter() {
        assert_eq!(
            index.depth_of(endpoint, &chain(text)),
            blocks,
            "{endpoint:?} of {text:?}"
        );
    }
}

/// Walks the whole index and checks every invariant; returns each endpoint's places of blocks.
fn verify(index: &PrefixIndex) -> BTreeMap<EndpointId, BTreeSet<u32>> {
    let mut held: BTreeMap<u32, BTreeMap<u32, u32>> = BTreeMap::new();
    let mut copies = 0;
    for (block, holdings) in index.blocks.all() {
        assert!(!holdings.is_empty(), "block {block} without holder");
        for holding in holdings {
            let copy = index.copies.get(holding.copy);
            assert_eq!((copy.block, copy.holder), (block, holding.holder));
            let again = held
                .entry(holding.holder)
                .or_default()
                .insert(block, holding.copy);
            assert_eq!(
                again, None,
                "holder {} stands twice at block {block}",
                holding.holder
            );
            copies += 1;
        }
    }
    assert_eq!(copies, index.copies.len(), "a copy without block");
    assert!(
        copies <= index.max_blocks,
        "{copies} blocks of {}",
        index.max_blocks
    );
    let mut alive = 0;
    let mut result = BTreeMap::new();
    for (&holder, blocks) in &held {
        let record = &index.holders[holder];
        assert_eq!(record.blocks as usize, blocks.len());
        assert!(
            !record.alive || record.blocks <= record.capacity,
            "{record:?}"
        );
        let listed = verify_list(index, holder);
        for &copy in blocks.values() {
            let leaf = index.copies.is_leaf(copy);
            assert!(
                !leaf || listed.contains(&copy),
                "leaf {copy} cannot be evicted"
            );
            assert_eq!(listed.contains(&copy), index.copies.is_listed(copy));
            let parent = index.copies.get(copy).parent;
            assert!(
                parent == NONE || blocks.values().any(|&other| other == parent),
                "no closure"
            );
        }
        if record.alive {
            alive += blocks.len();
            result.insert(record.endpoint, blocks.keys().copied().collect());
        }
    }
    assert_eq!(alive, index.blocks());
    result
}

/// The holder's list from its oldest to its newest.
fn verify_list(index: &PrefixIndex, holder: u32) -> BTreeSet<u32> {
    let recency = index.holders[holder].recency;
    let mut listed = BTreeSet::new();
    let (mut at, mut used) = (recency.oldest, 0);
    assert_eq!(index.copies.get(at).used, recency.oldest_used);
    while at != NONE {
        let copy = index.copies.get(at);
        assert!(listed.insert(at), "a ring");
        assert!(copy.used >= used, "not in the order of use");
        assert_eq!(copy.holder, holder);
        used = copy.used;
        at = index.copies.newer_than(at);
    }
    listed
}

#[test]
fn finds_how_much_of_a_prompt_each_endpoint_holds() {
    let index = index(
        100,
        &[
            (A, "system+hello"),
            (B, "system+bye"),
            (C, "other"),
            (A, "sys"),
        ],
    );
    check(&index, "system+hello", &[(A, 12), (B, 7)]);
    check(&index, "system+hello, again", &[(A, 12), (B, 7)]);
    check(&index, "system+help", &[(A, 10), (B, 7)]);
    check(&index, "system", &[(A, 6), (B, 6)]);
    check(&index, "s", &[(A, 1), (B, 1)]);
    check(&index, "o", &[(C, 1)]);
    check(&index, "unknown", &[]);
    check(&index, "", &[]);
    assert_eq!(
        (index.blocks_of(A), index.blocks_of(B), index.blocks_of(C)),
        (12, 10, 5)
    );
    assert_eq!((index.blocks(), index.blocks.len()), (27, 20));
    let mut held = Held::default();
    index.lookup(&chain("system+bye"), &mut held);
    assert_eq!(held.best(), Some((B, 10)));
}

#[test]
fn nobody_knows_an_empty_prompt() {
    let index = index(100, &[(A, "")]);
    check(&index, "", &[]);
    assert_eq!((index.blocks(), index.blocks_of(A)), (0, 0));
}

#[test]
fn evicts_ends_of_the_least_recently_used_prompt_first() {
    let mut index = index(100, &[(A, "ab1"), (A, "ab2")]);
    index.set_capacity(A, 4);
    index.insert(A, &chain("ab1"));
    index.insert(A, &chain("x"));
    check(&index, "ab1", &[(A, 3)]);
    check(&index, "ab2", &[(A, 2)]);
    index.insert(A, &chain("y"));
    check(&index, "ab1", &[(A, 2)]);
    index.insert(A, &chain("ab"));
    index.insert(A, &chain("z"));
    check(&index, "ab", &[(A, 2)]);
    check(&index, "x", &[]);
    check(&index, "y", &[(A, 1)]);
}

#[test]
fn prompt_longer_than_the_capacity_is_held_up_to_it() {
    let mut index = index(100, &[(A, "old"), (B, "old")]);
    index.set_capacity(A, 5);
    index.insert(A, &chain("0123456789"));
    check(&index, "0123456789", &[(A, 5)]);
    check(&index, "old", &[(B, 3)]);
    index.insert(A, &chain("0123456789"));
    index.insert(A, &chain("01xyz!"));
    check(&index, "01xyz!", &[(A, 5)]);
    check(&index, "0123", &[(A, 2)]);
    index.set_capacity(A, 0);
    check(&index, "01xyz!", &[]);
    index.insert(A, &chain("01xyz!"));
    assert_eq!(index.blocks_of(A), 0);
}

#[test]
fn whole_index_evicts_what_is_least_recently_used_anywhere() {
    let mut index = index(9, &[(A, "one"), (B, "two"), (C, "six")]);
    index.insert(A, &chain("one"));
    index.insert(C, &chain("new!"));
    check(&index, "two", &[]);
    check(&index, "six", &[(C, 2)]);
    check(&index, "one", &[(A, 3)]);
    index.insert(B, &chain("0123456789"));
    check(&index, "0123456789", &[(B, 9)]);
    assert_eq!((index.blocks_of(A), index.blocks_of(C)), (0, 0));
    let mut none = PrefixIndex::new(0);
    none.insert(A, &chain("one"));
    check(&none, "one", &[]);
}

#[test]
fn a_smaller_bound_forgets_at_once_and_keeps_who_is_who() {
    let mut index = index(100, &[(A, "abcd"), (B, "abxy"), (C, "q")]);
    index.set_capacity(B, 3);
    index.remove(C);
    index.set_max_blocks(50);
    check(&index, "abcd", &[(A, 4), (B, 2)]);
    index.set_max_blocks(4);
    check(&index, "abcd", &[]);
    assert_eq!(index.blocks(), 0);
    index.insert(C, &chain("q"));
    index.insert(B, &chain("abxyz"));
    check(&index, "abxyz", &[(B, 3)]);
    check(&index, "q", &[]);
    index.insert(A, &chain("cd"));
    assert!(index.blocks() <= 4);
}

#[test]
fn correction_forgets_the_rest_and_what_goes_on_from_it() {
    let mut index = index(
        100,
        &[(A, "abcdef"), (A, "abcxyz"), (A, "ab!"), (B, "abcdef")],
    );
    index.correct(A, &chain("abcdef"), 9);
    index.correct(A, &chain("abcdef"), 6);
    check(&index, "abcdef", &[(A, 6), (B, 6)]);
    index.correct(A, &chain("abcd?"), 4);
    check(&index, "abcdef", &[(A, 6), (B, 6)]);
    index.correct(A, &chain("abcdef"), 2);
    check(&index, "abcdef", &[(A, 2), (B, 6)]);
    check(&index, "abcxyz", &[(A, 2), (B, 3)]);
    check(&index, "ab!", &[(A, 3), (B, 2)]);
    index.correct(A, &chain("abcdef"), 0);
    check(&index, "ab!", &[(B, 2)]);
    index.correct(C, &chain("abcdef"), 0);
    index.correct(A, &[], 0);
    check(&index, "abcdef", &[(B, 6)]);
}

#[test]
fn removed_endpoint_is_forgotten_and_its_slot_inherits_nothing() {
    let mut index = index(1_000, &[(A, "shared"), (B, "shared")]);
    let next = endpoint(0, 1);
    index.remove(A);
    check(&index, "shared", &[(B, 6)]);
    index.insert(A, &chain("late word"));
    index.set_capacity(A, 10);
    index.correct(A, &chain("shared"), 2);
    index.remove(A);
    check(&index, "shared", &[(B, 6)]);
    assert_eq!(
        (index.blocks_of(A), index.blocks_of(next), index.blocks()),
        (0, 0, 6)
    );
    index.insert(next, &chain("sha"));
    check(&index, "shared", &[(B, 6), (next, 3)]);
    index.insert(endpoint(0, 5), &chain("s"));
    index.remove(next);
    index.insert(next, &chain("sha"));
    check(&index, "shared", &[(B, 6), (endpoint(0, 5), 1)]);
}

#[test]
fn memory_of_removed_endpoints_is_freed_in_steps() {
    let text = "x".repeat(300);
    let mut index = index(10_000, &[(A, &text), (B, "other")]);
    index.remove(A);
    assert_eq!((index.blocks(), index.copies.len()), (5, 305));
    let mut left = vec![];
    for _ in 0..10 {
        index.insert(B, &chain("other"));
        verify(&index);
        left.push(index.copies.len());
    }
    assert_eq!(left, [273, 241, 209, 177, 145, 113, 81, 49, 17, 5]);
    index.remove(B);
    assert_eq!(index.sweep(3), 2);
    assert_eq!(index.sweep(usize::MAX), 0);
    assert_eq!(
        (index.blocks.len(), index.copies.len(), index.holders.len()),
        (0, 0, 0)
    );
}

#[test]
fn tells_the_best_of_many_holders_and_takes_turns_among_equals() {
    let mut index = PrefixIndex::new(10_000);
    let members: Vec<_> = (0..40).map(|slot| endpoint(slot, 7)).collect();
    for &member in &members {
        index.insert(member, &chain("common"));
    }
    index.insert(members[39], &chain("common and more"));
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        let mut held = Held::default();
        index.lookup(&chain("common and more"), &mut held);
        assert_eq!(
            (held.len(), held.best()),
            (Held::CAPACITY, Some((members[39], 15)))
        );
        seen.extend(held.iter().map(|(endpoint, _)| endpoint));
        index.insert(members[0], &chain("common"));
    }
    assert_eq!(seen.len(), 40);
    assert!(
        members[..39]
            .iter()
            .all(|&m| index.depth_of(m, &chain("common and more")) == 6)
    );
    verify(&index);
}

#[test]
fn hashes_that_do_not_cover_what_is_before_them_do_no_harm() {
    let mut index = PrefixIndex::new(20);
    for chain in [
        &[5, 5, 5][..],
        &[5, 6],
        &[7, 6, 8],
        &[8, 5, 7],
        &[0, u64::MAX, 0],
    ] {
        for endpoint in [A, B] {
            index.insert(endpoint, chain);
            verify(&index);
            index.correct(endpoint, &[6, 8, 5], 1);
            verify(&index);
        }
    }
    index.set_capacity(A, 0);
    index.set_capacity(B, 0);
    assert_eq!((index.copies.len(), index.blocks.len()), (0, 0));
}

#[test]
fn held_keeps_the_best_in_order() {
    let mut held = Held::default();
    for slot in 0..40 {
        held.push(endpoint(slot, 0), (slot * 7) % 40);
    }
    held.push(endpoint(39, 0), 1_000);
    held.push(endpoint(39, 0), 1);
    held.push(endpoint(50, 0), 0);
    let blocks: Vec<_> = held.iter().map(|(_, blocks)| blocks).collect();
    let best: Vec<u32> = std::iter::once(1_000)
        .chain((25..40).rev().filter(|&b| b != 33))
        .collect();
    assert_eq!(blocks[..15], best[..15]);
    assert_eq!((held.len(), held.blocks_of(endpoint(39, 0))), (16, 1_000));
    assert_eq!(held.blocks_of(endpoint(0, 0)), 0);
    let text = serde_json::to_string(&held).expect("plain numbers");
    assert_eq!(serde_json::from_str::<Held>(&text).expect("own text"), held);
    held.clear();
    assert_eq!((held.is_empty(), held.best()), (true, None));
    assert_eq!(held, Held::default());
}

/// What one endpoint holds: each prefix with the time of its last use.
#[derive(Debug, Default)]
struct NaiveCache {
    capacity: usize,
    used: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Naive {
    max_blocks: usize,
    now: usize,
    caches: BTreeMap<EndpointId, NaiveCache>,
}

impl Naive {
    fn cache(&mut self, endpoint: EndpointId) -> &mut NaiveCache {
        let capacity = DEFAULT_CAPACITY_BLOCKS as usize;
        let fresh = || NaiveCache {
            capacity,
            ..NaiveCache::default()
        };
        self.caches.entry(endpoint).or_insert_with(fresh)
    }

    fn stalest_leaf(cache: &NaiveCache) -> Option<(usize, String)> {
        let is_leaf = |text: &String| {
            !cache
                .used
                .keys()
                .any(|other| other.len() > text.len() && other.starts_with(text))
        };
        cache
            .used
            .iter()
            .filter(|(text, _)| is_leaf(text))
            .map(|(t, &u)| (u, t.clone()))
            .min()
    }

    fn evict(&mut self) {
        for cache in self.caches.values_mut() {
            while cache.used.len() > cache.capacity {
                let (_, text) = Self::stalest_leaf(cache).expect("not empty");
                cache.used.remove(&text);
            }
        }
        while self
            .caches
            .values()
            .map(|cache| cache.used.len())
            .sum::<usize>()
            > self.max_blocks
        {
            let leaves = self.caches.iter().filter_map(|(&e, cache)| {
                Self::stalest_leaf(cache).map(|(used, text)| (used, e, text))
            });
            let (_, endpoint, text) = leaves.min().expect("not empty");
            self.cache(endpoint).used.remove(&text);
        }
    }

    fn insert(&mut self, endpoint: EndpointId, text: &str) {
        self.now += 1;
        let now = self.now;
        let cache = self.cache(endpoint);
        cache
            .used
            .extend((1..=text.len()).map(|end| (text[..end].to_owned(), now)));
        self.evict();
    }

    fn correct(&mut self, endpoint: EndpointId, text: &str, held: usize) {
        self.now += 1;
        let now = self.now;
        let cache = self.cache(endpoint);
        if held < text.len() {
            cache
                .used
                .retain(|other, _| !other.starts_with(&text[..=held]));
        }
        for end in 1..=held.min(text.len()) {
            cache
                .used
                .entry(text[..end].to_owned())
                .and_modify(|used| *used = now);
        }
    }

    fn depth(&self, endpoint: EndpointId, text: &str) -> u32 {
        let Some(cache) = self.caches.get(&endpoint) else {
            return 0;
        };
        (1..=text.len())
            .take_while(|&end| cache.used.contains_key(&text[..end]))
            .count() as u32
    }
}

#[derive(Debug, Clone)]
enum Word {
    Insert(u32, String),
    Correct(u32, String, usize),
    Capacity(u32, u32),
    Remove(u32),
    /// An insert for the slot's previous endpoint.
    Late(u32, String),
}

const SLOTS: u32 = 4;

/// Few letters and a common start, so that prompts share prefixes and branch.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[ab]{0,6}", 2 => "sys[ab]{0,9}", 1 => "[ab]{10,30}"]
}

fn word(with_eviction: bool) -> impl Strategy<Value = Word> {
    prop_oneof![
        12 => (0..SLOTS, text()).prop_map(|(slot, text)| Word::Insert(slot, text)),
        4 => (0..SLOTS, text(), 0..8_usize).prop_map(|(slot, text, n)| Word::Correct(slot, text, n)),
        1 => (0..SLOTS).prop_map(Word::Remove),
        1 => (0..SLOTS, text()).prop_map(|(slot, text)| Word::Late(slot, text)),
        u32::from(with_eviction) => (0..SLOTS, 0..25_u32).prop_map(|(s, n)| Word::Capacity(s, n)),
    ]
}

/// Tells index and model the same, and compares all that they hold after every word.
fn compare(max_blocks: usize, words: &[Word]) {
    let mut index = PrefixIndex::new(max_blocks);
    let mut naive = Naive {
        max_blocks,
        now: 0,
        caches: BTreeMap::new(),
    };
    let mut generations = [1_u32; SLOTS as usize];
    for word in words {
        let mut said = "";
        match word {
            Word::Insert(slot, text) => {
                let member = endpoint(*slot, generations[*slot as usize]);
                index.insert(member, &chain(text));
                naive.insert(member, text);
                said = text;
            }
            Word::Correct(slot, text, held) => {
                let member = endpoint(*slot, generations[*slot as usize]);
                index.correct(member, &chain(text), *held as u32);
                naive.correct(member, text, *held);
                said = text;
            }
            Word::Capacity(slot, blocks) => {
                let member = endpoint(*slot, generations[*slot as usize]);
                index.set_capacity(member, *blocks);
                naive.cache(member).capacity = *blocks as usize;
                naive.evict();
            }
            Word::Remove(slot) => {
                let member = endpoint(*slot, generations[*slot as usize]);
                index.remove(member);
                naive.caches.remove(&member);
                generations[*slot as usize] += 1;
            }
            Word::Late(slot, text) => {
                let generation = generations[*slot as usize] - 1;
                if generation > 0 {
                    index.insert(endpoint(*slot, generation), &chain(text));
                }
            }
        }
        compare_contents(&index, &naive, word);
        let depths = naive
            .caches
            .keys()
            .map(|&member| (member, naive.depth(member, said)));
        check(
            &index,
            said,
            &depths.filter(|&(_, depth)| depth > 0).collect::<Vec<_>>(),
        );
    }
    empty(&mut index, &generations);
}

/// Both hold the same blocks for the same members.
#[track_caller]
fn compare_contents(index: &PrefixIndex, naive: &Naive, word: &Word) {
    let held = verify(index);
    for (member, cache) in &naive.caches {
        let blocks = held.get(member).map_or(0, BTreeSet::len);
        assert_eq!(blocks, cache.used.len(), "{member:?} after {word:?}");
        for text in cache.used.keys() {
            let depth = index.depth_of(*member, &chain(text));
            assert_eq!(depth, text.len() as u32, "{text}");
        }
    }
}

/// Removing everybody leaves no record behind.
fn empty(index: &mut PrefixIndex, generations: &[u32]) {
    for (slot, &generation) in (0..).zip(generations) {
        index.remove(endpoint(slot, generation));
    }
    assert_eq!((index.blocks(), index.sweep(usize::MAX)), (0, 0));
    assert_eq!(
        (index.blocks.len(), index.copies.len(), index.holders.len()),
        (0, 0, 0)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn agrees_with_the_model_without_eviction(words in prop::collection::vec(word(false), 1..60)) {
        compare(100_000, &words);
    }

    #[test]
    fn agrees_with_the_model_under_eviction(
        max_blocks in 0..80_usize,
        words in prop::collection::vec(word(true), 1..60),
    ) {
        compare(max_blocks, &words);
    }
}

#[test]
fn memory_stays_within_its_bound_however_much_is_inserted() {
    let most = 2_000;
    let mut index = PrefixIndex::new(most);
    let mut number = 1_u64;
    let mut largest = 0;
    for round in 0..5_000_u32 {
        let length = 1 + round as usize % 90;
        let next = || {
            number = number
                .wrapping_mul(0xD134_2543_DE82_EF95)
                .wrapping_add(round.into());
            number
        };
        let chain: Vec<u64> = std::iter::repeat_with(next).take(length).collect();
        index.insert(endpoint(round % 7, 0), &chain);
        index.insert(endpoint(round % 5, 0), &chain);
        assert!(index.blocks() <= most);
        largest = largest.max(index.bytes());
    }
    assert!(index.blocks() > most - 100);
    verify(&index);
    assert!(largest < most * 200, "{largest} bytes");
}
