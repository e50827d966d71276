//! Which entries can be used, and whom they take.

use super::*;
use crate::{Objects, compile, decode_for_tests as decode};

/// A policy of `pool` with these entries in flow style.
fn policy(entries: &str) -> String {
    format!(
        "apiVersion: penstock.dev/v1alpha1\nkind: PoolPolicy\nmetadata: {{name: p}}\nspec:\n  \
         targetRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: pool}}]\n  \
         subsets: {entries}\n"
    )
}

#[track_caller]
fn refused(entries: &str, expected: &str) {
    let decoded = crate::yaml::decode("f.yaml", &policy(entries));
    let errors: Vec<String> = decoded.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, [expected], "{entries}");
}

#[test]
fn entries_that_cannot_be_used_are_refused_with_their_place() {
    let long = "x".repeat(64);
    for (entries, expected) in [
        (
            "[{headers: []}]",
            "f.yaml:6:14: spec.subsets[0].headers: field `matchLabels` is missing".to_owned(),
        ),
        (
            "[{matchLabels: {}}]",
            "f.yaml:6:14: spec.subsets[0].matchLabels: a subset needs at least one label, such as \
             topology.kubernetes.io/zone"
                .to_owned(),
        ),
        (
            "[{matchLabels: {a: b}}, {matchLabels: {a b: c}}]",
            "f.yaml:6:37: spec.subsets[1].matchLabels: `a b` is no name of a label".to_owned(),
        ),
        (
            "[{matchLabels: {A.b/c: d}}]",
            "f.yaml:6:14: spec.subsets[0].matchLabels: `A.b/c` is no name of a label".to_owned(),
        ),
        (
            &format!("[{{matchLabels: {{a: {long}}}}}]"),
            format!(
                "f.yaml:6:14: spec.subsets[0].matchLabels: `{long}` is no value of a label: at most \
                 63 letters, digits, dashes, underscores and dots, with a letter or digit at both ends"
            ),
        ),
        (
            "[{matchLabels: {a: b}, headers: [{name: 'x y', value: z}]}]",
            "f.yaml:6:46: spec.subsets[0].headers[0].name: `x y` is no header name".to_owned(),
        ),
        (
            "[{matchLabels: {a: b}, headers: [{name: x, value: z}, {name: X, value: z}]}]",
            "f.yaml:6:67: spec.subsets[0].headers[1].name: `x` is written twice".to_owned(),
        ),
        (
            "[{matchLabels: {a: b}, headers: [{name: x, value: ''}]}]",
            "f.yaml:6:55: spec.subsets[0].headers[0].value: a value has 1 to 4096 characters, none \
             of control among them"
                .to_owned(),
        ),
        (
            "[{matchLabel: {a: b}}]",
            "f.yaml:6:14: spec.subsets[0].matchLabel: unknown field `matchLabel`, did you mean \
             `matchLabels`?"
                .to_owned(),
        ),
        (
            &format!("[{}]", vec!["{matchLabels: {a: b}}"; 17].join(", ")),
            "f.yaml:6:3: spec.subsets: a pool has at most 16 subsets".to_owned(),
        ),
    ] {
        refused(entries, &expected);
    }
}

const POOL: &str = "
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec: {selector: {matchLabels: {app: vllm}}, targetPorts: [{number: 8000}]}
---
";

/// As they come from a cluster, where the definition does not refuse everything.
fn unchecked(entries: &str) -> Objects {
    let sound = policy("[]");
    let mut objects: Objects = decode(&format!("{POOL}{sound}")).into_iter().collect();
    let json: serde_json::Value = serde_saphyr::from_str(&policy(entries)).unwrap();
    let resource = crate::Resource::from_json(crate::Kind::PoolPolicy, json).unwrap();
    objects.insert(crate::Object::from(resource));
    objects
}

#[test]
fn an_entry_that_cannot_be_used_is_left_out_and_said() {
    let canary = "{matchLabels: {tier: canary}}";
    let objects = unchecked(&format!("[{{matchLabels: {{a b: c}}}}, {canary}]"));
    let subsets = crate::compile::subsets_of(&objects, &crate::ObjectName::new("default", "pool"));
    assert_eq!(subsets.len(), 1);
    assert_eq!(subsets[0].labels["tier"], "canary");
    let statuses = compile(&objects).statuses;
    let problems: Vec<String> = statuses
        .problems()
        .iter()
        .map(ToString::to_string)
        .collect();
    let [problem] = problems.as_slice() else {
        panic!("{problems:?}");
    };
    assert!(
        problem.contains("spec.subsets[0].matchLabels")
            && problem.contains("`a b` is no name of a label; the subset is left out"),
        "{problem}"
    );
    let of_policy = statuses.objects.iter();
    let mut of_policy = of_policy.filter(|one| one.kind == crate::Kind::PoolPolicy);
    let condition = &of_policy.next().unwrap().conditions[0];
    assert_eq!(
        (condition.status, condition.reason),
        (crate::Truth::False, crate::Reason::Invalid)
    );
    let fine = compile(&unchecked(&format!("[{canary}]"))).statuses;
    assert!(fine.problems().is_empty());
}

/// A request of which only headers matter.
struct Headers(&'static [(&'static str, &'static str)]);

impl RequestView for Headers {
    fn method(&self) -> &str {
        "POST"
    }
    fn host(&self) -> &str {
        "a"
    }
    fn path(&self) -> &str {
        "/"
    }
    fn query(&self) -> Option<&str> {
        None
    }
    fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_bytes())
    }
}

#[test]
fn a_request_is_kept_to_entries_all_of_whose_headers_it_has() {
    let objects = unchecked(
        "[{matchLabels: {tier: canary}, headers: [{name: X-Tier, value: canary}, {name: who, value: me}]},\
         {matchLabels: {tier: canary}, headers: [{name: x-tier, value: canary}]},\
         {matchLabels: {topology.kubernetes.io/zone: a}}]",
    );
    let subsets = crate::compile::subsets_of(&objects, &crate::ObjectName::new("default", "pool"));
    for (headers, expected) in [
        (&[][..], &[2][..]),
        (&[("x-tier", "Canary")], &[2]),
        (&[("x-tier", "canary")], &[1, 2]),
        (&[("who", "me")], &[2]),
        (&[("x-tier", "canary"), ("who", "me")], &[0, 1, 2]),
    ] {
        let found = Subset::of_request(&subsets, &Headers(headers));
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{headers:?}");
    }
}
