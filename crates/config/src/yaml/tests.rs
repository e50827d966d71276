//! Messages, places and suggestions for typical mistakes.

use super::*;

const ROUTE: &str =
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: a\n";

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let decoded = decode("f.yaml", text);
    let errors: Vec<String> = decoded.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors, expected, "for\n{text}");
}

#[test]
fn mistakes_in_manifests_are_named_with_place_and_suggestion() {
    for (spec, expected) in [
        (
            "spec:\n  parentRef:\n  - name: x\n",
            "f.yaml:6:3: spec.parentRef: unknown field `parentRef`, did you mean `parentRefs`?",
        ),
        (
            "spec:\n  rules:\n  - matches:\n    - path:\n        typ: Exact\n",
            "f.yaml:9:9: spec.rules[0].matches[0].path.typ: unknown field `typ`, \
             did you mean `type`?",
        ),
        (
            "spec:\n  rules:\n  - timeouts:\n      request: 5 minutes\n",
            "f.yaml:8:7: spec.rules[0].timeouts.request: expected a duration such as 30s, 500ms \
             or 1h30m, found string \"5 minutes\"",
        ),
        (
            "spec:\n  rules:\n  - timeouts: 5s\n",
            "f.yaml:7:15: spec.rules[0].timeouts: expected a mapping of fields",
        ),
        (
            "spec:\n  rules: 7\n",
            "f.yaml:6:10: spec.rules: expected a list",
        ),
        (
            "spec:\n  rules:\n  - backendRefs:\n    - name: x\n      port: 80000\n",
            "f.yaml:9:7: spec.rules[0].backendRefs[0].port: expected a port, 1 to 65535, found \
             integer `80000`",
        ),
        (
            "spec:\n  rules:\n  - backendRefs:\n    - name: x\n      port: \"http\"\n",
            "f.yaml:9:13: spec.rules[0].backendRefs[0].port: expected a whole number",
        ),
    ] {
        check(&format!("{ROUTE}{spec}"), &[expected]);
    }
}

#[test]
fn rules_between_fields_and_of_the_text_are_named_as_well() {
    for (spec, expected) in [
        (
            "spec:\n  rules:\n  - backendRefs:\n    - name: x\n",
            "f.yaml:8:7: spec.rules[0].backendRefs[0]: a reference to a Service needs a port",
        ),
        (
            "spec:\n  hostnames: [a.com]\n  hostnames: [b.com]\n",
            "f.yaml:7:3: spec.hostnames: field `hostnames` is written twice",
        ),
        (
            "spec:\n\thostnames: [a.com]\n",
            "f.yaml:6:2: tabs cannot indent: use spaces",
        ),
        (
            "spec:\n  hostnames: [a.com, bad_host]\n",
            "f.yaml:6:22: spec.hostnames[1]: `bad_host` is no hostname",
        ),
        (
            "spec:\n  hostnames: [1]\n",
            "f.yaml:6:15: spec.hostnames[0]: expected text, found `1`, which needs quotes to be \
             text, did you mean `\"1\"`?",
        ),
        (
            "spec:\n  rules:\n  - filters:\n    - type: URLRewrite\n",
            "f.yaml:8:7: spec.rules[0].filters[0]: a filter of type URLRewrite needs field \
             `urlRewrite`",
        ),
        (
            "spec:\n  rules:\n  - timeouts:\n      request: 1s\n      backendRequest: 2s\n",
            "f.yaml:9:7: spec.rules[0].timeouts.backendRequest: 2s is longer than the request \
             timeout of 1s",
        ),
    ] {
        check(&format!("{ROUTE}{spec}"), &[expected]);
    }
}

#[test]
fn mistakes_in_the_plain_form_are_named_with_place_and_suggestion() {
    let pool = "pools:\n- name: a\n  endpoints: [\"http://10.0.0.1:1\"]\n";
    for (text, expected) in [
        (
            "pools:\n- name: a\n  endpoint: []\n".to_owned(),
            "f.yaml:3:3: pools[0].endpoint: unknown field `endpoint`, did you mean `endpoints`?",
        ),
        (
            format!("listen: 127.0.0.1\n{pool}"),
            "f.yaml:1:1: listen: expected an address and a port such as 127.0.0.1:4000 or :4000, \
             found string \"127.0.0.1\"",
        ),
        (
            format!("{pool}  profile: leastRequest\n"),
            "f.yaml:4:12: pools[0].profile: unknown value `leastRequest`, expected one of cost, \
             leastRequests, did you mean `leastRequests`?",
        ),
        (
            format!("{pool}  models: [{{name: x, criticality: critical}}]\n"),
            "f.yaml:4:22: pools[0].models[0].criticality: unknown value `critical`, expected one \
             of Critical, Standard, Sheddable",
        ),
        (
            format!("{pool}  models: [x, x]\n"),
            "f.yaml:4:15: pools[0].models[1]: model `x` is listed already, by pool `a`",
        ),
        (
            format!("{pool}  saturationSeconds: 0\n"),
            "f.yaml:4:3: pools[0].saturationSeconds: the time must be above 0",
        ),
        (
            "pools:\n- name: a\n  endpoints: [\"ftp://10.0.0.1\"]\n".to_owned(),
            "f.yaml:3:15: pools[0].endpoints[0]: `ftp://10.0.0.1`: the url must start with http:// \
             or https://",
        ),
        (
            "pools:\n- name: a\n  endpoints: [\"https://a\", \"http://a\"]\n".to_owned(),
            "f.yaml:3:3: pools[0].endpoints: the endpoints of a pool are all http, or all https \
             with the same host",
        ),
        (
            format!("{pool}  ca: ca.pem\n"),
            "f.yaml:4:3: pools[0].ca: authorities are of use for https endpoints only",
        ),
        (
            "pools:\n- name: A b\n  endpoints: [\"http://10.0.0.1\"]\n".to_owned(),
            "f.yaml:2:3: pools[0].name: a pool's name has lowercase letters, digits and dashes \
             only",
        ),
        (
            "pools: []\n".to_owned(),
            "f.yaml:1:1: pools: at least one pool is needed",
        ),
        (
            "listen: :80\n".to_owned(),
            "f.yaml:1:1: listen: field `pools` is missing",
        ),
    ] {
        check(&text, &[expected]);
    }
}

#[test]
fn a_bad_document_does_not_hide_its_neighbours() {
    let good = format!("{ROUTE}spec: {{}}\n");
    let text = format!("# first\n{good}---\nkind: [\n--- # third\n{good}");
    let decoded = decode(
        "f.yaml",
        &text.replace("name: a\nspec: {}\n---", "name: b\nspec: {}\n---"),
    );
    assert_eq!(decoded.objects.len(), 2);
    assert_eq!(decoded.errors.len(), 1);
    assert_eq!(decoded.errors[0].line, 8, "{:?}", decoded.errors);
    let lines: Vec<u32> = decoded
        .objects
        .iter()
        .map(|object| object.origin.as_ref().unwrap().line)
        .collect();
    assert_eq!(lines, [2, 10]);
}

#[test]
fn kinds_that_are_not_served_are_warnings_and_slips_are_errors() {
    for (header, warnings, errors) in [
        ("apiVersion: apps/v1\nkind: Deployment\n", 1, vec![]),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\n",
            1,
            vec![],
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HttpRoute\n",
            0,
            vec![
                "f.yaml:2:1: kind: HttpRoute of gateway.networking.k8s.io/v1 is not read, did you \
                 mean `HTTPRoute`?",
            ],
        ),
        (
            "apiVersion: gateway.networking.k8s.io/v2\nkind: HTTPRoute\n",
            0,
            vec![
                "f.yaml:1:1: apiVersion: HTTPRoute of gateway.networking.k8s.io/v2 is not read, \
                 did you mean `gateway.networking.k8s.io/v1`?",
            ],
        ),
        (
            "kind: HTTPRoute\n",
            0,
            vec!["f.yaml:1:1: field `apiVersion` is missing"],
        ),
        (
            "apiVersion: v1\nkind: List\nitems: []\n",
            0,
            vec![
                "f.yaml:2:1: kind: lists are not read: write the items as documents, parted by \
                 `---` lines",
            ],
        ),
        ("", 0, vec![]),
        ("# nothing\n---\n---\n", 0, vec![]),
    ] {
        check(header, &errors);
        assert_eq!(
            decode("f.yaml", header).warnings.len(),
            warnings,
            "{header}"
        );
    }
}

#[test]
fn json_is_read_as_well() {
    let text = r#"{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "a"}, "spec": {"hostnames": ["a.com"], "rules": null}}"#;
    let decoded = decode("f.json", text);
    assert_eq!((decoded.objects.len(), decoded.errors), (1, vec![]));
}

#[test]
fn bombs_are_refused() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, of) in ["ba", "cb", "dc", "ed", "fe", "gf", "hg"].map(|pair| pair.split_at(1)) {
        let list = vec![format!("*{of}"); 10].join(", ");
        bomb.push_str(&format!("{name}: &{name} [{list}]\n"));
    }
    for text in ["[".repeat(20_000), "a:\n ".repeat(20_000), bomb] {
        assert_eq!(decode("f.yaml", &text).objects, []);
        assert_eq!(decode("f.yaml", &text).errors.len(), 1);
    }
}

#[test]
fn a_place_is_found_by_path() {
    let text = format!(
        "{ROUTE}spec:\n  rules:\n  - {{}}\n  - backendRefs:\n    - name: x\n      port: 1\n"
    );
    let decoded = decode("f.yaml", &format!("# one\n---\n{text}"));
    let origin = decoded.objects[0].origin.clone().unwrap();
    for (path, place) in [
        ("", "f.yaml:3"),
        ("spec.rules[1].backendRefs[0].port", "f.yaml:12:7"),
        ("spec.rules[1].backendRefs[0].weight", "f.yaml:11:7"),
        ("spec.rules[1].filters", "f.yaml:10:5"),
        ("spec.rules[7]", "f.yaml:8:3"),
    ] {
        assert_eq!(origin.place(path), place, "{path}");
    }
}

#[test]
fn values_of_secrets_are_in_no_error_and_no_debug_text() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n";
    for (data, errors) in [
        (
            "stringData: {password: 123456}\n",
            vec![
                "f.yaml:4:24: stringData.password: expected text in quotes (values of a Secret are \
                 not shown)",
            ],
        ),
        (
            "strngData: {password: \"123456\"}\n",
            vec!["f.yaml:4:1: strngData: unknown field `strngData`, did you mean `stringData`?"],
        ),
        ("stringData: {password: \"123456\"}\n", vec![]),
    ] {
        let text = format!("{secret}{data}");
        check(&text, &errors);
        let shown = format!("{:?}", decode("f.yaml", &text));
        assert!(!shown.contains("123456"), "{shown}");
    }
}
