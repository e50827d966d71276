//! The event rules, and their independence of the borders of pieces.

use super::*;
use proptest::prelude::*;

type Seen = (String, String, usize, bool);

/// Events of a stream cut at `cuts`, with their ends counted from the stream's start.
fn scan(bytes: &[u8], cuts: &[usize]) -> Vec<Seen> {
    let mut sse = SseScan::default();
    let mut all = Vec::new();
    let mut borders = vec![0];
    borders.extend(cuts.iter().map(|cut| cut % (bytes.len() + 1)));
    borders.push(bytes.len());
    borders.sort_unstable();
    for pair in borders.windows(2) {
        sse.feed(&bytes[pair[0]..pair[1]], |event| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            all.push((
                text(event.name),
                text(event.data),
                pair[0] + event.end,
                event.oversized,
            ));
        });
    }
    all
}

fn names_and_data(bytes: &str) -> Vec<(String, String)> {
    scan(bytes.as_bytes(), &[])
        .into_iter()
        .map(|(name, data, ..)| (name, data))
        .collect()
}

#[test]
fn follows_the_rules_for_event_streams() {
    let cases: [(&str, &[(&str, &str)]); 16] = [
        ("data: a\n\n", &[("", "a")]),
        ("data:a\n\ndata:  b\n\n", &[("", "a"), ("", " b")]),
        (
            "data: a\r\n\r\ndata: b\r\rdata: c\n\r\n",
            &[("", "a"), ("", "b"), ("", "c")],
        ),
        ("event: e\ndata: a\n\ndata: b\n\n", &[("e", "a"), ("", "b")]),
        ("data: a\nevent: e\nevent:f\n\n", &[("f", "a")]),
        ("data: a\ndata: b\r\ndata\rdata:c\n\n", &[("", "a\nb\n\nc")]),
        (
            ": comment\ndata: a\nid: 7\nretry: 9\nother\n\n",
            &[("", "a")],
        ),
        (": ping\n\n", &[]),
        ("event: e\n\ndata: a\n\n", &[("", "a")]),
        ("data:\n\n", &[("", "")]),
        ("data\n\n", &[("", "")]),
        ("\u{feff}data: a\n\n", &[("", "a")]),
        ("\u{feff}\ndata: a\n\n\u{feff}data: b\n\n", &[("", "a")]),
        ("\u{feff}data: a\ndata: b\n\n", &[("", "a\nb")]),
        ("\n\n\ndata: a\n\n\n\n", &[("", "a")]),
        ("data: a\n\ndata: incomplete\n", &[("", "a")]),
    ];
    for (bytes, expected) in cases {
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, data)| ((*name).to_owned(), (*data).to_owned()))
            .collect();
        assert_eq!(names_and_data(bytes), expected, "{}", bytes.escape_debug());
    }
}

#[test]
fn reports_long_events_without_their_data() {
    for (length, oversized) in [(WINDOW_BYTES - 17, false), (WINDOW_BYTES - 16, true)] {
        let long = format!("event: e\ndata: {}\n\n", "x".repeat(length));
        let stream = format!("data: a\n\n{long}data: b\n\n");
        let whole = scan(stream.as_bytes(), &[]);
        let kinds: Vec<_> = whole
            .iter()
            .map(|event| (event.0.as_str(), event.3))
            .collect();
        assert_eq!(
            kinds,
            [("", false), ("e", oversized), ("", false)],
            "{length}"
        );
        assert_eq!(whole[1].2, 9 + long.len());
        for cuts in [
            vec![20],
            vec![9, 10],
            vec![12, 40_000, 65_000],
            vec![9 + 65_536, 9 + 65_537],
        ] {
            assert_eq!(scan(stream.as_bytes(), &cuts), whole, "{length} {cuts:?}");
        }
    }
}

#[test]
fn holds_a_bounded_window() {
    let mut sse = SseScan::default();
    for _ in 0..1000 {
        sse.feed(&[b'x'; 1000], |_| panic!("no event ends here"));
        assert!(sse.held.capacity() <= 4 * WINDOW_BYTES);
    }
    sse.feed(b"\n\ndata: a\n\n", |_| {});
    assert_eq!(sse.held.capacity(), 0);
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        atoms in prop::collection::vec(prop::sample::select(vec![
            "\n", "\r", "\r\n", "\n\n", "\r\n\r\n", "data: ", "data", "event: e", ":", "x", "\u{feff}",
        ]), 0..30),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let bytes = atoms.concat().into_bytes();
        let whole = scan(&bytes, &[]);
        prop_assert_eq!(&scan(&bytes, &cuts), &whole);
        prop_assert_eq!(scan(&bytes, &(0..bytes.len()).collect::<Vec<_>>()), whole);
    }
}
