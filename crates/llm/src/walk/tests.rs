//! Marks around wanted values, wherever the pieces are cut.

use super::*;
use proptest::prelude::*;

/// The wanted values of a text fed in pieces of `size` bytes.
fn values(text: &str, size: usize) -> Vec<String> {
    let mut walk = Walk::new(b"model");
    let (mut all, mut start) = (Vec::new(), 0);
    for (index, piece) in text.as_bytes().chunks(size).enumerate() {
        walk.feed(piece, |mark| match mark {
            Mark::Start { at, is_string } => {
                start = index * size + at;
                assert_eq!(is_string, text.as_bytes()[start] == b'"');
            }
            Mark::End { at } => all.push(text[start..index * size + at].to_owned()),
        });
    }
    all
}

#[test]
fn marks_the_key_in_its_places_only() {
    let cases: [(&str, &[&str]); 13] = [
        (r#"{"model":"a"}"#, &["\"a\""]),
        (
            r#" { "x" : [{"model":"no"}] , "model" : "a\"b" , "y":1}"#,
            &["\"a\\\"b\""],
        ),
        (
            r#"{"response":{"model":"a","usage":{"model":"no"}},"model":"b"}"#,
            &["\"a\"", "\"b\""],
        ),
        (
            r#"{"message":{"message":{"model":"no"},"model":"a"}}"#,
            &["\"a\""],
        ),
        (r#"{"delta":{"model":"no"},"text":"\"model\":\"no\""}"#, &[]),
        (r#"{"model":null,"x":2}"#, &["null"]),
        (r#"{"model":{"a":[1]}}"#, &[r#"{"a":[1]}"#]),
        (
            r#"{"models":"no","mode":"no","xmodel":"no","mod\u0065l":"no"}"#,
            &[],
        ),
        (
            r#"{"a-key-longer-than-any-wanted":1,"model":"a"}"#,
            &["\"a\""],
        ),
        (r#"{"response":[{"model":"no"}]}"#, &[]),
        (r#"[{"model":"no"}]"#, &[]),
        ("[DONE]", &[]),
        (r#"{"model":"cut"#, &[]),
    ];
    for (text, expected) in cases {
        for size in 1..=text.len() {
            assert_eq!(values(text, size), expected, "{text} by {size}");
        }
    }
}

#[test]
fn starts_over_for_the_next_object() {
    let mut walk = Walk::new(b"model");
    let mut marks = 0;
    for piece in [
        &b"{\"response\":{\"x"[..],
        b"{\"model\":1}",
        b"nonsense",
        b"{\"model\":2}",
    ] {
        walk.reset();
        walk.feed(piece, |_| marks += 1);
    }
    assert_eq!(marks, 4);
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same(
        atoms in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\"model\"", "\"response\":{", "1", " ", "é",
        ]), 0..40),
        size in 1usize..9,
    ) {
        let text = format!("{{{}", atoms.concat());
        let mut whole = Vec::new();
        let mut pieces = Vec::new();
        Walk::new(b"model").feed(text.as_bytes(), |mark| whole.push(mark));
        let mut walk = Walk::new(b"model");
        for (index, piece) in text.as_bytes().chunks(size).enumerate() {
            let moved = index * size;
            walk.feed(piece, |mark| pieces.push(match mark {
                Mark::Start { at, is_string } => Mark::Start { at: at + moved, is_string },
                Mark::End { at } => Mark::End { at: at + moved },
            }));
        }
        prop_assert_eq!(whole, pieces);
    }
}
