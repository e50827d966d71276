//! Every shell block of the README runs as it stands, and every YAML block of the documentation
//! passes `penstock check`.
//!
//! Only addresses differ: the default ports may be taken on the machine that runs the tests.

use crate::gateway::{Running, free_address, get, wait_until};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// The fenced blocks of a Markdown text: language and content.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.trim().strip_prefix("```") {
            let inside = lines.by_ref().take_while(|line| line.trim() != "```");
            let block: Vec<&str> = inside.collect();
            blocks.push((language.to_owned(), block.join("\n") + "\n"));
        }
    }
    blocks
}

/// A place where the blocks run: the binary is in the path, and addresses are free ones.
struct Shell {
    folder: tempfile::TempDir,
    address: SocketAddr,
    admin: SocketAddr,
    nothing: SocketAddr,
}

impl Shell {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        let binary = env!("CARGO_BIN_EXE_penstock");
        symlink(binary, folder.path().join("bin/penstock")).unwrap();
        Self {
            folder,
            address: free_address(),
            admin: free_address(),
            nothing: free_address(),
        }
    }

    fn command(&self, block: &str) -> Command {
        let block = block
            .replace("cargo run --release --", "penstock")
            .replace("127.0.0.1:4000", &self.address.to_string())
            .replace("127.0.0.1:4001", &self.admin.to_string());
        let path = std::env::var("PATH").unwrap();
        let bin = self.folder.path().join("bin");
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{block}")])
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("PENSTOCK_LISTEN", self.address.to_string())
            .env("PENSTOCK_ADMIN", self.admin.to_string())
            .env("PENSTOCK_ADMIN_URL", format!("http://{}", self.admin))
            .env("PENSTOCK_DISCOVER", self.nothing.port().to_string())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, block: &str) -> Output {
        self.command(block).output().unwrap()
    }

    /// Runs a block that goes on, until the gateway is ready.
    fn start(&self, block: &str) -> Running {
        let mut command = self.command(&format!("exec {}", block.trim()));
        let running = Running(command.stdout(Stdio::null()).spawn().unwrap());
        wait_until(|| get(self.admin, "/readyz").is_some_and(|answer| answer.status == 200));
        running
    }
}

#[test]
fn every_shell_block_of_the_readme_runs() {
    let shell = Shell::new();
    let mut gateway = None;
    let (mut runs, mut tests, mut others) = (0, 0, 0);
    for (language, block) in blocks(&text("README.md")) {
        match (language.as_str(), block.trim()) {
            ("yaml", _) => {
                std::fs::write(shell.folder.path().join("gateway.yaml"), &block).unwrap();
            }
            ("sh", "cargo test --workspace") => {
                let stages = text(".ci/run");
                let called = |line: &str| {
                    line.starts_with("stage test ") && line.contains(" cargo test --workspace")
                };
                assert!(stages.lines().any(called), "{stages}");
                tests += 1;
            }
            ("sh", "cargo run --release -- run") => {
                gateway = Some(shell.start(&block));
                runs += 1;
            }
            ("sh", _) => {
                let out = shell.run(&block);
                let said = String::from_utf8_lossy(&out.stdout);
                assert!(out.status.success(), "{block}\n{said}");
                assert!(
                    !said.trim().is_empty() && !said.contains("\"error\""),
                    "{block}\n{said}"
                );
                others += 1;
            }
            _ => {}
        }
    }
    assert_eq!((runs, tests), (1, 1));
    assert!(others >= 6, "{others} blocks");
    drop(gateway);
}

#[test]
fn every_yaml_block_of_the_documentation_passes_the_check() {
    let shell = Shell::new();
    let authority = crate::certificates::Authority::new();
    let own = authority.sign(&["gateway"]);
    let tls = shell.folder.path().join("tls");
    std::fs::create_dir(&tls).unwrap();
    let files = [
        ("cert.pem", own.chain.clone()),
        ("key.pem", own.key.clone()),
        ("me.pem", own.chain + &own.key),
        ("clients.pem", authority.pem()),
        ("servers.pem", authority.pem()),
    ];
    for (name, text) in files {
        std::fs::write(tls.join(name), text).unwrap();
    }
    let mut checked = 0;
    for name in [
        "README.md",
        "docs/guide.md",
        "docs/errors.md",
        "docs/http.md",
        "docs/metrics.md",
    ] {
        for (language, block) in blocks(&text(name)) {
            if language == "yaml" {
                std::fs::write(shell.folder.path().join("block.yaml"), &block).unwrap();
                let out = shell.run("penstock check block.yaml");
                let said = String::from_utf8_lossy(&out.stdout);
                assert!(out.status.success(), "{name}:\n{block}\n{said}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 4, "{checked} blocks");
}

/// Targets of relative links in Markdown.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split(')').next()?.split('#').next()?;
        let is_local = !target.is_empty() && !target.contains("://");
        is_local.then_some(target)
    })
}

#[test]
fn links_lead_somewhere() {
    let pages = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/guide.md",
        "docs/errors.md",
        "docs/http.md",
        "docs/metrics.md",
        "docs/promises.md",
    ];
    for page in pages {
        let text = text(page);
        let folder = root().join(page).parent().unwrap().to_owned();
        for link in links(&text) {
            assert!(folder.join(link).exists(), "{page}: {link}");
        }
    }
}
