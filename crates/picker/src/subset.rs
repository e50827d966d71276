//! Parts of a pool that a request may be kept to, such as a zone or a canary.
//!
//! Whoever feeds the pool numbers them, says of each member in which of them it is
//! ([`crate::MemberSpec`]), and of each request to which of them it may be kept ([`crate::Ask`]). The
//! first of those counts in which a member may serve that is not held for broken; when there is
//! none, the whole pool serves. Invariant: a request that may be kept to none pays for no look.

use serde::{Serialize, Serializer};

/// Some of the subsets of a pool, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Subsets(u16);

impl Subsets {
    /// Subsets that a pool may have.
    pub const MOST: usize = u16::BITS as usize;
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// Adds all of `other`.
    pub(crate) fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// The first of these that is among `found`, alone; none when none is.
    pub(crate) fn first_among(self, found: Self) -> Self {
        let both = self.0 & found.0;
        Self(both & both.wrapping_neg())
    }

    /// Whether a member of these is where a request is kept to; it always is when that is nothing.
    pub(crate) fn is_within(self, kept_to: Self) -> bool {
        kept_to.is_empty() || self.0 & kept_to.0 != 0
    }

    /// As bits that can be kept in an atomic number.
    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    pub(crate) fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Their numbers, ascending.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..Self::MOST).filter(move |number| self.0 & (1 << number) != 0)
    }
}

impl FromIterator<usize> for Subsets {
    /// Numbers from [`Subsets::MOST`] on are left out.
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let known = numbers.into_iter().filter(|number| *number < Self::MOST);
        Self(known.fold(0, |bits, number| bits | 1 << number))
    }
}

impl Serialize for Subsets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_number_that_both_have_counts() {
        let of = |numbers: &[usize]| numbers.iter().copied().collect::<Subsets>();
        for (wanted, found, expected) in [
            (&[][..], &[0, 15][..], &[][..]),
            (&[3, 1, 15], &[], &[]),
            (&[3, 1, 15], &[2, 4], &[]),
            (&[3, 1, 15], &[15, 3, 0], &[3]),
            (&[15], &[15], &[15]),
        ] {
            let first = of(wanted).first_among(of(found));
            assert_eq!(first.iter().collect::<Vec<_>>(), expected);
        }
        assert!(of(&[1, 2]).is_within(of(&[2])) && !of(&[1]).is_within(of(&[2])));
        assert!(of(&[]).is_within(of(&[])), "kept to nothing");
        assert!(of(&[16]).is_empty(), "more than there may be");
    }
}
