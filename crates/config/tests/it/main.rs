//! Whole configurations: each file of `tests/cases` with its snapshot, statuses and errors beside
//! it in `tests/it/snapshots`.

use std::fmt::Write;
use std::path::Path;

use config::{Member, Objects, compile, members, yaml};

/// What a person wants to know of a case: errors, problems with their places, routes and members.
fn describe(text: &str) -> String {
    let decoded = yaml::decode("case.yaml", text);
    let mut out = String::new();
    for error in &decoded.errors {
        let _ = writeln!(out, "error: {error}");
    }
    for warning in &decoded.warnings {
        let _ = writeln!(out, "warning: {warning}");
    }
    let objects: Objects = decoded.objects.into_iter().collect();
    let compiled = compile(&objects);
    let _ = write!(out, "{}", compiled.statuses);
    for status in &compiled.statuses.objects {
        for listener in &status.listeners {
            let _ = writeln!(
                out,
                "{} {}: {} attached, kinds {:?}",
                status.name, listener.name, listener.attached_routes, listener.supported_kinds
            );
        }
    }
    for bind in &compiled.snapshot.binds {
        for listener in &bind.listeners {
            let _ = writeln!(
                out,
                "bind {}:{} {} {} trust={}",
                bind.address,
                bind.port,
                listener.gateway,
                listener.hostname,
                listener.trust_inference_headers
            );
            let routes = json(&listener.routes);
            for host in routes.as_array().into_iter().flatten() {
                for entry in host["entries"].as_array().into_iter().flatten() {
                    let _ = writeln!(out, "  {} {}", host["host"], compact(entry));
                }
            }
        }
    }
    for (name, pool) in &compiled.snapshot.pools {
        let _ = writeln!(out, "pool {name} {}", compact(&json(pool)));
        let names: Vec<String> = members(&objects, name).into_iter().map(shown).collect();
        let _ = writeln!(out, "  members {}", names.join(" "));
    }
    for service in compiled.snapshot.services.values() {
        let _ = writeln!(out, "service {}", compact(&json(service)));
    }
    out
}

fn json(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn shown(member: Member) -> String {
    member.name
}

/// JSON without what says nothing.
fn compact(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    let says_nothing = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), compact(value)))
            .filter(|(name, value)| !says_nothing(value) && name != "models_fingerprint")
            .collect(),
        Value::Array(items) => items.iter().map(compact).collect(),
        other => other.clone(),
    }
}

#[test]
fn cases_compile_to_what_stands_beside_them() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 9, "the cases are gone");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, describe(&text)));
    }
}
