//! What `deploy/` installs: definitions and what the controller may do.

use serde_json::Value;
use std::path::Path;

/// The documents of the files of a folder below `deploy`, with their files' names.
fn documents(folder: &str) -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(folder);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let parts = text.split("\n---\n");
        found.extend(parts.map(|part| (name.clone(), serde_saphyr::from_str(part).unwrap())));
    }
    assert!(!found.is_empty());
    found
}

/// Every value below `value` and the path to it.
fn walk(value: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, value);
    match value {
        Value::Object(fields) => {
            let fields = fields.iter();
            fields.for_each(|(key, value)| walk(value, &format!("{path}/{key}"), visit));
        }
        Value::Array(list) => {
            let list = list.iter().enumerate();
            list.for_each(|(index, value)| walk(value, &format!("{path}/{index}"), visit));
        }
        _ => {}
    }
}

#[test]
fn nobody_may_do_everything() {
    let mut roles = 0;
    for (file, document) in documents("kustomize") {
        let kind = document["kind"].as_str().unwrap();
        roles += usize::from(["Role", "ClusterRole"].contains(&kind));
        walk(&document, &file, &mut |path, value| {
            let text = value.as_str().unwrap_or_default();
            assert!(!text.contains('*'), "{path}: {text}");
        });
        if kind.ends_with("Binding") {
            assert_eq!(document["roleRef"]["name"], "penstock-controller", "{file}");
        }
        let rules = document["rules"].as_array().into_iter().flatten();
        for rule in rules {
            for field in ["apiGroups", "resources", "verbs"] {
                assert!(
                    rule[field].as_array().is_some_and(|list| !list.is_empty()),
                    "{rule}"
                );
            }
            // Neither other roles nor identities.
            let verbs = rule["verbs"].as_array().unwrap();
            for verb in ["bind", "escalate", "impersonate", "deletecollection"] {
                assert!(verbs.iter().all(|one| one != verb), "{rule}");
            }
        }
    }
    assert_eq!(roles, 2, "one for the cluster, one for its own namespace");
}

#[test]
fn weights_of_models_may_be_0() {
    let mut seen = Vec::new();
    for (file, document) in documents("crds") {
        walk(&document, &file, &mut |path, value| {
            if !path.ends_with("/properties/weight") {
                return;
            }
            assert_eq!(value["type"], "integer", "{path}");
            assert_eq!(value["minimum"], 0, "{path}");
            assert_eq!(value.get("exclusiveMinimum"), None, "{path}");
            seen.push(file.clone());
        });
        // Rules about weights ask whether there is one, never how much it is.
        walk(&document, &file, &mut |path, value| {
            let rule = value.as_str().filter(|_| path.ends_with("/rule"));
            let rule = rule
                .filter(|rule| rule.contains("weight"))
                .unwrap_or_default();
            assert!(
                !rule.contains(['<', '>']) && !rule.contains("weight ="),
                "{path}: {rule}"
            );
        });
    }
    seen.sort();
    let wanted = [
        "inference.networking.x-k8s.io_inferencemodelrewrites.yaml",
        "inference.networking.x-k8s.io_inferencemodels.yaml",
        "llm-d.ai_inferencemodelrewrites.yaml",
    ];
    assert_eq!(seen, wanted);
}
