//! A queue of plain values that is filled at one end and cut at the other, by the slice.
//!
//! It is written around and around over the same memory, each time from one end to the other. It
//! grows by little at a time, since all that it has room for is written over sooner or later.

/// A queue that is full grows by this part of what it holds, and by so many values at least.
const GROWTH: usize = 8;
const LEAST_GROWTH: usize = 64;

/// By how much a queue grows that holds `count` values.
pub(super) fn growth(count: usize) -> usize {
    (count / GROWTH).max(LEAST_GROWTH)
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Tape<T> {
    values: Vec<T>,
    start: usize,
    count: usize,
}

impl<T> Default for Tape<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            start: 0,
            count: 0,
        }
    }
}

impl<T: Copy> Tape<T> {
    /// Appends `part`.
    pub(super) fn put(&mut self, part: &[T]) {
        if self.values.len() - self.count < part.len() {
            self.grow(part);
        }
        let end = self.place(self.start + self.count);
        let (around, ahead) = self.values.split_at_mut(end);
        let (first, rest) = part.split_at(part.len().min(ahead.len()));
        if let Some(place) = ahead.get_mut(..first.len()) {
            place.copy_from_slice(first);
        }
        if !rest.is_empty()
            && let Some(place) = around.get_mut(..rest.len())
        {
            place.copy_from_slice(rest);
        }
        self.count += part.len();
    }

    /// Drops the first `count` values.
    pub(super) fn cut(&mut self, count: usize) {
        let count = count.min(self.count);
        self.start = self.place(self.start + count);
        self.count -= count;
    }

    /// All values, the first one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = T> {
        let (around, ahead) = self.values.split_at(self.start);
        ahead.iter().chain(around).copied().take(self.count)
    }

    /// Where in the memory the value is that would be at `at` if it had no end.
    fn place(&self, at: usize) -> usize {
        at.checked_sub(self.values.len()).unwrap_or(at)
    }

    #[cold]
    fn grow(&mut self, part: &[T]) {
        let Some(filling) = part.first() else { return };
        let wanted = self.count + part.len() + growth(self.count);
        let mut values = Vec::with_capacity(wanted);
        values.extend(self.iter());
        values.resize(wanted, *filling);
        (self.values, self.start) = (values, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    #[test]
    fn it_holds_what_a_queue_would_hold() {
        let (mut tape, mut queue) = (Tape::default(), VecDeque::<usize>::new());
        for step in 0..5000_usize {
            let part: Vec<usize> = (0..step * 7 % 23).map(|at| step + at).collect();
            tape.put(&part);
            queue.extend(&part);
            let cut = (step * 5 % 31).min(queue.len());
            tape.cut(cut);
            queue.drain(..cut);
            assert!(tape.iter().eq(queue.iter().copied()), "{step}");
        }
        assert!(tape.values.len() < 500, "it does not grow without need");
    }
}
