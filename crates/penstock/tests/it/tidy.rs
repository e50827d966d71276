//! House rules that no lint knows: file sizes, headers, arrows between crates, words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Lines of a file without its tests, and with them.
const MOST_LINES: usize = 500;
const MOST_LINES_WITH_TESTS: usize = 800;

/// Who may depend on whom; nothing else of ours (ARCHITECTURE.md).
const ARROWS: &[(&str, &[&str])] = &[
    ("http1", &[]),
    ("llm", &[]),
    ("picker", &[]),
    ("config", &["picker"]),
    ("sim", &["picker", "llm"]),
    ("mock", &["sim", "llm"]),
    ("proxy", &["http1", "picker", "llm", "config"]),
    ("control", &["config"]),
    ("bench", &[]),
    (
        "penstock",
        &[
            "http1", "llm", "picker", "config", "sim", "mock", "proxy", "control",
        ],
    ),
];

/// What pure crates never import: same input, same output, on every platform.
const PURE: &[&str] = &["http1", "llm", "picker", "config", "sim"];
const IMPURE: &[&str] = &[
    "tokio",
    "hyper",
    "tonic",
    "kube::",
    "std::net::Tcp",
    "std::net::Udp",
    "std::thread",
    "std::fs",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "Instant::now",
    "SystemTime::now",
    "rand::rng",
    "rand::random",
    "thread_rng",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.')
                && !["target", "recorded", "corpus", "node_modules"].contains(&&*name)
            {
                files(&path, ending, found);
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
}

fn sources() -> BTreeMap<String, String> {
    let mut found = Vec::new();
    files(&root().join("crates"), ".rs", &mut found);
    let root = root();
    found
        .into_iter()
        .map(|path| {
            let name = path
                .strip_prefix(&root)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/")
}

#[track_caller]
fn none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn files_are_short() {
    let mut problems = Vec::new();
    for (name, text) in sources() {
        let all = text.lines().count();
        let code = text
            .find("#[cfg(test)]")
            .map_or(all, |at| text[..at].lines().count());
        let most = if is_test(&name) {
            MOST_LINES_WITH_TESTS
        } else {
            MOST_LINES
        };
        if (code > most || all > MOST_LINES_WITH_TESTS) && !text.contains("// tidy: allow-long: ") {
            problems.push(format!("{name}: {code} lines of code, {all} in all"));
        }
    }
    none(problems);
}

#[test]
fn files_say_what_they_are() {
    let headless = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!") && !text.starts_with("#!"))
        .map(|(name, _)| format!("{name} does not begin with //!"));
    none(headless.collect());
}

#[test]
fn modules_are_files_beside_their_folder() {
    none(
        sources()
            .into_keys()
            .filter(|name| name.ends_with("/mod.rs"))
            .collect(),
    );
}

#[test]
fn crates_depend_as_the_map_says() {
    let ours: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let mut problems = Vec::new();
    for (name, allowed) in ARROWS {
        let manifest = root().join("crates").join(name).join("Cargo.toml");
        let text = std::fs::read_to_string(manifest).unwrap();
        let section = text.split("[dependencies]").nth(1).unwrap_or("");
        let section = section.split("\n[").next().unwrap_or("");
        for line in section.lines() {
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or("");
            if ours.contains(&dependency) && !allowed.contains(&dependency) {
                problems.push(format!("{name} may not depend on {dependency}"));
            }
        }
    }
    none(problems);
}

#[test]
fn pure_crates_stay_pure() {
    let mut problems = Vec::new();
    for (name, text) in sources() {
        let pure = PURE
            .iter()
            .any(|pure| name.starts_with(&format!("crates/{pure}/src/")));
        if !pure || is_test(&name) {
            continue;
        }
        let code = text.find("#[cfg(test)]").map_or(&*text, |at| &text[..at]);
        for line in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            for banned in IMPURE.iter().filter(|banned| line.contains(**banned)) {
                problems.push(format!("{name}: `{banned}` in: {}", line.trim()));
            }
        }
    }
    none(problems);
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let marks = [
        "TO".to_owned() + "DO",
        "FIX".to_owned() + "ME",
        "allow(dead_".to_owned() + "code)",
    ];
    let mut problems = Vec::new();
    for (name, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                problems.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none(problems);
}

#[test]
fn the_map_is_short() {
    let map = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    assert!(map.lines().count() <= 250);
}
