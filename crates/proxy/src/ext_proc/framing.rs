//! gRPC's framing of messages over HTTP/2: a byte that says whether it is compressed, a length, the
//! message. No message is compressed, since none is asked for.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

/// The largest message that a picker may send, in bytes.
const MOST_BYTES: usize = 1 << 20;
const PREFIX: usize = 5;

/// A message with its prefix.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(PREFIX + length);
    out.put_u8(0);
    out.put_u32(length as u32);
    // There is room for all of it.
    let _ = message.encode(&mut out);
    out.freeze()
}

/// Takes messages out of the bytes of a stream.
#[derive(Debug, Default)]
pub(super) struct Messages {
    held: BytesMut,
}

impl Messages {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole message; `None` while there is none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn next<M: Message + Default>(&mut self) -> Result<Option<M>, String> {
        let Some((&[is_compressed, a, b, c, d], rest)) = self.held.split_first_chunk::<PREFIX>()
        else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if is_compressed != 0 {
            return Err("it sent a compressed message".to_owned());
        }
        if length > MOST_BYTES {
            return Err(format!("it sent a message of {length} bytes"));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.held.advance(PREFIX);
        let message = M::decode(self.held.split_to(length));
        message.map(Some).map_err(|error| error.to_string())
    }

    /// Whether a message has begun and is not whole.
    pub(super) fn is_cut(&self) -> bool {
        !self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext_proc::wire::{HealthCheckRequest, HealthCheckResponse};

    fn request(service: &str) -> HealthCheckRequest {
        HealthCheckRequest {
            service: service.to_owned(),
        }
    }

    #[test]
    fn messages_come_out_however_they_are_cut() {
        let mut sent = frame(&request("one")).to_vec();
        sent.extend_from_slice(&frame(&request("")));
        sent.extend_from_slice(&frame(&request("three")));
        for size in 1..sent.len() {
            let mut messages = Messages::default();
            let mut found = Vec::new();
            for part in sent.chunks(size) {
                messages.push(part);
                while let Some(message) = messages.next::<HealthCheckRequest>().unwrap() {
                    found.push(message.service);
                }
            }
            assert_eq!(found, ["one", "", "three"], "{size}");
            assert!(!messages.is_cut());
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for (bytes, what) in [
            (&b"\x01\0\0\0\0"[..], "compressed"),
            (&b"\0\xff\xff\xff\xff"[..], "4294967295 bytes"),
            (&b"\0\0\0\0\x02\x08\xff"[..], "varint"),
        ] {
            let mut messages = Messages::default();
            messages.push(bytes);
            let error = messages.next::<HealthCheckResponse>().unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        let mut messages = Messages::default();
        messages.push(b"\0\0\0\0\x05abc");
        assert_eq!(messages.next::<HealthCheckResponse>(), Ok(None));
        assert!(messages.is_cut());
    }
}
