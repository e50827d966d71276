//! The reference pages say what the code does: metrics are compared with a live scrape, errors and
//! refusals with the tables that they come from.

use crate::configured::{Configured, GATEWAY, pool, route, service, to_pool};
use crate::gateway::{free_address, get, mock, post, wait_until};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn text(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(name)).unwrap()
}

/// Rows of Markdown tables whose first cell is code: all cells, without back-quotes.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter(|line| line.starts_with("| `"));
    let cells = |line: &str| {
        let cells = line.trim().trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().replace('`', "")).collect()
    };
    lines.map(cells).collect()
}

/// Every metric of a scrape as a row of the page: name, type, labels, meaning.
fn scraped(text: &str) -> String {
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let mut helps: BTreeMap<&str, &str> = BTreeMap::new();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|it| it.split_once(' '))
        {
            kinds.insert(name, kind);
        } else if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|it| it.split_once(' '))
        {
            helps.insert(name, help.trim_end_matches('.'));
        } else if let Some((sample, inside)) = line.split_once('{') {
            let names = inside
                .split("=\"")
                .filter_map(|part| part.rsplit([',', '"']).next());
            let names = names.filter(|name| !name.contains([' ', '}']) && *name != "le");
            labels.entry(sample).or_default().extend(names);
        }
    }
    let mut page = String::new();
    for (name, kind) in kinds {
        let suffixes = ["", "_total", "_bucket"];
        let of: BTreeSet<&str> = suffixes
            .iter()
            .filter_map(|suffix| labels.get(format!("{name}{suffix}").as_str()))
            .flatten()
            .copied()
            .filter(|label| !label.is_empty())
            .collect();
        let of: Vec<&str> = of.into_iter().collect();
        let shown = if kind == "counter" {
            format!("{name}_total")
        } else {
            name.to_owned()
        };
        page.push_str(&format!(
            "| `{shown}` | {kind} | {} | {} |\n",
            of.join(", "),
            helps[name]
        ));
    }
    page
}

#[test]
fn the_page_of_metrics_lists_what_is_scraped() {
    let (_server, server) = mock(&["--model", "llama"]);
    let nobody = free_address();
    let reference = ", endpointPickerRef: {name: epp, port: {number: 80}, failureMode: FailOpen}";
    let rules = format!("rules: [{{backendRefs: [{}]}}]", to_pool("chat"));
    let gateway = Configured::start(&format!(
        "{GATEWAY}{}{}{}",
        route("chat", &rules),
        pool("chat", reference, &[server]),
        service("epp", &[nobody])
    ));
    let chat = r#"{"model":"llama","stream":true,"max_tokens":3,"messages":[{"role":"user","content":"hi"}]}"#;
    assert_eq!(
        post(gateway.address, "/v1/chat/completions", chat).status,
        200
    );
    let scrape = || get(gateway.admin, "/metrics").unwrap().body;
    wait_until(|| scrape().contains("penstock_requests_total{"));
    let live = scraped(&scrape());
    let page = text("docs/metrics.md");
    let written: String = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(
        written == live,
        "docs/metrics.md should have these rows:\n{live}"
    );
}

#[test]
fn limits_that_can_be_set_are_listed() {
    let page = text("docs/http.md");
    let page = page.split("## Limits").nth(1).unwrap();
    let table = page.split("\n\n").nth(1).unwrap();
    let listed: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.split('|').nth(3)?.split('`').nth(1))
        .collect();
    let known: Vec<&str> = proxy::NAMED_LIMITS.iter().map(|limit| limit.name).collect();
    assert_eq!(listed.len(), known.len());
    assert_eq!(listed, known.into_iter().collect());
}

/// Status, code, side and retry of each row of the failure table.
fn failures() -> BTreeSet<[String; 4]> {
    let source = text("crates/proxy/src/failure.rs");
    let table = source
        .split("let (status, code, kind, side, retry) = match self {")
        .nth(1);
    let table = table.unwrap().split("};").next().unwrap();
    let rows = table.split("=> (").skip(1).map(|row| {
        let cells: Vec<&str> = row
            .split(')')
            .next()
            .unwrap()
            .split(',')
            .map(str::trim)
            .collect();
        let [status, code, _, side, retry] = cells[..] else {
            unreachable!("{row}")
        };
        [code.trim_matches('"'), status, side, retry].map(str::to_lowercase)
    });
    rows.collect()
}

#[test]
fn the_page_of_errors_has_every_row_of_the_failure_table() {
    let page: BTreeSet<[String; 4]> = rows(&text("docs/errors.md"))
        .into_iter()
        .filter_map(|cells| <[String; 5]>::try_from(cells).ok())
        .map(|[code, status, side, retry, _]| [code, status, side, retry])
        .collect();
    // The status and code of what a parser refuses are the parser's.
    let table: BTreeSet<_> = failures()
        .into_iter()
        .filter(|row| row[0] != "code")
        .collect();
    assert!(table.len() > 15, "{table:?}");
    assert_eq!(page, table);
}

#[test]
fn refusals_are_listed_with_their_status() {
    let source = text("crates/http1/src/refusal.rs");
    let list = source.split("refusals! {").nth(1).unwrap();
    let words: Vec<&str> = list.split_whitespace().collect();
    let of_http: BTreeSet<(String, String)> = words
        .windows(3)
        .filter(|words| words[0] == "=" && words[1].parse::<u16>().is_ok())
        .map(|words| (words[2].trim_matches('"').to_owned(), words[1].to_owned()))
        .collect();
    assert!(of_http.len() > 25, "{of_http:?}");
    let listed: BTreeSet<(String, String)> = rows(&text("docs/http.md"))
        .into_iter()
        .filter(|cells| cells.len() == 3)
        .map(|cells| (cells[0].clone(), cells[1].clone()))
        .collect();
    assert_eq!(listed, of_http);

    let source = text("crates/llm/src/peek.rs");
    let codes = source.split("pub fn code(&self)").nth(1).unwrap();
    let codes = codes.split("\n    }\n").next().unwrap();
    let page = text("docs/errors.md");
    let codes: Vec<&str> = codes.split('"').skip(1).step_by(2).collect();
    assert!(codes.len() > 5, "{codes:?}");
    for code in codes {
        assert!(
            page.contains(&format!("| `{code}` |")),
            "{code} is not in docs/errors.md"
        );
    }
}

#[test]
fn every_promise_names_a_test_that_is_there() {
    let page = text("docs/promises.md");
    let mut named = 0;
    for link in page.split("[`").skip(1) {
        let (test, rest) = link.split_once("`](../").unwrap();
        let (module, function) = test.split_once("::").unwrap();
        let file = rest.split(')').next().unwrap();
        assert!(file.ends_with(&format!("/{module}.rs")), "{test}: {file}");
        let is_there = text(file).contains(&format!("#[test]\nfn {function}() {{"));
        assert!(is_there, "no test {function} in {file}");
        named += 1;
    }
    assert!(named > 40, "{named}");
}
