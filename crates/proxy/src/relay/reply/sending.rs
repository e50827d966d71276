//! What the client gets of a reply, in the framing that it can read.

use super::{Outgoing, Reply, Scan};
use crate::failure::Failure;
use crate::limits::Limits;
use crate::listener::client::Client;
use crate::worker::OutBuffer;

impl Reply {
    /// One write: the head so far, then payload in our framing, or raw bytes.
    pub(crate) async fn send(
        &mut self,
        client: &mut Client,
        head: &[u8],
        payload: &[u8],
        raw: &[u8],
    ) -> Result<(), Failure> {
        if payload.is_empty() {
            self.sent += raw.len() as u64;
            let nothing = head.is_empty() && raw.is_empty();
            return if nothing {
                Ok(())
            } else {
                client.offer(head, raw).await
            };
        }
        if self.framing != Outgoing::Chunked {
            self.sent += payload.len() as u64;
            return client.offer(head, payload).await;
        }
        let mut chunk = OutBuffer::take();
        chunk.extend_from_slice(head);
        self.frame(payload, &mut chunk);
        client.offer(&chunk, b"").await
    }

    /// An event stream in chunks of our own.
    pub(in crate::relay) fn is_chunked_stream(&self) -> bool {
        self.is_stream() && self.framing == Outgoing::Chunked
    }

    /// Appends `payload` as a chunk, and the last one where it is the end.
    pub(in crate::relay) fn frame(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.sent += payload.len() as u64;
        http1::write_chunk(payload, out);
        if self.reader.is_done() && self.cut_by_engine().is_none() {
            out.extend_from_slice(http1::LAST_CHUNK);
            self.ended = true;
        }
    }

    /// The end of a body that is framed by us, or that has trailers.
    pub(crate) async fn end(
        &mut self,
        client: &mut Client,
        trailers: Option<http::HeaderMap>,
        limits: &Limits,
    ) -> Result<(), Failure> {
        match self.framing {
            Outgoing::Chunked if !self.ended => client.offer(http1::LAST_CHUNK, b"").await,
            Outgoing::Chunked => Ok(()),
            Outgoing::Raw | Outgoing::Close => client.end(trailers, limits).await,
        }
    }

    /// Ends a response that is not complete: an event stream with a typed error event, anything
    /// else by closing the connection short of its end.
    pub(crate) async fn write_cut(
        &mut self,
        client: &mut Client,
        failure: &Failure,
        limits: &Limits,
    ) -> Result<(), Failure> {
        let Scan::Stream(scan) = &self.scan else {
            return Ok(());
        };
        let mut event = OutBuffer::take();
        if !scan.at_event_border() && self.doubtful.is_empty() {
            // What the client has of the last event is not an event: end it, unfinished.
            event.extend_from_slice(b"\n\n");
        }
        llm::error_event(self.api.dialect(), &failure.text(), &mut event);
        self.send(client, &[], &event, &[]).await?;
        self.end(client, None, limits).await
    }
}
