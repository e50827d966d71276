//! What is kept of a request's head for the next one of its connection.
//!
//! A head that repeats the one before is not read again (`fields/again.rs`). Where one differs, its
//! first line and its host may still have been checked before. Invariant: the fields that are put
//! away are those of the head that `RequestHead::last` describes.

use super::{RequestHead, check_target, question_in, text};
use crate::host::host_length;
use crate::refusal::{self, Refusal};
use crate::{Framing, Limits};

/// What follows from the bytes of a head alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline {
    /// All of the head was read and found right.
    pub(super) is_whole: bool,
    pub(super) method_bytes: u32,
    /// Of the request line without its version; 0 while there is none.
    pub(super) line_bytes: u32,
    pub(super) framing: Framing,
    pub(super) version_minor: u8,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    pub(super) has_host: bool,
    /// Where the value of the Upgrade field lies.
    pub(super) upgrade: Option<(u32, u32)>,
}

impl Outline {
    /// Of no head.
    pub(super) const EMPTY: Self = Self {
        is_whole: false,
        method_bytes: 0,
        line_bytes: 0,
        framing: Framing::None,
        version_minor: 1,
        keep_alive: false,
        expects_continue: false,
        has_host: false,
        upgrade: None,
    };
}

impl RequestHead {
    /// Takes a head that repeats the one before, if it is one; returns its length.
    pub(super) fn take_again(&mut self, input: &[u8], limits: &Limits) -> Option<usize> {
        let last = self.last;
        let target_bytes = last.line_bytes.saturating_sub(last.method_bytes + 1);
        if !last.is_whole || target_bytes as usize > limits.target_bytes {
            return None;
        }
        let (head_bytes, length) = self.fields.show_again(input, limits)?;
        self.outline = Outline {
            framing: length.map_or(last.framing, Framing::Length),
            ..last
        };
        self.question = question_in(self.target());
        Some(head_bytes)
    }

    /// Takes method and target, checked unless they are those of the head before.
    pub(super) fn take_line(
        &mut self,
        (method, target): (&str, &str),
        most: usize,
    ) -> Result<(), Refusal> {
        let known = self.line.split_at_checked(method.len());
        let is_known = known.is_some_and(|(line_method, rest)| {
            line_method == method && rest.strip_prefix(' ') == Some(target)
        });
        if !is_known || target.len() > most {
            check_target(method, target, most)?;
            self.line.clear();
            self.line.push_str(method);
            self.line.push(' ');
            self.line.push_str(target);
        }
        self.outline.method_bytes = method.len() as u32;
        self.outline.line_bytes = self.line.len() as u32;
        self.question = question_in(target);
        Ok(())
    }

    /// Takes the value of the Host field, checked unless it is that of a head before.
    pub(super) fn take_host(&mut self, range: (u32, u32)) -> Result<(), Refusal> {
        let value = self.fields.slice(range.0, range.1);
        if value != self.host.as_bytes() {
            let length = host_length(value).ok_or(refusal::INVALID_HOST)?;
            self.host.clear();
            self.host.push_str(text(value));
            self.host_bytes = length as u32;
        }
        Ok(())
    }
}
