//! One stable hash for content: FNV-1a, 64 bits. Not for secrets against an attacker, not for
//! hash tables; for telling whether two snapshots or two values are the same.

use std::io;

use serde::Serialize;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

struct Fnv(u64);

impl io::Write for Fnv {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hash of bytes.
pub(crate) fn of_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
}

/// Hash of a value's JSON form, which is the same on every platform.
pub(crate) fn of_value<T: Serialize>(value: &T) -> u64 {
    let mut hash = Fnv(OFFSET);
    // A sink that never fails: an error could only come from a map key that is no string, and
    // then the bytes written so far still tell values apart.
    let _ = serde_json::to_writer(&mut hash, value);
    hash.0
}
