//! Chunked bodies: any bytes give the same payload, end and refusal whole or split, and what was
//! decoded comes back from our own chunks.
//!
//! The first byte of the input says how long the pieces are.
#![no_main]

use http1::{BodyReader, Framing, LAST_CHUNK, Limits, Refusal};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, PartialEq)]
struct Decoded {
    payload: Vec<u8>,
    used: usize,
    is_done: bool,
}

fuzz_target!(|input: &[u8]| {
    let Some((step, body)) = input.split_first() else {
        return;
    };
    let whole = decode(body, body.len().max(1));
    let split = decode(body, usize::from(*step % 64) + 1);
    assert_eq!(
        whole, split,
        "the result depends on where the input is split"
    );
    let Ok(decoded) = whole else { return };
    assert!(
        decoded.used == body.len() || decoded.is_done,
        "bytes were left before the end"
    );
    if decoded.is_done {
        assert!(
            body[..decoded.used].ends_with(b"\r\n\r\n"),
            "the end is an empty line"
        );
        let framing = &body[..decoded.used];
        // What goes on byte for byte must have one end only, however it is read.
        assert_eq!(
            decode(framing, framing.len()).map(|it| it.used),
            Ok(decoded.used)
        );
    }
    let mut again = Vec::new();
    for piece in decoded.payload.chunks(usize::from(*step) + 1) {
        http1::write_chunk(piece, &mut again);
    }
    again.extend_from_slice(LAST_CHUNK);
    let decoded_again = decode(&again, again.len()).expect("our own chunks are valid");
    assert_eq!(decoded_again.payload, decoded.payload);
    assert!(decoded_again.is_done && decoded_again.used == again.len());
});

fn decode(body: &[u8], step: usize) -> Result<Decoded, Refusal> {
    let mut reader = BodyReader::new(Framing::Chunked, &Limits::default());
    let (mut payload, mut used) = (Vec::new(), 0);
    for piece in body.chunks(step) {
        let taken = reader.feed(piece, |bytes| {
            assert!(!bytes.is_empty(), "empty payload");
            payload.extend_from_slice(bytes);
        })?;
        used += taken;
        if reader.is_done() {
            break;
        }
        assert_eq!(taken, piece.len(), "bytes were left before the end");
    }
    Ok(Decoded {
        payload,
        used,
        is_done: reader.is_done(),
    })
}
