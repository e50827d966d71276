//! Names that are always valid, and what a Gateway's proxies run as.

use super::super::store::Store;
use super::*;
use config::{Compiler, Placement};

fn settings() -> ProxySettings {
    ProxySettings {
        image: "penstock:1".to_owned(),
        controller: "controller:4002".to_owned(),
        audience: "us".to_owned(),
        authority: "PEM".to_owned(),
        log: "info".to_owned(),
    }
}

fn store(infrastructure: Value, parameters: Value) -> Store {
    store_with(&["192.0.2.7"], infrastructure, parameters)
}

fn store_with(addresses: &[&str], infrastructure: Value, parameters: Value) -> Store {
    let addresses = addresses.iter();
    let addresses = addresses.map(|value| json!({"type": "IPAddress", "value": value}));
    let addresses: Vec<Value> = addresses.collect();
    let mut store = Store::default();
    let objects = [
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": {"name": "penstock"},
            "spec": {"controllerName": config::CONTROLLER_NAME, "parametersRef": {
                "group": "penstock.dev", "kind": "GatewayParameters", "name": "p", "namespace": "n"}},
        }),
        json!({
            "apiVersion": "penstock.dev/v1alpha1", "kind": "GatewayParameters",
            "metadata": {"name": "p", "namespace": "n"}, "spec": parameters,
        }),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "gw", "namespace": "n", "uid": "u"},
            "spec": {
                "gatewayClassName": "penstock", "infrastructure": infrastructure,
                "addresses": addresses,
                "listeners": [
                    {"name": "a", "port": 80, "protocol": "HTTP"},
                    {"name": "b", "port": 80, "protocol": "HTTP", "hostname": "b.example"},
                    {"name": "c", "port": 8080, "protocol": "HTTP"},
                ],
            },
        }),
    ];
    for object in objects {
        let (group, _) = object["apiVersion"]
            .as_str()
            .unwrap()
            .rsplit_once('/')
            .unwrap();
        let index = super::super::resources::position(group, object["kind"].as_str().unwrap());
        store.applied(index.unwrap(), object);
    }
    store
}

fn manifests(store: &Store, deployment: Option<&Stored>) -> Vec<Manifest> {
    let mut compiler = Compiler::new(Placement::PerGateway);
    compiler.compile(&store.objects);
    let plan = &compiler.plans()[0];
    let (_, gateway) = store.of_kind(config::Kind::Gateway, &plan.name).unwrap();
    let settings = settings();
    let provisioned = Provisioned {
        plan,
        gateway,
        settings: &settings,
        deployment,
    };
    provisioned.manifests()
}

/// Service, then Deployment.
fn made(store: &Store, deployment: Option<&Stored>) -> (Value, Value) {
    let manifests = manifests(store, deployment);
    let of = |kind: &str| {
        manifests
            .iter()
            .find(|one| one.kind == kind)
            .unwrap()
            .object
            .clone()
    };
    (of("Service"), of("Deployment"))
}

#[test]
fn names_are_labels_of_dns_and_differ() {
    let long = "a".repeat(253);
    let longer = format!("{}b", "a".repeat(252));
    let names = ["gw", "1-gateway", "with.dots", "with-dots", &long, &longer];
    let mut seen = std::collections::BTreeSet::new();
    for gateway in names {
        let name = resource_name(gateway, "penstock");
        assert!(name.len() <= LONGEST_NAME, "{name}");
        assert!(
            name.starts_with(|first: char| first.is_ascii_lowercase()),
            "{name}"
        );
        let valid = |one: char| one.is_ascii_lowercase() || one.is_ascii_digit() || one == '-';
        assert!(name.chars().all(valid) && !name.ends_with('-'), "{name}");
        assert!(label_value(gateway).len() <= LONGEST_LABEL);
        assert!(seen.insert(name), "{gateway}");
    }
    assert_eq!(resource_name("gw", "penstock"), "gw-penstock");
}

#[test]
fn infrastructure_is_on_everything_and_ours_win() {
    let infrastructure = json!({
        "labels": {"team": "a", GATEWAY_LABEL: "stolen"},
        "annotations": {"note": "b"},
    });
    let (service, deployment) = made(&store(infrastructure, json!({"replicas": 3})), None);
    for object in [&service, &deployment] {
        let metadata = &object["metadata"];
        assert_eq!(metadata["labels"]["team"], "a");
        assert_eq!(metadata["labels"][GATEWAY_LABEL], "gw");
        assert_eq!(metadata["annotations"]["note"], "b");
        assert_eq!(metadata["ownerReferences"][0]["uid"], "u");
    }
    let template = &deployment["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["team"], "a");
    assert_eq!(template["metadata"]["annotations"]["note"], "b");
    assert_eq!(service["spec"]["loadBalancerIP"], "192.0.2.7");
    let ports = service["spec"]["ports"].as_array().unwrap();
    assert_eq!(
        ports
            .iter()
            .map(|port| port["port"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [80, 8080]
    );
}

/// Names of the Services and the addresses that they ask for.
fn services(addresses: &[&str], parameters: Value) -> Vec<(String, Value)> {
    let manifests = manifests(&store_with(addresses, Value::Null, parameters), None);
    let services = manifests.into_iter().filter(|one| one.kind == "Service");
    let shown = services.map(|mut one| {
        let name = one.object["metadata"]["name"].as_str().unwrap().to_owned();
        (name, one.object["spec"]["loadBalancerIP"].take())
    });
    shown.collect()
}

#[test]
fn an_address_keeps_its_service_when_others_go() {
    let both = services(&["192.0.2.7", "192.0.2.8"], json!({}));
    assert_eq!(
        (&both[0].1, &both[1].1),
        (&json!("192.0.2.7"), &json!("192.0.2.8"))
    );
    assert_ne!(both[0].0, both[1].0);
    assert!(
        both.iter()
            .all(|(name, _)| name.starts_with("gw-penstock-"))
    );
    assert_eq!(services(&["192.0.2.8"], json!({})), both[1..]);
    assert_eq!(services(&["192.0.2.8", "192.0.2.7"], json!({}))[0], both[1]);
    let plain = [("gw-penstock".to_owned(), Value::Null)];
    assert_eq!(services(&[], json!({})), plain);
    assert_eq!(
        services(&["192.0.2.7"], json!({"serviceType": "ClusterIP"})),
        plain
    );
    let longest = service_name(&"a".repeat(LONGEST_NAME), "2001:db8::1");
    assert!(longest.len() <= LONGEST_LABEL, "{longest}");
}

#[test]
fn proxies_run_with_nothing_that_they_do_not_need() {
    let (_, deployment) = made(&store(Value::Null, json!({})), None);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(
        container["securityContext"]["capabilities"]["drop"],
        json!(["ALL"])
    );
    let token = &pod["volumes"][2]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["audience"], "us");
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > u64::from(LEAVE_SECONDS + DRAIN_SECONDS));
}

#[test]
fn replicas_are_somebody_elses_to_change() {
    let with = |replicas: u32| store(Value::Null, json!({"replicas": replicas}));
    let (_, first) = made(&with(3), None);
    assert_eq!(first["spec"]["replicas"], 3);
    let mut scaled = first.clone();
    scaled["spec"]["replicas"] = 7.into();
    let mut standing = Store::default();
    let index = super::super::resources::position("apps", "Deployment").unwrap();
    standing.applied(index, scaled);
    let (_, scaled) = standing.all(index).next().unwrap();
    let (_, same) = made(&with(3), Some(scaled));
    assert_eq!(same["spec"]["replicas"], 7, "an autoscaler's");
    assert_eq!(
        same["metadata"]["annotations"][APPLIED],
        first["metadata"]["annotations"][APPLIED]
    );
    let (_, changed) = made(&with(4), Some(scaled));
    assert_eq!(changed["spec"]["replicas"], 4, "asked for anew");
}

#[test]
fn parameters_say_what_proxies_run_as() {
    let resources = json!({"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}});
    let parameters = json!({
        "image": "mirror.example/penstock:2", "resources": resources, "serviceType": "NodePort",
    });
    let (service, deployment) = made(&store(Value::Null, parameters), None);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "mirror.example/penstock:2");
    assert_eq!(container["resources"], resources);
    assert_eq!(service["spec"]["type"], "NodePort");
    // An address is what a load balancer is asked for.
    assert_eq!(service["spec"].get("loadBalancerIP"), None);
    assert_eq!(service["metadata"]["name"], "gw-penstock");

    let (service, deployment) = made(&store(Value::Null, json!({})), None);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "penstock:1");
    assert_eq!(container.get("resources"), None);
    assert_eq!(service["spec"]["type"], "LoadBalancer");
    assert_eq!(deployment["spec"]["replicas"], 2);
}

#[test]
fn a_gateways_own_parameters_win_field_by_field() {
    let reference = json!({"group": "penstock.dev", "kind": "GatewayParameters", "name": "own"});
    let of_class = json!({"replicas": 3, "image": "of-class", "serviceType": "NodePort"});
    let mut store = store(json!({"parametersRef": reference}), of_class);
    let own = json!({
        "apiVersion": "penstock.dev/v1alpha1", "kind": "GatewayParameters",
        "metadata": {"name": "own", "namespace": "n"},
        "spec": {"image": "own", "resources": {"limits": {"cpu": "4"}}},
    });
    let index = super::super::resources::position("penstock.dev", "GatewayParameters");
    store.applied(index.unwrap(), own);
    let (service, deployment) = made(&store, None);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "own");
    assert_eq!(container["resources"]["limits"]["cpu"], "4");
    assert_eq!(deployment["spec"]["replicas"], 3);
    assert_eq!(service["spec"]["type"], "NodePort");
}
