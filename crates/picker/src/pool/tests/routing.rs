//! Where a request goes: prefixes, adapters, versions, excluded endpoints.

use super::*;

fn held(bed: &Bed, index: usize, blocks: u32) -> Held {
    let mut held = Held::default();
    held.push(bed.ids[index], blocks);
    held
}

#[test]
fn a_shared_prefix_goes_to_its_holder() {
    for holder in 0..4 {
        let mut bed = Bed::new(4);
        let held = held(&bed, holder, 30);
        let ask = plain(4000, &held);
        let decision = bed.go(&ask);
        assert_eq!(bed.index(decision.winner), holder);
        assert_eq!(decision.held_blocks, 30);
        let second = decision.table.as_ref().unwrap().runner_up();
        assert!(second.is_some_and(|id| id != decision.winner));
    }
}

#[test]
fn unless_its_queue_is_longer_than_the_saving() {
    // The prefix saves 4,000 tokens; a second copy costs a fifth of that.
    for (queued, stays) in [(3000, true), (4000, true), (6000, false), (20_000, false)] {
        let mut bed = Bed::new(2);
        bed.burden(0, queued);
        let held = held(&bed, 0, 31);
        let ask = plain(4000, &held);
        assert_eq!(bed.chosen(&ask) == 0, stays, "{queued} tokens queued");
    }
}

#[test]
fn many_requests_with_one_prefix_spread_once_the_holder_is_busy() {
    let mut bed = Bed::new(4);
    let held = held(&bed, 2, 30);
    let ask = plain(4000, &held);
    for _ in 0..200 {
        bed.go(&ask);
    }
    let in_flight = bed.in_flight();
    assert!(
        in_flight.iter().all(|requests| *requests > 0),
        "{in_flight:?}"
    );
    assert!(in_flight[2] > in_flight[0], "{in_flight:?}");
}

#[test]
fn a_prefix_that_everybody_holds_attracts_nobody() {
    let mut bed = Bed::new(4);
    let mut held = Held::default();
    for id in &bed.ids {
        held.push(*id, 30);
    }
    let ask = plain(4000, &held);
    for _ in 0..40 {
        bed.go(&ask);
    }
    assert_eq!(bed.in_flight(), [10; 4]);
}

#[test]
fn an_adapter_request_goes_where_the_adapter_is_loaded() {
    let mut bed = Bed::new(3);
    for index in 0..3 {
        bed.observe(index, models(&[("base", false), ("lora-a", true)]));
    }
    let loaded = Report {
        adapters_running: vec!["lora-a".into()],
        ..Report::default()
    };
    bed.observe(1, Observation::Report(loaded));
    let none = Held::default();
    let ask = Ask {
        model: "lora-a",
        ..plain(500, &none)
    };
    assert_eq!(bed.chosen(&ask), 1);
    // A queue longer than a load takes sends it elsewhere, where it is loaded from then on.
    bed.burden(1, 60_000);
    let decision = bed.go(&ask);
    assert_ne!(bed.index(decision.winner), 1);
    bed.pass(600);
    bed.first_token(decision.reservation);
    bed.burden(1, 100);
    let view = bed.pool.endpoint(decision.winner).unwrap();
    assert_eq!(view.adapters, ["lora-a"]);
}

#[test]
fn the_base_model_needs_no_load_and_is_spread() {
    let mut bed = Bed::new(3);
    for index in 0..3 {
        bed.observe(index, models(&[("base", false), ("lora-a", true)]));
    }
    let none = Held::default();
    for _ in 0..30 {
        bed.go(&plain(500, &none));
    }
    assert_eq!(bed.in_flight(), [10; 3]);
}

#[test]
fn a_server_that_lists_its_models_without_the_name_is_passed_over() {
    let mut bed = Bed::new(2);
    bed.observe(0, models(&[("base", false), ("lora-a", true)]));
    bed.observe(1, models(&[("base", false), ("lora-b", true)]));
    let none = Held::default();
    let names = [("lora-a", 0), ("lora-b", 1)];
    for (model, index) in names {
        for _ in 0..10 {
            assert_eq!(
                bed.chosen(&Ask {
                    model,
                    ..plain(500, &none)
                }),
                index
            );
        }
    }
    // Nobody lists it, so lists say nothing of it.
    let ask = Ask {
        model: "lora-c",
        ..plain(500, &none)
    };
    let chosen = [bed.chosen(&ask), bed.chosen(&ask)];
    assert_ne!(chosen[0], chosen[1]);
    // Tried already, and no other has it.
    let exclude = [bed.ids[0]];
    let ask = Ask {
        model: "lora-a",
        exclude: &exclude,
        ..plain(500, &none)
    };
    assert_eq!(bed.refused(&ask), Cause::AllExcluded);
    // It is unloaded there and loaded here.
    bed.observe(0, models(&[("base", false)]));
    bed.observe(1, models(&[("base", false), ("lora-a", true)]));
    assert_eq!(
        bed.chosen(&Ask {
            model: "lora-a",
            ..plain(500, &none)
        }),
        1
    );
}

#[test]
fn a_server_has_room_for_so_many_adapters() {
    let mut bed = Bed::new(1);
    let names = [("base", false), ("a", true), ("b", true), ("c", true)];
    bed.observe(0, models(&names));
    bed.observe(
        0,
        Observation::Report(Report {
            max_adapters: Some(2),
            ..Report::default()
        }),
    );
    let none = Held::default();
    let mut states = Vec::new();
    for model in ["a", "b", "a", "c", "b"] {
        let decision = bed.go(&Ask {
            model,
            ..plain(100, &none)
        });
        bed.pass(1000);
        bed.first_token(decision.reservation);
        states.push(decision.table.unwrap().table().rows[0].candidate.adapter);
    }
    let expected = [
        Adapter::Absent,
        Adapter::Absent,
        Adapter::Loaded,
        Adapter::AbsentAndFull,
        Adapter::AbsentAndFull,
    ];
    assert_eq!(states, expected);
}

#[test]
fn unweighted_targets_go_to_the_least_loaded_version() {
    let targets = [target("v1"), target("v2")];
    let mut bed = Bed::new(2);
    bed.observe(0, models(&[("v1", false)]));
    bed.observe(1, models(&[("v2", false)]));
    let none = Held::default();
    let ask = Ask {
        model: "name",
        targets: &targets,
        ..plain(500, &none)
    };
    bed.burden_with(0, 5000, "v1");
    let decision = bed.go(&ask);
    assert_eq!((bed.index(decision.winner), decision.target), (1, 1));
    bed.burden_with(1, 20_000, "v2");
    let decision = bed.go(&ask);
    assert_eq!((bed.index(decision.winner), decision.target), (0, 0));
}

#[test]
fn versions_that_every_server_has_are_used_alike() {
    let targets = [target("v1"), target("v2")];
    let mut bed = Bed::new(3);
    let none = Held::default();
    let ask = Ask {
        model: "name",
        targets: &targets,
        ..plain(500, &none)
    };
    let mut used = [0_u32; 2];
    for _ in 0..60 {
        used[bed.go(&ask).target as usize] += 1;
    }
    assert_eq!((used, bed.in_flight()), ([30, 30], vec![20; 3]));
}

impl Bed {
    fn burden_with(&mut self, index: usize, tokens: u32, model: &str) {
        let others: Vec<EndpointId> = self
            .ids
            .iter()
            .copied()
            .filter(|id| *id != self.ids[index])
            .collect();
        let none = Held::default();
        self.go(&Ask {
            model,
            exclude: &others,
            ..plain(tokens, &none)
        });
    }
}

#[test]
fn excluded_endpoints_are_not_chosen() {
    let mut bed = Bed::new(3);
    let held = held(&bed, 0, 30);
    for tried in [1, 2, 3] {
        let exclude = bed.ids[..tried].to_vec();
        let ask = Ask {
            exclude: &exclude,
            is_retry: true,
            ..plain(4000, &held)
        };
        match bed.arrive(&ask) {
            Arrival::Go(decision) => assert!(!exclude.contains(&decision.winner)),
            Arrival::Refuse(why) => assert_eq!((tried, why.cause), (3, Cause::AllExcluded)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_empty_pool_refuses_at_once() {
    let none = Held::default();
    let mut bed = Bed::new(0);
    assert_eq!(bed.refused(&plain(10, &none)), Cause::NoEndpoints);
    assert_eq!(bed.pool.saturation(), 1.0);
}

#[test]
fn the_best_of_a_thousand_is_found() {
    let mut bed = Bed::new(1000);
    let held = held(&bed, 777, 30);
    assert_eq!(bed.chosen(&plain(4000, &held)), 777);
    bed.observe(555, models(&[("lora-a", true)]));
    let none = Held::default();
    let loaded = Report {
        adapters_running: vec!["lora-b".into()],
        ..Report::default()
    };
    bed.observe(444, Observation::Report(loaded));
    assert_eq!(
        bed.chosen(&Ask {
            model: "lora-b",
            ..plain(400, &none)
        }),
        444
    );
    for index in (0..1000).filter(|index| *index != 321) {
        bed.burden(index, 3000);
    }
    assert_eq!(bed.chosen(&plain(400, &none)), 321);
}

#[test]
fn an_assigned_request_is_booked_where_it_was_assigned() {
    let mut bed = Bed::new(3);
    bed.burden(1, 1_000_000);
    let held = Held::default();
    let ask = plain(4000, &held);
    let decision = bed.pool.assign(bed.now, &ask, bed.ids[1]).unwrap();
    assert_eq!(bed.index(decision.winner), 1, "however busy it is");
    let table = decision.table.as_ref().unwrap().table();
    assert!(table.assigned);
    assert_eq!(crate::replay(&table), Ok(()));
    let before = bed.pool.in_flight(bed.ids[1]);
    bed.pool
        .finish(bed.now, decision.reservation, outcome(Finished::Complete));
    assert_eq!(bed.pool.in_flight(bed.ids[1]), before - 1);
    // The next one is chosen as before.
    let next = bed.go(&ask);
    assert_ne!(bed.index(next.winner), 1);
    assert!(!next.table.as_ref().unwrap().assigned);
    bed.pool.sync(bed.now, &[member(0)]);
    assert!(bed.pool.assign(bed.now, &ask, bed.ids[1]).is_none(), "gone");
}

#[test]
fn names_that_nobody_announces_do_not_stand_in_the_way_of_an_assignment() {
    let mut bed = Bed::new(2);
    let (held, targets) = (Held::default(), [target("one"), target("two")]);
    for id in bed.ids.clone() {
        let card = Announced {
            id: "base".to_owned(),
            is_adapter: false,
        };
        bed.pool
            .observe(bed.now, id, Observation::Models(vec![card]));
    }
    let ask = Ask {
        targets: &targets,
        exclude: &bed.ids.clone(),
        ..plain(100, &held)
    };
    let decision = bed.pool.assign(bed.now, &ask, bed.ids[1]).unwrap();
    assert_eq!((bed.index(decision.winner), decision.target), (1, 0));
}
