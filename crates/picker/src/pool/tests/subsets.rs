//! Requests that are kept to a part of the pool, and when they are not.

use super::*;
use crate::pick::narrow::MOST_CANDIDATES;

const CANARY: usize = 0;
const ZONE: usize = 1;

fn subsets(numbers: &[usize]) -> Subsets {
    numbers.iter().copied().collect()
}

/// Members with the numbers of the subsets that each is in.
fn specs(members: &[&[usize]]) -> Vec<MemberSpec> {
    let spec = |(index, of): (usize, &&[usize])| MemberSpec {
        subsets: subsets(of),
        ..member(index)
    };
    members.iter().enumerate().map(spec).collect()
}

fn bed(members: &[&[usize]]) -> Bed {
    let mut bed = Bed::new(members.len());
    bed.sync(members);
    bed
}

impl Bed {
    fn sync(&mut self, members: &[&[usize]]) -> Vec<Wake> {
        let synced = self.pool.sync(self.now, &specs(members));
        assert!(synced.added.is_empty() && synced.removed.is_empty());
        synced.wakes
    }

    /// Who is chosen for one request after another, each without a mark on anybody.
    fn chosen_of(&mut self, wanted: &[usize], exclude: &[usize], count: usize) -> Vec<usize> {
        let none = Held::default();
        let exclude: Vec<EndpointId> = exclude.iter().map(|index| self.ids[*index]).collect();
        let ask = Ask {
            subsets: subsets(wanted),
            exclude: &exclude,
            is_retry: !exclude.is_empty(),
            ..plain(100, &none)
        };
        let mut chosen: Vec<usize> = (0..count)
            .map(|_| {
                let decision = self.go(&ask);
                self.finish(decision.reservation, Finished::Cancelled);
                self.index(decision.winner)
            })
            .collect();
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    fn eject(&mut self, index: usize) {
        while self
            .pool
            .usable(self.now, Subsets::NONE)
            .contains(&self.ids[index])
        {
            let reservation = self.burden(index, 100);
            self.fail(reservation, FailureKind::Connect);
        }
    }

    fn usable_of(&self, wanted: &[usize]) -> Vec<usize> {
        let usable = self.pool.usable(self.now, subsets(wanted));
        usable.into_iter().map(|id| self.index(id)).collect()
    }
}

#[test]
fn the_first_subset_counts_that_has_somebody() {
    let mut bed = bed(&[&[CANARY], &[ZONE], &[ZONE], &[]]);
    for (wanted, expected) in [
        (&[][..], &[0, 1, 2, 3][..]),
        (&[CANARY], &[0]),
        (&[ZONE], &[1, 2]),
        (&[CANARY, ZONE], &[0]),
        (&[7], &[0, 1, 2, 3]),
        (&[7, ZONE], &[1, 2]),
    ] {
        assert_eq!(bed.chosen_of(wanted, &[], 16), expected, "{wanted:?}");
        assert_eq!(bed.usable_of(wanted), expected, "{wanted:?}");
    }
}

#[test]
fn who_is_held_for_broken_does_not_keep_requests_to_its_subset() {
    let mut bed = bed(&[&[CANARY], &[ZONE], &[ZONE], &[]]);
    bed.eject(0);
    assert_eq!(bed.chosen_of(&[CANARY], &[], 16), [1, 2, 3]);
    assert_eq!(bed.chosen_of(&[CANARY, ZONE], &[], 16), [1, 2]);
    bed.eject(1);
    assert_eq!(bed.chosen_of(&[CANARY, ZONE], &[], 16), [2]);
    assert_eq!(bed.usable_of(&[CANARY, ZONE]), [2]);
    assert_eq!(bed.usable_of(&[CANARY]), [2, 3]);
}

#[test]
fn a_retry_leaves_a_subset_whose_members_were_all_tried() {
    let mut bed = bed(&[&[CANARY], &[ZONE], &[ZONE], &[]]);
    assert_eq!(bed.chosen_of(&[CANARY], &[0], 16), [1, 2, 3]);
    assert_eq!(bed.chosen_of(&[ZONE], &[1], 16), [2]);
    assert_eq!(bed.chosen_of(&[CANARY, ZONE], &[0, 1], 16), [2]);
}

#[test]
fn a_subset_that_does_not_serve_the_model_does_not_count() {
    let mut bed = bed(&[&[CANARY], &[], &[]]);
    for (index, name) in [(0, "other"), (1, "base"), (2, "other")] {
        bed.observe(index, models(&[(name, false)]));
    }
    assert_eq!(bed.chosen_of(&[CANARY], &[], 8), [1]);
}

#[test]
fn of_a_crowd_only_the_subset_is_compared() {
    let crowd = MOST_CANDIDATES + 40;
    let mut members: Vec<&[usize]> = vec![&[]; crowd];
    (members[3], members[90]) = (&[ZONE], &[CANARY, ZONE]);
    let mut bed = bed(&members);
    let none = Held::default();
    let mut list = Shortlist::default();
    for (wanted, expected) in [(&[ZONE][..], &[3, 90][..]), (&[CANARY, ZONE], &[90])] {
        assert_eq!(bed.chosen_of(wanted, &[], 16), expected, "{wanted:?}");
        let ask = Ask {
            subsets: subsets(wanted),
            ..plain(100, &none)
        };
        for _ in 0..16 {
            bed.pool.overview().narrow(bed.now, &ask, &mut list);
            let Arrival::Go(decision) = bed.pool.arrive_among(bed.now, &ask, &list) else {
                panic!("somebody is there");
            };
            let chosen = bed.index(decision.winner);
            assert!(expected.contains(&chosen), "{wanted:?} {chosen}");
        }
    }
    bed.eject(90);
    assert_eq!(bed.chosen_of(&[CANARY, ZONE], &[], 16), [3]);
    bed.eject(3);
    assert!(
        bed.chosen_of(&[CANARY, ZONE], &[], 32).len() > 16,
        "all others"
    );
}

#[test]
fn a_member_moves_with_its_load_and_ends_waits_for_its_new_subset() {
    let mut bed = bed(&[&[CANARY], &[], &[]]);
    let none = Held::default();
    let asks = |wanted: &[usize]| Ask {
        subsets: subsets(wanted),
        ..plain(10_000, &none)
    };
    let mut sent = 0;
    let ticket = loop {
        match bed.arrive(&asks(&[CANARY])) {
            Arrival::Go(_) => sent += 1,
            Arrival::Wait(ticket) => break ticket,
            Arrival::Refuse(why) => panic!("{why:?}"),
        }
    };
    assert_eq!(bed.in_flight(), [sent, 0, 0]);
    // Those who may go anywhere are not held up by those who wait for the subset.
    assert_eq!(bed.chosen_of(&[], &[], 2), [1, 2]);
    let wakes = bed.sync(&[&[], &[CANARY], &[]]);
    let [
        Wake {
            ticket: woken,
            arrival: Arrival::Go(decision),
        },
    ] = wakes.as_slice()
    else {
        panic!("{wakes:?}");
    };
    assert_eq!((*woken, bed.index(decision.winner)), (ticket, 1));
    assert_eq!(bed.in_flight()[0], sent, "what runs there goes on");
    assert_eq!(bed.chosen_of(&[CANARY], &[], 4), [1]);
}
