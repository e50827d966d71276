//! Reads the recordings: raw bytes as the socket received them, chunk framing included.

use llm::Api;
use std::fs;
use std::path::{Path, PathBuf};

/// One recorded answer.
pub(crate) struct Recorded {
    /// `SERVER/NAME`, without the file's extension.
    pub(crate) name: String,
    pub(crate) status: u16,
    /// The head in lower case.
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Recorded {
    pub(crate) fn is_event_stream(&self) -> bool {
        self.head.contains("\ncontent-type: text/event-stream")
    }

    /// The API that was asked, as far as the name tells.
    pub(crate) fn api(&self) -> Api {
        let name = self.name.rsplit('/').next().unwrap();
        match name {
            _ if name.starts_with("completion") => Api::Completions,
            _ if name.starts_with("responses") => Api::Responses,
            _ if name.starts_with("anthropic") => Api::Messages,
            _ if name.starts_with("embeddings") => Api::Embeddings,
            _ => Api::ChatCompletions,
        }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

/// A recorded file that is no HTTP answer.
pub(crate) fn file(name: &str) -> Vec<u8> {
    fs::read(folder().join(name)).unwrap()
}

/// All recorded answers, sorted by name.
pub(crate) fn answers() -> Vec<Recorded> {
    let mut all = Vec::new();
    for server in fs::read_dir(folder()).unwrap().map(Result::unwrap) {
        for entry in fs::read_dir(server.path()).unwrap().map(Result::unwrap) {
            let file = entry.file_name().into_string().unwrap();
            if let Some(name) = file.strip_suffix(".resp.http") {
                let name = format!("{}/{name}", server.file_name().to_str().unwrap());
                all.push(parse(name, &fs::read(entry.path()).unwrap()));
            }
        }
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(all.len() > 100, "the recordings are there");
    all
}

fn parse(name: String, raw: &[u8]) -> Recorded {
    let end = raw
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8(raw[..end].to_vec())
        .unwrap()
        .to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = &raw[end + 4..];
    let body = if !head.contains("\ntransfer-encoding: chunked") {
        body.to_vec()
    } else if body.windows(6).any(|window| window == b"...CUT") {
        without_framing_lines(body)
    } else {
        dechunk(body)
    };
    Recorded {
        name,
        status,
        head,
        body,
    }
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = rest
            .windows(2)
            .position(|window| window == b"\r\n")
            .unwrap();
        let size = usize::from_str_radix(str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

/// For recordings with a part cut out, whose chunk sizes no longer fit: their payload has no CRLF.
fn without_framing_lines(body: &[u8]) -> Vec<u8> {
    let text = str::from_utf8(body).unwrap();
    let is_size = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
    text.split("\r\n")
        .filter(|part| !is_size(part))
        .collect::<String>()
        .into_bytes()
}

/// Runs `check` on `bytes` whole, byte by byte and, below 20 kB, cut in two at every byte.
pub(crate) fn in_every_way(bytes: &[u8], mut check: impl FnMut(&mut dyn Iterator<Item = &[u8]>)) {
    check(&mut std::iter::once(bytes));
    check(&mut bytes.chunks(1));
    if bytes.len() < 20_000 {
        for cut in 0..=bytes.len() {
            let (before, after) = bytes.split_at(cut);
            check(&mut [before, after].into_iter());
        }
    }
}
