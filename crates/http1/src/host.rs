//! What may stand in a Host field and in a request target.
//!
//! Both decide where a request goes, so both are stricter than their grammars: no user
//! information, no percent-encoded or quoted host names, no characters that some parsers rewrite.

use core::net::Ipv6Addr;

/// Length of the host without its port, or `None` when the value is not valid.
///
/// An empty value is valid: it is what a client sends when the target has no authority
/// (RFC 9112 section 3.2).
pub(crate) fn host_length(value: &[u8]) -> Option<usize> {
    if value.is_empty() {
        return Some(0);
    }
    let host_end = match value.strip_prefix(b"[") {
        Some(rest) => {
            let end = memchr::memchr(b']', rest)?;
            let address = core::str::from_utf8(rest.get(..end)?).ok()?;
            address.parse::<Ipv6Addr>().ok()?;
            end + 2
        }
        None => {
            let end = memchr::memchr(b':', value).unwrap_or(value.len());
            let name = value.get(..end)?;
            let is_name = !name.is_empty() && name.len() <= 255;
            (is_name && name.iter().all(|byte| is_host_byte(*byte))).then_some(end)?
        }
    };
    match value.get(host_end..)? {
        [] => Some(host_end),
        [b':', port @ ..] => is_port(port).then_some(host_end),
        _ => None,
    }
}

/// Whether the bytes may be a target in origin form: visible ASCII without those characters that
/// no URI holds and that parsers treat differently (`"`, `<`, `>`, `\`, backtick), and without `#`.
pub(crate) fn is_target_text(target: &[u8]) -> bool {
    // No early exit: the usual target is short and the loop becomes vector code.
    !target.iter().fold(false, |bad, byte| {
        bad | !matches!(byte, 0x21 | 0x24..=0x3B | 0x3D | 0x3F..=0x5B | 0x5D..=0x5F | 0x61..=0x7E)
    })
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

fn is_port(digits: &[u8]) -> bool {
    // `parse` alone would take a sign.
    let is_number = (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let number = core::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse::<u16>().ok());
    is_number && number.is_some_and(|number| number != 0)
}
