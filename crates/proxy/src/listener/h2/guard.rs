//! Counts what a peer sends besides requests and bodies, on its way to the HTTP/2 code.
//!
//! Frames that cost us more than the peer (pings, settings, resets, priorities, tiny window
//! updates, empty data, continuations) draw on a credit that grows with time and with what the
//! peer takes from us. A connection without credit is closed (`ENHANCE_YOUR_CALM`). Only the nine
//! bytes of each frame's head are looked at (RFC 9113 section 4.1).

use super::owed::Owed;
use crate::clock;
use crate::socket::Socket;
use picker::Micros;
use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Frames that a connection may send at once.
const MOST_CREDIT: i64 = 1_000;
/// Frames by which the credit grows each second.
const CREDIT_PER_SECOND: u64 = 200;
/// Bytes that the peer takes from us for one frame of credit.
const BYTES_PER_CREDIT: usize = 256;
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const FLAG_ACK: u8 = 1;
const FLAG_END_STREAM: u8 = 1;

/// Whether a peer has sent too much of what costs; shared by reader and driver.
#[derive(Debug, Clone, Default)]
pub(super) struct Flood(Rc<Cell<bool>>);

impl Flood {
    pub(super) fn is_over(&self) -> bool {
        self.0.get()
    }
}

/// A socket whose frames are counted.
#[derive(Debug)]
pub(super) struct Guarded {
    socket: Socket,
    /// Read before it was known for HTTP/2.
    read: Vec<u8>,
    frames: Frames,
    flood: Flood,
    owed: Owed,
}

impl Guarded {
    pub(super) fn new((socket, read): (Socket, Vec<u8>), flood: Flood, owed: Owed) -> Self {
        Self {
            socket,
            read,
            frames: Frames::new(clock::now()),
            flood,
            owed,
        }
    }

    /// What the socket took of what it was given.
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.owed.wrote(written.is_pending());
        let count = ready!(written)?;
        self.frames.earn(count);
        Poll::Ready(Ok(count))
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.flood.is_over() {
            // Nothing more is read from a peer that floods; it is told so and the driver ends.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if this.read.is_empty() {
            ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
        } else {
            let count = this.read.len().min(buffer.remaining());
            buffer.put_slice(this.read.get(..count).unwrap_or_default());
            this.read.drain(..count);
        }
        let new = buffer.filled().get(before..).unwrap_or_default();
        if !this.frames.follow(new, clock::coarse()) {
            this.flood.0.set(true);
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(cx, slices);
        this.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.socket).poll_flush(cx);
        // Flushed is what is left once everything was written.
        this.owed.wrote(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

/// Where in the peer's bytes we are, and its credit.
#[derive(Debug)]
struct Frames {
    /// Bytes to pass over: the preface at first, then payloads.
    skip: usize,
    head: [u8; HEAD_BYTES],
    head_bytes: usize,
    credit: i64,
    since: Micros,
    written: usize,
}

impl Frames {
    fn new(now: Micros) -> Self {
        Self {
            skip: super::PREFACE.len(),
            head: [0; HEAD_BYTES],
            head_bytes: 0,
            credit: MOST_CREDIT,
            since: now,
            written: 0,
        }
    }

    /// Follows the next bytes; false once there is no credit left.
    fn follow(&mut self, mut bytes: &[u8], now: Micros) -> bool {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let count = self.skip.min(bytes.len());
                self.skip -= count;
                bytes = bytes.get(count..).unwrap_or_default();
                continue;
            }
            let count = (HEAD_BYTES - self.head_bytes).min(bytes.len());
            let (part, rest) = bytes.split_at(count);
            if let Some(room) = self.head.get_mut(self.head_bytes..self.head_bytes + count) {
                room.copy_from_slice(part);
            }
            self.head_bytes += count;
            bytes = rest;
            if self.head_bytes == HEAD_BYTES {
                self.head_bytes = 0;
                self.frame(now);
            }
        }
        self.credit > 0
    }

    fn frame(&mut self, now: Micros) {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.skip = length;
        let is_free = match kind {
            DATA => length > 0 || flags & FLAG_END_STREAM != 0,
            HEADERS => true,
            SETTINGS => flags & FLAG_ACK != 0,
            _ => false,
        };
        if !is_free {
            self.spend(now);
        }
    }

    fn spend(&mut self, now: Micros) {
        let grown = now.0.saturating_sub(self.since.0) * CREDIT_PER_SECOND / 1_000_000;
        if grown > 0 {
            self.since = now;
            self.add(grown as i64);
        }
        self.credit -= 1;
    }

    fn earn(&mut self, bytes: usize) {
        self.written += bytes;
        self.add((self.written / BYTES_PER_CREDIT) as i64);
        self.written %= BYTES_PER_CREDIT;
    }

    fn add(&mut self, frames: i64) {
        self.credit = self.credit.saturating_add(frames).min(MOST_CREDIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut bytes = vec![
            0,
            (payload >> 8) as u8,
            payload as u8,
            kind,
            flags,
            0,
            0,
            0,
            1,
        ];
        bytes.resize(HEAD_BYTES + payload, 0);
        bytes
    }

    /// How many frames pass before the credit is gone, in pieces of `piece` bytes.
    fn passed(frame: &[u8], piece: usize) -> usize {
        let mut frames = Frames::new(Micros(0));
        frames.follow(crate::listener::h2::PREFACE, Micros(0));
        let sent = frame.repeat(3_000);
        let mut seen = 0;
        for bytes in sent.chunks(piece) {
            if !frames.follow(bytes, Micros(0)) {
                break;
            }
            seen += bytes.len();
        }
        seen / frame.len()
    }

    #[test]
    fn floods_are_told_from_requests_whatever_the_pieces() {
        let pings = frame(6, 0, 8);
        for piece in [1, 7, 17] {
            assert_eq!(passed(&pings, piece), MOST_CREDIT as usize - 1, "{piece}");
        }
        for free in [
            frame(DATA, 0, 100),
            frame(DATA, FLAG_END_STREAM, 0),
            frame(HEADERS, 4, 30),
            frame(SETTINGS, FLAG_ACK, 0),
        ] {
            assert_eq!(passed(&free, 5), 3_000, "{free:?}");
        }
        for costs in [
            frame(DATA, 0, 0),
            frame(3, 0, 4),
            frame(8, 0, 4),
            frame(9, 0, 50),
        ] {
            assert!(passed(&costs, 64) < 1_010, "{costs:?}");
        }
    }

    #[test]
    fn credit_grows_with_time_and_with_what_the_peer_takes() {
        let mut frames = Frames::new(Micros(0));
        frames.skip = 0;
        let pings = frame(6, 0, 8).repeat(MOST_CREDIT as usize);
        assert!(!frames.follow(&pings, Micros(0)));
        frames.earn(BYTES_PER_CREDIT * 3);
        assert!(frames.follow(&frame(8, 0, 4), Micros(0)));
        frames.credit = 0;
        assert!(frames.follow(&frame(6, 0, 8).repeat(199), Micros(1_000_000)));
    }
}
