//! Memory of replies that a worker uses again: each is too large for the allocator's quick path.

use super::reply::Reply;
use crate::exchange::Exchange;
use crate::limits::Limits;
use std::cell::RefCell;

/// More are freed.
const MOST_SPARES: usize = 64;

thread_local! {
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is used again")]
    static SPARES: RefCell<Vec<Box<Reply>>> = const { RefCell::new(Vec::new()) };
}

/// A reply that has not begun, in memory of an earlier one.
pub(super) fn reply(x: &Exchange, limits: &Limits) -> Box<Reply> {
    match SPARES.with_borrow_mut(Vec::pop) {
        Some(mut spare) => {
            spare.begin(x, limits);
            spare
        }
        None => Box::new(Reply::new(x, limits)),
    }
}

/// Keeps the memory of a reply that is over, but not of what it holds.
pub(crate) fn keep(mut reply: Box<Reply>) {
    reply.forget();
    SPARES.with_borrow_mut(|spares| {
        if spares.len() < MOST_SPARES {
            spares.push(reply);
        }
    });
}
