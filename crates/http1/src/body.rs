//! Where a body ends, and which of its bytes are payload.
//!
//! A state machine over the bytes as they come, without memory beyond its own few words. Chunked
//! framing is read strictly: plain hexadecimal sizes, both bytes of each line end, bounded
//! extensions and trailers, no trailer that pretends to be framing (RFC 9112 section 7.1).

use crate::kind::{Kind, is_control, is_token_byte};
use crate::refusal::{self, Refusal};
use crate::{Framing, Limits};

/// Size digits of a chunk: below 2^60 nothing overflows.
const MAX_SIZE_DIGITS: u8 = 15;
/// Trailer names longer than this are not special; see `Kind::of`.
const NAME_BYTES: usize = 20;

/// Reads one body. Bytes go in as they arrive; payload slices come out.
#[derive(Clone, Debug)]
pub struct BodyReader {
    state: State,
    extension_limit: u32,
    trailer_bytes_left: u32,
    /// Beginning of the trailer name that is being read.
    name: [u8; NAME_BYTES],
    name_bytes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of payload are left.
    Length(u64),
    Close,
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        bytes: u32,
    },
    SizeLineFeed {
        size: u64,
    },
    /// So many bytes of the chunk's payload are left.
    Chunk(u64),
    ChunkReturn,
    ChunkLineFeed,
    /// At the beginning of a trailer line or of the last line.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

const FIRST_SIZE: State = State::Size { size: 0, digits: 0 };

impl BodyReader {
    /// A reader of a body that is framed like this.
    pub fn new(framing: Framing, limits: &Limits) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => FIRST_SIZE,
            Framing::Close => State::Close,
        };
        BodyReader {
            state,
            extension_limit: u32::try_from(limits.chunk_extension_bytes).unwrap_or(u32::MAX),
            trailer_bytes_left: u32::try_from(limits.trailer_bytes).unwrap_or(u32::MAX),
            name: [0; NAME_BYTES],
            name_bytes: 0,
        }
    }

    /// Takes the next bytes of the message and hands its payload to `payload`, never empty.
    /// Returns how many bytes belong to this body: fewer than given once it is done.
    ///
    /// # Errors
    /// A [`Refusal`] with the status for a client (400 or 431); if the body is a response's, the
    /// answer is 502. Payload in front of the fault was handed out. The reader is of no use then.
    #[inline]
    pub fn feed<'a>(
        &mut self,
        bytes: &'a [u8],
        mut payload: impl FnMut(&'a [u8]),
    ) -> Result<usize, Refusal> {
        let mut rest = bytes;
        while let Some((first, behind)) = rest.split_first() {
            let left = match self.state {
                State::Done => break,
                State::Close => u64::MAX,
                State::Length(left) | State::Chunk(left) => left,
                _ => {
                    self.state = self.step(*first)?;
                    rest = behind;
                    continue;
                }
            };
            let length = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let (now, later) = rest.split_at(length);
            payload(now);
            rest = later;
            self.state = self.state.after(length as u64);
        }
        Ok(bytes.len() - rest.len())
    }

    /// Whether the whole body was read. Never for [`Framing::Close`].
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the end of the connection is the end of the body.
    pub fn ends_at_close(&self) -> bool {
        self.state == State::Close
    }

    /// How many bytes of trailers may still come.
    pub fn trailer_bytes_left(&self) -> u32 {
        self.trailer_bytes_left
    }

    /// The trailer lines, or parts of them, in the bytes that the last [`BodyReader::feed`] took;
    /// `left` could still come before that.
    pub fn trailers_in<'a>(&self, taken: &'a [u8], left: u32) -> &'a [u8] {
        let count = left.saturating_sub(self.trailer_bytes_left) as usize;
        if count == 0 {
            return &[];
        }
        // They are the last but for the empty line behind them.
        let behind = match self.state {
            State::Done => 2,
            State::LastLineFeed => 1,
            _ => 0,
        };
        let end = taken.len().saturating_sub(behind);
        taken
            .get(end.saturating_sub(count)..end)
            .unwrap_or_default()
    }

    /// The state behind one byte of chunked framing.
    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        match self.state {
            State::Size { size, digits } => size_step(size, digits, byte),
            State::Extension { size, .. } if byte == b'\r' => Ok(State::SizeLineFeed { size }),
            State::Extension { bytes, .. } if bytes >= self.extension_limit => {
                Err(refusal::CHUNK_EXTENSION_TOO_LARGE)
            }
            State::Extension { .. } if is_control(byte) => Err(refusal::INVALID_CHUNK_EXTENSION),
            State::Extension { size, bytes } => Ok(State::Extension {
                size,
                bytes: bytes + 1,
            }),
            State::SizeLineFeed { .. } if byte != b'\n' => Err(refusal::INVALID_CHUNK_SIZE),
            State::SizeLineFeed { size: 0 } => Ok(State::TrailerStart),
            State::SizeLineFeed { size } => Ok(State::Chunk(size)),
            State::ChunkReturn if byte == b'\r' => Ok(State::ChunkLineFeed),
            State::ChunkLineFeed if byte == b'\n' => Ok(FIRST_SIZE),
            State::ChunkReturn | State::ChunkLineFeed => Err(refusal::INVALID_CHUNK_END),
            State::TrailerStart if byte == b'\r' => Ok(State::LastLineFeed),
            State::LastLineFeed if byte == b'\n' => Ok(State::Done),
            State::LastLineFeed => Err(refusal::INVALID_TRAILER),
            State::TrailerStart
            | State::TrailerName
            | State::TrailerValue
            | State::TrailerLineFeed => self.trailer_step(byte),
            payload @ (State::Length(_) | State::Close | State::Chunk(_) | State::Done) => {
                Ok(payload)
            }
        }
    }

    fn trailer_step(&mut self, byte: u8) -> Result<State, Refusal> {
        let left = self.trailer_bytes_left.checked_sub(1);
        self.trailer_bytes_left = left.ok_or(refusal::TRAILERS_TOO_LARGE)?;
        match self.state {
            State::TrailerStart if is_token_byte(byte) => {
                self.name_bytes = 0;
                self.push_name(byte);
                Ok(State::TrailerName)
            }
            State::TrailerName if byte == b':' => match self.is_name_allowed() {
                true => Ok(State::TrailerValue),
                false => Err(refusal::FORBIDDEN_TRAILER),
            },
            State::TrailerName if is_token_byte(byte) => {
                self.push_name(byte);
                Ok(State::TrailerName)
            }
            State::TrailerValue if byte == b'\r' => Ok(State::TrailerLineFeed),
            State::TrailerValue if !is_control(byte) => Ok(State::TrailerValue),
            State::TrailerLineFeed if byte == b'\n' => Ok(State::TrailerStart),
            _ => Err(refusal::INVALID_TRAILER),
        }
    }

    fn push_name(&mut self, byte: u8) {
        if let Some(slot) = self.name.get_mut(usize::from(self.name_bytes)) {
            *slot = byte;
            self.name_bytes += 1;
        }
    }

    fn is_name_allowed(&self) -> bool {
        let name = self
            .name
            .get(..usize::from(self.name_bytes))
            .unwrap_or_default();
        matches!(Kind::of(name), Kind::Other)
    }
}

impl State {
    /// The state behind so many bytes of payload.
    fn after(self, bytes: u64) -> State {
        match self {
            State::Length(left) if left > bytes => State::Length(left - bytes),
            State::Length(_) => State::Done,
            State::Chunk(left) if left > bytes => State::Chunk(left - bytes),
            State::Chunk(_) => State::ChunkReturn,
            other => other,
        }
    }
}

fn size_step(size: u64, digits: u8, byte: u8) -> Result<State, Refusal> {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        b'\r' if digits > 0 => return Ok(State::SizeLineFeed { size }),
        b';' if digits > 0 => return Ok(State::Extension { size, bytes: 0 }),
        _ => return Err(refusal::INVALID_CHUNK_SIZE),
    };
    if digits == MAX_SIZE_DIGITS {
        return Err(refusal::CHUNK_SIZE_OVERFLOW);
    }
    Ok(State::Size {
        size: size << 4 | u64::from(digit),
        digits: digits + 1,
    })
}

#[cfg(test)]
pub(crate) mod tests;
