//! The slice walk: what it takes, and where it stops.

use super::*;

fn walk(text: &str) -> Result<Vec<(String, String)>, usize> {
    let mut members =
        Members::new(text.as_bytes(), Scanner::detect()).map_err(|malformed| malformed.at)?;
    let mut all = Vec::new();
    while let Some(member) = members.next().map_err(|malformed| malformed.at)? {
        all.push((text[member.key].to_owned(), text[member.value].to_owned()));
    }
    Ok(all)
}

#[test]
fn gives_members_as_they_stand() {
    let cases = [
        ("{}", vec![]),
        (" { } \n", vec![]),
        (r#"{"a":1}"#, vec![("a", "1")]),
        (
            r#"{"a" : 1e400 , "b":[{"c":"]"}] }"#,
            vec![("a", "1e400"), ("b", r#"[{"c":"]"}]"#)],
        ),
        (
            r#"{"a":"x\"y","":null}"#,
            vec![("a", r#""x\"y""#), ("", "null")],
        ),
        (
            r#"{"a":NaN,"b":-Infinity}"#,
            vec![("a", "NaN"), ("b", "-Infinity")],
        ),
    ];
    for (text, expected) in cases {
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        assert_eq!(walk(text), Ok(expected), "{text}");
    }
}

#[test]
fn stops_at_the_first_byte_that_does_not_fit() {
    let cases = [
        ("", 0),
        ("[]", 0),
        ("{", 1),
        ("{,}", 1),
        (r#"{"a"}"#, 4),
        (r#"{"a":}"#, 5),
        (r#"{"a":1"#, 6),
        (r#"{"a":1 "b":2}"#, 7),
        (r#"{"a":1,,"b":2}"#, 7),
        (r#"{"a":'x'}"#, 5),
        (r#"{"a":"x"#, 7),
        (r#"{"a":[1"#, 7),
        (r#"{"a":1}x"#, 7),
        (r#"{"a":[\]}"#, 5),
    ];
    for (text, at) in cases {
        assert_eq!(walk(text), Err(at), "{text}");
    }
}

#[test]
fn lists_elements_until_told_to_stop() {
    let list = |text: &'static str, most: usize| {
        let mut all = Vec::new();
        let whole = elements(text.as_bytes(), |element| {
            all.push(String::from_utf8(element.to_vec()).unwrap());
            all.len() < most
        });
        whole.map(|()| all)
    };
    assert_eq!(list("[]", 9), Some(vec![]));
    assert_eq!(
        list(" [ 1 , \"a,]\" ,{}]", 9).unwrap(),
        ["1", "\"a,]\"", "{}"]
    );
    assert_eq!(list("[1,2,3]", 2).unwrap(), ["1", "2"]);
    assert_eq!(list("{}", 9), None);
    assert_eq!(list("[1", 9), None);
}

#[test]
fn reads_whole_numbers_only() {
    let cases: [(&[u8], Option<u32>); 7] = [
        (b"0", Some(0)),
        (b"64", Some(64)),
        (b"999999999999999999999999999999", Some(u32::MAX)),
        (b"-1", None),
        (b"1.0", None),
        (b"", None),
        (b"\"1\"", None),
    ];
    for (value, expected) in cases {
        assert_eq!(integer(value), expected, "{}", value.escape_ascii());
    }
}
