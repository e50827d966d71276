//! Endpoints that fail: ejection, trials, recovery, panic; members that leave.

use super::*;

/// Ejects a member by failed connects.
fn eject(bed: &mut Bed, index: usize) {
    let reservations = [bed.burden(index, 10), bed.burden(index, 10)];
    for reservation in reservations {
        bed.fail(reservation, FailureKind::Connect);
    }
    let view = bed.pool.endpoint(bed.ids[index]).unwrap();
    assert!(view.health.starts_with("ejected"), "{}", view.health);
}

#[test]
fn an_ejected_endpoint_gets_nothing_then_one_trial_then_its_share() {
    let mut bed = Bed::new(3);
    let none = Held::default();
    let ask = plain(100, &none);
    eject(&mut bed, 1);
    for _ in 0..20 {
        assert_ne!(bed.chosen(&ask), 1);
    }
    bed.pass(500);
    let retry = Ask {
        is_retry: true,
        ..ask
    };
    assert_ne!(bed.chosen(&retry), 1, "a second try is no trial");
    let trial = bed.go(&ask);
    assert_eq!(bed.index(trial.winner), 1);
    assert!(trial.table.unwrap().trial);
    for _ in 0..20 {
        assert_ne!(bed.chosen(&ask), 1, "one trial at a time");
    }
    bed.pass(20);
    bed.first_token(trial.reservation);
    let chosen: Vec<usize> = (0..15).map(|_| bed.chosen(&ask)).collect();
    assert!(chosen.contains(&1), "{chosen:?}");
    assert_eq!(bed.pool.endpoint(bed.ids[1]).unwrap().health, "up");
}

/// Traffic every 20 ms; member 1 fails in the given way until it is cured.
#[track_caller]
fn check_recovers(kind: FailureKind, cured_at_ms: u64, fails_after_ms: u64) {
    let mut bed = Bed::new(4);
    let none = Held::default();
    let start = bed.now;
    let mut failing: Vec<(u64, Reservation)> = Vec::new();
    let mut served_after_cure = None;
    for ms in (0..cured_at_ms + 4000).step_by(20) {
        bed.now = start + Duration::from_millis(ms);
        failing.retain(|(due, reservation)| {
            let over = *due <= ms;
            if over {
                bed.pool
                    .finish(bed.now, *reservation, outcome(Finished::Failed(kind)));
            }
            !over
        });
        let decision = bed.go(&plain(50, &none));
        let good = bed.index(decision.winner) != 1 || ms >= cured_at_ms;
        if !good {
            failing.push((ms + fails_after_ms, decision.reservation));
            continue;
        }
        if bed.index(decision.winner) == 1 && served_after_cure.is_none() {
            served_after_cure = Some(ms - cured_at_ms);
        }
        bed.first_token(decision.reservation);
        bed.finish(decision.reservation, Finished::Complete);
    }
    let after = served_after_cure.expect("it serves again");
    assert!(after <= 2000, "{kind:?}: {after} ms");
}

#[test]
fn an_endpoint_serves_again_within_two_seconds_of_its_cure() {
    for cured_at_ms in [300, 1000, 2345, 7770, 30_000] {
        check_recovers(FailureKind::Connect, cured_at_ms, 0);
        check_recovers(FailureKind::Reset, cured_at_ms, 10);
        check_recovers(FailureKind::Status5xx, cured_at_ms, 40);
    }
    // Hangs show only when they have lasted: before, it is a server with much to do.
    for cured_at_ms in [20_000, 21_200, 30_000] {
        check_recovers(FailureKind::Hang, cured_at_ms, 300);
        check_recovers(FailureKind::Hang, cured_at_ms, 5000);
    }
}

#[test]
fn an_endpoint_that_fails_attracts_few_requests() {
    let mut bed = Bed::new(4);
    let none = Held::default();
    let mut failed = 0;
    for _ in 0..5000 {
        bed.pass(2);
        let decision = bed.go(&plain(50, &none));
        if bed.index(decision.winner) == 2 {
            failed += 1;
            bed.fail(decision.reservation, FailureKind::Connect);
        } else {
            bed.first_token(decision.reservation);
            bed.finish(decision.reservation, Finished::Complete);
        }
    }
    // Two to be ejected, then pauses of 0.5, 1 and 1.5 s in ten seconds.
    assert!((4..=12).contains(&failed), "{failed}");
}

#[test]
fn when_all_are_ejected_all_are_candidates() {
    let mut bed = Bed::new(3);
    for index in 0..3 {
        eject(&mut bed, index);
    }
    let none = Held::default();
    // Also when a trial is due: there is nothing to spare the others for.
    bed.pass(600);
    let decision = bed.go(&plain(100, &none));
    let table = decision.table.unwrap().table();
    assert!(table.panic && !table.trial && table.rows.len() == 3);
    let chosen = [bed.index(decision.winner), bed.chosen(&plain(100, &none))];
    assert_ne!(chosen[0], chosen[1]);
    bed.first_token(decision.reservation);
    let retry = Ask {
        is_retry: true,
        ..plain(100, &none)
    };
    let decision = bed.go(&retry);
    assert_eq!(bed.index(decision.winner), chosen[0]);
    assert!(!decision.table.unwrap().panic);
}

#[test]
fn the_only_server_of_a_model_is_asked_even_when_ejected() {
    let mut bed = Bed::new(2);
    bed.observe(0, models(&[("base", false), ("lora-a", true)]));
    bed.observe(1, models(&[("base", false)]));
    eject(&mut bed, 0);
    let none = Held::default();
    assert_eq!(
        bed.chosen(&Ask {
            model: "lora-a",
            ..plain(100, &none)
        }),
        0
    );
    assert_eq!(bed.chosen(&plain(100, &none)), 1);
}

#[test]
fn the_clients_fault_and_a_clients_leave_eject_nobody() {
    let mut bed = Bed::new(2);
    for _ in 0..20 {
        let reservation = bed.burden(0, 10);
        bed.fail(reservation, FailureKind::ClientFault);
        let reservation = bed.burden(0, 10);
        bed.finish(reservation, Finished::Cancelled);
    }
    assert_eq!(bed.pool.endpoint(bed.ids[0]).unwrap().health, "up");
}

#[test]
fn a_trial_that_says_nothing_is_followed_by_another() {
    let mut bed = Bed::new(2);
    let none = Held::default();
    eject(&mut bed, 0);
    bed.pass(600);
    for result in [
        Finished::Cancelled,
        Finished::Failed(FailureKind::ClientFault),
    ] {
        let decision = bed.go(&plain(10, &none));
        assert_eq!(bed.index(decision.winner), 0);
        bed.finish(decision.reservation, result);
    }
    assert_eq!(bed.chosen(&plain(10, &none)), 0);
}

#[test]
fn a_removed_member_keeps_its_books_and_its_id_is_never_used_again() {
    let mut bed = Bed::new(2);
    let old = bed.burden(0, 1000);
    let synced = bed.pool.sync(bed.now, &[member(1)]);
    assert_eq!((synced.removed, synced.added.len()), (vec![bed.ids[0]], 0));
    // It comes back before its reservation has ended: another endpoint.
    let synced = bed.pool.sync(bed.now, &[member(0), member(1)]);
    let (again, key) = synced.added[0].clone();
    assert!(again.slot != bed.ids[0].slot && key == "key-0");
    assert_eq!(bed.pool.in_flight(again), 0);
    bed.finish(old, Finished::Complete);
    bed.finish(old, Finished::Complete);
    // Its slot is used again by the next generation.
    let synced = bed.pool.sync(bed.now, &[member(0), member(1), member(2)]);
    let (third, _) = &synced.added[0];
    assert_eq!(third.slot, bed.ids[0].slot);
    assert_ne!(third.generation, bed.ids[0].generation);
    assert_eq!(bed.pool.endpoints().count(), 3);
    assert!(bed.pool.endpoint(bed.ids[0]).is_none());
}

#[test]
fn members_keep_their_identity_and_take_a_new_name() {
    let mut bed = Bed::new(2);
    bed.burden(0, 1000);
    let mut renamed = member(0);
    renamed.name = "10.9.9.9:8000".into();
    let synced = bed
        .pool
        .sync(bed.now, &[member(1), renamed.clone(), renamed]);
    assert!(synced.added.is_empty() && synced.removed.is_empty());
    let view = bed.pool.endpoint(bed.ids[0]).unwrap();
    assert_eq!((&*view.name, view.in_flight), ("10.9.9.9:8000", 1));
}
