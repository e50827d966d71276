//! Clients of HTTP/2 for whom there is no memory: told so before anything is kept for them.

use super::H2_BYTES;
use crate::clock;
use crate::deadline::Deadline;
use crate::limits::Limits;
use crate::memory::{ACCOUNT, Charge, Full, Use};
use crate::socket::Socket;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use tokio::io::AsyncWrite as _;

/// Our settings, none; then GOAWAY: no stream was served, and calm (RFC 9113 sections 6.5, 6.8 and 7).
const FAREWELL: &[u8] = b"\0\0\0\x04\0\0\0\0\0\
    \0\0\x0e\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0bmemory";

/// What a connection of HTTP/2 has of the account; counts the refusal if there is none left.
pub(crate) fn admit() -> Result<Charge, Full> {
    let mut charge = Charge::none(Use::Layers);
    let room = charge.keep(H2_BYTES);
    room.inspect_err(|Full| ACCOUNT.count_refusal())?;
    Ok(charge)
}

/// Says farewell and waits a little for the client to leave: closed with bytes unread, it would be
/// reset by the kernel and might never see why.
pub(crate) async fn turn_away(mut socket: Socket, limits: &Limits) {
    let deadline = Deadline::new();
    deadline.set(clock::now() + limits.farewell);
    let mut left = FAREWELL;
    let mut is_shut = false;
    poll_fn(|cx| {
        if deadline.poll_passed(cx) {
            return Poll::Ready(());
        }
        while !left.is_empty() {
            match ready!(Pin::new(&mut socket).poll_write(cx, left)) {
                Ok(count) => left = left.get(count..).unwrap_or_default(),
                Err(_) => return Poll::Ready(()),
            }
        }
        if !is_shut {
            is_shut = Pin::new(&mut socket).poll_shutdown(cx).is_ready();
        }
        while let Ok((_, 1..)) = ready!(socket.poll_scratch(cx)) {}
        Poll::Ready(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::FAREWELL;

    #[test]
    fn the_farewell_is_two_frames() {
        let (settings, goaway) = FAREWELL.split_at(9);
        assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(goaway.len(), 9 + usize::from(goaway[2]));
        assert_eq!(goaway[3], 7);
        assert_eq!(&goaway[9..17], [0, 0, 0, 0, 0, 0, 0, 11]);
    }
}
