//! Reads one answer and holds every payload byte against what the backend sends.
//!
//! Sans I/O: fed with whatever a read brought. Chunk borders may be anywhere, since proxies may join
//! and split chunks; the payload may not differ by a byte.

use anyhow::{Context as _, bail};

use crate::head::{self, Head};
use crate::wire::Expected;

/// The state of one answer's body.
#[derive(Debug)]
pub(crate) struct Answer<'e> {
    expected: &'e Expected,
    framing: Framing,
    /// Payload bytes seen.
    position: usize,
    /// The other side will close after this answer.
    closes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    /// Inside a chunk's size line.
    Size {
        size: usize,
        extension: bool,
    },
    /// Payload bytes left in this chunk.
    Data(usize),
    /// The line end after a chunk's data.
    DataEnd,
    /// Bytes of the trailer line being read.
    Trailer(usize),
    Done,
}

impl<'e> Answer<'e> {
    /// The answer whose head this is; an error unless it is a 200 with a length or chunks.
    pub(crate) fn begin(head: &Head<'_>, expected: &'e Expected) -> anyhow::Result<Self> {
        let line = head.first_line();
        if !line.starts_with(b"HTTP/1.1 200") {
            bail!("answered {:?}", String::from_utf8_lossy(line));
        }
        let framing = match head.number("content-length")? {
            Some(length) if length == expected.len() => Framing::Length,
            Some(length) => bail!("{length} bytes in place of {}", expected.len()),
            None => Framing::Size {
                size: 0,
                extension: false,
            },
        };
        let chunked = head.get("transfer-encoding").is_some();
        if chunked == (framing == Framing::Length) {
            bail!("neither, or both, of length and chunks");
        }
        let closes = head
            .get("connection")
            .is_some_and(|value| head::contains(value, b"close"));
        Ok(Self {
            expected,
            framing,
            position: 0,
            closes,
        })
    }

    /// Takes in what a read brought. True when the answer is whole.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> anyhow::Result<bool> {
        while let Some((&first, after)) = bytes.split_first() {
            match self.framing {
                Framing::Length => {
                    self.payload(bytes)?;
                    bytes = &[];
                }
                Framing::Size { size, extension } => {
                    self.framing = size_line(size, extension, first)?;
                    bytes = after;
                }
                Framing::Data(left) => {
                    let (now, later) = bytes.split_at(left.min(bytes.len()));
                    self.payload(now)?;
                    self.framing = if now.len() == left {
                        Framing::DataEnd
                    } else {
                        Framing::Data(left - now.len())
                    };
                    bytes = later;
                }
                Framing::DataEnd => {
                    match first {
                        b'\r' => {}
                        b'\n' => {
                            self.framing = Framing::Size {
                                size: 0,
                                extension: false,
                            }
                        }
                        _ => bail!("a chunk longer than its size"),
                    }
                    bytes = after;
                }
                Framing::Trailer(length) => {
                    self.framing = match (first, length) {
                        (b'\n', 0) => Framing::Done,
                        (b'\n', _) => Framing::Trailer(0),
                        (b'\r', length) => Framing::Trailer(length),
                        (_, length) => Framing::Trailer(length + 1),
                    };
                    bytes = after;
                }
                Framing::Done => bail!("{} bytes after the end", bytes.len()),
            }
        }
        let whole = self.position == self.expected.len();
        match self.framing {
            Framing::Length => Ok(whole),
            Framing::Done if !whole => bail!("ended after {} bytes", self.position),
            framing => Ok(framing == Framing::Done),
        }
    }

    /// Whether the connection ends with this answer.
    pub(crate) fn closes(&self) -> bool {
        self.closes
    }

    fn payload(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if !self.expected.matches(self.position, bytes) {
            bail!(
                "payload differs in the {} bytes from {}",
                bytes.len(),
                self.position
            );
        }
        self.position += bytes.len();
        Ok(())
    }
}

fn size_line(size: usize, extension: bool, byte: u8) -> anyhow::Result<Framing> {
    Ok(match byte {
        b'\n' if size == 0 => Framing::Trailer(0),
        b'\n' => Framing::Data(size),
        b'\r' => Framing::Size { size, extension },
        b';' => Framing::Size {
            size,
            extension: true,
        },
        _ if extension => Framing::Size { size, extension },
        _ => {
            let digit = char::from(byte)
                .to_digit(16)
                .context("a chunk size that is no number")?;
            let size = size.checked_mul(16).context("a chunk size out of range")? + digit as usize;
            Framing::Size { size, extension }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::{self, Shape, Stream, Text};

    fn shape(chunks: u32) -> Shape {
        let stream = (chunks > 0).then_some(Stream {
            chunks,
            pace: Duration::ZERO,
        });
        Shape {
            body_bytes: 1024,
            stream,
            text: Text::Plain,
            python_headers: false,
        }
    }

    /// Feeds `bytes` in pieces; the whole answer, or the first error.
    fn check(bytes: &[u8], piece: usize, chunks: u32) -> anyhow::Result<bool> {
        let expected = shape(chunks).expected();
        let head = Head::find(bytes).context("no head")?;
        let mut answer = Answer::begin(&head, &expected)?;
        let mut whole = false;
        for piece in bytes[head.len()..].chunks(piece) {
            whole = answer.feed(piece)?;
        }
        Ok(whole)
    }

    fn streamed(payload: &[&str], size: usize) -> Vec<u8> {
        let text = payload.concat();
        let mut bytes = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
        for part in text.as_bytes().chunks(size) {
            bytes += &wire::chunk(std::str::from_utf8(part).unwrap());
        }
        (bytes + "0\r\n\r\n").into_bytes()
    }

    #[test]
    fn takes_a_whole_answer_whatever_the_borders() {
        let event = wire::event();
        for chunk_size in [1, 7, 200, 4096] {
            let bytes = streamed(&[&event, &event, wire::LAST_EVENTS], chunk_size);
            for piece in [1, 2, 3, 100, 10_000] {
                assert!(
                    check(&bytes, piece, 2).unwrap(),
                    "chunks of {chunk_size}, reads of {piece}"
                );
            }
        }
        let length = wire::COMPLETION.len();
        let plain = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}",
            wire::COMPLETION
        );
        assert!(check(plain.as_bytes(), 100, 0).unwrap());
        assert!(!check(&plain.as_bytes()[..plain.len() - 1], 100, 0).unwrap());
    }

    #[test]
    fn refuses_what_is_not_the_answer() {
        let event = wire::event();
        let good = streamed(&[&event, &event, wire::LAST_EVENTS], 300);
        let mut changed = good.clone();
        changed[150] ^= 1;
        let refused: &[(&str, Vec<u8>)] = &[
            ("a changed byte", changed),
            ("a lost event", streamed(&[&event, wire::LAST_EVENTS], 300)),
            (
                "a doubled event",
                streamed(&[&event, &event, &event, wire::LAST_EVENTS], 300),
            ),
            ("no end mark", streamed(&[&event, &event], 300)),
            ("bytes after the end", [good.as_slice(), b"x"].concat()),
            (
                "another status",
                b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n".to_vec(),
            ),
            ("no framing", b"HTTP/1.1 200 OK\r\n\r\n".to_vec()),
            (
                "another length",
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_vec(),
            ),
        ];
        for (what, bytes) in refused {
            assert!(check(bytes, 64, 2).is_err(), "{what} was taken");
        }
    }
}
