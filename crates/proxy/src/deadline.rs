//! Coarse deadlines: one slot a connection, looked at ten times a second by the worker's tick.
//!
//! A tokio timer per request costs more than parsing its head. Deadlines here are for idle limits
//! and timeouts of seconds, so a tenth of a second of lateness is fine; setting one is a store.

use picker::Micros;
use std::cell::RefCell;
use std::task::{Context, Waker};

const NEVER: u64 = u64::MAX;
/// The deadline passed and its owner was woken.
const FIRED: u64 = 0;

#[derive(Debug)]
struct Slot {
    due: u64,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

thread_local! {
    static SLOTS: RefCell<Slots> = RefCell::default();
}

/// A connection's deadline. Worker-local: made, set and dropped on one thread.
#[derive(Debug)]
pub(crate) struct Deadline {
    slot: usize,
}

impl Deadline {
    /// No deadline yet.
    pub(crate) fn new() -> Self {
        let slot = SLOTS.with_borrow_mut(|all| match all.free.pop() {
            Some(slot) => slot,
            None => {
                all.slots.push(Slot {
                    due: NEVER,
                    waker: None,
                });
                all.slots.len() - 1
            }
        });
        Self { slot }
    }

    pub(crate) fn set(&self, due: Micros) {
        self.with(|slot| slot.due = due.0.max(1));
    }

    pub(crate) fn clear(&self) {
        self.with(|slot| slot.due = NEVER);
    }

    /// Whether it passed; else the task of `cx` is woken when it does.
    pub(crate) fn poll_passed(&self, cx: &Context<'_>) -> bool {
        self.with(|slot| {
            if slot.due == FIRED {
                return true;
            }
            match &slot.waker {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                _ => slot.waker = Some(cx.waker().clone()),
            }
            false
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Slot) -> T) -> T {
        SLOTS.with_borrow_mut(|all| {
            let slot = all.slots.get_mut(self.slot);
            #[expect(
                clippy::expect_used,
                reason = "slots are never removed, only marked free"
            )]
            act(slot.expect("a deadline's slot exists as long as the deadline"))
        })
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        SLOTS.with_borrow_mut(|all| {
            if let Some(slot) = all.slots.get_mut(self.slot) {
                *slot = Slot {
                    due: NEVER,
                    waker: None,
                };
                all.free.push(self.slot);
            }
        });
    }
}

/// Wakes the owners of all deadlines that are due. Called by the worker's tick.
pub(crate) fn fire(now: Micros) {
    SLOTS.with_borrow_mut(|all| {
        for slot in &mut all.slots {
            if slot.due <= now.0 && slot.due != FIRED {
                slot.due = FIRED;
                if let Some(waker) = &slot.waker {
                    waker.wake_by_ref();
                }
            }
        }
    });
}

/// Wakes every connection of this worker, so that idle ones see that their listener drains.
pub(crate) fn wake_all() {
    SLOTS.with_borrow_mut(|all| {
        for waker in all.slots.iter_mut().filter_map(|slot| slot.waker.take()) {
            waker.wake();
        }
    });
}
