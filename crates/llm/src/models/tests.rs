//! Model lists that are none, or odd. Recorded lists: `tests/it`.

use super::*;

#[test]
fn reads_what_is_a_model() {
    let body = br#"{"object":"list","data":[{"id":"a\/b","parent":"base","root":"r",
        "max_model_len":2048},{"id":""},{"id":7},7,{"id":"c","meta":{"n_ctx":1024},"parent":null}]}"#;
    let card = |id: &str| ModelCard {
        id: id.to_owned(),
        ..ModelCard::default()
    };
    let expected = [
        ModelCard {
            parent: Some("base".to_owned()),
            root: Some("r".to_owned()),
            max_model_len: Some(2048),
            ..card("a/b")
        },
        ModelCard {
            max_model_len: Some(1024),
            ..card("c")
        },
    ];
    assert_eq!(scan_models(body).unwrap(), expected);
}

#[test]
fn reads_nothing_from_what_is_no_list() {
    for body in [
        &b""[..],
        b"<html>",
        b"[]",
        b"{}",
        br#"{"data":{}}"#,
        br#"{"data":5}"#,
        br#"{"data":null}"#,
        br#"{"data":[{"id":"x"}"#,
        br#"{"data":[{"id":"x"},]}"#,
        br#"{"data":[{"name":"x"}]}"#,
        br#"[{"id":"x"}]"#,
    ] {
        assert_eq!(scan_models(body), None, "{}", body.escape_ascii());
    }
    assert_eq!(
        scan_models(br#"{"object":"list","data":[ ]}"#),
        Some(vec![])
    );
}

#[test]
fn bounds_the_list() {
    let mut body = br#"{"data":[{"id":"x"}"#.to_vec();
    for _ in 0..2 * MOST_MODELS {
        body.extend_from_slice(br#",{"id":"x"}"#);
    }
    body.extend_from_slice(b"]}");
    assert_eq!(scan_models(&body).unwrap().len(), MOST_MODELS);
}
