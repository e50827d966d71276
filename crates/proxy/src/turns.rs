//! Who is about to send lets the other tasks of its worker come as far first.
//!
//! A worker mostly finds several sockets readable at a time. If each request were read, understood
//! and sent before the next is read, the kernel's code for sending and ours would push each other
//! out of the processor's nearest cache, and each send would wake a peer that has just gone to
//! sleep. So tasks read one after another, and then send one after another: about a twentieth less CPU
//! a request under load. One that is alone loses a fraction of a microsecond. Pieces of streams do the same
//! (`relay/flow.rs`). Other answers are sent as they come: for them it costs as much as it brings.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

/// Tasks that wait here at the same time; more do not wait, so that the first is not kept for long.
const MOST_WAITING: usize = 48;

thread_local! {
    static WAITING: Cell<usize> = const { Cell::new(0) };
}

/// A place among those that wait, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place;

impl Place {
    pub(crate) fn take() -> Option<Self> {
        let waiting = WAITING.get();
        (waiting < MOST_WAITING).then(|| {
            WAITING.set(waiting + 1);
            Self
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        WAITING.set(WAITING.get().saturating_sub(1));
    }
}

/// Goes behind all tasks of this worker that could go on now, once.
pub(crate) async fn after_others() {
    let Some(_place) = Place::take() else { return };
    let mut went_behind = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut went_behind, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;
    use tokio::task::LocalSet;

    /// What `tasks` tasks do in which order: each notes itself, waits and notes itself again.
    async fn order(tasks: usize) -> Vec<usize> {
        let noted = Rc::new(RefCell::new(Vec::new()));
        let local = LocalSet::new();
        for task in 0..tasks {
            let noted = noted.clone();
            local.spawn_local(async move {
                noted.borrow_mut().push(task);
                after_others().await;
                noted.borrow_mut().push(task);
            });
        }
        local.await;
        noted.take()
    }

    #[tokio::test]
    async fn all_come_as_far_before_one_goes_on() {
        assert_eq!(order(3).await, [0, 1, 2, 0, 1, 2]);
        assert_eq!(order(1).await, [0, 0]);
        assert_eq!(WAITING.get(), 0);
    }

    #[tokio::test]
    async fn no_more_wait_than_may() {
        let order = order(MOST_WAITING + 1).await;
        let last = MOST_WAITING;
        assert_eq!(order.get(last..=last + 1), Some(&[last, last][..]));
    }

    #[tokio::test]
    async fn who_is_cancelled_leaves_its_place() {
        {
            let mut waiting = Box::pin(after_others());
            let polled = futures_util::poll!(&mut waiting);
            assert!(polled.is_pending());
            assert_eq!(WAITING.get(), 1);
        }
        assert_eq!(WAITING.get(), 0);
    }
}
