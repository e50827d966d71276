//! The incremental compiler against the specification, and what it shares.

use std::sync::Arc;

use proptest::prelude::*;

use crate::{
    Compiler, Kind, Object, ObjectName, Objects, Snapshot, compile, decode_for_tests as decode,
};

fn gateway(name: u8, variant: u8) -> String {
    let listener = match variant % 4 {
        0 => "{name: a, port: 80, protocol: HTTP}",
        1 => "{name: a, port: 80, protocol: HTTP, hostname: \"*.example.com\"}",
        2 => "{name: a, port: 80, protocol: HTTP}, {name: b, port: 81, protocol: HTTP}",
        _ => "{name: a, port: 80, protocol: HTTPS}",
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: gw{name}}}\n\
         spec: {{gatewayClassName: c, listeners: [{listener}]}}\n"
    )
}

fn route(name: u8, variant: u8) -> String {
    let (kind, path) = (variant % 3, variant / 3);
    let backend = match kind {
        0 => "{name: p0, group: inference.networking.k8s.io, kind: InferencePool}".to_owned(),
        1 => format!("{{name: p{path}, group: inference.networking.k8s.io, kind: InferencePool}}"),
        _ => "{name: web, port: 80}".to_owned(),
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{name}}}\n\
         spec:\n  parentRefs: [{{name: gw0}}, {{name: gw1}}]\n  rules:\n  - backendRefs: [{backend}]\n  \
         - matches: [{{path: {{value: /{path}}}}}]\n    backendRefs: [{backend}]\n"
    )
}

fn pool(name: u8, variant: u8) -> String {
    format!(
        "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\n\
         metadata: {{name: p{name}}}\n\
         spec: {{selector: {{matchLabels: {{a: b}}}}, targetPorts: [{{number: {}}}]}}\n",
        8000 + u16::from(variant)
    )
}

fn model(name: u8, variant: u8) -> String {
    format!(
        "apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceModel\n\
         metadata: {{name: m{name}}}\n\
         spec: {{modelName: model-{}, poolRef: {{name: p{}}}, criticality: Critical}}\n",
        variant % 2,
        variant % 3
    )
}

fn service(_: u8, variant: u8) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: [{{port: {}}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: web, labels: {{kubernetes.io/service-name: web}}}}\n\
         ports: [{{port: 1}}]\nendpoints: [{{addresses: [10.0.0.{variant}]}}]\n",
        80 + u16::from(variant % 2)
    )
}

#[derive(Clone, Debug)]
enum Edit {
    Put(String),
    Remove(Kind, String),
}

fn edit() -> impl Strategy<Value = Edit> {
    let put = |write: fn(u8, u8) -> String| {
        (0..3u8, 0..9u8).prop_map(move |(name, variant)| Edit::Put(write(name, variant)))
    };
    let remove = prop_oneof![
        (0..3u8).prop_map(|name| Edit::Remove(Kind::Gateway, format!("gw{name}"))),
        (0..3u8).prop_map(|name| Edit::Remove(Kind::HttpRoute, format!("r{name}"))),
        (0..3u8).prop_map(|name| Edit::Remove(Kind::InferencePool, format!("p{name}"))),
        (0..3u8).prop_map(|name| Edit::Remove(Kind::InferenceModel, format!("m{name}"))),
    ];
    prop_oneof![
        put(gateway),
        put(route),
        put(route),
        put(pool),
        put(model),
        put(service),
        remove
    ]
}

fn apply(objects: &mut Objects, edit: &Edit) {
    match edit {
        Edit::Put(text) => decode(text)
            .into_iter()
            .for_each(|object| objects.insert(object)),
        Edit::Remove(kind, name) => {
            objects.remove(*kind, &ObjectName::new("default", name));
        }
    }
}

/// Equal nodes of two consecutive snapshots must be the same node.
fn check_sharing(before: &Snapshot, after: &Snapshot) {
    for (name, pool) in &after.pools {
        if let Some(earlier) = before.pools.get(name) {
            assert_eq!(Arc::ptr_eq(earlier, pool), earlier == pool, "pool {name}");
        }
    }
    for bind in &after.binds {
        let socket = (bind.address, bind.port);
        let earlier = before
            .binds
            .iter()
            .find(|earlier| (earlier.address, earlier.port) == socket);
        let Some(earlier) = earlier else { continue };
        assert_eq!(
            Arc::ptr_eq(earlier, bind),
            earlier == bind,
            "bind {socket:?}"
        );
        for (one, other) in earlier.listeners.iter().zip(&bind.listeners) {
            assert_eq!(
                Arc::ptr_eq(one, other),
                one == other,
                "listener {}",
                other.name
            );
            for rule in other.routes.rules() {
                let same = |known: &&Arc<crate::Rule>| {
                    (&known.route, known.index) == (&rule.route, rule.index)
                };
                if let Some(known) = one.routes.rules().find(same) {
                    assert_eq!(
                        Arc::ptr_eq(known, rule),
                        known == rule,
                        "rule of {}",
                        rule.route
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..Default::default()
    })]
    #[test]
    fn any_sequence_of_edits_equals_the_full_compile(
        edits in prop::collection::vec(edit(), 1..24),
    ) {
        let mut objects = Objects::default();
        let mut compiler = Compiler::default();
        let mut judge = Compiler::default();
        let mut before = Arc::new(Snapshot::empty());
        for edit in &edits {
            apply(&mut objects, edit);
            let incremental = compiler.compile(&objects);
            prop_assert_eq!(&incremental, &compile(&objects));
            prop_assert_eq!(&judge.judge(&objects), &incremental.statuses);
            check_sharing(&before, &incremental.snapshot);
            before = incremental.snapshot;
        }
    }
}

fn base() -> Objects {
    let text = [
        gateway(0, 0),
        pool(0, 0),
        pool(1, 0),
        route(0, 0),
        route(1, 4),
    ]
    .join("---\n");
    decode(&text).into_iter().collect()
}

#[test]
fn an_edit_of_one_pool_leaves_the_others_as_they_are() {
    let mut objects = base();
    let mut compiler = Compiler::default();
    let before = compiler.compile(&objects).snapshot;
    decode(&pool(1, 5))
        .into_iter()
        .for_each(|object| objects.insert(object));
    let after = compiler.compile(&objects).snapshot;
    let names = ["p0", "p1"].map(|name| ObjectName::new("default", name));
    let kept = names.map(|name| Arc::ptr_eq(&before.pools[&name], &after.pools[&name]));
    assert_eq!(kept, [true, false]);
    let rule = |snapshot: &Snapshot, route: &str| {
        let mut rules = snapshot.binds[0].listeners[0].routes.rules();
        rules
            .find(|rule| &*rule.route.name == route)
            .unwrap()
            .clone()
    };
    assert!(Arc::ptr_eq(&rule(&before, "r0"), &rule(&after, "r0")));
    assert!(!Arc::ptr_eq(&rule(&before, "r1"), &rule(&after, "r1")));
    assert_ne!(before.hash, after.hash);
}

#[test]
fn the_same_objects_again_give_the_same_snapshot() {
    let mut compiler = Compiler::default();
    let first = compiler.compile(&base()).snapshot;
    // Read anew: equal, but no node of the objects is the same.
    let again = compiler.compile(&base()).snapshot;
    assert!(Arc::ptr_eq(&first, &again));
}

#[test]
fn equal_objects_keep_their_nodes_when_files_are_read_again() {
    let first = base();
    let text = [gateway(0, 0), pool(0, 0), pool(1, 7), route(0, 0)].join("---\n");
    let (again, errors) = Objects::assemble(&first, decode(&text));
    assert_eq!(errors, []);
    let name = |name: &str| ObjectName::new("default", name);
    let same = |pool: &str| {
        let (one, other) = (
            &first.inference_pools[&name(pool)],
            &again.inference_pools[&name(pool)],
        );
        (
            Arc::ptr_eq(&one.object, &other.object),
            one.version == other.version,
        )
    };
    assert_eq!(same("p0"), (true, true));
    assert_eq!(same("p1"), (false, false));
    assert_eq!(again.http_routes.len(), 1);
}

#[test]
fn an_object_written_twice_is_an_error_that_names_both_places() {
    let objects: Vec<Object> = decode(&[pool(0, 0), pool(0, 1)].join("---\n"));
    let (store, errors) = Objects::assemble(&Objects::default(), objects);
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "test.yaml:6:1: metadata.name: InferencePool default/p0 is written twice, first in \
          test.yaml:1"
        ]
    );
    let kept = &store.inference_pools[0].object;
    assert_eq!(kept.spec.target_ports[0].number.number(), 8000);
}
