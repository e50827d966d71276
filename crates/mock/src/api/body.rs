//! The body of an answer: whole, or pieces as they come; it tells the journal when it is out.
//! Invariant: a request is complete in the journal only when all of its body was handed to hyper.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};

use crate::journal::Record;

/// A response body.
#[derive(Debug)]
pub(crate) struct MockBody {
    inner: UnsyncBoxBody<Bytes, io::Error>,
    record: Option<Record>,
}

impl MockBody {
    pub(crate) fn full(bytes: Bytes) -> Self {
        let inner = Full::new(bytes)
            .map_err(|never| match never {})
            .boxed_unsync();
        Self {
            inner,
            record: None,
        }
    }

    /// A body whose pieces are sent as they come; an error closes the connection.
    pub(crate) fn pieces(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        let frames = pieces.map(|piece| piece.map(Frame::data));
        Self {
            inner: StreamBody::new(frames).boxed_unsync(),
            record: None,
        }
    }

    /// The same body, which notes its end in the journal.
    pub(crate) fn recorded(mut self, mut record: Record) -> Self {
        if self.inner.is_end_stream() {
            record.complete();
        }
        self.record = Some(record);
        self
    }
}

impl Body for MockBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        let failed = matches!(polled, Poll::Ready(Some(Err(_))));
        let ended = matches!(polled, Poll::Ready(None)) || self.inner.is_end_stream();
        if ended
            && !failed
            && let Some(record) = &mut self.record
        {
            record.complete();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
