//! The end of waits: their turn has come, they took too long, or there is nobody left.

use super::{Pool, decide::Choice};
use crate::ask::{Arrival, Cause, Ticket, Wake, Why};

/// Lanes that may be found blocked before the look over the queue ends.
const BLOCKED_LANES: usize = 4;

impl Pool {
    /// Ends all waits that can end now; empty, without a look, while nobody waits.
    #[inline]
    pub(super) fn wake(&mut self) -> Vec<Wake> {
        if self.queue.is_empty() {
            Vec::new()
        } else {
            self.end_waits()
        }
    }

    fn end_waits(&mut self) -> Vec<Wake> {
        let mut wakes = Vec::new();
        self.looked_at = self.now;
        if self.member_count == 0 {
            let refused = |ticket| Wake {
                ticket,
                arrival: Arrival::Refuse(Why::no_endpoints()),
            };
            return self.queue.drain().into_iter().map(refused).collect();
        }
        self.end_long_waits(&mut wakes);
        self.serve_queue(&mut wakes);
        wakes
    }

    fn end_long_waits(&mut self, wakes: &mut Vec<Wake>) {
        while let Some((ticket, since)) = self.queue.oldest() {
            if since.plus_seconds(self.spec.queue.wait_seconds) > self.now {
                return;
            }
            self.queue.remove(ticket);
            let arrival = self.refuse(Cause::WaitedTooLong);
            wakes.push(Wake { ticket, arrival });
        }
    }

    fn serve_queue(&mut self, wakes: &mut Vec<Wake>) {
        let mut blocked = [0_u64; BLOCKED_LANES];
        let mut blocked_count = 0;
        let mut after = None;
        while blocked_count < BLOCKED_LANES {
            let lanes = blocked.get(..blocked_count).unwrap_or_default();
            let Some(ticket) = self.queue.next(after, lanes) else {
                return;
            };
            after = Some(ticket);
            match self.serve(ticket) {
                Some(arrival) => wakes.push(Wake { ticket, arrival }),
                None => {
                    let lane = self.queue.get(ticket).map_or(0, |waiter| waiter.lane);
                    if let Some(place) = blocked.get_mut(blocked_count) {
                        *place = lane;
                    }
                    blocked_count += 1;
                }
            }
        }
    }

    /// Tries one waiter; it stays in the queue when every endpoint is full.
    fn serve(&mut self, ticket: Ticket) -> Option<Arrival> {
        // The queue is put aside while the choice borrows both the waiter and the pool.
        let queue = core::mem::take(&mut self.queue);
        let choice = queue
            .get(ticket)
            .map(|waiter| self.decide(&waiter.ask(ticket), None));
        self.queue = queue;
        let arrival = match choice? {
            Choice::Go(decision) => Arrival::Go(decision),
            Choice::Nobody => self.refuse(Cause::AllExcluded),
            Choice::Full => return None,
        };
        self.queue.remove(ticket);
        Some(arrival)
    }
}
