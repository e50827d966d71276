//! The block code against its scalar twin, in one piece and in several.

use super::*;
use proptest::prelude::*;

/// Text in which every rule of the scan meets the borders of blocks.
fn jsonish() -> impl Strategy<Value = Vec<u8>> {
    let atom = prop_oneof![
        4 => Just("\"".to_owned()),
        3 => Just("\\".to_owned()),
        2 => Just("\\\"".to_owned()),
        2 => prop::sample::select(vec!["{", "}", "[", "]", ",", ":"]).prop_map(str::to_owned),
        1 => (0usize..130).prop_map(|n| "x".repeat(n)),
        1 => (0usize..70).prop_map(|n| "\\".repeat(n)),
        1 => "[a-z ]{0,9}".prop_map(|text| format!("\"{text}\"")),
    ];
    prop::collection::vec(atom, 0..60).prop_map(|atoms| format!("[{}", atoms.concat()).into_bytes())
}

fn in_pieces(scanner: Scanner, bytes: &[u8], cuts: &[usize]) -> Skipped {
    let mut nest = Nest::default();
    let mut done = 0;
    let mut borders: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    borders.push(bytes.len());
    borders.sort_unstable();
    for border in borders {
        match scanner.skip_nested(&mut nest, &bytes[done..border]) {
            Skipped::End(length) => return Skipped::End(done + length),
            Skipped::More => done = border,
            Skipped::Malformed => return Skipped::Malformed,
        }
    }
    Skipped::More
}

#[test]
fn ends_where_the_brackets_balance() {
    let cases: [(&[u8], Skipped); 9] = [
        (b"[]", Skipped::End(2)),
        (b"{\"a\":[1,{\"b\":\"}]\"}]} tail]", Skipped::End(20)),
        (b"[\"\\\\\"] \"", Skipped::End(6)),
        (b"[\"\\\"]\"]", Skipped::End(7)),
        (b"[\"]", Skipped::More),
        (b"[[]", Skipped::More),
        (b"", Skipped::More),
        (b"[\\\"]", Skipped::Malformed),
        (b"[] \\", Skipped::End(2)),
    ];
    for (bytes, expected) in cases {
        for scanner in [Scanner::detect(), Scanner::scalar()] {
            let found = scanner.skip_nested(&mut Nest::default(), bytes);
            assert_eq!(found, expected, "{} {scanner:?}", bytes.escape_ascii());
        }
    }
}

#[test]
fn crosses_deep_nesting_without_recursion() {
    let mut bytes = vec![b'['; 1 << 20];
    bytes.resize(1 << 21, b']');
    for scanner in [Scanner::detect(), Scanner::scalar()] {
        assert_eq!(
            scanner.skip_nested(&mut Nest::default(), &bytes),
            Skipped::End(1 << 21)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn blocks_agree_with_bytes_however_cut(
        bytes in jsonish(),
        cuts in prop::collection::vec(any::<usize>(), 0..5),
    ) {
        let whole = Scanner::scalar().skip_nested(&mut Nest::default(), &bytes);
        prop_assert_eq!(Scanner::detect().skip_nested(&mut Nest::default(), &bytes), whole);
        prop_assert_eq!(in_pieces(Scanner::detect(), &bytes, &cuts), whole);
        prop_assert_eq!(in_pieces(Scanner::scalar(), &bytes, &cuts), whole);
    }

    #[test]
    fn string_ends_agree(bytes in jsonish(), from in 0usize..80) {
        let expected = string_scalar(&bytes, from);
        prop_assert_eq!(Scanner::detect().string_end(&bytes, from), expected);
        prop_assert_eq!(Scanner::scalar().string_end(&bytes, from), expected);
    }
}
