//! Saturation: who is shed, who waits, in which order waits end.

use super::*;

/// About 0.17 s of prefill by the prior.
const LONG: u32 = 10_000;
/// About three minutes.
const ENDLESS: u32 = 10_000_000;

fn asks(priority: i32, held: &Held) -> Ask<'_> {
    Ask {
        priority,
        ..plain(LONG, held)
    }
}

/// Ends the oldest work of both endpoints until `count` waits have ended.
fn release(bed: &mut Bed, reservations: &mut Vec<Reservation>, count: usize) -> Vec<Ticket> {
    let mut woken = Vec::new();
    while woken.len() < count {
        let reservation = reservations.remove(0);
        for wake in bed.finish(reservation, Finished::Complete) {
            let Arrival::Go(decision) = wake.arrival else {
                panic!("{wake:?}")
            };
            reservations.push(decision.reservation);
            woken.push(wake.ticket);
        }
    }
    woken
}

/// Two endpoints with 5 s of work each.
fn full() -> (Bed, Vec<Reservation>) {
    let mut bed = Bed::new(2);
    let none = Held::default();
    let mut reservations = Vec::new();
    while let Arrival::Go(decision) = bed.arrive(&asks(-1, &none)) {
        reservations.push(decision.reservation);
    }
    assert!(
        (55..=62).contains(&reservations.len()),
        "{}",
        reservations.len()
    );
    assert!(bed.pool.saturation() > 0.9);
    (bed, reservations)
}

#[test]
fn sheddable_requests_are_refused_at_once_while_others_wait() {
    let none = Held::default();
    let (mut bed, _) = full();
    assert_eq!(bed.refused(&asks(-1, &none)), Cause::Saturated);
    bed.wait(&asks(0, &none));
    bed.wait(&asks(1, &none));
    assert_eq!(bed.refused(&asks(-1, &none)), Cause::Saturated);
    assert_eq!((bed.pool.queue_len(), bed.pool.queue_bytes()), (2, 2000));
}

#[test]
fn waits_end_by_priority_then_first_come() {
    let (mut bed, mut reservations) = full();
    let none = Held::default();
    let tickets: Vec<Ticket> = [0, 1, 0, 5, 1]
        .iter()
        .map(|priority| bed.wait(&asks(*priority, &none)))
        .collect();
    let woken = release(&mut bed, &mut reservations, 5);
    let expected: Vec<Ticket> = [3, 1, 4, 0, 2].iter().map(|at| tickets[*at]).collect();
    assert_eq!(woken, expected);
    assert_eq!((bed.pool.queue_len(), bed.pool.next_deadline()), (0, None));
}

#[test]
fn nobody_overtakes_who_waits_for_the_same() {
    let (mut bed, mut reservations) = full();
    let none = Held::default();
    let first = bed.wait(&asks(0, &none));
    // A small request would fit, but it came later; one of higher priority goes first.
    let small = bed.wait(&plain(1, &none));
    let woken = release(&mut bed, &mut reservations, 2);
    assert_eq!(woken, [first, small]);
}

#[test]
fn a_blocked_lane_does_not_hold_up_another() {
    let mut bed = Bed::new(2);
    bed.observe(0, models(&[("a", false)]));
    bed.observe(1, models(&[("b", false)]));
    let none = Held::default();
    let ask = |model| Ask {
        model,
        ..asks(0, &none)
    };
    while let Arrival::Go(_) = bed.arrive(&ask("a")) {}
    bed.wait(&ask("a"));
    let decision = bed.go(&ask("b"));
    assert_eq!(bed.index(decision.winner), 1);
}

#[test]
fn a_first_token_makes_room() {
    let (mut bed, reservations) = full();
    let none = Held::default();
    let ticket = bed.wait(&asks(0, &none));
    bed.pass(5);
    let mut woken = Vec::new();
    for reservation in &reservations[..4] {
        woken.extend(
            bed.first_token(*reservation)
                .into_iter()
                .map(|wake| wake.ticket),
        );
    }
    assert_eq!(woken, [ticket]);
}

#[test]
fn a_new_member_makes_room() {
    let (mut bed, _) = full();
    let none = Held::default();
    let ticket = bed.wait(&asks(0, &none));
    let synced = bed.pool.sync(bed.now, &[member(0), member(1), member(2)]);
    let (new, _) = synced.added[0];
    let Arrival::Go(decision) = &synced.wakes[0].arrival else {
        panic!("{:?}", synced.wakes)
    };
    assert_eq!((synced.wakes[0].ticket, decision.winner), (ticket, new));
}

#[test]
fn without_members_all_waits_end() {
    let (mut bed, _) = full();
    let none = Held::default();
    bed.wait(&asks(0, &none));
    bed.wait(&asks(1, &none));
    let wakes = bed.pool.sync(bed.now, &[]).wakes;
    assert_eq!(wakes.len(), 2);
    for wake in wakes {
        assert!(matches!(wake.arrival, Arrival::Refuse(why) if why.cause == Cause::NoEndpoints));
    }
}

#[test]
fn who_waits_goes_to_the_members_that_replace_all_others() {
    let (mut bed, _) = full();
    let none = Held::default();
    let ticket = bed.wait(&asks(0, &none));
    let synced = bed.pool.replace(bed.now, &[member(0), member(1)]);
    assert_eq!((synced.removed.len(), synced.added.len()), (2, 2));
    let Arrival::Go(decision) = &synced.wakes[0].arrival else {
        panic!("{:?}", synced.wakes)
    };
    let is_new = synced.added.iter().any(|(id, _)| *id == decision.winner);
    assert!(is_new && synced.wakes[0].ticket == ticket);
    let again = bed.pool.sync(bed.now, &[member(0), member(1)]);
    assert!(again.removed.is_empty() && again.added.is_empty());
}

#[test]
fn the_queue_is_bounded_in_requests_bytes_and_time() {
    let none = Held::default();
    let limits = QueueLimits {
        requests: 3,
        wait_seconds: 10.0,
        bytes: 2500,
    };
    let mut bed = Bed::with(
        PoolSpec {
            queue: limits,
            ..PoolSpec::default()
        },
        1,
    );
    bed.burden(0, ENDLESS);
    let first = bed.wait(&asks(0, &none));
    bed.pass(4000);
    bed.wait(&asks(0, &none));
    assert_eq!(bed.refused(&asks(9, &none)), Cause::QueueFull, "bytes");
    bed.wait(&Ask {
        body_bytes: 0,
        ..asks(0, &none)
    });
    assert_eq!(
        bed.refused(&Ask {
            body_bytes: 0,
            ..asks(0, &none)
        }),
        Cause::QueueFull
    );
    bed.pass(5999);
    assert!(bed.pool.expire(bed.now).is_empty());
    bed.pass(1);
    assert!(bed.pool.next_deadline().unwrap() <= bed.now);
    let wakes = bed.pool.expire(bed.now);
    assert_eq!(wakes.len(), 1);
    assert_eq!(wakes[0].ticket, first);
    assert!(matches!(&wakes[0].arrival, Arrival::Refuse(why) if why.cause == Cause::WaitedTooLong));
}

#[test]
fn who_left_is_not_woken() {
    let (mut bed, mut reservations) = full();
    let none = Held::default();
    let gone = bed.wait(&asks(1, &none));
    let stays = bed.wait(&asks(0, &none));
    bed.pool.cancel(bed.now, gone);
    bed.pool.cancel(bed.now, gone);
    assert_eq!(release(&mut bed, &mut reservations, 1), [stays]);
    assert_eq!(bed.pool.queue_bytes(), 0);
}

#[test]
fn an_endpoint_with_nothing_in_flight_takes_anything() {
    let none = Held::default();
    let mut bed = Bed::new(1);
    let ask = plain(10_000_000, &none);
    bed.go(&ask);
    bed.wait(&ask);
}

#[test]
fn a_kv_cache_that_cannot_hold_the_request_makes_it_wait() {
    let none = Held::default();
    let mut bed = Bed::new(1);
    let capacity = Report {
        running: Some(0.0),
        waiting: Some(0.0),
        kv_used: Some(0.0),
        kv_tokens: Some(10_000),
        ..Report::default()
    };
    bed.observe(0, Observation::Report(capacity));
    let reservation = bed.go(&plain(8000, &none)).reservation;
    bed.pass(200);
    bed.first_token(reservation);
    let ticket = bed.wait(&plain(4000, &none));
    assert!(bed.pool.saturation() > 0.7);
    let wakes = bed.finish(reservation, Finished::Complete);
    assert_eq!(wakes[0].ticket, ticket);
}

#[test]
fn waits_are_looked_at_again_when_only_time_has_passed() {
    let mut bed = Bed::new(2);
    let none = Held::default();
    for _ in 0..2 {
        let reservation = bed.burden(0, 1);
        bed.fail(reservation, FailureKind::Connect);
    }
    bed.burden(1, ENDLESS);
    let ticket = bed.wait(&asks(0, &none));
    for _ in 0..10 {
        bed.now = bed.pool.next_deadline().unwrap();
        if let Some(wake) = bed.pool.expire(bed.now).first() {
            let Arrival::Go(decision) = &wake.arrival else {
                panic!("{wake:?}")
            };
            assert_eq!((wake.ticket, bed.index(decision.winner)), (ticket, 0));
            return;
        }
    }
    panic!("the trial of the ejected endpoint ends the wait");
}

#[test]
fn a_smaller_limit_is_taken_over() {
    let (mut bed, _) = full();
    let none = Held::default();
    bed.wait(&asks(0, &none));
    let spec = PoolSpec {
        saturation_seconds: 100.0,
        ..PoolSpec::default()
    };
    let wakes = bed.pool.configure(bed.now, spec);
    assert!(matches!(wakes[0].arrival, Arrival::Go(_)));
}
