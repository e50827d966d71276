//! How a reply begins: in memory of its own, or in that of an earlier one that let go of what it held.
//!
//! What is set here for a new one is set for one that is used again, or [`Reply::forget`] did it.

use super::super::trailers::Trailers;
use super::{Outgoing, Reply, Scan};
use crate::exchange::Exchange;
use crate::limits::Limits;
use crate::memory::SHORT_HEAD_BYTES;
use crate::worker;
use http1::{BodyReader, Framing, ResponseHead};

impl Reply {
    /// Lets go of what it holds.
    pub(in super::super) fn forget(&mut self) {
        if self.head.held_bytes() > SHORT_HEAD_BYTES {
            self.head = ResponseHead::new();
        }
        self.scan = Scan::Nothing;
        self.rename = None;
        self.asked_model = None;
        self.doubtful = Vec::new();
        self.trailers = Trailers::default();
    }

    /// The reply to another request, in the memory of one that let go of what it held.
    pub(in super::super) fn begin(&mut self, x: &Exchange, limits: &Limits) {
        if self.head.held_bytes() == 0 {
            self.head = worker::take_response_head();
        } else {
            self.head.clear();
        }
        self.limits = limits.http1;
        self.reader = BodyReader::new(Framing::None, &limits.http1);
        self.api = x.api;
        self.was_head = x.head.method() == "HEAD";
        self.unframed = x.unframed;
        self.upgrades = x.upgrades;
        self.has_head = false;
        self.status = 0;
        self.came = Framing::None;
        self.keeps = false;
        self.whole = None;
        self.begun = false;
        self.framing = Outgoing::Raw;
        self.extra = false;
        self.cut = false;
        self.ended = false;
        self.sent = 0;
        self.asked_model = x.renamed.then(|| x.model.clone());
    }

    pub(in super::super) fn new(x: &Exchange, limits: &Limits) -> Self {
        Self {
            head: worker::take_response_head(),
            limits: limits.http1,
            reader: BodyReader::new(Framing::None, &limits.http1),
            scan: Scan::Nothing,
            rename: None,
            api: x.api,
            was_head: x.head.method() == "HEAD",
            unframed: x.unframed,
            upgrades: x.upgrades,
            has_head: false,
            status: 0,
            came: Framing::None,
            keeps: false,
            whole: None,
            begun: false,
            framing: Outgoing::Raw,
            extra: false,
            cut: false,
            ended: false,
            sent: 0,
            asked_model: x.renamed.then(|| x.model.clone()),
            doubtful: Vec::new(),
            trailers: Trailers::default(),
        }
    }
}
