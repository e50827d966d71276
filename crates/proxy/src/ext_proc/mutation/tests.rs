//! Destinations, changes of heads and answers, as messages say them.

use super::super::wire::{
    BoolValue, CommonResponse, HeaderValueOption, HttpStatus, PartResponse, Value,
};
use super::*;

fn option(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(field(name, value.as_bytes())),
        append: None,
        append_action: 0,
    }
}

fn message(by_header: Option<&str>, by_metadata: Option<&str>) -> ProcessingResponse {
    let set = by_header.map(|list| option("X-Gateway-Destination-Endpoint", list));
    let mutation = HeaderMutation {
        set_headers: set.into_iter().collect(),
        remove_headers: Vec::new(),
    };
    let inside = |list| Struct::of(DESTINATION, Value::text(list));
    let metadata = by_metadata.map(|list: &str| {
        let kind = Some(Kind::Struct(inside(list)));
        Struct::of(NAMESPACE, Value { kind })
    });
    ProcessingResponse {
        answer: Some(Answer::RequestHeaders(PartResponse {
            response: Some(CommonResponse {
                header_mutation: Some(mutation),
                clear_route_cache: true,
            }),
        })),
        dynamic_metadata: metadata,
    }
}

#[test]
fn destinations_come_by_metadata_or_header() {
    let cases: [(Option<&str>, Option<&str>, &[&str]); 8] = [
        (Some("10.0.0.1:80"), None, &["10.0.0.1:80"]),
        (None, Some("10.0.0.1:80"), &["10.0.0.1:80"]),
        (Some("10.0.0.1:80"), Some("10.0.0.2:80"), &["10.0.0.2:80"]),
        (
            Some("10.0.0.1:80, [fd00::1]:81 ,10.0.0.3:82"),
            None,
            &["10.0.0.1:80", "[fd00::1]:81", "10.0.0.3:82"],
        ),
        (Some("10.0.0.1"), None, &[]),
        (Some("evil.example:80,10.0.0.1:80"), None, &["10.0.0.1:80"]),
        (Some(""), None, &[]),
        (None, None, &[]),
    ];
    for (header, metadata, expected) in cases {
        let verdict = Verdict::of(message(header, metadata));
        let Some(Verdict::Request(found, Some(_))) = verdict else {
            unreachable!("{verdict:?}")
        };
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{header:?} {metadata:?}");
    }
}

#[test]
fn a_list_without_end_is_not_read_to_its_end() {
    let list = vec!["10.0.0.1:80"; 1000].join(",");
    assert_eq!(addresses(&list).len(), MOST_DESTINATIONS);
}

fn head(text: &str) -> RequestHead {
    let mut head = RequestHead::new();
    head.parse(text.as_bytes(), &http1::Limits::default())
        .unwrap();
    head
}

fn written(head: &RequestHead) -> String {
    let mut out = Vec::new();
    head.write(http1::Framing::None, &mut out);
    String::from_utf8(out).unwrap()
}

const REQUEST: &str = "POST /v1 HTTP/1.1\r\nhost: a\r\naccept: one\r\naccept: two\r\n\
    x-keep: 1\r\nx-drop: 1\r\ncontent-length: 3\r\n\r\n";

#[test]
fn a_picker_changes_fields_but_not_framing_host_or_destination() {
    let mut appended = option("x-keep", "2");
    appended.append = Some(BoolValue { value: true });
    let mut if_absent = option("x-keep", "3");
    if_absent.append_action = 1;
    let mut if_present = option("x-nowhere", "1");
    if_present.append_action = 3;
    let mutation = HeaderMutation {
        set_headers: vec![
            // What it was told comes back whole, in the same order.
            option("accept", "one"),
            option("accept", "two"),
            option("X-New", "here"),
            option("x-split", "a\r\nx-evil: b"),
            option("content-length", "7"),
            option("transfer-encoding", "chunked"),
            option("host", "evil"),
            option(":path", "/evil"),
            option("x-gateway-destination-endpoint", "10.0.0.1:80"),
            option("bad name", "x"),
            appended,
            if_absent,
            if_present,
        ],
        remove_headers: vec!["X-Drop".to_owned(), "host".to_owned()],
    };
    let mut request = head(REQUEST);
    apply(&mutation, &told(&request), &mut request);
    let text = written(&request);
    let lines: Vec<&str> = text.split("\r\n").collect();
    let of = |name: &str| -> Vec<&str> {
        let lines = lines.iter();
        lines
            .filter_map(|line| line.split_once(": ").filter(|(known, _)| *known == name))
            .map(|(_, value)| value)
            .collect()
    };
    assert_eq!(lines[0], "POST /v1 HTTP/1.1");
    assert_eq!(of("accept"), ["one", "two"]);
    assert_eq!(of("x-keep"), ["1", "2"]);
    assert_eq!(of("x-new"), ["here"]);
    assert_eq!(of("x-split").len(), 1, "{text}");
    assert_eq!(of("host"), ["a"]);
    for name in ["x-drop", "x-evil", "transfer-encoding", "x-nowhere"] {
        assert_eq!(of(name), [""; 0], "{name}");
    }
    assert!(!text.contains("destination"), "{text}");
    assert!(
        !text.contains("chunked") && !text.contains("bad name"),
        "{text}"
    );
}

#[test]
fn a_picker_adds_so_much_and_no_more() {
    let mutation = HeaderMutation {
        set_headers: (0..100)
            .map(|number| option(&format!("x-{number}"), &"v".repeat(4096)))
            .collect(),
        remove_headers: Vec::new(),
    };
    let mut request = head(REQUEST);
    apply(&mutation, &told(&request), &mut request);
    assert!(written(&request).len() < MOST_BYTES + 1024);
}

#[test]
fn what_is_sent_back_as_it_was_told_is_no_change() {
    let had = "accept: one\r\naccept: two\r\nx-served: old\r\n";
    let text = format!("GET / HTTP/1.1\r\nhost: a\r\n{had}\r\n");
    for (sent, expected) in [
        (&[("accept", "one"), ("accept", "two")][..], had),
        // Its own value, and then the one that was there.
        (
            &[("x-served", "new"), ("x-served", "old")],
            "accept: one\r\naccept: two\r\nx-served: new\r\n",
        ),
        (&[("x-served", "old"), ("x-served", "old")], had),
        (&[("accept", "two")], "x-served: old\r\naccept: two\r\n"),
        (
            &[("x-new", "a"), ("x-new", "b"), ("x-new", "a")],
            &format!("{had}x-new: a\r\nx-new: b\r\n"),
        ),
    ] {
        let mutation = HeaderMutation {
            set_headers: sent
                .iter()
                .map(|(name, value)| option(name, value))
                .collect(),
            remove_headers: Vec::new(),
        };
        let mut request = head(&text);
        apply(&mutation, &told(&request), &mut request);
        let written = written(&request);
        let rest = written.split_once("host: a\r\n").unwrap().1;
        assert_eq!(rest, format!("{expected}\r\n"), "{sent:?}");
    }
}

fn told(head: &RequestHead) -> HeaderMap {
    let mut text = Vec::new();
    head.write(http1::Framing::None, &mut text);
    request_fields(head, &text, false)
}

#[test]
fn a_request_is_told_with_its_edits_and_without_its_hop() {
    let mut request = head(
        "POST /v1?q HTTP/1.1\r\nHost: a.example\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
         X-Own: yes\r\ncontent-length: 3\r\n\r\n",
    );
    request.set("x-request-id", b"7");
    let mut text = Vec::new();
    request.write(http1::Framing::Length(3), &mut text);
    let told = request_fields(&request, &text, true).headers;
    let told: Vec<(&str, &str)> = told
        .iter()
        .map(|one| (one.key.as_str(), std::str::from_utf8(one.bytes()).unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "a.example"),
            (":path", "/v1?q"),
            ("x-own", "yes"),
            ("content-length", "3"),
            ("x-request-id", "7"),
        ]
    );
}

#[test]
fn an_answer_of_its_own_is_written_with_sane_framing() {
    let answer = ImmediateResponse {
        status: Some(HttpStatus { code: 429 }),
        headers: Some(HeaderMutation {
            set_headers: vec![
                option("retry-after", "7"),
                option("content-length", "9999"),
                option("transfer-encoding", "chunked"),
                option("x-request-id", "theirs"),
            ],
            remove_headers: Vec::new(),
        }),
        body: b"too much".to_vec(),
        grpc_status: None,
        details: String::new(),
    };
    let mut out = Vec::new();
    answer.write(&[("x-request-id", "ours")], true, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("HTTP/1.1 429 "), "{text}");
    assert!(text.ends_with("\r\n\r\ntoo much"), "{text}");
    for part in ["retry-after: 7", "x-request-id: ours", "content-length: 8"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    for part in ["theirs", "chunked", "9999"] {
        assert!(!text.contains(part), "{part} in {text}");
    }
    for (code, status) in [(0, 500), (100, 500), (204, 204), (999, 500), (-1, 500)] {
        let answer = ImmediateResponse {
            status: Some(HttpStatus { code }),
            ..answer.clone()
        };
        assert_eq!(answer.status(), status, "{code}");
    }
}
