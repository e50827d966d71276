//! `penstock doctor`: a request down every route, and the hop that failed.

use crate::certificates::Authority;
use crate::configured::{Configured, GATEWAY, pool, route, service, to_pool};
use crate::gateway::{free_address, get, penstock, wait_until};
use crate::servers::{Server, json};
use serde_json::Value;
use std::net::{SocketAddr, TcpListener};

/// Its findings by route, and its exit code.
fn doctor(admin: SocketAddr) -> (Vec<Value>, Option<i32>) {
    let url = format!("http://{admin}");
    let args = [
        "doctor",
        "--admin",
        &url,
        "--output",
        "json",
        "--timeout",
        "5s",
    ];
    let output = penstock(&args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let findings = json(&text);
    (findings.as_array().unwrap().clone(), output.status.code())
}

#[track_caller]
fn of<'a>(findings: &'a [Value], route: &str) -> &'a Value {
    let is_of = |one: &&Value| one["what"].as_str().unwrap().contains(route);
    findings.iter().find(is_of).expect(route)
}

fn matched(path: &str, rest: &str) -> String {
    format!("rules: [{{matches: [{{path: {{value: {path}}}{rest}}}], backendRefs: ")
}

#[test]
fn a_healthy_gateway_has_nothing_to_tell() {
    let server = Server::llama();
    let text = GATEWAY.to_owned()
        + &route(
            "chat",
            &format!("rules: [{{backendRefs: [{}]}}]", to_pool("chat")),
        )
        + &route("web", &(matched("/web", "") + "[{name: web, port: 80}]}]"))
        + &pool("chat", "", &[server.address])
        + &service("web", &[server.address]);
    let gateway = Configured::start(&text);
    wait_until(|| {
        get(gateway.address, "/v1/models")
            .unwrap()
            .body
            .contains("llama")
    });
    let (findings, code) = doctor(gateway.admin);
    assert_eq!(code, Some(0), "{findings:?}");
    assert_eq!(findings.len(), 2);
    let chat = &of(&findings, "route default/chat")["said"];
    let answered = format!("200 by {}", server.address);
    assert!(chat.as_str().unwrap().starts_with(&answered), "{chat}");
    assert_eq!(server.count(), 2, "real requests");
    // For people.
    let url = format!("http://{}", gateway.admin);
    let output = penstock(&["doctor", "--admin", &url]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| line.starts_with("ok ")), "{text}");
}

#[test]
fn the_hop_that_fails_is_named_with_a_remedy() {
    let server = Server::llama();
    let dead = free_address();
    let named = ", headers: [{name: X-Gateway-Model-Name, value: unheard-of}]";
    let pools = ["dead", "empty"];
    let mut text = GATEWAY.to_owned()
        + &route(
            "fine",
            &(matched("/v1", "") + &format!("[{}]}}]", to_pool("fine"))),
        )
        + &route(
            "model",
            &(matched("/v1", named) + &format!("[{}]}}]", to_pool("fine"))),
        )
        + &route(
            "gone",
            &(matched("/gone", "") + "[{name: gone, port: 80}]}]"),
        )
        + &route(
            "regex",
            &(matched("'/x[0-9]+/y', type: RegularExpression", "") + "[{name: gone, port: 80}]}]"),
        )
        + &pool("fine", "", &[server.address])
        + &pool("dead", "", &[dead])
        + &pool("empty", "", &[]);
    for name in pools {
        // Not the chat path: a plain request goes down these.
        let rule = matched(&format!("/{name}"), "") + &format!("[{}]}}]", to_pool(name));
        text += &route(name, &rule);
    }
    let gateway = Configured::start(&text);
    wait_until(|| {
        get(gateway.address, "/v1/models")
            .unwrap()
            .body
            .contains("llama")
    });
    let (findings, code) = doctor(gateway.admin);
    assert_eq!(code, Some(1), "{findings:?}");
    for (name, hop) in [
        ("fine", None),
        ("model", Some("model")),
        ("gone", Some("route")),
        ("dead", Some("endpoint")),
        ("empty", Some("pool")),
        ("regex", Some("route")),
    ] {
        let finding = of(&findings, &format!("route default/{name} "));
        assert_eq!(finding["hop"].as_str(), hop, "{finding}");
        assert_eq!(finding["remedy"].is_string(), hop.is_some(), "{finding}");
    }
}

#[test]
fn listeners_with_tls_are_asked_over_tls() {
    let server = Server::llama();
    let listener = |name: &str, secret: &str| {
        format!(
            "{{name: {name}, port: PORT, protocol: HTTPS, hostname: {name}.example, \
            tls: {{certificateRefs: [{{name: {secret}}}]}}}}"
        )
    };
    let listeners = [listener("right", "right"), listener("wrong", "right")];
    let gateway = GATEWAY.replace(
        "{name: http, port: PORT, protocol: HTTP}",
        &listeners.join(", "),
    );
    assert_ne!(gateway, GATEWAY);
    let text = gateway
        + &Authority::new().sign(&["right.example"]).secret("right")
        + &route(
            "chat",
            &format!("rules: [{{backendRefs: [{}]}}]", to_pool("chat")),
        )
        + &pool("chat", "", &[server.address]);
    let gateway = Configured::start(&text);
    wait_until(|| {
        doctor(gateway.admin)
            .0
            .iter()
            .any(|one| one["hop"].is_null())
    });
    let (findings, code) = doctor(gateway.admin);
    assert_eq!(code, Some(1), "{findings:?}");
    let right = of(&findings, "listener right ");
    let answered = format!("200 by {}", server.address);
    assert!(
        right["said"].as_str().unwrap().starts_with(&answered),
        "{right}"
    );
    let wrong = of(&findings, "listener wrong ");
    assert_eq!(wrong["hop"], "listener", "{wrong}");
    assert!(
        wrong["said"].as_str().unwrap().contains("wrong.example"),
        "{wrong}"
    );
}

#[test]
fn a_listener_that_another_program_has_is_named() {
    let server = Server::llama();
    let rule = format!("rules: [{{backendRefs: [{}]}}]", to_pool("chat"));
    let text = GATEWAY.to_owned() + &route("chat", &rule) + &pool("chat", "", &[server.address]);
    let gateway = Configured::start(&text);
    // A second listener, on a port where something else hangs up on everybody.
    let other = TcpListener::bind(free_address()).unwrap();
    let port = other.local_addr().unwrap().port();
    std::thread::spawn(move || other.incoming().for_each(drop));
    let two = format!("{{name: other, port: {port}, protocol: HTTP}}]");
    let listeners = "protocol: HTTP}]";
    gateway.apply(&text.replace(listeners, &format!("protocol: HTTP}}, {two}")));
    let (findings, code) = doctor(gateway.admin);
    assert_eq!(code, Some(1), "{findings:?}");
    assert_eq!(of(&findings, "listener http ")["hop"], Value::Null);
    assert_eq!(of(&findings, "listener other ")["hop"], "listener");
}

#[test]
fn without_a_gateway_it_says_so() {
    let url = format!("http://{}", free_address());
    let output = penstock(&["doctor", "--admin", &url]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("no gateway answers on"), "{text}");
}
