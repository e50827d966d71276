//! Reads and writes of plain TCP, by system calls of our own.
//!
//! The C library makes each of these calls a point where a thread could be cancelled, and prepares
//! for that before and after it once a process has threads: about a hundredth of what a request
//! costs. Readiness is the runtime's, and is cleared as the runtime's own calls do: after a call
//! that took less than it could have, so that none is made that would end in EAGAIN.

use crate::worker::Scratch;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// One read into a read buffer, which is taken when there is something to read.
pub(super) fn poll_scratch(
    stream: &TcpStream,
    cx: &mut Context<'_>,
) -> Poll<io::Result<(Scratch, usize)>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let mut buffer = Scratch::take();
        let most = buffer.len();
        let read =
            || rustix::net::recv(stream, &mut *buffer, RecvFlags::empty()).map(|read| read.0);
        if let Some(result) = call(stream, Interest::READABLE, most, read) {
            return Poll::Ready(result.map(|count| (buffer, count)));
        }
    }
}

pub(super) fn poll_write(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let write = || rustix::net::send(stream, bytes, SendFlags::NOSIGNAL);
        if let Some(result) = call(stream, Interest::WRITABLE, bytes.len(), write) {
            return Poll::Ready(result);
        }
    }
}

pub(super) fn poll_write_vectored(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let most = slices.iter().map(|slice| slice.len()).sum();
    loop {
        ready!(stream.poll_write_ready(cx))?;
        let write = || rustix::io::writev(stream, slices);
        if let Some(result) = call(stream, Interest::WRITABLE, most, write) {
            return Poll::Ready(result);
        }
    }
}

/// One call that may move `most` bytes; `None`: not ready after all, and the runtime knows.
fn call(
    stream: &TcpStream,
    interest: Interest,
    most: usize,
    mut act: impl FnMut() -> Result<usize, Errno>,
) -> Option<io::Result<usize>> {
    let result = stream.try_io(interest, || {
        loop {
            match act() {
                Err(Errno::INTR) => {}
                result => return result.map_err(Into::into),
            }
        }
    });
    match &result {
        Ok(count) if (1..most).contains(count) => {
            // Whatever comes later is told anew.
            let _ = stream.try_io(interest, || -> io::Result<()> {
                Err(io::ErrorKind::WouldBlock.into())
            });
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
        _ => {}
    }
    Some(result)
}
