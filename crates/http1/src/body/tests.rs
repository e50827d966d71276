//! Bodies: strict chunks, every refusal, the same payload wherever the input is split.
use proptest::prelude::*;

use super::*;

/// A chunked body up to the fault, status, code.
pub(crate) const REFUSED: &[(&[u8], u16, &str)] = &[
    (b"\r\n", 400, "invalid_chunk_size"),
    (b";x\r\n", 400, "invalid_chunk_size"),
    (b"0x5\r\nhello\r\n", 400, "invalid_chunk_size"),
    (b"+5\r\nhello\r\n", 400, "invalid_chunk_size"),
    (b"-5\r\n", 400, "invalid_chunk_size"),
    (b" 5\r\nhello\r\n", 400, "invalid_chunk_size"),
    (b"5 \r\nhello\r\n", 400, "invalid_chunk_size"),
    (b"5 ;x\r\nhello\r\n", 400, "invalid_chunk_size"),
    (b"g\r\n", 400, "invalid_chunk_size"),
    (b"5_0\r\n", 400, "invalid_chunk_size"),
    (b"5\nhello\r\n", 400, "invalid_chunk_size"),
    (b"5\rhello\r\n", 400, "invalid_chunk_size"),
    (b"5\r\rhello", 400, "invalid_chunk_size"),
    (b"0\n\n", 400, "invalid_chunk_size"),
    (b"\xB2\r\n", 400, "invalid_chunk_size"),
    (b"1000000000000000\r\n", 400, "chunk_size_overflow"),
    (b"fffffffffffffffff\r\n", 400, "chunk_size_overflow"),
    (b"0000000000000005\r\n", 400, "chunk_size_overflow"),
    (b"5;x\nhello\r\n", 400, "invalid_chunk_extension"),
    (b"5;x\x00\r\nhello\r\n", 400, "invalid_chunk_extension"),
    (b"5;x=\"\n\"\r\nhello\r\n", 400, "invalid_chunk_extension"),
    (b"5;x\ry\r\nhello\r\n", 400, "invalid_chunk_size"),
    (
        b"5;123456789\r\nhello\r\n",
        400,
        "chunk_extension_too_large",
    ),
    (b"5\r\nhello\n", 400, "invalid_chunk_end"),
    (b"5\r\nhello0\r\n", 400, "invalid_chunk_end"),
    (b"5\r\nhello\rx", 400, "invalid_chunk_end"),
    (b"5\r\nhello\r\r\n", 400, "invalid_chunk_end"),
    (b"5\r\nhello world\r\n", 400, "invalid_chunk_end"),
    (b"0\r\n\n", 400, "invalid_trailer"),
    (b"0\r\n\rx", 400, "invalid_trailer"),
    (b"0\r\nGET / HTTP/1.1\r\n", 400, "invalid_trailer"),
    (b"0\r\nx\r\n", 400, "invalid_trailer"),
    (b"0\r\n: y\r\n", 400, "invalid_trailer"),
    (b"0\r\nx : y\r\n", 400, "invalid_trailer"),
    (b"0\r\n x: y\r\n", 400, "invalid_trailer"),
    (b"0\r\nx: y\nz: 1\r\n", 400, "invalid_trailer"),
    (b"0\r\nx: y\rz", 400, "invalid_trailer"),
    (b"0\r\nx: \x00\r\n", 400, "invalid_trailer"),
    (b"0\r\ncontent-length: 5\r\n", 400, "forbidden_trailer"),
    (
        b"0\r\nTransfer-Encoding: chunked\r\n",
        400,
        "forbidden_trailer",
    ),
    (b"0\r\nx: y\r\nHost: b\r\n", 400, "forbidden_trailer"),
    (b"0\r\nConnection: x\r\n", 400, "forbidden_trailer"),
    (b"0\r\nauthorization: x\r\n", 400, "forbidden_trailer"),
    (
        b"0\r\nx: 3456789012345678901234567890\r\n",
        431,
        "trailers_too_large",
    ),
];

#[test]
fn refuses_loose_chunks() {
    for (input, status, code) in REFUSED {
        for step in [input.len(), 1] {
            let refusal = decode(Framing::Chunked, input, step).expect_err(&show(input));
            assert_eq!(
                (refusal.status, refusal.code),
                (*status, *code),
                "{}",
                show(input)
            );
        }
    }
}

/// Framing, input, payload, bytes used, done.
type Accepted = (Framing, &'static [u8], &'static [u8], usize, bool);

#[rustfmt::skip]
const ACCEPTED: &[Accepted] = &[
    (Framing::None, b"", b"", 0, true),
    (Framing::None, b"GET /", b"", 0, true),
    (Framing::Length(0), b"GET /", b"", 0, true),
    (Framing::Length(5), b"hell", b"hell", 4, false),
    (Framing::Length(5), b"hello", b"hello", 5, true),
    (Framing::Length(5), b"hello GET /", b"hello", 5, true),
    (Framing::Close, b"hello", b"hello", 5, false),
    (Framing::Chunked, b"0\r\n\r\n", b"", 5, true),
    (Framing::Chunked, b"000\r\n\r\n0", b"", 7, true),
    (Framing::Chunked, b"5\r\nhello\r\n0\r\n\r\nGET /", b"hello", 15, true),
    (Framing::Chunked, b"00000000000000A\r\n0123456789\r\n1\r\n!\r\n0\r\n\r\n", b"0123456789!", 40, true),
    (Framing::Chunked, b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", 12, true),
    (Framing::Chunked, b"1;12345678\r\nx\r\n0;a=\"b\t\"\r\n\r\n", b"x", 27, true),
    (Framing::Chunked, b"1;\r\nx\r\n0\r\n\r\n", b"x", 12, true),
    (Framing::Chunked, b"0\r\nx:\r\nY-z: \xE9\t\r\n\r\n", b"", 18, true),
    (Framing::Chunked, b"0\r\nx: 3456789012345678\r\n\r\n", b"", 26, true),
    (Framing::Chunked, b"0\r\n\r", b"", 4, false),
    (Framing::Chunked, b"fffffffffffffff\r\nabc", b"abc", 20, false),
];

#[test]
fn hands_out_payload_and_finds_the_end_also_byte_by_byte() {
    for (framing, input, payload, used, is_done) in ACCEPTED {
        for step in [input.len().max(1), 1, 2, 3] {
            let decoded = decode(*framing, input, step).expect("valid body");
            let seen = (decoded.payload.as_slice(), decoded.used, decoded.is_done);
            assert_eq!(
                seen,
                (*payload, *used, *is_done),
                "{} by {step}",
                show(input)
            );
        }
        let reader = BodyReader::new(*framing, &Limits::default());
        assert_eq!(reader.ends_at_close(), *framing == Framing::Close);
    }
}

#[test]
fn hands_out_pieces_of_the_input_itself() {
    let input = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".as_slice();
    let mut pieces = Vec::new();
    let mut reader = BodyReader::new(Framing::Chunked, &Limits::default());
    let used = reader.feed(input, |piece| pieces.push(piece));
    assert_eq!(used, Ok(input.len()));
    assert_eq!(pieces, [b"abc".as_slice(), b"de"]);
    assert!(
        pieces
            .iter()
            .all(|piece| input.as_ptr_range().contains(&piece.as_ptr()))
    );
}

#[derive(Debug)]
struct Decoded {
    payload: Vec<u8>,
    used: usize,
    is_done: bool,
}

fn decode(framing: Framing, input: &[u8], step: usize) -> Result<Decoded, Refusal> {
    decode_pieces(framing, input.chunks(step))
}

fn decode_pieces<'a>(
    framing: Framing,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Decoded, Refusal> {
    let limits = Limits {
        chunk_extension_bytes: 8,
        trailer_bytes: 21,
        ..Limits::default()
    };
    let mut reader = BodyReader::new(framing, &limits);
    let (mut payload, mut used) = (Vec::new(), 0);
    for piece in pieces {
        let taken = reader.feed(piece, |bytes| {
            assert!(!bytes.is_empty());
            payload.extend_from_slice(bytes);
        })?;
        assert!(taken == piece.len() || reader.is_done());
        used += taken;
    }
    Ok(Decoded {
        payload,
        used,
        is_done: reader.is_done(),
    })
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

proptest! {
    #[test]
    fn decodes_what_was_chunked_wherever_it_is_split(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..8),
        mut cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut text = Vec::new();
        for chunk in &chunks {
            crate::write_chunk(chunk, &mut text);
        }
        text.extend_from_slice(crate::LAST_CHUNK);
        let end = text.len();
        text.extend_from_slice(&behind);
        cuts.sort_by_key(|cut| cut.index(text.len()));
        let mut pieces = Vec::new();
        let mut rest = text.as_slice();
        for cut in cuts {
            let (piece, later) = rest.split_at(cut.index(text.len()) - (text.len() - rest.len()));
            pieces.push(piece);
            rest = later;
        }
        pieces.push(rest);
        let decoded = decode_pieces(Framing::Chunked, pieces.into_iter()).expect("valid chunks");
        prop_assert_eq!(decoded.payload, chunks.concat());
        prop_assert_eq!((decoded.used, decoded.is_done), (end, true));
    }

    #[test]
    fn any_bytes_give_the_same_whole_or_split(
        input in "([0-9a-fA-F]{1,2}|[;\r\n:x ]|\r\n){0,12}".prop_map(String::into_bytes),
        step in 1usize..4,
    ) {
        let whole = decode(Framing::Chunked, &input, input.len().max(1));
        let split = decode(Framing::Chunked, &input, step);
        match (whole, split) {
            (Ok(whole), Ok(split)) => {
                prop_assert_eq!(whole.payload, split.payload);
                prop_assert_eq!((whole.used, whole.is_done), (split.used, split.is_done));
            }
            (Err(whole), Err(split)) => prop_assert_eq!(whole, split),
            (whole, split) => prop_assert!(false, "{:?} but {:?}", whole, split),
        }
    }
}

#[test]
fn trailers_are_found_wherever_the_input_is_split() {
    let lines = b"x-a: b\r\ny: 0\r\n";
    let body = [&b"3\r\nabc\r\n0\r\n"[..], lines, b"\r\nHTTP/1.1"].concat();
    for first in 0..body.len() {
        for second in first..body.len() {
            let mut reader = BodyReader::new(Framing::Chunked, &Limits::default());
            let mut found = Vec::new();
            for part in [&body[..first], &body[first..second], &body[second..]] {
                let left = reader.trailer_bytes_left();
                let used = reader.feed(part, |_| {}).unwrap();
                found.extend_from_slice(reader.trailers_in(&part[..used], left));
            }
            assert!(reader.is_done());
            assert_eq!(found, lines, "{first} {second}");
        }
    }
}
