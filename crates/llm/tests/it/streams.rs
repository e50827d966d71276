//! Recorded event streams: progress, usage, endings, and the rename.

use crate::recorded::{Recorded, answers, in_every_way};
use llm::Ended::{self, Cut, Done};
use llm::{Api, CutCause, FirstEvent, ModelRename, Seen, StreamScan, Usage};

/// Prompt, completion and cached tokens, as the engine told them.
type Told = Option<(u32, u32, Option<u32>)>;

/// Name, content events, usage, ending. All of them begin with content.
const STREAMS: [(&str, u64, Told, Ended); 22] = [
    (
        "llama-server-b1-0c1e570/chat-stream-usage",
        6,
        Some((32, 6, Some(31))),
        Done,
    ),
    ("llama-server-b1-0c1e570/chat-stream", 6, None, Done),
    (
        "llama-server-b1-0c1e570/completion-stream",
        4,
        Some((2, 4, Some(1))),
        Done,
    ),
    // The second choice opens after the first one's text: its opening counts, too.
    ("sglang-0.5.23/chat-stream-n2", 6, None, Done),
    (
        "sglang-0.5.23/chat-stream-usage",
        4,
        Some((13, 6, Some(0))),
        Done,
    ),
    ("sglang-0.5.23/chat-stream", 4, None, Done),
    ("sglang-0.5.23/chat-tool-forced-stream", 64, None, Done),
    (
        "sglang-0.5.23/completion-stream",
        4,
        Some((3, 4, Some(0))),
        Done,
    ),
    // One event lies across the part that was cut out, and is no JSON.
    ("sglang-0.5.23/err-unknown-model-stream", 7, None, Done),
    (
        "sglang-0.5.23/prefix-stream-usage",
        3,
        Some((163, 4, Some(160))),
        Done,
    ),
    (
        "sglang-0.5.23/responses-stream",
        1,
        Some((13, 2, Some(0))),
        Done,
    ),
    (
        "vllm-0.32.0-smollm2/chat-stream-usage",
        40,
        Some((34, 40, None)),
        Done,
    ),
    ("vllm-0.32.0/chat-lora-b-stream", 3, None, Done),
    ("vllm-0.32.0/chat-stream-n2", 5, None, Done),
    (
        "vllm-0.32.0/chat-stream-usage",
        3,
        Some((13, 6, Some(0))),
        Done,
    ),
    ("vllm-0.32.0/chat-stream", 3, None, Done),
    ("vllm-0.32.0/chat-tool-forced-stream", 35, None, Done),
    (
        "vllm-0.32.0/completion-stream",
        4,
        Some((3, 4, Some(0))),
        Done,
    ),
    (
        "vllm-0.32.0/prefix-second-stream-usage",
        4,
        Some((163, 4, Some(160))),
        Done,
    ),
    (
        "vllm-0.32.0/responses-stream",
        2,
        Some((13, 4, Some(0))),
        Done,
    ),
    (
        "vllm-0.32.0/stream-cut-enginecore-sigkill",
        3,
        None,
        Cut(CutCause::Error { status: 500 }),
    ),
    (
        "vllm-0.32.0/stream-cut-sigterm",
        3,
        None,
        Cut(CutCause::Abort),
    ),
];

/// The outcome of a scan, with the place of a cut counted from the stream's start.
#[derive(Debug, PartialEq)]
struct Outcome {
    events: u64,
    seen_events: u64,
    usage: Usage,
    ended: Ended,
    first: Option<FirstEvent>,
    cut_at: Option<usize>,
    error_status: Option<u16>,
}

fn scan<'a>(api: Api, pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut scan = StreamScan::new(api);
    let (mut fed, mut seen_events, mut cut_at, mut error_status) = (0, 0, None, None);
    for piece in pieces {
        let seen: Seen = scan.feed(piece);
        seen_events += u64::from(seen.events);
        cut_at = cut_at.or(seen.cut_at.map(|at| fed + at));
        error_status = error_status.or(seen.error_status);
        fed += piece.len();
    }
    Outcome {
        events: scan.events(),
        seen_events,
        usage: scan.usage(),
        ended: scan.ended(),
        first: scan.first_event(),
        cut_at,
        error_status,
    }
}

fn expected(answer: &Recorded) -> Outcome {
    let row = STREAMS.iter().find(|row| row.0 == answer.name);
    let (_, events, told, ended) = *row.unwrap_or_else(|| panic!("{} has no row", answer.name));
    let usage = match told {
        Some((prompt_tokens, completion_tokens, cached_tokens)) => Usage {
            prompt_tokens,
            completion_tokens,
            cached_tokens,
            estimated: false,
        },
        None => Usage {
            completion_tokens: u32::try_from(events).unwrap(),
            estimated: true,
            ..Usage::default()
        },
    };
    // A recorded stream that was cut ends with the cutting event and `[DONE]`.
    let cut_at = matches!(ended, Cut(_)).then(|| {
        let text = str::from_utf8(&answer.body).unwrap();
        text.rfind("data: [DONE]").unwrap()
    });
    let error_status = matches!(ended, Cut(CutCause::Error { .. })).then_some(500);
    let first = Some(FirstEvent::Content);
    Outcome {
        events,
        seen_events: events,
        usage,
        ended,
        first,
        cut_at,
        error_status,
    }
}

#[test]
fn scans_recorded_streams_alike_however_cut() {
    let mut streams = 0;
    for answer in answers().iter().filter(|answer| answer.is_event_stream()) {
        let expected = expected(answer);
        in_every_way(&answer.body, |pieces| {
            assert_eq!(scan(answer.api(), pieces), expected, "{}", answer.name);
        });
        streams += 1;
    }
    assert_eq!(streams, STREAMS.len());
}

#[test]
fn tells_that_a_stream_without_its_end_is_open() {
    for answer in answers().iter().filter(|answer| answer.is_event_stream()) {
        let text = str::from_utf8(&answer.body).unwrap();
        let last = text.trim_end().rfind("\n\n").unwrap() + 2;
        let outcome = scan(answer.api(), std::iter::once(&answer.body[..last]));
        if !matches!(outcome.ended, Cut(_)) {
            assert_eq!(outcome.ended, Ended::Open, "{}", answer.name);
        }
    }
}

/// The line as it should be: whole events only, nothing in what the cut recordings left over.
fn renamed(line: &str) -> String {
    let names = ["tiny", "lora-b", "nope", "smollm2-135m"];
    let is_event = line.starts_with("data: {") && line.ends_with("}\n");
    names
        .into_iter()
        .filter(|_| is_event)
        .fold(line.to_owned(), |line, name| {
            line.replace(&format!("\"model\":\"{name}\""), "\"model\":\"as-asked\"")
        })
}

#[test]
fn renames_recorded_streams_alike_however_cut() {
    for answer in answers().iter().filter(|answer| answer.is_event_stream()) {
        let text = str::from_utf8(&answer.body).unwrap();
        let expected = text.split_inclusive('\n').map(renamed).collect::<String>();
        in_every_way(&answer.body, |pieces| {
            let mut rename = ModelRename::new(answer.api(), "as-asked", true);
            let mut out = Vec::new();
            pieces.for_each(|piece| rename.feed(piece, &mut out));
            rename.finish(&mut out);
            assert!(out == expected.as_bytes(), "{}", answer.name);
        });
    }
}
