//! Stream scan, renames and body scan on any bytes: borders of pieces change nothing, bounds hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::{Api, BodyScan, ModelRename, StreamScan};

const APIS: [Api; 4] = [Api::ChatCompletions, Api::Completions, Api::Responses, Api::Messages];

/// Everything that a stream was seen to be, and what the renames made of it.
#[derive(Debug, PartialEq)]
struct Outcome {
    scan: String,
    /// How many bytes the client may see.
    visible: usize,
    cut: bool,
    error_status: Option<u16>,
    renamed: [Vec<u8>; 2],
}

fn run<'a>(api: Api, pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let (mut scan, mut body) = (StreamScan::new(api), BodyScan::new());
    let mut renames = [true, false].map(|stream| ModelRename::new(api, "asked", stream));
    let mut outcome =
        Outcome { scan: String::new(), visible: 0, cut: false, error_status: None, renamed: Default::default() };
    let mut fed = 0;
    for piece in pieces {
        let seen = scan.feed(piece);
        outcome.error_status = outcome.error_status.or(seen.error_status);
        if let Some(at) = seen.cut_at {
            assert!(at <= piece.len() && !outcome.cut);
            outcome.cut = true;
            // An end mark that ends nothing is held back from its first byte on.
            if at > 0 {
                outcome.visible = fed + at;
            }
        }
        fed += piece.len();
        if !outcome.cut {
            let certain = fed.checked_sub(scan.doubtful_bytes()).expect("fed before it is doubtful");
            assert!(certain >= outcome.visible, "what the client has seen is doubtful again");
            outcome.visible = certain;
        }
        body.feed(piece);
        for (rename, out) in renames.iter_mut().zip(&mut outcome.renamed) {
            rename.feed(piece, out);
        }
    }
    let (usage, events, ended) = (scan.usage(), scan.events(), scan.ended());
    let first = scan.first_event();
    outcome.scan = format!("{usage:?} {events} {ended:?} {first:?} {:?}", body.usage());
    outcome
}

fuzz_target!(|bytes: &[u8]| {
    let [api, size, stream @ ..] = bytes else {
        return;
    };
    let api = APIS[usize::from(*api) % APIS.len()];
    let whole = run(api, std::iter::once(stream));
    assert_eq!(run(api, stream.chunks(usize::from(*size) + 1)), whole);
    assert_eq!(run(api, stream.chunks(1)), whole);
});
