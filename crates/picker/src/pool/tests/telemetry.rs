//! Reports that are late, frozen, zero or failing, and the load of others.

use super::*;

fn zero() -> Observation {
    report(0.0, 0.0, 0.0)
}

/// Others keep every endpoint busy with as many requests; reports say so every 200 ms.
fn busy_everywhere(bed: &mut Bed, foreign: f32, milliseconds: u64, silent: &[usize]) {
    for _ in 0..milliseconds / 200 {
        bed.pass(200);
        for index in 0..bed.ids.len() {
            if silent.contains(&index) {
                bed.observe(index, Observation::ScrapeFailed);
            } else {
                let own = bed.pool.in_flight(bed.ids[index]) as f32;
                bed.observe(index, report(own + foreign / 2.0, foreign / 2.0, 0.3));
            }
        }
    }
}

fn shares(bed: &mut Bed, requests: u32) -> Vec<u32> {
    let none = Held::default();
    let before = bed.in_flight();
    for _ in 0..requests {
        bed.go(&plain(500, &none));
    }
    bed.in_flight()
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect()
}

#[test]
fn load_of_others_counts() {
    let mut bed = Bed::patient(3);
    for index in 0..3 {
        bed.observe(
            index,
            if index == 1 {
                report(20.0, 10.0, 0.5)
            } else {
                zero()
            },
        );
    }
    let shares = shares(&mut bed, 20);
    assert_eq!(shares, [10, 0, 10]);
    let view = bed.pool.endpoint(bed.ids[1]).unwrap();
    assert_eq!(view.reported.unwrap().foreign, 30.0);
}

#[test]
fn own_requests_are_not_taken_for_foreign_ones() {
    let mut bed = Bed::patient(2);
    let none = Held::default();
    let reservations: Vec<_> = (0..20)
        .map(|_| bed.go(&plain(500, &none)).reservation)
        .collect();
    // The engine's numbers are a little old: some of ours have ended since.
    for reservation in &reservations[..6] {
        bed.first_token(*reservation);
        bed.finish(*reservation, Finished::Complete);
    }
    for index in 0..2 {
        bed.observe(index, report(8.0, 2.0, 0.1));
        let view = bed.pool.endpoint(bed.ids[index]).unwrap();
        assert_eq!(view.reported.unwrap().foreign, 0.0);
    }
}

#[test]
fn a_server_whose_scrapes_fail_fades_to_what_the_others_have() {
    let mut bed = Bed::patient(4);
    bed.observe(3, zero());
    busy_everywhere(&mut bed, 20.0, 40_000, &[3]);
    let shares = shares(&mut bed, 80);
    assert!(spread(&shares) <= 1, "{shares:?}");
    let view = bed.pool.endpoint(bed.ids[3]).unwrap().reported.unwrap();
    assert!(view.age_seconds > 39.0 && view.failures >= 199);
}

#[test]
fn a_server_that_never_reported_does_not_look_idle() {
    let mut bed = Bed::patient(4);
    busy_everywhere(&mut bed, 20.0, 1000, &[0]);
    let shares = shares(&mut bed, 80);
    assert!(spread(&shares) <= 1, "{shares:?}");
}

#[test]
fn a_stale_report_of_much_load_is_forgotten_in_time() {
    let mut bed = Bed::patient(3);
    for index in 0..3 {
        bed.observe(
            index,
            if index == 2 {
                report(50.0, 50.0, 0.9)
            } else {
                zero()
            },
        );
    }
    for _ in 0..40 {
        bed.pass(1000);
        bed.observe(2, Observation::ScrapeFailed);
        bed.observe(0, zero());
        bed.observe(1, zero());
    }
    assert_eq!(shares(&mut bed, 30), [10; 3]);
}

#[test]
fn zeros_while_we_receive_tokens_are_not_believed() {
    let mut bed = Bed::patient(3);
    busy_everywhere(&mut bed, 20.0, 400, &[]);
    let none = Held::default();
    let streams: Vec<_> = (0..9)
        .map(|_| bed.go(&plain(500, &none)).reservation)
        .collect();
    bed.pass(100);
    for stream in streams {
        bed.first_token(stream);
    }
    for _ in 0..10 {
        bed.pass(200);
        bed.observe(1, zero());
    }
    let view = bed.pool.endpoint(bed.ids[1]).unwrap().reported.unwrap();
    assert_eq!((view.failures, view.foreign), (10, 20.0));
}

#[test]
fn numbers_that_stand_still_while_requests_come_and_go_age() {
    let mut bed = Bed::patient(2);
    let none = Held::default();
    bed.observe(0, report(3.0, 1.0, 0.2));
    for _ in 0..20 {
        bed.pass(500);
        bed.go(&plain(50, &none));
        bed.observe(0, report(3.0, 1.0, 0.2));
    }
    let view = bed.pool.endpoint(bed.ids[0]).unwrap().reported.unwrap();
    assert!(view.age_seconds >= 9.0, "{view:?}");
    // An idle server says the same again and again, and is right.
    bed.observe(1, report(0.0, 0.0, 0.0));
}

#[test]
fn a_quiet_server_that_repeats_itself_is_believed() {
    let mut bed = Bed::new(1);
    for _ in 0..20 {
        bed.pass(500);
        bed.observe(0, zero());
    }
    let view = bed.pool.endpoint(bed.ids[0]).unwrap().reported.unwrap();
    assert_eq!((view.age_seconds, view.failures), (0.0, 0));
}

#[test]
fn frozen_zeros_do_not_attract() {
    let mut bed = Bed::patient(4);
    let none = Held::default();
    for round in 0..100_u64 {
        bed.pass(10);
        let reservation = bed.go(&plain(500, &none)).reservation;
        if round % 2 == 0 {
            bed.first_token(reservation);
        }
        bed.observe(2, zero());
        for index in [0, 1, 3] {
            let own = bed.pool.in_flight(bed.ids[index]) as f32;
            bed.observe(index, report(own, 0.0, 0.01 * own));
        }
    }
    let in_flight = bed.in_flight();
    assert!(in_flight[2] <= 27, "{in_flight:?}");
}

#[test]
fn a_full_engine_costs_the_wait_for_a_seat() {
    let mut bed = Bed::patient(2);
    for waiting in [4.0, 5.0, 6.0] {
        bed.pass(200);
        bed.observe(0, report(8.0, waiting, 0.5));
        bed.observe(1, zero());
    }
    let none = Held::default();
    let decision = bed.go(&plain(100, &none));
    let table = decision.table.unwrap().table();
    let queue = |row: usize| table.rows[row].seconds[0];
    // Six wait, eight run for two seconds each.
    assert!((1.5..2.0).contains(&queue(0)), "{}", queue(0));
    assert_eq!((queue(1), bed.ids[1]), (0.0, decision.winner));
}

#[test]
fn senseless_numbers_are_passed_over() {
    let mut bed = Bed::new(2);
    let none = Held::default();
    for value in [f32::NAN, f32::INFINITY, -1.0] {
        let nonsense = Report {
            running: Some(value),
            waiting: Some(value),
            kv_used: Some(value),
            kv_tokens: Some(0),
            ..Report::default()
        };
        bed.pass(100);
        bed.observe(0, Observation::Report(nonsense));
        let table = bed.go(&plain(100, &none)).table.unwrap().table();
        assert!(table.rows.iter().all(|row| row.total.is_finite()));
    }
    let gone = EndpointId {
        slot: 99,
        generation: 0,
    };
    assert!(bed.pool.observe(bed.now, gone, zero()).is_empty());
}
