//! Filters of routes that few have: CORS, mirrors, and retries that a route sets.

use crate::configured::{Configured, GATEWAY, pool, route, service, to_pool};
use crate::gateway::wait_until;
use crate::scripted::{counting, echo};
use std::sync::atomic::Ordering;

fn rules(filters: &str) -> String {
    format!("rules: [{{{filters}, backendRefs: [{{name: web, port: 80}}]}}]")
}

#[test]
fn a_page_of_another_origin_may_do_what_its_route_says() {
    let cors = rules(
        "filters: [{type: CORS, cors: {allowOrigins: ['https://*.bar.com'], allowMethods: [GET], \
        allowHeaders: ['*'], exposeHeaders: [x-from], allowCredentials: true, maxAge: 60}}]",
    );
    let text = format!(
        "{GATEWAY}{}{}",
        route("web", &cors),
        service("web", &[echo("web")])
    );
    let gateway = Configured::start(&text);
    let preflight = |origin: &str| {
        let origin = format!("origin: {origin}");
        let fields = [
            origin.as_str(),
            "access-control-request-method: GET",
            "access-control-request-headers: x-one, x-two",
        ];
        gateway.ask("OPTIONS", "test.example", "/", &fields)
    };
    let may = preflight("https://www.bar.com");
    assert_eq!((may.status, may.body.as_str()), (204, ""));
    for (name, value) in [
        ("access-control-allow-origin", "https://www.bar.com"),
        ("access-control-allow-methods", "GET"),
        ("access-control-allow-headers", "x-one, x-two"),
        ("access-control-expose-headers", "x-from"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "60"),
        ("vary", "Origin"),
    ] {
        assert_eq!(may.field(name), Some(value), "{name}");
    }
    let may_not = preflight("https://bar.com.evil.org");
    assert_eq!(may_not.status, 204);
    assert_eq!(may_not.field("access-control-allow-origin"), None);

    for (origin, told) in [("https://a.b.bar.com", true), ("https://bar.com", false)] {
        let field = format!("origin: {origin}");
        let answer = gateway.ask("GET", "test.example", "/", &[&field]);
        assert_eq!(answer.field("x-from"), Some("web"), "the backend is asked");
        let allowed = answer.field("access-control-allow-origin");
        assert_eq!(allowed, told.then_some(origin));
    }
    // Without the method it asks about, it is an ordinary request, and without an origin too.
    let options = gateway.ask("OPTIONS", "test.example", "/", &["origin: https://bar.com"]);
    assert_eq!(options.field("x-from"), Some("web"));
    assert_eq!(gateway.get("/").field("access-control-allow-origin"), None);
}

#[test]
fn a_copy_of_each_request_goes_to_the_mirror_and_its_answer_nowhere() {
    let (mirror, seen) = counting("mirror", |_| 500);
    let filters = rules(
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: new}]}}, \
        {type: RequestMirror, requestMirror: {backendRef: {name: mirror, port: 80}}}, \
        {type: RequestMirror, requestMirror: {backendRef: {name: nobody, port: 80}, percent: 100}}]",
    );
    let text = format!(
        "{GATEWAY}{}{}{}{}",
        route("web", &filters),
        service("web", &[echo("web")]),
        service("mirror", &[mirror]),
        service("nobody", &[]),
    );
    let gateway = Configured::start(&text);
    for number in 0..20 {
        let answer = gateway.get(&format!("/{number}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.starts_with("web\n"), "{answer:?}");
    }
    wait_until(|| seen.count.load(Ordering::Relaxed) == 20);
    let last = seen.last.lock().unwrap().join("\n");
    assert!(last.contains("x-set: new"), "the edited request: {last}");
    let metrics = crate::gateway::get(gateway.admin, "/metrics").unwrap().body;
    for line in [
        "penstock_mirrored_requests_total 20",
        "penstock_mirrors_dropped_total 20",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
}

#[test]
fn a_mirror_that_answers_nothing_is_left_and_nothing_stays_booked_on_it() {
    // It hangs up on everybody.
    let (mirror, seen) = counting("mirror", |_| 0);
    let copied = format!(
        "filters: [{{type: RequestMirror, requestMirror: {{backendRef: {}}}}}]",
        to_pool("mirror")
    );
    let text = format!(
        "{GATEWAY}{}{}{}",
        route("web", &rules(&copied)),
        service("web", &[echo("web")]),
        pool("mirror", "", &[mirror]),
    );
    let gateway = Configured::start(&text);
    for number in 0..5 {
        assert_eq!(gateway.get(&format!("/{number}")).status, 200);
    }
    wait_until(|| seen.count.load(Ordering::Relaxed) >= 5);
    gateway.is_quiet();
}

#[test]
fn a_route_says_which_answers_are_tried_again_and_how_often() {
    // The first two answers are 503, the third is 200; then again.
    let (server, seen) = counting("web", |number| if number % 3 == 2 { 200 } else { 503 });
    let with = |retry: &str| {
        let rules = rules(&format!("retry: {{{retry}}}"));
        let route = route("web", &rules);
        format!("{GATEWAY}{route}{}", service("web", &[server]))
    };
    let gateway = Configured::start(&with("attempts: 2, codes: [503], backoff: 1ms"));
    let asked = || seen.count.swap(0, Ordering::Relaxed);
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(asked(), 3, "one server, three times");
    gateway.apply(&with("attempts: 1, codes: [503], backoff: 1ms"));
    let last = gateway.get("/");
    assert_eq!(
        (last.status, last.field("x-from")),
        (503, Some("web")),
        "the last answer"
    );
    assert_eq!(asked(), 2);
    gateway.apply(&with("attempts: 5, codes: [500]"));
    assert_eq!(gateway.get("/").status, 503);
    assert_eq!(asked(), 1, "another status is no reason");
}
