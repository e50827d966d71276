//! Who is kept of a thousand members.

use super::*;
use crate::endpoint::{Load, Presence};
use crate::health::Health;
use crate::overview::Scale;
use crate::prefix::Held;

/// Members with as many requests in flight as `load` says.
fn overview(members: u32, load: impl Fn(u32) -> u32) -> Overview {
    let overview = Overview::new(123);
    overview.resize(members, members);
    overview.show_scale(Scale {
        least_requests: false,
        request_tokens: 500.0,
        sequence_seconds: 1e-3,
    });
    for slot in 0..members {
        overview.show(slot, &seated(load(slot)));
    }
    overview
}

fn seated(in_flight: u32) -> Load {
    Load {
        presence: Presence::Member,
        in_flight,
        ..Load::default()
    }
}

fn id(slot: u32) -> EndpointId {
    EndpointId {
        slot,
        generation: 0,
    }
}

fn ask<'a>(held: &'a Held, exclude: &'a [EndpointId]) -> Ask<'a> {
    Ask {
        model: "lora",
        targets: &[],
        prompt_tokens: 1000,
        max_tokens: None,
        held,
        blocks: 8,
        priority: 0,
        body_bytes: 0,
        exclude,
        subsets: Subsets::NONE,
        is_retry: false,
        streams: true,
    }
}

fn picks(overview: &Overview, ask: &Ask<'_>) -> Vec<u32> {
    let mut list = Shortlist::default();
    overview.narrow(Micros(10), ask, &mut list);
    assert!(list.picks.len() <= MOST_CANDIDATES);
    assert!(list.picks.is_sorted());
    list.picks.iter().map(|endpoint| endpoint.slot).collect()
}

fn scattered(slot: u32) -> u32 {
    (slot * 7919) % 1000
}

#[test]
fn keeps_holders_adapters_and_the_least_loaded() {
    let far = |slot| match slot {
        3 | 500 | 999 | 77 => 1_000_000,
        slot => scattered(slot),
    };
    let overview = overview(1000, far);
    let mut held = Held::default();
    for slot in [3, 500, 999] {
        held.push(id(slot), 7);
    }
    {
        let mut names = overview.names_mut();
        let name = names
            .intern("lora")
            .and_then(|id| names.get_mut(id))
            .unwrap();
        (0..1000).for_each(|slot| name.announced.set(slot, true));
        name.loaded.set(77, true);
    }
    let kept = picks(&overview, &ask(&held, &[]));
    let idle = (0..1000).find(|slot| far(*slot) == 0).unwrap();
    assert!(kept.len() > 50, "{}", kept.len());
    for slot in [3, 500, 999, 77, idle] {
        assert!(kept.contains(&slot), "{slot} in {kept:?}");
    }
    let kept = picks(&overview, &ask(&held, &[id(500), id(idle)]));
    assert!(!kept.contains(&500) && !kept.contains(&idle), "{kept:?}");
}

#[test]
fn only_those_that_can_serve_are_kept() {
    let overview = overview(200, scattered);
    {
        let mut names = overview.names_mut();
        let name = names
            .intern("lora")
            .and_then(|id| names.get_mut(id))
            .unwrap();
        [5, 150]
            .iter()
            .for_each(|slot| name.announced.set(*slot, true));
        // 199 has not said what it serves.
        (0..199).for_each(|slot| names.said.set(slot, true));
    }
    let held = Held::default();
    assert_eq!(picks(&overview, &ask(&held, &[])), [5, 150, 199]);
}

#[test]
fn ejected_members_are_kept_only_when_all_are() {
    let overview = overview(100, scattered);
    let mut health = Health::default();
    health.eject(Micros(5));
    let ejected = Load {
        health,
        ..seated(0)
    };
    (0..99).for_each(|slot| overview.show(slot, &ejected));
    let held = Held::default();
    let ask = ask(&held, &[]);
    let mut list = Shortlist::default();
    overview.narrow(Micros(10), &ask, &mut list);
    assert_eq!((list.picks.as_slice(), list.trial), (&[id(99)][..], None));
    assert_eq!(list.considered, 100);
    overview.narrow(Micros(600_000), &ask, &mut list);
    assert_eq!(list.trial, Some(id(0)), "its time has come");
    overview.show(99, &ejected);
    overview.narrow(Micros(600_000), &ask, &mut list);
    assert_eq!((list.picks.len() > 50, list.trial), (true, None));
}

#[test]
fn equals_take_turns() {
    let overview = overview(1000, |_| 0);
    let held = Held::default();
    let mut seen = Slots::default();
    for _ in 0..1000 {
        let kept = picks(&overview, &ask(&held, &[]));
        kept.iter().for_each(|slot| seen.set(*slot, true));
    }
    assert_eq!(seen.iter().count(), 1000);
}

#[test]
fn a_short_list_is_not_narrowed() {
    let held = Held::default();
    assert!(picks(&overview(64, scattered), &ask(&held, &[])).is_empty());
    assert!(!picks(&overview(65, scattered), &ask(&held, &[])).is_empty());
}
