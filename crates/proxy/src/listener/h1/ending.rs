//! How a connection of HTTP/1.1 ends, so that the client gets what it was told.

use super::Connection;
use crate::clock;
use crate::limits::Limits;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use tokio::io::AsyncWrite;

impl Connection {
    /// Ends a connection whose client may still be sending. Closed with bytes unread, it would be reset
    /// by the kernel, and the client might never see what it was told.
    pub(super) async fn linger(&mut self, limits: &Limits) {
        if self.gone {
            return;
        }
        self.carry = Vec::new();
        self.ahead.release();
        self.deadline.set(clock::now() + limits.linger);
        let mut left = limits.linger_bytes;
        let mut said = false;
        poll_fn(|cx| {
            if self.deadline.poll_passed(cx) || self.draining.get() {
                return Poll::Ready(());
            }
            if !said {
                let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
                said = shut.is_ready();
            }
            while let Ok((_, count)) = ready!(self.stream.poll_scratch(cx)) {
                left = left.saturating_sub(count);
                if count == 0 || left == 0 {
                    break;
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Says farewell where TLS asks for it.
    pub(super) async fn close(&mut self, limits: &Limits) {
        if self.gone || !self.stream.is_tls() {
            return;
        }
        self.deadline.set(clock::now() + limits.farewell);
        poll_fn(|cx| match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Pending if !self.deadline.poll_passed(cx) => Poll::Pending,
            // Whether the client heard it changes nothing.
            _ => Poll::Ready(()),
        })
        .await;
    }
}
