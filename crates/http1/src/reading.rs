//! What the fields of one head say about framing and connection, gathered in one pass.
//!
//! Only fields of a special kind come here; a field of kind `Other` costs nothing. The rules that
//! differ between requests and responses stand in `request.rs` and `response.rs`.

use crate::Framing;
use crate::kind::Kind;
use crate::refusal::{self, Refusal};

/// Connection options that a head may list; each is compared with each field name.
const MAX_CONNECTION_OPTIONS: u32 = 64;

/// The sum of the special fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) content_length: Option<u64>,
    pub(crate) is_chunked: bool,
    pub(crate) closes: bool,
    pub(crate) expects_continue: bool,
    /// Number of the Host field among all fields.
    pub(crate) host: Option<u32>,
    /// Number of the first Content-Type field.
    pub(crate) content_type: Option<u32>,
    /// Number of the Upgrade field, and whether Connection lists it.
    pub(crate) upgrade: Option<u32>,
    pub(crate) connection_upgrade: bool,
    /// Connection lists names of other fields.
    pub(crate) lists_fields: bool,
    connection_options: u32,
}

impl Reading {
    /// Takes in one field; `number` counts the fields of the head from 0.
    pub(crate) fn note(&mut self, kind: Kind, value: &[u8], number: u32) -> Result<(), Refusal> {
        match kind {
            Kind::Host if self.host.is_some() => return Err(refusal::DUPLICATE_HOST),
            Kind::Host => self.host = Some(number),
            Kind::ContentLength if self.content_length.is_some() => {
                return Err(refusal::DUPLICATE_CONTENT_LENGTH);
            }
            Kind::ContentLength => {
                let length = decimal(value).ok_or(refusal::INVALID_CONTENT_LENGTH)?;
                self.content_length = Some(length);
            }
            Kind::TransferEncoding if self.is_chunked => {
                return Err(refusal::DUPLICATE_TRANSFER_ENCODING);
            }
            Kind::TransferEncoding if value.eq_ignore_ascii_case(b"chunked") => {
                self.is_chunked = true;
            }
            Kind::TransferEncoding => return Err(refusal::UNSUPPORTED_TRANSFER_CODING),
            Kind::Connection => return self.note_connection(value),
            Kind::Upgrade => self.upgrade = Some(number),
            Kind::ContentType => self.content_type = self.content_type.or(Some(number)),
            Kind::Expect if value.eq_ignore_ascii_case(b"100-continue") => {
                self.expects_continue = true;
            }
            Kind::Expect => return Err(refusal::UNKNOWN_EXPECTATION),
            Kind::Other | Kind::Kept | Kind::Hop | Kind::Listed => {}
        }
        Ok(())
    }

    /// Framing as the fields give it, before the rules of requests or responses.
    pub(crate) fn framing(&self) -> Result<Framing, Refusal> {
        match (self.is_chunked, self.content_length) {
            (true, Some(_)) => Err(refusal::LENGTH_AND_TRANSFER_ENCODING),
            (true, None) => Ok(Framing::Chunked),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::None),
        }
    }

    fn note_connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for option in connection_options(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.connection_upgrade = true;
            } else if !option.eq_ignore_ascii_case(b"keep-alive") {
                self.lists_fields = true;
            }
            self.connection_options += 1;
            if self.connection_options > MAX_CONNECTION_OPTIONS {
                return Err(refusal::TOO_MANY_CONNECTION_OPTIONS);
            }
        }
        Ok(())
    }
}

/// The options of a Connection value, without the spaces around them; empty ones are left out.
pub(crate) fn connection_options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}

/// Digits only, below 2^63, so that no reader's signed integer turns negative.
pub(crate) fn decimal(value: &[u8]) -> Option<u64> {
    let number = value.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })?;
    (!value.is_empty() && number <= i64::MAX as u64).then_some(number)
}
