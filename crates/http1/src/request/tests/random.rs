//! Random requests: any split reads the same, what is written reads back as it was.

use super::*;

/// Fields of all kinds, so that runs begin and end everywhere.
fn any_field() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![
        3 => "[a-zA-Z][a-zA-Z0-9_-]{0,20}",
        1 => prop::sample::select(vec![
            "Connection", "keep-alive", "TE", "Trailer", "Upgrade", "x-a", "X-A", "x-b",
            "content-type", "Authorization",
        ]).prop_map(str::to_owned),
    ];
    let value = prop_oneof![
        2 => "[ -~\t]{0,30}",
        1 => prop::sample::select(vec!["x-a", "x-a, X-B", "close", "host", "content-length, te"])
            .prop_map(str::to_owned),
    ];
    let is_framing = |name: &str| {
        let kind = Kind::of(name.as_bytes());
        matches!(
            kind,
            Kind::Host | Kind::ContentLength | Kind::TransferEncoding | Kind::Expect
        )
    };
    (name, value).prop_filter("framing comes apart", move |(name, _)| !is_framing(name))
}

prop_compose! {
    fn any_request()(
        method in "[A-Z]{1,8}",
        target in "/[!$-;=?-Z_a-z~]{0,40}",
        fields in prop::collection::vec(any_field(), 0..8),
        framing in prop::sample::select(vec![
            "", "Content-Length: 0\r\n", "content-length: 0017\r\n", "Transfer-Encoding:chunked\r\n",
        ]),
        split in 0usize..8,
    ) -> Vec<u8> {
        let method = if method == "CONNECT" { "GET".to_owned() } else { method };
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        for (number, (name, value)) in fields.iter().enumerate() {
            if number == split {
                text.push_str("Host: a:1\r\n");
            }
            text.push_str(&format!("{name}:{value}\r\n"));
        }
        if split >= fields.len() {
            text.push_str("Host: a:1\r\n");
        }
        text.push_str(framing);
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// What must go on, found in the plainest way.
fn end_to_end(head: &RequestHead) -> Vec<(String, Vec<u8>)> {
    let kept = ["host", "content-type", "content-encoding", "authorization"];
    let mut cut: Vec<String> = "connection keep-alive proxy-connection te trailer upgrade expect \
        http2-settings proxy-authenticate proxy-authorization content-length transfer-encoding"
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    for (name, value) in head.fields() {
        if name.eq_ignore_ascii_case("connection") {
            let value = String::from_utf8_lossy(value).to_ascii_lowercase();
            cut.extend(value.split(',').map(|option| option.trim().to_owned()));
        }
    }
    head.fields()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()))
        .filter(|(name, _)| kept.contains(&name.as_str()) || !cut.contains(name))
        .collect()
}

fn check_same(one: &RequestHead, other: &RequestHead) -> Result<(), TestCaseError> {
    let line = |head: &RequestHead| {
        let [method, target, path] = [head.method(), head.target(), head.path()].map(str::to_owned);
        (
            method,
            target,
            path,
            head.query().map(str::to_owned),
            head.version_minor(),
        )
    };
    prop_assert_eq!(line(one), line(other));
    let rest = |head: &RequestHead| {
        let [host, upgrade] = [Some(head.host()), head.upgrade()].map(|it| it.map(str::to_owned));
        let told = (head.keep_alive(), head.expects_continue(), head.framing());
        (host, upgrade, told)
    };
    prop_assert_eq!(rest(one), rest(other));
    prop_assert!(one.fields().eq(other.fields()));
    for name in ["host", "x-a", "x-b", "content-type", "connection"] {
        prop_assert_eq!(one.get(name), other.get(name));
    }
    if !one.method().is_empty() {
        let mut written = [Vec::new(), Vec::new()];
        one.write(one.framing(), &mut written[0]);
        other.write(other.framing(), &mut written[1]);
        prop_assert_eq!(&written[0], &written[1]);
    }
    Ok(())
}

proptest! {
    #[test]
    fn reads_the_same_wherever_it_is_split(input in any_request(), more in ".{0,20}") {
        let mut head = RequestHead::new();
        for end in 0..input.len() {
            prop_assert_eq!(head.parse(&input[..end], &Limits::default()), Ok(Parsed::Incomplete));
        }
        let whole = parse(&input);
        let with_more = [&input, more.as_bytes()].concat();
        let parsed = head.parse(&with_more, &Limits::default());
        prop_assert_eq!(parsed, Ok(Parsed::Complete { head_bytes: input.len() }));
        prop_assert!(whole.fields().eq(head.fields()));
        prop_assert_eq!(whole.framing(), head.framing());
    }

    #[test]
    fn a_head_is_read_as_if_none_had_come_before(
        first in any_request(),
        other in any_request(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"0123456789\r\n \t:,".to_vec())],
        edits in any::<bool>(),
    ) {
        let mut changed = first.clone();
        let at = at.index(changed.len());
        changed[at] = byte;
        let mut head = RequestHead::new();
        for input in [&first, &first, &changed, &changed, &first, &other, &first, &other, &other] {
            let mut alone = RequestHead::new();
            let parsed = alone.parse(input, &Limits::default());
            prop_assert_eq!(head.parse(input, &Limits::default()), parsed);
            check_same(&head, &alone)?;
            if edits {
                head.remove("x-a");
                head.set("x-b", b"1");
                head.set_target("/elsewhere?a=b");
                head.set_host("elsewhere");
            }
            head.clear();
            check_same(&head, &RequestHead::new())?;
        }
    }

    #[test]
    fn what_is_written_reads_as_the_same_request(input in any_request(), length in any::<u32>()) {
        let head = parse(&input);
        for body in [head.framing(), Framing::Length(length.into()), Framing::Chunked] {
            let mut out = Vec::new();
            head.write(body, &mut out);
            let next = parse(&out);
            prop_assert_eq!(
                (next.method(), next.target(), next.host()),
                (head.method(), head.target(), head.host())
            );
            prop_assert_eq!(next.framing(), body);
            prop_assert_eq!(end_to_end(&next), end_to_end(&head));
            let framing_fields = usize::from(body != Framing::None);
            prop_assert_eq!(next.fields().count(), end_to_end(&head).len() + framing_fields);
            let mut again = Vec::new();
            next.write(body, &mut again);
            prop_assert_eq!(again, out);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_have_clean_lines(
        mut input in any_request(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"\r\n \t:,/".to_vec())],
        is_insert in any::<bool>(),
    ) {
        let at = at.index(input.len());
        if is_insert { input.insert(at, byte) } else { input[at] = byte }
        let mut head = RequestHead::new();
        if let Ok(Parsed::Complete { head_bytes }) = head.parse(&input, &Limits::default()) {
            let taken = &input[..head_bytes];
            for line_feed in memchr::memchr_iter(b'\n', taken) {
                prop_assert!(line_feed > 0 && taken[line_feed - 1] == b'\r');
            }
            let returns = memchr::memchr_iter(b'\r', taken).count();
            prop_assert_eq!(returns, memchr::memchr_iter(b'\n', taken).count());
            prop_assert!(!taken.contains(&0));
        }
    }
}
