//! What a connection of HTTP/2 owes its client: handed over to the HTTP/2 code, not written yet.
//!
//! A stream may be over for everybody else while its answer waits here for a client that reads
//! nothing; so the connection has it of the account, not the stream. Bodies are given back when the
//! HTTP/2 code drops their [`Part`]s, heads when the socket takes everything. Little is free: a
//! client that takes its answers touches no account of others.

use crate::memory::{Charge, Full, H2_FREE_BYTES, Use, cost_of_unsent};
use bytes::{Buf, Bytes};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What a frame costs beside its bytes: its place in a queue, the handle of its buffer.
const FRAME_BYTES: usize = 512;
/// What a head costs beside its text, counted twice: the table of its fields, the stream's state.
const HEAD_BYTES: usize = 3 << 10;
/// The account changes by so many bytes at least.
const STEP: usize = 4 << 10;

/// The debt of one connection; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Owed(Rc<Debt>);

#[derive(Debug)]
struct Debt {
    bodies: Cell<usize>,
    heads: Cell<usize>,
    charge: RefCell<Charge>,
    /// The socket did not take everything when it was last written to.
    is_blocked: Cell<bool>,
    /// It took something since [`Owed::has_moved`] was last asked.
    moved: Cell<bool>,
}

/// A piece of a body, which is owed until it is dropped.
#[derive(Debug)]
pub(super) struct Part {
    bytes: Bytes,
    cost: usize,
    owed: Owed,
}

impl Owed {
    pub(super) fn nothing() -> Self {
        Self(Rc::new(Debt {
            bodies: Cell::new(0),
            heads: Cell::new(0),
            charge: RefCell::new(Charge::none(Use::Unsent)),
            is_blocked: Cell::new(false),
            moved: Cell::new(false),
        }))
    }

    /// A head, or trailers, of so many bytes.
    pub(super) fn head(&self, bytes: usize) -> Result<(), Full> {
        let heads = self.0.heads.get();
        self.0.heads.set(heads + HEAD_BYTES + 2 * bytes);
        self.more().inspect_err(|Full| self.0.heads.set(heads))
    }

    pub(super) fn part(&self, bytes: Bytes) -> Result<Part, Full> {
        let cost = FRAME_BYTES + cost_of_unsent(bytes.len());
        self.0.bodies.set(self.0.bodies.get() + cost);
        let part = Part {
            bytes,
            cost,
            owed: self.clone(),
        };
        self.more().map(|()| part)
    }

    /// What the socket said when it was written to or flushed.
    pub(super) fn wrote(&self, is_blocked: bool) {
        self.0.is_blocked.set(is_blocked);
        if !is_blocked {
            self.0.moved.set(true);
        }
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.0.is_blocked.get()
    }

    /// Whether the socket took anything since this was last asked.
    pub(super) fn has_moved(&self) -> bool {
        self.0.moved.take()
    }

    /// The HTTP/2 code has written whatever it could. Heads wait for nothing but the socket.
    pub(super) fn settle(&self) {
        if !self.is_blocked() && self.0.heads.take() > 0 {
            self.less();
        }
    }

    fn needed(&self) -> usize {
        (self.0.bodies.get() + self.0.heads.get()).saturating_sub(H2_FREE_BYTES)
    }

    fn more(&self) -> Result<(), Full> {
        let needed = self.needed();
        let mut charge = self.0.charge.borrow_mut();
        if needed <= charge.bytes() {
            return Ok(());
        }
        charge.keep(needed.next_multiple_of(STEP))
    }

    fn less(&self) {
        let needed = self.needed().next_multiple_of(STEP);
        let mut charge = self.0.charge.borrow_mut();
        if needed < charge.bytes() {
            // Less always fits.
            let _ = charge.keep(needed);
        }
    }
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let debt = &self.owed.0;
        debt.bodies.set(debt.bodies.get().saturating_sub(self.cost));
        self.owed.less();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_owed_until_they_are_dropped_and_heads_until_the_socket_takes_everything() {
        let owed = Owed::nothing();
        let charged = |owed: &Owed| owed.0.charge.borrow().bytes();
        let small = owed.part(Bytes::from_static(b"data: 1\n\n")).unwrap();
        assert_eq!(charged(&owed), 0, "what is little is free");
        let large = owed.part(vec![0; 64 << 10].into()).unwrap();
        let with_large = charged(&owed);
        assert!((92 << 10..100 << 10).contains(&with_large), "{with_large}");
        for _ in 0..20 {
            owed.head(200).unwrap();
        }
        assert!(charged(&owed) > with_large + 20 * HEAD_BYTES);
        owed.wrote(true);
        owed.settle();
        assert!(charged(&owed) > with_large, "the socket takes nothing");
        owed.wrote(false);
        owed.settle();
        assert_eq!(charged(&owed), with_large);
        drop(large);
        assert_eq!(charged(&owed), 0);
        drop(small);
        assert_eq!(owed.0.bodies.get(), 0);
    }
}
