//! Tables of what each rule about names, priorities and weights gives.

use super::*;

fn targets(list: &[(&str, Option<u32>)]) -> Vec<Target> {
    list.iter()
        .map(|&(name, weight)| Target {
            name: name.to_owned(),
            weight,
        })
        .collect()
}

/// Two InferenceModels and one unset, three objectives, no rewrite.
fn shop() -> ModelTable {
    let mut table = ModelTable::default();
    assert!(table.add_model("chat", Criticality::Critical, targets(&[("chat-v1", None)])));
    assert!(table.add_model("search", Criticality::default(), vec![]));
    assert!(table.add_model("batch", Criticality::Sheddable, vec![]));
    assert!(table.add_objective("urgent", 10));
    assert!(table.add_objective("plain", 0));
    assert!(table.add_objective("idle", -5));
    table
}

#[track_caller]
fn check_priority(table: &ModelTable, model: &str, objective: Option<&str>, expected: [i32; 2]) {
    let got = [true, false].map(|trusted| table.resolve(model, objective, trusted).priority);
    assert_eq!(
        got, expected,
        "{model} with {objective:?}: trusted, untrusted"
    );
}

#[test]
fn priority_follows_criticality_unless_an_objective_says_otherwise() {
    let table = shop();
    for (model, objective, expected) in [
        ("chat", None, [1, 1]),
        ("search", None, [0, 0]),
        ("batch", None, [-1, -1]),
        ("chat", Some("urgent"), [10, 1]),
        ("chat", Some("plain"), [0, 0]),
        ("chat", Some("idle"), [-5, -5]),
        ("search", Some("urgent"), [10, 0]),
        ("batch", Some("urgent"), [10, -1]),
        ("batch", Some("plain"), [0, -1]),
        ("batch", Some("idle"), [-5, -5]),
        ("chat", Some("unknown"), [1, 1]),
        ("batch", Some(""), [-1, -1]),
    ] {
        check_priority(&table, model, objective, expected);
    }
}

#[test]
fn undeclared_name_is_sheddable_only_where_models_are_declared() {
    let shop = shop();
    check_priority(&shop, "other", None, [-1, -1]);
    check_priority(&shop, "other", Some("urgent"), [10, -1]);
    assert!(!shop.resolve("other", None, true).declared);

    let mut open = ModelTable::default();
    check_priority(&open, "other", None, [0, 0]);
    assert!(!open.resolve("other", None, true).declared);
    open.add_objective("urgent", 3);
    open.add_rewrite(Some("alias"), targets(&[("real", None)]));
    check_priority(&open, "other", None, [0, 0]);
    check_priority(&open, "alias", Some("urgent"), [3, 0]);
}

#[test]
fn name_is_matched_exactly() {
    let table = shop();
    for near in ["Chat", "chat ", "cha", "chat-v1", ""] {
        assert!(!table.resolve(near, None, true).declared, "{near:?}");
    }
}

#[test]
fn rewrite_of_the_name_wins_over_any_and_both_over_the_model() {
    let mut table = shop();
    let first = |table: &ModelTable, model: &str| {
        let resolved = table.resolve(model, None, true);
        (
            resolved.targets.first().map(|target| target.name.clone()),
            resolved.declared,
        )
    };
    assert_eq!(first(&table, "chat"), (Some("chat-v1".into()), true));
    assert_eq!(first(&table, "search"), (None, true));
    assert_eq!(first(&table, "other"), (None, false));

    assert!(table.add_rewrite(None, targets(&[("fallback", None)])));
    assert_eq!(first(&table, "chat"), (Some("fallback".into()), true));
    assert_eq!(first(&table, "other"), (Some("fallback".into()), true));

    assert!(table.add_rewrite(Some("chat"), targets(&[("chat-v2", Some(1))])));
    assert!(table.add_rewrite(Some("alias"), targets(&[("real", None)])));
    assert_eq!(first(&table, "chat"), (Some("chat-v2".into()), true));
    assert_eq!(first(&table, "alias"), (Some("real".into()), true));
    check_priority(&table, "chat", None, [1, 1]);
    check_priority(&table, "alias", None, [-1, -1]);
}

#[test]
fn first_to_take_a_name_keeps_it() {
    let mut table = shop();
    table.add_rewrite(None, targets(&[("fallback", None)]));
    table.add_rewrite(Some("alias"), targets(&[("real", None)]));
    let before = table.clone();
    assert!(!table.add_model("chat", Criticality::Sheddable, vec![]));
    assert!(!table.add_objective("urgent", -1));
    assert!(!table.add_rewrite(None, targets(&[("late", None)])));
    assert!(!table.add_rewrite(Some("alias"), targets(&[("late", None)])));
    assert!(!table.add_rewrite(Some("empty"), vec![]));
    assert_eq!(table, before);
    assert!(
        table.add_model("alias", Criticality::Critical, vec![]),
        "only its rewrite was taken"
    );
    assert_eq!(
        table.resolve("alias", None, true).targets,
        targets(&[("real", None)])
    );
    check_priority(&table, "alias", None, [1, 1]);
}

#[test]
fn names_are_those_of_models_and_exact_rewrites_once_each() {
    let mut table = shop();
    table.add_rewrite(Some("alias"), targets(&[("real", None)]));
    table.add_rewrite(Some("chat"), targets(&[("real", None)]));
    table.add_rewrite(None, targets(&[("real", None)]));
    assert_eq!(
        table.names().collect::<Vec<_>>(),
        ["chat", "search", "batch", "alias"]
    );
    assert_eq!(ModelTable::default().names().count(), 0);
}

/// Draws 0..1000 spread over the whole range, and expects so many for each target (the last
/// figure: draws that weights did not decide).
#[track_caller]
fn check_draws(weights: &[Option<u32>], expected: &[usize], undecided: usize) {
    let list: Vec<_> = weights.iter().map(|&weight| ("model", weight)).collect();
    let list = targets(&list);
    let mut counts = vec![0; list.len()];
    let mut none = 0;
    for step in 0..1_000_u64 {
        match draw(&list, u64::MAX / 1_000 * 1_000 - 1_000 + step) {
            Some(index) => counts[index] += 1,
            None => none += 1,
        }
    }
    assert_eq!(
        (counts.as_slice(), none),
        (expected, undecided),
        "{weights:?}"
    );
}

#[test]
fn draw_follows_weights() {
    check_draws(&[Some(1), Some(1)], &[500, 500], 0);
    check_draws(&[Some(90), Some(10)], &[900, 100], 0);
    check_draws(&[Some(1), Some(0), Some(3)], &[250, 0, 750], 0);
    check_draws(&[Some(0), Some(7)], &[0, 1_000], 0);
    check_draws(&[Some(4)], &[1_000], 0);
    check_draws(&[Some(3), None, Some(2)], &[600, 0, 400], 0);
}

#[test]
fn draw_leaves_targets_without_weights_to_cost() {
    check_draws(&[], &[], 1_000);
    check_draws(&[None], &[1_000], 0);
    check_draws(&[None, None], &[0, 0], 1_000);
}

#[test]
fn draw_refuses_weights_that_are_all_zero_and_resolve_still_lists_them() {
    check_draws(&[Some(0)], &[0], 1_000);
    check_draws(&[Some(0), Some(0)], &[0, 0], 1_000);
    check_draws(&[Some(0), None], &[0, 0], 1_000);
    let mut table = ModelTable::default();
    table.add_model(
        "reserved",
        Criticality::Standard,
        targets(&[("real", Some(0))]),
    );
    let resolved = table.resolve("reserved", None, false);
    assert_eq!((resolved.targets.len(), resolved.declared), (1, true));
}

#[test]
fn draw_stays_in_proportion_for_spread_draws_and_the_largest_weights() {
    let list = targets(&[
        ("a", Some(u32::MAX)),
        ("b", Some(u32::MAX)),
        ("c", Some(u32::MAX)),
    ]);
    let mut counts = [0_i32; 3];
    let mut number = 7_u64;
    for _ in 0..30_000 {
        number = number
            .wrapping_mul(0xD134_2543_DE82_EF95)
            .wrapping_add(0x2545_F491_4F6C_DD1D);
        counts[draw(&list, number ^ (number >> 32)).expect("weights are above 0")] += 1;
    }
    assert!(
        counts.iter().all(|&count| (count - 10_000).abs() < 400),
        "{counts:?}"
    );
}
