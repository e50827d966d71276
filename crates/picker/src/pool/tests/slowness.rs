//! Who has turned slow, or cuts answers, and how probes bring it back.

use super::*;

fn streamed(held: &Held) -> Ask<'_> {
    Ask {
        streams: true,
        ..plain(2_000, held)
    }
}

/// Two endpoints in a pool with probes that have been in time for a while.
fn bed() -> Bed {
    let spec = PoolSpec {
        probes: true,
        ..PoolSpec::default()
    };
    let mut bed = Bed::with(spec, 2);
    for _ in 0..20 {
        serve(&mut bed, 40);
    }
    bed
}

/// A stream goes to a chosen endpoint.
fn sent_to(bed: &mut Bed, index: usize) -> Reservation {
    let (held, others) = (Held::default(), [bed.ids[1 - index]]);
    let ask = Ask {
        exclude: &others,
        ..streamed(&held)
    };
    bed.go(&ask).reservation
}

/// Its first token comes after so long, then its end.
fn ends(bed: &mut Bed, reservation: Reservation, milliseconds: u64) {
    bed.pass(milliseconds);
    bed.first_token(reservation);
    bed.pass(60);
    bed.finish(reservation, Finished::Complete);
}

/// Serves one stream where the picker likes; which endpoint it was.
fn serve(bed: &mut Bed, milliseconds: u64) -> usize {
    let held = Held::default();
    let decision = bed.go(&streamed(&held));
    ends(bed, decision.reservation, milliseconds);
    bed.index(decision.winner)
}

fn serve_at(bed: &mut Bed, index: usize, milliseconds: u64) {
    let reservation = sent_to(bed, index);
    ends(bed, reservation, milliseconds);
}

/// Of so many requests that end in time, those that the endpoint got.
fn share(bed: &mut Bed, index: usize) -> usize {
    (0..20).filter(|_| serve(bed, 40) == index).count()
}

fn probe(bed: &mut Bed, probed: Probed) -> bool {
    let due = bed.pool.due_probes(bed.now);
    for probe in &due {
        assert_eq!(probe.endpoint, bed.ids[1]);
        assert!((0.1..2.0).contains(&probe.seconds), "{probe:?}");
        bed.pass(100);
        bed.pool.probed(bed.now, probe.endpoint, probed);
    }
    !due.is_empty()
}

#[test]
fn requests_that_wait_too_long_show_a_slow_endpoint_before_they_end() {
    let mut bed = bed();
    let waiting = [sent_to(&mut bed, 1), sent_to(&mut bed, 1)];
    bed.pass(50);
    serve_at(&mut bed, 0, 40);
    bed.pass(400);
    assert_eq!(share(&mut bed, 1), 0);
    // Their first tokens come at last: that is no reason to go back.
    for reservation in waiting {
        ends(&mut bed, reservation, 0);
    }
    assert_eq!(share(&mut bed, 1), 0);
    assert!(probe(&mut bed, Probed::Failed));
    assert!(!probe(&mut bed, Probed::Whole), "there is a pause between");
    bed.pass(1_000);
    assert!(probe(&mut bed, Probed::Whole));
    assert_eq!(share(&mut bed, 1), 0, "one is no proof");
    assert!(probe(&mut bed, Probed::Whole));
    assert!(share(&mut bed, 1) > 5);
}

#[test]
fn late_first_tokens_show_it_where_few_wait() {
    let mut bed = bed();
    for _ in 0..2 {
        let slow = sent_to(&mut bed, 1);
        serve_at(&mut bed, 0, 40);
        ends(&mut bed, slow, 400);
    }
    assert_eq!(share(&mut bed, 1), 0);
    // What stays slow is taken for what it is.
    bed.pass(31_000);
    bed.pool.due_probes(bed.now);
    assert!(share(&mut bed, 1) > 0);
}

#[test]
fn where_all_are_late_nobody_is_held_for_slow() {
    let mut bed = bed();
    for round in 0..20 {
        serve_at(&mut bed, round % 2, 500);
    }
    assert!(bed.pool.due_probes(bed.now).is_empty());
    assert!((1..20).contains(&share(&mut bed, 1)));
}

#[test]
fn who_was_never_in_time_is_not_held_for_slow() {
    let spec = PoolSpec {
        probes: true,
        ..PoolSpec::default()
    };
    let mut bed = Bed::with(spec, 2);
    for _ in 0..20 {
        serve_at(&mut bed, 0, 40);
        serve_at(&mut bed, 1, 400);
    }
    assert!(bed.pool.due_probes(bed.now).is_empty());
}

#[test]
fn who_cuts_answers_is_tried_out_by_probes_and_watched_after() {
    let mut bed = bed();
    let cut = |bed: &mut Bed| {
        let reservation = sent_to(bed, 1);
        bed.first_token(reservation);
        bed.fail(reservation, FailureKind::Cut);
    };
    cut(&mut bed);
    cut(&mut bed);
    bed.pass(10_000);
    assert_eq!(share(&mut bed, 1), 0, "no client is the trial");
    assert!(probe(&mut bed, Probed::Failed));
    bed.pass(1_000);
    assert!(probe(&mut bed, Probed::Whole) && probe(&mut bed, Probed::Whole));
    // It cuts again: once is enough now.
    cut(&mut bed);
    assert_eq!(share(&mut bed, 1), 0);
    bed.pass(1_500);
    assert!(probe(&mut bed, Probed::Untold));
    assert!(share(&mut bed, 1) > 5, "a client tried it out");
}

#[test]
fn without_probes_clients_are_the_trials_as_before() {
    let mut bed = bed();
    for _ in 0..2 {
        let reservation = bed.burden(1, 100);
        bed.fail(reservation, FailureKind::Cut);
    }
    bed.pool.configure(bed.now, PoolSpec::default());
    bed.pass(1_500);
    assert!(bed.pool.due_probes(bed.now).is_empty());
    assert!(share(&mut bed, 1) > 5);
}
