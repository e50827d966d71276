//! Balance: equal endpoints get equal work, unequal ones get what they can do.

use super::*;

const REQUESTS: u32 = 1000;

/// Sends equal requests at one instant to 8 endpoints; `between` says what is reported meanwhile.
#[track_caller]
fn check_even(prompt_tokens: u32, held: &Held, mut between: impl FnMut(&mut Bed, u32)) {
    let mut bed = Bed::patient(8);
    let ask = plain(prompt_tokens, held);
    for i in 0..REQUESTS {
        bed.go(&ask);
        between(&mut bed, i);
        let in_flight = bed.in_flight();
        assert!(spread(&in_flight) <= 1, "after {i}: {in_flight:?}");
    }
    assert_eq!(bed.in_flight(), [125; 8]);
}

/// What an engine would say that has begun with a few and queues the rest.
fn live(bed: &mut Bed, i: u32) {
    if i.is_multiple_of(40) {
        for index in 0..8 {
            let all = bed.pool.in_flight(bed.ids[index]) as f32;
            let running = all.min(4.0);
            bed.observe(index, report(running, all - running, 0.01 * running));
        }
    }
}

/// What an engine says whose numbers lag behind by some requests.
fn lagging(bed: &mut Bed, i: u32) {
    if i.is_multiple_of(40) {
        for index in 0..8 {
            let all = (bed.pool.in_flight(bed.ids[index]) as f32 - 3.0 - index as f32).max(0.0);
            bed.observe(index, report(all, 0.0, 0.0));
        }
    }
}

fn frozen(bed: &mut Bed, i: u32) {
    if i.is_multiple_of(40) {
        for index in 0..8 {
            bed.observe(index, report(0.0, 0.0, 0.0));
        }
    }
}

#[test]
fn equal_requests_at_one_instant_spread_evenly() {
    let none = Held::default();
    // Below a block, about one block, long; and requests that nothing is known of.
    for tokens in [0, 20, 128, 1000, 8000] {
        check_even(tokens, &none, |_, _| {});
        check_even(tokens, &none, live);
        check_even(tokens, &none, lagging);
        check_even(tokens, &none, frozen);
    }
}

#[test]
fn they_spread_evenly_while_time_passes_too() {
    let none = Held::default();
    check_even(300, &none, |bed, _| {
        bed.now = bed.now + Duration::from_micros(130)
    });
}

/// Serves requests on endpoints of the given seconds per token, each one at a time.
fn teach(bed: &mut Bed, seconds_per_token: &[f32], rounds: u32) {
    let none = Held::default();
    for round in 0..rounds {
        for (index, seconds) in seconds_per_token.iter().enumerate() {
            let tokens = 200 + (round * 577) % 3000;
            let reservation = {
                let others: Vec<EndpointId> = bed
                    .ids
                    .iter()
                    .copied()
                    .filter(|id| *id != bed.ids[index])
                    .collect();
                let ask = Ask {
                    exclude: &others,
                    ..plain(tokens, &none)
                };
                bed.go(&ask).reservation
            };
            bed.now = bed.now.plus_seconds(0.006 + seconds * tokens as f32);
            bed.first_token(reservation);
            bed.pass(600);
            let end = Outcome {
                completion_tokens: 64,
                prompt_tokens: tokens,
                ..outcome(Finished::Complete)
            };
            bed.pool.finish(bed.now, reservation, end);
        }
    }
}

#[test]
fn learnt_speeds_keep_equal_endpoints_even() {
    let mut bed = Bed::patient(4);
    // The same but for noise of some percent.
    teach(&mut bed, &[30e-6, 31e-6, 29e-6, 30.5e-6], 40);
    let none = Held::default();
    for _ in 0..1000 {
        bed.go(&plain(500, &none));
        assert!(spread(&bed.in_flight()) <= 1);
    }
}

#[test]
fn a_slower_endpoint_gets_less() {
    let mut bed = Bed::patient(2);
    teach(&mut bed, &[20e-6, 80e-6], 60);
    let none = Held::default();
    for _ in 0..500 {
        bed.go(&plain(1000, &none));
    }
    let in_flight = bed.in_flight();
    let share = in_flight[0] as f32 / in_flight[1] as f32;
    assert!((3.0..5.0).contains(&share), "{in_flight:?}");
}

/// Serves a stream of 64 tokens on a chosen endpoint, or on the one that `only` names, at that
/// endpoint's seconds per token. Returns which it was.
fn stream(bed: &mut Bed, only: Option<usize>, paces: &[f32]) -> usize {
    let none = Held::default();
    let (index, reservation) = match only {
        Some(index) => (index, bed.burden(index, 500)),
        None => {
            let decision = bed.go(&plain(500, &none));
            (bed.index(decision.winner), decision.reservation)
        }
    };
    bed.pass(15);
    bed.first_token(reservation);
    bed.now = bed.now.plus_seconds(63.0 * paces[index]);
    let end = Outcome {
        completion_tokens: 64,
        prompt_tokens: 500,
        ..outcome(Finished::Complete)
    };
    bed.pool.finish(bed.now, reservation, end);
    index
}

/// Requests of 200 that the second of two endpoints gets at `paces`, after it was ten times slower.
fn to_the_slow_one(paces: [f32; 2]) -> usize {
    let mut bed = Bed::patient(2);
    for round in 0..40 {
        stream(&mut bed, Some(round % 2), &[0.006, 0.06]);
    }
    assert_eq!(stream(&mut bed, None, &paces), 0, "it is known to be slow");
    (0..200).map(|_| stream(&mut bed, None, &paces)).sum()
}

#[test]
fn an_endpoint_that_was_slow_for_a_while_is_used_again() {
    let requests = to_the_slow_one([0.006, 0.006]);
    assert!((60..=120).contains(&requests), "{requests} of 200");
}

#[test]
fn one_that_stays_slow_is_asked_now_and_then_only() {
    let requests = to_the_slow_one([0.006, 0.06]);
    assert!((5..=15).contains(&requests), "{requests} of 200");
}

#[test]
fn without_trust_in_speeds_uncached_tokens_decide_and_the_table_says_so() {
    let mut bed = Bed::patient(2);
    let none = Held::default();
    for i in 0..60_u32 {
        let reservation = bed.go(&plain(500, &none)).reservation;
        bed.pass([3, 900, 60, 4000, 15][i as usize % 5]);
        bed.first_token(reservation);
        bed.pass(100);
        bed.finish(reservation, Finished::Complete);
    }
    let decision = bed.go(&plain(500, &none));
    bed.finish(decision.reservation, Finished::Cancelled);
    let table = decision.table.unwrap().table();
    assert_eq!(table.basis, Basis::TokensInFlight, "error {}", table.error);
    assert!(table.error > 0.5, "{}", table.error);
    let burden = bed.burden(0, 5000);
    let light = bed.go(&plain(500, &none));
    assert_eq!(bed.index(light.winner), 1);
    bed.finish(burden, Finished::Cancelled);
    bed.finish(light.reservation, Finished::Cancelled);
    teach(&mut bed, &[30e-6, 30e-6], 30);
    let decision = bed.go(&plain(500, &none));
    assert_eq!(decision.table.unwrap().basis, Basis::Seconds);
}

#[test]
fn a_response_that_is_not_streamed_teaches_nothing_of_the_prefill() {
    let mut bed = Bed::new(1);
    let none = Held::default();
    for _ in 0..30 {
        let reservation = bed.go(&plain(500, &none)).reservation;
        bed.pass(4000);
        bed.first_token(reservation);
        bed.pass(1);
        let end = Outcome {
            completion_tokens: 400,
            ..outcome(Finished::Complete)
        };
        bed.pool.finish(bed.now, reservation, end);
    }
    let view = bed.pool.endpoints().next().unwrap();
    assert_eq!(view.rates.samples, 0);
    assert_eq!(view.rates.base_seconds, Rates::PRIOR.prefill_base_seconds);
}

#[test]
fn requests_that_are_not_streamed_do_not_look_like_a_queue() {
    let mut bed = Bed::new(1);
    let none = Held::default();
    let mut open = std::collections::VecDeque::new();
    // Four requests of 3,000 tokens a second (0.2 s of prefill) that take half a minute each.
    for _ in 0..1200 {
        bed.pass(250);
        if let Arrival::Go(decision) = bed.arrive(&plain(3000, &none)) {
            open.push_back((bed.now, decision.reservation));
        }
        while let Some((since, reservation)) = open.front().copied()
            && bed.now.seconds_since(since) >= 30.0
        {
            open.pop_front();
            bed.first_token(reservation);
            let end = Outcome {
                completion_tokens: 1000,
                ..outcome(Finished::Complete)
            };
            for wake in bed.pool.finish(bed.now, reservation, end) {
                let Arrival::Go(decision) = wake.arrival else {
                    continue;
                };
                open.push_back((bed.now, decision.reservation));
            }
        }
    }
    assert!(bed.in_flight()[0] > 115, "{:?}", bed.in_flight());
    assert!(bed.pool.saturation() < 0.2, "{}", bed.pool.saturation());
    // A burst still queues: 300 prompts of 3,000 tokens are 15 s of work.
    let sent = (0..300).filter(|_| {
        matches!(
            bed.arrive(&Ask {
                priority: -1,
                ..plain(3000, &none)
            }),
            Arrival::Go(_)
        )
    });
    assert!((80..110).contains(&sent.count()));
}

#[test]
fn least_requests_counts_requests_and_is_never_saturated() {
    let spec = PoolSpec {
        profile: Profile::LeastRequests,
        ..PoolSpec::default()
    };
    let mut bed = Bed::with(spec, 3);
    let none = Held::default();
    bed.burden(0, 1_000_000);
    for _ in 0..299 {
        bed.go(&plain(100_000, &none));
    }
    assert_eq!(bed.in_flight(), [100; 3]);
    let table = bed.go(&plain(1, &none)).table.unwrap().table();
    assert_eq!(table.basis, Basis::Requests);
}

#[test]
fn a_thousand_members_are_used_alike() {
    let mut bed = Bed::new(1000);
    let none = Held::default();
    for _ in 0..3000 {
        bed.go(&plain(1000, &none));
    }
    assert_eq!(spread(&bed.in_flight()), 0);
}
