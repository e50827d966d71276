//! Comments in the silences of an event stream, so that whatever stands between client and gateway
//! does not take the connection for dead.
//!
//! Only for a client that asked for a stream, after it has the head of one, and only between two
//! events. Nothing is done for it while bytes come: silence is seen where a wait for the endpoint
//! looks around anyway.

use crate::clock;
use crate::exchange::Exchange;
use crate::failure::Failure;
use crate::limits::Limits;
use crate::listener::client::Client;
use crate::worker::OutBuffer;
use picker::Micros;

/// A comment and the end of no event (WHATWG HTML, section 9.2.6).
const COMMENT: &[u8] = b": \n\n";

/// When this wait last said something.
#[derive(Debug)]
pub(super) struct Heartbeat(Micros);

impl Heartbeat {
    pub(super) fn new() -> Self {
        Self(clock::coarse())
    }

    /// Writes a comment if the endpoint was last heard long enough ago, and so was the last comment.
    /// The client must have a whole number of events.
    pub(super) async fn beat(
        &mut self,
        client: &mut Client,
        x: &Exchange,
        heard: Micros,
        limits: &Limits,
    ) -> Result<(), Failure> {
        let now = clock::now();
        let asked = x.peek.as_ref().is_some_and(|peek| peek.stream);
        if !asked || now < heard.max(self.0) + limits.heartbeat {
            return Ok(());
        }
        self.0 = now;
        if x.unframed {
            client.offer(COMMENT, b"").await?;
        } else {
            let mut chunk = OutBuffer::take();
            http1::write_chunk(COMMENT, &mut chunk);
            client.offer(&chunk, b"").await?;
        }
        client.flush(limits).await
    }
}
