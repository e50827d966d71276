//! Where a body ends, and its payload: lengths, strict chunked coding, or the end of the connection.

use crate::{Limits, Refusal};

/// How a message body is framed (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// This many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Everything until the connection ends (responses only).
    Close,
}

/// The end of a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends `payload` as one chunk; nothing for an empty payload, which would end the body.
pub fn write_chunk(payload: &[u8], out: &mut Vec<u8>) {
    if payload.is_empty() {
        return;
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - payload.len().leading_zeros()).div_ceil(4);
    for shift in (0..digits).rev() {
        let digit = (payload.len() >> (shift * 4)) & 0xf;
        out.push(DIGITS.get(digit).copied().unwrap_or(b'0'));
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Where in a chunked body the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size { size: u64, digits: u8 },
    Extension { size: u64, bytes: usize },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    /// At the start of a line of the trailer section.
    Trailer { bytes: usize },
    InTrailer { bytes: usize, colon: bool },
    TrailerLf { bytes: usize },
    EndLf,
    Done,
}

const CHUNK_START: Chunk = Chunk::Size { size: 0, digits: 0 };

#[derive(Debug, Clone, Copy)]
enum Progress {
    Length(u64),
    Chunked(Chunk),
    Close,
}

/// Follows a body to its end.
#[derive(Debug, Clone)]
pub struct BodyReader {
    progress: Progress,
    extension_bytes: usize,
    trailer_bytes: usize,
}

impl BodyReader {
    /// A reader at the first byte of a body.
    pub fn new(framing: Framing, limits: &Limits) -> Self {
        let progress = match framing {
            Framing::None => Progress::Length(0),
            Framing::Length(length) => Progress::Length(length),
            Framing::Chunked => Progress::Chunked(CHUNK_START),
            Framing::Close => Progress::Close,
        };
        Self {
            progress,
            extension_bytes: limits.chunk_extension_bytes,
            trailer_bytes: limits.trailer_bytes,
        }
    }

    /// Advances over `bytes` and hands out payload. Returns how many bytes belong to the body.
    ///
    /// # Errors
    /// Chunked coding that is not exactly as RFC 9112 section 7.1 writes it.
    pub fn feed<'a>(
        &mut self,
        bytes: &'a [u8],
        mut payload: impl FnMut(&'a [u8]),
    ) -> Result<usize, Refusal> {
        match &mut self.progress {
            Progress::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                if count > 0 {
                    payload(bytes.get(..count).unwrap_or_default());
                }
                Ok(count)
            }
            Progress::Close => {
                if !bytes.is_empty() {
                    payload(bytes);
                }
                Ok(bytes.len())
            }
            Progress::Chunked(_) => self.feed_chunks(bytes, payload),
        }
    }

    fn feed_chunks<'a>(
        &mut self,
        bytes: &'a [u8],
        mut payload: impl FnMut(&'a [u8]),
    ) -> Result<usize, Refusal> {
        let Progress::Chunked(mut chunk) = self.progress else { return Ok(0) };
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match chunk {
                Chunk::Done => break,
                Chunk::Data { left } => {
                    let rest = bytes.len() - at;
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest);
                    payload(bytes.get(at..at + count).unwrap_or_default());
                    at += count;
                    let left = left - count as u64;
                    chunk = if left == 0 { Chunk::DataCr } else { Chunk::Data { left } };
                }
                _ => {
                    chunk = self.step(chunk, *byte)?;
                    at += 1;
                }
            }
        }
        self.progress = Progress::Chunked(chunk);
        Ok(at)
    }

    /// One byte of framing.
    fn step(&self, chunk: Chunk, byte: u8) -> Result<Chunk, Refusal> {
        Ok(match (chunk, byte) {
            (Chunk::Size { size, digits }, b'\r') if digits > 0 => Chunk::SizeLf { size },
            (Chunk::Size { size, digits }, b';') if digits > 0 => Chunk::Extension { size, bytes: 0 },
            (Chunk::Size { size, digits }, _) => {
                // 15 digits cannot overflow.
                let digit = char::from(byte).to_digit(16).filter(|_| digits < 15);
                let digit = digit.ok_or(Refusal::BAD_CHUNK_SIZE)?;
                Chunk::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Chunk::Extension { size, .. }, b'\r') => Chunk::SizeLf { size },
            (Chunk::Extension { .. }, b'\n' | 0) => return Err(Refusal::BAD_CHUNK_SIZE),
            (Chunk::Extension { size, bytes }, _) if bytes < self.extension_bytes => {
                Chunk::Extension { size, bytes: bytes + 1 }
            }
            (Chunk::Extension { .. }, _) => return Err(Refusal::CHUNK_EXTENSION_TOO_LONG),
            (Chunk::SizeLf { size: 0 }, b'\n') => Chunk::Trailer { bytes: 0 },
            (Chunk::SizeLf { size }, b'\n') => Chunk::Data { left: size },
            (Chunk::SizeLf { .. }, _) => return Err(Refusal::BAD_CHUNK_SIZE),
            (Chunk::DataCr, b'\r') => Chunk::DataLf,
            (Chunk::DataLf, b'\n') => CHUNK_START,
            (Chunk::DataCr | Chunk::DataLf, _) => return Err(Refusal::BAD_CHUNK_END),
            (Chunk::Trailer { .. }, b'\r') => Chunk::EndLf,
            (Chunk::EndLf, b'\n') => Chunk::Done,
            (chunk, byte) => return self.trailer(chunk, byte),
        })
    }

    fn trailer(&self, chunk: Chunk, byte: u8) -> Result<Chunk, Refusal> {
        let (bytes, colon) = match chunk {
            Chunk::Trailer { bytes } => (bytes, None),
            Chunk::InTrailer { bytes, colon } => (bytes, Some(colon)),
            Chunk::TrailerLf { bytes } if byte == b'\n' => return Ok(Chunk::Trailer { bytes }),
            _ => return Err(Refusal::BAD_TRAILER),
        };
        if bytes >= self.trailer_bytes {
            return Err(Refusal::TRAILERS_TOO_LARGE);
        }
        let bytes = bytes + 1;
        match (colon, byte) {
            // A field name: at least one token character, then the colon.
            (None, _) if crate::fields::is_token(byte) => Ok(Chunk::InTrailer { bytes, colon: false }),
            (Some(false), b':') => Ok(Chunk::InTrailer { bytes, colon: true }),
            (Some(false), _) if crate::fields::is_token(byte) => {
                Ok(Chunk::InTrailer { bytes, colon: false })
            }
            (Some(true), b'\r') => Ok(Chunk::TrailerLf { bytes }),
            (Some(true), b'\t' | b' '..=b'~' | 0x80..) => Ok(Chunk::InTrailer { bytes, colon: true }),
            _ => Err(Refusal::BAD_TRAILER),
        }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.progress, Progress::Length(0) | Progress::Chunked(Chunk::Done))
    }

    /// Whether the end of the connection is the end of the body.
    pub fn ends_at_close(&self) -> bool {
        matches!(self.progress, Progress::Close)
    }
}

#[cfg(test)]
mod tests;
