//! One response on its way to the client: framing, scans, the held head, and how it may end.
//!
//! Bodies that need no change pass with their framing, byte for byte (`passes_raw`). Event streams
//! are framed anew, one chunk a read, so that a cut can be told at any event border.

mod reuse;
mod sending;

use super::trailers::Trailers;
use crate::exchange::Exchange;
use crate::failure::{Cause, Failure, Phase};
use crate::memory::SHORT_HEAD_BYTES;
use crate::worker;
use http1::{BodyReader, Framing, Parsed, ResponseHead};
use llm::{Api, BodyScan, Ended, FirstEvent, ModelRename, StreamScan, Usage};

/// What is read from the body on the side.
#[derive(Debug)]
enum Scan {
    Nothing,
    Body(BodyScan),
    Stream(StreamScan),
}

/// How the body is framed for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outgoing {
    /// As it came.
    Raw,
    Chunked,
    /// Without any: the body ends with the connection (HTTP/1.0), or with its stream (HTTP/2).
    Close,
}

/// A response and its progress. In this order: what each piece of a stream needs lies together, since
/// it has left the processor's caches when the piece comes.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Reply {
    reader: BodyReader,
    rename: Option<Box<ModelRename>>,
    framing: Outgoing,
    /// Bytes came after the end of the response: the connection is not reused.
    extra: bool,
    cut: bool,
    /// The last chunk went out with the last payload.
    ended: bool,
    /// The client takes no chunks.
    unframed: bool,
    /// Body bytes have been read.
    begun: bool,
    api: Api,
    /// The end of an event stream so far that may turn out to be an end mark of no end.
    doubtful: Vec<u8>,
    sent: u64,
    scan: Scan,
    head: ResponseHead,
    limits: http1::Limits,
    was_head: bool,
    /// The client asked for another protocol.
    upgrades: bool,
    has_head: bool,
    /// What the head said, for the time after it was written and its memory given back.
    status: u16,
    came: Framing,
    keeps: bool,
    /// Usage of a body that came whole.
    whole: Option<Usage>,
    asked_model: Option<String>,
    /// Of a body in chunks, for a client that takes none.
    trailers: Trailers,
}

impl Reply {
    pub(crate) fn has_head(&self) -> bool {
        self.has_head
    }

    /// The memory of its head.
    pub(crate) fn head_bytes(&self) -> usize {
        self.head.held_bytes()
    }

    /// Parses the response head; interim (1xx) heads are dropped. Returns where the body starts.
    pub(crate) fn parse_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let mut start = 0;
        loop {
            let rest = bytes.get(start..).unwrap_or_default();
            let parsed = self.head.parse(rest, self.was_head, &self.limits);
            match parsed.map_err(|refusal| bad_response(&refusal))? {
                Parsed::Incomplete => return Ok(None),
                Parsed::Complete { head_bytes } => start += head_bytes,
            }
            if self.head.status() >= 200 || self.head.status() == 101 && self.upgrades {
                self.prepare();
                return Ok(Some(start));
            }
            self.head.clear();
        }
    }

    fn prepare(&mut self) {
        self.has_head = true;
        self.status = self.head.status();
        self.came = self.head.framing();
        self.keeps = self.head.keep_alive();
        self.reader = BodyReader::new(self.came, &self.limits);
        let is_stream = self.head.is_event_stream();
        let has_body = self.came != Framing::None;
        self.scan = match self.api {
            Api::Other => Scan::Nothing,
            _ if is_stream => Scan::Stream(StreamScan::new(self.api)),
            _ if self.head.is_json() && has_body => Scan::Body(BodyScan::new()),
            _ => Scan::Nothing,
        };
        if let Some(model) = &self.asked_model
            && has_body
            && !matches!(self.scan, Scan::Nothing)
        {
            let rename = ModelRename::new(self.api, model, is_stream);
            self.rename = Some(Box::new(rename));
        }
        if self.is_stream() || self.rename.is_some() {
            self.framing = Outgoing::Chunked;
        }
        if self.unframed && (self.framing == Outgoing::Chunked || self.came == Framing::Chunked) {
            self.framing = Outgoing::Close;
        }
    }

    /// The engine's status; 0 until its head has come.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.scan, Scan::Stream(_))
    }

    /// An event stream with status 200 that has shown no event yet.
    pub(crate) fn holds(&self) -> bool {
        self.has_head && self.is_stream() && self.status == 200 && self.first_event().is_none()
    }

    fn first_event(&self) -> Option<FirstEvent> {
        match &self.scan {
            Scan::Stream(scan) => scan.first_event(),
            _ => None,
        }
    }

    /// Whether the answer can go out now. `at_end`: the endpoint closed; `full`: no more is held.
    ///
    /// # Errors
    /// The stream began with an error event, or has none at all.
    pub(crate) fn decided(&self, at_end: bool, full: bool) -> Result<bool, Failure> {
        if !self.has_head {
            return Ok(false);
        }
        if let Some(FirstEvent::Error { status }) = self.first_event()
            && self.status == 200
        {
            let message = "the engine answered with an error event in place of its first token";
            let cause = Cause::EngineErrorFirst { status };
            return Err(Failure::new(Phase::Head, cause, message));
        }
        if self.holds() && (at_end || self.reader.is_done()) {
            let message = "the engine ended its event stream before the first event";
            let cause = Cause::EngineErrorFirst { status: 502 };
            return Err(Failure::new(Phase::Head, cause, message));
        }
        Ok(!self.holds() || full)
    }

    /// Whether what follows is another protocol's.
    pub(crate) fn switches(&self) -> bool {
        self.status == 101
    }

    /// Whether body bytes go to the client as they came, framing and all.
    pub(crate) fn passes_raw(&self) -> bool {
        self.framing == Outgoing::Raw && self.came != Framing::Close
    }

    /// Follows raw body bytes; returns how many belong to this response.
    pub(crate) fn scan_raw(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        if self.switches() {
            return Ok(bytes.len());
        }
        self.scan_whole(bytes);
        let Self { reader, scan, .. } = self;
        let used = reader
            .feed(bytes, |part| {
                if let Scan::Body(scan) = scan {
                    scan.feed(part);
                }
            })
            .map_err(|refusal| bad_response(&refusal))?;
        self.extra |= used < bytes.len();
        Ok(used)
    }

    /// A JSON body that came in one piece is read as one: cheaper than following it.
    fn scan_whole(&mut self, bytes: &[u8]) {
        if let (Scan::Body(_), Framing::Length(length)) = (&self.scan, self.came)
            && !self.begun
            && let Some(body) = usize::try_from(length)
                .ok()
                .and_then(|length| bytes.get(..length))
        {
            self.whole = llm::body_usage(body, self.api);
            self.scan = Scan::Nothing;
        }
        self.begun = true;
    }

    /// Takes body bytes off their framing and appends to `ready` what the client gets of them.
    pub(crate) fn take(&mut self, bytes: &[u8], ready: &mut Vec<u8>) -> Result<(), Failure> {
        if self.switches() {
            ready.extend_from_slice(bytes);
            return Ok(());
        }
        let Self {
            reader,
            scan,
            rename,
            cut,
            doubtful,
            ..
        } = self;
        let mut put = |part: &[u8]| match rename {
            Some(rename) => rename.feed(part, ready),
            None => ready.extend_from_slice(part),
        };
        let left = reader.trailer_bytes_left();
        let used = reader
            .feed(bytes, |part| match scan {
                _ if *cut => {}
                Scan::Stream(scan) => {
                    let seen = scan.feed(part);
                    *cut = seen.cut_at.is_some();
                    let part = seen.cut_at.and_then(|at| part.get(..at)).unwrap_or(part);
                    let doubt = scan.doubtful_bytes();
                    if doubt == 0 && doubtful.is_empty() {
                        put(part);
                    } else {
                        settle_doubt(doubtful, (part, doubt, *cut), &mut put);
                    }
                }
                Scan::Body(scan) => {
                    scan.feed(part);
                    put(part);
                }
                Scan::Nothing => put(part),
            })
            .map_err(|refusal| bad_response(&refusal))?;
        if (self.reader.is_done() || self.cut)
            && let Some(rename) = &mut self.rename
        {
            rename.finish(ready);
        }
        if self.unframed {
            let taken = bytes.get(..used).unwrap_or_default();
            self.trailers.note(self.reader.trailers_in(taken, left));
        }
        self.extra |= used < bytes.len();
        Ok(())
    }

    /// The trailers that came behind a body in chunks.
    pub(super) fn trailers(&self) -> Option<http::HeaderMap> {
        self.trailers.fields()
    }

    pub(super) fn head_mut(&mut self) -> &mut ResponseHead {
        &mut self.head
    }

    /// The head for the client, with the framing that the client can read.
    pub(crate) fn write_head(&mut self, x: &mut Exchange, out: &mut Vec<u8>) {
        let came = self.came;
        if self.framing == Outgoing::Raw && came == Framing::Close {
            self.framing = if self.unframed {
                Outgoing::Close
            } else {
                Outgoing::Chunked
            };
        }
        let framing = match self.framing {
            Outgoing::Raw => came,
            Outgoing::Chunked => Framing::Chunked,
            Outgoing::Close => Framing::Close,
        };
        x.response.is_stream = self.is_stream();
        x.keep_alive &= self.framing != Outgoing::Close;
        crate::headers::respond(x, &mut self.head);
        self.head.write(framing, x.keep_alive, out);
        if self.switches() {
            x.keep_alive = false;
            crate::tunnel::ask(self.head.get("upgrade").unwrap_or_default(), out);
        }
        // A stream may go on for hours without it; an answer that is whole is over soon.
        if !(self.reader.is_done() && self.head.held_bytes() <= SHORT_HEAD_BYTES) {
            worker::keep_response_head(std::mem::replace(&mut self.head, ResponseHead::new()));
        }
    }

    /// Goes on after a head that another endpoint's answer was begun with, if that is possible.
    pub(crate) fn resumes(&self) -> bool {
        self.is_stream() && self.status == 200
    }

    pub(crate) fn at_event_border(&self) -> bool {
        matches!(&self.scan, Scan::Stream(scan) if scan.at_event_border())
    }

    /// Whether the client has a whole number of events, and the last one is still to come.
    pub(crate) fn is_between_events(&self) -> bool {
        self.at_event_border() && self.doubtful.is_empty() && !self.has_end_mark()
    }

    /// Whether the client was given all of it as it came, so that nothing has to be said at its end.
    pub(crate) fn is_passed(&self) -> bool {
        self.passes_raw() && self.is_done() && !self.is_stream()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.reader.is_done() || self.cut
    }

    /// Whether the endpoint said all of the body and nothing beyond it.
    pub(crate) fn is_whole(&self) -> bool {
        self.reader.is_done() && !self.cut && !self.extra
    }

    /// Whether the client has the last event of its stream.
    pub(crate) fn has_end_mark(&self) -> bool {
        matches!(&self.scan, Scan::Stream(scan) if scan.ended() == Ended::Done)
    }

    /// Whether an end of the connection is the end of the body.
    pub(crate) fn ends_at_close(&self) -> bool {
        self.reader.ends_at_close()
    }

    /// A stream that the engine gave up, or that ended cleanly but without its end mark.
    pub(crate) fn cut_by_engine(&self) -> Option<Failure> {
        if self.cut {
            let message = "the engine stopped its answer before it was complete";
            return Some(Failure::new(Phase::Stream, Cause::Cut, message));
        }
        let Scan::Stream(scan) = &self.scan else {
            return None;
        };
        let marks = matches!(
            self.api,
            Api::ChatCompletions | Api::Completions | Api::Responses | Api::Messages
        );
        let ended = self.reader.is_done() || self.reader.ends_at_close();
        let open = matches!(scan.ended(), Ended::Open);
        (marks && ended && open && self.status == 200).then(|| {
            let message = "the engine ended its stream without the end mark";
            Failure::new(Phase::Stream, Cause::Cut, message)
        })
    }

    pub(crate) fn reusable(&self) -> bool {
        let complete = self.reader.is_done() && !self.extra;
        complete && self.keeps && !self.reader.ends_at_close() && !self.switches()
    }

    /// What was learnt from the body, for the log, the metrics and the picker.
    pub(crate) fn record(&self, x: &mut Exchange) {
        x.response.bytes = self.sent;
        x.response.usage = match &self.scan {
            Scan::Nothing => self.whole,
            Scan::Body(scan) => scan.usage(),
            Scan::Stream(scan) => Some(scan.usage()),
        };
        if let Scan::Stream(scan) = &self.scan {
            x.response.events = scan.events();
        }
    }
}

/// Passes on what is certain of `doubtful` and the bytes after it: all but the last `doubt` bytes,
/// and nothing of an end mark that cut the stream.
fn settle_doubt(
    doubtful: &mut Vec<u8>,
    (part, doubt, cut): (&[u8], usize, bool),
    put: &mut impl FnMut(&[u8]),
) {
    if cut && part.is_empty() {
        doubtful.clear();
        return;
    }
    doubtful.extend_from_slice(part);
    let certain = doubtful.len().saturating_sub(doubt);
    put(doubtful.get(..certain).unwrap_or_default());
    doubtful.drain(..certain);
}

fn bad_response(refusal: &http1::Refusal) -> Failure {
    let mut message = String::from("the endpoint's response is not valid HTTP/1.1: ");
    message.push_str(refusal.message);
    Failure::new(Phase::Head, Cause::BadResponse, message)
}
