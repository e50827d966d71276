//! Requests that a pool's policy keeps to some of its members, by their labels: what an external
//! picker is told, whom the built-in one chooses, and what happens when those members go or change.

use crate::configured::{Configured, GATEWAY, pool, route, slice, to_pool};
use crate::external::epp;
use crate::gateway::{Answer, free_address, post_with, wait_until};
use crate::picker::{By, Kept, Picker, Play};
use std::collections::BTreeSet;
use std::net::SocketAddr;

const PATH: &str = "/anything";
const CANARY: &[(&str, &str)] = &[("x-tier", "canary")];

/// Canaries for who asks for them, else those of a zone.
const BY_TIER_THEN_ZONE: &str = "[{matchLabels: {tier: canary}, headers: [{name: X-Tier, value: canary}]}, \
    {matchLabels: {topology.kubernetes.io/zone: near}}]";

/// A policy of the pool `chat` with these subsets.
pub(crate) fn policy(subsets: &str) -> String {
    format!(
        "---\napiVersion: penstock.dev/v1alpha1\nkind: PoolPolicy\nmetadata: {{name: chat}}\nspec:\n  \
        targetRefs: [{{group: inference.networking.k8s.io, kind: InferencePool, name: chat}}]\n  \
        subsets: {subsets}\n"
    )
}

/// The pool `chat`, whose members have these labels besides `app`; `rest` stands in its spec.
fn labelled(rest: &str, members: &[(SocketAddr, &str)]) -> String {
    let ports: Vec<String> = members
        .iter()
        .map(|(address, _)| format!("{{number: {}}}", address.port()))
        .collect();
    let whole = pool("chat", rest, &[]);
    let mut text = whole.replace("{number: 8000}", &ports.join(", "));
    for (index, (address, labels)) in members.iter().enumerate() {
        let labels = format!("app: chat{labels}");
        text.push_str(&slice(&format!("chat-{index}"), &labels, *address));
    }
    text
}

fn to_chat() -> String {
    let rules = format!("rules: [{{backendRefs: [{}]}}]", to_pool("chat"));
    GATEWAY.to_owned() + &route("chat", &rules)
}

const PICKED: &str =
    ", endpointPickerRef: {name: epp, port: {number: 9002}, failureMode: FailOpen}";

fn told(picker: &Picker) -> BTreeSet<String> {
    picker.seen.subset.lock().unwrap().iter().cloned().collect()
}

fn texts(addresses: &[SocketAddr]) -> BTreeSet<String> {
    addresses.iter().map(SocketAddr::to_string).collect()
}

fn ask(gateway: &Configured, fields: &[(&str, &str)]) -> Answer {
    let answer = post_with(gateway.address, PATH, "hello", fields);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// Who answers 12 requests.
fn served(gateway: &Configured, fields: &[(&str, &str)]) -> BTreeSet<String> {
    (0..12).map(|_| ask(gateway, fields).body).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_picker_is_told_the_members_that_a_request_is_kept_to() {
    let picker = Picker::start(Play::Hang);
    let servers = ["one", "two", "three", "four"].map(Kept::start);
    let [one, two, three, four] = [0, 1, 2, 3].map(|index: usize| servers[index].address);
    let near = ", topology.kubernetes.io/zone: near";
    let members = [
        (one, ", tier: canary"),
        (two, near),
        (three, near),
        (four, ""),
    ];
    let text = to_chat() + &labelled(PICKED, &members) + &epp(&[picker.address], "");
    let gateway = Configured::start(&(text.clone() + &policy(BY_TIER_THEN_ZONE)));
    picker.plays(Play::Pick(four.to_string(), By::Both));
    // Who is picked is up to the picker, as long as it is a member.
    assert_eq!(ask(&gateway, CANARY).body, "four");
    assert_eq!(told(&picker), texts(&[one]));
    ask(&gateway, &[]);
    assert_eq!(told(&picker), texts(&[two, three]));
    ask(&gateway, &[("x-tier", "other")]);
    assert_eq!(told(&picker), texts(&[two, three]));
    // An entry without members does not count; when none counts, nothing is told.
    gateway.apply(
        &(text.clone() + &policy("[{matchLabels: {tier: gone}}, {matchLabels: {tier: canary}}]")),
    );
    ask(&gateway, &[]);
    assert_eq!(told(&picker), texts(&[one]));
    for none in ["[{matchLabels: {tier: gone}}]", "[]"] {
        gateway.apply(&(text.clone() + &policy(none)));
        ask(&gateway, CANARY);
        assert!(told(&picker).is_empty(), "{none}");
    }
    // A route may say it for its requests.
    let set = "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-tier, value: canary}]}}], backendRefs";
    gateway.apply(&(text.replace("backendRefs", set) + &policy(BY_TIER_THEN_ZONE)));
    ask(&gateway, &[]);
    assert_eq!(told(&picker), texts(&[one]));
}

#[test]
fn members_that_are_held_for_broken_leave_their_subset_and_an_empty_one_does_not_count() {
    let picker = Picker::start(Play::Hang);
    let servers = ["one", "two"].map(Kept::start);
    let [one, two] = [servers[0].address, servers[1].address];
    let (dead, broken) = (free_address(), free_address());
    let canary = ", tier: canary";
    let members = [
        (dead, canary),
        (one, canary),
        (broken, ", tier: old"),
        (two, ""),
    ];
    let text = to_chat() + &labelled(PICKED, &members) + &epp(&[picker.address], "");
    let old = "{matchLabels: {tier: old}, headers: [{name: x-tier, value: old}]}";
    let gateway = Configured::start(
        &(text + &policy(&format!("[{old}, {{matchLabels: {{tier: canary}}}}]"))),
    );
    let asked = |fields: &[(&str, &str)]| {
        post_with(gateway.address, PATH, "hello", fields);
        told(&picker)
    };
    picker.plays(Play::Pick(dead.to_string(), By::Both));
    assert_eq!(asked(&[]), texts(&[dead, one]));
    wait_until(|| asked(&[]) == texts(&[one]));
    picker.plays(Play::Pick(broken.to_string(), By::Both));
    // The only member of its subset: the next entry counts.
    wait_until(|| asked(&[("x-tier", "old")]) == texts(&[one]));
}

#[test]
fn the_built_in_picker_keeps_to_the_same_members() {
    let servers = ["one", "two", "three", "four"].map(Kept::start);
    let addresses = [0, 1, 2, 3].map(|index: usize| servers[index].address);
    let near = ", topology.kubernetes.io/zone: near";
    let members: Vec<_> = addresses
        .into_iter()
        .zip([", tier: canary", near, near, ""])
        .collect();
    // Whether it is the pool's picker, or stands in for one that does not pick.
    let picker = Picker::start(Play::Fail("no"));
    let failing = labelled(PICKED, &members) + &epp(&[picker.address], "");
    for pool in [labelled("", &members), failing] {
        let gateway = Configured::start(&(to_chat() + &pool + &policy(BY_TIER_THEN_ZONE)));
        assert_eq!(served(&gateway, CANARY), names(&["one"]));
        assert_eq!(served(&gateway, &[]), names(&["two", "three"]));
        gateway.apply(&(to_chat() + &pool));
        assert_eq!(
            served(&gateway, CANARY),
            names(&["one", "two", "three", "four"])
        );
    }
}

#[test]
fn a_request_leaves_a_subset_in_which_nobody_is_left_to_try() {
    let other = Kept::start("other");
    let dead = free_address();
    let members = [(dead, ", tier: canary"), (other.address, "")];
    let text = to_chat() + &labelled("", &members) + &policy(BY_TIER_THEN_ZONE);
    let gateway = Configured::start(&text);
    assert_eq!(served(&gateway, CANARY), names(&["other"]));
}
