//! Manifests and plain files serve requests: matching, filters, timeouts, and what fails how.

use crate::configured::{Configured, GATEWAY, pool, route, service, slice, to_pool};
use crate::gateway::{connect, get, mock, penstock, post_with, read_answer, wait_until};
use crate::scripted::echo;
use crate::servers::{Scripted, event_stream};
use std::io::{BufReader, Write};
use std::time::Duration;

const CHAT: &str =
    r#"{"model":"llama","max_tokens":3,"messages":[{"role":"user","content":"hi"}]}"#;

/// A rule that marks its requests with its name.
fn marked(name: &str, matches: &str) -> String {
    format!(
        "{{matches: [{matches}], backendRefs: [{{name: web, port: 80}}], filters: \
        [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-rule, value: {name}}}]}}}}]}}"
    )
}

/// What rules on `a.example` ask for; each is named after it.
fn rules() -> String {
    [
        marked("exact", "{path: {type: Exact, value: /v1/exact}}"),
        marked("short", "{path: {value: /v1}}"),
        marked("long", "{path: {value: /v1/long}}"),
        marked(
            "regex",
            "{path: {type: RegularExpression, value: '/r[0-9]+/x'}}",
        ),
        marked("method", "{path: {value: /v1}, method: DELETE}"),
        marked(
            "header",
            "{path: {value: /v1}, headers: [{name: Version, value: two}]}",
        ),
        marked(
            "headers",
            "{path: {value: /v1}, headers: [{name: Version, value: two}, {name: Color, value: blue}]}",
        ),
        marked(
            "query",
            "{path: {value: /v1}, queryParams: [{name: page, value: '2'}]}",
        ),
        marked(
            "either",
            "{path: {type: Exact, value: /one}}, {path: {type: Exact, value: /two}}",
        ),
    ]
    .join(", ")
}

#[test]
fn requests_find_the_most_specific_rule() {
    let other = marked("other", "{path: {value: /}}");
    let wildcard = marked("wildcard", "{path: {value: /}}");
    let text = [
        GATEWAY.to_owned(),
        route(
            "a",
            &format!("hostnames: [a.example], rules: [{}]", rules()),
        ),
        route("b", &format!("hostnames: [b.example], rules: [{other}]")),
        route(
            "c",
            &format!("hostnames: ['*.wild.example'], rules: [{wildcard}]"),
        ),
        service("web", &[echo("web")]),
    ];
    let gateway = Configured::start(&text.concat());
    let check = |(method, host, target, fields): (&str, &str, &str, &[&str]), expected: &str| {
        let answer = gateway.ask(method, host, target, fields);
        let rule = answer
            .body
            .lines()
            .find_map(|line| line.strip_prefix("x-rule: "));
        let found = rule.map_or_else(|| answer.status.to_string(), str::to_owned);
        assert_eq!(found, expected, "{method} {host} {target} {fields:?}");
    };
    let a = "a.example";
    check(("GET", a, "/v1/exact", &[]), "exact");
    check(("GET", a, "/v1/exact/more", &[]), "short");
    check(("GET", a, "/v1", &[]), "short");
    check(("GET", a, "/v1/", &[]), "short");
    check(("GET", a, "/v1x", &[]), "404");
    check(("GET", a, "/V1", &[]), "404");
    check(("GET", a, "/v1/long/er?q=1", &[]), "long");
    check(("GET", a, "/v1/longer", &[]), "short");
    check(("GET", a, "/r12/x", &[]), "regex");
    check(("GET", a, "/r/x", &[]), "404");
    check(("DELETE", a, "/v1/y", &[]), "method");
    check(("DELETE", a, "/v1/long", &[]), "long");
    check(("GET", a, "/v1", &["VERSION: two"]), "header");
    check(("GET", a, "/v1", &["version: TWO"]), "short");
    check(
        ("GET", a, "/v1", &["version: two", "color: blue"]),
        "headers",
    );
    check(
        ("DELETE", a, "/v1", &["version: two", "color: blue"]),
        "method",
    );
    check(("GET", a, "/v1?page=2&x", &[]), "query");
    check(("GET", a, "/v1?Page=2", &[]), "short");
    check(("GET", a, "/v1?page=2", &["version: two"]), "header");
    check(("GET", a, "/one", &[]), "either");
    check(("GET", a, "/two", &[]), "either");
    check(("GET", "A.example:8443", "/v1", &[]), "short");
    check(("GET", "b.example", "/v1", &[]), "other");
    check(("GET", "x.y.wild.example", "/v1", &[]), "wildcard");
    check(("GET", "wild.example", "/v1", &[]), "404");
    check(("GET", a, "/nothing", &[]), "404");
}

#[test]
fn backends_get_their_share_by_weight() {
    let backends = "backendRefs: [{name: one, port: 80, weight: 3}, {name: two, port: 80}, \
        {name: three, port: 80, weight: 0}]";
    let text = [
        GATEWAY.to_owned(),
        route("weights", &format!("rules: [{{{backends}}}]")),
        service("one", &[echo("one")]),
        service("two", &[echo("two")]),
        service("three", &[echo("three")]),
    ];
    let gateway = Configured::start(&text.concat());
    let mut stream = BufReader::new(connect(gateway.address));
    let mut from_one = 0;
    for _ in 0..400 {
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.get_mut().write_all(request).unwrap();
        let answer = read_answer(&mut stream).unwrap();
        assert_ne!(answer.field("x-from"), Some("three"));
        from_one += u32::from(answer.field("x-from") == Some("one"));
    }
    // Four standard deviations about 300.
    assert!((265..=335).contains(&from_one), "{from_one} of 400");
}

#[test]
fn filters_change_requests_and_responses() {
    let edit = "{matches: [{path: {value: /edit}}], filters: [{type: RequestHeaderModifier, \
        requestHeaderModifier: {set: [{name: X-Set, value: new}], add: [{name: X-Add, value: more}], \
        remove: [X-Gone]}}, {type: ResponseHeaderModifier, responseHeaderModifier: \
        {set: [{name: X-From, value: rule}], add: [{name: X-Via, value: gw}]}}], \
        backendRefs: [{name: web, port: 80, filters: [{type: ResponseHeaderModifier, \
        responseHeaderModifier: {set: [{name: X-Backend, value: web}]}}]}]}";
    let rewrite = "{matches: [{path: {value: /old}}], filters: [{type: URLRewrite, urlRewrite: \
        {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}], \
        backendRefs: [{name: web, port: 80}]}";
    let redirect = "{matches: [{path: {value: /moved}}], filters: [{type: RequestRedirect, \
        requestRedirect: {scheme: https, hostname: other.example, statusCode: 301}}]}";
    let text = [
        GATEWAY.to_owned(),
        route(
            "filters",
            &format!("rules: [{edit}, {rewrite}, {redirect}]"),
        ),
        service("web", &[echo("web")]),
    ];
    let gateway = Configured::start(&text.concat());
    let fields = ["x-set: old", "x-add: one", "x-gone: here"];
    let answer = gateway.ask("GET", "a.example", "/edit", &fields);
    let received = answer.body.to_ascii_lowercase();
    assert!(
        received.contains("x-set: new") && !received.contains("x-set: old"),
        "{received}"
    );
    assert!(
        received.contains("x-add: one") && received.contains("x-add: more"),
        "{received}"
    );
    assert!(!received.contains("x-gone"), "{received}");
    assert_eq!(answer.field("x-from"), Some("rule"));
    assert_eq!(answer.field("x-via"), Some("gw"));
    assert_eq!(answer.field("x-backend"), Some("web"));

    let answer = gateway.get("/old/path?q=1");
    assert!(
        answer.body.contains("GET /new/path?q=1 HTTP/1.1"),
        "{}",
        answer.body
    );
    assert!(
        answer
            .body
            .to_ascii_lowercase()
            .contains("host: inner.example"),
        "{}",
        answer.body
    );

    let answer = gateway.get("/moved/x?q=1");
    assert_eq!(answer.status, 301);
    assert_eq!(
        answer.field("location"),
        Some("https://other.example/moved/x?q=1")
    );
}

#[test]
fn timeouts_of_a_rule_end_in_504() {
    let (_server, server) = mock(&["--model", "llama", "--fault", "slow-head:ms=20000"]);
    let rule = |path: &str, timeouts: &str, backend: &str| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], timeouts: {{{timeouts}}}, backendRefs: [{backend}]}}"
        )
    };
    let web = "{name: web, port: 80}";
    let rules = [
        rule("/request", "request: 200ms", web),
        rule("/try", "backendRequest: 200ms", web),
        rule("/both", "request: 200ms, backendRequest: 0s", web),
        rule("/off", "request: 0s", web),
        rule("/v1", "request: 300ms", &to_pool("chat")),
    ];
    let text = [
        GATEWAY.to_owned(),
        route("timeouts", &format!("rules: [{}]", rules.join(", "))),
        service("web", &[echo("web")]),
        pool("chat", "", &[server]),
    ];
    let gateway = Configured::start(&text.concat());
    for (target, code) in [
        ("/request/hang", "request_timeout"),
        ("/try/hang", "response_timeout"),
        ("/both/hang", "request_timeout"),
    ] {
        let answer = gateway.get(target);
        assert_eq!(answer.status, 504, "{target} {answer:?}");
        assert!(answer.body.contains(code), "{target} {}", answer.body);
    }
    assert_eq!(gateway.get("/off").status, 200);
    let answer = post_with(gateway.address, "/v1/chat/completions", CHAT, &[]);
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(answer.body.contains("request_timeout"), "{}", answer.body);
}

#[test]
fn a_stream_that_flows_is_ended_when_its_time_is_over() {
    let event = event_stream(&[r#"{"choices":[{"index":0,"delta":{"content":"x"}}]}"#]);
    let (head, rest) = event.split_once("\r\n\r\n").unwrap();
    let (chunk, _) = rest.split_at(rest.len() - "0\r\n\r\n".len());
    let head = format!("{head}\r\n\r\n");
    let mut pieces = vec![(head.as_str(), Duration::ZERO)];
    pieces.resize(400, (chunk, Duration::from_millis(10)));
    let server = Scripted::start(&pieces);
    let rule = format!(
        "rules: [{{timeouts: {{request: 500ms}}, backendRefs: [{}]}}]",
        to_pool("chat")
    );
    let text = [
        GATEWAY.to_owned(),
        route("brief", &rule),
        pool("chat", "", &[server.address]),
    ];
    let gateway = Configured::start(&text.concat());
    let body = CHAT.replacen('{', "{\"stream\":true,", 1);
    let answer = post_with(gateway.address, "/v1/chat/completions", &body, &[]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let events = answer.body.matches("\"x\"").count();
    assert!((10..300).contains(&events), "{events} events");
    let (_, last) = answer.body.trim_end().rsplit_once("\n\n").unwrap();
    assert!(last.contains("request_timeout"), "{last}");
}

#[test]
fn what_cannot_be_served_fails_as_the_api_says() {
    let rule =
        |path: &str, rest: &str| format!("{{matches: [{{path: {{value: {path}}}}}], {rest}}}");
    let backend = |path: &str, backend: &str| rule(path, &format!("backendRefs: [{backend}]"));
    let mirror = "filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP}}], \
        backendRefs: [{name: web, port: 80}]";
    let rules = [
        backend("/gone", "{name: gone, port: 80}"),
        backend("/port", "{name: web, port: 81}"),
        backend(
            "/kind",
            "{name: web, kind: Bucket, group: storage.example.com}",
        ),
        backend("/pool-gone", &to_pool("gone")),
        backend("/foreign", "{name: web, namespace: other, port: 80}"),
        backend("/empty", "{name: empty, port: 80}"),
        backend("/pool-empty", &to_pool("empty")),
        backend("/asked", &to_pool("asked")),
        backend("/zero", "{name: web, port: 80, weight: 0}"),
        rule("/none", "name: none"),
        rule("/filter", mirror),
        backend("/web", "{name: web, port: 80}"),
    ];
    let text = [
        GATEWAY.to_owned(),
        route("failures", &format!("rules: [{}]", rules.join(", "))),
        service("web", &[echo("web")]),
        service("empty", &[]),
        service("epp", &[]),
        pool("empty", "", &[]),
        pool(
            "asked",
            ", endpointPickerRef: {name: epp, port: {number: 9002}}",
            &[],
        ),
    ];
    let gateway = Configured::start(&text.concat());
    for (target, status, words) in [
        ("/gone", 500, "Service default/gone not found"),
        ("/port", 500, "has no port 81"),
        ("/kind", 500, "Bucket"),
        ("/pool-gone", 500, "InferencePool default/gone not found"),
        ("/foreign", 500, "ReferenceGrant"),
        ("/empty", 503, "no_endpoints"),
        ("/pool-empty", 503, "no_endpoints"),
        ("/asked", 503, "picker_unavailable"),
        ("/zero", 500, "no_backend"),
        ("/none", 500, ""),
        ("/filter", 500, "ExternalAuth is not served yet"),
        ("/nowhere", 404, "no_route"),
        ("/web", 200, "web"),
    ] {
        let answer = gateway.get(target);
        assert_eq!(answer.status, status, "{target} {answer:?}");
        assert!(answer.body.contains(words), "{target} {}", answer.body);
    }
    let log = gateway.log();
    assert!(
        log.contains("one.yaml:") && log.contains("ResolvedRefs=False (BackendNotFound)"),
        "{log}"
    );
}

/// In `closed` a grant names Services only.
const GRANTS: &str = "
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: pools, namespace: open}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: inference.networking.k8s.io, kind: InferencePool}]
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: services, namespace: closed}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: '', kind: Service}]
";

#[test]
fn a_pool_of_another_namespace_is_served_where_a_grant_names_pools() {
    let members = [echo("chat")];
    let rule = |namespace: &str| {
        let name = format!("name: chat, namespace: {namespace}");
        let backend = to_pool("chat").replace("name: chat", &name);
        format!("{{matches: [{{path: {{value: /{namespace}}}}}], backendRefs: [{backend}]}}")
    };
    let foreign = |namespace: &str| {
        let place = format!("metadata: {{namespace: {namespace}, name");
        pool("chat", "", &members).replace("metadata: {name", &place)
    };
    let rules = ["open", "closed", "bare"].map(rule).join(", ");
    let pools = ["open", "closed", "bare"].map(foreign).concat();
    let route = route("foreign", &format!("rules: [{rules}]"));
    let text = [GATEWAY, &route, &pools, GRANTS].concat();
    let gateway = Configured::start(&text);
    for namespace in ["closed", "bare"] {
        let answer = gateway.get(&format!("/{namespace}"));
        let words = format!("no ReferenceGrant permits InferencePool {namespace}/chat");
        assert_eq!(answer.status, 500, "{answer:?}");
        assert!(answer.body.contains(&words), "{}", answer.body);
    }
    let refused = "ResolvedRefs=False (RefNotPermitted)";
    assert!(gateway.log().contains(refused), "{}", gateway.log());
    let answer = gateway.get("/open");
    assert_eq!((answer.status, answer.field("x-from")), (200, Some("chat")));
    // A grant that comes, and goes again.
    let pool = "{group: inference.networking.k8s.io, kind: InferencePool}";
    let also = format!("kind: Service}}, {pool}]");
    gateway.apply(&text.replace("kind: Service}]", &also));
    assert_eq!(gateway.get("/closed").status, 200);
    gateway.apply(&text);
    assert_eq!(gateway.get("/closed").status, 500);
}

const OLDER: &str = "
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: older}
spec: {selector: {app: older}, targetPortNumber: MEMBER, extensionRef: {name: epp}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {name: assistant}
spec: {modelName: assistant, criticality: Critical, poolRef: {name: older}, targetModels: [{name: llama}]}
---
apiVersion: penstock.dev/v1alpha1
kind: GatewayParameters
metadata: {name: own}
spec: {picker: BuiltIn}
";

#[test]
fn pools_of_both_versions_and_their_models_are_served() {
    let (_server, server) = mock(&["--model", "llama"]);
    let gateway = GATEWAY.replace(
        "gatewayClassName: penstock",
        "gatewayClassName: penstock\n  infrastructure: {parametersRef: \
        {group: penstock.dev, kind: GatewayParameters, name: own}}",
    );
    let older = to_pool("older").replace("networking.k8s.io", "networking.x-k8s.io");
    let by_model = format!(
        "rules: [{{matches: [{{headers: [{{name: X-Gateway-Model-Name, value: assistant}}]}}], \
        backendRefs: [{older}]}}, {{backendRefs: [{}]}}]",
        to_pool("chat")
    );
    let text = [
        gateway,
        route("models", &by_model),
        OLDER.replace("MEMBER", &server.port().to_string()),
        slice("older", "app: older", server),
        pool(
            "chat",
            ", endpointPickerRef: {name: epp, port: {number: 9002}}",
            &[server],
        ),
        service("epp", &[]),
    ];
    let gateway = Configured::start(&text.concat());
    for (model, pool) in [("assistant", "default/older"), ("llama", "default/chat")] {
        let body = CHAT.replace("llama", model);
        // A client cannot choose the pool by naming a model beside its body.
        let lie = [("x-gateway-model-name", "other")];
        let answer = post_with(gateway.address, "/v1/chat/completions", &body, &lie);
        assert_eq!(answer.status, 200, "{model} {answer:?}");
        assert!(
            answer.body.contains(&format!("\"model\":\"{model}\"")),
            "{}",
            answer.body
        );
        let id = answer.field("x-penstock-decision").unwrap();
        let path = format!("/debug/decisions?id={id}");
        // A decision is recorded when its request has ended, a moment after the client's last byte.
        wait_until(|| get(gateway.admin, &path).unwrap().body.contains(pool));
    }
}

const PLAIN: &str = "
listen: 127.0.0.1:PORT
pools:
  - name: chat
    endpoints: [http://ONE]
    models: [{name: assistant, targets: [{name: llama}]}, llama]
  - name: code
    endpoints: [http://TWO]
";

#[test]
fn an_export_serves_as_the_plain_file_does() {
    let (_one, one) = mock(&["--model", "llama"]);
    let (_two, two) = mock(&["--model", "qwen"]);
    let plain = PLAIN
        .replace("ONE", &one.to_string())
        .replace("TWO", &two.to_string());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plain.yaml");
    // An address that is replaced below by another gateway's.
    std::fs::write(&file, plain.replace("PORT", "45678")).unwrap();
    let exported = penstock(&["export", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(exported.status.success(), "{exported:?}");
    let exported = String::from_utf8(exported.stdout)
        .unwrap()
        .replace("45678", "PORT");
    let (plain, exported) = (Configured::start(&plain), Configured::start(&exported));
    for model in ["assistant", "llama", "qwen"] {
        let body = CHAT.replace("llama", model);
        let of = |gateway: &Configured| {
            let answer = post_with(gateway.address, "/v1/chat/completions", &body, &[]);
            let endpoint = answer.field("x-penstock-endpoint").map(str::to_owned);
            (
                answer.status,
                endpoint,
                answer.body.contains(&format!("\"model\":\"{model}\"")),
            )
        };
        let expected = if model == "qwen" { two } else { one };
        assert_eq!(
            of(&plain),
            (200, Some(expected.to_string()), true),
            "{model}"
        );
        assert_eq!(of(&plain), of(&exported), "{model}");
    }
}
