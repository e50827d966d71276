//! What a proxy sees compiles to what the controller compiled for it, and nothing else is in it.

use std::sync::Arc;

use proptest::prelude::*;

use crate::{
    Bind, Compiled, Compiler, Kind, Object, ObjectName, Objects, Placement, Resource, compile,
    decode_for_tests as decode, members, reachable,
};

const CLASSES: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours}
spec: {controllerName: penstock.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: theirs}
spec: {controllerName: example.com/other}
";

fn gateway(name: u8, variant: u8) -> String {
    let class = if variant == 7 { "theirs" } else { "ours" };
    let from = ["Same", "All", "Selector"][usize::from(variant % 3)];
    let selector = if variant % 3 == 2 {
        ", selector: {matchLabels: {team: a}}"
    } else {
        ""
    };
    let tls = if variant > 4 {
        ", {name: t, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: cert, namespace: n1}]}}"
    } else {
        ""
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: gw{name}, namespace: n0}}\n\
         spec: {{gatewayClassName: {class}, listeners: [{{name: a, port: 80, protocol: HTTP, \
         allowedRoutes: {{namespaces: {{from: {from}{selector}}}}}}}{tls}]}}\n"
    )
}

fn route(name: u8, variant: u8) -> String {
    let (namespace, target) = (variant % 2, variant / 2 % 2);
    let backend = match variant / 4 {
        0 => format!(
            "{{name: p{}, namespace: n{target}, group: inference.networking.k8s.io, kind: InferencePool}}",
            name % 2
        ),
        1 => format!("{{name: web, namespace: n{target}, port: 80}}"),
        _ => "{name: q, kind: Strange}".to_owned(),
    };
    let gateways = ["{name: gw0, namespace: n0}", "{name: gw1, namespace: n0}"];
    let parents = match name {
        0 => gateways[0].to_owned(),
        1 => gateways[1].to_owned(),
        _ => gateways.join(", "),
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: r{name}, namespace: n{namespace}}}\n\
         spec:\n  parentRefs: [{parents}]\n  rules:\n  - backendRefs: [{backend}]\n"
    )
}

fn pool(name: u8, variant: u8) -> String {
    let namespace = variant % 2;
    format!(
        "apiVersion: inference.networking.k8s.io/v1\nkind: InferencePool\n\
         metadata: {{name: p{name}, namespace: n{namespace}}}\n\
         spec: {{selector: {{matchLabels: {{app: a{name}}}}}, targetPorts: [{{number: 8000}}]}}\n\
         ---\n\
         apiVersion: inference.networking.x-k8s.io/v1alpha2\nkind: InferenceModel\n\
         metadata: {{name: m{variant}, namespace: n{namespace}}}\n\
         spec: {{modelName: model-{}, poolRef: {{name: p{name}}}}}\n",
        variant % 3
    )
}

fn grant(name: u8, variant: u8) -> String {
    let from = if variant.is_multiple_of(2) {
        "HTTPRoute"
    } else {
        "Gateway"
    };
    let to = match variant % 3 {
        0 => "{group: inference.networking.k8s.io, kind: InferencePool}",
        1 => "{group: '', kind: Service}",
        _ => "{group: '', kind: Secret}",
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
         metadata: {{name: grant{name}, namespace: n{}}}\n\
         spec: {{from: [{{group: gateway.networking.k8s.io, kind: {from}, namespace: n{}}}], to: [{to}]}}\n",
        variant / 2 % 2,
        variant / 4 % 2
    )
}

fn surroundings(_: u8, variant: u8) -> String {
    let (namespace, team) = (variant % 2, if variant < 4 { "a" } else { "b" });
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: n{namespace}, labels: {{team: {team}}}}}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: n{namespace}}}\n\
         spec: {{ports: [{{port: 80}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: web-{variant}, namespace: n{namespace}, labels: {{kubernetes.io/service-name: web}}}}\n\
         ports: [{{port: 1}}]\nendpoints: [{{addresses: [10.0.0.{variant}]}}]\n\
         ---\napiVersion: v1\nkind: Secret\nmetadata: {{name: cert, namespace: n{namespace}}}\n\
         stringData: {{tls.crt: a, tls.key: b}}\n\
         ---\napiVersion: v1\nkind: Pod\n\
         metadata: {{name: pod{variant}, namespace: n{namespace}, uid: u{variant}, labels: {{app: a{}}}}}\n\
         status: {{podIP: 10.0.1.{variant}, conditions: [{{type: Ready, status: 'True'}}]}}\n",
        variant % 3
    )
}

fn backend_tls(name: u8, variant: u8) -> String {
    let target = match variant % 2 {
        0 => "{group: '', kind: Service, name: web}".to_owned(),
        _ => format!(
            "{{group: inference.networking.k8s.io, kind: InferencePool, name: p{}}}",
            name % 2
        ),
    };
    // Nothing in it: the reason why nothing is sent differs from that of one which is not there.
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
         metadata: {{name: tls{name}, namespace: n{}}}\n\
         spec: {{targetRefs: [{target}], validation: {{hostname: web, \
         caCertificateRefs: [{{group: '', kind: ConfigMap, name: ca}}]}}}}\n\
         ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ca, namespace: n{}}}\n",
        variant / 2 % 2,
        variant / 4 % 2
    )
}

fn objects() -> impl Strategy<Value = Vec<Object>> {
    type Write = fn(u8, u8) -> String;
    let kinds: [(Write, usize); 6] = [
        (gateway, 3),
        (route, 6),
        (pool, 3),
        (grant, 4),
        (surroundings, 5),
        (backend_tls, 2),
    ];
    let lists = kinds.map(|(write, most)| {
        let one = (0..3u8, 0..9u8).prop_map(move |(name, variant)| write(name, variant));
        proptest::collection::vec(one, 0..=most)
    });
    lists.prop_map(|lists| {
        let texts = lists.into_iter().flatten();
        std::iter::once(CLASSES.to_owned())
            .chain(texts)
            .flat_map(|text| decode(&text))
            .collect()
    })
}

fn compile_all(objects: &Objects) -> Compiled {
    Compiler::new(Placement::PerGateway).compile(objects)
}

/// The sockets of one Gateway with its listeners only.
fn binds_of(compiled: &Compiled, gateway: &ObjectName) -> Vec<(u16, Vec<String>)> {
    let shown = |bind: &Arc<Bind>| {
        let listeners = bind.listeners.iter();
        let listeners = listeners.filter(|listener| listener.gateway == *gateway);
        let shown: Vec<String> = listeners.map(|listener| format!("{listener:?}")).collect();
        (bind.port, shown)
    };
    let binds = compiled.snapshot.binds.iter().map(shown);
    binds
        .filter(|(_, listeners)| !listeners.is_empty())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_proxy_compiles_what_the_controller_compiled(list in objects()) {
        let all: Objects = list.into_iter().collect();
        let compiled = compile_all(&all);
        for gateway in all.gateways.keys() {
            let seen = reachable(&all, gateway);
            let of_proxy = compile_all(&seen);
            prop_assert_eq!(binds_of(&of_proxy, gateway), binds_of(&compiled, gateway));
            let status = |compiled: &Compiled| compiled.statuses.get(Kind::Gateway, gateway).cloned();
            prop_assert_eq!(status(&of_proxy), status(&compiled));
            for (name, pool) in &of_proxy.snapshot.pools {
                prop_assert_eq!(Some(pool), compiled.snapshot.pools.get(name));
                prop_assert_eq!(members(&seen, name), members(&all, name));
            }
            // Reaching again finds nothing to leave out.
            let again = reachable(&seen, gateway);
            prop_assert_eq!(again.all().len(), seen.all().len());
        }
    }

    #[test]
    fn statuses_do_not_depend_on_where_endpoints_are(list in objects()) {
        let judged = |objects: &Objects| Compiler::new(Placement::PerGateway).judge(objects);
        let all: Objects = list.iter().cloned().collect();
        prop_assert_eq!(&judged(&all), &compile_all(&all).statuses);
        let kept = list.into_iter().filter(|object| object.resource.kind().is_judged());
        let less: Objects = kept.collect();
        prop_assert_eq!(judged(&less), judged(&all));
    }
}

#[test]
fn a_route_is_of_the_gateways_that_take_it() {
    let text = [
        CLASSES.to_owned(),
        gateway(0, 1),
        gateway(1, 1),
        route(0, 0),
        route(2, 0),
    ];
    let all: Objects = decode(&text.join("---\n")).into_iter().collect();
    let mut compiler = Compiler::new(Placement::PerGateway);
    compiler.judge(&all);
    let takers = |route: &str| {
        let routes = [ObjectName::new("n0", route)].into_iter().collect();
        let takers = compiler.takers(&routes).into_iter();
        let mut takers: Vec<String> = takers.map(|name| name.to_string()).collect();
        takers.sort();
        takers
    };
    assert_eq!(takers("r0"), ["n0/gw0"]);
    assert_eq!(takers("r2"), ["n0/gw0", "n0/gw1"]);
    assert!(takers("other").is_empty());
}

#[track_caller]
fn seen(text: &str) -> Vec<String> {
    let all: Objects = decode(&format!("{CLASSES}---\n{text}"))
        .into_iter()
        .collect();
    let found = reachable(&all, &ObjectName::new("n0", "gw0"));
    let shown = |object: Object| format!("{} {}", object.resource.kind(), object.name());
    found.all().into_iter().map(shown).collect()
}

#[test]
fn secrets_of_others_stay_where_they_are() {
    let base = format!(
        "{}---\n{}---\n{}",
        gateway(0, 6),
        surroundings(0, 0),
        surroundings(0, 1)
    );
    let secrets = |text: &str| {
        let found = seen(text).into_iter();
        found
            .filter(|name| name.starts_with("Secret"))
            .collect::<Vec<_>>()
    };
    assert!(secrets(&base).is_empty());
    let grant = "---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
        metadata: {name: g, namespace: n1}\nspec:\n\
        \x20 from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: n0}]\n\
        \x20 to: [{group: '', kind: Secret}]\n";
    assert_eq!(secrets(&format!("{base}{grant}")), ["Secret n1/cert"]);
}

#[test]
fn a_gateway_of_another_controller_is_none_of_ours() {
    assert!(seen(&gateway(0, 7)).is_empty());
    assert!(!seen(&gateway(0, 0)).is_empty());
    // Without its class a Gateway is served from files only.
    let alone: Objects = decode(&gateway(0, 0)).into_iter().collect();
    let resource = |one: &Object| matches!(one.resource, Resource::Gateway(_));
    assert!(alone.all().iter().any(resource));
    assert!(compile_all(&alone).snapshot.binds.is_empty());
    assert_eq!(compile(&alone).snapshot.binds.len(), 1);
}

#[test]
fn authorities_and_policies_of_tls_come_along() {
    let text = format!(
        "{}---\n{}---\n{}---\n{}---\n{}",
        gateway(0, 1).replace(
            "spec: {gatewayClassName: ours,",
            "spec: {tls: {frontend: {default: {validation: {caCertificateRefs: \
             [{group: '', kind: ConfigMap, name: clients}]}}}, \
             backend: {clientCertificateRef: {name: shown}}}, gatewayClassName: ours,"
        ),
        surroundings(0, 0),
        route(0, 4),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: clients, namespace: n0}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {name: servers, namespace: n0}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {name: others, namespace: n0}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {name: shown, namespace: n0}\n",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\n\
         metadata: {name: p, namespace: n0}\nspec:\n\
         \x20 targetRefs: [{group: '', kind: Service, name: web}]\n\
         \x20 validation: {hostname: web.example, caCertificateRefs: [{group: '', kind: ConfigMap, name: servers}]}\n"
    );
    let found = seen(&text);
    let has = |name: &str| found.iter().any(|one| one == name);
    for name in [
        "ConfigMap n0/clients",
        "ConfigMap n0/servers",
        "Secret n0/shown",
        "BackendTLSPolicy n0/p",
    ] {
        assert!(has(name), "{name} is not in {found:?}");
    }
    assert!(!has("ConfigMap n0/others"), "{found:?}");
}
