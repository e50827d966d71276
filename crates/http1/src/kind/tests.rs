//! Names of all spellings, and bytes that look like letters with a bit cleared.
use super::*;

const NAMES: &[(&str, Kind)] = &[
    ("te", Kind::Hop),
    ("host", Kind::Host),
    ("expect", Kind::Expect),
    ("trailer", Kind::Hop),
    ("upgrade", Kind::Upgrade),
    ("connection", Kind::Connection),
    ("keep-alive", Kind::Hop),
    ("content-type", Kind::ContentType),
    ("authorization", Kind::Kept),
    ("content-length", Kind::ContentLength),
    ("http2-settings", Kind::Hop),
    ("content-encoding", Kind::Kept),
    ("proxy-connection", Kind::Hop),
    ("transfer-encoding", Kind::TransferEncoding),
    ("proxy-authenticate", Kind::Hop),
    ("proxy-authorization", Kind::Hop),
];

#[test]
fn tells_special_fields_in_any_case() {
    for (name, kind) in NAMES {
        assert_eq!(Kind::of(name.as_bytes()), *kind, "{name}");
        assert_eq!(
            Kind::of(name.to_ascii_uppercase().as_bytes()),
            *kind,
            "{name}"
        );
    }
}

#[test]
fn takes_no_other_token_for_a_special_field() {
    for (name, kind) in NAMES {
        for at in 0..name.len() {
            for byte in (0..=255u8).filter(|byte| is_token_byte(*byte)) {
                let mut other = name.as_bytes().to_vec();
                other[at] = byte;
                let is_same = other.eq_ignore_ascii_case(name.as_bytes());
                let expected = if is_same { *kind } else { Kind::Other };
                assert_eq!(Kind::of(&other), expected, "{}", other.escape_ascii());
            }
        }
        assert_eq!(Kind::of(&name.as_bytes()[1..]), Kind::Other);
        assert_eq!(Kind::of(format!("{name}s").as_bytes()), Kind::Other);
    }
    assert_eq!(Kind::of(b""), Kind::Other);
}

#[test]
fn knows_the_characters_of_tokens() {
    let tokens: Vec<u8> = (0..=255).filter(|byte| is_token_byte(*byte)).collect();
    let expected = "!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~";
    assert_eq!(String::from_utf8(tokens).as_deref(), Ok(expected));
    assert!(is_token(b"GET") && !is_token(b"") && !is_token(b"a b"));
}

#[test]
fn finds_a_control_character_anywhere_in_a_value() {
    for length in 0..20 {
        for at in 0..length {
            for byte in 0..=u8::MAX {
                let mut value = vec![0xFF - (length as u8); length];
                value[at] = byte;
                assert_eq!(has_control(&value), is_control(byte), "{value:?}");
            }
        }
    }
}
