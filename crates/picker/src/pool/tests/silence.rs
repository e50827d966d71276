//! Endpoints that take requests and say nothing.

use super::*;

fn streamed(held: &Held) -> Ask<'_> {
    Ask {
        streams: true,
        ..plain(100, held)
    }
}

fn health(bed: &Bed, index: usize) -> String {
    bed.pool.endpoint(bed.ids[index]).unwrap().health
}

/// Sends streamed requests until member 0 has `count`; those elsewhere are answered at once.
fn send(bed: &mut Bed, count: usize) -> Vec<Reservation> {
    let none = Held::default();
    let mut silent = Vec::new();
    while silent.len() < count {
        let decision = bed.go(&streamed(&none));
        if bed.index(decision.winner) == 0 {
            silent.push(decision.reservation);
        } else {
            bed.first_token(decision.reservation);
        }
    }
    silent
}

#[test]
fn a_silent_endpoint_is_ejected_and_tried_out_until_it_speaks() {
    let mut bed = Bed::new(2);
    let none = Held::default();
    send(&mut bed, 3);
    bed.pass(2900);
    assert_eq!(health(&bed, 0), "up");
    bed.pass(300);
    for _ in 0..30 {
        assert_eq!(bed.chosen(&streamed(&none)), 1);
    }
    assert!(health(&bed, 0).starts_with("ejected"));
    bed.pass(600);
    let trial = bed.go(&streamed(&none));
    assert_eq!(bed.index(trial.winner), 0);
    bed.pass(1600);
    let second = bed.go(&streamed(&none));
    assert_eq!(
        bed.index(second.winner),
        0,
        "a trial without news makes room"
    );
    bed.first_token(second.reservation);
    assert_eq!(health(&bed, 0), "up");
    bed.pass(5000);
    bed.go(&streamed(&none));
    assert_eq!(health(&bed, 0), "up", "old silence is not held against it");
}

#[test]
fn signs_of_life_and_answers_in_one_piece_are_no_silence() {
    let mut bed = Bed::new(2);
    let none = Held::default();
    let silent = send(&mut bed, 4);
    bed.pass(2000);
    bed.first_token(silent[0]);
    bed.pass(2000);
    bed.go(&streamed(&none));
    assert_eq!(health(&bed, 0), "up");
    let mut bed = Bed::new(1);
    for _ in 0..5 {
        bed.go(&plain(100, &none));
    }
    bed.pass(60_000);
    bed.go(&plain(100, &none));
    assert_eq!(health(&bed, 0), "up");
}

#[test]
fn clients_that_give_up_on_a_silent_endpoint_are_evidence() {
    let mut bed = Bed::new(2);
    for wave in 1..=3 {
        let silent = send(&mut bed, 1);
        bed.pass(200);
        let hasty = send(&mut bed, 1);
        bed.finish(hasty[0], Finished::Cancelled);
        bed.pass(3300);
        bed.finish(silent[0], Finished::Cancelled);
        assert_eq!(health(&bed, 0).starts_with("ejected"), wave == 3, "{wave}");
    }
}
