//! What is written, beside what others wrote, and when nothing is.

use super::super::store::Store;
use super::*;
use config::{CONTROLLER_NAME, Compiler, Objects, Placement};
use serde_json::json;

const NOW: &str = "2026-01-02T03:04:05Z";
const EARLIER: &str = "2025-01-01T00:00:00Z";

fn class() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "penstock", "resourceVersion": "1", "generation": 1},
        "spec": {"controllerName": CONTROLLER_NAME},
    })
}

fn gateway(status: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "gw", "namespace": "n", "resourceVersion": "2", "generation": 3},
        "spec": {"gatewayClassName": "penstock", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        "status": status,
    })
}

fn route(status: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "n", "resourceVersion": "3", "generation": 2},
        "spec": {
            "parentRefs": [
                {"group": GATEWAY_GROUP, "kind": "Gateway", "name": "gw"},
                {"group": GATEWAY_GROUP, "kind": "Gateway", "name": "theirs"},
            ],
            "rules": [{"backendRefs": [
                {"group": "inference.networking.k8s.io", "kind": "InferencePool", "name": "pool"},
            ]}],
        },
        "status": status,
    })
}

fn pool(status: Value) -> Value {
    json!({
        "apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool",
        "metadata": {"name": "pool", "namespace": "n", "resourceVersion": "4", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "targetPorts": [{"number": 8000}]},
        "status": status,
    })
}

fn store(objects: Vec<Value>) -> Store {
    let mut store = Store::default();
    for object in objects {
        let (group, _) = object["apiVersion"]
            .as_str()
            .unwrap()
            .rsplit_once('/')
            .unwrap_or_default();
        let index = super::super::resources::position(group, object["kind"].as_str().unwrap());
        store.applied(index.unwrap(), object);
    }
    store
}

/// The new status of one object, after compiling all of them.
#[track_caller]
fn written(objects: Vec<Value>, kind: Kind) -> Option<Value> {
    let store = store(objects);
    let compiled = Compiler::new(Placement::PerGateway).compile(&store.objects);
    let of_kind = |status: &&ObjectStatus| status.kind == kind;
    let status = compiled.statuses.objects.iter().find(of_kind).unwrap();
    let (_, stored) = store.of_kind(kind, &status.name).unwrap();
    let beside = Beside {
        features: &["A", "B"],
        addresses: vec![json!({"type": "IPAddress", "value": "10.0.0.1"})],
    };
    wanted(status, stored, &beside, NOW)
}

fn condition(name: &str, status: &str, since: &str) -> Value {
    json!({
        "type": name, "status": status, "reason": name, "message": "",
        "observedGeneration": 1, "lastTransitionTime": since,
    })
}

#[test]
fn a_status_is_written_whole_at_the_generation_and_only_once() {
    let status = written(vec![class()], Kind::GatewayClass).unwrap();
    assert_eq!(
        status["supportedFeatures"],
        json!([{"name": "A"}, {"name": "B"}])
    );
    let accepted = &status["conditions"][0];
    assert_eq!(accepted["status"], "True");
    assert_eq!(accepted["lastTransitionTime"], NOW);
    let mut again = class();
    again["status"] = status;
    assert_eq!(written(vec![again], Kind::GatewayClass), None);

    let all = |status: Value| vec![class(), gateway(status), route(json!({})), pool(json!({}))];
    let status = written(all(json!({})), Kind::Gateway).unwrap();
    let conditions = status["conditions"].as_array().unwrap();
    let listener = &status["listeners"][0];
    let of_listener = listener["conditions"].as_array().unwrap();
    for one in conditions.iter().chain(of_listener) {
        assert_eq!(one["observedGeneration"], 3, "{one}");
    }
    assert_eq!(listener["attachedRoutes"], 1);
    assert_eq!(status["addresses"][0]["value"], "10.0.0.1");
    assert_eq!(written(all(status), Kind::Gateway), None);
}

#[test]
fn times_of_transitions_stay_until_the_status_turns() {
    let before = json!({"conditions": [
        condition("Accepted", "True", EARLIER),
        condition("Programmed", "True", EARLIER),
    ]});
    let status = written(vec![class(), gateway(before)], Kind::Gateway).unwrap();
    let times = |at: usize| status["conditions"][at]["lastTransitionTime"].clone();
    assert_eq!(status["conditions"][0]["type"], "Accepted");
    assert_eq!((times(0), times(1)), (json!(EARLIER), json!(NOW)));
}

#[test]
fn what_others_wrote_is_not_touched() {
    let foreign = condition("example.com/Checked", "True", EARLIER);
    let theirs = json!({
        "parentRef": {"name": "theirs"}, "controllerName": "example.com/other",
        "conditions": [condition("Accepted", "False", EARLIER)],
    });
    let before = json!({"conditions": [foreign]});
    let status = written(vec![class(), gateway(before)], Kind::Gateway).unwrap();
    assert_eq!(status["conditions"][0], foreign);

    let mut other_class = class();
    other_class["metadata"]["name"] = "other".into();
    other_class["spec"]["controllerName"] = "example.com/other".into();
    let mut other = gateway(json!({}));
    other["metadata"]["name"] = "theirs".into();
    other["spec"]["gatewayClassName"] = "other".into();
    let objects = |parents: Value| {
        let route = route(json!({"parents": parents}));
        vec![
            class(),
            other_class.clone(),
            gateway(json!({})),
            other.clone(),
            route,
            pool(json!({})),
        ]
    };
    let status = written(objects(json!([theirs])), Kind::HttpRoute).unwrap();
    let parents = status["parents"].as_array().unwrap();
    assert_eq!(parents.len(), 2, "{status}");
    assert_eq!(parents[0], theirs);
    // The reference is repeated as it is written: no namespace was.
    assert_eq!(
        parents[1]["parentRef"],
        json!({"group": GATEWAY_GROUP, "kind": "Gateway", "name": "gw"})
    );
    assert_eq!(
        written(objects(status["parents"].clone()), Kind::HttpRoute),
        None
    );
}

#[test]
fn a_pool_names_the_gateways_whose_routes_lead_to_it_and_forgets_them() {
    let used = vec![
        class(),
        gateway(json!({})),
        route(json!({})),
        pool(json!({})),
    ];
    let status = written(used, Kind::InferencePool).unwrap();
    let parent = &status["parents"][0];
    assert_eq!(parent["parentRef"]["namespace"], "n");
    assert_eq!(parent["parentRef"]["name"], "gw");
    assert_eq!(parent["conditions"].as_array().unwrap().len(), 2);

    let theirs = json!({"parentRef": {"name": "x"}, "controllerName": "example.com/other"});
    let before = json!({"parents": [parent, theirs]});
    let unused = vec![class(), gateway(json!({})), pool(before)];
    let status = written(unused, Kind::InferencePool).unwrap();
    assert_eq!(status["parents"], json!([theirs]));
    let alone = vec![
        class(),
        gateway(json!({})),
        pool(json!({"parents": [parent]})),
    ];
    assert_eq!(
        written(alone, Kind::InferencePool).unwrap()["parents"],
        json!([])
    );
    let never = vec![class(), gateway(json!({})), pool(json!({}))];
    assert_eq!(written(never, Kind::InferencePool), None);
}

fn older_pool(status: Value) -> Value {
    json!({
        "apiVersion": "inference.networking.x-k8s.io/v1alpha2", "kind": "InferencePool",
        "metadata": {"name": "older", "namespace": "n", "resourceVersion": "7", "generation": 5},
        "spec": {"selector": {"app": "a"}, "targetPortNumber": 8000},
        "status": status,
    })
}

/// A route to the pool of either version.
fn route_to_both() -> Value {
    let mut route = route(json!({}));
    let backends = &mut route["spec"]["rules"][0]["backendRefs"];
    let older =
        json!({"group": "inference.networking.x-k8s.io", "kind": "InferencePool", "name": "older"});
    backends.as_array_mut().unwrap().push(older);
    route
}

/// As the API server keeps a status whose definition has no field for the controller's name.
fn unnamed(mut status: Value, entries: &str) -> Value {
    for entry in status[entries].as_array_mut().unwrap() {
        entry.as_object_mut().unwrap().remove("controllerName");
    }
    status
}

/// Entries of other controllers, with a name and without.
fn foreign_entries() -> [Value; 2] {
    let conditions = [condition("Accepted", "True", EARLIER)];
    [
        json!({"parentRef": {"name": "x"}, "controllerName": "example.com/other", "conditions": conditions}),
        json!({"parentRef": {"name": "y", "namespace": "n"}, "conditions": conditions}),
    ]
}

#[test]
fn the_older_pool_beside_v1_forgets_its_gateways_too() {
    let with = |route: Option<Value>, gateways: bool, status: Value| {
        let gateway = gateways.then(|| gateway(json!({})));
        let mut all = vec![class(), pool(json!({})), older_pool(status)];
        all.extend(route.into_iter().chain(gateway));
        written(all, Kind::InferencePoolV1Alpha2)
    };
    let status = with(Some(route_to_both()), true, json!({})).unwrap();
    let ours = &status["parent"][0];
    assert_eq!(ours["parentRef"]["name"], "gw");
    assert_eq!(ours["controllerName"], CONTROLLER_NAME);
    assert_eq!(ours["conditions"][0]["observedGeneration"], 5);
    assert_eq!(ours["conditions"][0]["message"], "");
    assert_eq!(with(Some(route_to_both()), true, status.clone()), None);

    let [named, nameless] = foreign_entries();
    let before = json!({"parent": [named, ours, nameless]});
    let others = json!([named, nameless]);
    // The last route goes, leads elsewhere, or its Gateway goes.
    for (route, gateways) in [
        (None, true),
        (Some(route(json!({}))), true),
        (Some(route_to_both()), false),
    ] {
        let status = with(route.clone(), gateways, before.clone()).unwrap();
        assert_eq!(status["parent"], others, "{route:?}");
        let alone = with(route, gateways, json!({"parent": [ours]})).unwrap();
        assert_eq!(alone["parent"], json!([]));
    }
}

#[test]
fn the_older_pool_gives_way_to_v1_of_its_name() {
    let mut same = older_pool(json!({}));
    same["metadata"]["name"] = "pool".into();
    let all = |pools: Vec<Value>| {
        let rest = vec![class(), gateway(json!({})), route(json!({}))];
        rest.into_iter().chain(pools).collect()
    };
    let status = written(all(vec![same.clone()]), Kind::InferencePoolV1Alpha2).unwrap();
    assert_eq!(status["parent"].as_array().unwrap().len(), 1);
    same["status"] = status;
    let status = written(
        all(vec![same, pool(json!({}))]),
        Kind::InferencePoolV1Alpha2,
    )
    .unwrap();
    assert_eq!(status["parent"], json!([]));
}

#[test]
fn a_definition_without_a_field_for_our_name_is_enough() {
    let upstream = json!({"parent": [parents::placeholder()]});
    for (kind, entries, empty) in [
        (
            Kind::InferencePoolV1Alpha2,
            "parent",
            upstream["parent"].clone(),
        ),
        // Before v1.1 of the inference extension.
        (Kind::InferencePool, "parents", json!([])),
    ] {
        let with = |route: Option<Value>, gateways: bool, status: &Value| {
            let gateway = gateways.then(|| gateway(json!({})));
            let mut all = match kind {
                Kind::InferencePool => vec![class(), pool(status.clone())],
                _ => vec![class(), older_pool(status.clone())],
            };
            all.extend(route.into_iter().chain(gateway));
            written(all, kind)
        };
        let fresh = json!({entries: empty});
        assert_eq!(with(None, true, &fresh), None, "unused");
        let status = with(Some(route_to_both()), true, &fresh).unwrap();
        assert_eq!(status[entries].as_array().unwrap().len(), 1, "{status}");
        // The name is lost; the second write signs instead, and then there is nothing to write.
        let status = with(Some(route_to_both()), true, &unnamed(status, entries)).unwrap();
        let ours = unnamed(status, entries);
        assert_eq!(with(Some(route_to_both()), true, &ours), None);
        let ours = &ours[entries][0];
        assert_eq!(
            ours["conditions"][0]["message"],
            format!("reported by {CONTROLLER_NAME}")
        );

        let [named, nameless] = foreign_entries();
        let before = json!({entries: [named, ours, nameless]});
        for (route, gateways) in [(None, true), (Some(route_to_both()), false)] {
            let status = with(route.clone(), gateways, &before).unwrap();
            assert_eq!(status[entries], json!([named, nameless]));
            let alone = with(route, gateways, &json!({entries: [ours]})).unwrap();
            assert_eq!(alone[entries], empty, "as it was before");
        }
    }
}

#[test]
fn a_pool_says_that_its_route_is_refused() {
    let mut refused = route(json!({}));
    refused["spec"]["parentRefs"][0]["sectionName"] = "nowhere".into();
    let all = |routes: Vec<Value>| {
        let rest = vec![class(), gateway(json!({})), pool(json!({}))];
        rest.into_iter().chain(routes).collect()
    };
    let status = written(all(vec![refused.clone()]), Kind::InferencePool).unwrap();
    let accepted = &status["parents"][0]["conditions"][0];
    assert_eq!(status["parents"][0]["parentRef"]["name"], "gw");
    assert_eq!(
        (&accepted["type"], &accepted["status"]),
        (&json!("Accepted"), &json!("False"))
    );
    assert_eq!(accepted["reason"], "HTTPRouteNotAccepted");
    assert!(
        accepted["message"].as_str().unwrap().contains("n/r"),
        "{accepted}"
    );
    // Another one is taken.
    let mut taken = route(json!({}));
    taken["metadata"]["name"] = "taken".into();
    let status = written(all(vec![refused, taken]), Kind::InferencePool).unwrap();
    assert_eq!(status["parents"].as_array().unwrap().len(), 1);
    assert_eq!(status["parents"][0]["conditions"][0]["reason"], "Accepted");
}

#[test]
fn an_object_with_another_status_compiles_nothing_again() {
    let mut store = store(vec![class(), gateway(json!({}))]);
    let index = super::super::resources::position(GATEWAY_GROUP, "Gateway").unwrap();
    let before: Objects = store.objects.clone();
    let mut newer = gateway(json!({"conditions": [condition("Accepted", "True", EARLIER)]}));
    newer["metadata"]["resourceVersion"] = "9".into();
    store.touched.clear();
    store.applied(index, newer.clone());
    let name = ObjectName::new("n", "gw");
    let touched = super::super::store::Touched {
        key: (index, name.clone()),
        compiled: None,
        made_for: None,
    };
    assert_eq!(std::mem::take(&mut store.touched), [touched]);
    let (one, other) = (&before.gateways[&name], &store.objects.gateways[&name]);
    assert!(std::sync::Arc::ptr_eq(&one.object, &other.object));
    // Events and answers cross: what is older comes too late, and what is known is no news.
    store.applied(index, gateway(json!({})));
    store.applied(index, newer);
    assert_eq!(store.touched, []);
    assert_eq!(store.get(index, &name).unwrap().resource_version, "9");
}

#[test]
fn a_policy_reports_to_the_gateways_behind_which_it_holds() {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "n", "resourceVersion": "5"},
        "spec": {"ports": [{"port": 80}]},
    });
    let mut route = route(json!({}));
    route["spec"]["rules"] = json!([{"backendRefs": [{"name": "web", "port": 80}]}]);
    let theirs = json!({
        "ancestorRef": {"group": GATEWAY_GROUP, "kind": "Gateway", "name": "other"},
        "controllerName": "example.com/other", "conditions": [],
    });
    let policy = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy",
        "metadata": {"name": "tls", "namespace": "n", "resourceVersion": "6", "generation": 4},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "validation": {"hostname": "web", "wellKnownCACertificates": "System"},
        },
        "status": {"ancestors": [theirs]},
    });
    let objects = vec![class(), gateway(json!({})), route, service, policy];
    let written = written(objects, Kind::BackendTlsPolicy).expect("a status");
    let ancestors = written["ancestors"].as_array().unwrap();
    assert_eq!(ancestors[0], theirs);
    assert_eq!(ancestors[1]["ancestorRef"]["name"], "gw");
    assert_eq!(ancestors[1]["controllerName"], CONTROLLER_NAME);
    let accepted = &ancestors[1]["conditions"][0];
    assert_eq!(accepted["type"], "Accepted");
    assert_eq!(accepted["status"], "True");
    assert_eq!(accepted["observedGeneration"], 4);
}
