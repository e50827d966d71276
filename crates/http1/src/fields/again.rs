//! Heads that repeat the one before, as those of one peer mostly do but for the body's length.
//!
//! Such a head is compared and not read again: what was learnt of the one before holds, since
//! nothing but its bytes and the limits went into it.

use super::{Fields, MAX_FIELDS, MAX_HEAD_BYTES};
use crate::Limits;
use crate::reading::decimal;

impl Fields {
    /// Drops the edits and puts away what was received, to be compared with the next head.
    pub(crate) fn hide(&mut self) {
        self.overlay.clear();
        self.lines.clear();
        self.overlay_is_whole = true;
        self.names = 0;
        self.is_hidden = true;
    }

    /// Shows what was put away again if `input` begins with a head that differs from it in nothing
    /// but the digits of the body's length. Returns the head's length and the body's, if it has a
    /// field for that.
    pub(crate) fn show_again(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Option<(usize, Option<u64>)> {
        let (lines, behind) = input.split_at_checked(self.bytes.len())?;
        let head_bytes = lines.len() + b"\r\n".len();
        let fits = head_bytes <= limits.head_bytes.min(MAX_HEAD_BYTES)
            && self.index.len() <= limits.fields.min(MAX_FIELDS);
        if !fits || !behind.starts_with(b"\r\n") {
            return None;
        }
        let length = match self.length {
            None if lines != self.bytes => return None,
            None => None,
            Some(range) => Some(self.take_length(range, lines)?),
        };
        for field in &mut self.index {
            field.is_removed = false;
        }
        self.names = self.received_names;
        self.is_hidden = false;
        Some((head_bytes, length))
    }

    /// Takes over the digits of the length; `None` when more than those differs.
    fn take_length(&mut self, (start, end): (u32, u32), lines: &[u8]) -> Option<u64> {
        let (start, end) = (start as usize, end as usize);
        let (known, known_behind) = self.bytes.split_at_mut_checked(end)?;
        let (known_ahead, known) = known.split_at_mut_checked(start)?;
        let (digits, behind) = lines.split_at_checked(end)?;
        let (ahead, digits) = digits.split_at_checked(start)?;
        if ahead != known_ahead || behind != known_behind {
            return None;
        }
        // There may be no body, or a spelling that is not handed on.
        let is_plain = |digits: &[u8]| digits.first() != Some(&b'0');
        if !(is_plain(known) && is_plain(digits)) && known != digits {
            return None;
        }
        let length = decimal(digits)?;
        known.copy_from_slice(digits);
        Some(length)
    }
}
