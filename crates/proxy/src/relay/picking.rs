//! What an external endpoint picker still has to say while its pick is served: it may answer in
//! place of the server until the head of a response goes out, and change that head.
//!
//! A picker that breaks off, or says nothing soon, is passed over: it has picked.

use super::{Event, poll_event};
use crate::exchange::Exchange;
use crate::ext_proc::mutation::{self, Verdict};
use crate::ext_proc::wire::ImmediateResponse;
use crate::failure::{Cause, Failure, Phase};
use crate::forward::watching;
use crate::limits::Limits;
use crate::listener::client::Client;
use crate::upstream::Upstream;
use http1::ResponseHead;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

/// How long a response head waits for a picker that does not move.
const RESPOND_WITHIN: Duration = Duration::from_secs(1);

/// Keeps the picker's own answer to the client; the failure that carries it there.
pub(crate) fn answered(x: &mut Exchange, answer: Box<ImmediateResponse>) -> Failure {
    let cause = Cause::PickerAnswer {
        status: answer.status(),
    };
    let failure = Failure::new(Phase::Pick, cause, answer.text());
    x.answer = Some(answer);
    failure
}

/// The next event of the server, unless the picker answers first.
pub(super) async fn next(
    client: &mut Client,
    upstream: &mut Upstream,
    x: &mut Exchange,
    limits: &Limits,
) -> Result<Event, Failure> {
    poll_fn(|cx| {
        if let Some(session) = &mut x.picking {
            match session.poll_verdict(cx, x.body.bytes()) {
                Poll::Ready(Ok(Some(Verdict::Immediate(answer)))) => {
                    x.picking = None;
                    return Poll::Ready(Err(answered(x, answer)));
                }
                Poll::Ready(Ok(Some(_))) => cx.waker().wake_by_ref(),
                Poll::Ready(Ok(None) | Err(_)) => x.picking = None,
                Poll::Pending => {}
            }
        }
        poll_event(client, upstream, limits, cx).map(Ok)
    })
    .await
}

/// Tells the picker the head of the response and who served.
///
/// # Errors
/// The picker answers in place of the server, or the client left.
pub(super) async fn respond(
    client: &mut Client,
    x: &mut Exchange,
    head: &mut ResponseHead,
    served: SocketAddr,
    limits: &Limits,
) -> Result<(), Failure> {
    let Some(mut session) = x.picking.take() else {
        return Ok(());
    };
    let told = mutation::response_fields(head);
    let answer = session.respond(&told, served, x.body.bytes(), RESPOND_WITHIN);
    match watching(client, limits, answer).await? {
        Ok(Some(Verdict::Immediate(answer))) => return Err(answered(x, answer)),
        Ok(Some(Verdict::Response(changes))) => {
            if let Some(changes) = changes {
                mutation::apply(&changes, &told, head);
            }
            x.picking = Some(session);
        }
        Ok(Some(Verdict::Request(..))) => x.picking = Some(session),
        Ok(None) => {}
        Err(_) => tracing::debug!(id = x.id, "an endpoint picker says nothing to a response"),
    }
    Ok(())
}
