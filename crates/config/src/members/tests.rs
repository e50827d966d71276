//! Which endpoints are members.

use crate::{ObjectName, Objects, decode_for_tests as decode};

const POOL: &str = "
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec:
  selector: {matchLabels: {app: vllm}}
  targetPorts: [{number: 8000}, {number: 8001}]
";

#[track_caller]
fn check(slice: &str, expected: &[(&str, &str)]) {
    let text = format!(
        "{POOL}---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: slice, labels: {{app: vllm, tier: gold}}}}\n{slice}\n"
    );
    let objects: Objects = decode(&text).into_iter().collect();
    let members = crate::members(&objects, &ObjectName::new("default", "pool"));
    let found: Vec<_> = members
        .iter()
        .map(|member| (member.key.as_str(), member.name.as_str()))
        .collect();
    assert_eq!(found, expected, "{slice}");
}

#[test]
fn each_endpoint_is_a_member_per_target_port() {
    check(
        "addressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]",
        &[
            ("http://10.0.0.1:8000", "10.0.0.1:8000"),
            ("http://10.0.0.1:8001", "10.0.0.1:8001"),
        ],
    );
}

#[test]
fn the_ports_of_a_slice_narrow_the_target_ports() {
    check(
        "addressType: FQDN\nendpoints: [{addresses: [Model.Example.com]}]\n\
         ports: [{port: 8001}, {name: metrics, port: 9090}]",
        &[("http://model.example.com:8001", "model.example.com:8001")],
    );
}

#[test]
fn only_endpoints_that_take_requests_are_members() {
    check(
        "addressType: IPv4\nports: [{port: 8000}]\nendpoints:\n\
         - {addresses: [10.0.0.1], conditions: {ready: false}}\n\
         - {addresses: [10.0.0.2], conditions: {ready: true, terminating: true}}\n\
         - {addresses: [10.0.0.3], conditions: {serving: true}}\n\
         - {addresses: [10.0.0.4], targetRef: {kind: Pod, uid: abc}}\n\
         - {addresses: [10.0.0.3]}",
        &[
            ("http://10.0.0.3:8000", "10.0.0.3:8000"),
            ("abc:8000", "10.0.0.4:8000"),
        ],
    );
}

#[test]
fn other_labels_or_namespaces_are_not_members() {
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
        addressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]\n";
    for metadata in [
        "{name: s, labels: {app: other}}",
        "{name: s, namespace: b, labels: {app: vllm}}",
    ] {
        let text = format!("{POOL}---\n{slice}metadata: {metadata}\n");
        let objects: Objects = decode(&text).into_iter().collect();
        assert_eq!(
            crate::members(&objects, &ObjectName::new("default", "pool")),
            []
        );
    }
}

/// Keys and names of the members that Pods make; `pods` are what stands beside kind and version.
#[track_caller]
fn check_pods(pods: &[&str], expected: &[(&str, &str)]) {
    let mut text = POOL.to_owned();
    for pod in pods {
        text.push_str(&format!("---\napiVersion: v1\nkind: Pod\n{pod}\n"));
    }
    let objects: Objects = decode(&text).into_iter().collect();
    let members = crate::members(&objects, &ObjectName::new("default", "pool"));
    let found: Vec<_> = members
        .iter()
        .map(|member| (member.key.as_str(), member.name.as_str()))
        .collect();
    assert_eq!(found, expected, "{pods:?}");
}

const READY: &str = "status: {podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}";

#[test]
fn each_ready_pod_is_a_member_per_target_port_and_known_by_its_uid() {
    let pod = |metadata: &str| format!("metadata: {{labels: {{app: vllm}}, {metadata}}}\n{READY}");
    let both = ["10.0.0.1:8000", "10.0.0.1:8001"];
    check_pods(
        &[&pod("name: a, uid: u-1")],
        &[("u-1:8000", both[0]), ("u-1:8001", both[1])],
    );
    // The next Pod of that name and address is another one.
    check_pods(
        &[&pod("name: a, uid: u-2")],
        &[("u-2:8000", both[0]), ("u-2:8001", both[1])],
    );
    // In files nobody gives out UIDs.
    check_pods(
        &[&pod("name: a")],
        &[("a:8000", both[0]), ("a:8001", both[1])],
    );
    check_pods(&[&pod("name: a, uid: u-1, namespace: other")], &[]);
    check_pods(
        &[&pod("name: a, uid: u-1").replace("app: vllm", "app: x")],
        &[],
    );
    check_pods(
        &[&pod("name: a, uid: u-1").replace("'True'", "'False'")],
        &[],
    );
    check_pods(
        &[&pod("name: a, uid: u-1").replace("type: Ready", "type: Started")],
        &[],
    );
    check_pods(
        &[&pod("name: a, uid: u-1").replace("podIP: 10.0.0.1, ", "")],
        &[],
    );
    check_pods(
        &[&pod(
            "name: a, uid: u-1, deletionTimestamp: '2026-01-01T00:00:00Z'",
        )],
        &[],
    );
}

#[test]
fn a_pods_annotation_narrows_the_target_ports() {
    for (ports, expected) in [
        ("8001", &[("u:8001", "10.0.0.1:8001")][..]),
        (
            " 8001 , 8000,8000",
            &[("u:8000", "10.0.0.1:8000"), ("u:8001", "10.0.0.1:8001")][..],
        ),
        // Only target ports of the pool.
        ("8001,9000", &[("u:8001", "10.0.0.1:8001")][..]),
        ("9000", &[][..]),
        ("", &[][..]),
        ("none,8000,99999", &[("u:8000", "10.0.0.1:8000")][..]),
    ] {
        let annotation = format!("inference.networking.k8s.io/active-ports: '{ports}'");
        let metadata = format!(
            "metadata: {{name: a, uid: u, labels: {{app: vllm}}, annotations: {{{annotation}}}}}"
        );
        check_pods(&[&format!("{metadata}\n{READY}")], expected);
    }
}

#[test]
fn the_older_pool_version_has_members_too() {
    let text = "
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: pool}
spec: {selector: {app: vllm}, targetPortNumber: 8000, extensionRef: {name: epp}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s, labels: {app: vllm}}
addressType: IPv6
endpoints: [{addresses: [\"fd00::1\"]}]
";
    let objects: Objects = decode(text).into_iter().collect();
    let members = crate::members(&objects, &ObjectName::new("default", "pool"));
    assert_eq!(members[0].name, "[fd00::1]:8000");
}

#[test]
fn ports_of_a_service_are_found_by_name_then_number() {
    let service = |ports: &str, slice_ports: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: {ports}}}\n\
             ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: s, labels: {{kubernetes.io/service-name: web}}}}\n\
             addressType: IPv4\nendpoints: [{{addresses: [10.0.0.1]}}]\nports: {slice_ports}\n"
        );
        let objects: Objects = decode(&text).into_iter().collect();
        let name = ObjectName::new("default", "web");
        let service = objects.services[&name].object.clone();
        let port = crate::ServicePort { name, port: 80 };
        let endpoints = super::of_service(&objects, &port, &service);
        endpoints
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    for (ports, slice_ports, endpoints) in [
        (
            "[{port: 80, targetPort: 3000}]",
            "[{port: 3000}]",
            "10.0.0.1:3000",
        ),
        (
            "[{port: 80, name: http}]",
            "[{name: x, port: 1}, {name: http, port: 2}]",
            "10.0.0.1:2",
        ),
        (
            "[{port: 80, targetPort: 3000}]",
            "[{name: x, port: 3000}]",
            "10.0.0.1:3000",
        ),
        ("[{port: 81}]", "[{port: 3000}]", ""),
        ("[{port: 80, name: http}]", "[{name: x, port: 1}]", ""),
    ] {
        assert_eq!(
            service(ports, slice_ports),
            endpoints,
            "{ports} {slice_ports}"
        );
    }
}

#[test]
fn labels_and_zones_say_in_which_subsets_a_member_is() {
    let policy = "---\napiVersion: penstock.dev/v1alpha1\nkind: PoolPolicy\nmetadata: {name: p}\nspec:\n  \
        targetRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: pool}]\n  \
        subsets:\n  - matchLabels: {tier: canary}\n    headers: [{name: x, value: yes-it-is}]\n  \
        - matchLabels: {topology.kubernetes.io/zone: a, tier: canary}\n  \
        - matchLabels: {topology.kubernetes.io/zone: a}\n";
    let slice = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
        ports: [{port: 8000}]\nmetadata: {name: s, labels: {app: vllm, tier: canary}}\n\
        endpoints: [{addresses: [10.0.0.3]}, {addresses: [10.0.0.4], zone: a}]\n";
    let pod = |name: &str, labels: &str, ip: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: vllm{labels}}}, \
             annotations: {{inference.networking.k8s.io/active-ports: '8000'}}}}\n\
             status: {{podIP: {ip}, conditions: [{{type: Ready, status: 'True'}}]}}\n"
        )
    };
    let text = [
        POOL,
        policy,
        slice,
        &pod("one", "", "10.0.0.1"),
        &pod("two", ", topology.kubernetes.io/zone: a", "10.0.0.2"),
    ]
    .concat();
    let subsets = |text: &str| -> Vec<(String, Vec<usize>)> {
        let objects: Objects = decode(text).into_iter().collect();
        let members = crate::members(&objects, &ObjectName::new("default", "pool"));
        let found = members.into_iter();
        found
            .map(|member| (member.name, member.subsets.iter().collect()))
            .collect()
    };
    let found = subsets(&text);
    let expected: [(&str, &[usize]); 4] = [
        ("10.0.0.1:8000", &[]),
        ("10.0.0.2:8000", &[2]),
        ("10.0.0.3:8000", &[0]),
        ("10.0.0.4:8000", &[0, 1, 2]),
    ];
    let expected = expected.map(|(name, numbers)| (name.to_owned(), numbers.to_vec()));
    assert_eq!(found, expected);
    // Another pool's policy is none of its.
    let other = text.replace("InferencePool, name: pool}", "InferencePool, name: other}");
    assert!(
        subsets(&other)
            .iter()
            .all(|(_, numbers)| numbers.is_empty())
    );
}
