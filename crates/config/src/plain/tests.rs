//! The plain form means what its export means.

use crate::{Objects, compile, decode_for_tests as decode, export};

const TWO_POOLS: &str = "
listen: 127.0.0.1:4100
trustInferenceHeaders: true
pools:
- name: chat
  endpoints: [\"http://10.0.0.1:8000\", \"http://10.0.0.2:8001/\", \"http://[::1]:8000\"]
  models:
  - llama-3-8b
  - name: assistant
    criticality: Critical
    targets: [{name: llama-3-8b, weight: 3}, {name: lora-b, weight: 1}]
- name: code
  endpoints: [\"http://model.example.com\"]
  models: [qwen]
  profile: leastRequests
  saturationSeconds: 2.5
  queue: {requests: 10, seconds: 5, bytes: 1048576}
";

const WITH_TLS: &str = "
listen: 127.0.0.1:4100
tls: {certificate: c.pem, key: k.pem, clientCa: clients.pem}
clientCertificate: me.pem
pools:
- {name: chat, endpoints: [\"https://a.example\", \"https://a.example:8443\"], ca: ca.pem}
- {name: code, endpoints: [\"https://b.example\"], models: [qwen]}
";

#[test]
fn tls_is_said_by_references_to_files() {
    let attached = decode(WITH_TLS).into_iter().map(|object| {
        crate::attach(object, |path| {
            let block =
                |kind: &str| format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n");
            let text = match path {
                "k.pem" => block("PRIVATE KEY"),
                "me.pem" => block("CERTIFICATE") + &block("PRIVATE KEY"),
                _ => block("CERTIFICATE"),
            };
            Some(text)
        })
    });
    let objects: Objects = attached.collect();
    let compiled = compile(&objects);
    let problems = compiled.statuses.problems();
    assert!(problems.is_empty(), "{}", compiled.statuses);
    let snapshot = &compiled.snapshot;
    let listener = &snapshot.binds[0].listeners[0];
    let tls = listener.tls.as_ref().unwrap();
    assert_eq!(tls.certificates.len(), 1);
    assert!(tls.client_certificates.as_ref().unwrap().required);
    let of_pool = |name: &str| {
        let pool = &snapshot.pools[&crate::ObjectName::new("default", name)];
        pool.tls.clone().unwrap()
    };
    let chat = of_pool("chat");
    assert_eq!(&*chat.hostname, "a.example");
    assert!(matches!(&chat.ca, crate::TrustedCa::Pem(_)));
    assert!(chat.client_certificate.is_some());
    assert_eq!(of_pool("code").ca, crate::TrustedCa::System);
    // Without the files nothing is served, and nothing is sent without TLS.
    let objects: Objects = decode(WITH_TLS).into_iter().collect();
    let compiled = compile(&objects);
    assert!(compiled.snapshot.binds.is_empty());
    assert!(
        compiled.statuses.problems().len() >= 3,
        "{}",
        compiled.statuses
    );
}

#[test]
fn the_export_compiles_to_the_same() {
    for text in [
        TWO_POOLS,
        "pools: [{name: a, endpoints: [\"http://localhost:8000\"]}]",
        WITH_TLS,
    ] {
        let objects: Objects = decode(text).into_iter().collect();
        let exported = export(objects.all());
        let again: Objects = decode(&exported).into_iter().collect();
        assert_eq!(compile(&again).snapshot, compile(&objects).snapshot);
        assert_eq!(export(again.all()), exported);
        for pool in compile(&objects).snapshot.pools.keys() {
            assert_eq!(crate::members(&again, pool), crate::members(&objects, pool));
        }
    }
}

#[test]
fn everything_that_was_said_arrives() {
    let objects: Objects = decode(TWO_POOLS).into_iter().collect();
    let compiled = compile(&objects);
    assert_eq!(
        compiled.statuses.problems().len(),
        0,
        "{}",
        compiled.statuses
    );
    let snapshot = &compiled.snapshot;
    assert_eq!(snapshot.binds[0].address.to_string(), "127.0.0.1");
    assert_eq!(snapshot.binds[0].port, 4100);
    assert!(snapshot.binds[0].listeners[0].trust_inference_headers);
    let code = &snapshot.pools[&crate::ObjectName::new("default", "code")].picker;
    assert_eq!(code.profile, picker::Profile::LeastRequests);
    assert_eq!(code.saturation_seconds, 2.5);
    let queue = (
        code.queue.requests,
        code.queue.wait_seconds,
        code.queue.bytes,
    );
    assert_eq!(queue, (10, 5.0, 1 << 20));
    let chat = &snapshot.pools[&crate::ObjectName::new("default", "chat")];
    let resolved = chat.picker.models.resolve("assistant", None, false);
    assert_eq!((resolved.priority, resolved.targets.len()), (1, 2));
    // A name alone is as good as any: it must not be shed because its neighbour says more.
    assert_eq!(
        chat.picker
            .models
            .resolve("llama-3-8b", None, false)
            .priority,
        0
    );
    let names = |pool: &str| -> Vec<String> {
        let pool = crate::ObjectName::new("default", pool);
        crate::members(&objects, &pool)
            .into_iter()
            .map(|member| member.name)
            .collect()
    };
    assert_eq!(
        names("chat"),
        ["10.0.0.1:8000", "10.0.0.2:8001", "[::1]:8000"]
    );
    assert_eq!(names("code"), ["model.example.com:80"]);
}

#[test]
fn models_tell_pools_apart_and_the_rest_goes_to_one() {
    use crate::table::tests::Request;
    for (text, model, pool) in [
        (TWO_POOLS, Some("qwen"), "default/code"),
        (TWO_POOLS, Some("assistant"), "default/chat"),
        (TWO_POOLS, Some("unheard-of"), "default/chat"),
        (TWO_POOLS, None, "default/chat"),
        (
            "pools: [{name: a, endpoints: [\"http://a.b:1\"], models: [m]}, \
             {name: rest, endpoints: [\"http://a.b:2\"]}]",
            Some("other"),
            "default/rest",
        ),
        (
            "pools: [{name: a, endpoints: [\"http://a.b:1\"], models: [m]}, \
             {name: rest, endpoints: [\"http://a.b:2\"]}]",
            Some("m"),
            "default/a",
        ),
    ] {
        let objects: Objects = decode(text).into_iter().collect();
        let snapshot = compile(&objects).snapshot;
        let mut request = Request::get("localhost", "/v1/chat/completions");
        request
            .headers
            .extend(model.map(|model| ("x-gateway-model-name".to_owned(), model.to_owned())));
        let crate::RouteMatch::Found { rule, .. } = snapshot.binds[0].route(&request) else {
            panic!("no route for {model:?}");
        };
        let crate::Target::Pool(found) = &rule.choose(0).unwrap().target else {
            panic!("no pool for {model:?}");
        };
        assert_eq!(found.name.to_string(), pool, "{model:?}");
    }
}

#[test]
fn urls_of_endpoints_are_host_and_port() {
    for (text, read) in [
        ("http://10.0.0.1:8000", Ok("http://10.0.0.1:8000")),
        ("http://10.0.0.1", Ok("http://10.0.0.1:80")),
        ("http://[fd00::1]:8000/", Ok("http://[fd00::1]:8000")),
        (
            "http://vllm.models.svc:8000",
            Ok("http://vllm.models.svc:8000"),
        ),
        ("https://10.0.0.1", Ok("https://10.0.0.1:443")),
        ("https://a:8443", Ok("https://a:8443")),
        (
            "10.0.0.1:8000",
            Err("the url must start with http:// or https://"),
        ),
        ("http://10.0.0.1:0", Err("the port must be 1 to 65535")),
        ("http://:8000", Err("the url has no usable host")),
        (
            "http://a/v1",
            Err("the url must have a host and a port only, without path or user"),
        ),
        (
            "http://u@a",
            Err("the url must have a host and a port only, without path or user"),
        ),
    ] {
        let url = super::EndpointUrl::parse(text).map(|url| url.to_string());
        assert_eq!(url.as_deref().map_err(|why| *why), read, "{text}");
    }
}
