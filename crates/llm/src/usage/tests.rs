//! Usage in bodies, whole and in pieces. Recorded answers: `tests/it`.

use super::*;

fn by_pieces(body: &str, size: usize) -> Option<Usage> {
    let mut scan = BodyScan::new();
    body.as_bytes()
        .chunks(size)
        .for_each(|piece| scan.feed(piece));
    scan.usage()
}

fn usage(prompt_tokens: u32, completion_tokens: u32, cached_tokens: Option<u32>) -> Option<Usage> {
    Some(Usage {
        prompt_tokens,
        completion_tokens,
        cached_tokens,
        estimated: false,
    })
}

#[test]
fn reads_the_usage_of_each_dialect() {
    let cases = [
        (
            r#"{"usage":{"prompt_tokens":3,"completion_tokens":4}}"#,
            usage(3, 4, None),
        ),
        (
            r#"{"usage" : {"prompt_tokens" : 9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8}},"z":1}"#,
            usage(9, 4, Some(8)),
        ),
        (
            r#"{"usage":{"input_tokens":9,"output_tokens":4,"input_tokens_details":{"cached_tokens":0}}}"#,
            usage(9, 4, Some(0)),
        ),
        (
            r#"{"usage":{"input_tokens":1,"output_tokens":4,"cache_read_input_tokens":31,"cache_creation_input_tokens":2}}"#,
            usage(34, 4, Some(31)),
        ),
        (
            r#"{"usage":{"prompt_tokens":3,"total_tokens":3,"prompt_tokens_details":null}}"#,
            usage(3, 0, None),
        ),
        (r#"{"usage":null}"#, None),
        (
            r#"{"usage":{"prompt_tokens":-3,"completion_tokens":"4"}}"#,
            None,
        ),
        (
            r#"{"choices":[{"usage":{"prompt_tokens":3}}],"text":"\"usage\":{\"prompt_tokens\":3}"}"#,
            None,
        ),
        ("[]", None),
        ("", None),
    ];
    for (body, expected) in cases {
        assert_eq!(body_usage(body.as_bytes(), Api::Other), expected, "{body}");
        for size in 1..=body.len() {
            assert_eq!(by_pieces(body, size), expected, "{body} by {size}");
        }
    }
}

#[test]
fn the_usual_spelling_is_read_as_any_other() {
    let details = r#""prompt_tokens_details""#;
    let cases = [
        r#"{"prompt_tokens":200,"total_tokens":300,"completion_tokens":100}"#.to_owned(),
        r#"{"prompt_tokens": 200, "completion_tokens": null, "total_tokens":1}"#.to_owned(),
        format!(r#"{{"prompt_tokens":7,{details}:{{"cached_tokens":128}}}},"x":1}}"#),
        format!(r#"{{"prompt_tokens":7,{details}:{{"audio_tokens":1,"cached_tokens":128}}}}"#),
        format!(r#"{{{details}:null,"output_tokens":99999999999,"input_tokens":0}} "#),
        format!(r#"{{{details}:{{"cached_tokens":1}},"prompt_tokens":1,"prompt_tokens":2.5}}"#),
        r#"{"prompt_tokens":1,"prompt_tokens":2,"completion_tokens":3,}"#.to_owned(),
        r#"{"prompt_tokens":12"#.to_owned(),
        r#"{"completion_tokens":,"prompt_tokens":1}"#.to_owned(),
        r#"{"completion_tokens":3,"later":{"prompt_tokens":1}}"#.to_owned(),
        "{}".to_owned(),
    ];
    for text in cases {
        let (mut counts, mut all) = (Counts::default(), Counts::default());
        let (end, all_end) = (counts.read(text.as_bytes()), all.read_any(text.as_bytes()));
        assert_eq!((counts, end), (all, all_end), "{text}");
    }
}

#[test]
fn keeps_a_bounded_part_of_a_body() {
    let mut scan = BodyScan::new();
    scan.feed(br#"{"usage":{"prompt_tokens":3,"x":""#);
    for _ in 0..1000 {
        scan.feed(&[b'y'; 1000]);
    }
    assert!(scan.captured.capacity() <= 2 * LONGEST_USAGE);
    scan.feed(br#""}}"#);
    // The counts that came before the cut are still good.
    assert_eq!(scan.usage(), usage(3, 0, None));
}
